//! Balancers that say for whom they speak: HAProxy in front of each kind of listener, and headers nobody should believe.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::net::SocketAddr;

use e2e::program::Running;
use e2e::raw::End;
use e2e::tasks::{free_port, listening};
use e2e::{Ask, Program, Settings, Socks, Wire, World};
use serde_json::json;

/// The headers' sender as it is seen: all of these tests' balancers are on loopback.
const TRUST: &str = "proxyProtocol: {trusted: [\"127.0.0.1\"]}";

fn settings() -> Settings {
    let listener = |kind: &str, more: &str| {
        format!("  - {{kind: {kind}, address: \"127.0.0.1:0\", {TRUST}{more}}}\n")
    };
    Settings {
        listeners: [
            listener("plain", ""),
            listener("public", ", quic: false"),
            listener("socks", ""),
            listener("sni", ", targetPort: 4433, identify: header"),
            listener("transparent", ", identify: source"),
        ]
        .concat(),
        limits: "  connectionsPerSource: 4\n".to_owned(),
        ..Settings::default()
    }
}

/// HAProxy that passes TCP on to each of these, with this kind of header.
async fn haproxy(
    directory: &std::path::Path,
    header: &str,
    upstreams: &[SocketAddr],
) -> (Running, Vec<SocketAddr>) {
    let mut text =
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n"
            .to_owned();
    let mut addresses = Vec::new();
    for (number, upstream) in upstreams.iter().enumerate() {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port().await));
        text += &format!("listen l{number}\n  bind {address}\n  server s {upstream} {header}\n");
        addresses.push(address);
    }
    let config = directory.join(format!("{header}.cfg"));
    std::fs::write(&config, text).unwrap();
    let process = Program::new("/usr/sbin/haproxy")
        .args(["-db", "-f"])
        .arg(&config)
        .start(&directory.join(format!("{header}.log")));
    for address in &addresses {
        listening("haproxy", *address).await;
    }
    (process, addresses)
}

/// A v2 header, this source, and these further bytes.
fn v2(source: [u8; 4], destination: ([u8; 4], u16), more: &[u8]) -> Vec<u8> {
    let length = u16::try_from(12 + more.len()).unwrap();
    let (to, port) = destination;
    [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..],
        &length.to_be_bytes(),
        &source,
        &to,
        &[0x30, 0x39],
        &port.to_be_bytes(),
        more,
    ]
    .concat()
}

#[tokio::test]
async fn haproxy_before_every_listener() {
    let world = World::with(settings()).await;
    let plain = world.gateway.listeners("plain").await[1];
    let public = world.gateway.listeners("public").await[1];
    let socks = world.gateway.listener("socks").await;
    let (api, target) = (world.api(), world.plain());
    // The credential is bound to where the client is, not to where the balancer is.
    let more = ["--source", "127.0.0.77"];
    let session = world
        .session_for(Ask {
            allow: &[&api, &target],
            more: &more,
            ..Ask::default()
        })
        .await;
    let directory = session.directory();
    for header in [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c",
    ] {
        let (_process, addresses) = haproxy(directory, header, &[plain, public, socks]).await;
        let proxies = [
            format!("http://{}@{}", session.userinfo(), addresses[0]),
            format!("https://{}@{}", session.userinfo(), addresses[1]),
            format!("socks5h://{}@{}", session.userinfo(), addresses[2]),
        ];
        for proxy in proxies {
            let curl = |from: &str| {
                Program::new("curl")
                    .args([
                        "-sS",
                        "--fail",
                        "--max-time",
                        "20",
                        "--interface",
                        from,
                        "--proxy",
                        &proxy,
                    ])
                    .arg("--proxy-cacert")
                    .arg(session.bundle())
                    .arg("--cacert")
                    .arg(session.bundle())
                    .arg(format!("https://{api}/echo"))
                    .run()
            };
            assert!(
                curl("127.0.0.77").await.succeeded().contains("\"GET\""),
                "{proxy}"
            );
            let elsewhere = curl("127.0.0.78").await;
            assert_ne!(elsewhere.code, Some(0), "{proxy}");
        }
        let from = |record: &e2e::Record| record.text("downstream").starts_with("127.0.0.77:");
        world.gateway.record("the client's own address", from).await;
        let denied = |record: &e2e::Record| {
            record.text("downstream").starts_with("127.0.0.78:")
                && record.text("reason") == "source_not_allowed"
        };
        world.gateway.record("another client's", denied).await;
    }
    // What is counted by source is counted by the client's.
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut wire = Wire::dial(plain).await;
        wire.send(v2([192, 0, 2, 1], ([127, 0, 0, 1], 1), b""))
            .await;
        wire.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(wire.reply().await.status(), 200);
        held.push(wire);
    }
    let mut fifth = Wire::dial(plain).await;
    fifth
        .send(v2([192, 0, 2, 1], ([127, 0, 0, 1], 1), b""))
        .await;
    assert_eq!(fifth.rest().await.1, End::Reset);
    let mut other = Wire::dial(plain).await;
    other
        .send(v2([192, 0, 2, 2], ([127, 0, 0, 1], 1), b""))
        .await;
    other
        .send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    assert_eq!(other.reply().await.status(), 200);
}

