//! Pairs: a connection of a sandbox's program and the one that reached the service for it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use e2e::{Ask, Link, RelayClient, Session, Settings, Tasks, Weather, Wire, World, within};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::oneshot;

use crate::carrier::Carrier;
use crate::stream::{Socket, Sockets, Stream, TCP};

/// Visitors by the number each begins with.
#[derive(Default)]
struct Visitors(Mutex<HashMap<u64, oneshot::Sender<Stream>>>);

/// Where one who opens a pair dials.
#[derive(Clone, Debug)]
enum Entry {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Entry {
    /// Of `tcp://` or `unix://`.
    fn of(url: &str) -> Self {
        match url.strip_prefix("unix://") {
            Some(path) => Self::Unix(path.into()),
            None => Self::Tcp(url.strip_prefix("tcp://").unwrap().parse().unwrap()),
        }
    }

    /// A connection. A dial target that nobody offers at the moment is dialled again: who waits knows for how long.
    async fn dial(&self) -> io::Result<Stream> {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            let dialled = match self {
                Self::Tcp(address) => TcpStream::connect(address).await.map(Stream::Tcp),
                Self::Unix(path) => UnixStream::connect(path).await.map(Stream::unix),
            };
            match dialled {
                Err(error)
                    if [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound]
                        .contains(&error.kind()) => {}
                Ok(Stream::Tcp(tcp)) => {
                    // It fails on a connection that was reset meanwhile, which is for the test to find.
                    let _ = tcp.set_nodelay(true);
                    return Ok(Stream::Tcp(tcp));
                }
                dialled => return dialled,
            }
        }
    }
}

/// One way in: the host service or the listener it leads to, and where it begins.
struct Way {
    name: &'static str,
    entry: Entry,
}

/// What a host service or a listener with these sockets is called.
fn name(sockets: Sockets) -> &'static str {
    match sockets {
        (Socket::Tcp, Socket::Tcp) => "tcp-tcp",
        (Socket::Tcp, Socket::Unix) => "tcp-unix",
        (Socket::Unix, Socket::Tcp) => "unix-tcp",
        (Socket::Unix, Socket::Unix) => "unix-unix",
    }
}

/// For pairs that begin without a word: a unix socket dials, and TCP is dialled.
const QUIET: &str = "quiet";

/// Where those are who are dialled.
struct Places {
    address: SocketAddr,
    path: PathBuf,
    quiet: SocketAddr,
}

impl Places {
    /// Of one with this socket.
    fn url(&self, socket: Socket) -> String {
        match socket {
            Socket::Tcp => format!("tcp://{}", self.address),
            Socket::Unix => format!("unix://{}", self.path.display()),
        }
    }
}

/// A gateway, a service behind it, and one way in.
pub(crate) struct Lab {
    /// Everything around it.
    pub(crate) world: World,
    /// The relay client, where there is one.
    pub(crate) client: Option<RelayClient>,
    /// Between the sandbox and the gateway's TLS and QUIC, where there is one.
    pub(crate) link: Option<Link>,
    carrier: Carrier,
    session: Session,
    ways: Vec<Way>,
    target: String,
    visitors: Arc<Visitors>,
    quiet: TcpListener,
    next: AtomicU64,
    _tasks: Tasks,
    _directory: TempDir,
}

impl Lab {
    /// With the gateway's usual settings.
    pub(crate) async fn start(carrier: Carrier) -> Self {
        Self::with(carrier, Settings::default()).await
    }

    /// With settings of the test's own.
    pub(crate) async fn with(carrier: Carrier, settings: Settings) -> Self {
        Self::on(World::with(settings).await, carrier, None).await
    }

    /// With a link between the sandbox and the gateway.
    pub(crate) async fn behind_a_link(carrier: Carrier) -> Self {
        let world = World::start().await;
        let link = Link::start(world.gateway.ports.public, Weather::default(), 1).await;
        Self::on(world, carrier, Some(link)).await
    }

