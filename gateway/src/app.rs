//! The composition root: configuration in, a running gateway out.
//!
//! [`App::build`] binds and opens everything, so that what cannot work fails before anything is served; [`App::run`]
//! serves until told to stop, then goes down in order.

mod assemble;
mod identity;
mod probe;
mod reload;
mod webhooks;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{net::UnixListener, sync::Notify};

pub use assemble::StartError;
pub(crate) use assemble::policy_config;
use identity::PublicIdentity;
use reload::Reloader;

use crate::{
    admin,
    config::{Config, StateDir},
    drain::Drain,
    front::{self, Current, Entry},
    listen::{
        self, Arrival, Carrying, Listener, ListenerKind, Places, Spoken, UdpListener, accept_loop,
        accept_quic,
    },
    probe::{Inside, Prober, Targets},
    relay::{Opens, Presence, Reverse},
    session::Registry,
    telemetry::Telemetry,
};

/// What a gateway is started with.
#[derive(Debug)]
pub struct Options {
    /// The configuration.
    pub config: Config,
    /// Where it was read from; a reload reads it again.
    pub config_file: Option<PathBuf>,
    /// Where state is kept.
    pub state_dir: StateDir,
}

/// A gateway that is bound and open, not yet serving.
pub struct App {
    parts: Arc<Parts>,
    inside: Inside,
    listeners: Vec<(Listener, (Arrival, Entry))>,
    quic: Vec<UdpListener>,
    admin_socket: UnixListener,
    drain: Arc<Drain>,
    places: Arc<Places>,
    /// Those of hosts, on the private listener.
    host_places: Arc<Places>,
    settings: Settings,
}

/// What lives as long as the process, shared with reload and the admin API.
struct Parts {
    current: Arc<Current>,
    registry: Arc<Registry>,
    telemetry: Telemetry,
    reverse: Reverse,
    gestalt: Arc<crate::auth::Gestalt>,
    identity: PublicIdentity,
    prober: Arc<Prober>,
    presence: Arc<Presence>,
    opens: Arc<Opens>,
    /// What probes are made against, for the plan of a new configuration.
    targets: Targets,
    token: Arc<crate::auth::AdminToken>,
    credentials: Arc<crate::auth::AdminCredentials>,
    state_dir: StateDir,
    addresses: Vec<(ListenerKind, SocketAddr)>,
    /// Where QUIC is served.
    udp: Vec<SocketAddr>,
    asked_to_stop: Arc<Notify>,
    started: Instant,
}

/// What is fixed at the start.
struct Settings {
    drain_timeout: Duration,
    allowed_hosts: Arc<[String]>,
    allowed_origins: Arc<[String]>,
    reloader: Arc<Reloader>,
    hooks: Vec<crate::webhook::Hook>,
    board: Arc<crate::webhook::Board>,
    seats: Arc<admin::Seats>,
}

/// Between being unready and asking connections to end: long enough for a balancer to look once more.
const SETTLE: Duration = Duration::from_millis(500);
/// QUIC peers are told that it is over; this is for their last packets.
const FLUSH: Duration = Duration::from_millis(500);
/// Idle upstream connections are looked through this often.
const REAP: Duration = Duration::from_secs(10);
/// Tokens that are sessions themselves are looked through this often: what is open with one ends with it.
const EXPIRE: Duration = Duration::from_secs(1);
/// Certificates of ours are looked at this often.
const RENEW: Duration = Duration::from_secs(3600);

impl App {
    /// Where it listens, ports resolved.
    pub fn addresses(&self) -> &[(ListenerKind, SocketAddr)] {
        &self.parts.addresses
    }

    /// The first listener of a kind.
    pub fn address(&self, kind: ListenerKind) -> Option<SocketAddr> {
        self.parts
            .addresses
            .iter()
            .find(|(k, _)| *k == kind)
            .map(|(_, address)| *address)
    }

