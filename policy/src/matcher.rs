//! Compiled lists: one pass over the name asked for, however many lists are asked; one probe per label, no allocation.

mod names;
mod suffixes;

use crate::{
    Host, HostPattern, RuleId,
    address::{canonical, spelled_out},
    entry::{Entry, Pattern, Ports},
    rule::{Origin, RuleTexts},
};
use ipnet::IpNet;
use names::Names;
use std::{collections::HashMap, sync::Arc};
use suffixes::Suffixes;

/// One compiled entry.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) entry: Entry,
    /// A special-purpose literal or range the operator's ceiling holds: its own exception to the address ban.
    pub(crate) exception: bool,
    /// Whose document it stands in.
    pub(crate) origin: Origin,
}

/// A list of entries.
#[derive(Debug, Default)]
pub(crate) struct Matcher {
    entries: Vec<Compiled>,
    /// How each is named in records and answers.
    rules: Arc<RuleTexts>,
    names: Names,
    nets: HashMap<IpNet, Vec<u32>>,
    /// Prefix lengths that occur, short ones first: (IPv4?, length).
    lengths: Vec<(bool, u8)>,
}

impl Matcher {
    /// A list of entries, each with its name as a rule.
    pub(crate) fn new(list: impl Iterator<Item = (String, Compiled)>) -> Self {
        Self::build(list, false)
    }

    /// Likewise, of what is denied: an IPv4 address is denied however it is spelled, in IPv6 too.
    pub(crate) fn denying(list: impl Iterator<Item = (String, Compiled)>) -> Self {
        Self::build(list, true)
    }

    fn build(list: impl Iterator<Item = (String, Compiled)>, denies: bool) -> Self {
        let (rules, entries): (Vec<String>, Vec<Compiled>) = list.unzip();
        let mut hosts = Vec::new();
        let mut nets: HashMap<IpNet, Vec<u32>> = HashMap::new();
        for (index, compiled) in (0_u32..).zip(&entries) {
            match &compiled.entry.pattern {
                Pattern::Host(pattern) => hosts.push((index, pattern, compiled.entry.ports)),
                Pattern::Net(net) => {
                    nets.entry(*net).or_default().push(index);
                    if let (IpNet::V6(v6), true) = (net, denies) {
                        for inner in spelled_out(*v6) {
                            nets.entry(inner.into()).or_default().push(index);
                        }
                    }
                }
            }
        }
        let names = Names::new(hosts.into_iter());
        let origins = entries.iter().map(|compiled| compiled.origin);
        let rules: RuleTexts = rules.into_iter().zip(origins).collect();
        for list in nets.values_mut() {
            list.sort_by_key(|index| {
                entries
                    .get(*index as usize)
                    .map(|compiled| compiled.entry.ports)
            });
        }
        let mut lengths: Vec<(bool, u8)> = nets
            .keys()
            .map(|net| (net.addr().is_ipv4(), net.prefix_len()))
            .collect();
        lengths.sort_unstable();
        lengths.dedup();
        Self {
            entries,
            rules: Arc::new(rules),
            names,
            nets,
            lengths,
        }
    }

    pub(crate) fn entry(&self, index: u32) -> Option<&Compiled> {
        self.entries.get(index as usize)
    }

    /// How entry `index` is named.
    pub(crate) fn rule(&self, index: u32) -> RuleId {
        RuleId::of(&self.rules, index)
    }

    pub(crate) fn entries(&self) -> &[Compiled] {
        &self.entries
    }

    /// Is there nothing in it?
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Every entry for this host, by index and ports, whatever those are, from the widest to the most specific.
    #[inline]
    pub(crate) fn visit(&self, host: &Host, found: impl FnMut(u32, Ports)) {
        self.visit_sought(&Sought::new(host, [self]), found);
    }

    /// The same, of a host that is looked for in other lists too.
    #[inline]
    pub(crate) fn visit_sought(&self, sought: &Sought<'_>, found: impl FnMut(u32, Ports)) {
        match sought {
            Sought::Name(name) => self.names.visit(name, found),
            Sought::Net(net) => self.visit_net(*net, found),
        }
    }

    /// Every entry that covers all hosts of `pattern`, as [`Self::visit`] has them for one.
    pub(crate) fn visit_pattern(&self, pattern: &Pattern, found: impl FnMut(u32, Ports)) {
        match pattern {
            Pattern::Host(HostPattern::Exact(name)) => self.visit_name(name.as_str(), found),
            // No name has a `*`, so that of entries for one name none is met.
            Pattern::Host(below) => self.visit_name(&below.to_string(), found),
            Pattern::Net(net) => self.visit_net(*net, found),
        }
    }

    fn visit_name(&self, name: &str, found: impl FnMut(u32, Ports)) {
        let name = Suffixes::new(name, self.names.labels());
        self.names.visit(&name, found);
    }

    fn visit_net(&self, inner: IpNet, mut found: impl FnMut(u32, Ports)) {
        let address = inner.addr();
        for (v4, length) in &self.lengths {
            if *v4 != address.is_ipv4() || *length > inner.prefix_len() {
                continue;
            }
            let net = IpNet::new(address, *length).map(|net| net.trunc());
            let group = net
                .ok()
                .and_then(|net| self.nets.get(&net))
                .map(Vec::as_slice);
            for index in group.unwrap_or_default() {
                if let Some(compiled) = self.entry(*index) {
                    found(*index, compiled.entry.ports);
                }
            }
        }
    }

    /// The most specific entry for this host and port; else whether there is one for other ports.
    pub(crate) fn find(&self, host: &Host, port: u16) -> Found {
        self.find_sought(&Sought::new(host, [self]), port)
    }

    /// The same, of a host that is looked for in other lists too.
    #[inline]
    pub(crate) fn find_sought(&self, sought: &Sought<'_>, port: u16) -> Found {
        let mut best = Found::Nothing;
        self.visit_sought(sought, |index, ports| {
            if ports.covers(port) {
                best = Found::Entry(index);
            } else if matches!(best, Found::Nothing) {
                best = Found::OtherPort(index);
            }
        });
        best
    }
}

/// A host that is looked for: its name is hashed once, for all lists.
#[derive(Debug)]
pub(crate) enum Sought<'h> {
    Name(Suffixes<'h>),
    Net(IpNet),
}

impl<'h> Sought<'h> {
    /// To be looked for in these lists (in others it is found as well, and may take longer).
    #[inline]
    pub(crate) fn new<'m>(host: &'h Host, lists: impl IntoIterator<Item = &'m Matcher>) -> Self {
        match host {
            Host::Name(name) => {
                let labels = lists
                    .into_iter()
                    .fold(0, |labels, list| labels | list.names.labels());
                Self::Name(Suffixes::new(name.as_str(), labels))
            }
            Host::Ip(address) => Self::Net(IpNet::from(canonical(*address))),
        }
    }
}

/// What a list says of a host and port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// This entry covers it.
    Entry(u32),
    /// This entry covers the host, on other ports.
    OtherPort(u32),
    /// No entry covers the host.
    Nothing,
}
