//! Absolute-form requests that are refused, ambiguous or cut, and upstreams that fail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use e2e::raw::{End, read_head};
use e2e::tasks::{QUIET, timed};
use e2e::{Answer, Ask, Session, Settings, Wire, World};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[tokio::test]
async fn a_denied_host_is_403_without_a_dns_query() {
    let world = World::start().await;
    let session = world.session().await;
    let reply = session.fetch("evil.test", "/").await;
    assert_eq!(reply.status(), 403);
    assert_eq!(reply.json()["reason"], "host_not_allowed");
    assert!(reply.head.value("proxy-status").contains("error="));
    assert_eq!(world.dns.queries(), []);
}

#[tokio::test]
async fn every_request_of_a_connection_is_authenticated_and_judged_by_itself() {
    let world = World::start().await;
    let session = world.session().await;
    let plain = world.plain();
    let host = format!("Host: {plain}\r\n");
    let mut wire = session.dial().await;
    session
        .ask(&mut wire, &format!("GET http://{plain}/echo"), &host)
        .await;
    assert_eq!(wire.reply().await.status(), 200);
    wire.send(format!("GET http://{plain}/echo HTTP/1.1\r\n{host}\r\n"))
        .await;
    assert_eq!(
        wire.reply().await.status(),
        407,
        "the second request has no credential"
    );
    let mut wire = session.dial().await;
    session
        .ask(&mut wire, &format!("GET http://{plain}/echo"), &host)
        .await;
    assert_eq!(wire.reply().await.status(), 200);
    session
        .ask(&mut wire, "GET http://evil.test/", "Host: evil.test\r\n")
        .await;
    assert_eq!(
        wire.reply().await.status(),
        403,
        "the second request is denied"
    );
    assert_eq!(world.http.seen().len(), 2);
}

#[tokio::test]
async fn an_upgrade_nobody_asked_for_is_not_passed_on() {
    let (_world, origin, session, target) = World::with_raw().await;
    let mut wire = session.dial().await;
    let host = format!("Host: {target}\r\n");
    session
        .ask(&mut wire, &format!("GET http://{target}/"), &host)
        .await;
    let mut accepted = origin.accept().await;
    read_head(&mut accepted).await;
    let unsolicited =
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n";
    accepted.write_all(unsolicited).await.unwrap();
    assert_eq!(wire.reply().await.status(), 502);
}

#[tokio::test]
async fn a_cut_body_is_never_a_clean_end() {
    let (_world, origin, session, target) = World::with_raw().await;
    let answers: [&[u8]; 2] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly ten b",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nonly ten b",
    ];
    for answer in answers {
        let mut wire = session.dial().await;
        let host = format!("Host: {target}\r\n");
        session
            .ask(&mut wire, &format!("GET http://{target}/"), &host)
            .await;
        let mut accepted = origin.accept().await;
        // All of it: what is unread at the close would make a reset of it, which may destroy the answer on its way.
        read_head(&mut accepted).await;
        accepted.write_all(answer).await.unwrap();
        drop(accepted);
        // A reset may overtake what was sent before it, and an end that comes with the beginning leaves nothing of it; what no
        // end may do is look complete.
        let (rest, end) = wire.rest().await;
        let text = String::from_utf8_lossy(&rest);
        assert!(
            !text.contains("\r\n0\r\n"),
            "a last chunk was made up: {text}"
        );
        assert!(
            rest.len() < 300
                && (end == End::Reset || rest.is_empty() || text.contains("only ten b")),
            "{end:?} {text:?}"
        );
    }
}

#[tokio::test]
async fn dead_upstreams_are_502_or_504_with_a_reason() {
    let world = World::start().await;
    let plain = world.plain();
    let closed = format!("closed.allowed.test:{}", e2e::tasks::free_port().await);
    world.dns.point("closed.allowed.test");
    world.dns.set("broken.allowed.test", Answer::Failing);
    let allow = ["*.allowed.test:*"];
    let session = world
        .session_for(Ask {
            allow: &allow,
            ..Ask::default()
        })
        .await;
    let rows = [
        (plain.as_str(), "/reset", "upstream_reset"),
        (closed.as_str(), "/", "connect_refused"),
        ("missing.allowed.test", "/", "dns_not_found"),
        ("broken.allowed.test", "/", "dns_failed"),
    ];
    for (authority, path, reason) in rows {
        let reply = session.fetch(authority, path).await;
        assert_eq!(
            (reply.status(), reply.json()["reason"].as_str()),
            (502, Some(reason))
        );
        assert!(!reply.text().contains("os error"), "{}", reply.text());
    }
}

