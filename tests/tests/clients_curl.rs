//! A newer curl than Debian's: HTTP/2 to the proxy, and HTTP/3.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use e2e::origin::{pattern_digest, write_pattern};
use e2e::program::Finished;
use e2e::{Ask, Gateway, Program, Record, Session, World, servers};
use serde_json::Value;

/// For each transfer: its HTTP version, how many connections it made, and from which port.
const TOLD: &str = "%{stderr}transfer %{http_version} %{num_connects} %{local_port}\\n";

/// This curl says that it can: one that cannot is no witness.
async fn claims(feature: &str) {
    let version = Program::newer_curl().arg("--version").run().await;
    let said = version.succeeded();
    let features = said.lines().find_map(|line| line.strip_prefix("Features:"));
    let has = features.is_some_and(|all| all.split_whitespace().any(|one| one == feature));
    assert!(has, "{feature}: {said}");
}

/// curl in a session's environment, by HTTP/2 to the public listener, with a credential of whoever asks.
fn through(gateway: &Gateway, session: &Session, credential: &str) -> Program {
    let proxy = format!("https://127.0.0.1:{}", gateway.ports.public.port());
    let bundle = session.bundle();
    let curl = Program::newer_curl()
        .args(["-sS", "--max-time", "60", "--proxy-http2"])
        .args(["--proxy", &proxy, "--proxy-user", credential])
        .arg("--proxy-cacert")
        .arg(bundle)
        .args(["-w", TOLD]);
    session.program(curl)
}

/// What [`TOLD`] has said of each transfer.
fn transfers(done: &Finished) -> Vec<[String; 3]> {
    let lines = done.stderr.lines();
    let told = lines.filter_map(|line| line.strip_prefix("transfer "));
    told.map(|line| {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        words.try_into().unwrap()
    })
    .collect()
}

/// Waits for the record of a tunnel or a request over HTTP/2: refused for this reason, or ended by itself (a program that exits with
/// bytes unread ends with RST, whatever it meant).
async fn recorded(gateway: &Gateway, front: &str, target: &str, refused: Option<&str>) {
    let wanted = |record: &Record| {
        let of = |key: &str| record.text(key);
        let ended = match refused {
            Some(reason) => (of("outcome"), of("reason")) == ("refused", reason),
            None => ["completed", "reset"].contains(&of("outcome")),
        };
        ended && (of("front"), of("target"), of("protocol")) == (front, target, "h2")
    };
    let what = format!("{front} {target} over HTTP/2, refused: {refused:?}");
    gateway.record(&what, wanted).await;
}

/// A tunnel is a stream, and what is in it is HTTP/2 again; a second transfer finds it there.
#[tokio::test]
async fn tunnels_over_http2() {
    claims("HTTP2").await;
    claims("HTTPS-proxy").await;
    let world = World::start().await;
    let nginx = servers::nginx(&world.ca, &["nginx.allowed.test"]).await;
    world.dns.point("nginx.allowed.test");
    std::fs::write(nginx.path("html/page"), "from nginx\n").unwrap();
    let (target, api) = (
        format!("nginx.allowed.test:{}", nginx.address.port()),
        world.api(),
    );
    let ask = Ask {
        allow: &[&target, &api],
        ..Ask::default()
    };
    let session = world.session_for(ask).await;
    let curl = || through(&world.gateway, &session, session.userinfo());
    let page = format!("https://{target}/page");
    let done = curl().args(["-v", "--fail", &page, &page]).run().await;
    let negotiated = "CONNECT tunnel: HTTP/2 negotiated";
    assert!(done.stderr.contains(negotiated), "{}", done.stderr);
    let told = transfers(&done);
    let [first, second] = &told[..] else {
        panic!("{told:?}: {}", done.stderr);
    };
    assert_eq!((&*first[0], &*first[1]), ("2", "1"), "{}", done.stderr);
    assert_eq!((&*second[0], &*second[1]), ("2", "0"), "{}", done.stderr);
    assert_eq!(first[2], second[2]);
    assert_eq!(done.succeeded(), "from nginx\nfrom nginx\n");
    recorded(&world.gateway, "connect", &target, None).await;
    // More than any window holds, either way.
    let file = session.directory().join("upload");
    write_pattern(5_000_000, &mut std::fs::File::create(&file).unwrap()).unwrap();
    let upload = curl().arg("-T").arg(&file);
    let said = upload.arg(format!("https://{api}/upload")).run().await;
    let expected = format!("5000000 {}\n", pattern_digest(5_000_000));
    assert_eq!(said.succeeded(), expected);
    let down = session.directory().join("download");
    let url = format!("https://{api}/download?bytes=7000001");
    let download = curl().arg("--fail").arg("-o").arg(&down).arg(&url);
    download.run().await.succeeded();
    let sum = Program::new("sha256sum").arg(&down).run().await.succeeded();
    assert!(sum.starts_with(&pattern_digest(7_000_001)), "{sum}");
    for record in world.gateway.records() {
        assert!(!record.mentions(session.handle()), "{record:?}");
    }
}