    /// The sessions.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.parts.registry
    }

    /// What everything is served with, now and after each reload.
    pub fn current(&self) -> Arc<Current> {
        self.parts.current.clone()
    }

    /// Records and metrics.
    pub fn telemetry(&self) -> &Telemetry {
        &self.parts.telemetry
    }

    /// The file that holds the admin token.
    pub fn admin_token_file(&self) -> &Path {
        self.parts.token.path()
    }

    /// Apply the configuration file again, from outside (SIGHUP).
    pub fn reload_handle(
        &self,
    ) -> impl Fn() -> admin::BoxFuture<Result<String, String>> + Send + Sync + 'static {
        let (reloader, parts) = (self.settings.reloader.clone(), self.parts.clone());
        move || {
            let (reloader, parts) = (reloader.clone(), parts.clone());
            Box::pin(reloader.reload(parts))
        }
    }

    /// Serve until `shutdown` resolves or an operator asks for a drain; then go down: refuse new work, ask the old to
    /// end, and after the drain timeout cut what is left. Returns how many connections had to be cut.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> usize {
        let reload = self.reload_handle();
        let registry = self.parts.registry.clone();
        // What ended while the gateway was away is over before anybody comes in.
        let swept = tokio::task::spawn_blocking(move || registry.sweep_once(SystemTime::now()));
        if let Err(error) = swept.await {
            tracing::error!(%error, "the first sweep broke off: nobody is let in before one has not");
            self.parts.registry.note_sweep(false);
        }
        let Self {
            parts,
            inside,
            listeners,
            quic,
            admin_socket,
            drain,
            places,
            host_places,
            settings,
        } = self;
        let watch = drain.watch();
        let state = admin_state(&parts, &settings, Arc::new(reload), watch.clone());
        let router = admin::router(state);
        watch.spawn_service(admin::serve_unix(
            admin_socket,
            router.clone(),
            watch.clone(),
        ));
        if let Some(offers) = parts.registry.dials().take_offers() {
            watch.spawn_service(parts.reverse.clone().serve(offers));
        }
        let endpoints: Vec<_> = quic.iter().map(UdpListener::endpoint).collect();
        for listener in quic {
            let (shared, drain) = (parts.clone(), watch.clone());
            watch.spawn_service(accept_quic(
                listener,
                places.clone(),
                parts.telemetry.clone(),
                watch.clone(),
                move |shaken, spoken| {
                    let (current, drain) = (shared.current.clone(), drain.clone());
                    async move {
                        match spoken {
                            Spoken::Relay => {
                                front::quic::serve(shaken, current, drain).await;
                            }
                            Spoken::Http3 => front::h3::serve(shaken, current, drain).await,
                        }
                    }
                },
            ));
        }
        for (listener, (arrival, entry)) in listeners {
            let telemetry = parts.telemetry.clone();
            match listener.kind {
                ListenerKind::Management => {
                    let (router, drain) = (router.clone(), watch.clone());
                    // Operators are not kept out by a crowd of sandboxes, nor one source by another that only connects.
                    let seats = settings.seats.clone();
                    let own = u32::try_from(seats.at_once() * 3 / 4).unwrap_or(u32::MAX);
                    let places = Places::new(seats.at_once(), Some(own));
                    watch.spawn_service(accept_loop(
                        listener,
                        arrival,
                        places,
                        telemetry,
                        watch.clone(),
                        move |accepted| {
                            let (router, drain) = (router.clone(), drain.clone());
                            let seat = Some(seats.enter());
                            let serving =
                                admin::serve_connection(accepted.stream, router, drain, seat);
                            async move { Some(Box::pin(serving) as Carrying) }
                        },
                    ));
                }
                ListenerKind::Private => {
                    let (reverse, registry) = (parts.reverse.clone(), parts.registry.clone());
                    watch.spawn_service(accept_loop(
                        listener,
                        arrival,
                        host_places.clone(),
                        telemetry,
                        watch.clone(),
                        move |accepted| {
                            let carrying = reverse.private(accepted, &registry);
                            async move { carrying }
                        },
                    ));
                }
                ListenerKind::Public
                | ListenerKind::Plain
                | ListenerKind::Socks
                | ListenerKind::Transparent
                | ListenerKind::Sni => {
                    let current = parts.current.clone();
                    watch.spawn_service(accept_loop(
                        listener,
                        arrival,
                        places.clone(),
                        telemetry,
                        watch.clone(),
                        move |accepted| front::serve(entry.clone(), accepted, current.clone()),
                    ));
                }
            }
        }
        watch.spawn_service(
            parts
                .registry
                .clone()
                .sweep(parts.telemetry.clone(), watch.clone()),
        );
        watch.spawn_service(
            parts
                .registry
                .clone()
                .verify_now_and_then(parts.telemetry.clone(), watch.clone()),
        );
        watch.spawn_service(inside.serve(watch.clone()));
        watch.spawn_service(parts.prober.clone().run(watch.clone()));
        for hook in settings.hooks {
            let current = parts.current.clone();
            watch.spawn_service(crate::webhook::run(
                hook,
                parts.registry.clone(),
                Arc::new(move || current.now()),
                settings.board.clone(),
                watch.clone(),
            ));
        }
        watch.spawn_service(housekeeping(parts.clone(), watch.clone()));
        parts.telemetry.metrics().ready(true);
        tokio::select! {
            () = shutdown => {}
            () = parts.asked_to_stop.notified() => {}
        }
        parts.telemetry.metrics().ready(false);
        tracing::info!("draining");
        parts.telemetry.draining();
        let cut = drain.run(SETTLE, settings.drain_timeout).await;
        let registry = parts.registry.clone();
        let _ = tokio::task::spawn_blocking(move || registry.save_usage()).await;
        listen::flush(&endpoints, FLUSH).await;
        let _ = std::fs::remove_file(parts.state_dir.file("admin.sock"));
        parts.telemetry.access().flush();
        cut
    }
}

