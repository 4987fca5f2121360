//! What tunnels and relay streams cost, counted and not timed: allocations of a tunnel on its way from CONNECT to close, and the
//! bytes that each holds while it is idle. A figure that rises here is a figure that rises on every machine.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Barrier},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use allocation_counter::{AllocationInfo, measure};
use rustls::{ClientConfig, ClientConnection, StreamOwned, client::Resumption};
use sluicegate::{
    app::{App, Options},
    config::{Config, StateDir},
    drain::Drain,
    front::{self, Current, Entry},
    listen::{Accepted, Downstream, Places, ResetKey, UdpListener, accept_quic},
    session::CreateRequest,
};
use sluicegate_certs::{Authority, ServerIdentity, TrustBundle, tls};
use sluicegate_relay::{
    flow::{Ahead, Early, Flow, FlowIo},
    transport::{Endpoint, H2Connection, QuicConnection},
};
use sluicegate_relay_protocol::{ALPN_RELAY, Handshake};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Runtime,
    sync::oneshot,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

/// Bytes an idle tunnel may hold; whatever is needed for a while only is gone by then.
const IDLE: i64 = 3200;
/// Allocations of one tunnel: those of its task's runtime and of the kernel's poller included.
const ALLOCATIONS: u64 = 22;
/// Bytes an idle tunnel through TLS may hold, of which 4 KiB are rustls' buffer for reading. What its cryptography has is not
/// counted: it is the C library's.
const TLS: i64 = 12 * 1024;
/// Bytes an idle tunnel may hold in which plain HTTP is judged, with the connection to the origin that waits for the next request: two connections of
/// hyper's, of which each has 8 KiB to read into and 8 to write from; nothing of what a request needs while it is answered.
const JUDGED: i64 = 74 * 1024;
/// Bytes an idle tunnel may hold that began as a request in absolute-form and a 101 (WebSocket): no buffer of the HTTP before.
const UPGRADED: i64 = 12 * 1024;
/// Bytes an idle relay stream may hold here, the connection that carries it not counted.
const STREAM: i64 = 3456;
/// The same over QUIC.
const QUIC_STREAM: i64 = 3648;
/// Allocations of a relay stream from its request to its first echo.
const STREAM_ALLOCATIONS: u64 = 40;

/// Bytes are carried unseen.
const OPAQUE: &str = "rules: [{host: 'ORIGIN', tls: opaque}]";
/// What is said in a tunnel is judged, as where nobody says anything of it.
const DEFAULT: &str = "";

struct Bench {
    runtime: Runtime,
    current: Arc<Current>,
    credential: String,
    token: String,
    origin: SocketAddr,
    door: TcpListener,
    app: App,
    _directory: tempfile::TempDir,
}

