//! Real programs, of which most know nothing of a proxy: what is allowed works unchanged.

use e2e::program::tools;
use e2e::{Program, servers};
use serde_json::Value;

use super::outer::{Outer, open_to_all, outer};

fn words<'a>(command: &[&'a str], last: &'a str) -> Vec<&'a str> {
    [command, &[last]].concat()
}

#[test]
fn curl_with_and_without_the_proxy() {
    outer("clients::curl_with_and_without_the_proxy", async |outer| {
        let (secure, plain) = (
            format!("https://{}/echo", outer.api()),
            format!("http://{}/echo", outer.plain()),
        );
        for way in [&["curl", "-sS"][..], &["curl", "-sS", "--noproxy", "*"]] {
            for url in [&secure, &plain] {
                let done = outer.run(&["--quiet"], &words(way, url)).run().await;
                let answer: Value = serde_json::from_str(&done.succeeded()).unwrap();
                assert_eq!(answer["request"]["method"], "GET", "{url}");
            }
        }
        // IPv6 alone, too.
        let six = ["curl", "-sS6", "--noproxy", "*"];
        outer
            .run(&["--quiet"], &words(&six, &secure))
            .run()
            .await
            .succeeded();
        // By one name, with the address of another: the name inside TLS is what counts, and it must be the address's.
        let evil = format!("https://evil.test:{}/", outer.https.port());
        let lie = format!("evil.test:{}:{}", outer.https.port(), outer.api());
        let done = outer
            .run(
                &[],
                &["curl", "-sS", "--noproxy", "*", "--connect-to", &lie, &evil],
            )
            .run()
            .await;
        assert_eq!(done.code, Some(35), "{}", done.stderr);
        assert!(outer.was_refused(&outer.api(), "sni_mismatch"));
        // A host that is not allowed is an answer through the proxy, and no name without it.
        let done = outer.run(&["--json"], &["curl", "-sS", &evil]).run().await;
        assert_eq!(done.code, Some(56));
        let target = format!("evil.test:{}", outer.https.port());
        assert!(outer.was_refused(&target, "host_not_allowed"));
        let told: Value = serde_json::from_str(done.stderr.lines().last().unwrap()).unwrap();
        assert_eq!(told["exitCode"], 56);
        assert_eq!(told["refusals"][0]["target"], target);
        assert_eq!(told["refusals"][0]["flag"], format!("--allow {target}"));
        let done = outer
            .run(&[], &["curl", "-sS", "--noproxy", "*", &evil])
            .run()
            .await;
        assert_eq!(done.code, Some(6));
        assert_eq!(outer.dns.queries_for("evil.test"), 0);
        outer.left_nothing().await;
    });
}

#[test]
fn programs_that_ignore_the_environment() {
    outer(
        "clients::programs_that_ignore_the_environment",
        async |outer| {
            let (secure, plain) = (
                format!("https://{}/echo", outer.api()),
                format!("http://{}/echo", outer.plain()),
            );
            let node = format!(
                "for (const url of ['{secure}', '{plain}']) {{ const answer = await fetch(url); console.log(answer.status); }}\n\
             try {{ await fetch('https://evil.test/'); }} catch (error) {{ console.log(error.cause.code); }}"
            );
            let done = outer
                .run(
                    &["--env", "NODE_USE_ENV_PROXY=0"],
                    &["node", "--input-type=module", "-e", &node],
                )
                .run()
                .await;
            assert_eq!(done.succeeded(), "200\n200\nENOTFOUND\n");
            let python = format!(
                "import socket, ssl\n\
             s = ssl.create_default_context().wrap_socket(socket.create_connection(('api.allowed.test', {port})), server_hostname='api.allowed.test')\n\
             s.sendall(b'GET /echo HTTP/1.1\\r\\nHost: api.allowed.test\\r\\nConnection: close\\r\\n\\r\\n')\n\
             print(s.recv(100).split()[1].decode())\n\
             try: socket.create_connection(('evil.test', 443))\n\
             except socket.gaierror as error: print(error.errno)\n",
                port = outer.https.port()
            );
            let done = outer
                .run(&[], &["/usr/bin/python3", "-c", &python])
                .run()
                .await;
            assert_eq!(done.succeeded(), "200\n-2\n");
            let java = outer.path("Fetch.java");
            let source = "import java.net.*;\n\
            public class Fetch { public static void main(String[] args) throws Exception {\n\
            HttpURLConnection c = (HttpURLConnection) new URL(args[0]).openConnection();\n\
            System.out.println(c.getResponseCode());\n\
            try { new Socket(\"evil.test\", 443); } catch (UnknownHostException e) { System.out.println(\"unknown\"); } } }\n";
            std::fs::write(&java, source).unwrap();
            open_to_all(&java);
            let java = java.display().to_string();
            let done = outer
                .run(&[], &["java", "-Xshare:auto", &java, &plain])
                .run()
                .await;
            assert_eq!(done.succeeded(), "200\nunknown\n");
        },
    );
}

