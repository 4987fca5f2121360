//! A dial target listens while its sandbox is there.

use std::{io, time::Duration};

use sluicegate_relay::transport::{Choice, Transport};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    task::JoinSet,
};

use super::{act, echoed, echoes, ended, patient, refused, reset, tcp, withdrawn};
use crate::{
    http2,
    relay::testing::{Client, Manner, World, tcp_service, within},
    session::lifecycle::Action,
};

#[tokio::test]
async fn without_a_client_the_dial_is_refused_at_once() {
    let world = World::new().await;
    world
        .session_of("{id: one, expose: {plugin: {dial: tcp, patience: 60s}, sock: {dial: unix, patience: 60s}}}")
        .await;
    let target = world.dial_target("one", "sock");
    let path = target.strip_prefix("unix://").unwrap();
    let unix = UnixStream::connect(path).await.unwrap_err();
    assert_eq!(unix.kind(), io::ErrorKind::ConnectionRefused);
    let target = world.dial_target("one", "plugin");
    let address = target.strip_prefix("tcp://").unwrap();
    let tcp = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(tcp.kind(), io::ErrorKind::ConnectionRefused);
    // What nobody listens on is still nobody else's.
    let taken = TcpListener::bind(address).await.unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
}

/// The gateway starts, and clients come back before it has come to the target they offer.
#[tokio::test]
async fn a_dial_target_is_open_as_soon_as_its_client_is_known() {
    let mut world = World::starting(http2::Limits::default()).await;
    let mut tasks = JoinSet::new();
    let url = tcp_service(&mut tasks, Manner::Echo).await;
    let token = world
        .session_of("{id: one, expose: {plugin: tcp, sock: unix}}")
        .await;
    let client = world.client(&token);
    client.expose("plugin", &url);
    client.expose("sock", &url);
    world.offered(4.0).await;
    let path = world.dial_target("one", "sock");
    let mut unix = UnixStream::connect(path.strip_prefix("unix://").unwrap())
        .await
        .unwrap();
    let mut port = tcp(&world, "plugin").await;
    unix.write_all(b"?").await.unwrap();
    port.write_all(b"!").await.unwrap();
    world.serve_dials();
    let (mut by_path, mut by_port) = ([0], [0]);
    within("an echo", unix.read_exact(&mut by_path))
        .await
        .unwrap();
    within("an echo", port.read_exact(&mut by_port))
        .await
        .unwrap();
    assert_eq!((by_path, by_port), ([b'?'], [b'!']));
}

pub(super) async fn a_dial_target_listens_while_a_client_is_there(over: Transport) {
    let world = World::new().await;
    let mut tasks = JoinSet::new();
    let url = tcp_service(&mut tasks, Manner::Echo).await;
    let token = world
        .session_of("{id: one, expose: {plugin: {dial: tcp, patience: 50ms}, sock: {dial: unix, patience: 50ms}}}")
        .await;
    for _ in 0..2 {
        refused(&world, "plugin").await;
        refused(&world, "sock").await;
        let client = world.client_over(Choice::Only(over), &token);
        client.expose("plugin", &url);
        client.expose("sock", &url);
        world.offered(4.0).await;
        // As soon as it is there: at the first try.
        echoed(&world, b"by port").await;
        let path = world.dial_target("one", "sock");
        let path = path.strip_prefix("unix://").unwrap();
        echoes(UnixStream::connect(path).await.unwrap(), b"by path").await;
    }
    refused(&world, "plugin").await;
    refused(&world, "sock").await;
}

/// A client that has made one offer, and what that carries: no other dial is taken.
async fn the_first(world: &World, token: &str) -> (Client, impl Sized) {
    let client = world.client(token);
    let session = client.session.clone();
    let mut accepting = JoinSet::new();
    accepting.spawn(async move { session.accept("plugin").await.unwrap() });
    world.offered(1.0).await;
    let dialled = tcp(world, "plugin").await;
    let carried = within("the first", accepting.join_next()).await;
    (client, (dialled, carried))
}

