//! CONNECT and `connect-tcp`: bytes both ways, their ends, and what is refused.

use e2e::h3::Ending;
use e2e::raw::{End, drain};
use e2e::{Ask, Http3, Session, Wire, within};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::stage::{Stage, noise};

/// H3_CONNECT_ERROR.
const CONNECT_ERROR: u64 = 0x10f;

/// H3_REQUEST_CANCELLED.
const CANCELLED: u64 = 0x10c;

/// The fields of a CONNECT besides its method, the status and the reason.
type Refused<'a> = (Vec<(&'a str, &'a str)>, u16, &'a str);

#[tokio::test]
async fn a_tunnel_carries_both_ways_and_its_ends() {
    let mut stage = Stage::start().await;
    let (stream, mut far) = stage.pair().await;
    let question = noise(400_000);
    for part in question.chunks(100_000) {
        stage.client.data(stream, part, false).await;
    }
    stage.client.data(stream, b"", true).await;
    let (heard, end) = drain(&mut far).await;
    assert!(heard == question && end == End::Fin, "{}", heard.len());
    // FIN was FIN; the other half goes on.
    let answer = noise(2_000_000);
    far.write_all(&answer).await.unwrap();
    far.shutdown().await.unwrap();
    let (heard, end) = stage.client.rest(stream).await;
    assert!(heard == answer && end == Ending::Fin, "{}", heard.len());
    let record = stage.world.gateway.record_of(&stage.target).await;
    assert_eq!(
        (
            record.text("kind"),
            record.text("front"),
            record.text("protocol")
        ),
        ("tunnel", "connect", "h3")
    );
    assert_eq!(record.text("outcome"), "completed", "{record:?}");
    assert_eq!(
        (record.number("bytesUp"), record.number("bytesDown")),
        (Some(400_000), Some(2_000_000))
    );
    assert!(!record.mentions(stage.session.handle()));
    let gateway = &stage.world.gateway;
    let open = "sluicegate_connections{listener=\"public\",transport=\"h3\"}";
    gateway.metric_is(open, 1.0).await;
    let settings = stage.client.event("SETTINGS", |e| e["event"] == "settings");
    let settings = settings.await["settings"].clone();
    // SETTINGS_MAX_FIELD_SECTION_SIZE and SETTINGS_ENABLE_CONNECT_PROTOCOL.
    assert_eq!((&settings["6"], &settings["8"]), (&65536.into(), &1.into()));
}

#[tokio::test]
async fn a_reset_is_a_reset_in_either_direction() {
    let mut stage = Stage::start().await;
    // The origin's RST is RESET_STREAM(H3_CONNECT_ERROR); the neighbour on the same connection goes on.
    let (other, mut other_far) = stage.pair().await;
    let (stream, mut far) = stage.pair().await;
    far.write_all(b"220 ready\r\n").await.unwrap();
    assert_eq!(stage.client.take(stream, 11).await, b"220 ready\r\n");
    Wire::over(far).abort();
    let (_, end) = stage.client.rest(stream).await;
    assert_eq!(end, Ending::Reset(CONNECT_ERROR));
    let stopped = stage.client.event("STOP_SENDING", |e| {
        e["event"] == "stopped" && e["stream"] == stream
    });
    assert_eq!(stopped.await["code"], CONNECT_ERROR);
    // The client's RESET_STREAM or STOP_SENDING, whatever the code, is RST: never an end.
    for (op, code) in [
        ("reset", CANCELLED),
        ("reset", CONNECT_ERROR),
        ("reset", 0x100),
        ("stop", CANCELLED),
    ] {
        let (stream, mut far) = stage.pair().await;
        stage.client.data(stream, b"*1\r\n", false).await;
        within("the first bytes", far.read_exact(&mut [0; 4]))
            .await
            .unwrap();
        stage.client.give_up(op, stream, code).await;
        assert_eq!(drain(&mut far).await, (Vec::new(), End::Reset), "{op}");
    }
    stage.client.data(other, b"*1\r\n", true).await;
    assert_eq!(drain(&mut other_far).await, (b"*1\r\n".to_vec(), End::Fin));
    other_far.write_all(b"still here").await.unwrap();
    other_far.shutdown().await.unwrap();
    let rest = stage.client.rest(other).await;
    assert_eq!(rest, (b"still here".to_vec(), Ending::Fin));
}

