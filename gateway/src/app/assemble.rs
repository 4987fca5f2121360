//! Configuration to parts: each module's own settings from the one document.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use sluicegate_certs::{CertError, Identity, ServerIdentity, TrustBundle, tls};
use sluicegate_policy::{Admission, HostName, OwnAddresses, Target};
use tokio::sync::Notify;

use super::{App, Options, Parts, PublicIdentity, Settings, probe, reload::Reloader};
use crate::{
    admin,
    auth::{
        self, AdminCredentials, AdminToken, AdminTokenError, CredentialSource, ExternalKey,
        ExternalKeys, KeyError, Keys, Principal, Scope, TokenSource,
    },
    config::{self, Config, DnsTransport},
    drain::{Drain, DrainWatch},
    egress::{Egress, NameServer, ResolveError, Resolver, ResolverConfig, Timeouts},
    front::{Context, Detail, Pool, h2},
    listen::{Listener, ListenerKind, Places, ResetKey, UdpListener},
    probe::{Inside, Prober},
    relay::{self, Endpoint, HttpContext, Presence, Reverse, Services, ServicesConfig},
    session::{
        self, BundleContext, DialConfig, ProviderConfig, PublicUrl, Registry, RegistryConfig,
        RegistryError, lifecycle,
    },
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
    /// The admin token.
    #[error("cannot open the admin token")]
    AdminToken(#[from] AdminTokenError),
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
        let (listeners, management_tls) = bind(&config)?;
        let quic = bind_udp(&config, &listeners, &identity, &state_dir)?;
        let udp = quic.iter().map(|listener| listener.address).collect();
        let addresses: Vec<_> = listeners.iter().map(|l| (l.kind, l.address)).collect();
        let telemetry =
            Telemetry::new(AccessLog::open(&access_sink(&config)).map_err(StartError::AccessLog)?)?;
        let keys = Arc::new(match &config.keys {
            None => Keys::load_or_create(&state_dir.file("keys"))?,
            Some(keys) => Keys::external(external(keys))?,
        });
        let token_file = config
            .admin
            .token_file
            .clone()
            .unwrap_or_else(|| state_dir.file("admin.token"));
        let token = Arc::new(AdminToken::load_or_create(&token_file)?);
        let sources: Vec<_> = config.admin.credentials.iter().map(credential).collect();
        let credentials = Arc::new(AdminCredentials::load(&token, &sources)?);
        let store_file = config
            .store
            .path
            .clone()
            .unwrap_or_else(|| state_dir.file("sluicegate.redb"));
        let store = Arc::new(EmbeddedStore::open(&store_file)?);
        let registry = Registry::open(
            store,
            keys,
            registry_config(&config, &addresses, &identity, &state_dir),
            now,
        )?;
        let admin_path = state_dir.file("admin.sock");
        let admin_socket = admin::bind_unix(&admin_path).map_err(StartError::AdminSocket)?;
        let drain = Arc::new(Drain::default());
        let presence = Arc::<Presence>::default();
        let reverse = Reverse::new(telemetry.clone(), drain.watch());
        let private_tls = private_tls(&config, &identity)?;
        let context = context(
            &config,
            &addresses,
            &registry,
            &telemetry,
            &reverse,
            drain.watch(),
            presence.clone(),
        )?;
        let inside = Inside::bind(state_dir.file("probe.sock"))
            .await
            .map_err(StartError::Probe)?;
        let plan = probe::plan(&config, &addresses, &identity, &context, &inside.targets())?;
        let prober = Prober::new(registry.clone(), telemetry.clone(), presence.clone(), plan);
        let parts = Parts {
            prober,
            presence,
            targets: inside.targets(),
            context: ArcSwap::from_pointee(context),
            registry,
            telemetry,
            reverse,
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
        let settings = Settings {
            hooks,
            board: Arc::default(),
            drain_timeout: config.limits.drain_timeout,
            allowed_hosts: config.admin.allowed_hosts.clone().into(),
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
            listeners,
            quic,
            management_tls,
            private_tls,
            admin_socket,
            drain,
            places,
            settings,
        })
    }
}

