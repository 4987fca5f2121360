//! What a client carries goes on: past tokens, past the gateway's absence, to another replica, to its successor, and from far away.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use e2e::gateway::LOOPBACK_PROVIDER;
use e2e::program::binary;
use e2e::tasks::until_told;
use e2e::{LateLink, Program, Record, RelayClient, Settings, Tasks, Wire, World, until, within};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{TRANSPORTS, echo, said, session};

/// The claim `exp`.
fn ends_at(token: &str) -> SystemTime {
    let claims = token.split('.').nth(1).unwrap();
    let claims = data_encoding::BASE64URL_NOPAD.decode(claims.as_bytes());
    let claims: Value = serde_json::from_slice(&claims.unwrap()).unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_secs(claims["exp"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_exchanged_in_time_and_no_stream_notices() {
    let tasks = Tasks::default();
    let service = echo(&tasks).await;
    let settings = Settings {
        runtime: format!("{LOOPBACK_PROVIDER}      session: {{tokenTtl: 2s}}\n"),
        ..Settings::default()
    };
    let world = World::with(settings).await;
    let each = TRANSPORTS.map(async |transport| {
        let session = session(&world, service).await;
        let client = RelayClient::up_over(&session, transport, &[RelayClient::tcp("echo")]).await;
        let mut kept = TcpStream::connect(client.entry("echo")).await.unwrap();
        said(&mut kept, b"before").await;
        let first = session.variable("SLUICEGATE_RELAY_TOKEN");
        // By its own claim, and by more than clocks may differ.
        let over = ends_at(first) + Duration::from_secs(7);
        let ended = async || (SystemTime::now() > over).then_some(());
        until_told("the first token's end", ended).await;
        said(&mut kept, b"the stream of before").await;
        let mut new = TcpStream::connect(client.entry("echo")).await.unwrap();
        said(&mut new, b"and a new one").await;
        let front = if transport == "quic" {
            "quic"
        } else {
            "origin"
        };
        let exchanged = |record: &&Record| {
            record.text("front") == front
                && record.mentions("/relay/v1/token")
                && record.mentions(session.id())
                && record.number("status") == Some(200)
        };
        let count = || world.gateway.records().iter().filter(exchanged).count();
        until(&format!("{transport}: two exchanges"), || {
            (count() >= 2).then_some(())
        })
        .await;
    });
    let [quic, h2, h1] = each;
    tokio::join!(quic, h2, h1);
}

/// The gateway is away for longer than the rest of any token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_that_outlives_the_token_ends_nothing() {
    let tasks = Tasks::default();
    let service = echo(&tasks).await;
    let settings = Settings {
        runtime: format!("{LOOPBACK_PROVIDER}      session: {{tokenTtl: 2s}}\n"),
        ..Settings::default()
    };
    let mut world = World::with(settings).await;
    let mut clients = Vec::new();
    for transport in TRANSPORTS {
        let session = session(&world, service).await;
        let client = RelayClient::up_over(&session, transport, &[RelayClient::tcp("echo")]).await;
        let mut before = TcpStream::connect(client.entry("echo")).await.unwrap();
        said(&mut before, b"before").await;
        clients.push((transport, client, session));
    }
    world.gateway.process.signal(rustix::process::Signal::KILL);
    world.gateway.process.wait("the kill").await;
    let over = SystemTime::now() + Duration::from_secs(9);
    until("the end of every token", || {
        (SystemTime::now() > over).then_some(())
    })
    .await;
    world.gateway.restart().await;
    for (transport, client, _session) in &clients {
        let carried = async || {
            let mut stream = TcpStream::connect(client.entry("echo")).await.ok()?;
            stream.write_all(b"after").await.ok()?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await.ok()?;
            Some(answer)
        };
        let answer = until_told(&format!("a stream over {transport}"), carried).await;
        assert_eq!(&answer, b"after", "{transport}");
    }
}

/// How long one call takes on a connection that is warm and was silent for so long: the shortest of a few, since this machine has
/// other work too, and of some more where none of them was shorter than `most`.
async fn shortest(entry: SocketAddr, silence: Duration, most: Duration) -> Duration {
    let mut best = Duration::MAX;
    for turn in 0..24 {
        if turn >= 6 && best < most {
            break;
        }
        // Nothing happens: that is the case that is measured.
        tokio::time::sleep(silence).await;
        let begun = Instant::now();
        let mut stream = TcpStream::connect(entry).await.unwrap();
        said(&mut stream, b"one question").await;
        best = best.min(begun.elapsed());
    }
    best
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_costs_no_round_trip_of_its_own() {
    let (tasks, world) = (Tasks::default(), World::start().await);
    let session = session(&world, echo(&tasks).await).await;
    let trip = Duration::from_millis(300);
    let link = LateLink::to(world.gateway.ports.public, trip / 2).await;
    let url = format!("https://{}", link.address);
    let all = Duration::MAX.div_duration_f64(trip);
    for (transport, most) in [("quic", 1.7), ("h2", 1.7), ("h1", all)] {
        let more = ["--transport", transport, "--url", &url];
        let listen = [RelayClient::tcp("echo")];
        let client = RelayClient::up_with(&session, &more, &listen).await;
        client.event("connected").await;
        let silence = Duration::from_millis(700);
        let enough = if most < all {
            trip.mul_f64(most)
        } else {
            Duration::MAX
        };
        let quick = shortest(client.entry("echo"), silence, enough).await;
        let trips = quick.div_duration_f64(trip);
        assert!(
            trips >= 1.0,
            "{transport}: {trips} round trips: not this link"
        );
        assert!(trips < most, "{transport}: {trips} round trips");
        if transport == "h1" {
            // TLS, the upgrade, and only then the question (the link takes TCP connections at once).
            assert!(trips >= 2.5, "{transport}: {trips} round trips");
        }
    }
}

/// What a killed client leaves is the files of its sockets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_clients_sockets_are_its_successors() {
    let (tasks, world) = (Tasks::default(), World::start().await);
    let session = session(&world, echo(&tasks).await).await;
    let [socket, place] = ["echo", "status"].map(|name| RelayClient::socket(&session, name));
    let status = format!("unix://{}", place.display());
    let (more, listen) = (["--status", &status], [RelayClient::unix(&session, "echo")]);
    let mut killed = RelayClient::up_with(&session, &more, &listen).await;
    killed.event("status").await;
    killed.process.signal(rustix::process::Signal::KILL);
    killed.process.wait("its end").await;
    assert!(socket.exists() && place.exists(), "the files are left");
    let ask = || {
        let program = Program::new(binary("sluicegate-relay"));
        program.args(["status", "--status", &status]).run()
    };
    assert_eq!(ask().await.code, Some(1), "nobody tells");

    let next = RelayClient::up_with(&session, &more, &listen).await;
    next.event("connected").await;
    next.event("status").await;
    let text = ask().await.succeeded();
    assert!(text.contains("connected"), "{text}");
    let stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
    let mut wire = Wire::over(stream);
    wire.send("hello").await;
    assert_eq!(wire.take(5).await, b"hello");
    // Of one that lives nothing is taken away.
    let third = session.program(Program::new(binary("sluicegate-relay")));
    let third = third.args(["up", "--listen", &listen[0]]).run().await;
    assert_eq!(third.code, Some(3), "{}", third.stderr);
    wire.send("again").await;
    assert_eq!(wire.take(5).await, b"again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replica_has_what_is_opened_when_one_is_gone() {
    let (tasks, world) = (Tasks::default(), World::start().await);
    let session = session(&world, echo(&tasks).await).await;
    let public = world.gateway.ports.public;
    let (first, second) = loop {
        let first = LateLink::to(public, Duration::ZERO).await;
        let other = SocketAddr::from(([127, 0, 0, 2], first.address.port()));
        if let Some(second) = LateLink::between(other, public, Duration::ZERO).await {
            break (first, second);
        }
    };
    let url = format!("https://localhost:{}", first.address.port());
    let more = ["--transport", "h2", "--url", &url];
    let replicas = ["--resolve", "127.0.0.1", "--resolve", "127.0.0.2"];
    let more = [more, replicas].concat();
    let client = RelayClient::up_with(&session, &more, &[RelayClient::tcp("echo")]).await;
    client.event("connected").await;
    let both = || {
        client
            .process
            .said()
            .contains("a second connection")
            .then_some(())
    };
    until("the second connection", both).await;
    let mut old = TcpStream::connect(client.entry("echo")).await.unwrap();
    said(&mut old, b"by the first").await;
    drop(first);
    client.event("reconnecting").await;
    // The first address answers nobody any more, and nothing waits for it.
    let mut new = TcpStream::connect(client.entry("echo")).await.unwrap();
    said(&mut new, b"by the second").await;
    let cut = within("the first one's end", old.read(&mut [0])).await;
    assert!(cut.is_err(), "{cut:?}");
    drop(second);
}