#[tokio::test]
async fn refusals_say_why_and_cost_nobody_else_anything() {
    let mut stage = Stage::start().await;
    let (neighbour, mut far) = stage.pair().await;
    let bearer = stage.bearer();
    let own = stage.world.gateway.ports.plain.to_string();
    let allowed = "api.allowed.test:443";
    let credential = ("proxy-authorization", bearer.as_str());
    let rows: Vec<Refused<'_>> = vec![
        (vec![(":authority", allowed)], 407, "credential_missing"),
        (
            vec![
                (":authority", allowed),
                ("proxy-authorization", "Bearer sgh_nonsense"),
            ],
            407,
            "credential_invalid",
        ),
        (
            vec![(":authority", allowed), credential, credential],
            400,
            "malformed_request",
        ),
        (
            vec![(":authority", allowed), credential, ("host", "evil.test")],
            400,
            "host_mismatch",
        ),
        (
            vec![(":authority", "evil.test:443"), credential],
            403,
            "host_not_allowed",
        ),
        (
            vec![(":authority", "api.allowed.test:22"), credential],
            403,
            "port_not_allowed",
        ),
        (
            vec![(":authority", "10.0.0.1:443"), credential],
            403,
            "address_not_allowed",
        ),
        (
            vec![(":authority", &own), credential],
            403,
            "address_not_allowed",
        ),
        (
            vec![(":authority", "api.allowed.test:0443"), credential],
            400,
            "malformed_target",
        ),
    ];
    for (fields, status, reason) in rows {
        let fields = [&[(":method", "CONNECT")], &fields[..]].concat();
        let stream = stage.client.request(&fields, false).await;
        let (head, body) = stage.client.answer(stream).await;
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["reason"], reason);
        assert_eq!(head.status, status, "{reason}");
        assert_eq!(head.count("proxy-status"), 1, "{reason}");
        let asks = head.count("proxy-authenticate");
        assert_eq!(asks, if status == 407 { 2 } else { 0 }, "{reason}");
        assert_eq!(head.count("www-authenticate"), 0, "{reason}");
        let id = body["requestId"].clone();
        let gateway = &stage.world.gateway;
        let record = gateway.record(reason, |r| r.0["id"] == id).await;
        assert_eq!(
            (record.text("front"), record.text("protocol")),
            ("connect", "h3")
        );
    }
    stage.client.data(neighbour, b"*1\r\n", true).await;
    assert_eq!(drain(&mut far).await, (b"*1\r\n".to_vec(), End::Fin));
    let asked = format!("{:?}", stage.world.dns.queries());
    assert!(
        !asked.contains("evil"),
        "a denied name was asked for: {asked}"
    );
}

