//! `connect-tcp` over HTTP/1.1: an Upgrade, then capsules on the connection itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::io::{Read, Write};
use std::sync::Arc;

use e2e::capsules::{self, DATA, FINAL_DATA, capsule, switch, upgrade, whole};
use e2e::raw::{End, drain};
use e2e::{Ask, RawOrigin, Session, Wire, World};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// A raw service `db`, a raw origin `raw.allowed.test`, and a session that may reach both.
struct Stage {
    world: World,
    service: RawOrigin,
    origin: RawOrigin,
    target: String,
    session: Session,
}

impl Stage {
    async fn start() -> Self {
        let world = World::start().await;
        let service = RawOrigin::start().await;
        let (origin, target) = world.raw_origin().await;
        let url = format!("db=tcp://{}", service.address);
        let (api, plain) = (world.api(), world.plain());
        let session = world
            .session_for(Ask {
                services: &[&url],
                allow: &[&target, &api, &plain],
                ..Ask::default()
            })
            .await;
        Self {
            world,
            service,
            origin,
            target,
            session,
        }
    }

    fn relay_token(&self) -> &str {
        self.session.variable("SLUICEGATE_RELAY_TOKEN")
    }

    /// The request for a stream to `db`.
    fn relay(&self) -> String {
        upgrade("/relay/v1/db", self.relay_token())
    }

    /// The request for a tunnel.
    fn egress(&self, target: &str) -> String {
        capsules::egress(target, self.session.handle())
    }

    async fn plain(&self) -> Wire {
        Wire::dial(self.world.gateway.ports.plain).await
    }

    /// A stream to `db` on a plain connection, and the service's end.
    async fn pair(&self) -> (Wire, TcpStream) {
        let mut wire = self.plain().await;
        switch(&mut wire, &self.relay()).await;
        (wire, self.service.accept().await)
    }
}

/// Half a megabyte each way, each half ended by itself, and the connection after both.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(mut wire: Wire<S>, mut far: TcpStream) {
    let question: Vec<u8> = (0..500_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let (heard, end) = {
        let sending = wire.send(whole(&question));
        let (heard, ()) = tokio::join!(drain(&mut far), sending);
        heard
    };
    assert!(
        heard == question && end == End::Fin,
        "{} {end:?}",
        heard.len()
    );
    // Our FIN is through; the other half goes on.
    let answer: Vec<u8> = question.iter().rev().copied().collect();
    let answering = async {
        far.write_all(&answer).await.unwrap();
        far.shutdown().await.unwrap();
    };
    let (heard, ()) = tokio::join!(wire.until_fin(), answering);
    assert!(heard == answer, "{}", heard.len());
    assert_eq!(wire.rest().await, (Vec::new(), End::Fin));
}

#[tokio::test]
async fn a_stream_on_a_plain_connection() {
    let stage = Stage::start().await;
    let (wire, far) = stage.pair().await;
    converse(wire, far).await;
    let gateway = &stage.world.gateway;
    let record = gateway
        .record("the stream", |record| record.text("service") == "db")
        .await;
    assert_eq!(
        (
            record.text("kind"),
            record.text("front"),
            record.text("outcome")
        ),
        ("stream", "connect-tcp", "completed")
    );
    assert_eq!(record.number("status"), Some(101));
    assert_eq!(
        (record.number("bytesUp"), record.number("bytesDown")),
        (Some(500_000), Some(500_000))
    );
    assert!(!record.mentions(stage.relay_token()));
}

#[tokio::test]
async fn a_stream_on_a_tls_connection() {
    let stage = Stage::start().await;
    let wire = Wire::dial(stage.world.gateway.ports.public).await;
    let mut wire = wire
        .tls(stage.session.gateway_tls(&[b"http/1.1"]), "127.0.0.1")
        .await;
    switch(&mut wire, &stage.relay()).await;
    let far = stage.service.accept().await;
    converse(wire, far).await;
}

#[tokio::test]
async fn a_refusal_leaves_the_connection_for_the_next_request() {
    let stage = Stage::start().await;
    let token = stage.relay_token();
    let anonymous = upgrade("/relay/v1/db", token).replace("Authorization", "X-Nothing");
    let rows = [
        (anonymous, 401, "credential_missing"),
        (
            upgrade("/relay/v1/db", "nonsense"),
            401,
            "credential_invalid",
        ),
        // The audience is the relay's; a tunnel asks for the other one.
        (
            capsules::egress("api.allowed.test:443", token),
            401,
            "credential_invalid",
        ),
        (
            upgrade("/relay/v1/other", token),
            403,
            "service_not_allowed",
        ),
        (stage.egress("evil.test:443"), 403, "host_not_allowed"),
        (upgrade("/relay/v2/db", token), 404, "not_found"),
    ];
    let mut wire = stage.plain().await;
    for (request, status, reason) in rows {
        wire.send(&request).await;
        let reply = wire.reply().await;
        let said = (reply.status(), reply.json()["reason"].clone());
        assert_eq!(said, (status, reason.into()), "{request}");
        assert!(reply.head.value("proxy-status").contains("error="));
        let challenged = !reply.head.value("www-authenticate").is_empty();
        assert_eq!(challenged, status == 401, "{reply:?}");
        assert_eq!(reply.head.value("proxy-authenticate"), "", "never 407");
        let id = reply.json()["requestId"].clone();
        stage
            .world
            .gateway
            .record(reason, |record| record.0["id"] == id)
            .await;
    }
    stage.service.stays_alone().await;
    assert_eq!(stage.world.dns.queries(), [], "a denied name was asked for");
    switch(&mut wire, &stage.relay()).await;
    converse(wire, stage.service.accept().await).await;
}

