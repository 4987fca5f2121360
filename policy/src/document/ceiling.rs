//! The operator's bound on what any session may ask.

use super::{entries, model::Written, read_egress::addresses};
use crate::{
    AddressClass, Host, ServiceUrl,
    address::canonical,
    classify,
    entry::{Entry, Pattern, Ports},
    grant::Bound,
    matcher::{Compiled, Matcher},
    text::{Faults, Node},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The operator's bound on what any session may ask.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ceiling {
    /// Absent = any name.
    allowed_hosts: Option<Vec<Written<Entry>>>,
    denied_hosts: Vec<Written<Entry>>,
    /// Absent or empty = nothing special-purpose.
    addresses: Vec<Written<IpNet>>,
}

impl Ceiling {
    /// Read `{allowedHosts?, deniedHosts?, addresses?}`, in the grammar of an `egress` block.
    ///
    /// Absent `allowedHosts` is no bound on names; absent `addresses` excepts nothing special-purpose. A metadata
    /// address is excepted only where `addresses` names it alone, not by a range around it.
    pub fn read(node: &Node, faults: &mut Faults) -> Self {
        let mut fields = node.fields(faults);
        let allowed_hosts = fields
            .take("allowedHosts")
            .map(|node| entries(node, true, faults));
        let denied_hosts = fields
            .take("deniedHosts")
            .map(|node| entries(node, false, faults));
        let nets = fields.take("addresses").map(|node| addresses(node, faults));
        fields.finish(faults);
        Self {
            allowed_hosts,
            denied_hosts: denied_hosts.unwrap_or_default(),
            addresses: nets.unwrap_or_default(),
        }
    }

    /// Loopback addresses, any name: the built-in provider `local`.
    #[must_use]
    pub fn local() -> Self {
        let v4 = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
        let v6 = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);
        let written = |value| Written {
            value,
            place: crate::text::Place::default(),
        };
        Self {
            addresses: vec![written(v4.into()), written(v6.into())],
            ..Self::default()
        }
    }

    /// Does one of `addresses` hold the whole range?
    pub(super) fn holds_net(&self, net: &IpNet) -> bool {
        self.addresses.iter().any(|own| own.value.contains(net))
    }

    /// Is the single address `net` named alone, not only by a range around it?
    pub(super) fn names_address(&self, net: &IpNet) -> bool {
        self.addresses.iter().any(|own| own.value == *net)
    }

    /// Is every host and port of `entry` within `allowedHosts` (or, for addresses, `addresses`)?
    pub(super) fn holds_entry(&self, entry: &Entry) -> bool {
        let Some(allowed) = &self.allowed_hosts else {
            return true;
        };
        if matches!(&entry.pattern, Pattern::Net(net) if self.holds_net(net)) {
            return true;
        }
        let outer: Vec<Ports> = allowed
            .iter()
            .filter(|own| own.value.contains_hosts(&entry.pattern))
            .map(|own| own.value.ports)
            .collect();
        let port = |port| outer.iter().any(|ports| ports.covers(port));
        match entry.ports {
            Ports::Any => outer.contains(&Ports::Any),
            Ports::Web => port(80) && port(443),
            Ports::One(one) => port(one),
        }
    }

    /// May a session name this address as a host service? A special-purpose one must lie within `addresses`, a metadata
    /// address must be named there alone; public addresses and unix sockets are the control plane's to give.
    ///
    /// # Errors
    /// What is outside, for a person.
    pub fn admits_service(&self, url: &ServiceUrl) -> Result<(), String> {
        let ip = match url {
            ServiceUrl::Tcp(ip, _) => *ip,
            ServiceUrl::Tls {
                host: Host::Ip(ip), ..
            } => *ip,
            ServiceUrl::Tls { .. } | ServiceUrl::Unix(_) => return Ok(()),
        };
        let ip = canonical(ip);
        let net = IpNet::from(ip);
        let held = match classify(ip, &[]) {
            AddressClass::Global => true,
            AddressClass::Special { .. } => self.holds_net(&net),
            AddressClass::Metadata => self.names_address(&net),
        };
        if held {
            Ok(())
        } else {
            Err(format!("{ip} is outside the operator's ceiling"))
        }
    }

    /// `allowedHosts` as written; an absent list has nothing in it.
    pub(crate) fn allowed(&self) -> &[Written<Entry>] {
        self.allowed_hosts.as_deref().unwrap_or_default()
    }

    /// `deniedHosts` as written.
    pub(crate) fn denied(&self) -> &[Written<Entry>] {
        &self.denied_hosts
    }

    /// `addresses` as written.
    pub(crate) fn excepted(&self) -> &[Written<IpNet>] {
        &self.addresses
    }

    /// Is there a bound on names?
    pub(super) fn bounds_names(&self) -> bool {
        self.allowed_hosts.is_some()
    }

    /// The bound as the decision uses it.
    pub(super) fn compile(&self) -> Bound {
        let allow = self.allowed_hosts.as_ref();
        Bound {
            allow: allow.map(|list| matcher("ceiling.allowedHosts", list, |ports| ports)),
            deny: matcher("ceiling.deniedHosts", &self.denied_hosts, Ports::or_any),
            addresses: self.addresses.iter().map(|own| own.value).collect(),
        }
    }
}

/// A list as a matcher, each entry named by the list and its index.
pub(super) fn matcher(
    list: &str,
    entries: &[Written<Entry>],
    ports: impl Fn(Ports) -> Ports,
) -> Matcher {
    Matcher::new(entries.iter().enumerate().map(|(index, written)| {
        let entry = Entry {
            pattern: written.value.pattern.clone(),
            ports: ports(written.value.ports),
        };
        let compiled = Compiled {
            entry,
            exception: false,
        };
        (format!("{list}[{index}] \"{}\"", written.value), compiled)
    }))
}
