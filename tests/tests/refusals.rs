//! What is refused has a rate: a sandbox that asks for what it may not have as fast as it can is told to stop. And whoever is told
//! is told what is wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::time::Instant;

use data_encoding::BASE64;
use e2e::{Ask, Settings, Wire, World};
use serde_json::json;

/// Asks, of which one a second may be told why it is refused.
const ASKS: usize = 30;

/// Of so many refusals no more are told why than the rate allows since `start`.
fn held_to_one_a_second(what: &str, told: &[(u16, String)], reason: &str, start: Instant) {
    let of = |wanted: &str| told.iter().filter(|(_, told)| told == wanted).count();
    let (why, stop) = (of(reason), of("too_many_opens"));
    assert_eq!(why + stop, told.len(), "{what}: {told:?}");
    let most = 2 + usize::try_from(start.elapsed().as_secs()).unwrap();
    assert!(why <= most, "{what}: {why} were told why");
}

#[tokio::test]
async fn denied_names_have_a_rate() {
    let world = World::start().await;
    let session = world
        .session_for(Ask {
            allow: &["api.allowed.test"],
            ..Ask::default()
        })
        .await;
    let path = format!("/runtime/providers/test/sessions/{}", session.id());
    let limits = json!({"limits": {"opensPerSecond": 1}}).to_string();
    let reply = world.gateway.admin("PATCH", &path, &limits).await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
    let credential = BASE64.encode(session.userinfo().as_bytes());
    let ask = |name: &str| {
        format!(
            "GET /egress/v1/names/{name} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Basic {credential}\r\n\r\n"
        )
    };
    let mut wire = session.dial().await;
    // What is no name is an ask as any other.
    for (name, status, reason) in [
        ("evil.test", 403, "host_not_allowed"),
        ("a..b", 400, "malformed_target"),
        ("%ff", 400, "malformed_target"),
    ] {
        let start = Instant::now();
        wire.send(ask(name).repeat(ASKS)).await;
        let mut told = Vec::new();
        for _ in 0..ASKS {
            let reply = wire.reply().await;
            let reason = reply.json()["reason"].as_str().unwrap().to_owned();
            told.push((reply.status(), reason));
        }
        let known = [
            (status, reason.to_owned()),
            (429, "too_many_opens".to_owned()),
        ];
        assert!(told.iter().all(|told| known.contains(told)), "{told:?}");
        held_to_one_a_second(name, &told, reason, start);
    }
    // What is allowed is not spent by what is not.
    wire.send(ask("api.allowed.test")).await;
    assert_eq!(wire.head().await.status, 204);
}

/// Captured connections whose requests cannot be read, or ask for a proxy that is none.
#[tokio::test]
async fn captured_heads_that_lead_nowhere_have_a_rate() {
    let world = World::with(Settings {
        listeners:
            "  - {kind: sni, address: \"127.0.0.1:0\", targetPort: 4433, identify: source}\n"
                .to_owned(),
        ..Settings::default()
    })
    .await;
    let listener = world.gateway.listener("sni").await;
    let body = json!({
        "sources": ["127.0.0.0/8"], "egress": {"allowedHosts": []}, "limits": {"opensPerSecond": 1},
    });
    let path = "/runtime/providers/test/sessions";
    let reply = world.gateway.admin("POST", path, &body.to_string()).await;
    assert_eq!(reply.status(), 201, "{}", reply.text());
    for (head, reason) in [
        ("GET / HTTP/1.1\r\nno field\r\n\r\n", "malformed_request"),
        (
            "CONNECT evil.test:80 HTTP/1.1\r\nHost: evil.test:80\r\n\r\n",
            "malformed_target",
        ),
    ] {
        let start = Instant::now();
        let mut told = Vec::new();
        for _ in 0..ASKS {
            let mut wire = Wire::dial(listener).await;
            wire.send(head).await;
            let reply = wire.reply().await;
            let reason = reply.json()["reason"].as_str().unwrap().to_owned();
            told.push((reply.status(), reason));
            // Whatever is answered, what its sender means next is unclear.
            assert_eq!(reply.head.value("connection"), "close");
        }
        held_to_one_a_second(head, &told, reason, start);
    }
}