fn admin_state(
    parts: &Arc<Parts>,
    settings: &Settings,
    reload: Arc<dyn Fn() -> admin::BoxFuture<Result<String, String>> + Send + Sync>,
    watch: crate::drain::DrainWatch,
) -> admin::State {
    let ready = {
        let (watch, registry) = (watch.clone(), parts.registry.clone());
        move || {
            if watch.refusing() {
                return Err("draining".to_owned());
            }
            if registry.index().readable() {
                Ok(())
            } else {
                Err("the session store cannot be read".to_owned())
            }
        }
    };
    let status = {
        let parts = parts.clone();
        move || {
            let listeners: Vec<_> = parts
                .addresses
                .iter()
                .map(|(kind, address)| {
                    let quic = *kind == ListenerKind::Public && parts.udp.contains(address);
                    let mut transports = kind.transports().to_vec();
                    if quic {
                        transports.insert(0, "QUIC");
                    }
                    serde_json::json!({
                        "kind": kind.label(),
                        "address": address.to_string(),
                        "transports": transports,
                    })
                })
                .collect();
            serde_json::json!({
                "version": env!("CARGO_PKG_VERSION"),
                "uptimeSeconds": parts.started.elapsed().as_secs(),
                "listeners": listeners,
            })
        }
    };
    let stop = parts.asked_to_stop.clone();
    let admission = {
        let parts = parts.clone();
        move || parts.current.now().egress.admission.clone()
    };
    admin::State {
        registry: parts.registry.clone(),
        telemetry: parts.telemetry.clone(),
        prober: parts.prober.clone(),
        credentials: parts.credentials.clone(),
        webhooks: settings.board.clone(),
        allowed_hosts: settings.allowed_hosts.clone(),
        allowed_origins: settings.allowed_origins.clone(),
        admission: Arc::new(admission),
        trials: admin::Trials::default(),
        drain: Arc::new(move || stop.notify_one()),
        reload,
        ready: Arc::new(ready),
        status: Arc::new(status),
        tasks: watch,
    }
}

/// What has to be looked at now and then.
async fn housekeeping(parts: Arc<Parts>, mut watch: crate::drain::DrainWatch) {
    let mut reap = tokio::time::interval(REAP);
    let mut renew = tokio::time::interval(RENEW);
    let mut expire = tokio::time::interval(EXPIRE);
    loop {
        tokio::select! {
            () = watch.reached(crate::drain::Stage::Forced) => return,
            _ = reap.tick() => parts.current.now().pool.reap(),
            _ = expire.tick() => parts.gestalt.sweep(SystemTime::now()),
            _ = renew.tick() => {
                if let Err(error) = parts.identity.renew(SystemTime::now()) {
                    tracing::error!(%error, "the certificate of the public listener could not be renewed");
                }
            }
        }
    }
}
