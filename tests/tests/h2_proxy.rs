//! The proxy over HTTP/2: classic CONNECT and `connect-tcp`, many tunnels on one connection.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::future::poll_fn;

use bytes::Bytes;
use e2e::raw::{End, FORGED, drain};
use e2e::{Ask, Program, RawOrigin, Session, Tasks, Wire, World, within};
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A raw origin, a session that may reach it and the two usual ones, and an HTTP/2 connection to the public listener.
struct Stage {
    world: World,
    origin: RawOrigin,
    target: String,
    session: Session,
    client: Client,
}

/// One HTTP/2 connection.
struct Client {
    requests: SendRequest<Bytes>,
    tasks: Tasks,
}

/// An answer and its body, read to the end.
struct Answer {
    status: StatusCode,
    fields: HeaderMap,
    body: serde_json::Value,
}

impl Client {
    async fn connect(world: &World, session: &Session) -> Self {
        Self::connect_with(world, session, &h2::client::Builder::new()).await
    }

    async fn connect_with(world: &World, session: &Session, builder: &h2::client::Builder) -> Self {
        let wire = Wire::dial(world.gateway.ports.public).await;
        let tls = wire.tls(session.gateway_tls(&[b"h2"]), "127.0.0.1").await;
        let (requests, driver) = builder.handshake(tls.stream).await.unwrap();
        let tasks = Tasks::default();
        tasks.spawn(async move { drop(driver.await) });
        Self { requests, tasks }
    }

    /// Sends the request; its answer is not awaited.
    async fn send(
        &self,
        request: Request<()>,
        end: bool,
    ) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let ready = within("a place on the connection", self.requests.clone().ready());
        ready.await.unwrap().send_request(request, end).unwrap()
    }

    /// A request that is refused.
    async fn refused(&self, request: Request<()>) -> Answer {
        let (response, _send) = self.send(request, false).await;
        let (head, body) = within("an answer", response).await.unwrap().into_parts();
        let body = read(body).await.unwrap();
        Answer {
            status: head.status,
            fields: head.headers,
            body: serde_json::from_slice(&body).unwrap(),
        }
    }

    /// A tunnel that opens.
    async fn tunnel(&self, request: Request<()>) -> (SendStream<Bytes>, RecvStream) {
        let (response, send) = self.send(request, false).await;
        let response = within("an answer", response).await.unwrap();
        assert_eq!(response.status(), 200);
        (send, response.into_body())
    }
}

/// Everything until END_STREAM.
async fn read(mut body: RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = within("DATA", body.data()).await {
        let data = data?;
        body.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

impl Stage {
    async fn start() -> Self {
        let world = World::start().await;
        let (origin, target) = world.raw_origin().await;
        let (api, plain) = (world.api(), world.plain());
        let ask = Ask {
            allow: &[&target, &api, &plain],
            ..Ask::default()
        };
        let session = world.session_for(ask).await;
        let client = Client::connect(&world, &session).await;
        Self {
            world,
            origin,
            target,
            session,
            client,
        }
    }

    fn classic(&self, target: &str) -> Request<()> {
        Request::builder()
            .method(Method::CONNECT)
            .uri(target)
            .header(
                "proxy-authorization",
                format!("Bearer {}", self.session.handle()),
            )
            .body(())
            .unwrap()
    }

    /// A tunnel to the raw origin, and the origin's end.
    async fn pair(&self) -> (SendStream<Bytes>, RecvStream, TcpStream) {
        let (send, receive) = self.client.tunnel(self.classic(&self.target)).await;
        (send, receive, self.origin.accept().await)
    }
}

fn noise(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n * 31 % 251) as u8).collect()
}

