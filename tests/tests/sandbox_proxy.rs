//! `sluicegate-relay up --proxy`: programs in the sandbox go out through it, and hold no credential.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::net::SocketAddr;
use std::path::Path;

use e2e::program::{Running, binary};
use e2e::raw::End;
use e2e::{Ask, Program, RawOrigin, Session, Wire, World, until};
use rustix::process::geteuid;
use serde_json::Value;
use tokio::net::UnixStream;

#[path = "sandbox_proxy/requests.rs"]
mod requests;

/// A world, a session and the proxy in front of it.
struct Stage {
    world: World,
    origin: RawOrigin,
    target: String,
    session: Session,
    proxy: Proxy,
}

/// A running `sluicegate-relay up --proxy`.
struct Proxy {
    process: Running,
    address: String,
}

impl Proxy {
    async fn up(session: &Session, place: &str, more: &[&str]) -> Self {
        let program = Program::new(binary("sluicegate-relay"));
        Self::start(program, session, place, more).await
    }

    async fn start(program: Program, session: &Session, place: &str, more: &[&str]) -> Self {
        // Several proxies of one session: each has a log of its own.
        let number = std::fs::read_dir(session.directory()).unwrap().count();
        let log = session.directory().join(format!("proxy-{number}.log"));
        let program = session.program(program);
        let program = program.args(["up", "--json", "--proxy", place]).args(more);
        let mut process = program.start(&log);
        let address = until("the proxy", || {
            let said = process.said();
            assert_eq!(process.ended(), None, "it ended: {said}");
            let events = said
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut proxy = events.filter(|event| event["event"] == "proxy");
            proxy
                .next()
                .map(|event| event["address"].as_str().unwrap().to_owned())
        })
        .await;
        Self { process, address }
    }

    fn socket(&self) -> SocketAddr {
        self.address
            .strip_prefix("http://")
            .unwrap()
            .parse()
            .unwrap()
    }

    async fn dial(&self) -> Wire {
        Wire::dial(self.socket()).await
    }
}

impl Stage {
    async fn start() -> Self {
        Self::with(&[]).await
    }

    async fn with(more: &[&str]) -> Self {
        let world = World::start().await;
        let (origin, target) = world.raw_origin().await;
        let (api, plain) = (world.api(), world.plain());
        let ask = Ask {
            allow: &[&target, &api, &plain],
            ..Ask::default()
        };
        let session = world.session_for(ask).await;
        let proxy = Proxy::up(&session, "127.0.0.1:0", more).await;
        Self {
            world,
            origin,
            target,
            session,
            proxy,
        }
    }

    /// A program with the proxy in its environment, and no credential of the session's.
    fn program(&self, program: Program) -> Program {
        let program = self.session.program(program);
        let mut program = ["SLUICEGATE_RELAY_TOKEN", "SLUICEGATE_PROXY_TOKEN"]
            .into_iter()
            .fold(program, |program, name| program.env(name, ""));
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            program = program
                .env(name, &self.proxy.address)
                .env(name.to_lowercase(), &self.proxy.address);
        }
        program
    }

    fn curl(&self, arguments: &[&str]) -> Program {
        let curl = Program::new("curl").args(["-sS", "--noproxy", "", "--max-time", "30"]);
        self.program(curl.args(arguments))
    }
}

#[tokio::test]
async fn curl_goes_out_by_both_forms() {
    // Which one it would choose by itself is a question of who answers first.
    let stage = Stage::with(&["--transport", "quic"]).await;
    let secure = format!("https://{}/echo", stage.world.api());
    let plain = format!("http://{}/echo?x=1", stage.world.plain());
    for url in [&secure, &plain] {
        let answer = stage.curl(&[url]).run().await.succeeded();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["request"]["method"], "GET", "{url}");
        let fields = answer["request"].to_string().to_lowercase();
        assert!(!fields.contains("proxy-authorization"), "{fields}");
    }
    let gateway = &stage.world.gateway;
    let record = gateway.record_of(&stage.world.api()).await;
    assert_eq!(
        (record.text("kind"), record.text("front")),
        ("tunnel", "quic")
    );
    assert_eq!(record.0["session"]["id"], stage.session.json["id"]);
    // The request is judged and recorded as one.
    let request = gateway
        .record("the request", |record| {
            record.text("kind") == "request" && record.text("target") == stage.world.plain()
        })
        .await;
    assert_eq!(
        (request.text("method"), request.text("path")),
        ("GET", "/echo?…")
    );
    // A megabyte up in one request, chunked, and its answer.
    let body = stage.session.directory().join("body");
    std::fs::write(&body, vec![b'z'; 1 << 20]).unwrap();
    let data = format!("@{}", body.display());
    for url in [&secure, &plain] {
        let sent = stage.curl(&[
            "-H",
            "Transfer-Encoding: chunked",
            "--data-binary",
            &data,
            url,
        ]);
        let answer: Value = serde_json::from_str(&sent.run().await.succeeded()).unwrap();
        assert_eq!(answer["request"]["method"], "POST", "{url}");
    }
}