#[tokio::test]
async fn ambiguous_requests_are_refused() {
    let world = World::start().await;
    let session = world.session().await;
    let plain = world.plain();
    let host = format!("Host: {plain}\r\n");
    let url = format!("http://{plain}/echo");
    let rows = [
        (format!("GET {url}"), "Host: evil.test\r\n".to_owned(), 400),
        (format!("GET {url}"), format!("{host}{host}"), 400),
        (format!("GET {url}"), String::new(), 400),
        (
            format!("POST {url}"),
            format!("{host}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
            400,
        ),
        (
            format!("POST {url}"),
            format!("{host}Content-Length: 5\r\nContent-Length: 6\r\n"),
            400,
        ),
        (
            format!("POST {url}"),
            format!("{host}Content-Length: +5\r\n"),
            400,
        ),
        (
            format!("POST {url}"),
            format!("{host}Transfer-Encoding: xchunked\r\n"),
            400,
        ),
        (
            format!("POST {url}"),
            format!("{host}Transfer-Encoding: chunked, identity\r\n"),
            400,
        ),
        (format!("GET {url}"), format!("{host}X: a\r\n b\r\n"), 400),
        (format!("GET {url}"), format!("{host}X : a\r\n"), 400),
        (format!("GET {url}"), format!("{host}X: a\nY: b\r\n"), 400),
        (format!("GET https://{plain}/echo"), host.clone(), 400),
        (format!("GET ftp://{plain}/echo"), host.clone(), 400),
        (format!("GET http://user@{plain}/echo"), host.clone(), 400),
        ("GET *".to_owned(), host.clone(), 400),
        ("GET /etc/passwd".to_owned(), host.clone(), 404),
        (
            format!("GET {url}"),
            format!("{host}{}", "X: y\r\n".repeat(200)),
            431,
        ),
    ];
    for (line, fields, status) in rows {
        let mut wire = session.dial().await;
        session.ask(&mut wire, &line, &fields).await;
        let reply = wire.reply().await;
        assert_eq!(
            reply.status(),
            status,
            "{line} {fields:?}: {}",
            reply.text()
        );
    }
    assert_eq!(world.http.seen().len(), 0, "{:?}", world.http.seen());
}

/// The status and reason of a CONNECT that is refused.
async fn refusal(session: &Session, target: &str) -> (u16, String) {
    let (head, mut wire) = session.connect(target).await;
    let body = wire.rest().await.0;
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    (
        head.status,
        body["reason"].as_str().unwrap_or_default().to_owned(),
    )
}

#[tokio::test]
async fn an_upstream_that_cannot_be_had_in_time_or_at_all() {
    let world = World::with(Settings {
        limits: "  dialTimeout: 1s\n  responseTimeout: 1s\n".into(),
        ..Settings::default()
    })
    .await;
    // A listener whose backlog is full takes no more connections, and says nothing.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let (mut crowd, mut waits) = (Vec::new(), 0);
    // Slowness alone is no sign: one that came late has its place all the same.
    while waits < 3 {
        match tokio::time::timeout(QUIET, TcpStream::connect(address)).await {
            Ok(taken) => {
                crowd.push(taken.unwrap());
                waits = 0;
            }
            Err(_) => waits += 1,
        }
        assert!(crowd.len() < 64, "the backlog is never full");
    }
    let full = format!("127.0.0.1:{}", address.port());
    let (nowhere, plain) = ("127.255.255.255:80", world.plain());
    let ask = Ask {
        allow: &[&full, nowhere, &plain],
        ..Ask::default()
    };
    let session = world.session_for(ask).await;
    let timeout = (504, "connect_timeout".to_owned());
    assert_eq!(refusal(&session, &full).await, timeout);
    // The loopback network's broadcast address: no TCP connection has it as its other end.
    let unreachable = (502, "connect_unreachable".to_owned());
    assert_eq!(refusal(&session, nowhere).await, unreachable);
    let reply = session.fetch(&plain, "/hang").await;
    let timeout = (504, "upstream_timeout");
    assert_eq!(
        (reply.status(), reply.json()["reason"].as_str().unwrap()),
        timeout
    );
}

#[tokio::test]
async fn options_and_trace_are_counted_down_and_end_here() {
    let (_world, origin, session, target) = World::with_raw().await;
    let host = format!("Host: {target}\r\n");
    for method in ["OPTIONS", "TRACE"] {
        let line = format!("{method} http://{target}/x");
        let mut wire = session.dial().await;
        let fields = format!("{host}Max-Forwards: 0\r\nX-Mine: 1\r\nCookie: secret\r\n");
        session.ask(&mut wire, &line, &fields).await;
        let reply = wire.reply().await;
        assert_eq!(reply.status(), 200, "{method}: {}", reply.text());
        let text = reply.text().to_ascii_lowercase();
        assert_eq!(text.contains("x-mine: 1"), method == "TRACE", "{text}");
        for hidden in ["secret", "proxy-authorization", "basic "] {
            assert!(!text.contains(hidden), "{hidden} in {text}");
        }
        // The connection goes on, and one neighbour further is one less.
        session
            .ask(&mut wire, &line, &format!("{host}Max-Forwards: 5\r\n"))
            .await;
        let mut far = Wire::over(origin.accept().await);
        let head = String::from_utf8(far.through(b"\r\n\r\n").await).unwrap();
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with(&method.to_ascii_lowercase()), "{head}");
        assert!(head.contains("max-forwards: 4\r\n"), "{head}");
        far.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(wire.reply().await.status(), 204);
        for odd in [
            "Max-Forwards: x\r\n",
            "Max-Forwards: 1\r\nMax-Forwards: 1\r\n",
        ] {
            let mut wire = session.dial().await;
            session.ask(&mut wire, &line, &format!("{host}{odd}")).await;
            assert_eq!(wire.reply().await.status(), 400, "{method} {odd}");
        }
    }
    origin.stays_alone().await;
}

