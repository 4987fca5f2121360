//! CONNECT over HTTP/1.1: what passes, what is refused and how it ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::net::IpAddr;

use e2e::program::binary;
use e2e::raw::End;
use e2e::{Answer, Ask, Program, RawOrigin, Settings, Wire, World};
use rustls::HandshakeKind;

#[tokio::test]
async fn allowed_target_carries_tls_end_to_end() {
    let world = World::start().await;
    let session = world.session().await;
    let wire = session.tunnel(&world.api()).await;
    let mut tls = wire
        .tls(world.ca.client(&[b"http/1.1"]), "api.allowed.test")
        .await;
    tls.send("GET /echo HTTP/1.1\r\nHost: api.allowed.test\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(tls.reply().await.json()["request"]["method"], "GET");
    // To the end: a client that leaves bytes unread ends with a reset, and is recorded so.
    assert_eq!(tls.rest().await, (Vec::new(), End::Fin));
    drop(tls);
    let record = world.gateway.record_of(&world.api()).await;
    assert_eq!(
        (record.text("kind"), record.text("front")),
        ("tunnel", "connect")
    );
    assert_eq!(record.text("outcome"), "completed", "{record:?}");
    assert_eq!(record.text("address"), world.https.address.to_string());
    assert_eq!(record.0["session"]["id"], session.json["id"]);
    assert!(record.number("bytesUp").unwrap() > 300, "{record:?}");
    assert!(record.number("bytesDown").unwrap() > 1000, "{record:?}");
    assert!(
        !record.mentions(session.handle()),
        "the credential is in the record"
    );
}

#[tokio::test]
async fn denied_host_is_a_structured_403_and_no_dns_query() {
    let world = World::start().await;
    let session = world.session().await;
    let (head, mut wire) = session.connect("secret-data.evil.test:443").await;
    assert_eq!(head.status, 403);
    assert!(head.value("proxy-status").contains("error="), "{head:?}");
    let length = head.value("content-length").parse().unwrap();
    let body: serde_json::Value = serde_json::from_slice(&wire.take(length).await).unwrap();
    assert_eq!(body["reason"], "host_not_allowed");
    assert_eq!(
        (&body["host"], &body["port"]),
        (&"secret-data.evil.test".into(), &443.into())
    );
    let hint = body["hint"].as_str().unwrap();
    assert!(
        hint.contains("secret-data.evil.test"),
        "the hint says what to allow: {hint}"
    );
    assert_eq!(body["hintFor"], "session");
    let record = world.gateway.record_of("secret-data.evil.test:443").await;
    assert_eq!(body["requestId"], record.0["id"]);
    assert_eq!(
        (record.text("outcome"), record.text("reason")),
        ("refused", "host_not_allowed")
    );
    assert_eq!(world.dns.queries(), [], "a denied name was asked for");
}

#[tokio::test]
async fn minimal_detail_tells_a_sandbox_nothing_of_the_rules() {
    let settings = Settings {
        detail: "minimal",
        ..Settings::default()
    };
    let world = World::with(settings).await;
    let session = world.session().await;
    let (head, mut wire) = session.connect("evil.test:443").await;
    let length = head.value("content-length").parse().unwrap();
    let body: serde_json::Value = serde_json::from_slice(&wire.take(length).await).unwrap();
    assert_eq!(body["reason"], "host_not_allowed");
    assert!(body["rule"].is_null() && body["hint"].is_null(), "{body}");
    assert!(body["hintFor"].is_null(), "{body}");
}

#[tokio::test]
async fn refusals_name_their_reason() {
    let world = World::start().await;
    let plain_port = world.gateway.ports.plain.port();
    let own = format!("127.0.0.1:{plain_port}");
    let session = world
        .session_for(Ask {
            allow: &["api.allowed.test:443", "*.wild.test:443", "127.0.0.0/8:*"],
            ..Ask::default()
        })
        .await;
    let rows = [
        ("api.allowed.test:80", "port_not_allowed"),
        ("api.allowed.test:22", "port_not_allowed"),
        ("wild.test:443", "host_not_allowed"),
        ("evilwild.test:443", "host_not_allowed"),
        ("api.allowed.test.evil.test:443", "host_not_allowed"),
        ("192.0.2.1:443", "address_not_allowed"),
        ("10.0.0.1:443", "address_not_allowed"),
        (own.as_str(), "own_listener"),
    ];
    for (target, reason) in rows {
        let (head, mut wire) = session.connect(target).await;
        assert_eq!(head.status, 403, "{target}");
        let length = head.value("content-length").parse().unwrap();
        let body: serde_json::Value = serde_json::from_slice(&wire.take(length).await).unwrap();
        assert_eq!(body["reason"], reason, "{target}: {body}");
    }
    assert_eq!(world.dns.queries(), [], "a denied name was asked for");
}

/// An access log decided again by the policy it was written under: whatever refused a target, nothing changes.
#[tokio::test]
async fn what_was_recorded_is_decided_the_same_again() {
    let world = World::start().await;
    let port = world.http.port();
    let (own, plain) = (world.gateway.ports.management.to_string(), world.plain());
    let session = world
        .session_for(Ask {
            more: &[
                "--allow=*.allowed.test:*",
                "--allow=127.0.0.1:*",
                "--allow-address=127.0.0.1/32",
                "--deny=bad.allowed.test",
                "--deny=203.0.114.0/24",
            ],
            ..Ask::default()
        })
        .await;
    let ip = |text: &str| Answer::Addresses(vec![text.parse::<IpAddr>().unwrap()]);
    world.dns.set("denied.allowed.test", ip("203.0.114.9"));
    world.dns.set("private.allowed.test", ip("10.0.0.9"));
    world.dns.point("own.allowed.test");
    for (target, reason) in [
        (plain.as_str(), ""),
        (&format!("denied.allowed.test:{port}"), "host_denied"),
        (&format!("bad.allowed.test:{port}"), "host_denied"),
        (&format!("private.allowed.test:{port}"), "special_address"),
        ("other.test:443", "host_not_allowed"),
        (own.as_str(), "own_listener"),
        (
            &format!("own.allowed.test:{}", world.gateway.ports.management.port()),
            "own_listener",
        ),
    ] {
        let (head, wire) = session.connect(target).await;
        assert_eq!(head.status == 200, reason.is_empty(), "{target}");
        drop(wire);
        let record = world.gateway.record_of(target).await;
        assert_eq!(record.text("reason"), reason, "{target}: {record:?}");
    }
    let record = world
        .gateway
        .record_of(&format!("denied.allowed.test:{port}"))
        .await;
    assert_eq!(record.0["answers"], serde_json::json!(["203.0.114.9"]));
    let policy = "allowedHosts: ['*.allowed.test:*', '127.0.0.1:*']\nallowedAddresses: [127.0.0.1/32]\n\
                  deniedHosts: [bad.allowed.test, 203.0.114.0/24]\n";
    let files = world.gateway.directory();
    let against = files.join("same.yaml");
    std::fs::write(&against, policy).unwrap();
    let log = files.join("access.jsonl");
    let replay = async |policy: &std::path::Path| {
        let (log, policy) = (log.to_str().unwrap(), policy.to_str().unwrap());
        let words = ["policy", "replay", log, "--against", policy, "--json"];
        let told = Program::new(binary("sluicegate")).args(words).run().await;
        let told = told.succeeded();
        serde_json::from_str::<serde_json::Value>(&told).unwrap()
    };
    let same = replay(&against).await;
    assert_eq!(
        (&same["stillAllowed"], &same["stillDenied"]),
        (&1.into(), &6.into()),
        "{same:#}"
    );
    for kind in ["newlyAllowed", "newlyDenied", "unknown"] {
        assert_eq!(same[kind]["records"], 0, "{kind}: {same:#}");
    }
    std::fs::write(&against, policy.replace(", 203.0.114.0/24", "")).unwrap();
    let other = replay(&against).await;
    let target = format!("denied.allowed.test:{port}");
    assert_eq!(other["newlyAllowed"]["targets"][&target]["records"], 1);
    assert_eq!(other["newlyAllowed"]["records"], 1, "{other:#}");
}

#[tokio::test]
async fn spelling_variants_of_an_allowed_name_are_the_same_name() {
    let world = World::start().await;
    let session = world.session().await;
    let port = world.http.port();
    for host in ["PLAIN.Allowed.TEST", "plain.allowed.test."] {
        let mut wire = session.tunnel(&format!("{host}:{port}")).await;
        wire.send("GET /echo HTTP/1.1\r\nHost: plain.allowed.test\r\n\r\n")
            .await;
        assert_eq!(wire.reply().await.status(), 200, "{host}");
    }
}

#[tokio::test]
async fn malformed_requests_are_400_and_the_connection_closes() {
    let world = World::start().await;
    let session = world.session().await;
    let authorization = session.authorization();
    let port = world.https.port();
    let host = "Host: api.allowed.test\r\n";
    let targets = [
        "api.allowed.test",
        "api.allowed.test:",
        "api.allowed.test:0",
        "api.allowed.test:65536",
        "api.allowed.test:+443",
        "api.allowed.test:0443",
        "api.allowed.test:https",
        "api.allowed.test:443:80",
        "api..allowed.test:443",
        ".api.allowed.test:443",
        "[api.allowed.test]:443",
        "user@api.allowed.test:443",
        "http://api.allowed.test/",
        "/",
        "*",
        "api%2eallowed.test:443",
        "127.0.0.1.:443",
        "0x7f000001:443",
        "[fe80::1%25eth0]:443",
        ":443",
    ];
    let mut heads: Vec<String> = targets
        .iter()
        .map(|target| format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n"))
        .collect();
    let target = format!("api.allowed.test:{port}");
    let lines = [
        format!("CONNECT {target} HTTP/1.1\r\n{host}{authorization}Content-Length: 5\r\n\r\nhello"),
        format!(
            "CONNECT {target} HTTP/1.1\r\n{host}{authorization}Transfer-Encoding: chunked\r\n\r\n"
        ),
        format!("CONNECT {target} HTTP/1.1\r\nHost: evil.test\r\n{authorization}\r\n"),
        format!("CONNECT {target} HTTP/1.1\r\n{host}{host}{authorization}\r\n"),
        format!("CONNECT {target} HTTP/1.1\r\n{host}{authorization}{authorization}\r\n"),
        format!("CONNECT {target} HTTP/1.1\r\n{authorization}\r\n"),
        format!("CONNECT {target} HTTP/1.2\r\n{host}{authorization}\r\n"),
        format!("CONNECT {target} HTTP/1.1\r\nHost : api.allowed.test\r\n{authorization}\r\n"),
        format!("CONNECT {target} HTTP/1.1\n{host}{authorization}\r\n"),
    ];
    heads.extend(lines);
    for head in heads {
        let mut wire = session.dial().await;
        wire.send(&head).await;
        let reply = wire.reply().await;
        assert_eq!(reply.status(), 400, "{head:?}: {}", reply.text());
        let (rest, _) = wire.rest().await;
        assert_eq!(rest, b"", "{head:?}: more after the refusal");
    }
    assert_eq!(world.dns.queries(), [], "a malformed target was resolved");
    assert_eq!(world.https.connections(), 0);
}

#[tokio::test]
async fn a_missing_or_bad_credential_is_407_with_a_challenge() {
    let world = World::start().await;
    let (session, revoked) = (world.session().await, world.session().await);
    revoked.revoke(&world.gateway).await;
    let target = world.api();
    let basic = |text: &str| {
        let encoded = data_encoding::BASE64.encode(text.as_bytes());
        format!("Proxy-Authorization: Basic {encoded}\r\n")
    };
    let credentials = [
        String::new(),
        "Proxy-Authorization: Basic !!!\r\n".into(),
        "Proxy-Authorization: Digest x\r\n".into(),
        "Proxy-Authorization: Bearer nonsense\r\n".into(),
        basic("sluicegate:unknown"),
        basic(&format!("sluicegate:{}x", session.handle())),
        basic("sluicegate:"),
        revoked.authorization(),
        format!(
            "Authorization: {}",
            &session.authorization()["Proxy-Authorization: ".len()..]
        ),
        format!("Cookie: token={}\r\n", session.handle()),
    ];
    let mut bodies = Vec::new();
    for credential in credentials {
        let mut wire = session.dial().await;
        wire.send(format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{credential}\r\n"
        ))
        .await;
        let reply = wire.reply().await;
        assert_eq!(reply.status(), 407, "{credential:?}");
        let challenge = reply.head.value("proxy-authenticate");
        assert!(
            challenge.starts_with("Basic"),
            "{credential:?}: {:?}",
            reply.head
        );
        bodies.push((credential, reply.json()["reason"].clone()));
    }
    let unknown = bodies
        .iter()
        .find(|(text, _)| *text == basic("sluicegate:unknown"))
        .unwrap();
    let dead = bodies
        .iter()
        .find(|(text, _)| *text == revoked.authorization())
        .unwrap();
    assert_eq!(unknown.1, dead.1, "unknown and revoked are told apart");
    assert_eq!(world.dns.queries(), []);
}

#[tokio::test]
async fn bearer_works_and_so_does_the_tls_listener() {
    let world = World::start().await;
    let session = world.session().await;
    let target = world.plain();
    let wire = Wire::dial(world.gateway.ports.public).await;
    let mut wire = wire
        .tls(session.gateway_tls(&[b"http/1.1"]), "127.0.0.1")
        .await;
    let handle = session.handle();
    let credential = format!("Proxy-Authorization: Bearer {handle}\r\n");
    wire.send(format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{credential}\r\n"
    ))
    .await;
    assert_eq!(wire.head().await.status, 200);
    wire.send("GET /echo HTTP/1.1\r\nHost: plain.allowed.test\r\n\r\n")
        .await;
    assert_eq!(wire.reply().await.status(), 200);
}