type ManagementTls = Vec<(SocketAddr, Arc<rustls::ServerConfig>)>;

fn bind(config: &Config) -> Result<(Vec<Listener>, ManagementTls), StartError> {
    let mut listeners = Vec::new();
    let mut management = Vec::new();
    for wanted in &config.listeners {
        let kind = match wanted.kind {
            config::ListenerKind::Public => ListenerKind::Public,
            config::ListenerKind::Plain => ListenerKind::Plain,
            config::ListenerKind::Management => ListenerKind::Management,
            config::ListenerKind::Private => ListenerKind::Private,
        };
        let listener =
            Listener::bind(kind, wanted.address).map_err(|source| StartError::Listen {
                kind: kind.label(),
                address: wanted.address,
                source,
            })?;
        if let (Some(files), ListenerKind::Management) = (&wanted.tls, kind) {
            let identity = ServerIdentity::new(Identity::load(&files.certificate, &files.key)?);
            let tls = match &wanted.client_ca {
                None => tls::server(&identity, &[b"http/1.1"])?,
                Some(file) => {
                    let pem = std::fs::read(file).map_err(|source| StartError::ClientCa {
                        path: file.clone(),
                        source,
                    })?;
                    let roots = TrustBundle::empty().with_pem(&pem)?;
                    tls::server_with_client_auth(&identity, &roots, &[b"http/1.1"])?
                }
            };
            management.push((listener.address, tls));
        }
        listeners.push(listener);
    }
    Ok((listeners, management))
}

/// The UDP port of each public listener's number.
fn bind_udp(
    config: &Config,
    listeners: &[Listener],
    identity: &PublicIdentity,
    state_dir: &config::StateDir,
) -> Result<Vec<UdpListener>, StartError> {
    // Bound in the order they are configured.
    let wanted = config.listeners.iter().zip(listeners);
    let mut wanted = wanted.filter(|(wanted, _)| wanted.quic).peekable();
    if wanted.peek().is_none() {
        return Ok(Vec::new());
    }
    let secret = auth::load_or_create_secret(&state_dir.file("quic-reset.key"))
        .map_err(StartError::ResetKey)?;
    let reset = ResetKey::new(&secret);
    let streams = h2::Limits::default().streams;
    wanted
        .map(|(_, tcp)| {
            let tls = identity.quic_config();
            UdpListener::bind(tcp.address, tls, &reset, streams).map_err(|source| {
                StartError::Listen {
                    kind: "public, UDP",
                    address: tcp.address,
                    source,
                }
            })
        })
        .collect()
}

/// What the private listener speaks, where there is one.
fn private_tls(
    config: &Config,
    public: &PublicIdentity,
) -> Result<Option<Arc<rustls::ServerConfig>>, StartError> {
    let mut private = config.listeners.iter();
    let private = private.find(|l| l.kind == config::ListenerKind::Private);
    let Some((listener, ca)) = private.and_then(|l| Some((l, l.client_ca.as_ref()?))) else {
        return Ok(None);
    };
    let pem = std::fs::read(ca).map_err(|source| StartError::ClientCa {
        path: ca.clone(),
        source,
    })?;
    let hosts = TrustBundle::empty().with_pem(&pem)?;
    let identity = match &listener.tls {
        Some(files) => ServerIdentity::new(Identity::load(&files.certificate, &files.key)?),
        None => public.server(),
    };
    Ok(Some(tls::server_with_client_auth(&identity, &hosts, &[])?))
}

fn access_sink(config: &Config) -> AccessSink {
    match &config.telemetry.access_log {
        config::AccessLog::Stdout => AccessSink::Stdout,
        config::AccessLog::Stderr => AccessSink::Stderr,
        config::AccessLog::None => AccessSink::None,
        config::AccessLog::File(path) => AccessSink::File(path.clone()),
    }
}