#[tokio::test]
async fn what_is_no_upgrade_is_not_one() {
    let stage = Stage::start().await;
    let relay = stage.relay();
    let rows = [
        (relay.replace("Connection: Upgrade\r\n", ""), 404),
        (relay.replace("connect-tcp\r\n", "websocket\r\n"), 404),
        (relay.replace("HTTP/1.1", "HTTP/1.0"), 404),
        (relay.replace("GET", "POST"), 400),
        (relay.replace("/relay/v1/db", "/relay/v1/db?x=1"), 400),
        (stage.egress("api.allowed.test:0443"), 400),
        (stage.egress("[::1]:443"), 400),
    ];
    for (request, status) in rows {
        let mut wire = stage.plain().await;
        wire.send(&request).await;
        assert_eq!(wire.reply().await.status(), status, "{request}");
        if status == 400 {
            assert_eq!(wire.rest().await, (Vec::new(), End::Fin), "{request}");
        }
    }
    stage.service.stays_alone().await;
}

#[tokio::test]
async fn data_before_the_101_is_refused() {
    let stage = Stage::start().await;
    let mut wire = stage.plain().await;
    let early = [stage.relay().as_bytes(), &capsule(DATA, b"early")].concat();
    wire.send(early).await;
    assert_eq!(wire.reply().await.status(), 400);
    stage.service.stays_alone().await;
}

#[tokio::test]
async fn no_abrupt_end_looks_like_a_clean_one() {
    let stage = Stage::start().await;
    // The client's connection ends in every way but the right one: inside a capsule, between two, by RST.
    for (what, bytes, abort) in [
        ("between capsules", capsule(DATA, b"hello"), false),
        ("inside one", capsule(DATA, b"hello")[..8].to_vec(), false),
        ("by RST", capsule(DATA, b"hello"), true),
    ] {
        let (mut wire, mut far) = stage.pair().await;
        wire.send(bytes).await;
        let mut first = [0; 2];
        e2e::within(what, far.read_exact(&mut first)).await.unwrap();
        if abort {
            wire.abort();
        } else {
            wire.finish().await;
        }
        assert_eq!(drain(&mut far).await.1, End::Reset, "{what}");
    }
    // After a FIN there is nothing more to say; what follows it is not passed on, and ends the stream as a fault does. The FIN itself may
    // have been passed on before.
    let (mut wire, mut far) = stage.pair().await;
    wire.send([capsule(FINAL_DATA, b"he"), capsule(DATA, b"llo")].concat())
        .await;
    let mut first = [0; 2];
    e2e::within("what ended", far.read_exact(&mut first))
        .await
        .unwrap();
    assert!(drain(&mut far).await.0.is_empty());
    assert_eq!(wire.rest().await, (Vec::new(), End::Reset));
    // The service's RST: on a plain connection RST, under TLS an end without close_notify.
    let (mut wire, far) = stage.pair().await;
    wire.send(capsule(DATA, b"hello")).await;
    Wire::over(far).abort();
    assert_eq!(wire.rest().await, (Vec::new(), End::Reset));
    let wire = Wire::dial(stage.world.gateway.ports.public).await;
    let tls = stage.session.gateway_tls(&[b"http/1.1"]);
    let mut wire = wire.tls(tls, "127.0.0.1").await;
    switch(&mut wire, &stage.relay()).await;
    Wire::over(stage.service.accept().await).abort();
    let mut rest = Vec::new();
    let end = e2e::within("the end", wire.stream.read_to_end(&mut rest)).await;
    assert!(end.is_err() && rest.is_empty(), "{end:?} {rest:?}");
}

#[tokio::test]
async fn revoked_sessions_lose_their_streams() {
    let stage = Stage::start().await;
    let (mut wire, mut far) = stage.pair().await;
    wire.send(capsule(DATA, b"!")).await;
    far.read_exact(&mut [0]).await.unwrap();
    stage.session.revoke(&stage.world.gateway).await;
    assert_eq!(drain(&mut far).await, (Vec::new(), End::Reset));
    assert_eq!(wire.rest().await.1, End::Reset);
}

