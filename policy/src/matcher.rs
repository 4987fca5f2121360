//! Compiled lists: one pass over the name asked for, one probe per label, no allocation.

use crate::{
    Host, HostPattern, RuleId,
    address::canonical,
    entry::{Entry, Pattern, Ports},
};
use ipnet::IpNet;
use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    net::IpAddr,
};

/// One compiled entry.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) entry: Entry,
    pub(crate) rule: RuleId,
    /// A special-purpose literal or range the operator's ceiling holds: its own exception to the address ban.
    pub(crate) exception: bool,
}

/// A list of entries.
///
/// Names are found by a hash that is extended label by label from the end, so that one pass yields the hash of every
/// suffix. A hash only finds candidates: names are compared before they count.
#[derive(Debug, Default)]
pub(crate) struct Matcher {
    entries: Vec<Compiled>,
    /// Hash of a name → range of `order`.
    names: HashMap<u64, (u32, u32), BuildHasherDefault<Identity>>,
    /// Entry indices, grouped by hash of name, wide ports first.
    order: Vec<u32>,
    nets: HashMap<IpNet, Vec<u32>>,
    /// Prefix lengths that occur, short ones first: (IPv4?, length).
    lengths: Vec<(bool, u8)>,
}

impl Matcher {
    pub(crate) fn new(entries: Vec<Compiled>) -> Self {
        let mut hashed: Vec<(u64, Ports, u32)> = Vec::new();
        let mut nets: HashMap<IpNet, Vec<u32>> = HashMap::new();
        for (index, compiled) in (0_u32..).zip(&entries) {
            match &compiled.entry.pattern {
                Pattern::Host(pattern) => {
                    hashed.push((hash(pattern.name().as_str()), compiled.entry.ports, index))
                }
                Pattern::Net(net) => nets.entry(*net).or_default().push(index),
            }
        }
        hashed.sort_unstable();
        let mut names: HashMap<u64, (u32, u32), BuildHasherDefault<Identity>> = HashMap::default();
        for (place, (hash, ..)) in (0_u32..).zip(&hashed) {
            names.entry(*hash).or_insert((place, place)).1 = place + 1;
        }
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
        let order = hashed.into_iter().map(|(.., index)| index).collect();
        Self {
            entries,
            names,
            order,
            nets,
            lengths,
        }
    }

    pub(crate) fn entry(&self, index: u32) -> Option<&Compiled> {
        self.entries.get(index as usize)
    }

    pub(crate) fn entries(&self) -> &[Compiled] {
        &self.entries
    }

    /// Every entry for this host, whatever its ports, from the widest to the most specific.
    pub(crate) fn visit(&self, host: &Host, found: impl FnMut(u32, &Compiled)) {
        match host {
            Host::Name(name) => self.visit_name(name.as_str(), found),
            Host::Ip(address) => self.visit_address(*address, found),
        }
    }

    fn visit_name(&self, name: &str, mut found: impl FnMut(u32, &Compiled)) {
        if self.names.is_empty() {
            return;
        }
        let mut state = SEED;
        for (at, byte) in name.bytes().enumerate().rev() {
            if byte == b'.' {
                let suffix = name.get(at + 1..).unwrap_or_default();
                self.probe(state, suffix, false, &mut found);
            }
            state = step(state, byte);
        }
        self.probe(state, name, true, &mut found);
    }

    fn probe(&self, state: u64, name: &str, exact: bool, found: &mut impl FnMut(u32, &Compiled)) {
        let Some((start, end)) = self.names.get(&finish(state)) else {
            return;
        };
        let group = self
            .order
            .get(*start as usize..*end as usize)
            .unwrap_or_default();
        for index in group {
            let Some(compiled) = self.entry(*index) else {
                continue;
            };
            let matches = match &compiled.entry.pattern {
                Pattern::Host(HostPattern::Exact(own)) => exact && own.as_str() == name,
                Pattern::Host(HostPattern::Below(own)) => !exact && own.as_str() == name,
                Pattern::Net(_) => false,
            };
            if matches {
                found(*index, compiled);
            }
        }
    }

    fn visit_address(&self, address: IpAddr, mut found: impl FnMut(u32, &Compiled)) {
        let address = canonical(address);
        for (v4, length) in &self.lengths {
            if *v4 != address.is_ipv4() {
                continue;
            }
            let net = IpNet::new(address, *length).map(|net| net.trunc());
            let group = net
                .ok()
                .and_then(|net| self.nets.get(&net))
                .map(Vec::as_slice);
            for index in group.unwrap_or_default() {
                if let Some(compiled) = self.entry(*index) {
                    found(*index, compiled);
                }
            }
        }
    }

    /// The most specific entry for this host and port; else whether there is one for other ports.
    pub(crate) fn find(&self, host: &Host, port: u16) -> Found {
        let mut best = Found::Nothing;
        self.visit(host, |index, compiled| {
            if compiled.entry.ports.covers(port) {
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

// FNV-1a, from the last byte to the first. Keys come from configuration, so nobody outside can make them collide.
const SEED: u64 = 0xcbf2_9ce4_8422_2325;

const fn step(state: u64, byte: u8) -> u64 {
    (state ^ byte as u64).wrapping_mul(0x0100_0000_01b3)
}

/// Spread the bits: the table takes its slot from the low ones and its tag from the high ones.
const fn finish(state: u64) -> u64 {
    let mixed = (state ^ (state >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

fn hash(name: &str) -> u64 {
    finish(name.bytes().rev().fold(SEED, step))
}

/// The key is a hash already.
#[derive(Default)]
pub(crate) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes
            .iter()
            .rev()
            .fold(self.0, |state, byte| step(state, *byte));
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}
