//! What sessions are made from: providers, capabilities, quotas, and where they are reached.

use std::{net::SocketAddr, path::PathBuf};

use sluicegate_policy::{Host, Target};

use crate::{
    app::{PublicIdentity, probe},
    auth::{
        CredentialSource, ExternalKey, ExternalKeys, GestaltKey, GestaltTerms, Principal, Scope,
        SessionCheck, TokenSource,
    },
    config::{self, Config},
    listen::ListenerKind,
    session::{
        self, BundleContext, DialConfig, ProviderConfig, PublicUrl, RegistryConfig, lifecycle,
    },
};

/// How sandboxes reach this gateway: is it `https`, and where.
pub(in crate::app) fn public_url(
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

/// The plain listener that sandboxes are told of: on loopback, or at the very address the public URL has, since who reaches
/// the one reaches the other.
fn plain_proxy(
    addresses: &[(ListenerKind, SocketAddr)],
    public: Option<&Host>,
) -> Option<SocketAddr> {
    let plain = || addresses.iter().filter(|(k, _)| *k == ListenerKind::Plain);
    plain()
        .find(|(_, a)| a.ip().is_loopback())
        .or_else(|| plain().find(|(_, a)| public == Some(&Host::Ip(a.ip()))))
        .map(|(_, address)| *address)
}

/// What decides which grant a session gets, as far as the configuration alone says it. Ports that the system chooses, the
/// state directory, and names in the bundle are the running gateway's to know.
pub(crate) fn policy_config(config: &Config) -> RegistryConfig {
    let providers = config
        .providers
        .iter()
        .map(|(name, provider)| (name.clone(), self::provider(config, provider)));
    let listeners = config.listeners.iter();
    let private = listeners
        .clone()
        .find(|listener| listener.kind == config::ListenerKind::Private);
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
        own_listeners: listeners
            .map(|listener| listener.address)
            .filter(|address| address.port() != 0)
            .collect(),
        dial: dial(config, private.map(|listener| listener.address), None),
        ..RegistryConfig::default()
    }
}

/// What the registry is told.
pub(in crate::app) fn registry_config(
    config: &Config,
    addresses: &[(ListenerKind, SocketAddr)],
    identity: &PublicIdentity,
    state_dir: &config::StateDir,
) -> RegistryConfig {
    let private = addresses
        .iter()
        .find(|(kind, _)| *kind == ListenerKind::Private)
        .map(|(_, address)| *address);
    let public = public_url(config, addresses);
    let plain = plain_proxy(addresses, public.as_ref().map(|(_, target)| target.host()));
    let public_url = public.map_or_else(PublicUrl::default, |(tls, target)| PublicUrl {
        tls,
        host: target.host().to_string(),
        port: target.port(),
    });
    RegistryConfig {
        own_listeners: addresses.iter().map(|(_, address)| *address).collect(),
        own_sockets: vec![state_dir.file("admin.sock"), state_dir.file("probe.sock")],
        dial: dial(config, private, Some(state_dir.file("listeners"))),
        bundle: BundleContext {
            plain_proxy: plain,
            public_url,
            ca: identity.ca(),
        },
        namespace_quota: namespace_quota(config),
        owner_quota: owner_quota(config),
        retention: session::Retention {
            sessions: config.store.retention.sessions,
            events: config.store.retention.events,
            revocations: config.store.retention.revocations,
        },
        apart_by_seconds: config
            .compat
            .gestalt
            .as_ref()
            .is_some_and(|gestalt| gestalt.verify_sessions == config::VerifySessions::Registry),
        verify_every: config.store.verify_every,
        ..policy_config(config)
    }
}

