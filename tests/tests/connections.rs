//! How many connections there may be, and what each may cost while its client is slow.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::net::SocketAddr;
use std::time::Duration;

use e2e::ca::client_showing;
use e2e::raw::End;
use e2e::tasks::{PATIENCE, free_port, timed};
use e2e::{Ask, Ca, Gateway, RawOrigin, RelayClient, Session, Settings, Wire, World, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;

fn settings(limits: &str) -> Settings {
    // Nothing but the limit under test ends a silent connection.
    let limits = format!("  headTimeout: 10m\n  firstBytesTimeout: 10m\n{limits}");
    Settings {
        limits,
        // The gateway's own connections to itself would take places.
        more: "probe: {interval: 0}\n".to_owned(),
        ..Settings::default()
    }
}

/// Waits until `sample` of the metrics is what `wanted` says.
async fn metric(gateway: &Gateway, sample: &str, wanted: impl Fn(f64) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    loop {
        let value = gateway.metric(sample).await;
        if wanted(value) {
            return;
        }
        assert!(Instant::now() < deadline, "{sample} is {value}");
        tick.tick().await;
    }
}

/// Waits until the session is served again: a connection that finds no place is reset, request or not.
async fn served(session: &Session, target: &str) {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let serve = async {
        loop {
            let connected = TcpStream::connect(session.proxy_address()).await;
            let mut start = [0; 12];
            let head = session.connect_head(target);
            if let Ok(mut stream) = connected
                && stream.write_all(head.as_bytes()).await.is_ok()
                && stream.read_exact(&mut start).await.is_ok()
            {
                assert_eq!(&start, b"HTTP/1.1 200");
                return;
            }
            tick.tick().await;
        }
    };
    within("a place", serve).await;
}

#[tokio::test]
async fn one_connection_too_many_is_reset_and_the_next_place_is_used() {
    let world = World::with(settings("  connections: 4\n")).await;
    let (session, plain) = (world.session().await, world.gateway.ports.plain);
    let open = "sluicegate_connections{listener=\"plain\",transport=\"tcp\"}";
    let over = "sluicegate_connections_over_limit_total{listener=\"plain\",limit=\"all\"}";
    let mut crowd = Vec::new();
    for _ in 0..4 {
        crowd.push(Wire::dial(plain).await);
    }
    metric(&world.gateway, open, |open| open == 4.0).await;
    for count in 1..=3 {
        reset_at_once(TcpStream::connect(plain).await).await;
        metric(&world.gateway, over, |over| over >= f64::from(count)).await;
    }
    // The limit is on all listeners together; operators have places of their own.
    reset_at_once(TcpStream::connect(world.gateway.ports.public).await).await;
    assert_eq!(world.gateway.management("/readyz").await.status(), 200);
    drop(crowd.pop());
    served(&session, &world.api()).await;
    for mut wire in crowd {
        wire.stays_quiet().await;
    }
}

/// The connection was taken and reset: maybe before we knew that it was taken.
async fn reset_at_once(connected: std::io::Result<TcpStream>) {
    match connected {
        Ok(stream) => assert_eq!(Wire::over(stream).rest().await, (Vec::new(), End::Reset)),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}

/// A connection to `to` from another loopback address.
async fn dial_from(source: &str, to: SocketAddr) -> Wire {
    Wire::over(connect_from(source, to).await.unwrap())
}

async fn connect_from(source: &str, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind(SocketAddr::new(source.parse().unwrap(), 0))
        .unwrap();
    socket.connect(to).await
}

#[tokio::test]
async fn one_source_has_its_own_number_of_connections() {
    let world = World::with(settings("  connectionsPerSource: 2\n")).await;
    let (session, plain) = (world.session().await, world.gateway.ports.plain);
    let open = "sluicegate_connections{listener=\"plain\",transport=\"tcp\"}";
    let over = "sluicegate_connections_over_limit_total{listener=\"plain\",limit=\"source\"}";
    let crowd = [
        dial_from("127.0.0.2", plain).await,
        dial_from("127.0.0.2", plain).await,
    ];
    metric(&world.gateway, open, |open| open == 2.0).await;
    reset_at_once(connect_from("127.0.0.2", plain).await).await;
    metric(&world.gateway, over, |over| over == 1.0).await;
    // Others notice nothing.
    let mut kept = session.tunnel(&world.api()).await;
    kept.stays_quiet().await;
    drop(kept);
    drop(crowd);
    metric(&world.gateway, open, |open| open == 0.0).await;
    let mut again = dial_from("127.0.0.2", plain).await;
    again.stays_quiet().await;
}

/// On the private listener.
#[tokio::test]
async fn hosts_have_places_of_their_own_and_none_has_them_all() {
    let (ca, files) = (Ca::create(), tempfile::tempdir().unwrap());
    let client_ca = files.path().join("hosts.pem");
    std::fs::write(&client_ca, ca.pem()).unwrap();
    let private = SocketAddr::from(([127, 0, 0, 1], free_port().await));
    let world = World::with(Settings {
        listeners: format!(
            "  - {{kind: private, address: \"{private}\", clientCa: \"{}\"}}\n",
            client_ca.display()
        ),
        ..settings("  connections: 8\n")
    })
    .await;
    let api = world.api();
    let session = world
        .session_for(Ask {
            allow: &[&api],
            more: &["--expose", "web=tls"],
            ..Ask::default()
        })
        .await;
    let web = RawOrigin::start().await;
    let _client = RelayClient::exposing(&session, &[format!("web=tcp://{}", web.address)]).await;
    let waiting = "sluicegate_accept_streams_waiting ";
    metric(&world.gateway, waiting, |waiting| waiting >= 1.0).await;
    let target = session.json["dialTargets"]["web"].as_str().unwrap();
    let (name, _) = target
        .strip_prefix("tls://")
        .unwrap()
        .rsplit_once(':')
        .unwrap();
    let bundle = std::fs::read_to_string(session.bundle()).unwrap();
    let tls = client_showing(&ca.issue_host("host"), &bundle);
    let carried = async |source: &str| {
        let dial = dial_from(source, private).await;
        (dial.tls(tls.clone(), name).await, web.accept().await)
    };
    let over = |limit: &str| {
        format!("sluicegate_connections_over_limit_total{{listener=\"private\",limit=\"{limit}\"}}")
    };

    let mut one = Vec::new();
    for _ in 0..6 {
        one.push(carried("127.0.0.1").await);
    }
    reset_at_once(connect_from("127.0.0.1", private).await).await;
    metric(&world.gateway, &over("source"), |over| over == 1.0).await;
    let _others = [carried("127.0.0.2").await, carried("127.0.0.2").await];
    reset_at_once(connect_from("127.0.0.3", private).await).await;
    metric(&world.gateway, &over("all"), |over| over == 1.0).await;
    // Of sandboxes' places they take none.
    drop(session.tunnel(&api).await);
    drop(one.pop());
    let open = "sluicegate_connections{listener=\"private\",transport=\"tcp\"}";
    metric(&world.gateway, open, |open| open == 7.0).await;
    drop(carried("127.0.0.3").await);
}

#[tokio::test]
async fn opens_under_way_are_bounded_for_each_session_by_itself() {
    let world = World::with(settings("  pendingOpens: 2\n  dialTimeout: 10m\n")).await;
    // It accepts, and never says a word of TLS.
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("db=tls://{}", silent.local_addr().unwrap());
    let api = world.api();
    let session = world
        .session_for(Ask {
            allow: &[&api],
            services: &[&url],
            ..Ask::default()
        })
        .await;
    let other = world.session().await;
    let client = RelayClient::up_over(&session, "h2", &[RelayClient::tcp("db")]).await;
    let entry = client.entry("db");
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        near.push(Wire::dial(entry).await);
        far.push(within("a dial", silent.accept()).await.unwrap());
    }
    let pending = "sluicegate_opens_pending";
    metric(&world.gateway, pending, |pending| pending == 2.0).await;

    let (head, _) = session.connect(&api).await;
    assert_eq!(head.status, 429, "{head:?}");
    let mut third = Wire::dial(entry).await;
    assert_ne!(third.rest().await.1, End::Fin);
    for kind in ["tunnel", "stream"] {
        let refused = world.gateway.record("a refusal", |record| {
            record.text("kind") == kind && record.text("reason") == "too_many_pending"
        });
        assert_eq!(refused.await.text("outcome"), "refused");
    }
    // Nobody else notices.
    drop(other.tunnel(&api).await);

    // A dial that has ended, however, makes room.
    drop(far);
    metric(&world.gateway, pending, |pending| pending == 0.0).await;
    drop(session.tunnel(&api).await);
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_held_no_longer_than_a_head_may_take() {
    let world = World::with(Settings {
        limits: "  headTimeout: 1s\n".to_owned(),
        ..Settings::default()
    })
    .await;
    let session = world.session().await;
    let ports = &world.gateway.ports;
    let (preface, settings) = (
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        [0, 0, 0, 4, 0, 0, 0, 0, 0],
    );
    let whole = [preface.as_bytes(), &settings].concat();
    // A head that does not end is none.
    let half = [&whole[..], &[0, 0, 9, 1, 1, 0, 0, 0, 1, 0x82]].concat();
    let mut quic = e2e::Http3::connect(&world, &session).await;
    let mut held = Vec::new();
    for bytes in [b"", preface.as_bytes(), &whole, &half] {
        let tls = session.gateway_tls(&[b"h2"]);
        let mut secure = Wire::dial(ports.public).await.tls(tls, "127.0.0.1").await;
        secure.send(bytes).await;
        let mut plain = Wire::dial(ports.plain).await;
        plain.send(bytes).await;
        held.push((bytes.len(), secure, plain));
    }
    for (length, mut secure, mut plain) in held {
        // Well before the time that heads have where nothing is set.
        let took = secure.cut().await + plain.cut().await;
        assert!(took < Duration::from_secs(6), "{length} bytes: {took:?}");
    }
    let (_, took) = timed(quic.closed()).await;
    assert!(took < Duration::from_secs(6), "{took:?}");
}

/// Resident memory of the gateway, in bytes.
fn resident(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.process.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// Resident memory once it no longer grows: what is under way has stopped at a full buffer by then.
async fn settled(gateway: &Gateway) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let (mut most, mut quiet) = (0, 0);
    while quiet < 10 && Instant::now() < deadline {
        tick.tick().await;
        let now = resident(gateway);
        quiet = if now > most { 0 } else { quiet + 1 };
        most = most.max(now);
    }
    most
}

/// What each of `count` connections costs the gateway in memory once all of them are held, in bytes.
async fn cost(
    gateway: &Gateway,
    listener: &str,
    count: u32,
    open: impl AsyncFn() -> TcpStream,
) -> u64 {
    let before = resident(gateway);
    let mut crowd = Vec::new();
    for _ in 0..count {
        crowd.push(open().await);
    }
    let sample = format!("sluicegate_connections{{listener=\"{listener}\",transport=\"tcp\"}}");
    metric(gateway, &sample, |open| open >= f64::from(count)).await;
    let each = settled(gateway).await.saturating_sub(before) / u64::from(count);
    eprintln!("{listener}: {each} bytes for each of {count}");
    each
}

async fn one_byte(to: SocketAddr, byte: u8) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(&[byte]).await.unwrap();
    stream
}

/// The bounds of docs/performance.md.
const ONE_BYTE: u64 = 64 * 1024;
const UNREAD: u64 = 2 * 1024 * 1024;

#[tokio::test]
async fn a_client_that_sends_one_byte_costs_little_memory() {
    let world = World::with(settings("")).await;
    let gateway = &world.gateway;
    let (plain, public) = (gateway.ports.plain, gateway.ports.public);
    let head = cost(gateway, "plain", 500, || one_byte(plain, b'G')).await;
    let hello = cost(gateway, "public", 500, || one_byte(public, 22)).await;
    assert!(head <= ONE_BYTE, "a byte of a head: {head}");
    assert!(hello <= ONE_BYTE, "a byte of a ClientHello: {hello}");
}

#[tokio::test]
async fn a_client_that_reads_nothing_costs_a_bounded_amount_of_memory() {
    let world = World::with(settings("")).await;
    let (session, target) = (world.session().await, world.plain());
    let line = format!("GET http://{target}/download?bytes=67108864");
    let forward = cost(&world.gateway, "plain", 60, async || {
        let mut wire = session.dial().await;
        session
            .ask(&mut wire, &line, &format!("Host: {target}\r\n"))
            .await;
        assert_eq!(wire.head().await.status, 200);
        wire.stream
    })
    .await;
    assert!(forward <= UNREAD, "an answer nobody reads: {forward}");
}
