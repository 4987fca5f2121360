//! Pairs: a connection of a sandbox's program and the one that reached the service for it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use e2e::{Ask, Link, RelayClient, Session, Settings, Tasks, Weather, Wire, World, within};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::client::TlsStream;

/// How the sandbox's bytes reach the gateway, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// A host service, by `sluicegate-relay` with this `--transport`.
    Relay(&'static str),
    /// A listener of the sandbox that its host dials, offered by `sluicegate-relay` with this `--transport`.
    Exposed(&'static str),
    /// The way out, by the proxy of `sluicegate-relay` with this `--transport`.
    Proxy(&'static str),
    /// A CONNECT tunnel through the plain listener.
    Connect,
    /// A CONNECT tunnel through the TLS listener.
    ConnectTls,
}

impl Carrier {
    /// For people.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Relay(transport) => format!("host service over {transport}"),
            Self::Exposed(transport) => format!("exposed listener over {transport}"),
            Self::Proxy(transport) => format!("egress over {transport}"),
            Self::Connect => "egress, CONNECT".to_owned(),
            Self::ConnectTls => "egress, CONNECT over TLS".to_owned(),
        }
    }

    /// By datagrams.
    pub(crate) fn is_quic(self) -> bool {
        matches!(
            self,
            Self::Relay("quic") | Self::Exposed("quic") | Self::Proxy("quic")
        )
    }

    /// A relay client carries it.
    pub(crate) fn has_client(self) -> bool {
        !matches!(self, Self::Connect | Self::ConnectTls)
    }

    /// All streams are on one connection.
    pub(crate) fn shares(self) -> bool {
        matches!(
            self,
            Self::Relay("h2" | "quic") | Self::Exposed("h2" | "quic") | Self::Proxy("h2" | "quic")
        )
    }

    /// The relay client asks for signs of life on what carries this. (TCP's own are answered by the kernel of a process
    /// that is frozen.)
    pub(crate) fn is_watched(self) -> bool {
        match self {
            Self::Relay(transport) | Self::Exposed(transport) | Self::Proxy(transport) => {
                transport != "h1"
            }
            Self::Connect | Self::ConnectTls => false,
        }
    }
}

/// One end of a pair.
pub(crate) enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// TLS to the gateway.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// End with RST, whatever is under way.
    pub(crate) fn abort(self) {
        let tcp = match &self {
            Self::Tcp(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        };
        // It fails on a socket that the other side has reset already: the end is the same.
        let _ = tcp.set_zero_linger();
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
        }
    }
}

