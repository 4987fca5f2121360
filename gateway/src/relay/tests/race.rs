//! Which transport carries a client's streams, and when it moves to another.

use sluicegate_relay::{
    session::Status,
    transport::{Choice, Transport},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    relay::testing::{Client, Manner, TRANSPORTS, World, call, tcp_service, within},
    session::lifecycle::Action,
};

async fn status(client: &Client, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
    let mut status = client.session.status();
    within(what, status.wait_for(wanted)).await.unwrap().clone()
}

async fn connected(client: &Client, by: Transport) -> String {
    let what = format!("connected by {by}");
    let wanted =
        |status: &Status| matches!(status, Status::Connected { transport, .. } if *transport == by);
    match status(client, &what, wanted).await {
        Status::Connected { why, .. } => why,
        other => panic!("{other:?}"),
    }
}

async fn echoing(world: &World, tasks: &mut JoinSet<()>, choice: Choice) -> Client {
    let echo = tcp_service(tasks, Manner::Echo).await;
    let token = world.session("race", &format!("{{echo: '{echo}'}}")).await;
    world.client_over(choice, &token)
}

#[tokio::test(flavor = "multi_thread")]
async fn quic_is_tried_first() {
    let (world, mut tasks) = (World::new().await, JoinSet::new());
    let client = echoing(&world, &mut tasks, Choice::Auto).await;
    connected(&client, Transport::Quic).await;
    let address = client.forward("echo").await;
    assert_eq!(call(address, b"there").await.unwrap(), b"there");
    let record = world.record(|record| record["service"] == "echo").await;
    assert_eq!(record["front"], "quic", "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_udp_streams_go_over_tls_and_back_when_it_works() {
    let (mut world, mut tasks) = (World::new().await, JoinSet::new());
    world.block_udp();
    let client = echoing(&world, &mut tasks, Choice::Auto).await;
    let why = connected(&client, Transport::H2).await;
    assert_eq!(why, "quic had not answered yet");
    let address = client.forward("echo").await;
    let mut kept = TcpStream::connect(address).await.unwrap();
    kept.write_all(b"hello").await.unwrap();
    within("echo", kept.read_exact(&mut [0; 5])).await.unwrap();
    world.unblock_udp().await;
    assert_eq!(
        connected(&client, Transport::Quic).await,
        "quic works again"
    );
    assert_eq!(call(address, b"new").await.unwrap(), b"new");
    world.record(|record| record["front"] == "quic").await;
    // The stream of before goes on where it began.
    kept.write_all(b"still").await.unwrap();
    within("echo", kept.read_exact(&mut [0; 5])).await.unwrap();
    kept.shutdown().await.unwrap();
    let record = world.record(|record| record["front"] == "connect-tcp");
    assert_eq!(record.await["outcome"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn udp_that_goes_silent_is_left_without_anyones_help() {
    let (world, mut tasks) = (World::new().await, JoinSet::new());
    let client = echoing(&world, &mut tasks, Choice::Auto).await;
    connected(&client, Transport::Quic).await;
    let address = client.forward("echo").await;
    let mut cut = TcpStream::connect(address).await.unwrap();
    cut.write_all(b"hello").await.unwrap();
    within("echo", cut.read_exact(&mut [0; 5])).await.unwrap();
    world.block_udp();
    // What it says goes ahead into the silence; on the next connection the gateway says that it never got it.
    let answer = within("an open in the silence", call(address, b"later")).await;
    assert_eq!(answer.unwrap(), b"later");
    connected(&client, Transport::H2).await;
    // What was open on the dead path ends as what it is.
    let error = within("the end", cut.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_is_judged_before_anything_is_called_connected() {
    for over in TRANSPORTS {
        let world = World::new().await;
        let client = world.client_over(Choice::Only(over), "eyJhbGciOiJFZERTQSJ9.e30.AAAA");
        let wanted = |status: &Status| *status != Status::Connecting;
        match status(&client, "a verdict", wanted).await {
            Status::Unauthorized { reason } => {
                assert!(reason.contains("credential_invalid"), "{reason}");
            }
            other => panic!("{over}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_resumed_is_connected_again() {
    for over in TRANSPORTS {
        let (world, mut tasks) = (World::new().await, JoinSet::new());
        let echo = tcp_service(&mut tasks, Manner::Echo).await;
        let token = world.session("race", &format!("{{echo: '{echo}'}}")).await;
        let key = world.fixture.key("race");
        let registry = &world.fixture.registry;
        registry
            .act(key.clone(), Action::Pause, None)
            .await
            .unwrap();
        let client = world.client_over(Choice::Only(over), &token);
        let wanted = |status: &Status| matches!(status, Status::Unauthorized { reason } if reason.contains("session_paused"));
        status(&client, "the pause", wanted).await;
        registry.act(key, Action::Resume, None).await.unwrap();
        connected(&client, over).await;
    }
}

/// Nobody has told the client: what it opens is refused, and from that it knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_paused_is_not_called_connected() {
    for over in TRANSPORTS {
        let (world, mut tasks) = (World::new().await, JoinSet::new());
        let client = echoing(&world, &mut tasks, Choice::Only(over)).await;
        let why = connected(&client, over).await;
        let (key, registry) = (world.fixture.key("race"), &world.fixture.registry);
        for _ in 0..2 {
            let pause = registry.act(key.clone(), Action::Pause, None).await;
            pause.unwrap();
            let refused = client.session.open("echo").await.err().unwrap();
            assert!(refused.to_string().contains("session_paused"), "{refused}");
            let begun = std::time::Instant::now();
            let wanted = |status: &Status| matches!(status, Status::Unauthorized { reason } if reason.contains("session_paused"));
            status(&client, "the pause", wanted).await;
            let took = begun.elapsed();
            assert!(took < std::time::Duration::from_secs(5), "{over}: {took:?}");
            let resume = registry.act(key.clone(), Action::Resume, None).await;
            resume.unwrap();
            assert_eq!(connected(&client, over).await, why, "{over}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn opens_in_a_drain_wait_for_the_gateway_that_comes() {
    for over in TRANSPORTS {
        let (mut world, mut tasks) = (World::new().await, JoinSet::new());
        let client = echoing(&world, &mut tasks, Choice::Only(over)).await;
        connected(&client, over).await;
        let address = client.forward("echo").await;
        let (begun, beginning) = tokio::sync::oneshot::channel();
        let mut begun = Some(begun);
        let mut opens = JoinSet::new();
        opens.spawn(async move {
            // One after the other, all through the drain and the restart: not one is lost.
            for number in 0..200u32 {
                let answer = within("an open", call(address, &number.to_le_bytes())).await;
                let answer = answer.unwrap_or_else(|why| panic!("{over}: open {number}: {why}"));
                assert_eq!(answer, number.to_le_bytes(), "{over}: open {number}");
                if number == 20 {
                    begun.take().unwrap().send(()).unwrap();
                }
            }
        });
        beginning.await.unwrap();
        let (settle, deadline) = (
            std::time::Duration::from_millis(300),
            std::time::Duration::from_secs(30),
        );
        world.drain.run(settle, deadline).await;
        world.crash_and_return().await;
        within("every open", opens.join_next())
            .await
            .unwrap()
            .unwrap();
    }
}

/// A middlebox that terminates TLS (so it seems: it is the gateway's plain listener behind it) and knows no HTTP/2.
#[tokio::test(flavor = "multi_thread")]
async fn where_neither_quic_nor_http2_passes_http1_does() {
    let (world, mut tasks) = (World::new().await, JoinSet::new());
    world.block_udp();
    let only_http1 = world.middlebox(&mut tasks, &[b"http/1.1"]).await;
    let echo = tcp_service(&mut tasks, Manner::Echo).await;
    let token = world.session("race", &format!("{{echo: '{echo}'}}")).await;
    let client = world.client_at(only_http1, Choice::Auto, &token);
    let why = connected(&client, Transport::H1).await;
    assert!(why.contains("does not speak the HTTP"), "{why}");
    let address = client.forward("echo").await;
    assert_eq!(call(address, b"over").await.unwrap(), b"over");
    world
        .record(|record| record["front"] == "connect-tcp" && record["service"] == "echo")
        .await;
}
