//! What a tunnel costs, counted and not timed: allocations on its way from CONNECT to close, and the bytes it holds while it
//! is idle. A figure that rises here is a figure that rises on every machine.
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
    front::{self, Context, Entry},
    listen::{Accepted, Downstream},
    session::CreateRequest,
};
use tokio::{runtime::Runtime, sync::oneshot, task::JoinSet};

/// Bytes an idle tunnel may hold; whatever is needed for a while only is gone by then.
const IDLE: i64 = 3200;
/// Allocations of one tunnel: those of its task's runtime and of the kernel's poller included.
const ALLOCATIONS: u64 = 25;

struct Bench {
    runtime: Runtime,
    context: Arc<Context>,
    credential: String,
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
        let (app, credential) = runtime.block_on(async {
            let app = App::build(Options {
                config,
                config_file: None,
                state_dir: StateDir::open(&directory.path().join("state")).unwrap(),
            })
            .await
            .unwrap();
            let request = CreateRequest::read("{}").unwrap_or_else(|_| panic!("a request"));
            let registry = app.registry().clone();
            let issued = registry.create("local".into(), request).await.unwrap();
            let env = issued.bundle.unwrap().env;
            let (_, proxy) = env.iter().find(|(name, _)| name == "HTTP_PROXY").unwrap();
            let (_, rest) = proxy.split_once("//sluicegate:").unwrap();
            (app, rest.split_once('@').unwrap().0.to_owned())
        });
        Self {
            context: app.context(),
            runtime,
            credential,
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
        let (accepted, peer) = self.door.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        let mut task = None;
        let opening = measure(|| {
            self.runtime.block_on(async {
                let tcp = tokio::net::TcpStream::from_std(accepted).unwrap();
                let accepted = Accepted::new(Downstream::Plain(tcp), peer);
                let entry = Entry::Http { secure: false };
                let opening = Box::pin(front::serve(entry, accepted, self.context.clone()));
                let mut tasks = JoinSet::new();
                tasks.spawn(async move {
                    if let Some(carrying) = opening.await {
                        carrying.await;
                    }
                });
                (&mut idle).await.unwrap();
                task = Some(tasks);
            });
        });
        looked.wait();
        let closing = measure(|| {
            let mut tasks = task.take().unwrap();
            self.runtime.block_on(tasks.join_next()).unwrap().unwrap();
        });
        client.join().unwrap();
        (opening, closing)
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
