//! What the registry is told by the configuration.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use sluicegate_policy::{
    Ceiling, Confinement, GrantDocument, HostnameEgress, Profile, ServiceDocument, ServiceName,
};

use super::{BundleContext, Capability, DialConfig, lifecycle::Times};

/// One provider.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ProviderConfig {
    /// The operator's bound on what any session may ask.
    pub ceiling: Ceiling,
    /// What every session gets (the configuration's own defaults merged in).
    pub defaults: GrantDocument,
    /// Times of a session that names none.
    pub times: Times,
    /// How many sessions of one scope run at once; `None` = no bound.
    pub scopes: Option<Scopes>,
    /// The runtime's driver, for display.
    pub driver: String,
    /// What the runtime advertises.
    pub advertised: Option<Profile>,
    /// Who keeps egress to host names.
    pub hostname_egress: HostnameEgress,
    /// What confines its sandboxes.
    pub confinement: Confinement,
}

/// The bound of one scope (namespace, provider, owner and label).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scopes {
    /// Generations that live at once; further starts wait.
    pub concurrency: usize,
    /// Starts that wait at most; further ones are refused.
    pub queue: usize,
}

/// A bound on many sessions together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Quota {
    /// Sessions that are not stopped; `None` = no bound.
    pub sessions: Option<usize>,
    /// Sessions that there is a record of, stopped ones too, each by what it asks for; `None` = no bound.
    pub records: Option<usize>,
    /// Bytes of their logs; `None` = no bound.
    pub logs: Option<u64>,
    /// Tunnels, opens, bytes, bandwidth.
    pub limits: sluicegate_policy::Limits,
}

/// Everything the registry needs to know; replaced whole on reload.
#[derive(Clone, Debug, Default)]
pub struct RegistryConfig {
    /// What every session begins with, whatever its provider; each provider's `defaults` have it too. For display.
    pub base: GrantDocument,
    /// Providers by name.
    pub providers: BTreeMap<String, ProviderConfig>,
    /// The one used where none is named.
    pub default_provider: String,
    /// Services a session may name without saying where they are.
    pub catalogue: BTreeMap<ServiceName, ServiceDocument>,
    /// Capabilities that sessions can be bound to.
    pub capabilities: BTreeMap<String, Capability>,
    /// The gateway's own listeners: never a service's address. An unspecified IP stands for every local one.
    pub own_listeners: Vec<SocketAddr>,
    /// The gateway's own unix sockets: likewise.
    pub own_sockets: Vec<PathBuf>,
    /// Where hosts dial what sandboxes expose. Of the start; a reload changes nothing about it.
    pub dial: DialConfig,
    /// What the env bundle is made of.
    pub bundle: BundleContext,
    /// What all sessions of a namespace may do together.
    pub namespace_quota: Quota,
    /// What all sessions of one owner within a namespace may do together.
    pub owner_quota: Quota,
    /// What is kept of what is over.
    pub retention: Retention,
    /// A generation begins in another second than the one before it ended in: tokens are accepted that say no more of
    /// when they were issued.
    pub apart_by_seconds: bool,
    /// How often the whole store is verified; `None` = when it is opened, and when somebody else has touched it.
    pub verify_every: Option<Duration>,
}

/// What is kept of what is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// The record of a stopped session.
    pub sessions: Duration,
    /// Events, the newest.
    pub events: u64,
    /// The revocation of an id of which nobody knows when its token ends.
    pub revocations: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            sessions: Duration::from_secs(86_400),
            events: 10_000,
            revocations: Duration::from_secs(366 * 86_400),
        }
    }
}
