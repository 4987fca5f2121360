//! Configuration to parts: each module's own settings from the one document.

mod context;
mod listeners;
mod loss;
mod sessions;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime},
};

use sluicegate_certs::CertError;
use sluicegate_relay::listen::replace_private_socket;
use tokio::{net::UnixListener, sync::Notify};

pub(super) use context::{context, resolver_config};
use listeners::{bind, bind_udp, entries, private_tls};
use sessions::credential;
pub(crate) use sessions::policy_config;
pub(super) use sessions::{external, gestalt, public_url, registry_config};

use super::{App, Options, Parts, PublicIdentity, Settings, probe, reload::Reloader};
use crate::{
    admin::Seats,
    auth::{self, AdminCredentials, AdminToken, AdminTokenError, Gestalt, KeyError, Keys},
    config::{self, Config, StateDir},
    drain::Drain,
    egress::ResolveError,
    front::Current,
    listen::{ListenerKind, Places},
    probe::{Inside, Prober},
    relay::{Opens, Presence, Reverse},
    session::{Registry, RegistryError},
    store::{EmbeddedStore, StoreError},
    telemetry::{AccessLog, AccessSink, Telemetry},
};

/// The gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address} ({kind}): is another process there, or the address not ours?"
    )]
    Listen {
        /// The listener's kind.
        kind: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The roots of a management listener's clients, or of a webhook.
    #[error("cannot read the CA file {}", .path.display())]
    ClientCa {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What the configuration's reader has admitted, refused.
    #[error("webhook {0:?} may not connect to its own address")]
    Webhook(String),
    /// The credential for the upstream proxy.
    #[error("cannot read upstreamProxy.credentialFile")]
    ProxyCredential(#[source] auth::PrivateFileError),
    /// It holds none.
    #[error("{0:?} holds no user:password, or does not exist")]
    NoProxyCredential(std::path::PathBuf),
    /// What the configuration's reader has admitted, refused.
    #[error("the upstream proxy may not be dialled at its own address")]
    UpstreamProxy,
    /// The admin socket cannot be made.
    #[error("cannot make the admin socket in the state directory")]
    AdminSocket(#[source] io::Error),
    /// The probe's own service and canary cannot be made.
    #[error("cannot make the socket and the port that probes are made against")]
    Probe(#[source] io::Error),
    /// What the probe's own session may reach cannot be written down.
    #[error("the probe's own session: {0}")]
    ProbeGrant(String),
    /// The access log cannot be opened.
    #[error("cannot open the access log")]
    AccessLog(#[source] io::Error),
    /// Certificates and keys for TLS.
    #[error("cannot set up TLS")]
    Tls(#[from] CertError),
    /// Signing keys.
    #[error("cannot open the signing keys")]
    Keys(#[from] KeyError),
    /// The secret of stateless resets.
    #[error("cannot open quic-reset.key in the state directory")]
    ResetKey(#[source] auth::PrivateFileError),
    /// The memory of opened relay streams.
    #[error(
        "cannot write {0}: remove what stands there, or there as relay-opens.new (nothing else is lost by that: streams that were opened just before are not opened again)"
    )]
    Opens(PathBuf, #[source] io::Error),
    /// The admin token.
    #[error("cannot open the admin token")]
    AdminToken(#[from] AdminTokenError),
    /// The key of gestaltd's tokens.
    #[error("cannot open the key of compat.gestalt")]
    Gestalt(#[from] auth::GestaltError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The sessions in the store.
    #[error("cannot restore sessions")]
    Registry(#[from] RegistryError),
    /// The resolver.
    #[error("cannot set up name resolution")]
    Resolver(#[from] ResolveError),
    /// No randomness.
    #[error("the system gives no randomness")]
    Randomness(#[from] getrandom::Error),
    /// This machine's own addresses.
    #[error("cannot list this machine's addresses")]
    Interfaces(#[source] io::Error),
}

impl App {
    /// Bind every listener, open store, keys, certificates and logs.
    ///
    /// # Errors
    /// The first thing that cannot work, and what to do about it.
    pub async fn build(options: Options) -> Result<Self, StartError> {
        let Options {
            config,
            config_file,
            state_dir,
        } = options;
        let now = SystemTime::now();
        let config = config.in_state_dir(state_dir.path());
        let identity = PublicIdentity::open(&config, &state_dir, now)?;
        let (listeners, own_tls) = bind(&config)?;
        let private = private_tls(&config, &identity)?;
        let served = entries(&config, &listeners, &identity, &own_tls, private.as_ref());
        let quic = bind_udp(&config, &listeners, &identity, &state_dir)?;
        let udp = quic.iter().map(|listener| listener.address).collect();
        let addresses: Vec<_> = listeners.iter().map(|l| (l.kind, l.address)).collect();
        let telemetry =
            Telemetry::new(AccessLog::open(&access_sink(&config)).map_err(StartError::AccessLog)?)?;
        let store_file = config
            .store
            .path
            .clone()
            .unwrap_or_else(|| state_dir.file("sluicegate.redb"));
        if let Some(warning) = loss::of(&config, &state_dir, &store_file) {
            tracing::warn!(store = %store_file.display(), "{warning}");
        }
        let keys = Arc::new(match &config.keys {
            None => Keys::load_or_create(&state_dir.file("keys"))?,
            Some(keys) => Keys::external(external(keys))?,
        });
        let token = Arc::new(AdminToken::load_or_create(&token_file(
            &config, &state_dir,
        ))?);
        let credentials = Arc::new(admin_credentials(&config, &token)?);
        let store = Arc::new(EmbeddedStore::open(&store_file)?);
        let sessions = registry_config(&config, &addresses, &identity, &state_dir);
        let registry = Registry::open(store, keys, sessions.clone(), now)?;
        let gestalt = {
            let registry = registry.clone();
            Gestalt::new(registry.index().clone(), move |namespace| {
                registry.budget_of(namespace, None)
            })
        };
        gestalt.follow(self::gestalt(&config))?;
        let admin_path = state_dir.file("admin.sock");
        let admin_socket = replace_private_socket(&admin_path)
            .and_then(UnixListener::from_std)
            .map_err(StartError::AdminSocket)?;
        let drain = Arc::new(Drain::default());
        let presence = Arc::<Presence>::default();
        let reverse = Reverse::new(telemetry.clone(), drain.watch());
        let memory = state_dir.file("relay-opens");
        let opens = Opens::open(&memory);
        let opens = Arc::new(opens.map_err(|error| StartError::Opens(memory, error))?);
        let context = context(
            &config,
            &addresses,
            &registry,
            &telemetry,
            &reverse,
            drain.watch(),
            presence.clone(),
            opens.clone(),
            gestalt.clone(),
            None,
        )?;
        let inside = Inside::bind(state_dir.file("probe.sock"))
            .await
            .map_err(StartError::Probe)?;
        let plan = probe::plan(
            &config,
            &sessions,
            &addresses,
            &identity,
            &context,
            &inside.targets(),
        )?;
        let prober = Prober::new(registry.clone(), telemetry.clone(), presence.clone(), plan);
        let parts = Parts {
            prober,
            presence,
            opens,
            targets: inside.targets(),
            current: Current::new(Arc::new(context)),
            registry,
            telemetry,
            reverse,
            gestalt,
            identity,
            token,
            credentials,
            state_dir,
            addresses,
            udp,
            asked_to_stop: Arc::new(Notify::new()),
            started: Instant::now(),
        };
        let hooks = super::webhooks::hooks(&config)?;
        for hook in &hooks {
            // What happens from the first moment on is theirs to hear of.
            parts.registry.webhook_cursor_at(&hook.name)?;
        }
        let settings = Settings {
            hooks,
            board: Arc::default(),
            seats: Seats::new(
                config.admin.connections,
                config.admin.requests_per_credential,
            ),
            drain_timeout: config.limits.drain_timeout,
            allowed_hosts: allowed_hosts(&config, &parts).into(),
            allowed_origins: config.admin.allowed_origins.clone().into(),
            reloader: Arc::new(Reloader::new(config_file, config.clone(), drain.watch())),
        };
        let places = Places::new(
            config.limits.connections as usize,
            config.limits.connections_per_source,
        );
        Ok(Self {
            parts: Arc::new(parts),
            inside,
            listeners: listeners.into_iter().zip(served).collect(),
            quic,
            admin_socket,
            drain,
            places,
            host_places: host_places(config.limits.connections),
            settings,
        })
    }
}

/// Places on the private listener: as many as all sandboxes have, who do not keep hosts out. Nor does one host that only
/// connects keep out the others.
fn host_places(connections: u32) -> Arc<Places> {
    let own = connections - connections / 4;
    Places::new(connections as usize, Some(own))
}

fn access_sink(config: &Config) -> AccessSink {
    match &config.telemetry.access_log {
        config::AccessLog::Stdout => AccessSink::Stdout,
        config::AccessLog::Stderr => AccessSink::Stderr,
        config::AccessLog::None => AccessSink::None,
        config::AccessLog::File(path) => AccessSink::File(path.clone()),
    }
}

/// Where the operator's token is.
pub(super) fn token_file(config: &Config, state_dir: &StateDir) -> PathBuf {
    let own = config.admin.token_file.clone();
    own.unwrap_or_else(|| state_dir.file("admin.token"))
}

/// The operator's token, and the configuration's credentials as their files are now.
pub(super) fn admin_credentials(
    config: &Config,
    token: &AdminToken,
) -> Result<AdminCredentials, StartError> {
    let sources: Vec<_> = config.admin.credentials.iter().map(credential).collect();
    Ok(AdminCredentials::load(token, &sources)?)
}

/// Hosts the admin API answers to besides loopback ones: the configuration's, and its listeners' own addresses.
fn allowed_hosts(config: &Config, parts: &Parts) -> Vec<String> {
    let context = parts.current.now();
    let interfaces = context.egress.admission.own.interfaces.list();
    let listening = parts.addresses.iter();
    let own = listening
        .filter(|(kind, _)| *kind == ListenerKind::Management)
        .flat_map(|(_, address)| match address.ip() {
            ip if ip.is_unspecified() => interfaces.to_vec(),
            ip => vec![ip],
        });
    let own = own.map(|ip| match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    });
    config
        .admin
        .allowed_hosts
        .iter()
        .cloned()
        .chain(own)
        .collect()
}
