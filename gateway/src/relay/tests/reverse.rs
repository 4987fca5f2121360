//! Hosts that dial what sandboxes expose.

mod door;
mod taken;

use std::{io, time::Duration};

use sluicegate_relay::transport::{Choice, Transport};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    task::JoinSet,
};

use crate::{
    relay::testing::{Client, Manner, World, tcp_service, unix_service, within},
    session::{lifecycle::Action, testing::patch},
};

use door::{
    a_dial_target_listens_while_a_client_is_there,
    a_dial_waits_for_a_client_that_comes_back_in_time,
};
use taken::{
    a_client_that_came_back_is_dialled_and_not_the_one_that_is_gone,
    a_dial_that_is_not_taken_is_handed_to_another_client,
    a_dial_that_nobody_takes_fails_and_says_so,
};

async fn act(world: &World, action: Action) {
    let (registry, key) = (&world.fixture.registry, world.fixture.key("one"));
    registry.act(key, action, None).await.unwrap();
}

async fn tcp(world: &World, listener: &str) -> TcpStream {
    let target = world.dial_target("one", listener);
    let address = target.strip_prefix("tcp://").unwrap().to_owned();
    TcpStream::connect(address).await.unwrap()
}

/// The session `one` with a listener `plugin` by TCP, whose dials wait so long for a client that was there; and its token.
async fn patient(patience: &str) -> (World, String) {
    let world = World::new().await;
    let source = format!("{{id: one, expose: {{plugin: {{dial: tcp, patience: {patience}}}}}}}");
    let token = world.session_of(&source).await;
    (world, token)
}

/// The session `one` with a listener `plugin` by TCP, offered for `url` by a client.
async fn exposed(world: &World, over: Transport, url: &str) -> Client {
    let token = world.session_of("{id: one, expose: {plugin: tcp}}").await;
    let client = world.client_over(Choice::Only(over), &token);
    client.expose("plugin", url);
    world.offered(2.0).await;
    client
}

/// Until nothing listens there, and only that: whoever is let in before is let go again.
async fn refused(world: &World, listener: &str) {
    let target = world.dial_target("one", listener);
    let dial = async || match target.strip_prefix("unix://") {
        Some(path) => UnixStream::connect(path).await.map(drop),
        None => {
            let address = target.strip_prefix("tcp://").unwrap();
            TcpStream::connect(address).await.map(drop)
        }
    };
    within("a refusal", async {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        while !dial()
            .await
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        {
            tick.tick().await;
        }
    })
    .await;
}

/// Until no accept stream waits.
async fn withdrawn(world: &World) {
    within("their withdrawal", async {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        while world.metric("sluicegate_accept_streams_waiting ") > 0.0 {
            tick.tick().await;
        }
    })
    .await;
}

/// It ends in a reset, and not a byte came.
async fn reset(mut stream: impl AsyncReadExt + Unpin) {
    let mut bytes = Vec::new();
    let error = within("reset", stream.read_to_end(&mut bytes)).await;
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(bytes.is_empty());
}

async fn ended(world: &World, reason: &str) -> serde_json::Value {
    world
        .record(|r| r["front"] == "listener" && r["reason"] == reason)
        .await
}

async fn a_dial_reaches_the_sandbox_by_unix_and_by_tcp(over: Transport) {
    let world = World::new().await;
    let mut tasks = JoinSet::new();
    let token = world
        .session_of("{id: one, expose: {plugin: unix, db: tcp}}")
        .await;
    let client = world.client_over(Choice::Only(over), &token);
    let socket = world.fixture.dir.path().join("plugin.sock");
    client.expose("plugin", &unix_service(&mut tasks, &socket, Manner::Echo));
    client.expose("db", &tcp_service(&mut tasks, Manner::Digest).await);
    world.offered(4.0).await;

    let path = world.dial_target("one", "plugin");
    let mut unix = UnixStream::connect(path.strip_prefix("unix://").unwrap())
        .await
        .unwrap();
    unix.write_all(b"hello").await.unwrap();
    unix.shutdown().await.unwrap();
    let mut answer = Vec::new();
    within("echo", unix.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"hello");

    let mut stream = tcp(&world, "db").await;
    let question = vec![7; 3_000_000];
    stream.write_all(&question).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    within("digest", stream.read_to_end(&mut answer))
        .await
        .unwrap();
    use sha2::Digest;
    assert_eq!(answer, sha2::Sha256::digest(&question).to_vec());

    let record = world.record(|r| r["service"] == "db").await;
    assert_eq!(record["front"], "listener");
    assert_eq!(record["outcome"], "completed");
    assert_eq!(
        (record["bytesUp"].as_u64(), record["bytesDown"].as_u64()),
        (Some(3_000_000), Some(32))
    );
    assert_eq!(record["session"]["id"], "one");
    let record = world.record(|r| r["service"] == "plugin").await;
    assert!(
        record["downstream"]
            .as_str()
            .unwrap()
            .starts_with("unix:uid=")
    );
}