#[tokio::test]
async fn a_client_that_comes_back_to_the_tls_listener_resumes() {
    let world = World::start().await;
    let session = world.session().await;
    let config = session.gateway_tls(&[b"http/1.1"]);
    let (target, handle) = (world.plain(), session.handle());
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let wire = Wire::dial(world.gateway.ports.public).await;
        let mut wire = wire.tls(config.clone(), "127.0.0.1").await;
        let (_, tls) = wire.stream.get_ref();
        assert_eq!(tls.handshake_kind(), Some(kind));
        wire.send(format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Bearer {handle}\r\n\r\n"
        ))
        .await;
        // The ticket came before it.
        assert_eq!(wire.head().await.status, 200);
    }
}

#[tokio::test]
async fn bytes_behind_a_refused_connect_are_not_parsed() {
    let world = World::start().await;
    let session = world.session().await;
    let refused = session.connect_head("evil.test:443");
    let authorization = session.authorization();
    let plain = world.plain();
    let mut wire = session.dial().await;
    wire.send(format!(
        "{refused}GET http://{plain}/echo HTTP/1.1\r\nHost: {plain}\r\n{authorization}\r\n"
    ))
    .await;
    assert_eq!(wire.reply().await.status(), 403);
    let (rest, _) = wire.rest().await;
    assert_eq!(rest, b"", "the smuggled request was answered");
    assert_eq!(world.http.seen().len(), 0);
}

