//! A list that can be asked which of its entries cover another.

use super::{is_metadata, supernets};
use crate::{
    document::Written,
    entry::{Entry, Pattern, Ports},
    host::HostPattern,
    text::Place,
};
use ipnet::IpNet;
use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

/// One entry, with the ports it stands for in its list.
pub(super) struct Item<'a> {
    pub(super) entry: &'a Entry,
    pub(super) ports: Ports,
    pub(super) place: &'a Place,
}

impl Item<'_> {
    pub(super) fn told(&self) -> String {
        let Place { position, path } = self.place;
        format!("\"{}\" ({path}, line {})", self.entry, position.line)
    }
}

/// A list that can be asked which of its entries cover a pattern, without looking at each.
pub(super) struct Index<'a> {
    pub(super) items: Vec<Item<'a>>,
    exact: HashMap<&'a str, Vec<usize>>,
    below: HashMap<&'a str, Vec<usize>>,
    nets: HashMap<IpNet, Vec<usize>>,
}

impl<'a> Index<'a> {
    /// Of a list, and what its ports stand for there.
    pub(super) fn of(list: &'a [Written<Entry>], ports: impl Fn(Ports) -> Ports) -> Self {
        Self::over(list.iter().map(|written| Item {
            entry: &written.value,
            ports: ports(written.value.ports),
            place: &written.place,
        }))
    }

    /// Of what stands in a list.
    pub(super) fn over(items: impl Iterator<Item = Item<'a>>) -> Self {
        let mut index = Self {
            items: items.collect(),
            exact: HashMap::new(),
            below: HashMap::new(),
            nets: HashMap::new(),
        };
        for (at, item) in index.items.iter().enumerate() {
            match &item.entry.pattern {
                Pattern::Host(HostPattern::Exact(name)) => {
                    index.exact.entry(name.as_str()).or_default().push(at);
                }
                Pattern::Host(HostPattern::Below(name)) => {
                    index.below.entry(name.as_str()).or_default().push(at);
                }
                Pattern::Net(net) => index.nets.entry(*net).or_default().push(at),
            }
        }
        index
    }

    /// Every entry that covers all hosts of `pattern`, the closest first.
    pub(super) fn covering(&self, pattern: &Pattern) -> Vec<usize> {
        let mut found = Vec::new();
        match pattern {
            Pattern::Net(net) => {
                for net in std::iter::once(*net).chain(supernets(*net)) {
                    found.extend(self.nets.get(&net).into_iter().flatten());
                }
            }
            Pattern::Host(host) => {
                let name = host.name().as_str();
                match host {
                    HostPattern::Exact(_) => {
                        found.extend(self.exact.get(name).into_iter().flatten())
                    }
                    HostPattern::Below(_) => {
                        found.extend(self.below.get(name).into_iter().flatten())
                    }
                }
                let mut rest = name;
                while let Some((_, parent)) = rest.split_once('.') {
                    found.extend(self.below.get(parent).into_iter().flatten());
                    rest = parent;
                }
            }
        }
        found
    }

