//! A reload reaches what is open: tunnels, streams, and connections that are kept for further requests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use e2e::gateway::NOTHING_EXCEPTED;
use e2e::raw::drain;
use e2e::tasks::until_told;
use e2e::{
    Ask, Ca, Dns, Forwarder, Gateway, Origin, RawOrigin, Session, Settings, Tasks, Wire, until,
    within,
};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{Method, Request};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

#[path = "reload/fronts.rs"]
mod fronts;

/// What a record says of a tunnel that was cut for the way it went.
const OTHER_WAY: &str = "upstreamProxy has it go another way now";

/// A connection of HTTP/2 to the public listener.
struct Http2 {
    requests: SendRequest<Bytes>,
    authorization: String,
    _tasks: Tasks,
}

impl Http2 {
    async fn connect(gateway: &Gateway, session: &Session) -> Self {
        let wire = Wire::dial(gateway.ports.public).await;
        let tls = wire.tls(session.gateway_tls(&[b"h2"]), "127.0.0.1").await;
        let builder = h2::client::Builder::new();
        let (requests, driver) = builder.handshake::<_, Bytes>(tls.stream).await.unwrap();
        let tasks = Tasks::default();
        tasks.spawn(async move { drop(driver.await) });
        Self {
            requests,
            authorization: format!("Bearer {}", session.handle()),
            _tasks: tasks,
        }
    }

    /// The answer's status, and both ways of the stream.
    async fn ask(&self, method: Method, uri: &str) -> (u16, SendStream<Bytes>, RecvStream) {
        let request = Request::builder()
            .method(&method)
            .uri(uri)
            .header("proxy-authorization", &self.authorization)
            .body(())
            .unwrap();
        let ready = within("a place on the connection", self.requests.clone().ready());
        let mut requests = ready.await.unwrap();
        let end = method != Method::CONNECT;
        let (response, send) = requests.send_request(request, end).unwrap();
        let response = within("an answer", response).await.unwrap();
        (response.status().as_u16(), send, response.into_body())
    }
}

