//! The operator's bound on what any session may ask.

use super::{entries, model::Written, read_egress::addresses};
use crate::{
    AddressClass, Host, Origin, ServiceUrl, SocketEntry, Within,
    address::canonical,
    classify,
    entry::{Entry, Pattern, Ports},
    grant::Bound,
    matcher::{Compiled, Matcher},
    text::{Faults, Node},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
};

/// Who names a host service's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Author {
    /// The operator, or a control plane with a say in the whole gateway.
    Operator,
    /// Somebody with a say in a part of it: a tenant.
    Bounded,
}

/// The operator's bound on what any session may ask.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ceiling {
    /// Absent = any name.
    allowed_hosts: Option<Vec<Written<Entry>>>,
    denied_hosts: Vec<Written<Entry>>,
    /// Absent or empty = nothing special-purpose.
    addresses: Vec<Written<IpNet>>,
    /// Absent = any for the operator, none for a bounded author.
    sockets: Option<Vec<Written<SocketEntry>>>,
}

impl Ceiling {
    /// Read `{allowedHosts?, deniedHosts?, addresses?, sockets?}`, in the grammar of an `egress` block.
    ///
    /// Absent `allowedHosts` is no bound on names; absent `addresses` excepts nothing special-purpose. A metadata
    /// address is excepted only where `addresses` names it alone, not by a range around it. Where `sockets` is there,
    /// no service is a unix socket outside of it, whoever names it.
    pub fn read(node: &Node, faults: &mut Faults) -> Self {
        let mut fields = node.fields(faults);
        let allowed_hosts = fields
            .take("allowedHosts")
            .map(|node| entries(node, true, faults));
        let denied_hosts = fields
            .take("deniedHosts")
            .map(|node| entries(node, false, faults));
        let nets = fields.take("addresses").map(|node| addresses(node, faults));
        let sockets = fields.take("sockets").map(|node| sockets(node, faults));
        fields.finish(faults);
        Self {
            allowed_hosts,
            denied_hosts: denied_hosts.unwrap_or_default(),
            addresses: nets.unwrap_or_default(),
            sockets,
        }
    }

    /// Loopback addresses, any name: the built-in provider `local`.
    #[must_use]
    pub fn local() -> Self {
        let v4 = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
        let v6 = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);
        let written = |value| Written::new(value, crate::text::Place::default());
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

    /// Is this socket within `sockets`, where that is there?
    #[must_use]
    pub fn holds_socket(&self, path: &Path) -> bool {
        let held = |list: &Vec<Written<SocketEntry>>| list.iter().any(|own| own.value.holds(path));
        self.sockets.as_ref().is_none_or(held)
    }

    /// What every service must turn out to be when it is dialled.
    pub(super) fn within(&self) -> Within {
        let list = self.sockets.as_ref();
        Within {
            sockets: list.map(|list| list.iter().map(|own| own.value.clone()).collect()),
            addresses: None,
        }
    }

    /// What a service that this author named must turn out to be when it is dialled.
    #[must_use]
    pub fn within_for(&self, author: Author) -> Within {
        match author {
            Author::Operator => self.within(),
            Author::Bounded => Within {
                // None is listed where there is no list.
                sockets: self.within().sockets.or_else(|| Some([].into())),
                addresses: Some(self.addresses.iter().map(|own| own.value).collect()),
            },
        }
    }

    /// The ceiling that bounds sockets as this one does, and nothing else.
    #[must_use]
    pub fn of_sockets(&self) -> Self {
        Self {
            sockets: self.sockets.clone(),
            ..Self::default()
        }
    }

    /// May a session name this address as a host service? A special-purpose one must lie within `addresses`, a metadata
    /// address must be named there alone; public addresses are the control plane's to give. A unix socket is a bounded
    /// author's only where `sockets` has it; what is outside of that list is a fault of compiling.
    ///
    /// # Errors
    /// What is outside, for a person, and the key of the ceiling that could hold it.
    pub fn admits_service(
        &self,
        url: &ServiceUrl,
        author: Author,
    ) -> Result<(), (String, &'static str)> {
        let ip = match url {
            ServiceUrl::Tcp(ip, _) => *ip,
            ServiceUrl::Tls {
                host: Host::Ip(ip), ..
            } => *ip,
            ServiceUrl::Unix(_) if author == Author::Bounded && self.sockets.is_none() => {
                let what = "a credential that is bounded to a part of the gateway may name no unix socket of the host but what ceiling.sockets lists";
                return Err((what.to_owned(), "ceiling.sockets"));
            }
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
            let what = format!("{ip} is outside the operator's ceiling");
            Err((what, "ceiling.addresses"))
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

    /// `sockets` as written; an absent list has nothing in it.
    pub(crate) fn listed_sockets(&self) -> &[Written<SocketEntry>] {
        self.sockets.as_deref().unwrap_or_default()
    }

    /// Is there a bound on unix sockets?
    #[must_use]
    pub fn bounds_sockets(&self) -> bool {
        self.sockets.is_some()
    }

    /// Is there a bound on names?
    pub(crate) fn bounds_names(&self) -> bool {
        self.allowed_hosts.is_some()
    }

    /// The bound as the decision uses it.
    pub(super) fn compile(&self) -> Bound {
        let allow = self.allowed_hosts.as_ref();
        Bound {
            allow: allow
                .map(|list| Matcher::new(compiled("ceiling.allowedHosts", list, |ports| ports))),
            deny: denying("ceiling.deniedHosts", &self.denied_hosts, |_| true),
            addresses: self.addresses.iter().map(|own| own.value).collect(),
        }
    }
}

fn sockets(node: &Node, faults: &mut Faults) -> Vec<Written<SocketEntry>> {
    let mut found = Vec::new();
    for item in node.list(faults) {
        let Some(text) = item.string(faults) else {
            continue;
        };
        match SocketEntry::parse(text) {
            Ok(value) => found.push(Written::new(value, item.place().clone())),
            Err(error) => faults.error_hint(
                item.place(),
                error,
                "the path of a socket such as /run/app.sock, or a directory such as /run/app/ for all below it",
            ),
        }
    }
    found
}

/// Of a list of what is denied, what is of these origins as a matcher, each entry named by the list and its index. No port
/// written means every port.
pub(super) fn denying(
    list: &str,
    entries: &[Written<Entry>],
    of: impl Fn(Origin) -> bool,
) -> Matcher {
    let compiled = compiled(list, entries, Ports::or_any);
    Matcher::denying(compiled.filter(|(_, compiled)| of(compiled.origin)))
}

fn compiled<'a>(
    list: &'a str,
    entries: &'a [Written<Entry>],
    ports: impl Fn(Ports) -> Ports + 'a,
) -> impl Iterator<Item = (String, Compiled)> + 'a {
    entries.iter().enumerate().map(move |(index, written)| {
        let entry = Entry {
            pattern: written.value.pattern.clone(),
            ports: ports(written.value.ports),
        };
        let compiled = Compiled {
            entry,
            exception: false,
            origin: written.origin,
        };
        (format!("{list}[{index}] \"{}\"", written.value), compiled)
    })
}
