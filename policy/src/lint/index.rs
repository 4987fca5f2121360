//! A list that can be asked which of its entries cover another.

use super::{is_metadata, supernets};
use crate::{
    document::Written,
    entry::{Entry, Pattern, Ports},
    host::HostPattern,
    text::Place,
};
use ipnet::IpNet;
use std::collections::{HashMap, HashSet};

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
        let items = list.iter().map(|written| Item {
            entry: &written.value,
            ports: ports(written.value.ports),
            place: &written.place,
        });
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
    fn covering(&self, pattern: &Pattern) -> Vec<usize> {
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