async fn a_burst_of_dials_is_served_and_each_offer_replaced(over: Transport) {
    let world = World::new().await;
    let mut tasks = JoinSet::new();
    let url = tcp_service(&mut tasks, Manner::Echo).await;
    let _client = exposed(&world, over, &url).await;
    let target = world.dial_target("one", "plugin");
    let address: std::net::SocketAddr = target.strip_prefix("tcp://").unwrap().parse().unwrap();
    let mut dials = JoinSet::new();
    for n in 0..60 {
        let question = format!("dial {n}").into_bytes();
        dials.spawn(async move {
            let answer = crate::relay::testing::call(address, &question)
                .await
                .unwrap();
            assert_eq!(answer, question);
        });
    }
    within("all dials", async {
        while let Some(dial) = dials.join_next().await {
            dial.unwrap();
        }
    })
    .await;
    world.offered(2.0).await;
}

async fn a_local_listener_that_is_down_resets_the_dial_with_its_reason(over: Transport) {
    let world = World::new().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", free.local_addr().unwrap());
    drop(free);
    let _client = exposed(&world, over, &url).await;
    reset(tcp(&world, "plugin").await).await;
    if over == Transport::H1 {
        // A connection that ends has no word for it.
        world
            .record(|r| r["front"] == "listener" && r["outcome"] == "reset")
            .await;
    } else {
        assert_eq!(ended(&world, "listener_refused").await["outcome"], "failed");
    }
    world.offered(2.0).await;
}

