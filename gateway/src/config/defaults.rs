//! Every default of the configuration, in one place. docs/configuration.md and the schema repeat them; a test compares.
use super::{
    AccessLog, DnsConfig, LimitsConfig, ListenerConfig, ListenerKind, OnExpiry, OnPause,
    ProbeConfig, ProbeFrom, RefusalDetail, RetentionConfig, SessionConfig, StoreConfig,
    TelemetryConfig,
};
use sluicegate_policy::{
    Confinement, EgressMode, HostServiceAccess, HostnameEgress, MixedAnswers, Profile,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The name of the provider that is built in where none is configured.
pub(super) const LOCAL: &str = "local";

/// Loopback on the three documented ports.
pub(super) fn listeners() -> Vec<ListenerConfig> {
    let on_loopback = |kind, port| {
        ListenerConfig::plain_of(kind, SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    };
    vec![
        on_loopback(ListenerKind::Public, 8443),
        on_loopback(ListenerKind::Plain, 3128),
        on_loopback(ListenerKind::Management, 9443),
    ]
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            head_timeout: seconds(10),
            first_bytes_timeout: seconds(10),
            dial_timeout: seconds(10),
            idle_timeout: Some(seconds(600)),
            response_timeout: None,
            connections: 8192,
            connections_per_source: None,
            pending_opens: 1024,
            relay_connections: 16,
            drain_timeout: seconds(30),
            max_head_bytes: 64 << 10,
        }
    }
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            servers: None,
            ca_file: None,
            hosts: BTreeMap::new(),
            mixed_answers: MixedAnswers::Refuse,
            timeout: seconds(5),
            cache_size: 4096,
            min_ttl: seconds(0),
            max_ttl: seconds(3600),
            negative_ttl: seconds(30),
            nat64: Vec::new(),
        }
    }
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self {
            from: ProbeFrom::default(),
            interval: Some(seconds(30)),
            timeout: seconds(5),
            resolve: Vec::new(),
            canary: None,
            name: None,
        }
    }
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            access_log: AccessLog::Stdout,
            refusal_detail: RefusalDetail::Full,
            log: "info".to_owned(),
        }
    }
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            ttl: None,
            idle_timeout: Some(seconds(600)),
            max_lifetime: seconds(86_400),
            token_ttl: None,
            on_expiry: OnExpiry::Reset,
            on_pause: OnPause::Close,
            scopes: None,
        }
    }
}

/// Starts that wait in one scope at most.
pub(super) const SCOPE_QUEUE: u32 = 100;
/// The proxy keeps host names for a runtime that does not.
pub(super) const HOSTNAME_EGRESS: HostnameEgress = HostnameEgress::Proxy;
/// Nothing is assumed about what a sandbox can reach around the gateway.
pub(super) const CONFINEMENT: Confinement = Confinement::None;
/// A runtime that says nothing of itself can do nothing.
pub(super) const ADVERTISED: Profile = Profile {
    can_host_plugins: false,
    host_service_access: HostServiceAccess::None,
    egress_mode: EgressMode::None,
};

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            path: None,
            verify_every: Some(seconds(3600)),
            retention: RetentionConfig::default(),
        }
    }
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self {
            sessions: seconds(86_400),
            events: 10_000,
            revocations: seconds(366 * 86_400),
        }
    }
}
