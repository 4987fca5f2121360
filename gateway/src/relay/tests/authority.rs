//! Who may, for how long, and what the others are told.

use std::time::Duration;

use sluicegate_policy::Denial;
use sluicegate_relay::{
    session::SessionError,
    transport::{Choice, OpenError, Refused, Transport},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    relay::testing::{
        Client, Manner, TRANSPORTS, World, call, tcp_service, timed, unix_service, within,
    },
    secret::Secret,
    session::{lifecycle::Action, testing::patch},
};

async fn refused(client: &Client, service: &str) -> Refused {
    match within("open", client.session.open(service)).await {
        Err(SessionError::Open(OpenError::Refused(refused))) => refused,
        other => panic!("{service}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_why_and_the_neighbours_notice_nothing() {
    for over in TRANSPORTS {
        refusals_over(over).await;
    }
}

async fn refusals_over(over: Transport) {
    let world = World::new().await;
    let mut tasks = JoinSet::new();
    let echo = tcp_service(&mut tasks, Manner::Echo).await;
    let token = world
        .session(
            "refusals",
            &format!("{{echo: '{echo}', down: 'tcp://127.0.0.1:1', gone: 'unix:///nowhere/s'}}"),
        )
        .await;
    let client = world.client_over(Choice::Only(over), &token);
    let unreadable = match over {
        Transport::Quic => "malformed_request",
        Transport::H2 | Transport::H1 => "malformed_target",
    };
    let table = [
        ("down", 503, "service_unavailable"),
        ("gone", 503, "service_unavailable"),
        ("other", 403, "service_not_allowed"),
        ("Not-A-Name", 403, "service_not_allowed"),
        ("not a name", 400, unreadable),
    ];
    for (service, status, reason) in table {
        let refused = refused(&client, service).await;
        assert_eq!(
            (refused.status.as_u16(), refused.reason.as_str()),
            (status, reason),
            "{service}"
        );
        let id = refused.request_id.expect("a request id");
        let record = world.record(|record| record["id"] == id.as_str()).await;
        assert_eq!(record["reason"], reason, "{record}");
    }
    let address = client.forward("down").await;
    let error = within("down", call(address, b"x")).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(
        call(client.forward("echo").await, b"still here")
            .await
            .unwrap(),
        b"still here"
    );
    let unknown = world.client_over(Choice::Only(over), "eyJhbGciOiJFZERTQSJ9.e30.AAAA");
    let refused = refused(&unknown, "echo").await;
    assert_eq!(
        (refused.status.as_u16(), refused.reason.as_str()),
        (401, "credential_invalid")
    );
}

/// A listener that the session has not, and a name that none can have: how fast they are asked for is what counts.
#[tokio::test(flavor = "multi_thread")]
async fn accept_streams_that_are_refused_have_the_rate_of_refused_opens() {
    let world = World::new().await;
    let asked = "{id: one, expose: {plugin: tcp}, limits: {opensPerSecond: 1}}";
    let token = Secret::new(world.session_of(asked).await);
    let context = world.context();
    for listener in ["other", "Not-A-Name"] {
        let refused = || {
            let (presented, downstream) = ((&token).into(), world.address);
            let relay = &context.h2.relay;
            let offered = relay.offer(presented, listener, downstream, |_| Ok(()));
            offered.map(drop).unwrap_err().denial
        };
        let mut told = std::iter::repeat_with(refused).take(1000);
        assert!(
            told.any(|denial| denial == Denial::TooManyOpens),
            "{listener}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_session_cannot_open_what_another_has() {
    let world = World::new().await;
    let mut tasks = JoinSet::new();
    let echo = tcp_service(&mut tasks, Manner::Echo).await;
    let _a = world.session("a", &format!("{{echo: '{echo}'}}")).await;
    let b = world.session("b", "{other: 'tcp://127.0.0.1:1'}").await;
    assert_eq!(
        refused(&world.client(&b), "echo").await.reason,
        "service_not_allowed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_where_hosts_dial_is_no_service() {
    let world = World::new().await;
    let _exposing = world.session_of("{id: one, expose: {plugin: tcp}}").await;
    let place = world.dial_target("one", "plugin");
    let b = world.session("b", &format!("{{steal: '{place}'}}")).await;
    for over in TRANSPORTS {
        let client = world.client_over(Choice::Only(over), &b);
        let refused = refused(&client, "steal").await;
        assert_eq!(
            (refused.status.as_u16(), refused.reason.as_str()),
            (403, "own_listener")
        );
    }
    // Until it is none any more.
    let (registry, key) = (&world.fixture.registry, world.fixture.key("one"));
    // A new generation might be given the same port.
    registry.patch(key, patch("{expose: {}}")).await.unwrap();
    let mut tasks = JoinSet::new();
    let port = place.strip_prefix("tcp://").unwrap();
    let echo = tokio::net::TcpListener::bind(port).await.unwrap();
    tasks.spawn(async move { drop(echo.accept().await) });
    let opened = world.client(&b).session.open("steal").await;
    assert!(opened.is_ok(), "{:?}", opened.err());
}

/// A stream that is open, its far end an echo.
async fn talking(address: std::net::SocketAddr) -> TcpStream {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(b"hello").await.unwrap();
    within("echo", tcp.read_exact(&mut [0; 5])).await.unwrap();
    tcp
}

async fn cut(mut tcp: TcpStream) -> Duration {
    let (end, took) = timed(within("cut", tcp.read(&mut [0; 1]))).await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_cuts_at_once_and_closes_the_door() {
    for over in TRANSPORTS {
        revocation_over(Choice::Only(over)).await;
    }
}

async fn revocation_over(over: Choice) {
    let world = World::new().await;
    let mut tasks = JoinSet::new();
    let echo = tcp_service(&mut tasks, Manner::Echo).await;
    let token = world
        .session("revoked", &format!("{{echo: '{echo}'}}"))
        .await;
    let neighbour = world
        .session("neighbour", &format!("{{echo: '{echo}'}}"))
        .await;
    let (client, other) = (
        world.client_over(over, &token),
        world.client_over(over, &neighbour),
    );
    let stream = talking(client.forward("echo").await).await;
    let mut kept = talking(other.forward("echo").await).await;
    world
        .fixture
        .registry
        .act(world.fixture.key("revoked"), Action::Reset, None)
        .await
        .unwrap();
    assert!(cut(stream).await < Duration::from_secs(1));
    let record = world
        .record(|record| record["reason"] == "session_revoked")
        .await;
    assert_eq!(
        (&record["outcome"], &record["closedBy"]),
        (&"cut".into(), &"gateway".into()),
        "{record}"
    );
    assert_eq!(refused(&client, "echo").await.status, 401);
    kept.write_all(b"alive").await.unwrap();
    within("neighbour", kept.read_exact(&mut [0; 5]))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_and_policy_act_on_exactly_what_they_name() {
    for over in TRANSPORTS {
        pause_and_policy_over(Choice::Only(over)).await;
    }
}

async fn pause_and_policy_over(over: Choice) {
    let world = World::new().await;
    let mut tasks = JoinSet::new();
    let (one, two) = (
        tcp_service(&mut tasks, Manner::Echo).await,
        tcp_service(&mut tasks, Manner::Echo).await,
    );
    let token = world
        .session("policy", &format!("{{one: '{one}', two: '{two}'}}"))
        .await;
    let client = world.client_over(over, &token);
    let (first, mut second) = (
        talking(client.forward("one").await).await,
        talking(client.forward("two").await).await,
    );
    let key = world.fixture.key("policy");
    world
        .fixture
        .registry
        .patch(
            key.clone(),
            patch(&format!("{{services: {{two: '{two}'}}}}")),
        )
        .await
        .unwrap();
    assert!(cut(first).await < Duration::from_secs(1));
    let record = world
        .record(|record| record["reason"] == "policy_changed")
        .await;
    assert_eq!(
        (&record["outcome"], &record["service"], &record["detail"]),
        (
            &"cut".into(),
            &"one".into(),
            &"its service would be refused now: service_not_allowed".into()
        ),
        "{record}"
    );
    second.write_all(b"alive").await.unwrap();
    within("the other", second.read_exact(&mut [0; 5]))
        .await
        .unwrap();
    world
        .fixture
        .registry
        .act(key.clone(), Action::Pause, None)
        .await
        .unwrap();
    assert!(cut(second).await < Duration::from_secs(1));
    assert_eq!(refused(&client, "two").await.reason, "session_paused");
    world
        .fixture
        .registry
        .act(key, Action::Resume, None)
        .await
        .unwrap();
    talking(client.forward("two").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_timers_cuts_nothing() {
    let world = World::new().await;
    let mut tasks = JoinSet::new();
    let echo = tcp_service(&mut tasks, Manner::Echo).await;
    let token = world
        .session("timers", &format!("{{kept: '{echo}', gone: '{echo}'}}"))
        .await;
    let client = world.client(&token);
    let mut kept = talking(client.forward("kept").await).await;
    let gone = talking(client.forward("gone").await).await;
    let change = format!(
        "{{services: {{kept: {{url: '{echo}', idleTimeout: 2h, halfCloseTimeout: 1h}}, gone: 'tcp://127.0.0.1:1'}}}}"
    );
    let (registry, key) = (&world.fixture.registry, world.fixture.key("timers"));
    registry.patch(key, patch(&change)).await.unwrap();
    cut(gone).await;
    let record = world.record(|r| r["service"] == "gone").await;
    assert_eq!(
        (&record["reason"], &record["detail"]),
        (
            &"policy_changed".into(),
            &"its service has another url now".into()
        ),
        "{record}"
    );
    kept.write_all(b"alive").await.unwrap();
    within("echo", kept.read_exact(&mut [0; 5])).await.unwrap();
}

/// Vector 127: what is not exactly a socket at exactly that path is not opened.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_real_socket_is_a_unix_service() {
    let world = World::new().await;
    let mut tasks = JoinSet::new();
    let directory = world.fixture.dir.path().to_owned();
    let real = unix_service(&mut tasks, &directory.join("real.sock"), Manner::Echo);
    std::fs::write(directory.join("file"), "").unwrap();
    std::os::unix::fs::symlink(directory.join("real.sock"), directory.join("link")).unwrap();
    let root = directory.display();
    let own = rustix::process::geteuid().as_raw();
    let services = format!(
        "{{real: '{real}', file: 'unix://{root}/file', link: 'unix://{root}/link', \
         mine: {{url: '{real}', peerUid: {own}}}, stranger: {{url: '{real}', peerUid: {}}}}}",
        own + 1
    );
    let client = world.client(&world.session("unix", &services).await);
    for service in ["real", "mine"] {
        assert_eq!(
            call(client.forward(service).await, b"x").await.unwrap(),
            b"x",
            "{service}"
        );
    }
    for service in ["file", "link", "stranger"] {
        assert_eq!(
            refused(&client, service).await.reason,
            "service_unavailable",
            "{service}"
        );
    }
}
