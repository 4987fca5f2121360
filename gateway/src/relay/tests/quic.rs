//! QUIC as it is on the wire: what is answered to whom, without the relay client.

mod moves;
mod resumes;
mod room;
mod streams;

use std::time::{Duration, Instant};

use sluicegate_certs::{Channel, ClientKey};
use sluicegate_relay::transport::Choice;
use sluicegate_relay_protocol::{
    ErrorCode, Handshake, Instance, Once,
    message::Message,
    preamble::{Purpose, Request, Response},
};
use tokio::task::JoinSet;

use crate::{
    drain::Stage,
    http2,
    relay::testing::{Manner, TRANSPORTS, World, call, tcp_service, within},
};

fn head(purpose: Purpose, token: &str) -> Vec<u8> {
    Request::new(purpose, token).encode().unwrap()
}

fn service(name: &str) -> Purpose {
    Purpose::Open(Handshake::Service { name: name.into() })
}

fn name(name: &str) -> Purpose {
    Purpose::Name { name: name.into() }
}

/// Everything that comes back on a stream that begins with these bytes, and then ends.
async fn ask(connection: &quinn::Connection, bytes: &[u8]) -> Vec<u8> {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    // A refusal may come before the last byte is taken.
    let _ = send.write_all(bytes).await;
    let _ = send.finish();
    within("an answer", receive.read_to_end(1 << 20))
        .await
        .unwrap()
}