#[tokio::test]
async fn a_tunnel_carries_both_ways_and_its_ends() {
    let stage = Stage::start().await;
    let (mut send, receive, mut far) = stage.pair().await;
    let question = noise(400_000);
    let sending = async {
        for part in question.chunks(10_000) {
            send.send_data(Bytes::copy_from_slice(part), false).unwrap();
        }
        send.send_data(Bytes::new(), true).unwrap();
    };
    let ((heard, end), ()) = tokio::join!(drain(&mut far), sending);
    assert!(heard == question && end == End::Fin, "{}", heard.len());
    // END_STREAM was FIN; the other half goes on, and its FIN is END_STREAM.
    let answer = noise(2_000_000);
    let answering = async {
        far.write_all(&answer).await.unwrap();
        far.shutdown().await.unwrap();
    };
    let (heard, ()) = tokio::join!(read(receive), answering);
    assert!(heard.unwrap() == answer);
    let record = stage.world.gateway.record_of(&stage.target).await;
    assert_eq!(
        (record.text("kind"), record.text("front")),
        ("tunnel", "connect")
    );
    assert_eq!(record.text("outcome"), "completed", "{record:?}");
    assert_eq!(
        (record.number("bytesUp"), record.number("bytesDown")),
        (Some(400_000), Some(2_000_000))
    );
    assert!(!record.mentions(stage.session.handle()));
}

#[tokio::test]
async fn a_reset_is_a_reset_in_either_direction() {
    let stage = Stage::start().await;
    // The origin's RST is RST_STREAM(CONNECT_ERROR); the neighbour on the same connection goes on.
    let (mut other, other_receive, mut other_far) = stage.pair().await;
    let (_send, receive, mut far) = stage.pair().await;
    far.write_all(b"220 ready\r\n").await.unwrap();
    let mut receive = receive;
    let data = within("the greeting", receive.data()).await.unwrap();
    assert_eq!(data.unwrap().as_ref(), b"220 ready\r\n");
    Wire::over(far).abort();
    let error = read(receive).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::CONNECT_ERROR));
    // The client's RST_STREAM, whatever its code, is RST.
    for reason in [Reason::CANCEL, Reason::NO_ERROR, Reason::CONNECT_ERROR] {
        let (mut send, _receive, mut far) = stage.pair().await;
        send.send_data(Bytes::from_static(b"*1\r\n"), false)
            .unwrap();
        let mut first = [0; 4];
        within("the first bytes", far.read_exact(&mut first))
            .await
            .unwrap();
        send.send_reset(reason);
        assert_eq!(
            drain(&mut far).await,
            (Vec::new(), End::Reset),
            "{reason:?}"
        );
    }
    other
        .send_data(Bytes::from_static(b"*1\r\n"), true)
        .unwrap();
    assert_eq!(drain(&mut other_far).await, (b"*1\r\n".to_vec(), End::Fin));
    other_far.write_all(b"still here").await.unwrap();
    other_far.shutdown().await.unwrap();
    assert_eq!(read(other_receive).await.unwrap(), b"still here");
}