async fn ends_are_carried_both_ways_as_what_they_are(over: Transport) {
    let world = World::new().await;
    let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", service.local_addr().unwrap());
    let _client = exposed(&world, over, &url).await;
    let pair = async || {
        let mut near = tcp(&world, "plugin").await;
        near.write_all(b"!").await.unwrap();
        let (mut far, _) = within("accept", service.accept()).await.unwrap();
        let mut byte = [0];
        within("byte", far.read_exact(&mut byte)).await.unwrap();
        (near, far)
    };
    let mut rest = Vec::new();

    // FIN of the host, then data of the sandbox; and the reverse.
    let (mut near, mut far) = pair().await;
    near.shutdown().await.unwrap();
    assert_eq!(within("FIN", far.read(&mut [0; 8])).await.unwrap(), 0);
    far.write_all(b"still here").await.unwrap();
    drop(far);
    within("rest", near.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"still here");
    let (mut near, mut far) = pair().await;
    far.shutdown().await.unwrap();
    assert_eq!(within("FIN", near.read(&mut [0; 8])).await.unwrap(), 0);
    near.write_all(b"and here").await.unwrap();
    drop(near);
    rest.clear();
    within("rest", far.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"and here");

    // RST, from each side.
    let (near, mut far) = pair().await;
    near.set_zero_linger().unwrap();
    drop(near);
    let error = within("RST", far.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let (mut near, far) = pair().await;
    far.set_zero_linger().unwrap();
    drop(far);
    let error = within("RST", near.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let record = world
        .record(|r| r["outcome"] == "reset" && r["closedBy"] == "upstream")
        .await;
    assert_eq!(record["front"], "listener");
}

async fn revocation_ends_dials_that_run_and_offers_that_wait(over: Transport) {
    let world = World::new().await;
    let mut tasks = JoinSet::new();
    let url = tcp_service(&mut tasks, Manner::Echo).await;
    let _client = exposed(&world, over, &url).await;
    let mut stream = tcp(&world, "plugin").await;
    stream.write_all(b"x").await.unwrap();
    within("echo", stream.read_exact(&mut [0])).await.unwrap();
    let target = world.dial_target("one", "plugin");
    act(&world, Action::Reset).await;
    reset(stream).await;
    assert_eq!(ended(&world, "session_revoked").await["outcome"], "cut");
    // The offers were answered with the reason, each with its own record.
    let front = if over == Transport::Quic {
        "quic"
    } else {
        "connect-tcp"
    };
    world
        .record(|r| r["front"] == front && r["reason"] == "session_revoked")
        .await;
    let address = target.strip_prefix("tcp://").unwrap();
    assert!(
        TcpStream::connect(address).await.is_err(),
        "the port is closed"
    );
}

async fn a_paused_session_is_not_dialled_and_comes_back(over: Transport) {
    // The gap of a client that is lost is not to be had by a pause.
    let (world, token) = patient("60s").await;
    let mut tasks = JoinSet::new();
    let url = tcp_service(&mut tasks, Manner::Echo).await;
    let client = world.client_over(Choice::Only(over), &token);
    client.expose("plugin", &url);
    world.offered(2.0).await;
    act(&world, Action::Pause).await;
    refused(&world, "plugin").await;
    act(&world, Action::Resume).await;
    world.offered(2.0).await;
    let mut stream = tcp(&world, "plugin").await;
    stream.write_all(b"y").await.unwrap();
    within("echo", stream.read_exact(&mut [0])).await.unwrap();
}

async fn a_policy_change_cuts_what_it_took_and_nothing_else(over: Transport) {
    let world = World::new().await;
    let mut tasks = JoinSet::new();
    let url = tcp_service(&mut tasks, Manner::Echo).await;
    let token = world
        .session_of("{id: one, expose: {keep: tcp, gone: tcp}}")
        .await;
    let client = world.client_over(Choice::Only(over), &token);
    client.expose("keep", &url);
    client.expose("gone", &url);
    world.offered(4.0).await;
    let (mut keep, mut gone) = (tcp(&world, "keep").await, tcp(&world, "gone").await);
    for stream in [&mut keep, &mut gone] {
        stream.write_all(b"x").await.unwrap();
        within("echo", stream.read_exact(&mut [0])).await.unwrap();
    }
    let (registry, key) = (&world.fixture.registry, world.fixture.key("one"));
    registry
        .patch(key, patch("{expose: {keep: tcp}}"))
        .await
        .unwrap();
    reset(gone).await;
    let record = ended(&world, "policy_changed").await;
    let told = "its listener would be refused now: listener_not_allowed";
    assert_eq!(record["detail"], told, "{record}");
    keep.write_all(b"y").await.unwrap();
    within("echo", keep.read_exact(&mut [0])).await.unwrap();
}

async fn what_is_offered_on_other_terms_is_refused_and_the_record_says_why(over: Transport) {
    let world = World::new().await;
    let _client = exposed(&world, over, "tcp://127.0.0.1:9").await;
    let (registry, key) = (&world.fixture.registry, world.fixture.key("one"));
    let change = patch("{expose: {plugin: unix}}");
    registry.patch(key, change).await.unwrap();
    let record = world.record(|r| r["reason"] == "policy_changed").await;
    assert_eq!(
        (&record["outcome"], &record["detail"]),
        (
            &"refused".into(),
            &"its listener has another dial now".into()
        ),
        "{record}"
    );
}

async fn what_the_grant_or_the_token_does_not_name_is_not_offered(over: Transport) {
    let world = World::new().await;
    let token = world
        .session_of("{id: one, services: {plugin: 'tcp://127.0.0.1:9'}}")
        .await;
    let client = world.client_over(Choice::Only(over), &token);
    let error = within("refusal", client.session.accept("plugin")).await;
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("listener_not_allowed")
    );
    let error = within("refusal", client.session.accept("Not/A Name")).await;
    assert!(error.is_err());
    let forged = world.client_over(Choice::Only(over), "forged");
    let error = within("refusal", forged.session.accept("plugin")).await;
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("credential_invalid")
    );
}