#[tokio::test]
async fn a_path_that_must_be_encoded_is_not_called_a_host() {
    let world = World::start().await;
    let session = world.session().await;
    let (plain, port) = (world.plain(), world.http.port());
    for path in ["/a<b>", "/a`b", "/a?b=<c>", "/a#b"] {
        let reply = session.fetch(&plain, path).await;
        assert_eq!(reply.status(), 400, "{path}: {}", reply.text());
        let told = reply.json();
        assert_eq!(told["reason"], "malformed_target", "{path}: {told}");
        assert_eq!(told["host"], "plain.allowed.test", "{path}: {told}");
        assert_eq!(told["port"], port, "{path}: {told}");
        let hint = told["hint"].as_str().unwrap();
        assert!(hint.contains("percent-encoded"), "{path}: {told}");
    }
    assert_eq!(world.http.connections(), 0);
}

#[tokio::test]
async fn a_path_that_must_be_encoded_is_told_inside_a_tunnel_too() {
    let world = World::start().await;
    let session = world.session().await;
    let plain = world.plain();
    for target in ["/a<b>", "/a?b=<c>", &format!("http://{plain}/a<b>")] {
        let mut tunnel = session.tunnel(&plain).await;
        tunnel
            .send(format!("GET {target} HTTP/1.1\r\nHost: {plain}\r\n\r\n"))
            .await;
        let reply = tunnel.reply().await;
        assert_eq!(reply.status(), 400, "{target}: {}", reply.text());
        let told = reply.json();
        assert_eq!(told["reason"], "malformed_target", "{target}: {told}");
        assert_eq!(told["host"], "plain.allowed.test", "{target}: {told}");
        assert_eq!(told["hintFor"], "client", "{target}: {told}");
        let hint = told["hint"].as_str().unwrap();
        assert!(hint.contains("percent-encoded"), "{target}: {told}");
    }
}

#[tokio::test]
async fn a_malformed_request_inside_a_tunnel_is_told_with_its_target() {
    let world = World::start().await;
    let session = world.session().await;
    let plain = world.plain();
    let mut tunnel = session.tunnel(&plain).await;
    tunnel
        .send(format!(
            "GET / HTTP/1.1\r\nHost: {plain}\r\nno field\r\n\r\n"
        ))
        .await;
    let reply = tunnel.reply().await;
    assert_eq!(reply.status(), 400, "{}", reply.text());
    let told = reply.json();
    assert_eq!(told["reason"], "malformed_request", "{told}");
    assert_eq!(told["host"], "plain.allowed.test", "{told}");
    assert_eq!(told["port"], world.http.port(), "{told}");
}

/// RFC 9112 §9.3, §9.6.
#[tokio::test]
async fn a_refusal_that_leaves_a_body_unread_says_that_it_is_the_last_answer() {
    let world = World::start().await;
    let session = world.session().await;
    let plain = world.plain();
    let credential = BASE64.encode(session.userinfo().as_bytes());
    let ask = |host: &str, framing: &str| {
        format!(
            "POST http://{host}/upload HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: Basic {credential}\r\n{framing}\r\n\r\n"
        )
    };
    // More than is read of what is refused, and what is not asked for.
    for framing in [
        "Content-Length: 100000",
        "Content-Length: 5\r\nExpect: 100-continue",
    ] {
        let mut wire = session.dial().await;
        wire.send(ask("evil.test", framing)).await;
        let reply = wire.reply().await;
        assert_eq!(reply.status(), 403, "{framing}: {}", reply.text());
        assert_eq!(reply.head.value("connection"), "close", "{framing}");
        assert!(wire.rest().await.0.is_empty(), "{framing}: it goes on");
    }
    // What is little is read, and the next request served.
    let mut wire = session.dial().await;
    for (host, status) in [("evil.test", 403), (plain.as_str(), 200)] {
        wire.send(ask(host, "Content-Length: 5") + "hello").await;
        let reply = wire.reply().await;
        assert_eq!(reply.status(), status, "{host}: {}", reply.text());
        assert_eq!(reply.head.value("connection"), "", "{host}");
    }
}