/// What every connection accepted from now on is served by.
pub(super) fn context(
    config: &Config,
    addresses: &[(ListenerKind, SocketAddr)],
    registry: &Arc<Registry>,
    telemetry: &Telemetry,
    reverse: &Reverse,
    drain: DrainWatch,
    presence: Arc<Presence>,
) -> Result<Context, StartError> {
    let hosts = Arc::new(config.dns.hosts.clone());
    let resolver = Resolver::new(&resolver_config(config, hosts.clone()))?;
    let own = Arc::new(OwnAddresses {
        listeners: addresses.iter().map(|(_, address)| *address).collect(),
        interfaces: interfaces().map_err(StartError::Interfaces)?,
    });
    let detail = match config.telemetry.refusal_detail {
        config::RefusalDetail::Full => Detail::Full,
        config::RefusalDetail::Minimal => Detail::Minimal,
    };
    let timeouts = timeouts(config);
    let services = services(&resolver, own.clone(), timeouts)?;
    let authenticator = registry.authenticator();
    let endpoint = Endpoint {
        authenticator: authenticator.clone(),
        services: services.clone(),
        presence,
        reverse: reverse.clone(),
        http: HttpContext {
            telemetry: telemetry.clone(),
            detail,
            timeouts,
            drain: drain.clone(),
        },
    };
    let h2 = h2::Context {
        relay: endpoint,
        pool: relay::Pool::new(services, drain.clone()),
        telemetry: telemetry.clone(),
        detail,
        limits: h2::Limits {
            head_timeout: timeouts.head,
            head_bytes: config.limits.max_head_bytes,
            idle: timeouts.idle,
            ..h2::Limits::default()
        },
    };
    let admission = Admission {
        own,
        nat64: config.dns.nat64_prefixes().into(),
        mixed: config.dns.mixed_answers,
        hosts,
    };
    Ok(Context {
        authenticator,
        egress: Egress {
            resolver,
            admission: Arc::new(admission),
            timeouts,
        },
        pool: Arc::new(Pool::default()),
        telemetry: telemetry.clone(),
        detail,
        pseudonym: format!("sluicegate-{:08x}", getrandom::u32()?),
        h2: Arc::new(h2),
        drain,
    })
}

fn timeouts(config: &Config) -> Timeouts {
    Timeouts {
        head: config.limits.head_timeout,
        first_bytes: config.limits.first_bytes_timeout,
        dial: config.limits.dial_timeout,
        idle: config.limits.idle_timeout.unwrap_or(Duration::ZERO),
        response: config.limits.response_timeout.unwrap_or(Duration::ZERO),
        max_head: config.limits.max_head_bytes as usize,
    }
}

pub(super) fn resolver_config(
    config: &Config,
    hosts: Arc<BTreeMap<HostName, Vec<std::net::IpAddr>>>,
) -> ResolverConfig {
    let servers = config
        .dns
        .servers
        .iter()
        .flatten()
        .map(|server| match &server.transport {
            DnsTransport::Plain => NameServer::Plain(server.address),
            DnsTransport::Tls { name } => NameServer::Tls {
                address: server.address,
                name: name.as_str().into(),
            },
            DnsTransport::Https { name, path } => NameServer::Https {
                address: server.address,
                name: name.as_str().into(),
                path: path.as_str().into(),
            },
        });
    ResolverConfig {
        servers: servers.collect(),
        ca_file: config.dns.ca_file.clone(),
        timeout: config.dns.timeout,
        cache_size: config.dns.cache_size.into(),
        min_ttl: config.dns.min_ttl,
        max_ttl: config.dns.max_ttl,
        negative_ttl: config.dns.negative_ttl,
        hosts,
    }
}

