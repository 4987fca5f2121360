//! What tunnels and relay streams cost, counted and not timed: allocations of a tunnel on its way from CONNECT to close, and the
//! bytes that each holds while it is idle. A figure that rises here is a figure that rises on every machine.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Barrier},
    thread,
};

use allocation_counter::{AllocationInfo, measure};
use sluicegate::{
    app::{App, Options},
    config::{Config, StateDir},
    front::{self, Current, Entry},
    listen::{Accepted, Downstream},
    session::CreateRequest,
};
use sluicegate_relay::{
    flow::{Early, FlowIo},
    transport::{Endpoint, H2Connection},
};
use sluicegate_relay_protocol::Handshake;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Runtime,
    sync::oneshot,
    task::JoinSet,
};
use tokio_util::task::TaskTracker;

/// Bytes an idle tunnel may hold; whatever is needed for a while only is gone by then.
const IDLE: i64 = 3250;
/// Allocations of one tunnel: those of its task's runtime and of the kernel's poller included.
const ALLOCATIONS: u64 = 25;
/// Bytes an idle relay stream may hold here, the connection that carries it not counted.
const STREAM: i64 = 4000;

struct Bench {
    runtime: Runtime,
    current: Arc<Current>,
    credential: String,
    token: String,
    origin: SocketAddr,
    door: TcpListener,
    _app: App,
    _directory: tempfile::TempDir,
}

impl Bench {
    /// A gateway that listens nowhere for this test: connections are given to it one by one, on this thread.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let origin = echo();
        let source = format!(
            "
listeners:
  - {{kind: plain, address: '127.0.0.1:0'}}
  - {{kind: management, address: '127.0.0.1:0'}}
telemetry: {{accessLog: {}/access.jsonl}}
egress:
  allowedHosts: ['{origin}']
  rules: [{{host: '{origin}', tls: opaque}}]
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
            _app: app,
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
            let authority = format!("Proxy-Authorization: Bearer {credential}");
            write!(
                client,
                "CONNECT {origin} HTTP/1.1\r\nHost: {origin}\r\n{authority}\r\n\r\n"
            )
            .unwrap();
            let mut answer = [0; 39];
            client.read_exact(&mut answer).unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200 "));
            let mut echo = [0; 4];
            client.write_all(b"ping").unwrap();
            client.read_exact(&mut echo).unwrap();
            assert_eq!(&echo, b"ping");
            echoed.send(()).unwrap();
            done.wait();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(client.read(&mut echo).unwrap(), 0);
        });
        let mut task = None;
        let opening = self.serve(&mut task, &mut idle);
        looked.wait();
        let closing = measure(|| {
            let mut tasks = task.take().unwrap();
            self.runtime.block_on(tasks.join_next()).unwrap().unwrap();
        });
        client.join().unwrap();
        (opening, closing)
    }

    /// Serve the next connection on this thread until `idle`: what it allocated until then.
    fn serve(
        &self,
        task: &mut Option<JoinSet<()>>,
        idle: &mut oneshot::Receiver<()>,
    ) -> AllocationInfo {
        let (accepted, peer) = self.door.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        measure(|| {
            self.runtime.block_on(async {
                let tcp = tokio::net::TcpStream::from_std(accepted).unwrap();
                let accepted = Accepted::new(Downstream::Plain(tcp), peer);
                let entry = Entry::Http { secure: false };
                let opening = Box::pin(front::serve(entry, accepted, self.current.clone()));
                let mut tasks = JoinSet::new();
                tasks.spawn(async move {
                    if let Some(carrying) = opening.await {
                        carrying.await;
                    }
                });
                (&mut *idle).await.unwrap();
                *task = Some(tasks);
            });
        })
    }

    /// So many relay streams on one HTTP/2 connection, each with one echo behind it: what this thread held when all were idle.
    fn streams(&self, count: usize) -> i64 {
        let (door, token) = (self.door.local_addr().unwrap(), self.token.clone());
        let (echoed, mut idle) = oneshot::channel();
        let looked = Arc::new(Barrier::new(2));
        let done = looked.clone();
        let client = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let tcp = tokio::net::TcpStream::connect(door).await.unwrap();
                let gateway = Endpoint::parse(&format!("http://{door}")).unwrap();
                let tasks = TaskTracker::new();
                let connection = H2Connection::over(tcp, &gateway, &tasks).await.unwrap();
                let name = "echo".to_owned();
                let service = Handshake::Service { name };
                let mut open = Vec::new();
                for _ in 0..count {
                    let mut nothing = Early::nothing();
                    let stream = connection.open(&service, &token, &mut nothing).await;
                    let mut stream = FlowIo::new(stream.unwrap());
                    let mut echo = [0; 4];
                    stream.write_all(b"ping").await.unwrap();
                    stream.flush().await.unwrap();
                    stream.read_exact(&mut echo).await.unwrap();
                    assert_eq!(&echo, b"ping");
                    open.push(stream);
                }
                echoed.send(()).unwrap();
                done.wait();
            });
        });
        let mut task = None;
        let held = self.serve(&mut task, &mut idle).bytes_current;
        looked.wait();
        client.join().unwrap();
        held
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

#[test]
fn a_tunnel_allocates_so_often_holds_so_much_and_leaves_nothing() {
    let bench = Bench::new();
    // The first ones fill what is kept for all: thread-local buffers, labels of metrics.
    for _ in 0..3 {
        bench.tunnel();
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
    // The connection's own share, and what is kept for all, is in both.
    let (few, many) = (16, 80);
    Bench::new().streams(1);
    let held = [few, many].map(|count| Bench::new().streams(count));
    let each = (held[1] - held[0]) / (many - few) as i64;
    eprintln!("{each} bytes, of {held:?}");
    assert!(each <= STREAM, "{each}");
}