/// Plain requests are requests over HTTP/2 too: those for several hosts share the connection, and a refused one costs the next nothing.
#[tokio::test]
async fn plain_requests_over_http2() {
    let world = World::start().await;
    world.dns.point("other.allowed.test");
    let (plain, other) = (
        world.plain(),
        format!("other.allowed.test:{}", world.http.port()),
    );
    let ask = Ask {
        allow: &[&plain, &other],
        ..Ask::default()
    };
    let session = world.session_for(ask).await;
    let done = through(&world.gateway, &session, session.userinfo())
        .args(["-D", "heads", "-o", "first", "-o", "refused", "-o", "last"])
        .arg(format!("http://{plain}/echo"))
        .arg("http://evil.test/")
        .arg(format!("http://{other}/echo"))
        .run()
        .await;
    let told = transfers(&done);
    let made: Vec<&str> = told.iter().map(|one| &*one[1]).collect();
    assert_eq!(made, ["1", "0", "0"], "{}", done.stderr);
    assert!(told.iter().all(|one| one[0] == "2"), "{told:?}");
    done.succeeded();
    let read = |name: &str| std::fs::read_to_string(session.directory().join(name)).unwrap();
    for passed in ["first", "last"] {
        assert!(read(passed).contains("\"GET\""), "{}", read(passed));
    }
    let heads = read("heads");
    assert!(heads.contains("HTTP/2 403"), "{heads}");
    let status = "proxy-status: sluicegate; error=";
    assert!(heads.contains(status), "{heads}");
    let refused: Value = serde_json::from_str(&read("refused")).unwrap();
    assert_eq!(refused["reason"], "host_not_allowed", "{refused}");
    assert_eq!(refused["host"], "evil.test", "{refused}");
    for (target, refused) in [
        (&*plain, None),
        ("evil.test:80", Some("host_not_allowed")),
        (&*other, None),
    ] {
        recorded(&world.gateway, "forward", target, refused).await;
    }
    assert_eq!(world.dns.queries_for("evil.test"), 0);
    for seen in world.http.seen() {
        assert_eq!(seen.values("proxy-authorization"), Vec::<&str>::new());
    }
}

/// Of a CONNECT that is refused this curl tells nothing but that it failed; of a plain request all there is.
#[tokio::test]
async fn refusals_over_http2() {
    let world = World::start().await;
    let session = world.session().await;
    let url = format!("http://{}/echo", world.plain());
    let (own, forged, api) = (session.userinfo(), "sluicegate:wrong", world.api());
    for (credential, target, reason) in [
        (own, "evil.test:443", "host_not_allowed"),
        (forged, &*api, "credential_invalid"),
    ] {
        let done = through(&world.gateway, &session, credential);
        let done = done.arg(format!("https://{target}/echo")).run().await;
        assert_eq!(done.code, Some(56), "{target}: {}", done.stderr);
        recorded(&world.gateway, "connect", target, Some(reason)).await;
    }
    let wrong = through(&world.gateway, &session, forged);
    let unknown = wrong.args(["-i", &url]).run().await.succeeded();
    assert!(unknown.starts_with("HTTP/2 407"), "{unknown}");
    let asks = "\nproxy-authenticate: basic";
    assert!(unknown.to_lowercase().contains(asks), "{unknown}");
    assert!(unknown.contains("credential_invalid"), "{unknown}");
    assert_eq!(world.https.seen().len() + world.http.seen().len(), 0);
    assert_eq!(world.dns.queries(), [], "nothing was to be resolved");
}

/// Not as a proxy, which no curl knows: what the public listener serves of its own.
#[tokio::test]
async fn http3_to_the_public_listener() {
    claims("HTTP3").await;
    let world = World::start().await;
    let session = world.session().await;
    let base = format!("https://127.0.0.1:{}", world.gateway.ports.public.port());
    let fetch = async |path: &str| {
        let curl = Program::newer_curl()
            .args(["-sS", "--max-time", "60", "--http3-only", "--noproxy", "*"])
            .args(["-w", "\n%{http_version} %{response_code}"]);
        let done = session.program(curl).arg(format!("{base}{path}"));
        done.run().await.succeeded()
    };
    assert_eq!(fetch("/healthz").await, "ok\n\n3 200");
    let keys = fetch("/.well-known/jwks.json").await;
    let (keys, told) = keys.rsplit_once('\n').unwrap();
    let keys: Value = serde_json::from_str(keys).unwrap();
    assert_eq!(
        (keys["keys"][0]["crv"].as_str(), told),
        (Some("Ed25519"), "3 200")
    );
    let nothing = fetch("/admin/api/v1/sessions").await;
    assert!(nothing.ends_with("\n3 404"), "{nothing}");
}