fn services(
    resolver: &Resolver,
    own: Arc<OwnAddresses>,
    timeouts: Timeouts,
) -> Result<Services, StartError> {
    let trust = TrustBundle::system().unwrap_or_else(|_| TrustBundle::empty());
    let resolver = resolver.clone();
    Ok(Services::new(ServicesConfig {
        connect_timeout: timeouts.dial,
        own,
        resolve: Arc::new(move |name| {
            let resolver = resolver.clone();
            Box::pin(async move {
                resolver
                    .lookup(&name)
                    .await
                    .map(|r| r.addresses)
                    .map_err(|(denial, detail)| {
                        tracing::debug!(%name, detail, "a service's name was not resolved");
                        denial
                    })
            })
        }),
        tls: tls::client(&trust, &[], None)?,
        tls_h2: tls::client(&trust, &[b"h2"], None)?,
        idle_timeout: (!timeouts.idle.is_zero()).then_some(timeouts.idle),
    }))
}

fn interfaces() -> io::Result<Vec<std::net::IpAddr>> {
    let all = nix::ifaddrs::getifaddrs()?;
    Ok(all
        .filter_map(|interface| {
            let address = interface.address?;
            address
                .as_sockaddr_in()
                .map(|v4| std::net::IpAddr::V4(v4.ip()))
                .or_else(|| {
                    address
                        .as_sockaddr_in6()
                        .map(|v6| std::net::IpAddr::V6(v6.ip()))
                })
        })
        .filter(|ip| !ip.is_loopback())
        .collect())
}

/// How sandboxes reach this gateway: is it `https`, and where.
pub(super) fn public_url(
    config: &Config,
    addresses: &[(ListenerKind, SocketAddr)],
) -> Option<(bool, Target)> {
    let first = |kind| {
        addresses
            .iter()
            .find(|(k, _)| *k == kind)
            .map(|(_, address)| *address)
    };
    let url = config
        .public_url
        .clone()
        .or_else(|| first(ListenerKind::Public).and_then(config::PublicUrl::of_listener));
    match url {
        Some(url) => Some((url.is_tls(), url.target().clone())),
        // Without a public listener sandboxes come by the plain one.
        None => Some((false, probe::listener_target(first(ListenerKind::Plain)?)?)),
    }
}

/// What the registry is told.
pub(super) fn registry_config(
    config: &Config,
    addresses: &[(ListenerKind, SocketAddr)],
    identity: &PublicIdentity,
    state_dir: &config::StateDir,
) -> RegistryConfig {
    let providers = config
        .providers
        .iter()
        .map(|(name, provider)| (name.clone(), self::provider(config, provider)));
    let plain = addresses
        .iter()
        .find(|(k, a)| *k == ListenerKind::Plain && a.ip().is_loopback())
        .map(|(_, a)| *a);
    let public_url =
        public_url(config, addresses).map_or_else(PublicUrl::default, |(tls, target)| PublicUrl {
            tls,
            host: target.host().to_string(),
            port: target.port(),
        });
    RegistryConfig {
        providers: providers.collect(),
        default_provider: config
            .default_provider()
            .map(|(name, _)| name.to_owned())
            .unwrap_or_default(),
        catalogue: config.services.clone(),
        capabilities: config.capabilities.iter().map(capability).collect(),
        base: sluicegate_policy::GrantDocument {
            egress: config.egress.clone(),
            ..sluicegate_policy::GrantDocument::default()
        },
        own_listeners: addresses.iter().map(|(_, address)| *address).collect(),
        own_sockets: vec![state_dir.file("admin.sock"), state_dir.file("probe.sock")],
        dial: dial(config, addresses, state_dir),
        bundle: BundleContext {
            plain_proxy: plain,
            public_url,
            ca: identity.ca(),
        },
        namespace_quota: session::Quota {
            sessions: config.quotas.sessions.map(|n| n as usize),
            limits: sluicegate_policy::Limits {
                tunnels: config.quotas.tunnels,
                tunnels_per_destination: None,
                opens_per_second: config.quotas.opens_per_second,
                bytes: config.quotas.bytes,
                bandwidth: config.quotas.bandwidth,
            },
        },
        owner_quota: owner_quota(config),
        retention: None,
    }
}