#[tokio::test]
async fn refusals_say_why_and_cost_nobody_else_anything() {
    let stage = Stage::start().await;
    let (mut send, _receive, mut far) = stage.pair().await;
    let mut anonymous = stage.classic("api.allowed.test:443");
    anonymous.headers_mut().remove("proxy-authorization");
    let mut forged = stage.classic("api.allowed.test:443");
    let wrong = "Bearer sgh_nonsense".parse().unwrap();
    forged.headers_mut().insert("proxy-authorization", wrong);
    let mut twice = stage.classic("api.allowed.test:443");
    let again = twice.headers()["proxy-authorization"].clone();
    twice.headers_mut().append("proxy-authorization", again);
    let mut host = stage.classic("api.allowed.test:443");
    host.headers_mut()
        .insert("host", "evil.test".parse().unwrap());
    let own = stage.world.gateway.ports.plain.to_string();
    let rows = [
        (anonymous, 407, "credential_missing"),
        (forged, 407, "credential_invalid"),
        (twice, 400, "malformed_request"),
        (host, 400, "host_mismatch"),
        (stage.classic("evil.test:443"), 403, "host_not_allowed"),
        (
            stage.classic("api.allowed.test:22"),
            403,
            "port_not_allowed",
        ),
        (stage.classic("10.0.0.1:443"), 403, "address_not_allowed"),
        (stage.classic(&own), 403, "address_not_allowed"),
        (
            stage.classic("api.allowed.test:0443"),
            400,
            "malformed_target",
        ),
    ];
    for (request, status, reason) in rows {
        let answer = stage.client.refused(request).await;
        assert_eq!(answer.body["reason"], reason);
        assert_eq!(answer.status, status, "{reason}");
        assert!(answer.fields.contains_key("proxy-status"), "{reason}");
        let asks = answer.fields.get_all("proxy-authenticate").iter().count();
        assert_eq!(asks, if status == 407 { 2 } else { 0 }, "{reason}");
        assert!(!answer.fields.contains_key("www-authenticate"), "{reason}");
        let id = answer.body["requestId"].clone();
        let gateway = &stage.world.gateway;
        let record = gateway.record(reason, |r| r.0["id"] == id).await;
        assert_eq!(record.text("front"), "connect");
    }
    send.send_data(Bytes::from_static(b"*1\r\n"), true).unwrap();
    assert_eq!(drain(&mut far).await, (b"*1\r\n".to_vec(), End::Fin));
    let asked = stage.world.dns.queries();
    let denied = asked
        .iter()
        .any(|query| format!("{query:?}").contains("evil"));
    assert!(!denied, "a denied name was asked for: {asked:?}");
}

#[tokio::test]
async fn first_bytes_are_judged_and_plain_http_is_answered() {
    let stage = Stage::start().await;
    // A whole hello for another name is cut with an alert; nothing of it goes up.
    let (mut send, receive, mut far) = stage.pair().await;
    let config = e2e::Ca::create().client(&[]);
    let name = "evil.test".try_into().unwrap();
    let mut tls = rustls::ClientConnection::new(config, name).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    send.send_data(hello.into(), false).unwrap();
    let mut receive = receive;
    let alert = within("an alert", receive.data()).await.unwrap().unwrap();
    assert_eq!(alert.as_ref(), [21, 3, 3, 0, 2, 2, 49]);
    assert_eq!(drain(&mut far).await, (Vec::new(), End::Reset));
    // Plain HTTP inside is judged request by request.
    let plain = stage.world.plain();
    let (mut send, receive) = stage.client.tunnel(stage.classic(&plain)).await;
    let inside = format!(
        "GET /echo HTTP/1.1\r\nHost: {plain}\r\n\r\nGET /echo HTTP/1.1\r\nHost: evil.test\r\n\r\n"
    );
    send.send_data(inside.into(), false).unwrap();
    let answers = String::from_utf8(read(receive).await.unwrap()).unwrap();
    assert!(answers.starts_with("HTTP/1.1 200 "), "{answers}");
    assert!(answers.contains("host_mismatch"), "{answers}");
    let gateway = &stage.world.gateway;
    gateway
        .record("the refused request", |r| {
            r.text("reason") == "host_mismatch"
        })
        .await;
}