/// A trusted peer that says nothing readable is not served, and one that is not trusted is not listened to.
#[tokio::test]
async fn headers_that_are_none() {
    let world = World::with(Settings {
        limits: "  headTimeout: 1s\n".to_owned(),
        ..settings()
    })
    .await;
    let target = world.plain();
    let session = world.session().await;
    let request = format!(
        "GET http://{target}/echo HTTP/1.1\r\nHost: {target}\r\n{}\r\n",
        session.authorization()
    );
    let good = v2([192, 0, 2, 1], ([127, 0, 0, 1], 1), b"");
    let v1 = b"PROXY TCP4 192.0.2.1 127.0.0.1 1234 3128\r\n".to_vec();
    let overflow = [&good[..14], &[0xff, 0xff], &good[16..]].concat();
    let short = [&good[..14], &[0, 11], &good[16..]].concat();
    let plain = world.gateway.listeners("plain").await[1];
    let answers = [
        (good.clone(), 200),
        (v1.clone(), 200),
        (b"PROXY UNKNOWN\r\n".to_vec(), 200),
        ([&good[..], &good].concat(), 400),
        ([&v1[..], &v1].concat(), 400),
        (overflow, 400),
        (short, 400),
        (Vec::new(), 400),
    ];
    for (header, status) in &answers {
        let mut wire = Wire::dial(plain).await;
        wire.send([header, request.as_bytes()].concat()).await;
        let what = header.escape_ascii().to_string();
        assert_eq!(wire.reply().await.status(), *status, "{what}");
        if *status == 400 {
            assert_eq!(wire.rest().await, (Vec::new(), End::Fin), "{what}");
        }
    }
    // From anybody else a header is what it is: not a request.
    let untrusted = world.gateway.ports.plain;
    for (header, _) in answers.iter().filter(|(header, _)| !header.is_empty()) {
        let mut wire = Wire::dial(untrusted).await;
        wire.send([header, request.as_bytes()].concat()).await;
        assert_eq!(
            wire.reply().await.status(),
            400,
            "{}",
            header.escape_ascii()
        );
    }
    // Where there is no answer to give there is none.
    for kind in ["public", "socks", "sni", "transparent"] {
        let listener = *world.gateway.listeners(kind).await.last().unwrap();
        let mut wire = Wire::dial(listener).await;
        wire.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            .await;
        wire.cut().await;
        let own = wire.local().to_string();
        let record = world
            .gateway
            .record(kind, |record| record.text("downstream") == own)
            .await;
        assert_eq!(
            record.text("reason"),
            "malformed_request",
            "{kind}: {record:?}"
        );
    }
    // A slow one is none.
    let mut wire = Wire::dial(plain).await;
    wire.send(&good[..20]).await;
    assert_eq!(wire.reply().await.status(), 400);
}

/// A balancer may say whose a connection is, and where it was to go.
#[tokio::test]
async fn credentials_and_destinations_in_headers() {
    let world = World::with(settings()).await;
    let sni = world.gateway.listener("sni").await;
    let session = world.session().await;
    let tlv = |text: &str| {
        let length = u16::try_from(text.len()).unwrap().to_be_bytes();
        [&[0xe1][..], &length, text.as_bytes()].concat()
    };
    let head = b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n";
    for (more, reason) in [
        (tlv(session.handle()), "host_not_allowed"),
        (tlv("sgh_wrong"), "credential_invalid"),
        (Vec::new(), "credential_missing"),
    ] {
        let mut wire = Wire::dial(sni).await;
        wire.send([&v2([192, 0, 2, 1], ([127, 0, 0, 1], 1), &more)[..], head].concat())
            .await;
        assert_eq!(wire.reply().await.json()["reason"], reason);
    }
    // The destination in the header is the original one.
    let transparent = world.gateway.listener("transparent").await;
    let egress = json!({"allowedHosts": [world.plain()], "allowedAddresses": ["127.0.0.0/8"]});
    let body = json!({"egress": egress, "sources": ["192.0.2.7"]}).to_string();
    let reply = world
        .gateway
        .admin("POST", "/runtime/providers/test/sessions", &body)
        .await;
    assert_eq!(reply.status(), 201, "{}", reply.text());
    for (port, status) in [(world.http.port(), 200), (world.http.port() ^ 1, 403)] {
        let mut wire = Wire::dial(transparent).await;
        let header = v2([192, 0, 2, 7], ([203, 0, 113, 1], port), b"");
        let head = b"GET /echo HTTP/1.1\r\nHost: plain.allowed.test\r\n\r\n";
        wire.send([&header[..], head].concat()).await;
        assert_eq!(wire.reply().await.status(), status);
    }
    // SOCKS inside it, for completeness: the header first, then the greeting.
    let socks = world.gateway.listener("socks").await;
    let mut client = Socks::dial(socks, session.handle()).await;
    client
        .wire
        .send(v2([192, 0, 2, 1], ([127, 0, 0, 1], 1), b""))
        .await;
    assert_eq!(client.ask(&world.plain()).await, 0);
}

/// Whoever was sent here knows of no proxy: without a session it is refused, and not asked for a credential that it could
/// not give.
#[tokio::test]
async fn a_captured_stranger_is_refused_and_not_challenged() {
    let world = World::with(settings()).await;
    let listener = world.gateway.listener("sni").await;
    let stranger = v2([192, 0, 2, 1], ([127, 0, 0, 1], 1), b"");
    let asked = b"GET / HTTP/1.1\r\nHost: plain.allowed.test:4433\r\n\r\n";
    let mut wire = Wire::dial(listener).await;
    wire.send([&stranger[..], asked].concat()).await;
    let reply = wire.reply().await;
    assert_eq!(reply.status(), 403, "{}", reply.text());
    assert_eq!(reply.json()["reason"], "credential_missing");
    for challenge in ["proxy-authenticate", "www-authenticate"] {
        let mut names = reply.head.headers.iter().map(|(name, _)| name);
        assert!(
            !names.any(|name| name.eq_ignore_ascii_case(challenge)),
            "{:?}",
            reply.head
        );
    }
}