    /// With a link in this weather, to the gateway's TLS and QUIC or, without either, to its plain listener: there what breaks on the way
    /// breaks a capsule and no record of TLS.
    pub(crate) async fn in_weather(
        carrier: Carrier,
        tls: bool,
        weather: Weather,
        seed: u64,
    ) -> Self {
        let world = World::start().await;
        let ports = world.gateway.ports;
        let to = if tls { ports.public } else { ports.plain };
        let link = Link::start(to, weather, seed).await;
        let scheme = if tls { "https" } else { "http" };
        let url = format!("{scheme}://{}", link.address);
        Self::at(world, carrier, Some(link), url).await
    }

    async fn on(world: World, carrier: Carrier, link: Option<Link>) -> Self {
        let public = link.as_ref().map(|link| link.address);
        let public = public.unwrap_or(world.gateway.ports.public);
        Self::at(world, carrier, link, format!("https://{public}")).await
    }

    /// With the gateway at this URL.
    async fn at(world: World, carrier: Carrier, link: Option<Link>, url: String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (tcp, quiet) = tokio::join!(loopback(), loopback());
        let places = Places {
            address: tcp.local_addr().unwrap(),
            path: directory.path().join("service.sock"),
            quiet: quiet.local_addr().unwrap(),
        };
        let unix = UnixListener::bind(&places.path).unwrap();
        let visitors = Arc::new(Visitors::default());
        let tasks = Tasks::default();
        tasks.spawn(accept(tcp, visitors.clone()));
        tasks.spawn(accept_unix(unix, visitors.clone()));
        world.dns.point("raw.allowed.test");
        let target = format!("raw.allowed.test:{}", places.address.port());
        let session = session(&world, carrier, &places, &target).await;
        let public = link.as_ref().map(|link| link.address);
        let public = public.unwrap_or(world.gateway.ports.public);
        let (client, ways) = match carrier {
            Carrier::Relay(transport) => {
                let more = ["--transport", transport, "--url", &url];
                relayed(&session, carrier, &more).await
            }
            Carrier::Exposed(transport) => {
                let more = ["--transport", transport, "--url", &url];
                let exposed = exposed(&session, carrier, &more, &places).await;
                offered(&world, exposed.1.len()).await;
                exposed
            }
            Carrier::Proxy(transport) => {
                let more = ["--transport", transport, "--url", &url];
                let more = [&more[..], &["--proxy", "127.0.0.1:0"]].concat();
                let client = RelayClient::up_with(&session, &more, &[RelayClient::tcp("db")]).await;
                let said = client.event("proxy").await;
                let address = said["address"].as_str().unwrap();
                let address = address.strip_prefix("http://").unwrap().parse().unwrap();
                (Some(client), vec![Way::direct(address)])
            }
            Carrier::Connect => (None, vec![Way::direct(session.proxy_address())]),
            Carrier::ConnectTls => (None, vec![Way::direct(public)]),
        };
        Self {
            world,
            client,
            link,
            carrier,
            session,
            ways,
            target,
            visitors,
            quiet,
            next: AtomicU64::new(1),
            _tasks: tasks,
            _directory: directory,
        }
    }

    /// A program's connection, and the service's end of it.
    pub(crate) async fn pair(&self) -> (Stream, Stream) {
        self.pair_of(TCP).await
    }

    /// The same with these sockets.
    pub(crate) async fn pair_of(&self, sockets: Sockets) -> (Stream, Stream) {
        let pair = within("both ends of a pair", self.try_pair(sockets)).await;
        pair.unwrap()
    }

    /// The same where the way may be broken.
    ///
    /// # Errors
    /// It is. In vain it may be waited for, too: the caller knows how long.
    pub(crate) async fn try_pair(&self, sockets: Sockets) -> io::Result<(Stream, Stream)> {
        let name = name(sockets);
        let way = self.ways.iter().find(|way| way.name == name).unwrap();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        self.visitors.0.lock().unwrap().insert(number, tell);
        let mut near = self.dial(&way.entry).await?;
        // Not a TLS record and not the beginning of a request: a protocol of its own.
        near.write_all(&[0xEE; 8]).await?;
        near.write_all(&number.to_be_bytes()).await?;
        near.flush().await?;
        let far = told.await.map_err(io::Error::other)?;
        Ok(self.ordered(near, far))
    }

