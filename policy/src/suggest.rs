//! The smallest sensible allowlist for what was seen.

use crate::{
    AddressClass, EgressDocument, Host, HostName, HostPattern, Target, TlsRule,
    address::canonical,
    classify,
    entry::{Entry, Pattern, Ports},
    host::{Suffix, suffix},
    text::{self, Faults},
};
use ipnet::IpNet;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

mod plain;
#[cfg(test)]
mod tests;
mod tunnels;

pub use plain::PlainUse;
pub use tunnels::TunnelUse;

/// Ports by host, both seen.
type Seen = BTreeMap<Host, BTreeSet<u16>>;

/// An `egress` block that allows the targets seen.
///
/// Without `collapse` it allows exactly them: a host seen on one port is allowed on that port. With it, `collapse` or
/// more names directly below the same domain, seen on the same port, become `*.domain`; the domain is a registrable one
/// or below one (public suffix list, both sections), never a suffix and never below a top-level name no list knows.
///
/// `dialled` is what names resolved to: the special-purpose ones of these need an exception (`allowedAddresses`).
///
/// `plain` are targets of which nothing was asked but in the plain: each gets a rule of its methods and paths, where its port is not
/// one of TLS. So many paths in one directory, never the root, become that directory with `collapse`. A `*.domain` of such targets
/// alone has the rule that all of them together need.
#[must_use]
pub fn suggest<'a>(
    seen: impl IntoIterator<Item = &'a Target>,
    plain: impl IntoIterator<Item = (&'a Target, &'a PlainUse)>,
    dialled: impl IntoIterator<Item = IpAddr>,
    collapse: Option<usize>,
) -> EgressDocument {
    let mut hosts = Seen::new();
    for target in seen {
        hosts
            .entry(target.host().clone())
            .or_default()
            .insert(target.port());
    }
    let plain: Vec<(&Target, &PlainUse)> = plain.into_iter().collect();
    let patterns = collapse.map_or_else(BTreeMap::new, |least| collapsed(&hosts, least));
    let shared = shared_rules(&patterns, &hosts, &plain, collapse);
    for (host, ports) in &mut hosts {
        let Host::Name(name) = host else {
            continue;
        };
        ports.retain(|port| {
            !patterns
                .iter()
                .any(|(parent, covered)| covered.contains(port) && name.is_below(parent))
        });
    }
    let below = patterns
        .into_iter()
        .flat_map(|(parent, ports)| entries(Pattern::Host(HostPattern::Below(parent)), &ports));
    let exact = hosts
        .into_iter()
        .flat_map(|(host, ports)| entries(exactly(&host), &ports));
    let list: Vec<String> = below.chain(exact).collect();
    // Our own reader makes the document, so that nothing gets past the grammar.
    let mut faults = Faults::default();
    let exceptions: BTreeSet<IpAddr> = dialled
        .into_iter()
        .map(canonical)
        .filter(|address| classify(*address, &[]) != AddressClass::Global)
        .collect();
    let own = plain
        .into_iter()
        .filter_map(|(target, asked)| rule(exactly(target.host()), target.port(), asked, collapse));
    let rules: Vec<Value> = shared.into_iter().chain(own).collect();
    let mut block = Map::new();
    block.insert("allowedHosts".to_owned(), json!(list));
    if !exceptions.is_empty() {
        block.insert("allowedAddresses".to_owned(), json!(exceptions));
    }
    if !rules.is_empty() {
        block.insert("rules".to_owned(), rules.into());
    }
    let block = Value::from(block).to_string();
    EgressDocument::read(&text::parse(&block, &mut faults), &mut faults)
}

/// The rule of methods and paths at a pattern, where it may have one and that bounds anything.
fn rule(pattern: Pattern, port: u16, asked: &PlainUse, collapse: Option<usize>) -> Option<Value> {
    if TlsRule::default_for(port) == TlsRule::Require {
        return None;
    }
    let ports = Ports::One(port);
    let entry = Entry { pattern, ports };
    let http = asked.rule(collapse)?;
    Some(json!({ "host": entry.to_string(), "http": http }))
}

/// For names that a pattern allows beside those seen: what all of these need, where nothing was asked of them but in the plain.
fn shared_rules(
    patterns: &BTreeMap<HostName, BTreeSet<u16>>,
    hosts: &Seen,
    plain: &[(&Target, &PlainUse)],
    collapse: Option<usize>,
) -> Vec<Value> {
    let plain: BTreeMap<&Target, &PlainUse> = plain.iter().copied().collect();
    let of_all = |parent: &HostName, port: u16| {
        let mut all = PlainUse::default();
        for (host, ports) in hosts {
            let covered = matches!(host, Host::Name(name) if name.is_below(parent));
            if covered && ports.contains(&port) {
                let target = Target::new(host.clone(), port)?;
                all.merge(plain.get(&target)?);
            }
        }
        Some(all)
    };
    let mut rules = Vec::new();
    for (parent, ports) in patterns {
        for port in ports {
            let below = Pattern::Host(HostPattern::Below(parent.clone()));
            let all = of_all(parent, *port);
            rules.extend(all.and_then(|all| rule(below, *port, &all, collapse)));
        }
    }
    rules
}

fn exactly(host: &Host) -> Pattern {
    match host {
        Host::Name(name) => Pattern::Host(HostPattern::Exact(name.clone())),
        Host::Ip(address) => Pattern::Net(IpNet::from(address.to_canonical())),
    }
}

/// Parents with enough names directly below them, with the ports on which there were enough.
fn collapsed(hosts: &Seen, least: usize) -> BTreeMap<HostName, BTreeSet<u16>> {
    let mut children: BTreeMap<(HostName, u16), usize> = BTreeMap::new();
    for (host, ports) in hosts {
        let Host::Name(name) = host else {
            continue;
        };
        let Some(parent) = registrable_parent(name) else {
            continue;
        };
        for port in ports {
            *children.entry((parent.clone(), *port)).or_default() += 1;
        }
    }
    let mut patterns: BTreeMap<HostName, BTreeSet<u16>> = BTreeMap::new();
    for ((parent, port), names) in children {
        // One name is no pattern, whatever was asked for.
        if names >= least.max(2) {
            patterns.entry(parent).or_default().insert(port);
        }
    }
    // What a wider pattern covers needs none of its own.
    let all = patterns.clone();
    for (parent, ports) in &mut patterns {
        ports.retain(|port| {
            !all.iter()
                .any(|(wider, covered)| covered.contains(port) && parent.is_below(wider))
        });
    }
    patterns.retain(|_, ports| !ports.is_empty());
    patterns
}

/// The name one label up, where it is somebody's own.
fn registrable_parent(name: &HostName) -> Option<HostName> {
    let (_, parent) = name.as_str().split_once('.')?;
    let domain = psl::domain(parent.as_bytes())?;
    let known = domain.suffix().is_known();
    let parent = HostName::parse(parent).ok()?;
    (known && suffix(&parent) == Suffix::None).then_some(parent)
}

fn entries(pattern: Pattern, ports: &BTreeSet<u16>) -> Vec<String> {
    let web = ports.contains(&80) && ports.contains(&443);
    let one = ports
        .iter()
        .filter(|port| !(web && matches!(port, 80 | 443)))
        .map(|port| Ports::One(*port));
    let ports = web.then_some(Ports::Web).into_iter().chain(one);
    ports
        .map(|ports| {
            let pattern = pattern.clone();
            Entry { pattern, ports }.to_string()
        })
        .collect()
}
