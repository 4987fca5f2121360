//! More streams than one connection has room for: idle ones, ones that stand still, bulk, and what goes on beside them.
//!
//! Programs and services are at unix sockets, of which there are as many as descriptors.

mod bulk;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::gateway::LOOPBACK_PROVIDER;
use e2e::relay::TRANSPORTS;
use e2e::tasks::until_told;
use e2e::{Ask, RelayClient, Session, Settings, Tasks, Wire, World, web, within};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{MutexGuard, Semaphore};
use tokio::task::JoinSet;

/// The first byte of a stream: what comes after it comes back.
const ECHO: u8 = b'e';
/// The first byte of a stream: nothing more is read.
const FREEZE: u8 = b'z';
/// The first byte of a stream: bytes come without end.
const FLOOD: u8 = b'f';

/// Streams that a client opens on its first two connections: on QUIC the first has fewer, with larger windows.
const ROOM: [(&str, usize); 2] = [("quic", 48 + 96), ("h2", 2 * 96)];
/// Descriptors that are asked for.
const MANY: u64 = 1 << 16;
/// How long a thousand streams a second are opened.
const SECONDS: usize = 60;
/// A stream that takes longer is lost, on any machine.
const LOST: Duration = Duration::from_secs(120);

/// A session whose client does everything a client can do.
struct Stage {
    world: World,
    session: Session,
    client: RelayClient,
    /// Where programs find the service whose streams are many …
    told: PathBuf,
    /// … and the same under another name.
    other: PathBuf,
    /// Where the host dials what the sandbox exposes.
    plugin: PathBuf,
    proxy: SocketAddr,
    target: String,
    status: SocketAddr,
    /// Blocks that went into streams which stand still, at either end.
    moved: Arc<AtomicUsize>,
    tasks: Tasks,
    _alone: MutexGuard<'static, ()>,
}

/// Each of these takes most of the descriptors that a process may have.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

impl Stage {
    async fn start(transport: &str, limits: &str) -> Self {
        let alone = ALONE.lock().await;
        descriptors();
        let tasks = Tasks::default();
        let settings = Settings {
            limits: limits.to_owned(),
            runtime: format!("{LOOPBACK_PROVIDER}      session: {{tokenTtl: 10s}}\n"),
            ..Settings::default()
        };
        let world = World::with(settings).await;
        let path = world.root().join("service.sock");
        let moved = Arc::new(AtomicUsize::new(0));
        tasks.spawn(service(UnixListener::bind(&path).unwrap(), moved.clone()));
        let outside = TcpListener::bind("127.0.0.1:0").await.unwrap();
        world.dns.point("raw.allowed.test");
        let port = outside.local_addr().unwrap().port();
        let target = format!("raw.allowed.test:{port}");
        tasks.spawn(echo(outside));

        let (told, other) = (
            format!("told=unix://{}", path.display()),
            format!("other=unix://{}", path.display()),
        );
        let ask = Ask {
            allow: &[&target],
            services: &[&told, &other],
            more: &["--expose", "plugin=unix"],
        };
        let session = world.session_for(ask).await;
        let expose = format!("plugin=unix://{}", path.display());
        let more = ["--transport", transport, "--expose", &expose];
        let places = ["--proxy", "127.0.0.1:0", "--status", "127.0.0.1:0"];
        let listen = ["told", "other"].map(|name| RelayClient::unix(&session, name));
        let client = RelayClient::up_with(&session, &[more, places].concat(), &listen).await;
        client.event("connected").await;
        let plugin = session.json["dialTargets"]["plugin"].as_str().unwrap();
        let plugin = plugin.strip_prefix("unix://").unwrap().into();
        let (proxy, status) = (
            place(&client, "proxy").await,
            place(&client, "status").await,
        );
        Self {
            told: RelayClient::socket(&session, "told"),
            other: RelayClient::socket(&session, "other"),
            world,
            session,
            client,
            plugin,
            proxy,
            target,
            status,
            moved,
            tasks,
            _alone: alone,
        }
    }

    /// So many streams, each of which has answered.
    async fn crowd(&self, count: usize) -> Vec<Wire<UnixStream>> {
        let mut open = Vec::with_capacity(count);
        while open.len() < count {
            let mut opening = JoinSet::new();
            for _ in 0..(count - open.len()).min(32) {
                let told = self.told.clone();
                opening.spawn(async move { echoing(&told).await });
            }
            while let Some(opened) = opening.join_next().await {
                open.push(opened.unwrap());
            }
        }
        open
    }

    /// What the client says of itself.
    async fn says(&self) -> Value {
        web::fetch(self.status, "/status").await.json()
    }

    /// The answer to a CONNECT, and what comes after it.
    async fn way_out(&self) -> (u16, Wire) {
        let mut wire = Wire::dial(self.proxy).await;
        let target = &self.target;
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        wire.send(head).await;
        (wire.head().await.status, wire)
    }

