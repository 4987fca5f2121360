//! How the gateway proves itself: out of it, and in again by its public URL.
use super::read::{self, keep};
use sluicegate_policy::{
    HostName, Target,
    text::{Faults, Node},
};
use std::{net::IpAddr, time::Duration};

/// Most often: every check is a connection, most of them a TLS handshake.
const SHORTEST: Duration = Duration::from_millis(100);

/// Who makes the checks of the way in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ProbeFrom {
    /// The gateway.
    #[default]
    Own,
    /// Agents elsewhere, by `probe agent`.
    Agent,
}

/// The words for it.
pub(super) const FROM: [(&str, ProbeFrom); 2] =
    [("self", ProbeFrom::Own), ("agent", ProbeFrom::Agent)];

/// The self-checks behind effective profiles.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProbeConfig {
    /// Who makes the checks of the way in.
    pub from: ProbeFrom,
    /// Between two runs, give or take a tenth; `None` = never.
    pub interval: Option<Duration>,
    /// Deadline of each check.
    pub timeout: Duration,
    /// Where the public URL's host is dialled instead of where it resolves to (hairpin NAT).
    pub resolve: Vec<IpAddr>,
    /// A target that the proxy must let pass, beside the gateway's own canary.
    pub canary: Option<Target>,
    /// A name that must resolve. Absent: the canary's.
    pub name: Option<HostName>,
}

impl ProbeConfig {
    pub(super) fn read(node: &Node, faults: &mut Faults) -> Self {
        let mut probe = Self::default();
        let mut fields = node.fields(faults);
        keep(
            &mut probe.from,
            fields
                .take("from")
                .and_then(|node| node.choice(&FROM, faults)),
        );
        let interval = fields.take("interval").and_then(|node| {
            let interval = read::or_none(node, faults)?;
            if interval.is_some_and(|interval| interval < SHORTEST) {
                return node.expected("100ms or more, or 0 for never", faults);
            }
            Some(interval)
        });
        keep(&mut probe.interval, interval);
        keep(
            &mut probe.timeout,
            fields
                .take("timeout")
                .and_then(|node| read::positive(node, faults)),
        );
        if let Some(node) = fields.take("resolve") {
            probe.resolve = read::one_or_more(node, faults, read::ip_address);
        }
        probe.canary = fields.take("canary").and_then(|node| target(node, faults));
        probe.name = fields.take("name").and_then(|node| {
            let text = node.string(faults)?;
            HostName::parse(text)
                .ok()
                .or_else(|| node.expected("a host name", faults))
        });
        fields.finish(faults);
        probe
    }

    /// The name that must resolve, where there is one to ask for.
    #[must_use]
    pub fn resolved_name(&self) -> Option<&HostName> {
        self.name
            .as_ref()
            .or_else(|| match self.canary.as_ref()?.host() {
                sluicegate_policy::Host::Name(name) => Some(name),
                sluicegate_policy::Host::Ip(_) => None,
            })
    }
}

fn target(node: &Node, faults: &mut Faults) -> Option<Target> {
    let text = node.string(faults)?;
    match Target::from_uri_authority(text, 443) {
        Ok(target) => Some(target),
        Err(_) => node.expected("HOST or HOST:PORT", faults),
    }
}