/// A credential of the admin API.
pub(super) fn credential(credential: &config::CredentialConfig) -> CredentialSource {
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

pub(in crate::app) fn external(keys: &config::KeysConfig) -> ExternalKeys {
    ExternalKeys {
        signing: match &keys.signing {
            config::SigningKey::File(path) => ExternalKey::File(path.clone()),
            config::SigningKey::Env(name) => ExternalKey::Env(name.clone()),
        },
        verifying: keys.verifying.clone(),
    }
}

/// Stopped sessions that there is room for beyond those that are not, where nothing says so.
const RECORDS_LEFT: u32 = 10_000;
/// What one log holds at most, 4,096 records of 16 KiB: there is room for those of as many sessions as may be, and of so many at least.
const FULL_LOG: u64 = 64 << 20;
const FULL_LOGS: u32 = 16;

/// Who may have so many sessions at once is not to leave stopped ones, and what they said, behind without end.
fn held(quota: session::Quota, of: (Option<u32>, Option<u32>, Option<u64>)) -> session::Quota {
    let (sessions, records, logs) = of;
    let records = records.or(sessions.map(|n| n.saturating_add(RECORDS_LEFT)));
    let logs = logs.or(sessions.map(|n| u64::from(n.max(FULL_LOGS)) * FULL_LOG));
    session::Quota {
        sessions: sessions.map(|n| n as usize),
        records: records.map(|n| n as usize),
        logs,
        ..quota
    }
}

fn namespace_quota(config: &Config) -> session::Quota {
    let all = &config.quotas;
    let quota = session::Quota {
        limits: sluicegate_policy::Limits {
            tunnels: all.tunnels,
            tunnels_per_destination: None,
            opens_per_second: all.opens_per_second,
            bytes: all.bytes,
            bandwidth: all.bandwidth,
        },
        ..session::Quota::default()
    };
    held(quota, (all.sessions, all.records, all.logs))
}

fn owner_quota(config: &Config) -> session::Quota {
    let owner = &config.quotas.owner;
    let quota = session::Quota {
        limits: sluicegate_policy::Limits {
            tunnels: owner.tunnels,
            tunnels_per_destination: None,
            opens_per_second: owner.opens_per_second,
            bytes: owner.bytes,
            bandwidth: owner.bandwidth,
        },
        ..session::Quota::default()
    };
    held(quota, (owner.sessions, owner.records, owner.logs))
}

/// The terms on which tokens of gestaltd are accepted.
pub(in crate::app) fn gestalt(config: &Config) -> Option<GestaltTerms> {
    let gestalt = config.compat.gestalt.as_ref()?;
    let named = config
        .services
        .iter()
        .filter(|(name, _)| gestalt.services.contains(name));
    let default = || config.default_provider().map(|(name, _)| name.to_owned());
    Some(GestaltTerms {
        key: match &gestalt.key {
            config::GestaltKeyConfig::File(file) => GestaltKey::File(file.clone()),
            config::GestaltKeyConfig::Env(name) => GestaltKey::Env(name.clone()),
        },
        ceiling: gestalt.ceiling.bound.clone(),
        services: named
            .map(|(name, service)| (name.clone(), service.clone()))
            .collect(),
        legacy_default_allow: gestalt.legacy_default_allow,
        check: match gestalt.verify_sessions {
            config::VerifySessions::Registry => SessionCheck::Registry,
            config::VerifySessions::TrustToken => SessionCheck::TrustToken,
        },
        namespace: gestalt.namespace.clone(),
        provider: gestalt.provider.clone().or_else(default)?,
    })
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
fn dial(config: &Config, private: Option<SocketAddr>, directory: Option<PathBuf>) -> DialConfig {
    let domain = config.listeners.iter().find_map(|l| l.domain.as_ref());
    DialConfig {
        directory,
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
            token_ttl: life.token_ttl,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn sandboxes_are_told_of_a_plain_listener_they_can_reach() {
        let at = |kind, address: &str| (kind, address.parse().unwrap());
        let listeners = [
            at(ListenerKind::Public, "172.30.77.2:8443"),
            at(ListenerKind::Plain, "172.30.77.2:3128"),
        ];
        let told = |listeners: &[_], host: &str| {
            let host = Target::from_authority(host).unwrap();
            plain_proxy(listeners, Some(host.host())).map(|address| address.to_string())
        };
        let there = Some("172.30.77.2:3128".to_owned());
        assert_eq!(told(&listeners, "172.30.77.2:8443"), there);
        assert_eq!(told(&listeners, "172.30.77.3:8443"), None);
        assert_eq!(told(&listeners, "gateway.test:8443"), None);
        assert_eq!(plain_proxy(&listeners, None), None);
        let local = [listeners[0], at(ListenerKind::Plain, "127.0.0.1:3128")];
        let loopback = Some("127.0.0.1:3128".to_owned());
        assert_eq!(told(&local, "gateway.test:8443"), loopback);
    }

    #[test]
    fn who_has_a_bound_of_sessions_has_one_of_what_is_left_of_them() {
        let of = |sessions, records, logs| {
            let quota = held(session::Quota::default(), (sessions, records, logs));
            (quota.sessions, quota.records, quota.logs)
        };
        assert_eq!(of(None, None, None), (None, None, None));
        let few = (Some(5), Some(10_005), Some(1 << 30));
        assert_eq!(of(Some(5), None, None), few);
        let many = (Some(100), Some(7), Some(6400 << 20));
        assert_eq!(of(Some(100), Some(7), None), many);
        assert_eq!(of(None, Some(7), Some(8)), (None, Some(7), Some(8)));
    }
}