#[test]
fn databases_at_their_own_ports() {
    outer("clients::databases_at_their_own_ports", async |outer| {
        let (redis, postgres) = (servers::redis().await, servers::postgres().await);
        // Each server's directory is its own; the gateway runs as nobody, and comes by TCP.
        let db = format!("db=tcp://{}", postgres.address);
        let cache = format!("cache=tcp://{}", redis.address);
        let script = format!(
            "psql -h 127.0.0.1 -p {pg} -U postgres -Atc 'select 6*7' && redis-cli -p {rd} set k v && redis-cli -p {rd} get k && \
             redis-cli -s \"${{SLUICEGATE_SECOND_SOCKET#unix://}}\" ping && \
             echo $SLUICEGATE_DB_SOCKET $SLUICEGATE_DB_PORT $SLUICEGATE_SERVICES",
            pg = postgres.address.port(),
            rd = redis.address.port(),
        );
        // Its port is taken by the first: it has a unix socket.
        let second = format!("second=tcp://{}", redis.address);
        let flags = ["--service", &db, "--service", &cache, "--service", &second];
        let said = outer
            .run(&flags, &["sh", "-c", &script])
            .run()
            .await
            .succeeded();
        let port = postgres.address.port();
        assert_eq!(
            said,
            format!("42\nOK\nv\nPONG\ntcp://127.0.0.1:{port} {port} db,cache,second\n")
        );
        // What was not asked for is not there, though it listens outside.
        let url = format!("telnet://{}", redis.address);
        let done = outer
            .run(&[], &["curl", "-sS", "--noproxy", "*", &url])
            .run()
            .await;
        assert_eq!(done.code, Some(7), "{}", done.stderr);
    });
}

/// They find neither a proxy in the environment nor one in a file.
const WITHOUT_PROXY: &str = "set -e; unset HTTP_PROXY HTTPS_PROXY ALL_PROXY http_proxy https_proxy all_proxy; cd \"$HOME\"\n";

#[test]
fn git_npm_and_apt() {
    outer("clients::git_npm_and_apt", async |outer| {
        mirrors(&outer).await;
        let base = format!("http://{}", outer.plain());
        let script = format!(
            "{WITHOUT_PROXY}\
             git clone -q {base}/git/r.git clone && git -C clone log --format=%s\n\
             npm --cache \"$HOME/npm\" --registry {base}/files/npm view house version\n\
             mkdir -p apt/lists/partial apt/archives/partial\n\
             echo 'deb [trusted=yes] {base}/files/debian ./' >apt/sources.list\n\
             apt-get -q -o Dir::Etc::sourcelist=\"$HOME/apt/sources.list\" -o Dir::Etc::sourceparts=/dev/null \
             -o Dir::State=\"$HOME/apt\" -o Dir::State::status=/dev/null -o Dir::Cache=\"$HOME/apt\" \
             -o Acquire::Languages=none update 2>&1\n"
        );
        let done = outer.run(&[], &["sh", "-c", &script]).run().await;
        let stderr = done.stderr.clone();
        let said = done.succeeded();
        for line in ["one", "1.0.0", "Reading package lists..."] {
            let found = said.lines().any(|said| said.trim() == line);
            assert!(found, "{line}\n{said}\n{stderr}");
        }
        let seen = outer.http.seen();
        for end in ["/git-upload-pack", "/npm/house", "/Packages"] {
            assert!(
                seen.iter().any(|seen| seen.target.ends_with(end)),
                "{end}: {seen:?}"
            );
        }
    });
}

#[test]
fn pip_as_root() {
    outer("clients::pip_as_root", async |outer| {
        let index = Program::python("make_index.py").arg(outer.directory.path());
        index.run().await.succeeded();
        let python = tools().join("venv/bin/python").display().to_string();
        let script = format!(
            "{WITHOUT_PROXY}\
             {python} -m pip download --quiet --no-deps --disable-pip-version-check --no-cache-dir \
             --index-url http://{plain}/files/simple --trusted-host plain.allowed.test -d wheels sluice-demo\n\
             ls wheels\n",
            plain = outer.plain(),
        );
        let said = outer
            .run_as_root(&[], &["sh", "-c", &script])
            .run()
            .await
            .succeeded();
        assert_eq!(said, "sluice_demo-1.0-py3-none-any.whl\n");
    });
}

/// A repository, and an index of each kind, as files the origin serves.
async fn mirrors(outer: &Outer) {
    let root = outer.directory.path();
    let git = |arguments: &[&str]| {
        Program::new("git")
            .args(["-c", "user.name=a", "-c", "user.email=a@b.test"])
            .args(arguments)
            .cwd(root)
            .run()
    };
    git(&["init", "-q", "source"]).await.succeeded();
    git(&["-C", "source", "commit", "-q", "--allow-empty", "-m", "one"])
        .await
        .succeeded();
    git(&["clone", "-q", "--bare", "source", "r.git"])
        .await
        .succeeded();
    for directory in ["npm", "debian"] {
        std::fs::create_dir(root.join(directory)).unwrap();
    }
    let package = serde_json::json!({
        "name": "house",
        "dist-tags": {"latest": "1.0.0"},
        "versions": {"1.0.0": {"name": "house", "version": "1.0.0",
            "dist": {"tarball": "http://plain.allowed.test/x.tgz", "shasum": "0"}}},
    });
    std::fs::write(root.join("npm/house"), package.to_string()).unwrap();
    std::fs::write(root.join("debian/Packages"), "").unwrap();
}
