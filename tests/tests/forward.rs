//! Absolute-form requests: what reaches the origin, and what comes back as it comes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use e2e::World;
use e2e::origin::pattern_digest;
use e2e::raw::{End, FORGED};
use e2e::until;

#[tokio::test]
async fn the_origin_sees_a_request_of_its_own_and_no_credential() {
    let world = World::start().await;
    let session = world.session().await;
    let plain = world.plain();
    let fields = format!(
        "Host: {plain}\r\nX-Kept: kept\r\nX-Hop: hop\r\nConnection: keep-alive, X-Hop\r\n\
         Proxy-Connection: keep-alive\r\nTE: trailers\r\nX-Forwarded-Host: evil.test\r\n"
    );
    let mut wire = session.dial().await;
    session
        .ask(
            &mut wire,
            &format!("GET http://{plain}/echo?q=secret"),
            &fields,
        )
        .await;
    assert_eq!(wire.reply().await.status(), 200);
    let seen = world.http.saw("/echo?q=secret");
    assert_eq!(seen.values("host"), [plain.as_str()]);
    assert_eq!(seen.values("x-kept"), ["kept"]);
    for gone in [
        "proxy-authorization",
        "proxy-connection",
        "x-hop",
        "x-forwarded-host",
    ] {
        assert_eq!(
            seen.values(gone),
            Vec::<&str>::new(),
            "{gone} went up: {seen:?}"
        );
    }
    let all = format!("{seen:?}");
    assert!(
        !all.contains(session.handle()),
        "the credential went up: {all}"
    );
    let record = world.gateway.record_of(&plain).await;
    assert_eq!(
        (record.text("kind"), record.text("front")),
        ("request", "forward")
    );
    assert_eq!(
        (record.text("method"), record.number("status")),
        ("GET", Some(200))
    );
    assert!(record.text("path").starts_with("/echo"), "{record:?}");
    assert!(
        !record.mentions("secret"),
        "the query is in the record: {record:?}"
    );
}

#[tokio::test]
async fn upstream_connections_are_kept_but_never_shared_between_sessions() {
    let world = World::start().await;
    let (first, second) = (world.session().await, world.session().await);
    let plain = world.plain();
    let host = format!("Host: {plain}\r\n");
    let mut wire = first.dial().await;
    for path in ["/echo?1", "/echo?2"] {
        first
            .ask(&mut wire, &format!("GET http://{plain}{path}"), &host)
            .await;
        assert_eq!(wire.reply().await.status(), 200);
    }
    assert_eq!(world.http.connections(), 1, "keep-alive upstream");
    assert_eq!(first.fetch(&plain, "/echo?3").await.status(), 200);
    assert_eq!(
        world.http.connections(),
        1,
        "the pool outlives a downstream connection"
    );
    assert_eq!(second.fetch(&plain, "/echo?4").await.status(), 200);
    let (third, fourth) = (world.http.saw("/echo?3"), world.http.saw("/echo?4"));
    assert_ne!(
        third.connection, fourth.connection,
        "two sessions met on one connection"
    );
}

#[tokio::test]
async fn events_arrive_while_the_stream_is_open() {
    let world = World::start().await;
    let session = world.session().await;
    let plain = world.plain();
    let mut wire = session.dial().await;
    let host = format!("Host: {plain}\r\n");
    session
        .ask(&mut wire, &format!("GET http://{plain}/sse"), &host)
        .await;
    assert_eq!(wire.head().await.value("content-type"), "text/event-stream");
    for event in ["one", "two"] {
        assert_eq!(world.http.event(Some(event.into())), 1);
        let text = String::from_utf8(wire.chunk().await.unwrap()).unwrap();
        assert_eq!(text, format!("data: {event}\n\n"));
    }
    wire.stays_quiet().await;
    world.http.event(None);
    assert_eq!(wire.chunk().await, None);
}