fn refusal(answer: &[u8]) -> (u16, String) {
    match Response::decode(answer).unwrap().unwrap() {
        (Response::Refused { status, body, said }, length) if length == answer.len() => {
            let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert!(json["requestId"].is_string(), "{json}");
            let said = String::from_utf8(said).unwrap();
            assert!(said.contains("proxy-status: sluicegate"), "{said}");
            (status, json["reason"].as_str().unwrap().to_owned())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_head_has_its_answer() {
    let (world, mut tasks) = (World::new().await, JoinSet::new());
    let echo = tcp_service(&mut tasks, Manner::Echo).await;
    let token = world.session("heads", &format!("{{echo: '{echo}'}}")).await;
    let (_socket, connection) = world.quic().await.unwrap();
    let egress = Purpose::Open(Handshake::Egress {
        host: "a.test".into(),
        port: 443,
    });
    let listener = Purpose::Open(Handshake::Listener { name: "p".into() });
    let mut newer = head(service("echo"), &token);
    newer[0] = 2;
    for (what, bytes, status, reason) in [
        ("a newer version", newer, 400, "malformed_request"),
        ("no head at all", vec![0xff; 64], 400, "malformed_request"),
        (
            "a forged token",
            head(service("echo"), "x"),
            401,
            "credential_invalid",
        ),
        (
            "another service",
            head(service("db"), &token),
            403,
            "service_not_allowed",
        ),
        (
            "egress with a relay token",
            head(egress, &token),
            401,
            "credential_invalid",
        ),
        (
            "a listener that is not the session's",
            head(listener, &token),
            403,
            "listener_not_allowed",
        ),
        (
            "a fresh token for a forged one",
            head(Purpose::Refresh, "x"),
            401,
            "credential_invalid",
        ),
        (
            "a name with a relay token",
            head(name("a.test"), &token),
            401,
            "credential_invalid",
        ),
        (
            "what is no name with a relay token",
            head(name("a..test"), &token),
            401,
            "credential_invalid",
        ),
        (
            "a forged proof",
            head(Purpose::Control, "x"),
            401,
            "credential_invalid",
        ),
    ] {
        let answer = ask(&connection, &bytes).await;
        assert_eq!(refusal(&answer), (status, reason.to_owned()), "{what}");
        let record = world.record(|record| record["reason"] == reason).await;
        let front = record["front"].as_str().unwrap();
        assert!(matches!(front, "quic" | "names"), "{record}");
    }
    // A stream that ends inside its head has nobody to answer.
    assert!(
        within("the end", async {
            let (mut send, mut receive) = connection.open_bi().await.unwrap();
            send.write_all(&[1, 1]).await.unwrap();
            send.finish().unwrap();
            receive.read_to_end(64).await
        })
        .await
        .is_err()
    );
    // Bytes behind the head need no round trip.
    let optimistic = [head(service("echo"), &token), b"at once".to_vec()].concat();
    let answer = ask(&connection, &optimistic).await;
    assert_eq!(
        answer,
        [Response::ACCEPTED.encode().unwrap(), b"at once".to_vec()].concat()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_stream_hears_of_the_drain_and_the_connection_ends_with_its_last_stream() {
    let (world, mut tasks) = (World::new().await, JoinSet::new());
    let echo = tcp_service(&mut tasks, Manner::Echo).await;
    let token = world.session("drain", &format!("{{echo: '{echo}'}}")).await;
    let (_socket, connection) = world.quic().await.unwrap();
    let (mut control, mut said) = connection.open_bi().await.unwrap();
    control
        .write_all(&head(Purpose::Control, &token))
        .await
        .unwrap();
    let verdict = Response::Accepted {
        instance: Some(world.opens.instance()),
        say_taken: false,
    };
    let verdict = verdict.encode().unwrap();
    let mut heard = vec![0; verdict.len()];
    within("the verdict", said.read_exact(&mut heard))
        .await
        .unwrap();
    assert_eq!(heard, verdict);
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let open = [head(service("echo"), &token), b"one".to_vec()].concat();
    send.write_all(&open).await.unwrap();
    within("an echo", receive.read_exact(&mut [0; 5]))
        .await
        .unwrap();
    let draining = world.drain.run(
        std::time::Duration::ZERO,
        std::time::Duration::from_secs(60),
    );
    let talking = async {
        world.drain.watch().reached(Stage::Draining).await;
        let mut message = [0; 2];
        within("the message", said.read_exact(&mut message))
            .await
            .unwrap();
        assert_eq!(message.as_slice(), Message::Drain.encode());
        let late = ask(&connection, &head(service("echo"), &token)).await;
        assert_eq!(refusal(&late), (503, "draining".to_owned()));
        send.write_all(b"two").await.unwrap();
        send.finish().unwrap();
        assert_eq!(
            within("the rest", receive.read_to_end(64)).await.unwrap(),
            b"two"
        );
        match within("the end", connection.closed()).await {
            quinn::ConnectionError::ApplicationClosed(close) => {
                assert_eq!(close.error_code, ErrorCode::Done.number().into());
                // The control stream, the one that went on, the one that was refused.
                assert_eq!(&*close.reason, [3]);
            }
            other => panic!("{other}"),
        }
    };
    let (cut, ()) = tokio::join!(draining, talking);
    assert_eq!(cut, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_stream_that_floods_ends_the_connection() {
    let world = World::new().await;
    let token = world.session("flood", "{}").await;
    let (_socket, connection) = world.quic().await.unwrap();
    let (mut control, _said) = connection.open_bi().await.unwrap();
    let long = [head(Purpose::Control, &token), vec![9, 0x80, 1, 0, 0]].concat();
    control.write_all(&long).await.unwrap();
    match within("the end", connection.closed()).await {
        quinn::ConnectionError::ApplicationClosed(close) => {
            assert_eq!(close.error_code, ErrorCode::Protocol.number().into());
        }
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_open_is_taken_once_by_this_process_and_the_next() {
    let (mut world, mut tasks) = (World::new().await, JoinSet::new());
    let echo = tcp_service(&mut tasks, Manner::Echo).await;
    let token = world.session("once", &format!("{{echo: '{echo}'}}")).await;
    let open = |number, tried: &[Instance]| {
        let tried = tried.to_vec();
        let request = Request {
            once: Some(Once { number, tried }),
            ..Request::new(service("echo"), &*token)
        };
        [request.encode().unwrap(), b"x".to_vec()].concat()
    };
    let opened = [Response::ACCEPTED.encode().unwrap(), b"x".to_vec()].concat();
    let repeated = (409, "already_opened".to_owned());
    let (_socket, connection) = world.quic().await.unwrap();
    let before = world.opens.instance();
    assert_eq!(ask(&connection, &open(1, &[])).await, opened);
    assert_eq!(
        refusal(&ask(&connection, &open(1, &[before])).await),
        repeated
    );
    assert_eq!(ask(&connection, &open(2, &[before])).await, opened);
    let record = world.record(|record| record["reason"] == "already_opened");
    assert_eq!(record.await["service"], "echo");

    world.crash_and_return().await;
    let (_socket, connection) = world.quic().await.unwrap();
    assert_ne!(world.opens.instance(), before);
    assert_eq!(
        refusal(&ask(&connection, &open(1, &[before])).await),
        repeated
    );
    assert_eq!(ask(&connection, &open(3, &[before])).await, opened);
    let elsewhere = Instance::new([1; 16]);
    assert_eq!(
        refusal(&ask(&connection, &open(4, &[elsewhere])).await),
        repeated
    );
    // What was refused for another reason is not taken.
    let other = Request {
        once: Some(Once {
            number: 5,
            tried: Vec::new(),
        }),
        ..Request::new(service("db"), &*token)
    };
    let refused = refusal(&ask(&connection, &other.encode().unwrap()).await);
    assert_eq!(refused, (403, "service_not_allowed".to_owned()));
    assert_eq!(ask(&connection, &open(5, &[])).await, opened);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_over_the_limit_is_refused_and_counted() {
    let world = World::new().await;
    let source = std::net::Ipv4Addr::LOCALHOST.into();
    let all: Vec<_> = std::iter::from_fn(|| world.places.take(source).ok()).collect();
    let refused = world.quic().await.unwrap_err();
    assert!(refused.contains("refused"), "{refused}");
    let metrics = world.telemetry.render();
    let sample = "connections_over_limit_total{listener=\"public\",limit=\"all\"} 1";
    assert!(metrics.contains(sample), "{metrics}");
    drop(all);
    let (_socket, _connection) = world.quic().await.unwrap();
    // The client may be through its handshake before the gateway is.
    let counted = async {
        let sample = "connections{listener=\"public\",transport=\"quic\"} 1";
        while !world.telemetry.render().contains(sample) {
            tokio::task::yield_now().await;
        }
    };
    within("the connection is counted", counted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_token_is_good_with_its_key_on_the_keys_own_connection() {
    let (world, mut tasks) = (World::new().await, JoinSet::new());
    let echo = tcp_service(&mut tasks, Manner::Echo).await;
    let keys = tempfile::tempdir().unwrap();
    let key = |name: &str| ClientKey::load_or_create(&keys.path().join(name)).unwrap();
    let (ours, theirs) = (key("ours"), key("theirs"));
    let thumbprint = ours.thumbprint();
    let asked = format!("{{id: bound, clientKey: '{thumbprint}', services: {{echo: '{echo}'}}}}");
    let token = world.session_of(&asked).await;
    let (_here, here) = world.quic().await.unwrap();
    let (_there, there) = world.quic().await.unwrap();
    let [at_here, at_there] = [&here, &there].map(|connection| {
        let mut bytes = [0; 32];
        connection
            .export_keying_material(&mut bytes, Channel::LABEL, b"")
            .unwrap();
        Channel::exported(bytes)
    });
    let good = ours.present(&token, &at_here);
    let answer = ask(
        &here,
        &[head(service("echo"), &good), b"x".to_vec()].concat(),
    )
    .await;
    assert_eq!(
        answer,
        [Response::ACCEPTED.encode().unwrap(), b"x".to_vec()].concat()
    );
    for (what, connection, shown) in [
        ("no proof", &here, token.clone()),
        ("a replay on another connection", &there, good.clone()),
        ("another key", &here, theirs.present(&token, &at_here)),
        (
            "a proof for another token",
            &here,
            format!("{token}~{}", good_of(&ours, &at_here)),
        ),
        ("rubbish behind it", &here, format!("{token}~a.b.c")),
    ] {
        for purpose in [service("echo"), Purpose::Refresh, Purpose::Control] {
            let refused = refusal(&ask(connection, &head(purpose, &shown)).await);
            assert_eq!(refused, (401, "credential_invalid".to_owned()), "{what}");
        }
    }
    // Who asks is told no more than anybody; records and metrics say what it was.
    let record = world.record(|record| record["reason"] == "key_not_proved");
    assert_eq!(record.await["outcome"], "refused");
    let labels = r#"kind="stream",front="quic",outcome="refused",reason="key_not_proved""#;
    assert_eq!(
        world.metric(&format!("sluicegate_ended_total{{{labels}}} ")),
        5.0
    );
    // The key may be shown anywhere it can be proved.
    let again = ours.present(&token, &at_there);
    let answer = ask(&there, &head(service("echo"), &again)).await;
    assert_eq!(answer, Response::ACCEPTED.encode().unwrap());
    // And what it is exchanged for is bound to the same key.
    let answer = ask(&here, &head(Purpose::Refresh, &good)).await;
    let body = answer.get(2..).unwrap();
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    let fresh = body["token"].as_str().unwrap();
    let refused = refusal(&ask(&here, &head(service("echo"), fresh)).await);
    assert_eq!(refused, (401, "credential_invalid".to_owned()));
    let fresh = ours.present(fresh, &at_here);
    let answer = ask(&here, &head(service("echo"), &fresh)).await;
    assert_eq!(answer, Response::ACCEPTED.encode().unwrap());
}

/// The proof alone, for some other token.
fn good_of(key: &ClientKey, channel: &Channel) -> String {
    let presented = key.present("x.y.z", channel);
    presented.split_once('~').unwrap().1.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_the_key_is_served_over_each_transport() {
    for over in TRANSPORTS {
        let (world, mut tasks) = (World::new().await, JoinSet::new());
        let echo = tcp_service(&mut tasks, Manner::Echo).await;
        let keys = tempfile::tempdir().unwrap();
        let key = ClientKey::load_or_create(&keys.path().join("key")).unwrap();
        let thumbprint = key.thumbprint();
        let asked =
            format!("{{id: bound, clientKey: '{thumbprint}', services: {{echo: '{echo}'}}}}");
        let token = world.session_of(&asked).await;
        let client = world.client_holding(key, Choice::Only(over), &token);
        let address = client.forward("echo").await;
        assert_eq!(call(address, b"bound").await.unwrap(), b"bound", "{over}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_says_nothing_is_held_no_longer_than_a_head_may_take() {
    let world = World::with_limits(http2::Limits {
        head_timeout: Duration::from_secs(1),
        ..http2::Limits::default()
    })
    .await;
    let mut tasks = JoinSet::new();
    let echo = tcp_service(&mut tasks, Manner::Echo).await;
    let token = world.session("still", &format!("{{echo: '{echo}'}}")).await;
    let (_known, known) = world.quic().await.unwrap();
    let (mut send, _verdict) = known.open_bi().await.unwrap();
    let control = head(Purpose::Control, &token);
    send.write_all(&control).await.unwrap();
    let (_silent, silent) = world.quic().await.unwrap();
    // One that is refused is a stranger still.
    let (_stranger, stranger) = world.quic().await.unwrap();
    refusal(&ask(&stranger, &head(service("echo"), "x")).await);
    // Nor does it help to be known where nothing takes a place among the session's connections: nobody would count them.
    let (_asking, asking) = world.quic().await.unwrap();
    let fresh = ask(&asking, &head(Purpose::Refresh, &token)).await;
    assert!(fresh.starts_with(&Response::ACCEPTED.encode().unwrap()));
    for (what, connection) in [
        ("silent", &silent),
        ("refused", &stranger),
        ("with a fresh token", &asking),
    ] {
        let began = Instant::now();
        within(what, connection.closed()).await;
        assert!(began.elapsed() < Duration::from_secs(5), "{what}");
    }
    assert!(known.close_reason().is_none(), "who is known may idle");
}