#[tokio::test]
async fn a_dial_for_which_no_offer_is_left_fails_and_says_so() {
    let (world, token) = patient("50ms").await;
    let _first = the_first(&world, &token).await;
    reset(tcp(&world, "plugin").await).await;
    let record = ended(&world, "listener_not_connected").await;
    assert_eq!(record["outcome"], "failed");
    assert!(record["detail"].as_str().unwrap().contains("50ms"));
    assert_eq!(
        world.metric("sluicegate_ended_total{kind=\"stream\",front=\"listener\",outcome=\"failed\",reason=\"listener_not_connected\"} "),
        1.0
    );
}

/// Nobody will offer anything any more: it is not what a drain waits for.
#[tokio::test]
async fn a_dial_that_waits_holds_up_no_drain() {
    let (world, token) = patient("60s").await;
    let (_client, first) = the_first(&world, &token).await;
    let waiting = tcp(&world, "plugin").await;
    let index = world.fixture.registry.index();
    let live = index.session(&world.fixture.key("one")).unwrap();
    within("a dial that waits", async {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        while live.session.budget().open_now() < 2 {
            tick.tick().await;
        }
    })
    .await;
    drop(first);
    let drained = world.drain.run(Duration::ZERO, Duration::from_secs(300));
    assert_eq!(within("drain", drained).await, 0, "nothing had to be cut");
    reset(waiting).await;
    assert_eq!(ended(&world, "draining").await["outcome"], "refused");
}

/// A client that is there, and is gone by now.
async fn came_and_went(world: &World, token: &str) {
    let client = world.client(token);
    client.expose("plugin", "tcp://127.0.0.1:9");
    world.offered(2.0).await;
    drop(client);
    withdrawn(world).await;
}

/// In the session's log like any other refusal, with its reason.
#[tokio::test]
async fn a_dial_that_waited_for_nobody_is_recorded() {
    let (world, token) = patient("2s").await;
    let target = world.dial_target("one", "plugin");
    let address = target.strip_prefix("tcp://").unwrap();
    let waiting = async {
        loop {
            came_and_went(&world, &token).await;
            // Where this was slow, the target may be closed by now.
            if let Ok(stream) = TcpStream::connect(address).await {
                return stream;
            }
        }
    };
    reset(within("a dial in the gap", waiting).await).await;
    let record = ended(&world, "listener_not_connected").await;
    assert_eq!(record["session"]["id"], "one");
    assert_eq!(record["service"], "plugin");
    assert!(record["detail"].as_str().unwrap().contains("came back"));
}

#[tokio::test]
async fn a_dial_that_waits_when_its_session_is_paused_is_recorded_as_that() {
    let (world, token) = patient("60s").await;
    came_and_went(&world, &token).await;
    let waiting = tcp(&world, "plugin").await;
    act(&world, Action::Pause).await;
    reset(waiting).await;
    let record = ended(&world, "session_paused").await;
    assert_eq!(record["session"]["id"], "one");
}

#[tokio::test]
async fn a_dial_that_waits_when_the_gateway_goes_down_is_recorded_as_that() {
    let (world, token) = patient("60s").await;
    came_and_went(&world, &token).await;
    let waiting = tcp(&world, "plugin").await;
    // With something to wait for it settles first.
    let _work = world.drain.watch().hold();
    let down = world.drain.run(Duration::from_secs(600), Duration::ZERO);
    let told = async {
        reset(waiting).await;
        ended(&world, "draining").await
    };
    tokio::select! {
        _ = down => unreachable!("it is held up"),
        record = told => assert_eq!(record["outcome"], "refused"),
    }
}

pub(super) async fn a_dial_waits_for_a_client_that_comes_back_in_time(over: Transport) {
    let (world, token) = patient("60s").await;
    let mut tasks = JoinSet::new();
    let url = tcp_service(&mut tasks, Manner::Echo).await;
    let gone = world.client_over(Choice::Only(over), &token);
    gone.expose("plugin", &url);
    world.offered(2.0).await;
    drop(gone);
    withdrawn(&world).await;
    let mut stream = tcp(&world, "plugin").await;
    stream.write_all(b"early").await.unwrap();
    stream.shutdown().await.unwrap();
    let client = world.client_over(Choice::Only(over), &token);
    client.expose("plugin", &url);
    let mut answer = Vec::new();
    within("echo", stream.read_to_end(&mut answer))
        .await
        .unwrap();
    assert_eq!(answer, b"early");
}
