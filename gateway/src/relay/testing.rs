//! A gateway's HTTP/2 front on a real listener with real TLS, a real session, and services to reach through it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use sluicegate_certs::{Authority, ClientKey, ServerIdentity, TrustBundle, tls};
use sluicegate_policy::{Admission, OwnAddresses};
use sluicegate_relay::{
    backoff::Backoff,
    flow::Ahead,
    session::{Session, SessionConfig},
    tasks::Tasks,
    transport::{Choice, Endpoint as Url, Tls, Transport},
};
use sluicegate_relay_protocol::ALPN_RELAY;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener},
    sync::mpsc::UnboundedReceiver,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Endpoint, HttpContext, Opens, Pool, Presence, Reverse, Services, ServicesConfig};
use crate::{
    drain::{Drain, Stage},
    egress::{Egress, Resolver, ResolverConfig, Timeouts, Ways},
    front::{self, Context, Current, Detail, h2, quic},
    http2,
    listen::{Accepted, Downstream, Places, ResetKey, UdpListener, accept_quic},
    session::{
        Offer,
        testing::{Fixture, request},
    },
    telemetry::{AccessLog, AccessSink, Telemetry},
};

/// In the fixture's directory.
const OPENS: &str = "relay-opens";
/// Nothing here takes longer; a hang is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// `work`, or a failure that says what did not happen.
pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// Every transport of the client: what holds on one holds on all.
pub(crate) const TRANSPORTS: [Transport; 3] = [Transport::Quic, Transport::H2, Transport::H1];