#[tokio::test]
async fn connect_tcp_reaches_the_same_pipeline() {
    let stage = Stage::start().await;
    let (host, port) = stage.target.rsplit_once(':').unwrap();
    let ask = |host: &str, port: &str, token: &str| {
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!(
                "https://gateway.test/.well-known/masque/tcp/{host}/{port}/"
            ))
            .header("authorization", format!("Bearer {token}"))
            .header("capsule-protocol", "?1")
            .body(())
            .unwrap();
        let protocol = Protocol::from_static("connect-tcp");
        request.extensions_mut().insert(protocol);
        request
    };
    let handle = stage.session.handle();
    // Whatever is first on the connection, SETTINGS are in when it is answered.
    let denied = stage.client.refused(stage.classic("evil.test:443")).await;
    assert_eq!(denied.status, 403);
    let (mut send, receive) = stage.client.tunnel(ask(host, port, handle)).await;
    let mut far = stage.origin.accept().await;
    let question = noise(100_000);
    send.send_data(e2e::capsules::whole(&question).into(), true)
        .unwrap();
    assert_eq!(drain(&mut far).await, (question, End::Fin));
    far.write_all(b"an answer").await.unwrap();
    far.shutdown().await.unwrap();
    let heard = read(receive).await.unwrap();
    // The sum of the DATA capsules, however they were cut, and FINAL_DATA.
    let (near, far) = tokio::io::duplex(1024);
    let mut wire = Wire::over(near);
    let mut far = far;
    far.write_all(&heard).await.unwrap();
    assert_eq!(wire.until_fin().await, b"an answer");
    let egress = stage.session.variable("SLUICEGATE_PROXY_TOKEN");
    let relay = stage.session.variable("SLUICEGATE_RELAY_TOKEN");
    for (request, status, reason) in [
        (ask("evil.test", "443", egress), 403, "host_not_allowed"),
        (
            ask("api.allowed.test", "443", relay),
            401,
            "credential_invalid",
        ),
        (
            ask("api.allowed.test", "443", "x"),
            401,
            "credential_invalid",
        ),
        (ask("%3A%3A1", "443", egress), 403, "address_not_allowed"),
        (
            ask("api.allowed.test", "0", egress),
            400,
            "malformed_target",
        ),
    ] {
        let answer = stage.client.refused(request).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["reason"]),
            (status, &reason.into())
        );
        assert_eq!(
            answer.fields.contains_key("www-authenticate"),
            status == 401
        );
        assert!(!answer.fields.contains_key("proxy-authenticate"));
    }
}

/// What absolute-form is in HTTP/1.1: `:scheme` http and another authority, each request judged by itself.
#[tokio::test]
async fn plain_requests_are_forwarded() {
    let stage = Stage::start().await;
    let plain = stage.world.plain();
    let ask = |method: Method, authority: &str, path: &str| {
        Request::builder()
            .method(method)
            .uri(format!("http://{authority}{path}"))
            .header(
                "proxy-authorization",
                format!("Bearer {}", stage.session.handle()),
            )
    };
    let fetch = async |request: Request<()>, body: Option<&[u8]>| {
        let (response, mut send) = stage.client.send(request, body.is_none()).await;
        if let Some(body) = body {
            send.send_data(Bytes::copy_from_slice(body), true).unwrap();
        }
        let (head, body) = within("an answer", response).await.unwrap().into_parts();
        (head, read(body).await.unwrap())
    };
    let get = ask(Method::GET, &plain, "/echo?secret=1")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(())
        .unwrap();
    let (head, body) = fetch(get, None).await;
    assert_eq!(head.status, 200);
    assert!(head.headers.contains_key("via"));
    let echo: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let seen = echo["request"].to_string().to_lowercase();
    assert!(seen.contains("a=1; b=2"), "{seen}");
    assert!(!seen.contains("proxy-authorization"), "{seen}");
    // A body whose length nobody said.
    let post = ask(Method::POST, &plain, "/echo").body(()).unwrap();
    let sent = noise(50_000);
    let (head, body) = fetch(post, Some(&sent)).await;
    assert_eq!(head.status, 200);
    let echo: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(echo["request"]["method"], "POST", "{echo}");
    let mut anonymous = ask(Method::GET, &plain, "/echo").body(()).unwrap();
    anonymous.headers_mut().remove("proxy-authorization");
    let mut differs = ask(Method::GET, &plain, "/echo").body(()).unwrap();
    differs
        .headers_mut()
        .insert("host", "evil.test".parse().unwrap());
    for (request, status, reason) in [
        (anonymous, 407, "credential_missing"),
        (differs, 400, "host_mismatch"),
        (
            ask(Method::GET, "evil.test", "/").body(()).unwrap(),
            403,
            "host_not_allowed",
        ),
    ] {
        let answer = stage.client.refused(request).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["reason"]),
            (status, &reason.into())
        );
    }
    let record = stage
        .world
        .gateway
        .record("the request", |r| {
            r.text("front") == "forward" && r.text("path") == "/echo?…"
        })
        .await;
    assert_eq!(record.text("outcome"), "completed", "{record:?}");
    // An answer that is cut is reset, not ended.
    let raw = ask(Method::GET, &stage.target, "/").body(()).unwrap();
    let (response, _send) = stage.client.send(raw, true).await;
    let mut far = Wire::over(stage.origin.accept().await);
    far.through(b"\r\n\r\n").await;
    far.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        .await;
    let response = within("an answer", response).await.unwrap();
    drop(far);
    assert!(read(response.into_body()).await.is_err());
}