    /// Another service, the way out, dials of the host and a fresh token: all of it as if there were nothing else.
    async fn others_go_on(&self) {
        echoing(&self.other).await;
        let (status, mut out) = self.way_out().await;
        assert_eq!(status, 200);
        said(&mut out).await;
        // More of them than accept streams wait.
        for _ in 0..4 {
            echoing(&self.plugin).await;
        }
        let before = self.says().await["tokenRefreshes"].as_u64();
        let refreshed =
            async || (self.says().await["tokenRefreshes"].as_u64() > before).then_some(());
        until_told("a fresh token", refreshed).await;
        assert_eq!(self.says().await["state"], "connected");
    }

    /// Until no more goes into what nobody reads, though what is read goes there and back by the same way.
    async fn stands_still(&self, read: &mut Wire<UnixStream>) {
        let still = async {
            let mut before = usize::MAX;
            loop {
                let now = self.moved.load(Ordering::Relaxed);
                if now == before {
                    return;
                }
                before = now;
                for _ in 0..200 {
                    said(read).await;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(120), still)
            .await
            .expect("windows end");
    }
}

/// More idle streams of one service than an HTTP/2 connection of the gateway's takes, and nobody else notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_streams_of_one_service_take_nothing_of_anybody_else() {
    for transport in TRANSPORTS {
        let stage = Stage::start(transport, "").await;
        assert_eq!(stage.says().await["connections"], 1, "{transport}");
        let idle = stage.crowd(1_100).await;
        stage.others_go_on().await;
        let told = stage.says().await;
        assert!(told["connections"].as_u64() >= Some(12), "{told}");
        assert_eq!(told["streams"]["failed"], 0, "{told}");
        for mut stream in idle {
            said(&mut stream).await;
        }
    }
}

/// Far more than fill one connection's window, both ways.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_still_takes_the_window_of_nobody_else() {
    for transport in ["quic", "h2"] {
        let stage = Stage::start(transport, "").await;
        let mut warm = echoing(&stage.other).await;
        let mut frozen = Vec::new();
        for _ in 0..200 {
            frozen.push(dial(&stage.told, FLOOD).await);
            let (told, moved) = (stage.told.clone(), stage.moved.clone());
            stage.tasks.spawn(async move {
                let mut full = dial(&told, FREEZE).await;
                let block = vec![7; 16 * 1024];
                while full.stream.write_all(&block).await.is_ok() {
                    moved.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        stage.stands_still(&mut warm).await;
        said(&mut warm).await;
        stage.others_go_on().await;
        said(&mut warm).await;
    }
}

/// One connection more than a session may have: what finds no room is told so, and what has room notices nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_has_so_many_connections_and_no_more() {
    for (transport, room) in ROOM {
        let stage = Stage::start(transport, "  relayConnections: 2\n").await;
        let mut idle = stage.crowd(room).await;
        let refused = stage.world.gateway.record("a refusal", |record| {
            record.text("reason") == "too_many_connections"
        });
        assert_eq!(refused.await.text("outcome"), "refused");

        let mut over = dial(&stage.other, ECHO).await;
        over.send(b"?").await;
        assert_eq!(over.rest().await.0, b"", "{transport}: there was room");
        assert_eq!(stage.way_out().await.0, 503, "{transport}");
        let told = stage.says().await;
        let why = told["noMoreConnections"].as_str().unwrap_or_default();
        assert!(why.contains("too_many_connections"), "{told}");
        assert_eq!(told["state"], "connected", "{told}");
        // Another client of the session is told, and the host is served by those that are there.
        let listen = [RelayClient::tcp("told")];
        let another = RelayClient::up_over(&stage.session, transport, &listen).await;
        let said_no = another.event("unauthorized").await;
        let reason = said_no["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("too_many_connections"), "{said_no}");
        drop(another);
        echoing(&stage.plugin).await;
        for stream in &mut idle {
            said(stream).await;
        }

        drop(idle);
        stage.others_go_on().await;
        assert_eq!(stage.client.connections(), [transport], "it reconnected");
    }
}

/// The place of a connection that goes is whose asks for it next: programs wait for it, and are not refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_waits_for_the_place_of_a_connection_that_goes() {
    // Over QUIC a kill is noticed by silence alone.
    let stage = Stage::start("h2", "  relayConnections: 1\n").await;
    let listen = [RelayClient::tcp("told")];
    let another = RelayClient::up_over(&stage.session, "h2", &listen).await;
    another.event("unauthorized").await;
    let mut waiting = Wire::dial(another.entry("told")).await;
    waiting.send([ECHO]).await;
    let refused = stage.world.gateway.record("a refused open", |record| {
        record.text("reason") == "too_many_connections" && record.text("service") == "told"
    });
    assert_eq!(refused.await.text("outcome"), "refused");
    drop(stage.client);
    said(&mut waiting).await;
}

/// For a minute, beside as many as there may be of descriptors, up to ten thousand. None is lost, however long each takes. (The same over
/// HTTP/2, and how long: benches/relay.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_streams_and_a_thousand_opens_a_second() {
    // The program's end and the service's are here, both.
    let room = descriptors().saturating_sub(4_000) / 2;
    let count = usize::try_from(room).unwrap().min(10_000);
    let stage = Stage::start("quic", "  relayConnections: 128\n").await;
    let idle = stage.crowd(count).await;
    let (opens, whole) = (Tasks::default(), Arc::new(AtomicUsize::new(0)));
    let lost = Arc::new(Mutex::new(Vec::new()));
    // A machine that is slower has as many under way, and takes longer.
    let places = Arc::new(Semaphore::new(256));
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    for _ in 0..SECONDS * 100 {
        tick.tick().await;
        for _ in 0..10 {
            let place = places.clone().acquire_owned().await.unwrap();
            let other = stage.other.clone();
            let (whole, lost) = (whole.clone(), lost.clone());
            opens.spawn(async move {
                let ended = tokio::time::timeout(LOST, there_and_back(&other)).await;
                match ended.unwrap_or_else(|late| Err(late.into())) {
                    Ok(()) => {
                        whole.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => lost.lock().unwrap().push(error.to_string()),
                }
                drop(place);
            });
        }
    }
    opens.finish().await;
    let lost = std::mem::take(&mut *lost.lock().unwrap());
    assert_eq!(lost, [""; 0], "of {}", SECONDS * 1_000);
    assert_eq!(whole.load(Ordering::Relaxed), SECONDS * 1_000);
    stage.others_go_on().await;
    let told = stage.says().await;
    assert_eq!(told["streams"]["failed"], 0, "{told}");
    for mut stream in idle {
        said(&mut stream).await;
    }
}

/// Where the client has said that this is.
async fn place(client: &RelayClient, what: &str) -> SocketAddr {
    let event = client.event(what).await;
    let address = event["address"].as_str().unwrap();
    address.strip_prefix("http://").unwrap().parse().unwrap()
}

async fn dial(path: &Path, first: u8) -> Wire<UnixStream> {
    let stream = within("a connection", UnixStream::connect(path)).await;
    let mut wire = Wire::over(stream.unwrap());
    wire.send([first]).await;
    wire
}

async fn echoing(path: &Path) -> Wire<UnixStream> {
    let mut wire = dial(path, ECHO).await;
    said(&mut wire).await;
    wire
}

/// One stream from its beginning to its end: all of it comes back, and nothing else.
async fn there_and_back(path: &Path) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(&[ECHO]).await?;
    stream.write_all(b"\0efore").await?;
    let mut heard = [0; 6];
    stream.read_exact(&mut heard).await?;
    stream.shutdown().await?;
    let beyond = stream.read(&mut [0]).await?;
    if heard != *b"\0efore" || beyond > 0 {
        return Err(std::io::Error::other(format!("{heard:?}, and {beyond}")));
    }
    Ok(())
}

async fn said<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>) {
    // No line of a request could begin so: outside nobody waits for its end.
    wire.send(b"\0efore").await;
    assert_eq!(wire.take(6).await, b"\0efore");
}

/// As many descriptors as there may be, for this process and those it starts; how many that is.
fn descriptors() -> u64 {
    let now = getrlimit(Resource::Nofile);
    // Root may have more than its hard limit.
    let more = Rlimit {
        current: Some(MANY),
        maximum: now.maximum.map(|most| most.max(MANY)),
    };
    if setrlimit(Resource::Nofile, more).is_err() {
        let all = Rlimit {
            current: now.maximum,
            ..now
        };
        setrlimit(Resource::Nofile, all).unwrap();
    }
    getrlimit(Resource::Nofile).current.unwrap_or(MANY)
}

async fn service(listener: UnixListener, moved: Arc<AtomicUsize>) {
    let each = Tasks::default();
    while let Ok((stream, _)) = listener.accept().await {
        let moved = moved.clone();
        each.spawn(async move {
            // A stream that is reset ends it.
            let _ = serve(stream, &moved).await;
        });
    }
}

async fn serve(mut stream: UnixStream, moved: &AtomicUsize) -> std::io::Result<()> {
    match stream.read_u8().await? {
        ECHO => back(stream).await,
        FLOOD => loop {
            stream.write_all(&[FLOOD; 4 * 1024]).await?;
            moved.fetch_add(1, Ordering::Relaxed);
        },
        _ => std::future::pending().await,
    }
}

/// What is outside, where the proxy leads.
async fn echo(listener: TcpListener) {
    let each = Tasks::default();
    while let Ok((stream, _)) = listener.accept().await {
        each.spawn(async move {
            let _ = back(stream).await;
        });
    }
}

/// Small enough for ten thousand of them.
async fn back(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut chunk = [0; 64];
    loop {
        let count = stream.read(&mut chunk).await?;
        if count == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&chunk[..count]).await?;
    }
}