async fn a_dial_counts_against_the_sessions_limits(over: Transport) {
    let world = World::new().await;
    let mut tasks = JoinSet::new();
    let url = tcp_service(&mut tasks, Manner::Echo).await;
    let token = world
        .session_of("{id: one, expose: {plugin: tcp}, limits: {tunnels: 1}}")
        .await;
    let client = world.client_over(Choice::Only(over), &token);
    client.expose("plugin", &url);
    // Waiting takes no place: two wait where one may run.
    world.offered(2.0).await;
    let mut first = tcp(&world, "plugin").await;
    first.write_all(b"x").await.unwrap();
    within("echo", first.read_exact(&mut [0])).await.unwrap();
    reset(tcp(&world, "plugin").await).await;
    ended(&world, "too_many_tunnels").await;
}

async fn a_drain_withdraws_the_offers(over: Transport) {
    let world = World::new().await;
    let mut tasks = JoinSet::new();
    let url = tcp_service(&mut tasks, Manner::Echo).await;
    let _client = exposed(&world, over, &url).await;
    let drained = world.drain.run(Duration::ZERO, Duration::from_secs(30));
    assert_eq!(within("drain", drained).await, 0, "nothing had to be cut");
    let record = world.record(|r| r["reason"] == "draining").await;
    assert_eq!(record["outcome"], "refused");
}

async fn enough_offers_are_enough(over: Transport) {
    let world = World::new().await;
    let token = world.session_of("{id: one, expose: [plugin]}").await;
    let client = world.client_over(Choice::Only(over), &token);
    let mut offers = JoinSet::new();
    for _ in 0..128 {
        let session = client.session.clone();
        offers.spawn(async move { session.accept("plugin").await.map(drop) });
    }
    world.offered(128.0).await;
    let error = within("refusal", client.session.accept("plugin")).await;
    assert!(
        error.unwrap_err().to_string().contains("too_many_accepts"),
        "one more is one too many"
    );
    offers.shutdown().await;
    withdrawn(&world).await;
    offers.spawn(async move { client.session.accept("plugin").await.map(drop) });
    world.offered(1.0).await;
}

/// What the host says comes back, once.
async fn echoed(world: &World, what: &[u8]) {
    echoes(tcp(world, "plugin").await, what).await;
}

/// What is sent by it comes back, and then an end.
async fn echoes(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, what: &[u8]) {
    stream.write_all(what).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    within("echo", stream.read_to_end(&mut answer))
        .await
        .unwrap();
    assert_eq!(answer, what);
}

/// Each test over each transport.
macro_rules! over_each {
    ($($name:ident)*) => {
        over_each! { @each quic Quic $($name)* }
        over_each! { @each h2 H2 $($name)* }
        over_each! { @each h1 H1 $($name)* }
    };
    (@each $module:ident $transport:ident $($name:ident)*) => {
        mod $module {
            use sluicegate_relay::transport::Transport;

            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(Transport::$transport).await;
                }
            )*
        }
    };
}

over_each! {
    a_dial_reaches_the_sandbox_by_unix_and_by_tcp
    a_burst_of_dials_is_served_and_each_offer_replaced
    a_dial_target_listens_while_a_client_is_there
    a_dial_waits_for_a_client_that_comes_back_in_time
    a_local_listener_that_is_down_resets_the_dial_with_its_reason
    ends_are_carried_both_ways_as_what_they_are
    revocation_ends_dials_that_run_and_offers_that_wait
    a_paused_session_is_not_dialled_and_comes_back
    a_policy_change_cuts_what_it_took_and_nothing_else
    what_is_offered_on_other_terms_is_refused_and_the_record_says_why
    what_the_grant_or_the_token_does_not_name_is_not_offered
    a_dial_counts_against_the_sessions_limits
    a_drain_withdraws_the_offers
    enough_offers_are_enough
    a_client_that_came_back_is_dialled_and_not_the_one_that_is_gone
    a_dial_that_is_not_taken_is_handed_to_another_client
    a_dial_that_nobody_takes_fails_and_says_so
}
