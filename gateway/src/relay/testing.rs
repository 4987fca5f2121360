//! A gateway's HTTP/2 front on a real listener with real TLS, and a real session: what a test sees of it from inside. Who is at its
//! ends has a room of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod ends;

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use sluicegate_certs::{Authority, ServerIdentity, TrustBundle, tls};
use sluicegate_policy::{Admission, OwnAddresses};
use sluicegate_relay::flow::Ahead;
use sluicegate_relay_protocol::ALPN_RELAY;
use tokio::{
    net::TcpListener,
    sync::mpsc::UnboundedReceiver,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_rustls::TlsAcceptor;

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

pub(crate) use ends::{
    Client, Manner, TRANSPORTS, call, digest, tcp_service, tls_service, unix_service,
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

/// `work`, and how long it took: in time that this process had. While the machine has none for us, no promise is broken.
pub(crate) async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    const STEP: Duration = Duration::from_millis(10);
    let mut tick = interval_at(Instant::now() + STEP, STEP);
    // One after the other: what was missed is not made up for.
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut work = pin!(work);
    let mut passed = Duration::ZERO;
    loop {
        tokio::select! {
            biased;
            done = &mut work => return (done, passed),
            _ = tick.tick() => passed += STEP,
        }
    }
}

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
