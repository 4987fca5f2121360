//! Upstreams that answer in odd ways, clients that end their side early, and what is counted of it all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use e2e::raw::read_head;
use e2e::{Ask, Session, World, within};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn an_answer_framed_in_two_ways_is_not_passed_on() {
    let (_world, origin, session, target) = World::with_raw().await;
    let answers: [&[u8]; 3] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ];
    for answer in answers {
        let mut wire = session.dial().await;
        let host = format!("Host: {target}\r\n");
        session
            .ask(&mut wire, &format!("GET http://{target}/"), &host)
            .await;
        let mut upstream = origin.accept().await;
        read_head(&mut upstream).await;
        upstream.write_all(answer).await.unwrap();
        let reply = wire.reply().await;
        assert_eq!(reply.status(), 502, "{}", reply.text());
        assert_eq!(reply.json()["reason"], "upstream_protocol");
    }
}

#[tokio::test]
async fn a_client_that_ends_its_side_still_gets_its_answer() {
    let world = World::start().await;
    let session = world.session().await;
    let plain = world.plain();
    let request = format!("GET http://{plain}/echo");
    let mut wire = session.dial().await;
    session
        .ask(&mut wire, &request, &format!("Host: {plain}\r\n"))
        .await;
    wire.finish().await;
    assert_eq!(wire.reply().await.status(), 200, "in absolute-form");
    let mut tunnel = session.tunnel(&plain).await;
    tunnel
        .send(format!("GET /echo HTTP/1.1\r\nHost: {plain}\r\n\r\n"))
        .await;
    tunnel.finish().await;
    assert_eq!(tunnel.reply().await.status(), 200, "inside a tunnel");
}

#[tokio::test]
async fn an_idle_connection_closed_as_it_was_used_costs_another_try_where_that_is_safe() {
    let (_world, origin, session, target) = World::with_raw().await;
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let mut wire = session.dial().await;
    let host = format!("Host: {target}\r\n");
    let get = format!("GET http://{target}/");
    session.ask(&mut wire, &get, &host).await;
    let mut first = origin.accept().await;
    read_head(&mut first).await;
    first.write_all(answer).await.unwrap();
    assert_eq!(wire.reply().await.status(), 200);
    // The same connection carries the next request; the upstream reads it, and closes without a word.
    session.ask(&mut wire, &get, &host).await;
    read_head(&mut first).await;
    drop(first);
    let mut second = origin.accept().await;
    read_head(&mut second).await;
    second.write_all(answer).await.unwrap();
    assert_eq!(wire.reply().await.status(), 200, "a GET is sent again");
    let length = format!("{host}Content-Length: 0\r\n");
    session
        .ask(&mut wire, &format!("POST http://{target}/"), &length)
        .await;
    read_head(&mut second).await;
    drop(second);
    let reply = wire.reply().await;
    assert_eq!(reply.status(), 502, "a POST is not");
    assert_eq!(reply.json()["reason"], "upstream_reset");
}

#[tokio::test]
async fn a_session_may_not_bring_services_outside_the_ceiling() {
    let world = World::start().await;
    for (url, refused) in [
        ("tcp://127.0.0.1:9", false),
        ("tcp://169.254.169.254:80", true),
        ("tcp://10.0.0.1:5432", true),
        ("tls://[fd00:ec2::254]:443", true),
        ("tcp://[::ffff:169.254.169.254]:80", true),
    ] {
        let service = format!("md={url}");
        let services = [service.as_str()];
        let ask = Ask {
            services: &services,
            ..Ask::default()
        };
        let finished = Session::attempt(&world.gateway, ask).await;
        let said = &finished.stderr;
        assert_eq!(finished.code != Some(0), refused, "{url}: {said}");
        if refused {
            assert!(said.contains("ceiling"), "{url}: {said}");
        }
    }
}