#[tokio::test]
async fn dead_upstreams_are_told_apart_and_the_body_keeps_the_details_to_itself() {
    let settings = Settings {
        limits: "  dialTimeout: 2s\n".into(),
        ..Settings::default()
    };
    let world = World::with(settings).await;
    world.dns.set("broken.allowed.test", Answer::Failing);
    world.dns.set("silent.allowed.test", Answer::Silent);
    world.dns.point("closed.allowed.test");
    let closed = format!("closed.allowed.test:{}", e2e::tasks::free_port().await);
    let allow = ["*.allowed.test:*"];
    let session = world
        .session_for(Ask {
            allow: &allow,
            ..Ask::default()
        })
        .await;
    let rows = [
        (closed.as_str(), 502, "connect_refused"),
        ("missing.allowed.test:443", 502, "dns_not_found"),
        ("broken.allowed.test:443", 502, "dns_failed"),
        ("silent.allowed.test:443", 504, "dns_timeout"),
    ];
    for (target, status, reason) in rows {
        let (head, mut wire) = session.connect(target).await;
        assert_eq!(head.status, status, "{target}");
        let length = head.value("content-length").parse().unwrap();
        let body = String::from_utf8(wire.take(length).await).unwrap();
        assert!(body.contains(reason), "{target}: {body}");
        for raw in [
            "os error",
            "Connection refused",
            "hickory",
            "NXDomain",
            "ServFail",
            "127.0.0.1",
        ] {
            assert!(!body.contains(raw), "{target}: {raw:?} in {body}");
        }
        let record = world.gateway.record_of(target).await;
        assert_eq!(
            (record.text("outcome"), record.text("reason")),
            ("failed", reason)
        );
    }
}

