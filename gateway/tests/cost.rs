//! What a tunnel costs, counted and not timed: allocations on its way from CONNECT to close, and the bytes its task holds
//! for as long as it lives. A figure that rises here is a figure that rises on every machine.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
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
use tokio::runtime::Runtime;

/// Bytes one tunnel's task may hold; whatever is needed for a while only is apart from it.
const TASK: usize = 1536;
/// Allocations of one tunnel: those of its task's runtime and of the kernel's poller included.
const ALLOCATIONS: u64 = 24;

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

    /// One tunnel, one echo, from the accepted connection to its end; what this thread allocated for it.
    fn tunnel(&self) -> AllocationInfo {
        let (door, origin) = (self.door.local_addr().unwrap(), self.origin);
        let credential = self.credential.clone();
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
            let mut echoed = [0; 4];
            client.write_all(b"ping").unwrap();
            client.read_exact(&mut echoed).unwrap();
            assert_eq!(&echoed, b"ping");
            client.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(client.read(&mut echoed).unwrap(), 0);
        });
        let (accepted, peer) = self.door.accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        let count = measure(|| {
            self.runtime.block_on(async {
                let tcp = tokio::net::TcpStream::from_std(accepted).unwrap();
                let stream = Downstream::Plain(tcp);
                front::serve(
                    Entry::Http { secure: false },
                    Accepted::new(stream, peer),
                    self.context.clone(),
                )
                .await;
            });
        });
        client.join().unwrap();
        count
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
fn a_tunnel_allocates_so_often_and_leaves_nothing() {
    let bench = Bench::new();
    // The first ones fill what is kept for all: thread-local buffers, labels of metrics.
    for _ in 0..3 {
        bench.tunnel();
    }
    let count = bench.tunnel();
    eprintln!("{count:?}");
    assert!(count.count_total <= ALLOCATIONS, "{count:?}");
    assert_eq!(count.count_current, 0, "something is kept: {count:?}");
}

#[test]
fn a_tunnels_task_is_small() {
    let bench = Bench::new();
    let client = TcpStream::connect(bench.door.local_addr().unwrap()).unwrap();
    let (accepted, peer) = bench.door.accept().unwrap();
    accepted.set_nonblocking(true).unwrap();
    let _runtime = bench.runtime.enter();
    let stream = Downstream::Plain(tokio::net::TcpStream::from_std(accepted).unwrap());
    let task = front::serve(
        Entry::Http { secure: false },
        Accepted::new(stream, peer),
        bench.context.clone(),
    );
    let size = size_of_val(&task);
    eprintln!("{size} bytes");
    assert!(size <= TASK, "{size} bytes");
    drop(client);
}
