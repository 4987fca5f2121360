//! CONNECT and `connect-tcp`: bytes both ways, their ends, and what is refused.

use std::future::poll_fn;

use bytes::Bytes;
use e2e::raw::{End, drain};
use e2e::tasks::until_told;
use e2e::{Ask, Program, Settings, Wire, World, within};
use h2::Reason;
use h2::ext::Protocol;
use http::{Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::stage::{Client, Stage, classic, noise, read};

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

/// A session's connections are bounded, whether tunnels are open on them or not; one too many is not held for long.
#[tokio::test]
async fn a_session_has_so_many_connections_and_its_neighbours_theirs() {
    let settings = Settings {
        limits: "  relayConnections: 1\n  headTimeout: 5s\n".to_owned(),
        ..Settings::default()
    };
    let stage = Stage::with(settings).await;
    // The stage's own is one of them.
    let open = stage.pair().await;
    let mut places = Vec::new();
    for _ in 1..16 {
        let client = Client::connect(&stage.world, &stage.session).await;
        // Nothing is open on it any more.
        drop(client.tunnel(stage.classic(&stage.target)).await);
        places.push(client);
    }
    let surplus = Client::connect(&stage.world, &stage.session).await;
    let bearer = format!("Bearer {}", stage.session.handle());
    let plain = |to: &str| {
        let request = Request::get(format!("http://{to}/echo"));
        let request = request.header("proxy-authorization", &bearer);
        request.body(()).unwrap()
    };
    let allowed = plain(&stage.world.plain());
    // Nor is a connection kept by asking for what is denied.
    let denied = plain("evil.test");
    for asked in [stage.classic(&stage.target), allowed, denied] {
        let refused = surplus.refused(asked).await;
        assert_eq!(refused.status, 429);
        assert_eq!(refused.body["reason"], "too_many_connections");
    }
    // What takes no place keeps none.
    let asking = Client::connect(&stage.world, &stage.session).await;
    let (host, _) = stage.target.rsplit_once(':').unwrap();
    let name = Request::get(format!("https://gateway/egress/v1/names/{host}"))
        .header("authorization", &bearer)
        .body(())
        .unwrap();
    let (answer, _send) = asking.send(name, true).await;
    assert_eq!(within("an answer", answer).await.unwrap().status(), 204);
    // Over HTTP/1.1, and for another session, it is as if there were nothing else.
    drop(stage.session.tunnel(&stage.target).await);
    let ask = Ask {
        allow: &[&stage.target],
        ..Ask::default()
    };
    let neighbour = stage.world.session_for(ask).await;
    let theirs = Client::connect(&stage.world, &neighbour).await;
    let request = classic(&neighbour, &stage.target);
    drop(theirs.tunnel(request).await);

    within("the end of one too many", surplus.ended()).await;
    within("the end of one that has no place", asking.ended()).await;
    // Those that have places idle on, and one that goes leaves its place.
    for client in &places {
        drop(client.tunnel(stage.classic(&stage.target)).await);
    }
    places.pop();
    let next = until_told("the place of one that has gone", async || {
        let client = Client::connect(&stage.world, &stage.session).await;
        let (answer, _send) = client.send(stage.classic(&stage.target), false).await;
        let status = within("an answer", answer).await.unwrap().status();
        (status == 200).then_some(client)
    });
    drop(next.await);
    drop(open);
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