#[tokio::test]
async fn first_bytes_are_judged() {
    let mut stage = Stage::start().await;
    // A whole hello for another name is cut with an alert; nothing of it goes up.
    let (stream, mut far) = stage.pair().await;
    let config = e2e::Ca::create().client(&[]);
    let mut tls = rustls::ClientConnection::new(config, "evil.test".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    stage.client.data(stream, &hello, false).await;
    assert_eq!(stage.client.take(stream, 7).await, [21, 3, 3, 0, 2, 2, 49]);
    assert_eq!(drain(&mut far).await, (Vec::new(), End::Reset));
    // Plain HTTP inside is judged request by request.
    let plain = stage.world.plain();
    let stream = stage.connect(&plain).await;
    assert_eq!(stage.client.head(stream).await.status, 200);
    let inside = format!(
        "GET /echo HTTP/1.1\r\nHost: {plain}\r\n\r\nGET /echo HTTP/1.1\r\nHost: evil.test\r\n\r\n"
    );
    stage.client.data(stream, inside.as_bytes(), false).await;
    let (answers, _) = stage.client.rest(stream).await;
    let answers = String::from_utf8(answers).unwrap();
    assert!(answers.starts_with("HTTP/1.1 200 "), "{answers}");
    assert!(answers.contains("host_mismatch"), "{answers}");
}

#[tokio::test]
async fn connect_tcp_reaches_the_same_pipeline() {
    let mut stage = Stage::start().await;
    let target = stage.target.clone();
    let (host, port) = target.rsplit_once(':').unwrap();
    let handle = stage.session.handle().to_owned();
    let egress = stage.session.variable("SLUICEGATE_PROXY_TOKEN").to_owned();
    let relay = stage.session.variable("SLUICEGATE_RELAY_TOKEN").to_owned();
    let ask = async |client: &mut Http3, protocol: &str, host: &str, port: &str, token: &str| {
        let path = format!("/.well-known/masque/tcp/{host}/{port}/");
        let bearer = format!("Bearer {token}");
        let fields = [
            (":method", "CONNECT"),
            (":protocol", protocol),
            (":scheme", "https"),
            (":authority", "gateway.test"),
            (":path", path.as_str()),
            ("authorization", bearer.as_str()),
            ("capsule-protocol", "?1"),
        ];
        client.request(&fields, false).await
    };
    let client = &mut stage.client;
    let stream = ask(client, "connect-tcp", host, port, &handle).await;
    let head = client.head(stream).await;
    assert_eq!(
        (head.status, head.count("capsule-protocol")),
        (200, 1),
        "{head:?}"
    );
    let mut far = stage.origin.accept().await;
    let question = noise(100_000);
    let capsules = e2e::capsules::whole(&question);
    client.data(stream, &capsules, true).await;
    assert_eq!(drain(&mut far).await, (question, End::Fin));
    far.write_all(b"an answer").await.unwrap();
    far.shutdown().await.unwrap();
    let (heard, end) = client.rest(stream).await;
    assert_eq!(end, Ending::Fin);
    let (near, mut far) = tokio::io::duplex(1024);
    far.write_all(&heard).await.unwrap();
    assert_eq!(Wire::over(near).until_fin().await, b"an answer");
    // A stream that ends without FINAL_DATA is cut, and cuts.
    let stream = ask(client, "connect-tcp", host, port, &handle).await;
    assert_eq!(client.head(stream).await.status, 200);
    let mut far = stage.origin.accept().await;
    let part = e2e::capsules::capsule(e2e::capsules::DATA, b"*1\r\n");
    client.data(stream, &part, true).await;
    let (_, end) = drain(&mut far).await;
    assert_eq!(end, End::Reset);
    for (protocol, host, token, status, reason) in [
        ("connect-tcp", "evil.test", &egress, 403, "host_not_allowed"),
        (
            "connect-tcp",
            "api.allowed.test",
            &relay,
            401,
            "credential_invalid",
        ),
        (
            "connect-tcp",
            "%3A%3A1",
            &egress,
            403,
            "address_not_allowed",
        ),
        (
            "websocket",
            "api.allowed.test",
            &egress,
            501,
            "unsupported_protocol",
        ),
        (
            "connect-udp",
            "api.allowed.test",
            &egress,
            501,
            "unsupported_protocol",
        ),
    ] {
        let stream = ask(client, protocol, host, "443", token).await;
        let (head, body) = client.answer(stream).await;
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((head.status, &body["reason"]), (status, &reason.into()));
        assert_eq!(head.count("www-authenticate") > 0, status == 401);
        assert_eq!(head.count("proxy-authenticate"), 0);
    }
}

/// A client that gives up while its target is dialled ends the dial, and is recorded so.
#[tokio::test]
async fn giving_up_ends_the_open() {
    let mut stage = Stage::start().await;
    // A name whose answer never comes: the open waits for the resolver.
    let silent = e2e::Answer::Silent;
    stage.world.dns.set("slow.allowed.test", silent);
    let session = stage
        .world
        .session_for(Ask {
            allow: &["slow.allowed.test:443"],
            ..Ask::default()
        })
        .await;
    let bearer = format!("Bearer {}", session.handle());
    let fields = [
        (":method", "CONNECT"),
        (":authority", "slow.allowed.test:443"),
        ("proxy-authorization", &bearer),
    ];
    let stream = stage.client.request(&fields, false).await;
    e2e::until("the query", || {
        (!stage.world.dns.queries().is_empty()).then_some(())
    })
    .await;
    stage.client.give_up("reset", stream, CANCELLED).await;
    stage.client.give_up("stop", stream, CANCELLED).await;
    let record = stage.world.gateway.record_of("slow.allowed.test:443").await;
    assert_eq!(
        (record.text("outcome"), record.text("closedBy")),
        ("reset", "downstream")
    );
}

#[tokio::test]
async fn drain_says_goaway_and_lets_tunnels_end() {
    let mut stage = Stage::start().await;
    let (stream, mut far) = stage.pair().await;
    stage.client.data(stream, b"*1\r\n", false).await;
    far.read_exact(&mut [0; 4]).await.unwrap();
    stage.world.gateway.terminate();
    let goaway = stage.client.event("GOAWAY", |e| e["event"] == "goaway");
    // The first stream that was not looked at.
    assert_eq!(goaway.await["id"], stream + 4);
    let late = stage.connect("api.allowed.test:443").await;
    let (_, end) = stage.client.rest(late).await;
    // H3_REQUEST_REJECTED: it may be asked elsewhere.
    assert_eq!(end, Ending::Reset(0x10b));
    far.write_all(b"to the end").await.unwrap();
    far.shutdown().await.unwrap();
    stage.client.data(stream, b"", true).await;
    let rest = stage.client.rest(stream).await;
    assert_eq!(rest, (b"to the end".to_vec(), Ending::Fin));
    assert_eq!(stage.client.closed().await, 0x100);
}

/// A session that may reach the origins, and be used from there alone.
async fn from(stage: &Stage, source: &str) -> Session {
    let plain = stage.world.plain();
    let allow = [stage.target.as_str(), plain.as_str()];
    let ask = Ask {
        allow: &allow,
        more: &["--source", source],
        ..Ask::default()
    };
    stage.world.session_for(ask).await
}

/// The source of a packet is whatever its sender writes there; that of the handshake is where it was answered.
#[tokio::test]
async fn a_client_is_where_its_handshake_was() {
    let mut stage = Stage::start().await;
    let elsewhere = from(&stage, "127.0.0.2/32").await;
    let (target, bearer) = (
        stage.target.clone(),
        format!("Bearer {}", elsewhere.handle()),
    );
    let plain = stage.world.plain();
    stage.go_on_from("127.0.0.2").await;
    // A session that may be used from anywhere goes on.
    let (neighbour, mut far) = stage.pair().await;
    let credential = ("proxy-authorization", bearer.as_str());
    for (fields, end) in [
        (
            vec![(":method", "CONNECT"), (":authority", target.as_str())],
            false,
        ),
        (
            vec![
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", plain.as_str()),
                (":path", "/"),
            ],
            true,
        ),
    ] {
        let fields = [&fields[..], &[credential]].concat();
        let stream = stage.client.request(&fields, end).await;
        let (head, body) = stage.client.answer(stream).await;
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (head.status, body["reason"].as_str()),
            (403, Some("source_not_allowed"))
        );
    }
    stage.client.data(neighbour, b"*1\r\n", true).await;
    assert_eq!(drain(&mut far).await, (b"*1\r\n".to_vec(), End::Fin));
}

