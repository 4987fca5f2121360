//! `sluicegate-relay` over each transport: fresh tokens, bytes that do not wait for the answer, and what it tells of
//! itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use e2e::gateway::LOOPBACK_PROVIDER;
use e2e::program::binary;
use e2e::tasks::{timed, until_told};
use e2e::{
    Ask, LateLink, Link, Program, Record, RelayClient, Session, Settings, Tasks, Weather, Wire,
    World, until, web, within,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const TRANSPORTS: [&str; 3] = ["quic", "h2", "h1"];

/// A service that says everything back.
async fn echo(tasks: &Tasks) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let each = Tasks::default();
        while let Ok((stream, _)) = listener.accept().await {
            each.spawn(async move {
                let (mut read, mut write) = stream.into_split();
                // A stream that is reset ends it.
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

async fn said(stream: &mut TcpStream, question: &[u8]) {
    stream.write_all(question).await.unwrap();
    let mut answer = vec![0; question.len()];
    within("the echo", stream.read_exact(&mut answer))
        .await
        .unwrap();
    assert_eq!(answer, question);
}

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
    let service = format!("echo=tcp://{}", echo(&tasks).await);
    let settings = Settings {
        runtime: format!("{LOOPBACK_PROVIDER}      session: {{tokenTtl: 2s}}\n"),
        ..Settings::default()
    };
    let world = World::with(settings).await;
    let each = TRANSPORTS.map(async |transport| {
        let ask = Ask {
            services: &[&service],
            ..Ask::default()
        };
        let session = world.session_for(ask).await;
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
    let service = format!("echo=tcp://{}", echo(&tasks).await);
    let settings = Settings {
        runtime: format!("{LOOPBACK_PROVIDER}      session: {{tokenTtl: 2s}}\n"),
        ..Settings::default()
    };
    let mut world = World::with(settings).await;
    let mut clients = Vec::new();
    for transport in TRANSPORTS {
        let ask = Ask {
            services: &[&service],
            ..Ask::default()
        };
        let session = world.session_for(ask).await;
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
/// other work too.
async fn shortest(entry: SocketAddr, silence: Duration) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..6 {
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
    let service = format!("echo=tcp://{}", echo(&tasks).await);
    let ask = Ask {
        services: &[&service],
        ..Ask::default()
    };
    let session = world.session_for(ask).await;
    let trip = Duration::from_millis(300);
    let link = LateLink::to(world.gateway.ports.public, trip / 2).await;
    let url = format!("https://{}", link.address);
    for (transport, most) in [("quic", 1.7), ("h2", 1.7), ("h1", f64::MAX)] {
        let more = ["--transport", transport, "--url", &url];
        let listen = [RelayClient::tcp("echo")];
        let client = RelayClient::up_with(&session, &more, &listen).await;
        client.event("connected").await;
        let silence = Duration::from_millis(700);
        let quick = shortest(client.entry("echo"), silence).await;
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

/// What `sluicegate-relay doctor --json` says: its exit code, and each check's outcome by name.
async fn doctor(session: &Session, more: &[&str]) -> (Option<i32>, Value) {
    examined(
        session.program(Program::new(binary("sluicegate-relay"))),
        more,
    )
    .await
}

async fn examined(program: Program, more: &[&str]) -> (Option<i32>, Value) {
    let finished = program.args(["doctor", "--json"]).args(more).run().await;
    let said: Value = serde_json::from_slice(&finished.stdout).expect(&finished.stderr);
    (finished.code, said)
}

fn finding<'a>(said: &'a Value, name: &str) -> &'a Value {
    let checks = said["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["check"] == name);
    found.unwrap_or_else(|| panic!("no check {name}: {said}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_says_what_works_and_what_to_change() {
    let (tasks, world) = (Tasks::default(), World::start().await);
    let (_origin, target) = world.raw_origin().await;
    let address = echo(&tasks).await;
    let service = format!("echo=tcp://{address}");
    let ask = Ask {
        allow: &[&target],
        services: &[&service, "down=tcp://127.0.0.1:1"],
        more: &["--expose", "plugin=tcp"],
    };
    let session = world.session_for(ask).await;
    let listen = ["--listen", "echo=tcp://127.0.0.1:0"];
    let plugin = format!("plugin=tcp://{address}");
    let expose = ["--expose", &plugin];
    let proxy = ["--proxy", "127.0.0.1:0", "--canary", &target];
    let flags = [listen.as_slice(), &expose, &proxy].concat();
    let (code, said) = doctor(&session, &flags).await;
    assert_eq!(code, Some(0), "{said}");
    for name in [
        "name",
        "tcp",
        "quic",
        "h2",
        "h1",
        "transport",
        "token",
        "service echo",
        "listener plugin",
        "proxy refuses",
        "proxy passes",
    ] {
        assert_eq!(finding(&said, name)["outcome"], "ok", "{said}");
    }
    // What is refused as it should be is nothing to allow.
    let refuses = finding(&said, "proxy refuses")["detail"].to_string();
    assert!(!refuses.contains("allowedHosts"), "{refuses}");
    let wins = |said: &Value| finding(said, "transport")["detail"].to_string();
    let told = wins(&said);
    assert!(told.contains("quic") && told.contains("first"), "{told}");

    let nosuch = format!("nosuch=tcp://{address}");
    let more = [
        "--listen",
        "down=tcp://127.0.0.1:0",
        "--listen",
        "other=tcp://127.0.0.1:0",
        "--expose",
        "plugin=tcp://127.0.0.1:1",
        "--expose",
        &nosuch,
    ];
    let (code, said) = doctor(&session, &more).await;
    assert_eq!(code, Some(1), "{said}");
    for (name, reason) in [
        ("service down", "service_unavailable"),
        ("service other", "service_not_allowed"),
        ("listener plugin", "refused"),
        ("listener nosuch", "listener_not_allowed"),
    ] {
        let found = finding(&said, name);
        assert_eq!(found["outcome"], "failed", "{said}");
        assert!(
            found["detail"].as_str().unwrap().contains(reason),
            "{found}"
        );
        assert!(found["advice"].is_string(), "{found}");
    }

    let forged = session.directory().join("forged");
    std::fs::write(&forged, "e30.e30.AAAA").unwrap();
    let more = ["--token-file", forged.to_str().unwrap()];
    let (code, said) = doctor(&session, &more).await;
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(finding(&said, "token")["outcome"], "failed");

    let nowhere = ["--url", "https://127.0.0.1:1"];
    let (code, said) = doctor(&session, &nowhere).await;
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(finding(&said, "tcp")["outcome"], "failed");
    assert_eq!(finding(&said, "token")["outcome"], "skipped");
}

/// Each fault on the way has a finding of its own, and something to do about it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_knows_each_fault_of_the_way() {
    let world = World::start().await;
    let key = tempfile::tempdir().unwrap();
    let key = key.path().join("key.pem");
    let thumbprint = made(&key).await;
    let ask = Ask {
        services: &["down=tcp://127.0.0.1:1"],
        more: &["--client-key", &thumbprint],
        ..Ask::default()
    };
    let session = world.session_for(ask).await;
    let key = ["--key", key.to_str().unwrap()];
    let link = Link::start(world.gateway.ports.public, Weather::default(), 1).await;
    link.swallow_udp(true);
    let stranger = session.directory().join("stranger.pem");
    std::fs::write(&stranger, e2e::Ca::create().pem()).unwrap();
    let (url, public) = (link.url(), world.gateway.ports.public);
    let by_address = format!("https://127.0.0.1:{}", public.port());
    let by_name = format!("https://gateway.invalid:{}", public.port());
    let faults: [(&str, &[&str], &str, &str, &str); 5] = [
        (
            "no such name",
            &["--url", &by_name],
            "name",
            "failed",
            "resolver",
        ),
        ("no UDP", &["--url", &url], "quic", "warning", "open UDP"),
        (
            "not trusted",
            &["--ca", stranger.to_str().unwrap()],
            "h2",
            "failed",
            "--ca",
        ),
        (
            "no key",
            &["--url", &by_address],
            "token",
            "failed",
            &thumbprint,
        ),
        (
            "a proxy that reaches nothing",
            &["--proxy", "127.0.0.1:0", "--canary", "denied.test:443"],
            "proxy passes",
            "failed",
            "allowedHosts",
        ),
    ];
    for (what, arguments, check, outcome, advice) in faults {
        let with_key = if what == "no key" { &[][..] } else { &key };
        let mut program = session.program(Program::new(binary("sluicegate-relay")));
        if what == "not trusted" {
            // The bundle's own, which stand for the system's.
            program = program.env("SSL_CERT_FILE", &stranger);
        }
        let (_, said) = examined(program, &[arguments, with_key].concat()).await;
        let found = finding(&said, check);
        assert_eq!(found["outcome"], outcome, "{what}: {said}");
        let told = found["advice"].as_str().unwrap_or_default();
        assert!(told.contains(advice), "{what}: {found}");
        if what == "no UDP" {
            let wins = finding(&said, "transport")["detail"].to_string();
            let expected = wins.contains("h2") && wins.contains("quic had not answered");
            assert!(expected, "{wins}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_client_tells_how_it_is() {
    let (tasks, world) = (Tasks::default(), World::start().await);
    let service = format!("echo=tcp://{}", echo(&tasks).await);
    let ask = Ask {
        services: &[&service],
        ..Ask::default()
    };
    let session = world.session_for(ask).await;
    let more = ["--transport", "h2", "--status", "127.0.0.1:0"];
    let client = RelayClient::up_with(&session, &more, &[RelayClient::tcp("echo")]).await;
    client.event("connected").await;
    let event = client.event("status").await;
    let url = event["address"].as_str().unwrap();
    let place = url.strip_prefix("http://").unwrap();
    let address: SocketAddr = place.parse().unwrap();
    let mut stream = TcpStream::connect(client.entry("echo")).await.unwrap();
    said(&mut stream, b"hello").await;

    let told = web::fetch(address, "/status").await.json();
    assert_eq!(told["state"], "connected", "{told}");
    assert_eq!(told["transport"], "h2", "{told}");
    assert_eq!(told["streams"]["open"], 1, "{told}");
    assert_eq!(told["connections"], 1, "one is enough: {told}");
    assert!(told["noMoreConnections"].is_null(), "{told}");
    // Nothing has needed a larger one.
    assert_eq!(told["streamWindow"], 512 * 1024, "{told}");
    assert_eq!(told["listen"], serde_json::json!(["echo"]), "{told}");
    let metrics = web::fetch(address, "/metrics").await.text();
    for sample in [
        "sluicegate_relay_connected{transport=\"h2\"} 1",
        "sluicegate_relay_connected{transport=\"quic\"} 0",
        "sluicegate_relay_transport_info{transport=\"h2\",reason=\"forced\"} 1",
        "sluicegate_relay_chosen_total{transport=\"h2\",reason=\"forced\"} 1",
        "sluicegate_relay_connections 1",
        "sluicegate_relay_stream_window_bytes 524288",
        "sluicegate_relay_streams_open 1",
        "sluicegate_relay_opens_total{result=\"opened\"} 1",
    ] {
        assert!(metrics.lines().any(|line| line == sample), "{metrics}");
    }
    assert_eq!(web::fetch(address, "/healthz").await.status(), 200);
    // A page whose name was made to point here.
    for (fields, status) in [
        ("Host: evil.example", 421),
        ("Host: localhost\r\nOrigin: https://evil.example", 403),
    ] {
        let mut wire = Wire::dial(address).await;
        let head = format!("GET /status HTTP/1.1\r\n{fields}\r\n\r\n");
        wire.send(head).await;
        assert_eq!(wire.reply().await.status(), status, "{fields}");
    }
    let ask = || {
        let program = Program::new(binary("sluicegate-relay"));
        program.args(["status", "--status", place]).run()
    };
    let text = ask().await.succeeded();
    assert!(text.contains("connected") && text.contains("h2"), "{text}");

    world.gateway.process.signal(rustix::process::Signal::KILL);
    client.event("reconnecting").await;
    let unhealthy = async || (web::fetch(address, "/healthz").await.status() == 503).then_some(());
    until_told("an unhealthy answer", unhealthy).await;
    assert_eq!(ask().await.code, Some(1));
}

/// What a killed client leaves is the files of its sockets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_clients_sockets_are_its_successors() {
    let (tasks, world) = (Tasks::default(), World::start().await);
    let service = format!("echo=tcp://{}", echo(&tasks).await);
    let ask = Ask {
        services: &[&service],
        ..Ask::default()
    };
    let session = world.session_for(ask).await;
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
    let service = format!("echo=tcp://{}", echo(&tasks).await);
    let ask = Ask {
        services: &[&service],
        ..Ask::default()
    };
    let session = world.session_for(ask).await;
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

/// Streams of all three kinds of one client.
struct Three {
    world: World,
    session: Session,
    client: RelayClient,
    target: String,
    proxy: SocketAddr,
    dial: SocketAddr,
    _tasks: Tasks,
}

impl Three {
    async fn over(transport: &str) -> Self {
        Self::asking(transport, &[], &[]).await
    }

    /// With more arguments of `session create` and of `up`.
    async fn asking(transport: &str, create: &[&str], up: &[&str]) -> Self {
        Self::in_world(World::start().await, transport, create, up).await
    }

    /// At the other end of a link with so much delay each way.
    async fn far(transport: &str, delay: Duration) -> (Self, LateLink) {
        let world = World::start().await;
        let link = LateLink::to(world.gateway.ports.public, delay).await;
        let url = format!("https://{}", link.address);
        let three = Self::in_world(world, transport, &[], &["--url", &url]).await;
        (three, link)
    }

    async fn in_world(world: World, transport: &str, create: &[&str], up: &[&str]) -> Self {
        let tasks = Tasks::default();
        let address = echo(&tasks).await;
        world.dns.point("raw.allowed.test");
        let target = format!("raw.allowed.test:{}", address.port());
        let service = format!("echo=tcp://{address}");
        let ask = Ask {
            allow: &[&target],
            services: &[&service],
            more: &[&["--expose", "plugin=tcp"], create].concat(),
        };
        let session = world.session_for(ask).await;
        let offer = format!("plugin=tcp://{address}");
        let more = [
            "--transport",
            transport,
            "--expose",
            &offer,
            "--proxy",
            "127.0.0.1:0",
        ];
        let more = [&more, up].concat();
        let client = RelayClient::up_with(&session, &more, &[RelayClient::tcp("echo")]).await;
        client.event("connected").await;
        let said = client.event("proxy").await;
        let place = |text: &str, scheme: &str| text.strip_prefix(scheme).unwrap().parse().unwrap();
        let proxy = place(said["address"].as_str().unwrap(), "http://");
        let dial = place(
            session.json["dialTargets"]["plugin"].as_str().unwrap(),
            "tcp://",
        );
        Self {
            world,
            session,
            client,
            target,
            proxy,
            dial,
            _tasks: tasks,
        }
    }

    /// One of each, with an answer on it.
    async fn open(&self) -> [TcpStream; 3] {
        let sample = "sluicegate_accept_streams_waiting ";
        self.world.gateway.metric_reaches(sample, 1.0).await;
        let mut wire = Wire::dial(self.proxy).await;
        let target = &self.target;
        wire.send(format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"
        ))
        .await;
        assert_eq!(wire.head().await.status, 200);
        let mut streams = [
            TcpStream::connect(self.client.entry("echo")).await.unwrap(),
            TcpStream::connect(self.dial).await.unwrap(),
            wire.stream,
        ];
        for stream in &mut streams {
            // No TLS record, no request: a protocol of its own.
            said(stream, &[0xEE; 9]).await;
        }
        streams
    }

    async fn act(&self, action: &str) {
        let arguments = ["session", action, self.session.id()];
        self.world.gateway.cli(&arguments).await.succeeded();
    }
}

/// By satellite, or from the other side of the world.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_carried_over_a_round_trip_of_600_ms() {
    let each = ["quic", "h2", "h1", "auto"].map(async |transport| {
        let (three, _link) = Three::far(transport, Duration::from_millis(300)).await;
        // The second time by a gateway that knows how far away it is.
        for _ in 0..2 {
            for mut stream in three.open().await {
                said(&mut stream, b"and again").await;
            }
        }
    });
    let [quic, h2, h1, auto] = each;
    tokio::join!(quic, h2, h1, auto);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_withdrawn_ends_on_every_kind_of_stream_over_each_transport() {
    let each = TRANSPORTS.map(async |transport| {
        let three = Three::over(transport).await;
        for (action, reason) in [("pause", "session_paused"), ("reset", "session_revoked")] {
            let streams = three.open().await;
            three.act(action).await;
            for mut stream in streams {
                let end = within("the cut", stream.read(&mut [0])).await;
                assert!(end.is_err(), "{transport} {action}: {end:?}");
            }
            for kind in ["connect-tcp", "listener"] {
                let front = if transport == "quic" && kind == "connect-tcp" {
                    "quic"
                } else {
                    kind
                };
                let cut = |record: &Record| {
                    record.text("front") == front
                        && record.text("outcome") == "cut"
                        && record.text("reason") == reason
                };
                three.world.gateway.record("a cut", cut).await;
            }
            if action == "pause" {
                three.act("resume").await;
                let back = || {
                    let said = three.client.process.said();
                    let mut states = said.lines().rev().filter_map(|line| {
                        let event: Value = serde_json::from_str(line).ok()?;
                        let state = event["event"].as_str()?.to_owned();
                        ["connected", "unauthorized", "reconnecting"]
                            .contains(&&*state)
                            .then_some(state)
                    });
                    (states.next()? == "connected").then_some(())
                };
                until("the connection", back).await;
            }
        }
    });
    let [quic, h2, h1] = each;
    tokio::join!(quic, h2, h1);
}

/// What an operator changes reaches what is open within this.
const AT_ONCE: Duration = Duration::from_secs(1);

impl Three {
    /// PATCH of the session, as a control plane does it.
    async fn patch(&self, change: Value) {
        let path = format!("/runtime/providers/test/sessions/{}", self.session.id());
        let change = change.to_string();
        let answer = self.world.gateway.admin("PATCH", &path, &change).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }

    /// Each ends in a reset, and soon.
    async fn are_cut(streams: [TcpStream; 3], what: &str) {
        let cuts = async {
            for mut stream in streams {
                let end = within("the cut", stream.read(&mut [0])).await;
                assert!(end.is_err(), "{what}: {end:?}");
            }
        };
        let ((), took) = timed(cuts).await;
        assert!(took < AT_ONCE, "{what}: cut after {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_policy_cuts_what_it_takes_away_and_nothing_else() {
    for transport in TRANSPORTS {
        let three = Three::over(transport).await;
        let [mut service, mut listener, mut egress] = three.open().await;
        // One after the other is taken away; what is left notices nothing.
        for (taken, change) in [
            ("egress", serde_json::json!({"allow": []})),
            ("expose", serde_json::json!({"expose": {}})),
            ("services", serde_json::json!({"services": {}})),
        ] {
            three.patch(change).await;
            let cut = match taken {
                "egress" => &mut egress,
                "expose" => &mut listener,
                _ => &mut service,
            };
            let (end, took) = timed(within("the cut", cut.read(&mut [0]))).await;
            assert!(end.is_err(), "{transport} {taken}: {end:?}");
            assert!(took < AT_ONCE, "{transport} {taken}: cut after {took:?}");
            if taken == "egress" {
                said(&mut listener, b"still here").await;
            }
            if taken != "services" {
                said(&mut service, b"and here").await;
            }
        }
        let cuts = || {
            let records = three.world.gateway.records();
            // Accept streams that wait are refused for the same reason.
            let cut = |record: &&Record| {
                record.text("outcome") == "cut" && record.text("reason") == "policy_changed"
            };
            (records.iter().filter(cut).count() == 3).then_some(())
        };
        until("three records of cuts", cuts).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_is_spent_cuts_every_kind_of_stream() {
    for transport in TRANSPORTS {
        let three = Three::over(transport).await;
        let mut streams = three.open().await;
        // Less than has passed already: the next byte of each is one too many.
        three
            .patch(serde_json::json!({"limits": {"bytes": 1}}))
            .await;
        for stream in &mut streams {
            stream.write_all(b"x").await.unwrap();
        }
        Three::are_cut(streams, transport).await;
        let cuts = || {
            let records = three.world.gateway.records();
            let cut = |record: &&Record| {
                record.text("outcome") == "cut" && record.text("reason") == "byte_quota"
            };
            (records.iter().filter(cut).count() == 3).then_some(())
        };
        until("three records of cuts", cuts).await;
    }
}

/// A key in this file; its thumbprint.
async fn made(key: &Path) -> String {
    let program = Program::new(binary("sluicegate-relay"));
    let made = program.args(["key", "--key", key.to_str().unwrap()]).run();
    made.await.succeeded().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_bound_to_a_key_is_of_use_to_its_holder_alone() {
    let keys = tempfile::tempdir().unwrap();
    let (ours, theirs) = (keys.path().join("ours.pem"), keys.path().join("theirs.pem"));
    let thumbprint = made(&ours).await;
    assert_eq!(made(&ours).await, thumbprint, "it is made once");
    assert_ne!(made(&theirs).await, thumbprint);
    let (ours, theirs) = (ours.to_str().unwrap(), theirs.to_str().unwrap());
    for transport in TRANSPORTS {
        let create = ["--client-key", &thumbprint];
        let three = Three::asking(transport, &create, &["--key", ours]).await;
        assert_eq!(three.session.json["clientKey"], thumbprint);
        drop(three.open().await);
        for (what, key) in [("no key", None), ("another key", Some(theirs))] {
            let mut more = vec!["--transport", transport];
            more.extend(key.map(|key| ["--key", key]).into_iter().flatten());
            let listen = [RelayClient::tcp("echo")];
            let thief = RelayClient::up_with(&three.session, &more, &listen).await;
            let told = thief.event("unauthorized").await;
            let reason = told["reason"].as_str().unwrap();
            // The gateway says what it says to anybody; the client knows its own token.
            assert!(
                reason.contains("credential_invalid") && reason.contains(&thumbprint),
                "{transport} {what}: {reason}"
            );
            let refused = async {
                // The reset may come before the connection is ours.
                let mut stream = TcpStream::connect(thief.entry("echo")).await?;
                stream.read(&mut [0]).await
            };
            let end = within("a refusal", refused).await;
            assert!(end.is_err(), "{transport} {what}: {end:?}");
        }
        let gateway = &three.world.gateway;
        let told = gateway.record("what the operator is told", |record| {
            record.text("reason") == "key_not_proved" && record.mentions("echo")
        });
        assert_eq!(told.await.text("outcome"), "refused", "{transport}");
        let front = if transport == "quic" {
            "quic"
        } else {
            "connect_tcp"
        };
        let sample = format!(
            "sluicegate_ended_total{{kind=\"stream\",front=\"{front}\",outcome=\"refused\",reason=\"key_not_proved\"}} "
        );
        gateway.metric_reaches(&sample, 2.0).await;
        // Where no key can be proved, the answer is that to rubbish, whatever it is for.
        let port = three.world.gateway.ports.plain;
        let answer = async |token: &str| {
            let credential = format!("Authorization: Bearer {token}\r\n");
            let reply = web::request(port, "POST", "/relay/v1/token", &credential, "").await;
            let (status, mut told) = (reply.status(), reply.json());
            told["requestId"] = "".into();
            (status, told)
        };
        let stolen = three.session.variable("SLUICEGATE_RELAY_TOKEN");
        assert_eq!(answer(stolen).await, answer("x.y.z").await);
        let mut wire = Wire::dial(port).await;
        let (token, target) = (
            three.session.variable("SLUICEGATE_PROXY_TOKEN"),
            &three.target,
        );
        wire.send(format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Bearer {token}\r\n\r\n"
        ))
        .await;
        assert_eq!(wire.head().await.status, 407);
    }
}
