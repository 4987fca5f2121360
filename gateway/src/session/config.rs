//! What the registry is told by the configuration.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use sluicegate_policy::{
    Ceiling, Confinement, GrantDocument, HostnameEgress, Profile, ServiceDocument, ServiceName,
};

use super::{BundleContext, lifecycle::Times};

/// One provider.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ProviderConfig {
    /// The operator's bound on what any session may ask.
    pub ceiling: Ceiling,
    /// What every session gets (the configuration's own defaults merged in).
    pub defaults: GrantDocument,
    /// Times of a session that names none.
    pub times: Times,
    /// The runtime's driver, for display.
    pub driver: String,
    /// What the runtime advertises.
    pub advertised: Option<Profile>,
    /// Who keeps egress to host names.
    pub hostname_egress: HostnameEgress,
    /// What confines its sandboxes.
    pub confinement: Confinement,
}

/// Everything the registry needs to know; replaced whole on reload.
#[derive(Clone, Debug, Default)]
pub struct RegistryConfig {
    /// Providers by name.
    pub providers: BTreeMap<String, ProviderConfig>,
    /// The one used where none is named.
    pub default_provider: String,
    /// Services a session may name without saying where they are.
    pub catalogue: BTreeMap<ServiceName, ServiceDocument>,
    /// The gateway's own listeners: never a service's address. An unspecified IP stands for every local one.
    pub own_listeners: Vec<SocketAddr>,
    /// The gateway's own unix sockets: likewise.
    pub own_sockets: Vec<PathBuf>,
    /// What the env bundle is made of.
    pub bundle: BundleContext,
    /// Sessions that are not stopped, per namespace.
    pub max_sessions: Option<usize>,
    /// What all sessions of a namespace may do together.
    pub owner_limits: sluicegate_policy::Limits,
    /// How long the record of a stopped session stays readable.
    pub retention: Option<Duration>,
}
