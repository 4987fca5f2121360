//! A service that does as it is told, a gateway before it, a client somewhere, and streams that are checked byte by byte.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::wire::Reply;
use e2e::{
    Ask, Link, Network, RelayClient, Session, Settings, Tasks, Weather, Wire, World, within,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// What a bad network may take for what a good one does at once.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// The first byte of a stream: what comes after it comes back.
const ECHO: u8 = b'e';
/// The first byte of a stream: nothing more is read.
const FREEZE: u8 = b'z';
/// The first byte of a stream: bytes come without end.
pub(crate) const FLOOD: u8 = b'f';

/// Where the client's proxy is, and what it says of itself.
const PROXY: &str = "proxy";
const STATUS: &str = "status";

/// So much of what the service is told is kept.
const SHORT: usize = 64;

/// Everything of one test. Dropped in this order: the client before its network.
pub(crate) struct Lab {
    pub(crate) client: RelayClient,
    pub(crate) session: Session,
    pub(crate) world: World,
    entry: Entry,
    service: Told,
}

/// The service: what it has been told on each of its connections, as far as it is short, and what serves it.
#[derive(Default)]
pub(crate) struct Told {
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    _tasks: Tasks,
}

/// Where programs connect.
enum Entry {
    /// Across namespaces.
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// Whose programs use the client.
#[derive(Clone, Copy)]
enum Programs {
    /// The test's.
    Here,
    /// Such as run where the client does.
    Inside,
}

/// A program's connection, whichever it is.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// A program's end of a stream.
pub(crate) type Near = Wire<Box<dyn Duplex>>;

impl Lab {
    /// The client reaches the gateway over loopback.
    pub(crate) async fn near(transport: &str) -> Self {
        let (world, url, service) = stage(Settings::default()).await;
        let session = session(&world, &url).await;
        let listen = [RelayClient::tcp("told")];
        let client = RelayClient::up_over(&session, transport, &listen).await;
        let entry = Entry::Tcp(client.entry("told"));
        Self::of(world, session, client, entry, service)
    }

    /// The client is in a network of its own.
    pub(crate) async fn inside(network: &Network, transport: &str) -> Self {
        Self::inside_for(network, transport, Programs::Here).await
    }

    /// The same for programs in it, which come by TCP.
    pub(crate) async fn inside_alone(network: &Network, transport: &str) -> Self {
        Self::inside_for(network, transport, Programs::Inside).await
    }

    async fn inside_for(network: &Network, transport: &str, programs: Programs) -> Self {
        let address = format!("{}:{}", network.here, e2e::tasks::free_port().await);
        let settings = Settings {
            listeners: format!("  - {{kind: public, address: \"{address}\"}}\n"),
            public_url: Some(format!("https://{address}")),
            ..Settings::default()
        };
        let (world, url, service) = stage(settings).await;
        let plain = world.plain();
        let ask = Ask {
            allow: &[&plain],
            services: &[&url],
            ..Ask::default()
        };
        let session = world.session_for(ask).await;
        let listen = match programs {
            Programs::Here => RelayClient::unix(&session, "told"),
            Programs::Inside => RelayClient::tcp("told"),
        };
        let place = |name| format!("unix://{}", RelayClient::socket(&session, name).display());
        let (proxy, status) = (place(PROXY), place(STATUS));
        let more = [
            "--transport",
            transport,
            "--proxy",
            &proxy,
            "--status",
            &status,
        ];
        let listen = [listen];
        let start = async || RelayClient::up_inside(network, &session, &more, &listen).await;
        let client = started(transport, start).await;
        let entry = match programs {
            Programs::Here => Entry::Unix(RelayClient::socket(&session, "told")),
            Programs::Inside => Entry::Tcp(client.entry("told")),
        };
        Self::of(world, session, client, entry, service)
    }

    /// The client reaches the gateway by a link with this weather.
    pub(crate) async fn behind(transport: &str, weather: Weather, seed: u64) -> (Self, Link) {
        let (world, url, service) = stage(Settings::default()).await;
        let session = session(&world, &url).await;
        let link = Link::start(world.gateway.ports.public, weather, seed).await;
        let listen = [RelayClient::tcp("told")];
        let url = link.url();
        let more = ["--transport", transport, "--url", &url];
        let start = async || RelayClient::up_with(&session, &more, &listen).await;
        let client = started(transport, start).await;
        let entry = Entry::Tcp(client.entry("told"));
        (Self::of(world, session, client, entry, service), link)
    }

    fn of(
        world: World,
        session: Session,
        client: RelayClient,
        entry: Entry,
        service: Told,
    ) -> Self {
        Self {
            client,
            session,
            world,
            entry,
            service,
        }
    }

    /// How many times the service was told exactly this.
    pub(crate) fn heard(&self, question: &str) -> usize {
        let heard = self.service.heard.lock().unwrap();
        heard
            .iter()
            .filter(|told| *told == question.as_bytes())
            .count()
    }

    /// What the service was told more than once.
    pub(crate) fn repeated(&self) -> Vec<String> {
        let mut heard = self.service.heard.lock().unwrap().clone();
        heard.sort();
        let twice = heard
            .windows(2)
            .filter(|pair| pair[0] == pair[1] && !pair[0].is_empty());
        twice
            .map(|pair| String::from_utf8_lossy(&pair[0]).into_owned())
            .collect()
    }

    async fn dial(&self) -> Near {
        match &self.entry {
            Entry::Unix(path) => {
                let stream = within("a connection", UnixStream::connect(path)).await;
                Wire::over(Box::new(stream.unwrap()))
            }
            Entry::Tcp(address) => Wire::over(Box::new(Wire::dial(*address).await.stream)),
        }
    }

    /// A request that goes out through the client's proxy, where that is in a network: its answer's status.
    pub(crate) async fn goes_out(&self) -> u16 {
        let plain = self.world.plain();
        let line = format!("GET http://{plain}/echo");
        self.told_at(PROXY, &line, &plain).await.status()
    }

    /// What the client says of itself, where it is in a network.
    pub(crate) async fn says(&self) -> serde_json::Value {
        let line = "GET /status";
        self.told_at(STATUS, line, "localhost").await.json()
    }

    async fn told_at(&self, socket: &str, line: &str, host: &str) -> Reply {
        let path = RelayClient::socket(&self.session, socket);
        let stream = within("a connection", UnixStream::connect(path)).await;
        let mut wire = Wire::over(stream.unwrap());
        wire.send(format!(
            "{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        ))
        .await;
        wire.reply().await
    }

    /// A stream that echoes, whose first byte has been there and back.
    pub(crate) async fn echoing(&self) -> Near {
        let mut near = self.dial().await;
        near.send([ECHO, b'!']).await;
        let mut byte = [0];
        let first = near.stream.read_exact(&mut byte);
        let first = tokio::time::timeout(LONG, first).await;
        first.expect("an echo in time").expect("an echo");
        assert_eq!(byte, *b"!");
        near
    }

    /// A stream whose service reads nothing any more.
    pub(crate) async fn frozen(&self) -> Near {
        let mut near = self.dial().await;
        near.send([FREEZE]).await;
        near
    }

    /// A stream whose service sends without end.
    pub(crate) async fn flooding(&self) -> Near {
        let mut near = self.dial().await;
        near.send([FLOOD]).await;
        near
    }

    /// A whole short stream: whether it came back whole and ended as it should.
    pub(crate) async fn asks(&self, question: &str) -> Result<(), String> {
        Self::asks_of(self.dial().await, question).await
    }

    /// As [`Lab::asks`], where the lab is busy dying.
    pub(crate) async fn asks_at(entry: SocketAddr, question: &str) -> Result<(), String> {
        Self::asks_of(Wire::over(Wire::dial(entry).await.stream), question).await
    }

    async fn asks_of<S: Duplex>(mut near: Wire<S>, question: &str) -> Result<(), String> {
        // Where the client has reset it, the end below says so.
        let _ = near.stream.write_all(&[ECHO]).await;
        let _ = near.stream.write_all(question.as_bytes()).await;
        let _ = near.stream.shutdown().await;
        let mut heard = Vec::new();
        let read = tokio::time::timeout(LONG, near.stream.read_to_end(&mut heard)).await;
        match read.expect("an end in time") {
            Ok(_) if heard == question.as_bytes() => Ok(()),
            end => Err(format!(
                "{question:?}: {:?}, {end:?}",
                String::from_utf8_lossy(&heard)
            )),
        }
    }
}

/// A client of this transport, which by QUIC is where it may choose.
async fn started(transport: &str, start: impl AsyncFn() -> RelayClient) -> RelayClient {
    if transport == "auto" {
        return by_quic(start).await;
    }
    start().await
}

/// A client that may choose and is connected by QUIC. That has a quarter of a second before HTTP/2 joins in: where the machine is busy
/// HTTP/2 may be there first, and another client is begun.
pub(crate) async fn by_quic(start: impl AsyncFn() -> RelayClient) -> RelayClient {
    for _ in 0..20 {
        let client = start().await;
        client.event("connected").await;
        if client.connections() == ["quic"] {
            return client;
        }
    }
    panic!("HTTP/2 is there first, each time");
}

/// Sends so many bytes through an echo, takes them back at the same time, and ends it: every byte as it was sent.
pub(crate) async fn there_and_back(near: Near, count: usize, seed: u64) {
    let sent = noise(count, seed);
    let (mut reader, mut writer) = tokio::io::split(near.stream);
    let mut heard = vec![0; count];
    let both = async {
        let writing = async {
            writer.write_all(&sent).await?;
            writer.shutdown().await
        };
        let reading = async {
            reader.read_exact(&mut heard).await?;
            reader.read(&mut [0]).await
        };
        tokio::try_join!(writing, reading)
    };
    let done = tokio::time::timeout(LONG, both).await.expect("in time");
    let ((), beyond) = done.expect("no stream breaks");
    assert!(heard == sent, "bytes came back that were not sent");
    assert_eq!(beyond, 0, "more came back than was sent");
}

/// The stream is cut, and not ended as if all were well.
pub(crate) async fn is_cut(mut near: Near, what: &str) {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(LONG, near.stream.read_to_end(&mut rest)).await;
    let error = read.expect(what).expect_err(what);
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{what}");
}

/// Waits, as long as a bad network may take.
pub(crate) async fn eventually<T: Debug>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    e2e::tasks::until_for(LONG, what, probe).await
}

async fn stage(settings: Settings) -> (World, String, Told) {
    let world = World::with(settings).await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("told=tcp://{}", listener.local_addr().unwrap());
    let told = Told::default();
    let heard = told.heard.clone();
    told._tasks.spawn(async move {
        let visits = Tasks::default();
        while let Ok((stream, _)) = listener.accept().await {
            let heard = heard.clone();
            visits.spawn(async move {
                // It goes the way of the stream that is under test.
                let _ = serve(stream, &heard).await;
            });
        }
    });
    (world, url, told)
}

async fn session(world: &World, service: &str) -> Session {
    world
        .session_for(Ask {
            services: &[service],
            ..Ask::default()
        })
        .await
}

async fn serve(mut stream: TcpStream, heard: &Mutex<Vec<Vec<u8>>>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    match stream.read_u8().await? {
        ECHO => {
            let (mut reader, mut writer) = stream.split();
            let mut chunk = vec![0; 16 * 1024];
            let place = {
                let mut heard = heard.lock().unwrap();
                heard.push(Vec::new());
                heard.len() - 1
            };
            loop {
                let count = reader.read(&mut chunk).await?;
                if count == 0 {
                    return writer.shutdown().await;
                }
                {
                    let told = &mut heard.lock().unwrap()[place];
                    if told.len() < SHORT {
                        told.extend_from_slice(&chunk[..count]);
                    }
                }
                writer.write_all(&chunk[..count]).await?;
            }
        }
        FLOOD => loop {
            stream.write_all(&[FLOOD; 16 * 1024]).await?;
        },
        _ => std::future::pending().await,
    }
}

fn noise(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(count).collect()
}