#[tokio::test]
async fn refusals_reach_the_program_unchanged() {
    let stage = Stage::start().await;
    let mut wire = stage.proxy.dial().await;
    wire.send("CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n")
        .await;
    let reply = wire.reply().await;
    assert_eq!(reply.status(), 403);
    assert_eq!(reply.json()["reason"], "host_not_allowed");
    assert!(reply.head.value("proxy-status").starts_with("sluicegate; "));
    let record = stage.world.gateway.record_of("evil.test:443").await;
    assert_eq!(reply.json()["requestId"], record.0["id"]);
    // Absolute-form: the same, and the connection serves the next request, to another target.
    let mut wire = stage.proxy.dial().await;
    let plain = stage.world.plain();
    for (authority, status) in [
        (plain.as_str(), 200),
        ("evil.test", 403),
        (plain.as_str(), 200),
        (plain.as_str(), 200),
    ] {
        wire.send(format!(
            "GET http://{authority}/echo HTTP/1.1\r\nHost: {authority}\r\n\r\n"
        ))
        .await;
        let reply = wire.reply().await;
        assert_eq!(reply.status(), status, "{authority}: {}", reply.text());
        if status == 403 {
            assert_eq!(reply.json()["reason"], "host_not_allowed");
        }
    }
    // What is no proxy request says so.
    for request in [
        "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET https://api.allowed.test/ HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n",
        "CONNECT api.allowed.test HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n",
        "CONNECT api.allowed.test:443 HTTP/1.1\r\nHost: api.allowed.test\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        let mut wire = stage.proxy.dial().await;
        wire.send(request).await;
        assert_eq!(wire.reply().await.status(), 400, "{request}");
    }
    assert_eq!(stage.world.dns.queries_for("evil.test"), 0);
}

#[tokio::test]
async fn ends_are_carried_as_they_are() {
    let stage = Stage::start().await;
    let connect = format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", stage.target);
    let open = async || {
        let mut wire = stage.proxy.dial().await;
        // The first bytes may come with the request.
        wire.send(format!("{connect}*1\r\n")).await;
        assert_eq!(wire.head().await.status, 200);
        let mut far = Wire::over(stage.origin.accept().await);
        assert_eq!(far.take(4).await, b"*1\r\n");
        (wire, far)
    };
    let (mut wire, mut far) = open().await;
    wire.send("question").await;
    wire.finish().await;
    assert_eq!(far.rest().await, (b"question".to_vec(), End::Fin));
    far.send("answer").await;
    far.finish().await;
    assert_eq!(wire.rest().await, (b"answer".to_vec(), End::Fin));
    let (mut wire, far) = open().await;
    far.abort();
    assert_eq!(wire.rest().await.1, End::Reset);
    let (wire, mut far) = open().await;
    wire.abort();
    assert_eq!(far.rest().await.1, End::Reset);
    // A revoked session's tunnel is cut, and the next one refused: by the gateway, as a refusal.
    let (mut wire, _far) = open().await;
    stage.session.revoke(&stage.world.gateway).await;
    assert_eq!(wire.rest().await.1, End::Reset);
    let mut wire = stage.proxy.dial().await;
    wire.send(&connect).await;
    let reply = wire.reply().await;
    assert_eq!(
        (reply.status(), reply.json()["reason"].clone()),
        (403, "credential_invalid".into())
    );
    assert_eq!(reply.head.value("www-authenticate"), "");
}

/// What curl gets as another user; `None` where this process may not become one.
async fn as_another(stage: &Stage, url: &str) -> Option<String> {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can run a program as another user");
        return None;
    }
    let curl = Program::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .args(["curl", "-sS", "--noproxy", "", "--max-time", "30"])
        .args(["-o", "-", "-w", "%{http_code}", "--proxy"])
        .args([stage.proxy.address.as_str(), url]);
    Some(curl.cwd(Path::new("/")).run().await.succeeded())
}

#[tokio::test]
async fn it_serves_its_own_user_only() {
    let stage = Stage::start().await;
    let url = format!("http://{}/echo", stage.world.plain());
    if let Some(said) = as_another(&stage, &url).await {
        assert!(said.contains("peer_not_allowed"), "{said}");
        assert!(said.ends_with("403"), "{said}");
        let told = || stage.proxy.process.said().contains("another user");
        until("what the proxy says of it", || told().then_some(())).await;
    }
    stage.curl(&[&url]).run().await.succeeded();
}