#[tokio::test]
async fn a_client_that_leaves_an_event_stream_frees_the_upstream() {
    let world = World::start().await;
    let session = world.session().await;
    let plain = world.plain();
    let mut wire = session.dial().await;
    let host = format!("Host: {plain}\r\n");
    session
        .ask(&mut wire, &format!("GET http://{plain}/sse"), &host)
        .await;
    wire.head().await;
    wire.abort();
    until("the upstream stream to end", || {
        world.http.event(Some("anybody?".into()));
        (world.http.listeners() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways_and_their_end() {
    let world = World::start().await;
    let session = world.session().await;
    let plain = world.plain();
    let fields = format!("Host: {plain}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n");
    let mut wire = session.dial().await;
    session
        .ask(&mut wire, &format!("GET http://{plain}/upgrade"), &fields)
        .await;
    let head = wire.head().await;
    assert_eq!((head.status, head.value("upgrade")), (101, "echo"));
    wire.send("up and back").await;
    assert_eq!(wire.take(11).await, b"up and back");
    wire.finish().await;
    assert_eq!(wire.rest().await, (Vec::new(), End::Fin));
}

/// A client that offers an upgrade nobody takes (Java offers h2c with every request) and wants no other answer.
#[tokio::test]
async fn an_upgrade_nobody_takes_leaves_the_end_as_it_is() {
    let world = World::start().await;
    let session = world.session().await;
    let plain = world.plain();
    let offer =
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    let fields = format!("Host: {plain}\r\n");
    for (first, last) in [
        (None, format!("{fields}{offer}Connection: close\r\n")),
        (
            Some(format!("{fields}{offer}")),
            format!("{fields}Connection: close\r\n"),
        ),
        (
            Some(format!("{fields}{offer}")),
            "Host: evil.test\r\n".to_owned(),
        ),
    ] {
        let mut wire = session.dial().await;
        let line = format!("GET http://{plain}/echo");
        if let Some(first) = &first {
            session.ask(&mut wire, &line, first).await;
            assert_eq!(wire.reply().await.status(), 200);
        }
        session.ask(&mut wire, &line, &last).await;
        wire.reply().await;
        assert_eq!(wire.rest().await, (Vec::new(), End::Fin), "{last}");
    }
}

/// Nor is the connection kept for it when the client has gone.
#[tokio::test]
async fn an_upgrade_nobody_takes_is_not_waited_for() {
    let (world, origin, session, target) = World::with_raw().await;
    let before = world.gateway.descriptors();
    for _ in 0..5 {
        let mut wire = session.dial().await;
        let fields = format!("Host: {target}\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n");
        session
            .ask(&mut wire, &format!("GET http://{target}/"), &fields)
            .await;
        let far = origin.accept().await;
        wire.abort();
        drop(far);
    }
    until("every connection to be let go", || {
        (world.gateway.descriptors() <= before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn expectations_are_met_by_the_origin_or_the_final_status() {
    let world = World::start().await;
    let session = world.session().await;
    let plain = world.plain();
    let fields =
        |host: &str| format!("Host: {host}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n");
    let mut wire = session.dial().await;
    session
        .ask(
            &mut wire,
            &format!("POST http://{plain}/upload"),
            &fields(&plain),
        )
        .await;
    assert_eq!(wire.head().await.status, 100);
    wire.send("body").await;
    assert!(wire.reply().await.text().starts_with("4 "));
    let mut wire = session.dial().await;
    session
        .ask(
            &mut wire,
            &format!("POST http://{plain}/refuse"),
            &fields(&plain),
        )
        .await;
    assert_eq!(
        wire.head().await.status,
        417,
        "no 100 before the origin's refusal"
    );
    let mut wire = session.dial().await;
    session
        .ask(&mut wire, "POST http://evil.test/", &fields("evil.test"))
        .await;
    assert_eq!(
        wire.head().await.status,
        403,
        "no 100 before the gateway's refusal"
    );
}

#[tokio::test]
async fn bodies_arrive_whole_both_ways() {
    let world = World::start().await;
    let session = world.session().await;
    let plain = world.plain();
    let size = 5_000_011;
    let mut body = Vec::new();
    e2e::origin::write_pattern(size, &mut body).unwrap();
    let mut wire = session.dial().await;
    let fields = format!("Host: {plain}\r\nTransfer-Encoding: chunked\r\n");
    session
        .ask(&mut wire, &format!("PUT http://{plain}/upload"), &fields)
        .await;
    for part in body.chunks(70_001) {
        wire.send(format!("{:x}\r\n", part.len())).await;
        wire.send(part).await;
        wire.send("\r\n").await;
    }
    wire.send("0\r\n\r\n").await;
    let expected = format!("{size} {}\n", pattern_digest(size));
    assert_eq!(wire.reply().await.text(), expected);
    let reply = session
        .fetch(&plain, &format!("/download?bytes={size}"))
        .await;
    assert!(reply.body == body, "{} bytes came back", reply.body.len());
    assert_eq!(
        session.fetch(&plain, "/chunked").await.text(),
        "first,second"
    );
}

#[tokio::test]
async fn a_question_about_the_whole_server_stays_one() {
    let world = World::start().await;
    let session = world.session().await;
    let plain = world.plain();
    let fields = format!("Host: {plain}\r\n");
    for (target, path) in [
        (format!("http://{plain}"), "*"),
        (format!("http://{plain}/"), "/"),
        (format!("http://{plain}/?a=1"), "/?a=1"),
    ] {
        let mut wire = session.dial().await;
        let line = format!("OPTIONS {target}");
        session.ask(&mut wire, &line, &fields).await;
        wire.reply().await;
        world.http.saw(path);
    }
    // In origin form another URI in the query makes it none.
    let mut tunnel = session.tunnel(&plain).await;
    let path = "/echo?next=a://b";
    tunnel
        .send(format!("OPTIONS {path} HTTP/1.1\r\n{fields}\r\n"))
        .await;
    tunnel.reply().await;
    world.http.saw(path);
}

#[tokio::test]
async fn a_length_goes_up_as_a_plain_number() {
    let world = World::start().await;
    let session = world.session().await;
    let plain = world.plain();
    let mut wire = session.dial().await;
    let fields = format!("Host: {plain}\r\nContent-Length: 010\r\n");
    let line = format!("POST http://{plain}/echo?octal");
    session.ask(&mut wire, &line, &fields).await;
    wire.send("ten bytes!").await;
    assert_eq!(wire.reply().await.status(), 200);
    let seen = world.http.saw("/echo?octal");
    assert_eq!(seen.values("content-length"), ["10"]);
}

#[tokio::test]
async fn a_credential_in_the_wrong_place_goes_no_further() {
    let world = World::start().await;
    let session = world.session().await;
    let plain = world.plain();
    let (handle, other) = (session.handle(), world.session().await);
    let basic = data_encoding::BASE64.encode(format!("user:{handle}").as_bytes());
    let fields = format!(
        "Host: {plain}\r\nX-Token: {handle}\r\nCookie: a=1; t={}; b=2\r\nAuthorization: Basic {basic}\r\n",
        other.handle()
    );
    let mut wire = session.dial().await;
    let line = format!("GET http://{plain}/echo/{handle}?token={handle}&kept=1");
    session.ask(&mut wire, &line, &fields).await;
    // The origin knows no such path; that is its own to say.
    assert_eq!(wire.reply().await.status(), 404);
    let seen = world.http.saw("/echo/redacted?token=redacted&kept=1");
    assert_eq!(seen.values("x-token"), ["redacted"]);
    assert_eq!(seen.values("cookie"), ["a=1; t=redacted; b=2"]);
    assert_eq!(seen.values("authorization"), Vec::<&str>::new());
    // What is no credential of ours is not ours to touch.
    let fields = format!(
        "Host: {plain}\r\nAuthorization: Bearer sgh_{}\r\n",
        "A".repeat(43)
    );
    let mut wire = session.dial().await;
    session
        .ask(&mut wire, &format!("GET http://{plain}/echo?own"), &fields)
        .await;
    assert_eq!(wire.reply().await.status(), 200);
    let seen = world.http.saw("/echo?own");
    assert!(seen.values("authorization")[0].starts_with("Bearer sgh_AAA"));
    let record = world.gateway.record_of(&plain).await;
    assert!(!record.mentions(handle), "{record:?}");
}

#[tokio::test]
async fn what_else_a_request_may_be_read_as_is_judged_too() {
    let world = World::start().await;
    let session = world.session().await;
    let plain = world.plain();
    let path = format!("/runtime/providers/test/sessions/{}", session.id());
    let rule = serde_json::json!({
        "host": plain, "http": {"methods": ["GET", "POST"], "pathPrefixes": ["/echo", "/upgrade"]}
    });
    let change = |rule: &serde_json::Value| {
        serde_json::json!({"egress": {
            "allowedHosts": [plain], "allowedAddresses": ["127.0.0.0/8"], "rules": [rule]
        }})
        .to_string()
    };
    let patched = world.gateway.admin("PATCH", &path, &change(&rule)).await;
    assert_eq!(patched.status(), 200, "{}", patched.text());
    for (line, field, status) in [
        ("POST /echo", "X-HTTP-Method-Override: GET", 200),
        ("POST /echo", "X-HTTP-Method-Override: DELETE", 403),
        ("POST /echo", "x-method-override: delete", 403),
        ("POST /echo", "X-Original-Method: DELETE", 403),
        ("POST /echo", "_method: DELETE", 403),
        ("POST /echo?_method=DELETE", "X-Kept: 1", 403),
        ("GET /echo", "X-Override-URL: /admin", 403),
        ("GET /echo", "X-Original-URL: /admin", 403),
        ("GET /echo", "X-Rewrite-URL: /echo/more", 200),
    ] {
        let (method, target) = line.split_once(' ').unwrap();
        let mut wire = session.dial().await;
        let fields = format!("Host: {plain}\r\n{field}\r\nContent-Length: 0\r\n");
        session
            .ask(
                &mut wire,
                &format!("{method} http://{plain}{target}"),
                &fields,
            )
            .await;
        assert_eq!(wire.reply().await.status(), status, "{line} {field}");
    }
    // What was refused can be judged again from its record.
    let read = world.gateway.record("what else it was read as", |record| {
        record.mentions("/admin") && record.text("reason") == "path_not_allowed"
    });
    read.await;
    // An upgraded connection stays where its request is still allowed, and goes where it is not.
    let fields = format!("Host: {plain}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n");
    let mut wire = session.dial().await;
    session
        .ask(&mut wire, &format!("GET http://{plain}/upgrade"), &fields)
        .await;
    assert_eq!(wire.head().await.status, 101);
    let mut narrower = rule.clone();
    narrower["http"]["methods"] = serde_json::json!(["GET"]);
    let patched = world
        .gateway
        .admin("PATCH", &path, &change(&narrower))
        .await;
    assert_eq!(patched.status(), 200, "{}", patched.text());
    wire.send("up and back").await;
    assert_eq!(wire.take(11).await, b"up and back");
    narrower["http"]["methods"] = serde_json::json!(["POST"]);
    let patched = world
        .gateway
        .admin("PATCH", &path, &change(&narrower))
        .await;
    assert_eq!(patched.status(), 200, "{}", patched.text());
    assert!(wire.cut().await < std::time::Duration::from_secs(1));
}

/// Nobody asks for the answer's next bytes while its client takes none: the end of its right must reach it all the same.
#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_too() {
    let world = World::start().await;
    let plain = world.plain();
    for inside in [true, false] {
        let session = world.session().await;
        let mut wire = if inside {
            session.tunnel(&plain).await
        } else {
            session.dial().await
        };
        let (line, fields) = ("/download?bytes=67108864", format!("Host: {plain}\r\n"));
        if inside {
            wire.send(format!("GET {line} HTTP/1.1\r\n{fields}\r\n"))
                .await;
        } else {
            let line = format!("GET http://{plain}{line}");
            session.ask(&mut wire, &line, &fields).await;
        }
        assert_eq!(wire.head().await.status, 200);
        session.stands_still(&world.gateway).await;
        session.revoke(&world.gateway).await;
        session.cut_at_once(&world.gateway, "session_revoked").await;
        assert_eq!(wire.rest().await.1, End::Reset);
    }
}

#[tokio::test]
async fn a_query_without_a_path_goes_up_as_it_was_judged() {
    let world = World::start().await;
    let session = world.session().await;
    let plain = world.plain();
    let mut wire = session.dial().await;
    let fields = format!("Host: {plain}\r\n");
    session
        .ask(
            &mut wire,
            &format!("GET http://{plain}?only=query"),
            &fields,
        )
        .await;
    wire.reply().await;
    world.http.saw("/?only=query");
}

#[tokio::test]
async fn an_origin_cannot_speak_in_the_gateways_name() {
    let world = World::start().await;
    let (origin, target) = world.raw_origin().await;
    let ask = e2e::Ask {
        allow: &[&target],
        ..e2e::Ask::default()
    };
    let session = world.session_for(ask).await;
    let mut wire = session.dial().await;
    let fields = format!("Host: {target}\r\nTE: trailers\r\n");
    session
        .ask(&mut wire, &format!("GET http://{target}/"), &fields)
        .await;
    let mut far = e2e::Wire::over(origin.accept().await);
    far.through(b"\r\n\r\n").await;
    far.send(FORGED).await;
    let head = wire.head().await;
    let said: Vec<_> = head
        .headers
        .iter()
        .filter(|(n, _)| n.starts_with("proxy-"))
        .collect();
    let others = ("proxy-status".to_owned(), "cdn; error=x".to_owned());
    assert_eq!((head.status, said), (403, vec![&others]));
    let rest = wire.through(b"\r\n\r\n").await;
    let rest = String::from_utf8(rest).unwrap().to_ascii_lowercase();
    assert!(
        rest.contains("fake") && rest.contains("x-kept: 1"),
        "{rest}"
    );
    assert!(!rest.contains("sluicegate"), "{rest}");
}