/// An upstream may answer before it has heard the whole request. With its answer the exchange is over: nobody would watch
/// over the rest of the body, and no other request waits behind it.
#[tokio::test]
async fn an_upload_ends_with_the_answer_that_did_not_wait_for_it() {
    let (_world, origin, session, target) = World::with_raw().await;
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let mut wire = session.dial().await;
        let fields = format!("Host: {target}\r\n{framing}\r\n");
        session
            .ask(&mut wire, &format!("POST http://{target}/"), &fields)
            .await;
        let begun: &[u8] = if framing.contains("chunked") {
            b"5\r\nhello\r\n"
        } else {
            b"hello"
        };
        wire.send(begun).await;
        let mut accepted = origin.accept().await;
        read_head(&mut accepted).await;
        let early = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        accepted.write_all(early).await.unwrap();
        assert_eq!(wire.reply().await.status(), 200, "{framing}");
        // The upstream hears the end, however long the client goes on.
        let ((heard, _), took) = timed(e2e::raw::drain(&mut accepted)).await;
        assert!(took < std::time::Duration::from_secs(1), "{took:?}");
        assert!(heard.len() < 100, "{framing}: {}", heard.len());
        // Another request of the session has a connection of its own.
        let (reply, ()) = tokio::join!(session.fetch(&target, "/"), async {
            let mut accepted = origin.accept().await;
            read_head(&mut accepted).await;
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            accepted.write_all(answer).await.unwrap();
        });
        assert_eq!(reply.status(), 200, "{framing}");
    }
}

/// What the client broke off is not the upstream's fault.
#[tokio::test]
async fn a_body_that_breaks_off_is_the_clients() {
    let (world, origin, session, target) = World::with_raw().await;
    let mut wire = session.dial().await;
    let fields = format!("Host: {target}\r\nTransfer-Encoding: chunked\r\n");
    session
        .ask(&mut wire, &format!("POST http://{target}/"), &fields)
        .await;
    wire.send(b"5\r\nhello0\r\n").await;
    let mut accepted = origin.accept().await;
    let _ = e2e::raw::drain(&mut accepted).await;
    let record = world.gateway.record_of(&target).await;
    assert_eq!(record.text("reason"), "malformed_request", "{record:?}");
}

