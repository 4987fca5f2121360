//! What a run is made of: one configuration's settings, replaced whole on reload.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::ClientConfig;
use sluicegate_policy::{Grant, Host, HostName, Target};

use super::check::Check;
use crate::{
    egress::Resolver,
    relay::Services,
    session::{Granted, HostService, RegistryConfig},
};

/// The way from outside to the public listener.
#[derive(Clone, Debug)]
pub struct Road {
    /// Host and port of the public URL.
    pub target: Target,
    /// Is it `https`?
    pub tls: bool,
    /// Addresses to dial instead of those the host resolves to.
    pub resolve: Vec<IpAddr>,
    /// Trusts the system's roots and the private CA; ALPN `h2`.
    pub h2: Arc<ClientConfig>,
    /// The same, ALPN `http/1.1`.
    pub h1: Arc<ClientConfig>,
    /// The same for QUIC; absent where the public listener does not serve it.
    pub quic: Option<Arc<ClientConfig>>,
    /// The setting that gives another certificate.
    pub certificate_setting: &'static str,
}

impl Road {
    /// The public URL.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.target)
    }
}

/// The way in, and what is met at its end: all that an agent elsewhere needs too.
#[derive(Clone, Debug)]
pub struct Way {
    /// Who goes it.
    pub maker: Maker,
    /// Where it leads.
    pub road: Road,
    /// Deadline of each check.
    pub timeout: Duration,
    /// Resolves afresh: a cached answer would hide that DNS is dead.
    pub resolver: Resolver,
    /// The gateway's own canary origin.
    pub own_canary: SocketAddr,
    /// `probe.canary`.
    pub canary: Option<Target>,
}

/// How long a name may take, of a check's own deadline: where that came first, name servers that are silent would be told as a public
/// URL that is.
pub fn resolution(dns: Duration, check: Duration) -> Duration {
    dns.min(check * 3 / 4)
}

/// Who makes the checks of the way in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Maker {
    /// The gateway.
    Own,
    /// Agents elsewhere, who report.
    Agent,
}

/// Everything a run needs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who makes the checks of the way in.
    pub from: Maker,
    /// Between two runs; absent = only when asked.
    pub interval: Option<Duration>,
    /// Deadline of each check.
    pub timeout: Duration,
    /// The way in. Absent: no listener takes sandboxes.
    pub way: Option<Arc<Way>>,
    /// What an agent elsewhere has to trust beside its system's roots.
    pub ca_pem: Option<Arc<str>>,
    /// Resolves afresh: a cached answer would hide that DNS is dead.
    pub resolver: Resolver,
    /// Opens host services to ask for their health.
    pub services: Services,
    /// What the probe's session may reach.
    pub grant: Arc<Grant>,
    /// `probe.name`.
    pub name: Option<HostName>,
    /// The services that are asked for their health.
    pub asked: Asked,
}

/// The host services that are asked for their health, and who depends on them.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Each once, however many providers' sessions can be granted it.
    pub services: Vec<Granted>,
    /// Of every provider, those that its sessions can be granted.
    pub by_provider: BTreeMap<String, BTreeSet<HostService>>,
}

impl Asked {
    /// All that the configuration's providers can grant.
    pub fn of(config: &RegistryConfig) -> Self {
        let mut asked = Self::default();
        let mut known = BTreeSet::new();
        for provider in config.providers.keys() {
            let mut granted = config.services_of(provider);
            let names = granted.iter().map(|one| one.service.clone()).collect();
            asked.by_provider.insert(provider.clone(), names);
            granted.retain(|one| known.insert(one.service.clone()));
            asked.services.append(&mut granted);
        }
        asked
    }
}

impl Plan {
    /// The checks this plan makes, or has made.
    pub(super) fn checks(&self) -> Vec<Check> {
        let mut checks: Vec<Check> = self.way.iter().flat_map(|way| way.checks()).collect();
        checks.push(Check::Resolver);
        let services = self.asked.services.iter();
        checks.extend(services.map(|one| Check::Service(one.service.clone())));
        checks
    }
}

impl Way {
    /// The checks of the way in.
    pub(super) fn checks(&self) -> Vec<Check> {
        let mut checks = vec![Check::Reach];
        if self.road.tls {
            checks.push(Check::Certificate);
        }
        if self.road.quic.is_some() {
            checks.push(Check::Quic);
        }
        checks.extend([
            Check::Http2,
            Check::Token,
            Check::Refuses,
            Check::Judges,
            Check::Carries,
        ]);
        if self.canary.is_some() {
            checks.push(Check::Canary);
        }
        checks
    }

    pub(super) fn own_canary(&self) -> Option<Target> {
        Target::new(Host::Ip(self.own_canary.ip()), self.own_canary.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_resolved_is_told_before_its_check_ends() {
        let seconds = Duration::from_secs;
        assert!(resolution(seconds(5), seconds(5)) < seconds(5));
        assert!(resolution(seconds(60), seconds(5)) < seconds(5));
        assert_eq!(resolution(seconds(1), seconds(5)), seconds(1));
    }
}