/// The next generation's token, where the one before it was read from.
#[tokio::test]
async fn its_token_is_found_in_its_file() {
    let stage = Stage::start().await;
    let (session, gateway) = (&stage.session, &stage.world.gateway);
    let files = ["SLUICEGATE_RELAY_TOKEN", "SLUICEGATE_PROXY_TOKEN"].map(|name| {
        let file = session.directory().join(name);
        std::fs::write(&file, session.variable(name)).unwrap();
        (name, file)
    });
    let [(_, relay), (_, own)] = &files;
    let more = ["--token-file", relay.to_str().unwrap()];
    let own = ["--proxy-token-file", own.to_str().unwrap()];
    let proxy = Proxy::up(session, "127.0.0.1:0", &[more, own].concat()).await;
    let target = &stage.target;
    let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    let asked = async || {
        let mut wire = proxy.dial().await;
        wire.send(head.as_str()).await;
        wire.head().await.status
    };
    assert_eq!(asked().await, 200);
    let which = ["--provider", "test", session.id()];
    gateway
        .cli(&[&["session", "reset"], which.as_slice()].concat())
        .await
        .succeeded();
    assert_eq!(asked().await, 403);
    let start = [&["session", "start"], which.as_slice()].concat();
    let started = [start.as_slice(), &["--format", "json"]].concat();
    let started = gateway.cli(&started).await.succeeded();
    let started: Value = serde_json::from_str(&started).unwrap();
    for (name, file) in &files {
        std::fs::write(file, started["env"][name].as_str().unwrap()).unwrap();
    }
    assert_eq!(asked().await, 200);
}

/// More silent connections of another user's than it may have descriptors. Some are reset before they know that they are open.
#[tokio::test]
async fn another_user_uses_nothing_up() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can run a program as another user");
        return;
    }
    let stage = Stage::start().await;
    let few = Program::new("sh").args(["-c", "ulimit -n 128; exec \"$0\" \"$@\""]);
    let few = few.arg(binary("sluicegate-relay"));
    let proxy = Proxy::start(few, &stage.session, "127.0.0.1:0", &[]).await;
    let script = format!(
        "import socket, time\n\
         held = []\n\
         for _ in range(400):\n    \
             try:\n        \
                 held.append(socket.create_connection(('127.0.0.1', {}), 60))\n    \
             except ConnectionResetError:\n        \
                 pass\n\
         print('held', flush=True)\n\
         time.sleep(600)\n",
        proxy.socket().port()
    );
    let flood = Program::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .args(["/usr/bin/python3", "-c", &script])
        .cwd(Path::new("/"))
        .start(&stage.session.directory().join("flood.log"));
    until("the flood", || flood.said().contains("held").then_some(())).await;
    for _ in 0..3 {
        let mut wire = Wire::dial(proxy.socket()).await;
        let target = &stage.target;
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        wire.send(head).await;
        assert_eq!(wire.head().await.status, 200);
    }
    let open = format!("/proc/{}/fd", proxy.process.id());
    let few = || (std::fs::read_dir(&open).unwrap().count() < 64).then_some(());
    until("the strangers' end", few).await;
    let said = proxy.process.said();
    assert!(!said.contains("cannot accept"), "{said}");
}

#[tokio::test]
async fn or_any_user_where_it_is_told_to() {
    let stage = Stage::with(&["--any-uid"]).await;
    let url = format!("http://{}/echo", stage.world.plain());
    if let Some(said) = as_another(&stage, &url).await {
        assert!(said.ends_with("200"), "{said}");
    }
}

#[tokio::test]
async fn on_a_unix_socket() {
    let world = World::start().await;
    let session = world.session().await;
    let path = session.directory().join("proxy.sock");
    let place = format!("unix://{}", path.display());
    let proxy = Proxy::up(&session, &place, &[]).await;
    assert_eq!(proxy.address, place);
    let mut wire = Wire::over(UnixStream::connect(&path).await.unwrap());
    wire.send(format!(
        "CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n",
        world.api()
    ))
    .await;
    assert_eq!(wire.head().await.status, 200);
    let tls = world.ca.client(&[b"http/1.1"]);
    let mut tls = wire.tls(tls, "api.allowed.test").await;
    tls.send("GET /echo HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n")
        .await;
    assert_eq!(tls.reply().await.status(), 200);
}

#[tokio::test]
async fn without_a_gateway_it_is_an_outage_and_not_a_refusal() {
    let mut stage = Stage::start().await;
    let mut wire = stage.proxy.dial().await;
    wire.send(format!(
        "CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n*1\r\n",
        stage.target
    ))
    .await;
    assert_eq!(wire.head().await.status, 200);
    let _far = stage.origin.accept().await;
    stage
        .world
        .gateway
        .process
        .signal(rustix::process::Signal::KILL);
    stage.world.gateway.process.wait("the gateway's end").await;
    // What was open is reset, not ended, and nothing new falls through to anywhere.
    assert_eq!(wire.rest().await.1, End::Reset);
    let mut wire = stage.proxy.dial().await;
    wire.send("CONNECT api.allowed.test:443 HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n")
        .await;
    let reply = wire.reply().await;
    assert_eq!(
        (reply.status(), reply.json()["reason"].clone()),
        (502, "gateway_unreachable".into())
    );
    stage.world.gateway.restart().await;
    stage
        .curl(&[&format!("http://{}/echo", stage.world.plain())])
        .run()
        .await
        .succeeded();
}
