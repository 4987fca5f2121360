//! Compiled lists: one pass over the name asked for, one probe per label, no allocation.

mod names;

use crate::{
    Host, HostPattern, RuleId,
    address::{canonical, spelled_out},
    entry::{Entry, Pattern, Ports},
    rule::{Origin, RuleTexts},
};
use ipnet::IpNet;
use names::Names;
use std::{collections::HashMap, sync::Arc};

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

    /// Every entry for this host, by index and ports, whatever those are, from the widest to the most specific.
    #[inline]
    pub(crate) fn visit(&self, host: &Host, found: impl FnMut(u32, Ports)) {
        match host {
            Host::Name(name) => self.names.visit(name.as_str(), found),
            Host::Ip(address) => self.visit_net(IpNet::from(canonical(*address)), found),
        }
    }

    /// Every entry that covers all hosts of `pattern`, as [`Self::visit`] has them for one.
    pub(crate) fn visit_pattern(&self, pattern: &Pattern, found: impl FnMut(u32, Ports)) {
        match pattern {
            Pattern::Host(HostPattern::Exact(name)) => self.names.visit(name.as_str(), found),
            // No name has a `*`, so that of entries for one name none is met.
            Pattern::Host(below) => self.names.visit(&below.to_string(), found),
            Pattern::Net(net) => self.visit_net(*net, found),
        }
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
        let mut best = Found::Nothing;
        self.visit(host, |index, ports| {
            if ports.covers(port) {
                best = Found::Entry(index);
            } else if matches!(best, Found::Nothing) {
                best = Found::OtherPort(index);
            }
        });
        best
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