#[tokio::test]
async fn every_metric_moves_with_what_it_counts() {
    let world = World::start().await;
    let session = world.session().await;
    let gateway = &world.gateway;
    let plain = world.plain();
    assert_eq!(gateway.metric("sluicegate_ready").await, 1.0);
    // Metrics move with records and sweeps, and that may be a moment after the client has its answer.
    let one = async |metric: &str| {
        while gateway.metric(metric).await != 1.0 {
            tokio::task::yield_now().await;
        }
    };
    within("the session is counted", one("sluicegate_sessions")).await;
    assert_eq!(session.fetch(&plain, "/echo").await.status(), 200);
    let opens = "sluicegate_open_duration_seconds_count{kind=\"request\"}";
    within("the open is counted", one(opens)).await;
    let down = "sluicegate_transferred_bytes_total{kind=\"request\",direction=\"down\"}";
    gateway.metric_reaches(down, 1.0).await;
    let accepted = "sluicegate_accepted_total{listener=\"plain\",transport=\"tcp\"}";
    gateway.metric_reaches(accepted, 1.0).await;
    let tunnel = session.tunnel(&plain).await;
    let open = "sluicegate_open{kind=\"tunnel\"}";
    let connections = "sluicegate_connections{listener=\"plain\",transport=\"tcp\"}";
    gateway.metric_is(open, 1.0).await;
    let before = gateway.metric(connections).await;
    drop(tunnel);
    gateway.record_of(&plain).await;
    let fallen = async {
        while gateway.metric(open).await != 0.0 || gateway.metric(connections).await >= before {
            tokio::task::yield_now().await;
        }
    };
    within("the gauges to fall", fallen).await;
    assert_eq!(session.fetch("evil.test", "/").await.status(), 403);
    let refused = "sluicegate_ended_total{kind=\"request\",front=\"forward\",outcome=\"refused\",reason=\"host_not_allowed\"}";
    within("the refusal is counted", one(refused)).await;
    assert_eq!(
        gateway.metric("sluicegate_access_records_dropped").await,
        0.0
    );
}

#[tokio::test]
async fn a_browser_is_refused_with_a_page_and_a_program_with_json() {
    let world = World::start().await;
    let session = world.session().await;
    let host = "<b>evil.test";
    for (front, line, fields) in [
        (
            "absolute-form",
            "GET http://evil.test/",
            "Host: evil.test\r\n",
        ),
        (
            "CONNECT",
            "CONNECT evil.test:443",
            "Host: evil.test:443\r\n",
        ),
    ] {
        let mut wire = session.dial().await;
        let browser = format!("{fields}Accept: text/html,application/xhtml+xml;q=0.9\r\n");
        session.ask(&mut wire, line, &browser).await;
        let page = wire.reply().await;
        assert_eq!(page.status(), 403, "{front}");
        assert!(
            page.head.value("content-type").starts_with("text/html"),
            "{front}"
        );
        for part in [
            "<h1>",
            "evil.test",
            "host_not_allowed",
            "egress.allowedHosts",
        ] {
            assert!(
                page.text().contains(part),
                "{front}: {part}: {}",
                page.text()
            );
        }
        assert!(
            !page.text().contains(host),
            "nothing of the request is markup"
        );
        let mut wire = session.dial().await;
        session.ask(&mut wire, line, fields).await;
        let json = wire.reply().await.json();
        assert_eq!(json["reason"], "host_not_allowed", "{front}");
    }
}

/// A browser gets a page whatever it was refused for, also where its head was refused before it was read; but not where there
/// was no whole head.
#[tokio::test]
async fn browsers_get_a_page_for_what_is_malformed_too() {
    let world = World::start().await;
    let session = world.session().await;
    let accept = "Accept: text/html,application/xhtml+xml;q=0.9\r\n";
    let proof = session.authorization();
    let long = format!("X-Long: {}\r\n", "x".repeat(200_000));
    let served = "GET http://plain.allowed.test/ HTTP/1.1\r\nHost: plain.allowed.test\r\n";
    for (what, head, status, html) in [
        (
            "two Host fields",
            format!("{served}Host: b\r\n{proof}{accept}\r\n"),
            400,
            true,
        ),
        (
            "two lengths",
            format!(
                "{served}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n{proof}{accept}\r\n"
            ),
            400,
            true,
        ),
        (
            "CONNECT with content",
            format!(
                "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n{proof}{accept}\r\n12345"
            ),
            400,
            true,
        ),
        (
            "a relay stream without a credential",
            format!(
                "GET /relay/v1/db HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: connect-tcp\r\nCapsule-Protocol: ?1\r\n{accept}\r\n"
            ),
            401,
            true,
        ),
        (
            "too long a head",
            format!("{served}{accept}{long}\r\n"),
            431,
            false,
        ),
        (
            "no page asked for",
            format!("{served}Host: b\r\n{proof}\r\n"),
            400,
            false,
        ),
    ] {
        let mut wire = session.dial().await;
        // Of a head that is too long not all is taken.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut wire.stream, head.as_bytes()).await;
        let reply = wire.reply().await;
        assert_eq!(reply.status(), status, "{what}: {}", reply.text());
        let kind = reply.head.value("content-type");
        assert_eq!(kind.starts_with("text/html"), html, "{what}: {kind}");
    }
}