    /// One whose dialling end is a unix socket and has written nothing; the other is TCP. One at a time.
    pub(crate) async fn quiet_pair(&self) -> (Stream, Stream) {
        let way = self.ways.iter().find(|way| way.name == QUIET).unwrap();
        let dialled = within("a quiet dial", way.entry.dial()).await;
        let (mut near, mut far) = (dialled.unwrap(), Vec::new());
        let meeting = async {
            let mut number = [0];
            loop {
                tokio::select! {
                    // Over HTTP/1.1 a dial may be handed out twice: whose number arrives has it, and the other is reset.
                    accepted = self.quiet.accept() => {
                        let mut visitor = accepted.unwrap().0;
                        let _ = visitor.write_all(&[far.len() as u8]).await;
                        far.push(visitor);
                    }
                    read = near.read_exact(&mut number) => {
                        read.unwrap();
                        return far.swap_remove(usize::from(number[0]));
                    }
                }
            }
        };
        let far = within("both ends of a quiet pair", meeting).await;
        self.ordered(near, Stream::Tcp(far))
    }

    /// The sandbox's end first.
    fn ordered(&self, dialling: Stream, dialled: Stream) -> (Stream, Stream) {
        match self.carrier {
            // It is the host that dials.
            Carrier::Exposed(_) => (dialled, dialling),
            _ => (dialling, dialled),
        }
    }

    async fn dial(&self, entry: &Entry) -> io::Result<Stream> {
        let address = match (self.carrier, entry) {
            (Carrier::Relay(_) | Carrier::Exposed(_), _) | (_, Entry::Unix(_)) => {
                return entry.dial().await;
            }
            (_, Entry::Tcp(address)) => *address,
        };
        let wire = Wire::dial(address).await;
        Ok(match self.carrier {
            Carrier::ConnectTls => {
                let config = self.session.gateway_tls(&[b"http/1.1"]);
                let tls = wire.tls(config, "localhost").await;
                let head = self.session.connect_head(&self.target);
                Stream::Tls(Box::new(self.tunnel(tls, head).await?))
            }
            Carrier::Connect => {
                let head = self.session.connect_head(&self.target);
                Stream::Tcp(self.tunnel(wire, head).await?)
            }
            _ => {
                let target = &self.target;
                let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
                Stream::Tcp(self.tunnel(wire, head).await?)
            }
        })
    }

    async fn tunnel<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut wire: Wire<S>,
        request: String,
    ) -> io::Result<S> {
        wire.send(request).await;
        let head = wire.head().await;
        match head.status {
            200 => Ok(wire.stream),
            _ => Err(io::Error::other(format!("{head:?}"))),
        }
    }
}

impl Way {
    /// To something that tunnels.
    fn direct(address: SocketAddr) -> Self {
        Self {
            name: name(TCP),
            entry: Entry::Tcp(address),
        }
    }
}

async fn loopback() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).await.unwrap()
}

/// A session that may go all the ways of this carrier.
async fn session(world: &World, carrier: Carrier, places: &Places, target: &str) -> Session {
    let mut services = vec![format!("db={}", places.url(Socket::Tcp))];
    let mut exposed = Vec::new();
    for sockets in carrier.sockets() {
        let name = name(*sockets);
        match (carrier, sockets.1) {
            (Carrier::Relay(_), far) => services.push(format!("{name}={}", places.url(far))),
            (Carrier::Exposed(_), Socket::Tcp) => exposed.push(format!("{name}=tcp")),
            (Carrier::Exposed(_), Socket::Unix) => exposed.push(format!("{name}=unix")),
            _ => {}
        }
    }
    services.push(format!("{QUIET}=tcp://{}", places.quiet));
    exposed.push(format!("{QUIET}-plugin=unix"));
    let services: Vec<&str> = services.iter().map(String::as_str).collect();
    let more: Vec<&str> = exposed.iter().flat_map(|one| ["--expose", one]).collect();
    let ask = Ask {
        allow: &[target],
        services: &services,
        more: &more,
    };
    let session = world.session_for(ask).await;
    if let Carrier::Exposed(_) = carrier {
        patient(world, &session, &exposed).await;
    }
    session
}