/// Everything until the stream ends, in whichever way: did it end in order?
async fn ended(mut body: RecvStream) -> bool {
    while let Some(data) = within("the stream's end", body.data()).await {
        let Ok(data) = data else { return false };
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    true
}

/// GET in absolute-form on a connection that may be used again: the status, and the reason of a refusal.
async fn get(session: &Session, wire: &mut Wire, authority: &str) -> (u16, String) {
    let line = format!("GET http://{authority}/echo");
    let host = format!("Host: {authority}\r\n");
    session.ask(wire, &line, &host).await;
    answer(wire).await
}

async fn answer(wire: &mut Wire) -> (u16, String) {
    let reply = wire.reply().await;
    let reason = match reply.status() {
        200 => String::new(),
        _ => reply.json()["reason"].as_str().unwrap().to_owned(),
    };
    (reply.status(), reason)
}

/// A tunnel that has carried its first bytes, and its far end.
async fn open(session: &Session, target: &str, origin: &RawOrigin) -> (Wire, Wire) {
    begun(session.tunnel(target).await, origin).await
}

/// The same of a tunnel that is open.
async fn begun<S: AsyncRead + AsyncWrite + Unpin>(
    mut wire: Wire<S>,
    origin: &RawOrigin,
) -> (Wire<S>, Wire) {
    wire.send("\0open").await;
    let mut far = Wire::over(origin.accept().await);
    far.through(b"open").await;
    (wire, far)
}

/// It still carries, both ways.
async fn goes_on<S: AsyncRead + AsyncWrite + Unpin>((near, far): &mut (Wire<S>, Wire)) {
    near.send("more").await;
    far.through(b"more").await;
    far.send("and back").await;
    near.through(b"and back").await;
}

async fn reload(gateway: &Gateway, settings: &Settings) {
    gateway.reconfigure(settings);
    gateway.cli(&["reload"]).await.succeeded();
}

async fn is_cut<S: AsyncRead + AsyncWrite + Unpin>(
    gateway: &Gateway,
    wire: &mut Wire<S>,
    target: &str,
    changed: &str,
) {
    let took = wire.cut().await;
    assert!(took < Duration::from_secs(1), "{target}: {took:?}");
    let cut = |one: &e2e::Record| {
        one.text("target") == target
            && one.text("outcome") == "cut"
            && one.text("reason") == "policy_changed"
    };
    let record = gateway.record("the cut tunnel's record", cut).await;
    assert!(record.text("detail").ends_with(changed), "{record:?}");
}

#[tokio::test]
async fn an_answer_that_is_taken_away_ends_what_it_let_in() {
    let root = tempfile::tempdir().unwrap();
    let (dns, ca) = (Dns::start().await, Ca::create());
    let (raw, http) = (
        RawOrigin::start().await,
        Origin::http(root.path().to_owned()).await,
    );
    let hosts = |hosts: &str| Settings {
        runtime: NOTHING_EXCEPTED.to_owned(),
        more: format!(
            "dns: {{servers: [\"{}\"], hosts: {{{hosts}}}}}\n",
            dns.address
        ),
        ..Settings::default()
    };
    let both = "corp.test: 127.0.0.1, stays.test: 127.0.0.1";
    let gateway = Gateway::start(&hosts(both)).await;
    let of = |name: &str, port: u16| format!("{name}:{port}");
    let goes = of("corp.test", raw.address.port());
    let stays = of("stays.test", raw.address.port());
    let (web, other) = (of("corp.test", http.port()), of("stays.test", http.port()));
    let allow = [goes.as_str(), &stays, &web, &other];
    let ask = Ask {
        allow: &allow,
        ..Ask::default()
    };
    let session = Session::create(&gateway, &ca, ask).await;

    let mut cut = open(&session, &goes, &raw).await;
    let mut kept = open(&session, &stays, &raw).await;
    let mut forward = session.dial().await;
    assert_eq!(get(&session, &mut forward, &web).await.0, 200);
    // Plain HTTP in a tunnel, each of whose requests is judged by itself.
    let mut inside = session.tunnel(&web).await;
    let request = format!("GET /echo HTTP/1.1\r\nHost: {web}\r\n\r\n");
    inside.send(&request).await;
    assert_eq!(answer(&mut inside).await.0, 200);
    let h2 = Http2::connect(&gateway, &session).await;
    let (status, mut up, down) = h2.ask(Method::CONNECT, &goes).await;
    assert_eq!(status, 200);
    up.send_data(Bytes::from_static(b"\0open"), false).unwrap();
    let mut stream_far = Wire::over(raw.accept().await);
    stream_far.through(b"open").await;
    let plain = format!("http://{web}/echo");
    let (status, _up, body) = h2.ask(Method::GET, &plain).await;
    assert_eq!((status, ended(body).await), (200, true));

    reload(&gateway, &hosts("stays.test: 127.0.0.1")).await;
    let special = "its address would be refused now: special_address";
    is_cut(&gateway, &mut cut.0, &goes, special).await;
    assert!(!ended(down).await, "a cut stream is reset");
    drain(&mut stream_far.stream).await;
    goes_on(&mut kept).await;
    // What is asked for on connections from before is asked of the configuration of now, and dialled by nobody.
    let seen = http.seen().len();
    let missing = (502, "dns_not_found".to_owned());
    for _ in 0..2 {
        assert_eq!(get(&session, &mut forward, &web).await, missing);
    }
    inside.send(&request).await;
    assert_eq!(answer(&mut inside).await, missing);
    assert_eq!(h2.ask(Method::CONNECT, &goes).await.0, 502);
    assert_eq!(h2.ask(Method::GET, &plain).await.0, 502);
    assert_eq!(http.seen().len(), seen);
    // They are as good as new for what is allowed.
    assert_eq!(get(&session, &mut forward, &other).await.0, 200);
    let plain = format!("http://{other}/echo");
    assert_eq!(h2.ask(Method::GET, &plain).await.0, 200);
    // And for what is allowed again.
    reload(&gateway, &hosts(both)).await;
    assert_eq!(get(&session, &mut forward, &web).await.0, 200);
    goes_on(&mut kept).await;
}

fn chained(dns: SocketAddr, proxy: Option<&str>) -> Settings {
    let proxy = proxy.map(|lines| format!("upstreamProxy: {{{lines}}}\n"));
    Settings {
        dns: Some(dns),
        limits: "  dialTimeout: 60s\n".to_owned(),
        more: format!("probe: {{interval: 0}}\n{}", proxy.unwrap_or_default()),
        ..Settings::default()
    }
}

#[tokio::test]
async fn a_proxy_that_must_be_asked_is_walked_round_by_nobody() {
    let root = tempfile::tempdir().unwrap();
    let (dns, ca, proxy) = (Dns::start().await, Ca::create(), Forwarder::start().await);
    let raw = RawOrigin::start().await;
    let http = Origin::http(root.path().to_owned()).await;
    for name in [
        "raw.allowed.test",
        "free.allowed.test",
        "plain.allowed.test",
    ] {
        dns.point(name);
    }
    let gateway = Gateway::start(&chained(dns.address, None)).await;
    let target = format!("raw.allowed.test:{}", raw.address.port());
    let free = format!("free.allowed.test:{}", raw.address.port());
    let plain = format!("plain.allowed.test:{}", http.port());
    let allow = [target.as_str(), &free, &plain];
    let ask = Ask {
        allow: &allow,
        ..Ask::default()
    };
    let session = Session::create(&gateway, &ca, ask).await;
    let mut direct = open(&session, &target, &raw).await;
    let mut bypassing = open(&session, &free, &raw).await;
    let mut forward = session.dial().await;
    assert_eq!(get(&session, &mut forward, &plain).await.0, 200);

    let lines = format!(
        "url: \"http://{}\", bypass: [\"free.allowed.test:*\"",
        proxy.address
    );
    let mandatory = format!("{lines}]");
    reload(&gateway, &chained(dns.address, Some(&mandatory))).await;
    is_cut(&gateway, &mut direct.0, &target, OTHER_WAY).await;
    goes_on(&mut bypassing).await;
    let asked = format!("127.0.0.1:{}", http.port());
    assert_eq!(get(&session, &mut forward, &plain).await.0, 200);
    assert_eq!(proxy.asked(), [asked.as_str()]);

    // What the proxy carries goes on while it is the way out, whatever else changes.
    let mut through = open(&session, &target, &raw).await;
    assert_eq!(proxy.asked().len(), 2);
    let wider = format!("{lines}, \"raw.allowed.test:*\"]");
    reload(&gateway, &chained(dns.address, Some(&wider))).await;
    goes_on(&mut through).await;
    goes_on(&mut bypassing).await;

    reload(&gateway, &chained(dns.address, None)).await;
    is_cut(&gateway, &mut through.0, &target, OTHER_WAY).await;
    goes_on(&mut bypassing).await;
    assert_eq!(get(&session, &mut forward, &plain).await.0, 200);
    assert_eq!(proxy.asked().len(), 2, "it is asked for nothing any more");
}

#[tokio::test]
async fn what_is_being_opened_is_begun_anew_by_the_way_out_of_now() {
    let (dns, ca) = (Dns::start().await, Ca::create());
    // A proxy that never answers.
    let (proxy, raw) = (RawOrigin::start().await, RawOrigin::start().await);
    dns.point("raw.allowed.test");
    let lines = format!("url: \"http://{}\", bypass: []", proxy.address);
    let gateway = Gateway::start(&chained(dns.address, Some(&lines))).await;
    let target = format!("raw.allowed.test:{}", raw.address.port());
    let ask = Ask {
        allow: &[&target],
        ..Ask::default()
    };
    let session = Session::create(&gateway, &ca, ask).await;
    let mut wire = session.dial().await;
    wire.send(session.connect_head(&target)).await;
    let mut forward = session.dial().await;
    let line = format!("GET http://{target}/");
    let host = format!("Host: {target}\r\n");
    session.ask(&mut forward, &line, &host).await;
    let mut held = [proxy.accept().await, proxy.accept().await];

    reload(&gateway, &chained(dns.address, None)).await;
    assert_eq!(wire.head().await.status, 200);
    for held in &mut held {
        drain(held).await;
    }
    // Two connections come, in either order: the tunnel's says nothing by itself.
    let mut first = Wire::over(raw.accept().await);
    let mut second = Wire::over(raw.accept().await);
    wire.send("\0open").await;
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let tunnel = if first.next().await == b'G' {
        first.through(b"\r\n\r\n").await;
        first.send(answer).await;
        &mut second
    } else {
        second.through(b"\r\n\r\n").await;
        second.send(answer).await;
        &mut first
    };
    tunnel.through(b"open").await;
    assert_eq!(forward.reply().await.status(), 200);
    let of_request =
        |one: &e2e::Record| one.text("kind") == "request" && one.text("target") == target;
    let record = gateway.record("the request's record", of_request).await;
    assert!(!record.mentions("through the upstream proxy"), "{record:?}");
}

/// It has carried nothing, and belongs to the configuration that it was dialled by, as every connection that idles does.
#[tokio::test]
async fn what_a_connect_dialled_is_let_go_before_its_first_request() {
    let (dns, ca, raw) = (Dns::start().await, Ca::create(), RawOrigin::start().await);
    dns.point("raw.allowed.test");
    let settings = Settings {
        dns: Some(dns.address),
        limits: "  headTimeout: 10m\n  firstBytesTimeout: 10m\n".to_owned(),
        ..Settings::default()
    };
    let gateway = Gateway::start(&settings).await;
    let target = format!("raw.allowed.test:{}", raw.address.port());
    let ask = Ask {
        allow: &[&target],
        ..Ask::default()
    };
    let session = Session::create(&gateway, &ca, ask).await;
    let mut inside = session.tunnel(&target).await;
    let mut far = raw.accept().await;
    // It shows that it is plain HTTP, which nobody sees from outside: until then a reload lets the tunnel be.
    inside.send("GET / HTTP/1.1\r\n").await;
    until_told("what was dialled is closed", async || {
        reload(&gateway, &settings).await;
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_millis(100), far.read(&mut byte));
        match read.await {
            Ok(Ok(1)) => panic!("a byte of a request that is not whole went up"),
            Ok(_) => Some(()),
            Err(_) => None,
        }
    })
    .await;
    inside.send(format!("Host: {target}\r\n\r\n")).await;
    let mut again = Wire::over(raw.accept().await);
    again.through(b"\r\n\r\n").await;
    again
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        .await;
    assert_eq!(inside.reply().await.status(), 200);
}