#[tokio::test]
async fn private_answers_for_an_allowed_name_are_not_dialled() {
    let world = World::start().await;
    let origin = RawOrigin::start().await;
    let port = origin.address.port();
    let name = "rebind.allowed.test";
    let target = format!("{name}:{port}");
    let session = world
        .session_for(Ask {
            allow: &[&target],
            ..Ask::default()
        })
        .await;
    let refused: [&[&str]; 5] = [
        &["10.0.0.1"],
        &["127.0.0.1", "10.0.0.1"],
        &["169.254.169.254"],
        &["::ffff:10.0.0.1"],
        &["64:ff9b::a00:1"],
    ];
    for answer in refused {
        let addresses = answer
            .iter()
            .map(|text| text.parse::<IpAddr>().unwrap())
            .collect();
        world.dns.set(name, Answer::Addresses(addresses));
        let (head, mut wire) = session.connect(&target).await;
        assert_eq!(head.status, 403, "{answer:?}");
        let length = head.value("content-length").parse().unwrap();
        let body: serde_json::Value = serde_json::from_slice(&wire.take(length).await).unwrap();
        let reason = body["reason"].as_str().unwrap();
        assert!(
            ["special_address", "metadata_address"].contains(&reason),
            "{answer:?}: {body}"
        );
    }
    origin.stays_alone().await;
    world.dns.point(name);
    session.tunnel(&target).await;
}

/// Of a name's addresses 64 may be dialled, however many there are: nobody scans a network by a name of their own.
#[tokio::test]
async fn the_sixty_fifth_address_of_a_name_is_not_dialled() {
    let world = World::start().await;
    let all: Vec<IpAddr> = (1..=70).map(|n| [127, 0, 1, n].into()).collect();
    world.dns.set("many.allowed.test", Answer::Addresses(all));
    for (place, status) in [(64, 200), (65, 502)] {
        // Where the others of this port would be, nobody listens.
        let origin = RawOrigin::at([127, 0, 1, place]).await;
        let target = format!("many.allowed.test:{}", origin.address.port());
        let ask = Ask {
            allow: &[&target],
            more: &["--allow-address", "127.0.0.0/8"],
            ..Ask::default()
        };
        let session = world.session_for(ask).await;
        let mut wire = session.dial().await;
        wire.send(session.connect_head(&target)).await;
        let head = wire.head().await;
        assert_eq!(head.status, status, "{target}: {head:?}");
        if status == 200 {
            origin.accept().await;
            continue;
        }
        origin.stays_alone().await;
        let record = world.gateway.record_of(&target).await;
        assert_eq!(record.text("reason"), "connect_refused");
    }
}