#[tokio::test]
async fn a_client_that_goes_where_its_session_may_not_be_used_is_cut() {
    let mut stage = Stage::start().await;
    stage.session = from(&stage, "127.0.0.1/32").await;
    let (tunnel, mut far) = stage.pair().await;
    stage.go_on_from("127.0.0.2").await;
    stage.client.data(tunnel, b"*1\r\n", false).await;
    assert_eq!(stage.client.closed().await, CANCELLED);
    assert_eq!(drain(&mut far).await.1, End::Reset);
}

/// More than any QUIC connection begins with: one request does not wait until another has ended.
#[tokio::test]
async fn a_client_opens_hundreds_of_tunnels_at_once() {
    let mut stage = Stage::start().await;
    let target = stage.target.clone();
    let mut open = Vec::new();
    for _ in 0..240 {
        open.push(stage.connect(&target).await);
    }
    let (origin, client) = (&stage.origin, &mut stage.client);
    // Together: a listener holds fewer connections that nobody has taken yet.
    let accepted = async {
        let mut far = Vec::new();
        for _ in 0..open.len() {
            far.push(origin.accept().await);
        }
        far
    };
    let answered = async {
        for stream in &open {
            assert_eq!(client.head(*stream).await.status, 200);
        }
    };
    let (far, ()) = tokio::join!(accepted, answered);
    assert_eq!(far.len(), open.len());
}