/// What was begun is no less done where its asker hangs up in the middle of it.
#[tokio::test]
async fn a_reload_goes_on_without_whoever_asked_for_it() {
    let (dns, ca, raw) = (Dns::start().await, Ca::create(), RawOrigin::start().await);
    dns.point("raw.allowed.test");
    let gateway = Gateway::start(&chained(dns.address, None)).await;
    let target = format!("raw.allowed.test:{}", raw.address.port());
    let ask = Ask {
        allow: &[&target],
        ..Ask::default()
    };
    let session = Session::create(&gateway, &ca, ask).await;
    let mut direct = open(&session, &target, &raw).await;

    // A file that the gateway has to wait for.
    let mandatory = "url: \"http://127.0.0.1:9\", bypass: []";
    gateway.reconfigure(&chained(dns.address, Some(mandatory)));
    let path = gateway.directory().join("sluicegate.yaml");
    let yaml = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let token = std::fs::read_to_string(gateway.state().join("admin.token")).unwrap();
    let management = gateway.ports.management;
    let mut asker = Wire::dial(management).await;
    asker
        .send(format!(
            "POST /admin/api/v1/reload HTTP/1.1\r\nHost: {management}\r\nContent-Length: 0\r\n\
             Content-Type: application/json\r\nAuthorization: Bearer {}\r\n\r\n",
            token.trim()
        ))
        .await;
    let writer = || {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        rustix::fs::open(&path, flags, Mode::empty()).ok()
    };
    let mut file = std::fs::File::from(until("the gateway reads its file", writer).await);
    asker.abort();
    file.write_all(&yaml).unwrap();
    drop(file);
    direct.0.cut().await;
    let cut =
        |one: &e2e::Record| one.text("target") == target && one.text("reason") == "policy_changed";
    gateway.record("the cut tunnel's record", cut).await;
}