/// Visitors by the number each begins with.
#[derive(Default)]
struct Visitors(Mutex<HashMap<u64, oneshot::Sender<TcpStream>>>);

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
    entry: SocketAddr,
    target: String,
    visitors: Arc<Visitors>,
    next: AtomicU64,
    _tasks: Tasks,
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
        let service = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = service.local_addr().unwrap();
        world.dns.point("raw.allowed.test");
        let target = format!("raw.allowed.test:{}", address.port());
        let session = world
            .session_for(Ask {
                allow: &[&target],
                services: &[&format!("db=tcp://{address}")],
                more: &["--expose", "plugin=tcp"],
            })
            .await;
        let visitors = Arc::new(Visitors::default());
        let tasks = Tasks::default();
        tasks.spawn(accept(service, visitors.clone()));
        let public = link.as_ref().map(|link| link.address);
        let public = public.unwrap_or(world.gateway.ports.public);
        let (client, entry) = match carrier {
            Carrier::Relay(transport) => {
                let listen = [RelayClient::tcp("db")];
                let more = ["--transport", transport, "--url", &url];
                let client = RelayClient::up_with(&session, &more, &listen).await;
                let entry = client.entry("db");
                (Some(client), entry)
            }
            Carrier::Exposed(transport) => {
                let offer = format!("plugin=tcp://{address}");
                let more = ["--transport", transport, "--expose", &offer, "--url", &url];
                let client = RelayClient::up_with(&session, &more, &[RelayClient::tcp("db")]).await;
                let target = session.json["dialTargets"]["plugin"].as_str().unwrap();
                let entry = target.strip_prefix("tcp://").unwrap().parse().unwrap();
                (Some(client), entry)
            }
            Carrier::Proxy(transport) => {
                let proxy = ["--proxy", "127.0.0.1:0", "--url", &url];
                let more = [&["--transport", transport][..], &proxy].concat();
                let client = RelayClient::up_with(&session, &more, &[RelayClient::tcp("db")]).await;
                let said = client.event("proxy").await;
                let address = said["address"].as_str().unwrap();
                let entry = address.strip_prefix("http://").unwrap().parse().unwrap();
                (Some(client), entry)
            }
            Carrier::Connect => (None, session.proxy_address()),
            Carrier::ConnectTls => (None, public),
        };
        if let (Some(client), Carrier::Exposed(_)) = (&client, carrier) {
            client.event("connected").await;
            offered(&world).await;
        }
        Self {
            world,
            client,
            link,
            carrier,
            session,
            entry,
            target,
            visitors,
            next: AtomicU64::new(1),
            _tasks: tasks,
        }
    }

    /// A program's connection, and the service's end of it.
    pub(crate) async fn pair(&self) -> (Stream, Stream) {
        let pair = within("both ends of a pair", self.try_pair()).await;
        pair.unwrap()
    }

    /// The same where the way may be broken.
    ///
    /// # Errors
    /// It is. In vain it may be waited for, too: the caller knows how long.
    pub(crate) async fn try_pair(&self) -> io::Result<(Stream, Stream)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        self.visitors.0.lock().unwrap().insert(number, tell);
        let mut near = self.dial().await?;
        // Not a TLS record and not the beginning of a request: a protocol of its own.
        near.write_all(&[0xEE; 8]).await?;
        near.write_all(&number.to_be_bytes()).await?;
        near.flush().await?;
        let far = told.await.map_err(io::Error::other)?;
        Ok(match self.carrier {
            // It is the host that dials.
            Carrier::Exposed(_) => (Stream::Tcp(far), near),
            _ => (near, Stream::Tcp(far)),
        })
    }

    async fn dial(&self) -> io::Result<Stream> {
        let wire = Wire::dial(self.entry).await;
        Ok(match self.carrier {
            Carrier::Relay(_) | Carrier::Exposed(_) => Stream::Tcp(wire.stream),
            Carrier::Proxy(_) => {
                let target = &self.target;
                let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
                Stream::Tcp(self.tunnel(wire, head).await?)
            }
            Carrier::Connect => {
                let head = self.session.connect_head(&self.target);
                Stream::Tcp(self.tunnel(wire, head).await?)
            }
            Carrier::ConnectTls => {
                let config = self.session.gateway_tls(&[b"http/1.1"]);
                let tls = wire.tls(config, "localhost").await;
                let head = self.session.connect_head(&self.target);
                Stream::Tls(Box::new(self.tunnel(tls, head).await?))
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

/// Until accept streams wait.
async fn offered(world: &World) {
    let sample = "sluicegate_accept_streams_waiting ";
    world.gateway.metric_reaches(sample, 1.0).await;
}

/// Hands each visitor to whom waits for its number.
async fn accept(service: TcpListener, visitors: Arc<Visitors>) {
    let tasks = Tasks::default();
    while let Ok((mut stream, _)) = service.accept().await {
        let visitors = visitors.clone();
        tasks.spawn(async move {
            let mut preface = [0; 16];
            if stream.read_exact(&mut preface).await.is_err() {
                return;
            }
            let number = u64::from_be_bytes(preface[8..].try_into().unwrap());
            let waiting = visitors.0.lock().unwrap().remove(&number);
            // Who waited may have given up.
            let _ = waiting.map(|tell| tell.send(stream));
        });
    }
}