/// What HTTP/1's reader refuses, HTTP/2's requests are refused for too: more than one length, fields without end, a CONNECT with two
/// hosts or with content. A gRPC call for another host is that host's.
#[tokio::test]
async fn what_is_refused_over_http1_is_refused_here() {
    let stage = Stage::start().await;
    let bearer = format!("Bearer {}", stage.session.handle());
    let uri = format!("http://{}/echo", stage.world.plain());
    let ask = |method: Method| {
        Request::builder()
            .method(method)
            .uri(&uri)
            .header("proxy-authorization", &bearer)
    };
    let connect = || stage.classic(&stage.target);
    let twice = ask(Method::POST)
        .header("content-length", "7")
        .header("content-length", "7");
    let mut many = ask(Method::GET);
    for _ in 0..100 {
        many = many.header("x-more", "1");
    }
    let mut hosts = connect();
    hosts
        .headers_mut()
        .append("host", stage.target.parse().unwrap());
    hosts
        .headers_mut()
        .append("host", "evil.test".parse().unwrap());
    let mut content = connect();
    content
        .headers_mut()
        .append("content-length", "5".parse().unwrap());
    for (request, status) in [
        (twice.body(()).unwrap(), 400),
        (many.body(()).unwrap(), 431),
        (hosts, 400),
        (content, 400),
    ] {
        let what = format!("{request:?}");
        let (response, mut send) = stage.client.send(request, false).await;
        // Refused by either side: h2 may reset what it finds malformed.
        let _ = send.send_data(Bytes::from_static(b"7 bytes"), true);
        match within("an answer", response).await {
            Ok(response) => assert_eq!(response.status(), status, "{what}"),
            Err(error) => assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR), "{what}"),
        }
    }
    let grpc = ask(Method::POST).header("content-type", "application/grpc-web+proto");
    let (response, mut send) = stage.client.send(grpc.body(()).unwrap(), false).await;
    send.send_data(Bytes::from_static(b"frame"), true).unwrap();
    let response = within("an answer", response).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers().contains_key("via"));
}

/// Nobody asks for the answer's next bytes while its client takes none: the end of its right must reach it all the same.
#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_too() {
    let stage = Stage::start().await;
    // Its window is more than the standstill's MiB.
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(2 << 20);
    builder.initial_connection_window_size(4 << 20);
    let client = Client::connect_with(&stage.world, &stage.session, &builder).await;
    let uri = format!("http://{}/download?bytes=67108864", stage.world.plain());
    let bearer = format!("Bearer {}", stage.session.handle());
    let request = Request::get(uri).header("proxy-authorization", bearer);
    let (response, _send) = client.send(request.body(()).unwrap(), true).await;
    let response = within("an answer", response).await.unwrap();
    assert_eq!(response.status(), 200);
    let gateway = &stage.world.gateway;
    stage.session.stands_still(gateway).await;
    stage.session.revoke(gateway).await;
    stage.session.cut_at_once(gateway, "session_revoked").await;
    let error = read(response.into_body()).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
}