/// Everything one test needs, on this machine's loopback.
pub(crate) struct World {
    pub(crate) fixture: Fixture,
    pub(crate) telemetry: Telemetry,
    pub(crate) address: SocketAddr,
    pub(crate) plain: SocketAddr,
    pub(crate) drain: Drain,
    reverse: Reverse,
    pub(crate) opens: Arc<Opens>,
    authority: Authority,
    log: PathBuf,
    listening: JoinSet<()>,
    serving: Arc<std::sync::Mutex<JoinSet<()>>>,
    udp: Option<quinn::Endpoint>,
    /// Dial targets that are bound and not served yet.
    offers: Option<UnboundedReceiver<Offer>>,
    /// Places for QUIC connections.
    pub(crate) places: Arc<Places>,
    limits: http2::Limits,
    pub(crate) presence: Arc<Presence>,
    /// Whoever connects over TCP from now on comes from another machine.
    pub(crate) far: Arc<AtomicBool>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with_limits(http2::Limits::default()).await
    }

    /// One whose connections have these bounds.
    pub(crate) async fn with_limits(limits: http2::Limits) -> Self {
        let mut world = Self::starting(limits).await;
        world.serve_dials();
        world
    }

    /// The dial targets are served from now on.
    pub(crate) fn serve_dials(&mut self) {
        let offers = self.offers.take().unwrap();
        let serving = self.reverse.clone().serve(offers);
        self.drain.watch().spawn_service(serving);
    }

    /// One that listens, and does not serve its dial targets yet.
    pub(crate) async fn starting(limits: http2::Limits) -> Self {
        let fixture = Fixture::new();
        let log = fixture.dir.path().join("access.jsonl");
        let telemetry =
            Telemetry::new(AccessLog::open(&AccessSink::File(log.clone())).unwrap()).unwrap();
        let authority = Authority::create("test", SystemTime::now()).unwrap();
        let unset: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let drain = Drain::default();
        let reverse = Reverse::new(telemetry.clone(), drain.watch());
        let offers = fixture.registry.dials().take_offers();
        let opens = Arc::new(Opens::open(&fixture.dir.path().join(OPENS)).unwrap());
        let mut world = Self {
            fixture,
            telemetry,
            address: unset,
            plain: unset,
            drain,
            reverse,
            opens,
            authority,
            log,
            listening: JoinSet::new(),
            serving: Arc::default(),
            udp: None,
            offers,
            places: Places::new(8, None),
            limits,
            presence: Arc::default(),
            far: Arc::default(),
        };
        world.listen().await;
        world
    }

    fn identity(&self) -> ServerIdentity {
        let identity = self.authority.issue_server(
            &["127.0.0.1".into()],
            Duration::from_secs(3600),
            SystemTime::now(),
        );
        ServerIdentity::new(identity.unwrap())
    }

    /// Bind (the first time anywhere, then at the same place) and serve.
    async fn listen(&mut self) {
        let identity = self.identity();
        let config = tls::server(&identity, &[b"h2", b"http/1.1"]).unwrap();
        let current = Current::new(self.context());
        let (tls, udp) = within("a port for both", async {
            loop {
                let tcp = TcpListener::bind(self.address).await.unwrap();
                match self.bind_udp(&identity, tcp.local_addr().unwrap()) {
                    Some(udp) => return (tcp, udp),
                    // Somebody has it, or the gateway before lets go of it when its tasks have heard.
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        })
        .await;
        self.serve_udp(udp, &current);
        let plain = TcpListener::bind(self.plain).await.unwrap();
        for (acceptor, listener, address) in [
            (Some(TlsAcceptor::from(config)), tls, &mut self.address),
            (None, plain, &mut self.plain),
        ] {
            *address = listener.local_addr().unwrap();
            let (serving, current) = (self.serving.clone(), current.clone());
            let (mut drain, far) = (self.drain.watch(), self.far.clone());
            self.listening.spawn(async move {
                loop {
                    // As the gateway's own: nobody new in a drain, and it waits for who is there.
                    let (tcp, mut downstream) = tokio::select! {
                        () = drain.reached(Stage::Draining) => return,
                        accepted = listener.accept() => accepted.unwrap(),
                    };
                    if far.load(Ordering::SeqCst) {
                        downstream.set_ip([192, 0, 2, 9].into());
                    }
                    tcp.set_nodelay(true).unwrap();
                    let (acceptor, current) = (acceptor.clone(), current.clone());
                    let (ends, ended) = tokio::sync::oneshot::channel::<()>();
                    drain.spawn(async move { drop(ended.await) });
                    serving.lock().unwrap().spawn(async move {
                        let _ends = ends;
                        let secure = acceptor.is_some();
                        let stream = match acceptor {
                            None => Downstream::Plain(tcp),
                            Some(acceptor) => match acceptor.accept(Ahead::from(tcp)).await {
                                Ok(tls) => Downstream::Tls(Box::new(tls)),
                                Err(_) => return,
                            },
                        };
                        let accepted = Accepted::new(stream, downstream);
                        let entry = front::Entry::Http { secure };
                        if let Some(carrying) = front::serve(entry, accepted, current).await {
                            carrying.await;
                        }
                    });
                }
            });
        }
    }

    fn bind_udp(&self, identity: &ServerIdentity, address: SocketAddr) -> Option<UdpListener> {
        let config = tls::quic_server(identity, &[ALPN_RELAY]).unwrap();
        let key = ResetKey::new(&[7; ResetKey::LENGTH]);
        match UdpListener::bind(address, config, &key, 1024) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
            bound => Some(bound.unwrap()),
        }
    }

    fn serve_udp(&mut self, listener: UdpListener, current: &Arc<Current>) {
        self.udp = Some(listener.endpoint());
        let (watch, current) = (self.drain.watch(), current.clone());
        let places = self.places.clone();
        let serve = move |shaken, _| quic::serve(shaken, current.clone(), watch.clone());
        let (telemetry, watch) = (self.telemetry.clone(), self.drain.watch());
        self.listening
            .spawn(accept_quic(listener, places, telemetry, watch, serve));
    }

    /// Nothing that is sent to the gateway over UDP arrives any more, and nothing comes back.
    pub(crate) fn block_udp(&self) {
        // Twice: quinn goes on hearing on the socket before.
        for _ in 0..2 {
            let elsewhere = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            self.udp.as_ref().unwrap().rebind(elsewhere).unwrap();
        }
    }

    /// UDP works again, at the same port.
    pub(crate) async fn unblock_udp(&mut self) {
        let (identity, current) = (self.identity(), Current::new(self.context()));
        let udp = within("the UDP port", async {
            loop {
                match self.bind_udp(&identity, self.address) {
                    Some(udp) => return udp,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        });
        let udp = udp.await;
        self.serve_udp(udp, &current);
    }

    /// A QUIC connection with nothing of the relay client's on it, and its socket.
    pub(crate) async fn quic(&self) -> Result<(quinn::Endpoint, quinn::Connection), String> {
        self.quic_at(self.address, quinn::TransportConfig::default())
            .await
    }

    /// The same to who has the gateway's certificate at this address, with parameters of its own.
    pub(crate) async fn quic_at(
        &self,
        address: SocketAddr,
        transport: quinn::TransportConfig,
    ) -> Result<(quinn::Endpoint, quinn::Connection), String> {
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(self.quic_tls()).unwrap();
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport));
        let socket = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connecting = socket.connect_with(config, address, "127.0.0.1");
        let connected = within("QUIC", connecting.unwrap()).await;
        connected
            .map(|connection| (socket, connection))
            .map_err(|error| error.to_string())
    }

    /// The relay client's TLS, as it is for QUIC.
    pub(crate) fn quic_tls(&self) -> Arc<rustls::ClientConfig> {
        let pem = self.authority.certificate_pem();
        let trust = TrustBundle::empty().with_pem(pem.as_bytes()).unwrap();
        tls::quic_client(&trust, &[ALPN_RELAY]).unwrap()
    }

    /// A QUIC endpoint with the gateway's certificate, served by whoever asks for it.
    pub(crate) fn unserved_quic(&self) -> quinn::Endpoint {
        self.unserved_quic_showing().0
    }

    /// The same, and what it shows.
    pub(crate) fn unserved_quic_showing(&self) -> (quinn::Endpoint, ServerIdentity) {
        let (identity, anywhere) = (self.identity(), "127.0.0.1:0".parse().unwrap());
        let listener = self.bind_udp(&identity, anywhere);
        (listener.unwrap().endpoint(), identity)
    }

    /// What everything is served with.
    pub(crate) fn context(&self) -> Arc<Context> {
        let trust = TrustBundle::empty()
            .with_pem(self.authority.certificate_pem().as_bytes())
            .unwrap();
        let own = Arc::new(OwnAddresses {
            dials: self.fixture.registry.dials().ports().clone(),
            ..OwnAddresses::default()
        });
        let services = Services::new(ServicesConfig {
            connect_timeout: Duration::from_secs(5),
            own: own.clone(),
            resolve: Arc::new(|_| Box::pin(async { Ok(vec![[127, 0, 0, 1].into()]) })),
            tls: tls::client(&trust, &[], None).unwrap(),
            tls_h2: tls::client(&trust, &[b"h2"], None).unwrap(),
            idle_timeout: None,
        });
        let authenticator = self.fixture.registry.authenticator();
        let h2 = h2::Context {
            relay: Endpoint {
                authenticator: authenticator.clone(),
                pool: Pool::new(services.clone(), self.drain.watch()),
                services,
                presence: self.presence.clone(),
                opens: self.opens.clone(),
                reverse: self.reverse.clone(),
                http: HttpContext {
                    telemetry: self.telemetry.clone(),
                    detail: Detail::Full,
                    timeouts: Timeouts {
                        head: Duration::from_secs(10),
                        first_bytes: Duration::from_secs(10),
                        dial: Duration::from_secs(5),
                        idle: Duration::ZERO,
                        response: Duration::ZERO,
                        max_head: 64 << 10,
                        pending_opens: 1024,
                    },
                    drain: self.drain.watch(),
                },
                limits: self.limits,
            },
            telemetry: self.telemetry.clone(),
            detail: Detail::Full,
            limits: self.limits,
        };
        let egress = Arc::new(Egress {
            resolver: Resolver::new(&ResolverConfig::default()).unwrap(),
            admission: Arc::new(Admission {
                own,
                ..Admission::default()
            }),
            timeouts: Timeouts::default(),
            proxy: None,
        });
        Arc::new(Context {
            authenticator,
            ways: Ways::new(egress.clone()),
            egress,
            pool: Arc::default(),
            telemetry: self.telemetry.clone(),
            detail: Detail::Full,
            pseudonym: "test".into(),
            h2: Arc::new(h2),
            drain: self.drain.watch(),
        })
    }

    /// The gateway dies without a word and comes back at the same place, session store and all.
    pub(crate) async fn crash_and_return(&mut self) {
        // Without the socket its connections cannot say goodbye.
        self.block_udp();
        self.listening.shutdown().await;
        let mut serving = std::mem::take(&mut *self.serving.lock().unwrap());
        serving.shutdown().await;
        self.drain = Drain::default();
        let opens = Opens::open(&self.fixture.dir.path().join(OPENS));
        self.opens = Arc::new(opens.unwrap());
        self.listen().await;
    }

    /// A session with these services (YAML flow mapping); the value of its relay token.
    pub(crate) async fn session(&self, id: &str, services: &str) -> String {
        self.session_of(&format!("{{id: {id}, services: {services}}}"))
            .await
    }

    /// A session by its whole request; the value of its relay token.
    pub(crate) async fn session_of(&self, source: &str) -> String {
        let issued = self
            .fixture
            .registry
            .create("local".into(), request(source))
            .await
            .unwrap();
        let env = issued.bundle.unwrap().env;
        env.iter()
            .find(|(name, _)| name == "SLUICEGATE_RELAY_TOKEN")
            .unwrap()
            .1
            .as_str()
            .to_owned()
    }

    /// Whom its clients trust.
    pub(crate) fn trust(&self) -> TrustBundle {
        TrustBundle::empty()
            .with_pem(self.authority.certificate_pem().as_bytes())
            .unwrap()
    }

    /// Where the host dials this listener of the session.
    pub(crate) fn dial_target(&self, id: &str, listener: &str) -> String {
        let view = self.fixture.registry.show(&self.fixture.key(id)).unwrap();
        view["dialTargets"][listener].as_str().unwrap().to_owned()
    }

    /// A metric's sample, written with its labels as the text has them.
    pub(crate) fn metric(&self, sample: &str) -> f64 {
        let text = self.telemetry.render();
        let value = text.lines().find_map(|line| line.strip_prefix(sample));
        value.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    /// Until as many accept streams wait.
    pub(crate) async fn offered(&self, wanted: f64) {
        within("accept streams", async {
            let mut tick = tokio::time::interval(Duration::from_millis(5));
            while self.metric("sluicegate_accept_streams_waiting ") < wanted {
                tick.tick().await;
            }
        })
        .await;
    }

    /// A relay client over TLS and HTTP/2.
    pub(crate) fn client(&self, token: &str) -> Client {
        self.client_over(Choice::Only(Transport::H2), token)
    }

    /// A relay client over what it may choose from.
    pub(crate) fn client_over(&self, transport: Choice, token: &str) -> Client {
        self.client_at(self.address, transport, token)
    }

    /// A middlebox that terminates TLS, with these ALPN names, in front of the gateway's plain listener.
    pub(crate) async fn middlebox(&self, tasks: &mut JoinSet<()>, alpn: &[&[u8]]) -> SocketAddr {
        let config = tls::server(&self.identity(), alpn).unwrap();
        let acceptor = TlsAcceptor::from(config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, gateway) = (listener.local_addr().unwrap(), self.plain);
        tasks.spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                passing.spawn(async move {
                    let (Ok(mut near), Ok(mut far)) = (
                        acceptor.accept(tcp).await,
                        TcpStream::connect(gateway).await,
                    ) else {
                        return;
                    };
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        address
    }

    /// A relay client with a key of its own.
    pub(crate) fn client_holding(&self, key: ClientKey, transport: Choice, token: &str) -> Client {
        let tls = Tls::new(&self.trust()).unwrap().with_key(key);
        self.client_by(tls, self.address, transport, token)
    }

    /// A relay client of what is at this address.
    pub(crate) fn client_at(&self, address: SocketAddr, transport: Choice, token: &str) -> Client {
        let tls = Tls::new(&self.trust()).unwrap();
        self.client_by(tls, address, transport, token)
    }

    fn client_by(&self, tls: Tls, address: SocketAddr, transport: Choice, token: &str) -> Client {
        let config = SessionConfig {
            endpoint: Url::parse(&format!("https://{address}")).unwrap(),
            tls,
            token: token.into(),
            transport,
            backoff: Backoff::new(Duration::from_millis(20), Duration::from_millis(200)),
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        Client {
            session: Session::start(config, &tasks, stop.child_token()),
            tasks,
            stop,
        }
    }

    /// A TLS service's identity, trusted by the gateway.
    pub(crate) fn service_tls(&self, name: &str) -> TlsAcceptor {
        let identity = self.authority.issue_server(
            &[name.into()],
            Duration::from_secs(3600),
            SystemTime::now(),
        );
        TlsAcceptor::from(tls::server(&ServerIdentity::new(identity.unwrap()), &[]).unwrap())
    }

    /// Access records so far, as JSON.
    pub(crate) fn records(&self) -> Vec<serde_json::Value> {
        self.telemetry.access().flush();
        let text = std::fs::read_to_string(&self.log).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The record that says so, awaited: it is written when the last task of a stream lets go.
    pub(crate) async fn record(
        &self,
        wanted: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let mut live = self.telemetry.access().subscribe();
        if let Some(found) = self.records().into_iter().find(|record| wanted(record)) {
            return found;
        }
        within("record", async {
            loop {
                let line = live.recv().await.unwrap();
                let record = serde_json::from_str(&line).unwrap();
                if wanted(&record) {
                    return record;
                }
            }
        })
        .await
    }
}

/// A relay client and what runs it.
pub(crate) struct Client {
    pub(crate) session: Session,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Client {
    /// A local TCP address that leads to the service.
    pub(crate) async fn forward(&self, service: &str) -> SocketAddr {
        use sluicegate_relay::{
            forward::forward,
            listen::{Address, Listener},
        };
        let listener = Listener::bind(&Address::Tcp("127.0.0.1:0".parse().unwrap()))
            .await
            .unwrap();
        let Address::Tcp(address) = listener.address().unwrap() else {
            unreachable!("asked for TCP")
        };
        let work = forward(
            listener,
            service.into(),
            self.session.clone(),
            false,
            Tasks::default(),
            self.stop.child_token(),
        );
        self.tasks.spawn(work);
        address
    }
}

impl Client {
    /// Offer this local address to the host.
    pub(crate) fn expose(&self, listener: &str, url: &str) {
        use sluicegate_relay::{expose::expose, listen::Address};
        self.tasks.spawn(expose(
            listener.into(),
            Address::parse(url).unwrap(),
            self.session.clone(),
            Tasks::default(),
            self.stop.child_token(),
        ));
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What a service does with each connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    /// Gives back what comes, FIN for FIN.
    Echo,
    /// Reads to the FIN, then answers with its digest.
    Digest,
    /// Reads nothing, for ever.
    Frozen,
}

/// A TCP service on loopback; its URL.
pub(crate) async fn tcp_service(tasks: &mut JoinSet<()>, manner: Manner) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((tcp, _)) = listener.accept().await {
            open.spawn(async move { drop(serve(tcp, manner).await) });
        }
    });
    url
}

/// A unix service; its URL.
pub(crate) fn unix_service(
    tasks: &mut JoinSet<()>,
    path: &std::path::Path,
    manner: Manner,
) -> String {
    let listener = UnixListener::bind(path).unwrap();
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.spawn(async move { drop(serve(stream, manner).await) });
        }
    });
    format!("unix://{}", path.display())
}

/// A TLS service on loopback; its URL by name.
pub(crate) async fn tls_service(
    tasks: &mut JoinSet<()>,
    acceptor: TlsAcceptor,
    name: &str,
    manner: Manner,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tls://{name}:{}", listener.local_addr().unwrap().port());
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            open.spawn(async move {
                if let Ok(tls) = acceptor.accept(tcp).await {
                    drop(serve(tls, manner).await);
                }
            });
        }
    });
    url
}

async fn serve(
    mut io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    manner: Manner,
) -> io::Result<()> {
    match manner {
        Manner::Echo => {
            let (mut read, mut write) = tokio::io::split(io);
            tokio::io::copy(&mut read, &mut write).await?;
            write.shutdown().await
        }
        Manner::Digest => {
            let digest = digest(&mut io).await?;
            io.write_all(&digest).await?;
            io.shutdown().await
        }
        Manner::Frozen => std::future::pending().await,
    }
}

/// SHA-256 of everything to the end.
pub(crate) async fn digest(io: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    use sha2::Digest;
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match io.read(&mut buffer).await? {
            0 => return Ok(hash.finalize().to_vec()),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// Ask, end, and take the whole answer.
pub(crate) async fn call(address: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut tcp = TcpStream::connect(address).await?;
    tcp.write_all(question).await?;
    tcp.shutdown().await?;
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await?;
    Ok(answer)
}
