//! From the configuration to what probes do.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use sluicegate_certs::{TrustBundle, tls};
use sluicegate_policy::{Host, Target};
use sluicegate_relay_protocol::ALPN_RELAY;

use super::{
    PublicIdentity, StartError,
    assemble::{public_url, resolver_config},
};
use crate::{
    config::{self, Config, ProbeFrom},
    egress::Resolver,
    front::Context,
    listen::ListenerKind,
    probe::{Asked, Maker, Plan, Road, Targets, Way, resolution},
    session::RegistryConfig,
};

/// One configuration's probes, for what it makes of sessions.
pub(super) fn plan(
    config: &Config,
    sessions: &RegistryConfig,
    addresses: &[(ListenerKind, SocketAddr)],
    identity: &PublicIdentity,
    context: &Context,
    targets: &Targets,
) -> Result<Plan, StartError> {
    let mut resolver = resolver_config(config, Arc::new(config.dns.hosts.clone()));
    resolver.max_ttl = Duration::ZERO;
    resolver.negative_ttl = Duration::ZERO;
    resolver.timeout = resolution(resolver.timeout, config.probe.timeout);
    let grant = targets
        .grant(config.probe.canary.as_ref())
        .map_err(StartError::ProbeGrant)?;
    let resolver = Resolver::new(&resolver)?;
    let way = road(config, addresses, identity)?.map(|road| {
        Arc::new(Way {
            maker: Maker::Own,
            road,
            timeout: config.probe.timeout,
            resolver: resolver.clone(),
            own_canary: targets.origin(),
            canary: config.probe.canary.clone(),
        })
    });
    Ok(Plan {
        from: match config.probe.from {
            ProbeFrom::Own => Maker::Own,
            ProbeFrom::Agent => Maker::Agent,
        },
        interval: config.probe.interval,
        timeout: config.probe.timeout,
        way,
        ca_pem: identity.ca().map(|ca| ca.ca_pem.clone()),
        resolver,
        services: context.h2.relay.services.clone(),
        asked: Asked::of(sessions),
        grant: Arc::new(grant),
        name: config.probe.resolved_name().cloned(),
    })
}

fn road(
    config: &Config,
    addresses: &[(ListenerKind, SocketAddr)],
    identity: &PublicIdentity,
) -> Result<Option<Road>, StartError> {
    let Some((tls, target)) = public_url(config, addresses) else {
        return Ok(None);
    };
    // Whoever comes in plaintext trusts nobody, and needs no roots.
    let mut trust = match tls {
        true => TrustBundle::system().unwrap_or_else(|_| TrustBundle::empty()),
        false => TrustBundle::empty(),
    };
    if let Some(ca) = identity.ca() {
        trust = trust.with_pem(ca.ca_pem.as_bytes())?;
    }
    Ok(Some(Road {
        target,
        tls,
        resolve: config.probe.resolve.clone(),
        h2: tls::client(&trust, &[b"h2"], None)?,
        h1: tls::client(&trust, &[b"http/1.1"], None)?,
        quic: if tls && serves_quic(config) {
            Some(tls::quic_client(&trust, &[ALPN_RELAY])?)
        } else {
            None
        },
        certificate_setting: if config.tls.files.is_some() {
            "tls.certificate"
        } else {
            "tls.names"
        },
    }))
}

/// Does the first public listener, which the public URL is taken for, serve QUIC?
fn serves_quic(config: &Config) -> bool {
    let mut public = config
        .listeners
        .iter()
        .filter(|listener| listener.kind == config::ListenerKind::Public);
    public.next().is_some_and(|listener| listener.quic)
}

/// A listener's own address as a target; an unspecified one is surely reached at loopback.
pub(super) fn listener_target(address: SocketAddr) -> Option<Target> {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    Target::new(Host::Ip(ip), address.port())
}