impl Bench {
    /// A gateway that listens nowhere for this test: connections are given to it one by one, on this thread.
    fn new(origin: SocketAddr, rules: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let rules = rules.replace("ORIGIN", &origin.to_string());
        let source = format!(
            "
listeners:
  - {{kind: plain, address: '127.0.0.1:0'}}
  - {{kind: management, address: '127.0.0.1:0'}}
telemetry: {{accessLog: {}/access.jsonl}}
egress:
  allowedHosts: ['{origin}']
  {rules}
",
            directory.path().display()
        );
        let (config, _) = Config::parse(&source).unwrap_or_else(|_| panic!("a configuration"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (app, credential, token) = runtime.block_on(async {
            let app = App::build(Options {
                config,
                config_file: None,
                state_dir: StateDir::open(&directory.path().join("state")).unwrap(),
            })
            .await
            .unwrap();
            let request = format!(r#"{{"services": {{"echo": "tcp://{origin}"}}}}"#);
            let request = CreateRequest::read(&request).unwrap_or_else(|_| panic!("a request"));
            let registry = app.registry().clone();
            let issued = registry.create("local".into(), request).await.unwrap();
            let env = issued.bundle.unwrap().env;
            let said = |wanted| &env.iter().find(|(name, _)| *name == wanted).unwrap().1;
            let (_, rest) = said("HTTP_PROXY").split_once("//sluicegate:").unwrap();
            let credential = rest.split_once('@').unwrap().0.to_owned();
            (app, credential, said("SLUICEGATE_RELAY_TOKEN").clone())
        });
        Self {
            current: app.current(),
            runtime,
            credential,
            token,
            origin,
            door: TcpListener::bind("127.0.0.1:0").unwrap(),
            app,
            _directory: directory,
        }
    }

    /// One tunnel, one echo, from the accepted connection to its end: what this thread allocated until the tunnel was idle,
    /// and after that.
    fn tunnel(&self) -> (AllocationInfo, AllocationInfo) {
        let (door, origin) = (self.door.local_addr().unwrap(), self.origin);
        let credential = self.credential.clone();
        let (echoed, mut idle) = oneshot::channel();
        let looked = Arc::new(Barrier::new(2));
        let done = looked.clone();
        let client = thread::spawn(move || {
            let mut client = TcpStream::connect(door).unwrap();
            connect(&mut client, origin, &credential);
            echo_of(&mut client, 4);
            echoed.send(()).unwrap();
            done.wait();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        });
        let mut task = None;
        let opening = self.serve(None, &mut task, &mut idle);
        looked.wait();
        let closing = measure(|| {
            let mut tasks = task.take().unwrap();
            self.runtime.block_on(tasks.join_next()).unwrap().unwrap();
        });
        client.join().unwrap();
        (opening, closing)
    }

    /// What one connection holds when its client has done what it wanted, and is silent. `talk` gives what stays open meanwhile.
    fn held<T>(
        &self,
        tls: Option<&TlsAcceptor>,
        talk: impl FnOnce(TcpStream) -> T + Send + 'static,
    ) -> i64 {
        let door = self.door.local_addr().unwrap();
        let (silent, mut idle) = oneshot::channel();
        let looked = Arc::new(Barrier::new(2));
        let done = looked.clone();
        let client = thread::spawn(move || {
            let _open = talk(TcpStream::connect(door).unwrap());
            silent.send(()).unwrap();
            done.wait();
        });
        let mut task = None;
        let held = self.serve(tls, &mut task, &mut idle).bytes_current;
        looked.wait();
        client.join().unwrap();
        // To its end, so that nothing of it is let go while the next one is looked at.
        self.runtime.block_on(async {
            task.unwrap().join_next().await.unwrap().unwrap();
            others().await;
        });
        held
    }

    /// Serve the next connection on this thread until `idle`: what it allocated until then.
    fn serve(
        &self,
        tls: Option<&TlsAcceptor>,
        task: &mut Option<JoinSet<()>>,
        idle: &mut oneshot::Receiver<()>,
    ) -> AllocationInfo {
        let (accepted, peer) = self.door.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        measure(|| {
            self.runtime.block_on(async {
                let tcp = tokio::net::TcpStream::from_std(accepted).unwrap();
                let stream = match tls {
                    Some(tls) => {
                        let accepted = tls.accept(Ahead::from(tcp)).await;
                        Downstream::Tls(Box::new(accepted.unwrap()))
                    }
                    None => Downstream::Plain(tcp),
                };
                let secure = tls.is_some();
                let (accepted, entry) = (Accepted::new(stream, peer), Entry::Http { secure });
                let opening = Box::pin(front::serve(entry, accepted, self.current.clone()));
                let mut tasks = JoinSet::new();
                tasks.spawn(async move {
                    if let Some(carrying) = opening.await {
                        carrying.await;
                    }
                });
                (&mut *idle).await.unwrap();
                others().await;
                *task = Some(tasks);
            });
        })
    }

    /// So many relay streams on one connection, each with one echo behind it: what this thread allocated until all were idle.
    /// `connect` is the client's, on its own thread; `serve` counts on this one.
    fn streams<F: Future<Output = Connected>>(
        &self,
        count: usize,
        connect: impl FnOnce() -> F + Send + 'static,
        serve: impl FnOnce(&mut oneshot::Receiver<()>) -> AllocationInfo,
    ) -> AllocationInfo {
        let token = self.token.clone();
        let (mut idle, looked, client) = client(move || async move {
            let connection = connect().await;
            let mut open = Vec::new();
            for _ in 0..count {
                open.push(connection.echoed(&token).await);
            }
            (connection, open)
        });
        let opening = serve(&mut idle);
        looked.wait();
        client.join().unwrap();
        opening
    }

    fn streams_on_h2(&self, count: usize) -> AllocationInfo {
        let door = self.door.local_addr().unwrap();
        let connect = move || async move {
            let tcp = tokio::net::TcpStream::connect(door).await.unwrap();
            let gateway = Endpoint::parse(&format!("http://{door}")).unwrap();
            let connected = H2Connection::over(tcp, &gateway, &TaskTracker::new()).await;
            Connected::H2(connected.unwrap())
        };
        let mut task = None;
        self.streams(count, connect, |idle| self.serve(None, &mut task, idle))
    }

    fn streams_on_quic(&self, count: usize) -> AllocationInfo {
        let (identity, trust) = identity();
        let server = tls::quic_server(&identity, &[ALPN_RELAY]).unwrap();
        let config = tls::quic_client(&trust, &[ALPN_RELAY]).unwrap();
        let listener = self.runtime.block_on(async {
            let any = "127.0.0.1:0".parse().unwrap();
            let reset = ResetKey::new(&[7; ResetKey::LENGTH]);
            UdpListener::bind(any, server, &reset, 1024).unwrap()
        });
        let address = listener.address;
        let connect = move || async move {
            let gateway = Endpoint::parse(&format!("https://{address}")).unwrap();
            let tasks = TaskTracker::new();
            let connected = QuicConnection::connect_at(&gateway, [address], &config, &tasks).await;
            Connected::Quic(connected.unwrap())
        };
        // Tasks of one that is dropped are cut.
        let drain = Drain::default();
        let (accepting, serving) = (drain.watch(), drain.watch());
        let (places, telemetry) = (Places::new(1, None), self.app.telemetry().clone());
        let current = self.current.clone();
        self.streams(count, connect, |idle| {
            measure(|| {
                self.runtime.block_on(async {
                    let serve = move |shaken, _| {
                        front::quic::serve(shaken, current.clone(), serving.clone())
                    };
                    let accepted = accept_quic(listener, places, telemetry, accepting, serve);
                    drain.watch().spawn_service(accepted);
                    (&mut *idle).await.unwrap();
                    others().await;
                });
            })
        })
    }
}

/// A connection of the relay client's.
enum Connected {
    H2(H2Connection),
    Quic(QuicConnection),
}

impl Connected {
    /// A stream of it, after one echo.
    async fn echoed(&self, token: &str) -> FlowIo {
        let name = "echo".to_owned();
        let (service, mut nothing) = (Handshake::Service { name }, Early::nothing());
        match self {
            Self::H2(by) => echoed(by.open(&service, token, &mut nothing).await.unwrap()).await,
            Self::Quic(by) => echoed(by.open(&service, token, &mut nothing).await.unwrap()).await,
        }
    }
}

/// A client on a thread of its own: what it opens stays open, after it has told so, until it was looked at.
fn client<T, F: Future<Output = T>>(
    open: impl FnOnce() -> F + Send + 'static,
) -> (oneshot::Receiver<()>, Arc<Barrier>, JoinHandle<()>) {
    let (opened, idle) = oneshot::channel();
    let looked = Arc::new(Barrier::new(2));
    let done = looked.clone();
    let client = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let _open = open().await;
            opened.send(()).unwrap();
            done.wait();
        });
    });
    (idle, looked, client)
}