/// While an answer is awaited nobody reads the client's side, which may have ended without the client being gone: a reset is
/// noticed all the same, before the head of the answer and behind it, in a tunnel and outside.
#[tokio::test]
async fn a_client_that_resets_while_it_waits_is_gone() {
    let world = World::start().await;
    let (origin, target) = world.raw_origin().await;
    let ask = Ask {
        allow: &[&target],
        ..Ask::default()
    };
    let session = world.session_for(ask).await;
    for (inside, begun) in [(false, false), (false, true), (true, false), (true, true)] {
        let fields = format!("Host: {target}\r\n");
        let mut wire = if inside {
            session.tunnel(&target).await
        } else {
            session.dial().await
        };
        let path = format!("/{inside}/{begun}");
        if inside {
            wire.send(format!("GET {path} HTTP/1.1\r\n{fields}\r\n"))
                .await;
        } else {
            let line = format!("GET http://{target}{path}");
            session.ask(&mut wire, &line, &fields).await;
        }
        let mut far = origin.accept().await;
        read_head(&mut far).await;
        if begun {
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
            far.write_all(head).await.unwrap();
            assert_eq!(wire.head().await.status, 200);
        }
        wire.abort();
        // Its going is the upstream's news too.
        e2e::within("the end", e2e::raw::drain(&mut far)).await;
        let record = world
            .gateway
            .record("the request's record", |one| one.text("path") == path)
            .await;
        let outcome = if begun { "reset" } else { "abandoned" };
        assert_eq!(record.text("outcome"), outcome, "{record:?}");
    }
}

/// A name is not asked for, and nothing dialled, any longer than its session may.
#[tokio::test]
async fn an_open_under_way_ends_with_the_right_to_it() {
    let world = World::start().await;
    world.dns.set("silent.test", e2e::Answer::Silent);
    for tunnel in [true, false] {
        let ask = Ask {
            allow: &["silent.test:80"],
            ..Ask::default()
        };
        let session = world.session_for(ask).await;
        let before = world.dns.queries_for("silent.test");
        let mut wire = session.dial().await;
        let (line, fields) = if tunnel {
            ("CONNECT silent.test:80", "Host: silent.test:80\r\n")
        } else {
            ("GET http://silent.test/", "Host: silent.test\r\n")
        };
        session.ask(&mut wire, line, fields).await;
        e2e::until("a question", || {
            (world.dns.queries_for("silent.test") > before).then_some(())
        })
        .await;
        session.revoke(&world.gateway).await;
        let (reply, took) = timed(wire.reply()).await;
        assert!(took < std::time::Duration::from_secs(1), "{took:?}");
        assert_eq!(reply.json()["reason"], "session_revoked");
    }
}

/// An address is judged by what holds once it is reached, not only by what held when its name was asked for.
#[tokio::test]
async fn an_address_is_forbidden_while_it_is_sought() {
    let world = World::start().await;
    let port = world.http.port();
    let target = format!("late.test:{port}");
    for tunnel in [true, false] {
        world.dns.set("late.test", e2e::Answer::Silent);
        let ask = Ask {
            allow: &[&target],
            ..Ask::default()
        };
        let session = world.session_for(ask).await;
        let before = world.dns.queries_for("late.test");
        let mut wire = session.dial().await;
        let line = if tunnel {
            format!("CONNECT {target}")
        } else {
            format!("GET http://{target}/echo")
        };
        session
            .ask(&mut wire, &line, &format!("Host: {target}\r\n"))
            .await;
        e2e::until("a question", || {
            (world.dns.queries_for("late.test") > before).then_some(())
        })
        .await;
        let path = format!("/runtime/providers/test/sessions/{}", session.id());
        let grant = serde_json::json!({"egress": {"allowedHosts": [target], "deniedHosts": ["127.0.0.0/8"]}});
        let patched = world
            .gateway
            .admin("PATCH", &path, &grant.to_string())
            .await;
        assert_eq!(patched.status(), 200, "{}", patched.text());
        world.dns.point("late.test");
        let reply = wire.reply().await;
        assert_eq!(reply.json()["reason"], "policy_changed", "{}", reply.text());
    }
}

/// Each way it may be read would be kept and recorded with all of its path.
#[tokio::test]
async fn a_request_that_may_be_read_in_a_thousand_ways_is_refused() {
    let world = World::start().await;
    let session = world.session().await;
    let plain = world.plain();
    let host = format!("Host: {plain}\r\n");
    for (ways, status) in [(3, 200), (1000, 400)] {
        let mut wire = session.dial().await;
        let query = "_method=a;".repeat(ways);
        let line = format!("GET http://{plain}/echo?{query}");
        session.ask(&mut wire, &line, &host).await;
        assert_eq!(wire.reply().await.status(), status, "{ways}");
    }
}
