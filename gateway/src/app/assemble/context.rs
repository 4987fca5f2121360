//! What everything is served by: resolver, way out, relay, limits.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use sluicegate_certs::{TrustBundle, tls};
use sluicegate_policy::{Admission, HostName, OwnAddresses};

use super::StartError;
use crate::{
    auth::{Gestalt, read_private},
    config::{self, Config, DnsTransport, ProxyAsk, ProxyScheme, UpstreamProxyConfig},
    drain::DrainWatch,
    egress::{
        AskFor, Egress, Login, NameServer, Resolver, ResolverConfig, Speaks, Timeouts,
        UpstreamProxy, Ways,
    },
    front::{Context, Detail, Pool, h2},
    http2, interfaces,
    listen::ListenerKind,
    relay::{self, Endpoint, HttpContext, Opens, Presence, Reverse, Services, ServicesConfig},
    secret::Secret,
    session::Registry,
    telemetry::Telemetry,
};

/// What everything is served by that is asked for from now on. `before`: what it is to take the place of.
#[allow(
    clippy::too_many_arguments,
    reason = "the parts of a gateway, once at the start and once on each reload"
)]
pub(in crate::app) fn context(
    config: &Config,
    addresses: &[(ListenerKind, SocketAddr)],
    registry: &Arc<Registry>,
    telemetry: &Telemetry,
    reverse: &Reverse,
    drain: DrainWatch,
    presence: Arc<Presence>,
    opens: Arc<Opens>,
    gestalt: Arc<Gestalt>,
    before: Option<&Context>,
) -> Result<Context, StartError> {
    let hosts = Arc::new(config.dns.hosts.clone());
    let resolver = Resolver::new(&resolver_config(config, hosts.clone()))?;
    let interfaces = match before {
        None => interfaces::read(),
        Some(before) => interfaces::read_again(&before.egress.admission.own.interfaces),
    };
    let own = Arc::new(OwnAddresses {
        listeners: addresses.iter().map(|(_, address)| *address).collect(),
        interfaces: interfaces.map_err(StartError::Interfaces)?,
        dials: registry.dials().ports().clone(),
    });
    let detail = match config.telemetry.refusal_detail {
        config::RefusalDetail::Full => Detail::Full,
        config::RefusalDetail::Minimal => Detail::Minimal,
    };
    let timeouts = timeouts(config);
    let services = services(&resolver, own.clone(), timeouts)?;
    let services = match before {
        None => Services::new(services),
        Some(before) => before.h2.relay.services.after(services),
    };
    let authenticator = registry.authenticator().accepting(gestalt);
    let limits = http2::Limits {
        of_session: config.limits.relay_connections,
        head_timeout: timeouts.head,
        head_bytes: config.limits.max_head_bytes,
        idle: timeouts.idle,
        ..http2::Limits::default()
    };
    let endpoint = Endpoint {
        authenticator: authenticator.clone(),
        pool: relay::Pool::new(services.clone(), drain.clone()),
        services,
        presence,
        opens,
        reverse: reverse.clone(),
        http: HttpContext {
            telemetry: telemetry.clone(),
            detail,
            timeouts,
            drain: drain.clone(),
        },
        limits,
    };
    let h2 = h2::Context {
        relay: endpoint,
        telemetry: telemetry.clone(),
        detail,
        limits,
    };
    let admission = Admission {
        own,
        nat64: config.dns.nat64_prefixes().into(),
        mixed: config.dns.mixed_answers,
        hosts,
    };
    let proxy = config.upstream_proxy.as_ref().map(upstream_proxy);
    let egress = Arc::new(Egress {
        resolver,
        admission: Arc::new(admission),
        timeouts,
        proxy: proxy.transpose()?.map(Arc::new),
    });
    Ok(Context {
        authenticator,
        ways: match before {
            None => Ways::new(egress.clone()),
            Some(before) => before.ways.clone(),
        },
        egress,
        pool: Arc::new(Pool::default()),
        telemetry: telemetry.clone(),
        detail,
        pseudonym: format!("sluicegate-{:08x}", getrandom::u32()?),
        h2: Arc::new(h2),
        drain,
    })
}

/// The operator's proxy, its credential and trust read now.
fn upstream_proxy(config: &UpstreamProxyConfig) -> Result<UpstreamProxy, StartError> {
    let login = match &config.credential_file {
        None => None,
        Some(path) => Some(login(path)?),
    };
    let speaks = match config.scheme {
        ProxyScheme::Socks5 => Speaks::Socks,
        ProxyScheme::Http => Speaks::Http(None),
        ProxyScheme::Https => {
            let mut trust = TrustBundle::system().unwrap_or_else(|_| TrustBundle::empty());
            if let Some(path) = &config.ca_file {
                let pem = std::fs::read(path).map_err(|source| StartError::ClientCa {
                    path: path.clone(),
                    source,
                })?;
                trust = trust.with_pem(&pem)?;
            }
            Speaks::Http(Some(tls::client(&trust, &[b"http/1.1"], None)?))
        }
    };
    // Both were compiled when the configuration was read.
    let mut faults = sluicegate_policy::text::Faults::default();
    let grant = config.grant(&mut faults);
    Ok(UpstreamProxy {
        speaks,
        target: config.target.clone(),
        grant: Arc::new(grant.ok_or(StartError::UpstreamProxy)?),
        login,
        ask_for: match config.ask {
            ProxyAsk::Address => AskFor::Address,
            ProxyAsk::Name => AskFor::Name,
        },
        bypass: config.bypass_grant(&mut faults).map(Arc::new),
    })
}

/// `user:password`; the user holds no colon, the password may.
fn login(path: &std::path::Path) -> Result<Login, StartError> {
    let text = read_private(path).map_err(StartError::ProxyCredential)?;
    let text = text.unwrap_or_default();
    let (user, password) = text
        .trim_end_matches(['\r', '\n'])
        .split_once(':')
        .ok_or_else(|| StartError::NoProxyCredential(path.to_owned()))?;
    Ok(Login {
        user: Secret::new(user),
        password: Secret::new(password),
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
        pending_opens: config.limits.pending_opens.into(),
    }
}

/// Names to addresses, as configured.
pub(in crate::app) fn resolver_config(
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
) -> Result<ServicesConfig, StartError> {
    let trust = TrustBundle::system().unwrap_or_else(|_| TrustBundle::empty());
    let resolver = resolver.clone();
    Ok(ServicesConfig {
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
    })
}