/// This stream, after one echo.
async fn echoed(stream: impl Flow + 'static) -> FlowIo {
    let mut stream = FlowIo::new(stream);
    let mut echo = [0; 4];
    stream.write_all(b"ping").await.unwrap();
    stream.flush().await.unwrap();
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"ping");
    stream
}

/// Whoever was woken has his turn.
async fn others() {
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
}

/// Sends back what comes, on threads of its own.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
    address
}

/// Answers requests with 200, and one that asks for an upgrade with 101; then it sends back what comes.
fn web() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            // Until its client goes, however that is.
            thread::spawn(move || drop(answer(stream)));
        }
    });
    address
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    while !head(&mut stream)?
        .to_ascii_lowercase()
        .contains("upgrade: websocket")
    {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
    }
    let switching =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(switching.as_bytes())?;
    io::copy(&mut stream.try_clone()?, &mut stream)?;
    Ok(())
}

/// A head, and nothing behind it.
fn head(stream: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    Ok(String::from_utf8(head).unwrap())
}

/// A tunnel, by CONNECT.
fn connect(stream: &mut (impl Read + Write), origin: SocketAddr, credential: &str) {
    let authority = format!("Proxy-Authorization: Bearer {credential}");
    // At once: what it costs to read a head in pieces is not what is counted.
    let asked = format!("CONNECT {origin} HTTP/1.1\r\nHost: {origin}\r\n{authority}\r\n\r\n");
    stream.write_all(asked.as_bytes()).unwrap();
    stream.flush().unwrap();
    assert!(head(stream).unwrap().starts_with("HTTP/1.1 200 "));
}