fn credential(credential: &config::CredentialConfig) -> CredentialSource {
    // The reader takes no empty list; reading alone is the least there is.
    let widest = credential.scopes.iter().max();
    CredentialSource {
        principal: Principal {
            name: credential.name.as_str().into(),
            scope: match widest {
                None | Some(config::ScopeConfig::Read) => Scope::Read,
                Some(config::ScopeConfig::Operate) => Scope::Operate,
                Some(config::ScopeConfig::Admin) => Scope::Admin,
            },
            namespaces: credential.namespaces.as_deref().map(Into::into),
            owner: credential.owner.as_deref().map(Into::into),
        },
        token: match &credential.token {
            config::TokenConfig::File(path) => TokenSource::File(path.clone()),
            config::TokenConfig::Sha256(hash) => TokenSource::Sha256(*hash),
        },
    }
}

pub(super) fn external(keys: &config::KeysConfig) -> ExternalKeys {
    ExternalKeys {
        signing: match &keys.signing {
            config::SigningKey::File(path) => ExternalKey::File(path.clone()),
            config::SigningKey::Env(name) => ExternalKey::Env(name.clone()),
        },
        verifying: keys.verifying.clone(),
    }
}

fn owner_quota(config: &Config) -> session::Quota {
    let owner = &config.quotas.owner;
    session::Quota {
        sessions: owner.sessions.map(|n| n as usize),
        limits: sluicegate_policy::Limits {
            tunnels: owner.tunnels,
            tunnels_per_destination: None,
            opens_per_second: owner.opens_per_second,
            bytes: owner.bytes,
            bandwidth: owner.bandwidth,
        },
    }
}

fn capability(
    (name, capability): (&String, &config::CapabilityConfig),
) -> (String, session::Capability) {
    let bundle = session::Capability {
        description: capability.description.clone(),
        grant: capability.grant.clone(),
        secrets: capability.secrets.clone(),
    };
    (name.clone(), bundle)
}

/// Where hosts dial what sandboxes expose.
fn dial(
    config: &Config,
    addresses: &[(ListenerKind, SocketAddr)],
    state_dir: &config::StateDir,
) -> DialConfig {
    let private = addresses
        .iter()
        .find(|(kind, _)| *kind == ListenerKind::Private)
        .map(|(_, address)| *address);
    let domain = config.listeners.iter().find_map(|l| l.domain.as_ref());
    DialConfig {
        directory: Some(state_dir.file("listeners")),
        private: domain
            .zip(private)
            .map(|(domain, address)| (domain.as_str().into(), address.port())),
    }
}

fn provider(config: &Config, provider: &config::ProviderConfig) -> ProviderConfig {
    let life = &provider.session;
    ProviderConfig {
        ceiling: provider.ceiling.bound.clone(),
        defaults: config.base_grant(provider),
        times: lifecycle::Times {
            ttl: life.ttl,
            idle_timeout: life.idle_timeout,
            max_lifetime: Some(life.max_lifetime),
            on_expiry: match life.on_expiry {
                config::OnExpiry::Reset => lifecycle::OnExpiry::Reset,
                config::OnExpiry::Pause => lifecycle::OnExpiry::Pause,
                config::OnExpiry::Stop => lifecycle::OnExpiry::Stop,
            },
            on_pause: match life.on_pause {
                config::OnPause::Close => lifecycle::OnPause::Close,
                config::OnPause::Hold => lifecycle::OnPause::Hold,
            },
        },
        scopes: life.scopes.map(|scopes| session::Scopes {
            concurrency: scopes.concurrency as usize,
            queue: scopes.queue as usize,
        }),
        driver: provider.driver.clone().unwrap_or_default(),
        advertised: Some(provider.advertised),
        hostname_egress: provider.hostname_egress,
        confinement: provider.confinement,
    }
}