/// TLS inside capsules: sends `request` and answers everything until the tunnel's end.
async fn exchange(
    wire: &mut Wire,
    config: Arc<rustls::ClientConfig>,
    name: &str,
    request: &str,
) -> String {
    let name = name.to_owned().try_into().unwrap();
    let mut tls = rustls::ClientConnection::new(config, name).unwrap();
    tls.writer().write_all(request.as_bytes()).unwrap();
    let mut heard = Vec::new();
    loop {
        let mut bytes = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut bytes).unwrap();
        }
        if !bytes.is_empty() {
            wire.send(capsule(DATA, &bytes)).await;
        }
        let (kind, payload) = wire.capsule().await;
        let mut payload = payload.as_slice();
        while !payload.is_empty() {
            tls.read_tls(&mut payload).unwrap();
            tls.process_new_packets().unwrap();
            let _ = tls.reader().read_to_end(&mut heard);
        }
        if kind == u64::from(FINAL_DATA) {
            return String::from_utf8(heard).unwrap();
        }
    }
}

#[tokio::test]
async fn tls_to_an_allowed_target() {
    let stage = Stage::start().await;
    let mut wire = stage.plain().await;
    switch(&mut wire, &stage.egress(&stage.world.api())).await;
    let request = "GET /echo HTTP/1.1\r\nHost: api.allowed.test\r\nConnection: close\r\n\r\n";
    let client = stage.world.ca.client(&[b"http/1.1"]);
    let answer = exchange(&mut wire, client, "api.allowed.test", request).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    wire.send(capsule(FINAL_DATA, &[])).await;
    assert_eq!(wire.rest().await, (Vec::new(), End::Fin));
    let record = stage.world.gateway.record_of(&stage.world.api()).await;
    assert_eq!(
        (
            record.text("kind"),
            record.text("front"),
            record.text("outcome")
        ),
        ("tunnel", "connect-tcp", "completed")
    );
    assert_eq!(record.0["session"]["id"], stage.session.json["id"]);
}

#[tokio::test]
async fn the_first_bytes_are_judged_here_too() {
    let stage = Stage::start().await;
    // TLS to another name: a fatal access_denied alert, in a capsule.
    let mut wire = stage.plain().await;
    switch(&mut wire, &stage.egress(&stage.target)).await;
    let mut far = stage.origin.accept().await;
    wire.send(capsule(DATA, &hello("evil.test"))).await;
    assert_eq!(wire.until_fin().await, [21, 3, 3, 0, 2, 2, 49]);
    assert_eq!(drain(&mut far).await, (Vec::new(), End::Reset));
    let record = stage.world.gateway.record_of(&stage.target).await;
    assert_eq!(
        (record.text("outcome"), record.text("reason")),
        ("cut", "sni_mismatch")
    );
    // Plain HTTP is judged request by request, and refused with an answer.
    let mut wire = stage.plain().await;
    switch(&mut wire, &stage.egress(&stage.world.plain())).await;
    wire.send(capsule(
        DATA,
        b"GET /echo HTTP/1.1\r\nHost: evil.test\r\n\r\n",
    ))
    .await;
    let answer = wire.until_fin().await;
    assert!(
        answer.starts_with(b"HTTP/1.1 400 "),
        "{}",
        answer.escape_ascii()
    );
    assert!(
        String::from_utf8_lossy(&answer).contains("host_mismatch"),
        "{}",
        answer.escape_ascii()
    );
    let mut wire = stage.plain().await;
    switch(&mut wire, &stage.egress(&stage.world.plain())).await;
    wire.send(capsule(
        DATA,
        format!(
            "GET /echo HTTP/1.1\r\nHost: {}\r\n\r\n",
            stage.world.plain()
        )
        .as_bytes(),
    ))
    .await;
    assert!(wire.capsule().await.1.starts_with(b"HTTP/1.1 200 "));
}

/// A ClientHello for `name`, as rustls writes it.
fn hello(name: &str) -> Vec<u8> {
    let config = e2e::Ca::create().client(&[]);
    let name = name.to_owned().try_into().unwrap();
    let mut client = rustls::ClientConnection::new(config, name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn other_bytes_reach_an_origin_and_its_reset_comes_back() {
    let stage = Stage::start().await;
    let mut wire = stage.plain().await;
    switch(&mut wire, &stage.egress(&stage.target)).await;
    let far = stage.origin.accept().await;
    converse(wire, far).await;
    let mut wire = stage.plain().await;
    switch(&mut wire, &stage.egress(&stage.target)).await;
    let mut far = stage.origin.accept().await;
    far.write_all(b"220 ready\r\n").await.unwrap();
    assert_eq!(wire.payload(11).await, b"220 ready\r\n");
    Wire::over(far).abort();
    assert_eq!(wire.rest().await, (Vec::new(), End::Reset));
}