/// The host's dials of these listeners wait for the client as long as they may: on a slow machine a crowd of them finds no accept
/// stream within the usual second.
async fn patient(world: &World, session: &Session, exposed: &[String]) {
    let terms = |one: &String| {
        let (name, dial) = one.split_once('=').unwrap();
        (name.to_owned(), json!({"dial": dial, "patience": "60s"}))
    };
    let exposed: Map<String, Value> = exposed.iter().map(terms).collect();
    let change = json!({"expose": exposed}).to_string();
    let path = format!("/runtime/providers/test/sessions/{}", session.id());
    let answer = world.gateway.admin("PATCH", &path, &change).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

/// A relay client that listens for all the services.
async fn relayed(
    session: &Session,
    carrier: Carrier,
    more: &[&str],
) -> (Option<RelayClient>, Vec<Way>) {
    let sockets = carrier.sockets().iter();
    let mut wanted: Vec<_> = sockets.map(|one| (name(*one), one.0)).collect();
    wanted.push((QUIET, Socket::Unix));
    let listen: Vec<String> = wanted
        .iter()
        .map(|(name, socket)| match socket {
            Socket::Tcp => RelayClient::tcp(name),
            Socket::Unix => RelayClient::unix(session, name),
        })
        .collect();
    let client = RelayClient::up_with(session, more, &listen).await;
    let entry = |name, socket| match socket {
        Socket::Tcp => Entry::Tcp(client.entry(name)),
        Socket::Unix => Entry::Unix(RelayClient::socket(session, name)),
    };
    let ways = wanted.into_iter().map(|(name, socket)| Way {
        name,
        entry: entry(name, socket),
    });
    let ways = ways.collect();
    (Some(client), ways)
}

/// A relay client that offers all the listeners.
async fn exposed(
    session: &Session,
    carrier: Carrier,
    more: &[&str],
    places: &Places,
) -> (Option<RelayClient>, Vec<Way>) {
    let sockets = carrier.sockets().iter();
    let mut offers: Vec<String> = sockets
        .map(|one| format!("{}={}", name(*one), places.url(one.0)))
        .collect();
    offers.push(format!("{QUIET}-plugin=tcp://{}", places.quiet));
    let offers = offers.iter().flat_map(|offer| ["--expose", offer]);
    let more: Vec<&str> = more.iter().copied().chain(offers).collect();
    let client = RelayClient::up_with(session, &more, &[RelayClient::tcp("db")]).await;
    client.event("connected").await;
    let way = |name, listener: &str| Way {
        name,
        entry: Entry::of(session.json["dialTargets"][listener].as_str().unwrap()),
    };
    let sockets = carrier.sockets().iter();
    let mut ways: Vec<Way> = sockets.map(|one| way(name(*one), name(*one))).collect();
    ways.push(way(QUIET, &format!("{QUIET}-plugin")));
    (Some(client), ways)
}

/// Until the next dial of each of so many listeners finds an accept stream, and the one after it: as many as a client keeps open.
async fn offered(world: &World, listeners: usize) {
    let sample = "sluicegate_accept_streams_waiting ";
    let all = 2.0 * listeners as f64;
    world.gateway.metric_reaches(sample, all).await;
}

async fn accept(service: TcpListener, visitors: Arc<Visitors>) {
    let tasks = Tasks::default();
    while let Ok((stream, _)) = service.accept().await {
        tasks.spawn(meet(Stream::Tcp(stream), visitors.clone()));
    }
}

async fn accept_unix(service: UnixListener, visitors: Arc<Visitors>) {
    let tasks = Tasks::default();
    while let Ok((stream, _)) = service.accept().await {
        tasks.spawn(meet(Stream::unix(stream), visitors.clone()));
    }
}

/// Hands a visitor to whom waits for its number.
async fn meet(mut stream: Stream, visitors: Arc<Visitors>) {
    let mut preface = [0; 16];
    if stream.read_exact(&mut preface).await.is_err() {
        return;
    }
    let number = u64::from_be_bytes(preface[8..].try_into().unwrap());
    let waiting = visitors.0.lock().unwrap().remove(&number);
    // Who waited may have given up.
    let _ = waiting.map(|tell| tell.send(stream));
}
