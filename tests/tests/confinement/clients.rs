//! Real programs, of which most know nothing of a proxy: what is allowed works unchanged.

use std::time::Duration;

use e2e::program::{newer_curl, tools};
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

/// Several large programs, one after the other.
const PATIENCE: Duration = Duration::from_secs(300);

/// Each way in a directory of its own: with the sandbox's proxy in the environment, and with none.
const BOTH_WAYS: &str = "set -e; cd \"$HOME\"; mkdir proxy none; cd proxy; (install); cd ../none\n\
     unset HTTP_PROXY HTTPS_PROXY ALL_PROXY http_proxy https_proxy all_proxy; (install)\n";

#[test]
fn git_npm_and_apt() {
    outer("clients::git_npm_and_apt", async |outer| {
        mirrors(&outer).await;
        let base = format!("http://{}", outer.plain());
        let script = format!(
            "install() {{\n\
             git clone -q {base}/git/r.git clone; git -C clone log --format=%s\n\
             echo '{{}}' >package.json\n\
             npm --cache \"$PWD/npm\" --registry {base}/files/npm --no-audit --no-fund --no-update-notifier --silent install house\n\
             node -p 'require(\"house\")'\n\
             mkdir -p apt/lists/partial apt/archives/partial\n\
             echo 'deb [trusted=yes] {base}/files/debian ./' >apt/sources.list\n\
             apt() {{ apt-get -qq -o Dir::Etc::sourcelist=\"$PWD/apt/sources.list\" -o Dir::Etc::sourceparts=/dev/null \
             -o Dir::State=\"$PWD/apt\" -o Dir::State::status=/dev/null -o Dir::Cache=\"$PWD/apt\" \
             -o Acquire::Languages=none \"$@\" >apt.log 2>&1 || {{ cat apt.log >&2; exit 1; }}; }}\n\
             apt update; apt download house; dpkg-deb --extract house_1_all.deb system; cat system/usr/share/house\n\
             }}\n{BOTH_WAYS}"
        );
        let install = outer.run(&[], &["sh", "-c", &script]);
        let done = install.patience(PATIENCE).run().await;
        let stderr = done.stderr.clone();
        let said = done.succeeded();
        let installed = "one\nfrom npm\nfrom apt\n";
        assert_eq!(said, installed.repeat(2), "{stderr}");
        let seen = outer.http.seen();
        for end in ["/git-upload-pack", "/house.tgz", "/house_1_all.deb"] {
            let times = seen.iter().filter(|seen| seen.target.ends_with(end));
            assert!(times.count() >= 2, "{end}: {seen:?}");
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
            "install() {{\n\
             {python} -m pip install --quiet --no-deps --disable-pip-version-check --no-cache-dir \
             --index-url http://{plain}/files/simple --trusted-host plain.allowed.test --target packages sluice-demo\n\
             PYTHONPATH=packages {python} -c 'import sluice_demo; print(sluice_demo.WORD)'\n\
             }}\n{BOTH_WAYS}",
            plain = outer.plain(),
        );
        let install = outer.run_as_root(&[], &["sh", "-c", &script]);
        let said = install.patience(PATIENCE).run().await.succeeded();
        assert_eq!(said, "through the gate\n".repeat(2));
    });
}

/// A program that would rather speak QUIC: its datagrams are refused, and it goes by TCP, or ends where it may not.
#[test]
fn quic_falls_back() {
    outer("clients::quic_falls_back", async |outer| {
        let curl = newer_curl();
        // As root, who may read what tests/run has unpacked.
        let run = |arguments: &[&str]| {
            let curl = curl.iter().map(String::as_str);
            let command: Vec<&str> = curl.chain(arguments.iter().copied()).collect();
            outer.run_as_root(&["--quiet"], &command)
        };
        let version = run(&["--version"]).run().await.succeeded();
        let features = version
            .lines()
            .find_map(|line| line.strip_prefix("Features:"));
        let claims = features.is_some_and(|all| all.split(' ').any(|one| one == "HTTP3"));
        assert!(claims, "{version}");
        let url = format!("https://{}/echo", outer.api());
        let common = ["-sS", "-o", "/dev/null", "--noproxy", "*"];
        let told = ["-w", "%{http_version} %{http_code}", "--http3", &url];
        let done = run(&[&common[..], &told].concat()).run().await;
        assert_eq!(done.succeeded(), "2 200");
        let datagrams = format!("udp {} (", outer.api());
        let refused = |record: &e2e::Record| {
            let reason = record.text("reason") == "unsupported_protocol";
            reason && record.text("target").starts_with(&datagrams)
        };
        let tried = outer.records().iter().any(refused);
        assert!(tried, "{:#?}", outer.records());
        // What may not go by TCP would wait for an answer to its first datagram.
        let alone = ["--http3-only", "--max-time", "300", &url];
        let done = run(&[&common[..], &alone].concat()).run().await;
        let code = done.code.unwrap();
        assert!(code != 0 && code != 28, "{code}: {}", done.stderr);
    });
}

/// A repository, and a package with its index of each kind, as files the origin serves.
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
    let packages = "set -e; mkdir -p npm debian made/package made/deb/DEBIAN made/deb/usr/share\n\
        echo '{\"name\": \"house\", \"version\": \"1.0.0\", \"main\": \"house.js\"}' >made/package/package.json\n\
        echo 'module.exports = \"from npm\"' >made/package/house.js\n\
        tar -C made -czf npm/house.tgz package\n\
        echo 'from apt' >made/deb/usr/share/house\n\
        printf 'Package: house\\nVersion: 1\\nArchitecture: all\\nMaintainer: a <a@b.test>\\nDescription: x\\n' >made/deb/DEBIAN/control\n\
        cd debian; dpkg-deb --root-owner-group --build ../made/deb house_1_all.deb >/dev/null\n\
        dpkg-deb --field house_1_all.deb >Packages\n\
        echo \"Filename: ./house_1_all.deb\nSize: $(stat -c %s house_1_all.deb)\" >>Packages\n\
        echo \"SHA256: $(sha256sum house_1_all.deb | cut -d' ' -f1)\" >>Packages\n\
        sha1sum ../npm/house.tgz | cut -d' ' -f1\n";
    let made = Program::new("sh").args(["-c", packages]).cwd(root);
    let sum = made.run().await.succeeded();
    let tarball = format!("http://{}/files/npm/house.tgz", outer.plain());
    let package = serde_json::json!({
        "name": "house",
        "dist-tags": {"latest": "1.0.0"},
        "versions": {"1.0.0": {"name": "house", "version": "1.0.0",
            "dist": {"tarball": tarball, "shasum": sum.trim()}}},
    });
    std::fs::write(root.join("npm/house"), package.to_string()).unwrap();
}