/// A client's reset is noticed though its upstream takes nothing.
#[tokio::test]
async fn a_reset_is_noticed_behind_a_frozen_upstream() {
    let stage = Stage::start().await;
    let (mut send, _receive, far) = stage.pair().await;
    // More than the sockets between hold, so that the pump stands still.
    send.reserve_capacity(1 << 20);
    let mut sent = 0;
    while sent < 64 << 20 {
        let room = tokio::time::timeout(
            std::time::Duration::from_secs(1),
            poll_fn(|cx| send.poll_capacity(cx)),
        );
        let Ok(Some(Ok(room))) = room.await else {
            break;
        };
        send.send_data(vec![b'*'; room].into(), false).unwrap();
        sent += room;
        send.reserve_capacity(1 << 20);
    }
    assert!(sent < 64 << 20, "the upstream is not frozen");
    send.send_reset(Reason::CANCEL);
    let record = stage.world.gateway.record_of(&stage.target).await;
    assert_eq!(
        (record.text("outcome"), record.text("closedBy")),
        ("reset", "downstream")
    );
    drop(far);
}

/// A client that gives up while its target is dialled ends the dial, and is recorded so.
#[tokio::test]
async fn giving_up_ends_the_open() {
    let stage = Stage::start().await;
    // A name whose answer never comes: the open waits for the resolver.
    stage
        .world
        .dns
        .set("slow.allowed.test", e2e::Answer::Silent);
    let session = stage
        .world
        .session_for(Ask {
            allow: &["slow.allowed.test:443"],
            ..Ask::default()
        })
        .await;
    let mut request = stage.classic("slow.allowed.test:443");
    let credential = format!("Bearer {}", session.handle()).parse().unwrap();
    request
        .headers_mut()
        .insert("proxy-authorization", credential);
    let (_response, mut send) = stage.client.send(request, false).await;
    e2e::until("the query", || {
        (!stage.world.dns.queries().is_empty()).then_some(())
    })
    .await;
    send.send_reset(Reason::CANCEL);
    let record = stage.world.gateway.record_of("slow.allowed.test:443").await;
    assert_eq!(
        (record.text("outcome"), record.text("closedBy")),
        ("reset", "downstream")
    );
}

#[tokio::test]
async fn drain_says_goaway_and_lets_tunnels_end() {
    let stage = Stage::start().await;
    let (mut send, receive, mut far) = stage.pair().await;
    send.send_data(Bytes::from_static(b"*1\r\n"), false)
        .unwrap();
    far.read_exact(&mut [0; 4]).await.unwrap();
    stage.world.gateway.terminate();
    // GOAWAY: the connection takes no more streams.
    let mut requests = stage.client.requests.clone();
    let refusing = async {
        loop {
            let asked = poll_fn(|cx| requests.poll_ready(cx)).await;
            if asked.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    within("GOAWAY", refusing).await;
    far.write_all(b"to the end").await.unwrap();
    far.shutdown().await.unwrap();
    send.send_data(Bytes::new(), true).unwrap();
    assert_eq!(read(receive).await.unwrap(), b"to the end");
    let _ = &stage.client.tasks;
}

#[tokio::test]
async fn node_tunnels_through_http2() {
    let world = World::start().await;
    let session = world.session().await;
    let proxy = world.gateway.ports.public.to_string();
    let base = format!("https://{}", world.api());
    let node =
        Program::node("h2_proxy.mjs").args([proxy.as_str(), &base, "--denied", "evil.test:443"]);
    session.program(node).run().await.succeeded();
}

#[tokio::test]
async fn an_origin_cannot_speak_in_the_gateways_name() {
    let stage = Stage::start().await;
    let request = Request::builder()
        .uri(format!("http://{}/", stage.target))
        .header(
            "proxy-authorization",
            format!("Bearer {}", stage.session.handle()),
        )
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, _send) = stage.client.send(request, true).await;
    let mut far = Wire::over(stage.origin.accept().await);
    far.through(b"\r\n\r\n").await;
    far.send(FORGED).await;
    let (head, mut body) = within("an answer", response).await.unwrap().into_parts();
    assert_eq!(head.status, 403);
    let said: Vec<_> = head.headers.get_all("proxy-status").iter().collect();
    assert_eq!(said, ["cdn; error=x"]);
    while let Some(data) = within("DATA", body.data()).await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    let trailers = within("trailers", body.trailers()).await.unwrap().unwrap();
    let names: Vec<_> = trailers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["x-kept"]);
}