    /// An entry of this (denying) list that, alone or with others, leaves nothing of `item`.
    pub(super) fn bars(&self, item: &Item<'_>) -> Option<&Item<'a>> {
        let found = self.covering(&item.entry.pattern);
        let covering: Vec<&Item<'a>> = found.iter().filter_map(|at| self.items.get(*at)).collect();
        let covers = |port| covering.iter().any(|own| own.ports.covers(port));
        let all = match item.ports {
            Ports::Any => covering.iter().any(|own| own.ports == Ports::Any),
            Ports::Web => covers(80) && covers(443),
            Ports::One(port) => covers(port),
        };
        let first = covering
            .iter()
            .find(|own| overlap(own.ports, item.ports))
            .copied();
        first.filter(|_| all)
    }

    /// Entries of this (denying) list for names of which `allowed` has none, on whatever port. Ranges are judged against what names
    /// lead to as well: nothing is said of them.
    pub(super) fn idle(&self, allowed: &Index<'_>) -> impl Iterator<Item = &Item<'a>> {
        let within = allowed.items.iter();
        let within = within.flat_map(|item| self.covering(&item.entry.pattern));
        let met: HashSet<usize> = within.collect();
        let names = self.items.iter().enumerate().filter(move |(at, item)| {
            matches!(item.entry.pattern, Pattern::Host(_))
                && !met.contains(at)
                && allowed.covering(&item.entry.pattern).is_empty()
        });
        names.map(|(_, item)| item)
    }

    /// Another entry of the list that covers the one at `at` on its own; of two equal ones, the later has one.
    pub(super) fn wider(&self, at: usize) -> Option<&Item<'a>> {
        let item = self.items.get(at)?;
        if matches!(item.entry.pattern, Pattern::Net(net) if is_metadata(net)) {
            return None;
        }
        let found = self.covering(&item.entry.pattern).into_iter();
        found
            .filter(|other| *other != at)
            .filter_map(|other| Some((other, self.items.get(other)?)))
            .find(|(other, own)| {
                let equal = own.ports == item.ports && own.entry.pattern == item.entry.pattern;
                contains(own.ports, item.ports) && (!equal || *other < at)
            })
            .map(|(_, own)| own)
    }
}

/// A list that can be asked which of its entries lie within a pattern, without looking at each.
pub(super) struct Inside {
    /// Names without their `*.`, read from the end, in order: those below one follow each other.
    names: Vec<(Vec<u8>, usize)>,
    /// Ranges by their first address, the wider ones first.
    nets: Vec<(IpAddr, u8, usize)>,
}

impl Inside {
    pub(super) fn of(list: &[Written<Entry>]) -> Self {
        let (mut names, mut nets) = (Vec::new(), Vec::new());
        for (at, written) in list.iter().enumerate() {
            match &written.value.pattern {
                Pattern::Host(host) => names.push((backwards(host.name().as_str()), at)),
                Pattern::Net(net) => nets.push((net.network(), net.prefix_len(), at)),
            }
        }
        names.sort_unstable();
        nets.sort_unstable();
        Self { names, nets }
    }

    /// Every entry for some hosts of `pattern`, and not for all of them.
    pub(super) fn narrower(&self, pattern: &Pattern) -> Vec<usize> {
        match pattern {
            Pattern::Host(HostPattern::Exact(_)) => Vec::new(),
            Pattern::Host(HostPattern::Below(name)) => {
                let mut prefix = backwards(name.as_str());
                prefix.push(b'.');
                let from = self.names.partition_point(|(name, _)| *name < prefix);
                let rest = self.names.get(from..).unwrap_or_default().iter();
                let below = rest.take_while(|(name, _)| name.starts_with(&prefix));
                below.map(|(_, at)| *at).collect()
            }
            Pattern::Net(net) => {
                let (first, last, length) = (net.network(), net.broadcast(), net.prefix_len());
                let from = self.nets.partition_point(|(start, _, _)| *start < first);
                let rest = self.nets.get(from..).unwrap_or_default().iter();
                let within = rest.take_while(|(start, _, _)| *start <= last);
                let narrower = within.filter(|(_, other, _)| *other > length);
                narrower.map(|(_, _, at)| *at).collect()
            }
        }
    }
}

fn backwards(name: &str) -> Vec<u8> {
    name.bytes().rev().collect()
}

fn contains(outer: Ports, inner: Ports) -> bool {
    match (outer, inner) {
        (Ports::Any, _) | (Ports::Web, Ports::Web) => true,
        (outer, Ports::One(port)) => outer.covers(port),
        _ => false,
    }
}

fn overlap(a: Ports, b: Ports) -> bool {
    match (a, b) {
        (Ports::Any, _) | (_, Ports::Any) | (Ports::Web, Ports::Web) => true,
        (a, Ports::One(port)) => a.covers(port),
        (Ports::One(port), b) => b.covers(port),
    }
}