/// So many bytes there and back.
fn echo_of(stream: &mut (impl Read + Write), bytes: usize) {
    let mut left = bytes;
    while left > 0 {
        let piece = vec![7; left.min(64 * 1024)];
        stream.write_all(&piece).unwrap();
        stream.flush().unwrap();
        let mut echo = vec![0; piece.len()];
        stream.read_exact(&mut echo).unwrap();
        assert!(echo == piece);
        left -= piece.len();
    }
}

/// Who the gateway is, and what its clients trust.
fn identity() -> (ServerIdentity, TrustBundle) {
    let now = SystemTime::now();
    let authority = Authority::create("test", now).unwrap();
    let names = ["127.0.0.1".to_owned()];
    let identity = authority.issue_server(&names, Duration::from_secs(3600), now);
    let trust = TrustBundle::empty().with_pem(authority.certificate_pem().as_bytes());
    (ServerIdentity::new(identity.unwrap()), trust.unwrap())
}

/// Both ends of TLS. Each handshake is a full one.
fn secure() -> (TlsAcceptor, Arc<ClientConfig>) {
    let (identity, trust) = identity();
    let mut client = (*tls::client(&trust, &[b"http/1.1"], None).unwrap()).clone();
    client.resumption = Resumption::disabled();
    let server = tls::server(&identity, &[b"h2", b"http/1.1"]).unwrap();
    (TlsAcceptor::from(server), Arc::new(client))
}

#[test]
fn a_tunnel_allocates_so_often_holds_so_much_and_leaves_nothing() {
    let bench = Bench::new(echo(), OPAQUE);
    // The first ones fill what is kept for all: thread-local buffers, labels of metrics, and the buffers of records, of which one is
    // with the writer while the other is filled.
    for _ in 0..3 {
        bench.tunnel();
        bench.app.telemetry().access().flush();
    }
    let (opening, closing) = bench.tunnel();
    eprintln!("{opening:?}\n{closing:?}");
    let allocations = opening.count_total + closing.count_total;
    assert!(allocations <= ALLOCATIONS, "{allocations}");
    assert!(opening.bytes_current <= IDLE, "{opening:?}");
    let kept = opening.count_current + closing.count_current;
    // The connection itself was made before the count began, and goes with the tunnel.
    assert!(kept <= 0, "something is kept: {opening:?} {closing:?}");
}

#[test]
fn an_idle_relay_stream_holds_so_much() {
    let (held, allocations) = of_each(Bench::streams_on_h2);
    assert!(held <= STREAM, "{held}");
    assert!(allocations <= STREAM_ALLOCATIONS, "{allocations}");
}

#[test]
fn an_idle_relay_stream_on_quic_holds_so_much() {
    // How often it allocates is a matter of how many packets there are.
    let (held, _) = of_each(Bench::streams_on_quic);
    assert!(held <= QUIC_STREAM, "{held}");
}

/// What one stream more holds, and has allocated. The connection's own share, and what is kept for all, is in neither.
fn of_each(streams: impl Fn(&Bench, usize) -> AllocationInfo) -> (i64, u64) {
    let (few, many) = (16, 80);
    let open = |count| streams(&Bench::new(echo(), OPAQUE), count);
    open(1);
    let opened = [few, many].map(open);
    let more = many - few;
    let held = (opened[1].bytes_current - opened[0].bytes_current) / more as i64;
    let allocations = (opened[1].count_total - opened[0].count_total) / more as u64;
    eprintln!("{held} bytes and {allocations} allocations, of {opened:?}");
    (held, allocations)
}

#[test]
fn an_idle_tunnel_through_tls_holds_so_much_however_much_it_has_carried() {
    const LITTLE: usize = 1024;
    const MUCH: usize = 256 * 1024;
    let bench = Bench::new(echo(), OPAQUE);
    let (acceptor, config) = secure();
    let held = |bytes| {
        let (config, origin, credential) = (config.clone(), bench.origin, bench.credential.clone());
        bench.held(Some(&acceptor), move |tcp| {
            let client = ClientConnection::new(config, "127.0.0.1".try_into().unwrap());
            let mut client = StreamOwned::new(client.unwrap(), tcp);
            connect(&mut client, origin, &credential);
            echo_of(&mut client, bytes);
            client
        })
    };
    for _ in 0..3 {
        held(MUCH);
    }
    for bytes in [LITTLE, MUCH] {
        let held = held(bytes);
        eprintln!("{held} bytes after {bytes}");
        assert!(held <= TLS, "{held} after {bytes}");
    }
}

#[test]
fn an_idle_tunnel_whose_requests_are_judged_holds_so_much() {
    let bench = Bench::new(web(), DEFAULT);
    let held = || {
        let (origin, credential) = (bench.origin, bench.credential.clone());
        bench.held(None, move |mut client| {
            connect(&mut client, origin, &credential);
            let asked = format!("GET / HTTP/1.1\r\nHost: {origin}\r\n\r\n");
            client.write_all(asked.as_bytes()).unwrap();
            assert!(head(&mut client).unwrap().starts_with("HTTP/1.1 200 "));
            let mut body = [0; 2];
            client.read_exact(&mut body).unwrap();
            client
        })
    };
    for _ in 0..3 {
        held();
    }
    let held = held();
    eprintln!("{held} bytes");
    assert!(held <= JUDGED, "{held}");
}

#[test]
fn an_idle_tunnel_that_was_upgraded_holds_so_much() {
    let bench = Bench::new(web(), DEFAULT);
    let held = || {
        let (origin, credential) = (bench.origin, bench.credential.clone());
        bench.held(None, move |mut client| {
            let fields = format!(
                "Host: {origin}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nProxy-Authorization: Bearer {credential}"
            );
            let asked = format!("GET http://{origin}/ HTTP/1.1\r\n{fields}\r\n\r\n");
            client.write_all(asked.as_bytes()).unwrap();
            assert!(head(&mut client).unwrap().starts_with("HTTP/1.1 101 "));
            echo_of(&mut client, 4);
            client
        })
    };
    for _ in 0..3 {
        held();
    }
    let held = held();
    eprintln!("{held} bytes");
    assert!(held <= UPGRADED, "{held}");
}
