//! What is allowed to be written and still should be looked at.
//!
//! [`lint`] looks at the meaning of one `egress` block, [`lint_source`] at the text it stands in. Both only warn.

use crate::{
    EgressDocument,
    address::METADATA,
    entry::{Entry, Pattern, Ports},
    host::HostPattern,
    text::{self, Faults, Kind, Node, Place},
};
use ipnet::IpNet;
use std::collections::HashMap;

mod secrets;
#[cfg(test)]
mod tests;

/// Warnings about a text, and the text with what looks like secrets blotted out.
#[derive(Clone, Debug)]
pub struct SourceLint {
    /// Warnings only.
    pub faults: Faults,
    /// The source, each secret replaced by as many `*`: for showing lines of it.
    pub masked: String,
}

/// Look at a text: secrets in the plain, comments included; report mode left on; defaults that do not apply or allow
/// everything. Syntax faults are left to whoever reads the text.
#[must_use]
pub fn lint_source(source: &str) -> SourceLint {
    let mut faults = Faults::default();
    let masked = secrets::find(source, &mut faults);
    let root = text::parse(source, &mut Faults::default());
    visit(&root, &mut faults);
    SourceLint { faults, masked }
}

/// Every `egress` block of the tree.
fn visit(node: &Node, faults: &mut Faults) {
    match node.kind() {
        Kind::Map(entries) => {
            for (key, value) in entries {
                if key == "egress" {
                    judge_block(value, faults);
                }
                visit(value, faults);
            }
        }
        Kind::List(items) => items.iter().for_each(|item| visit(item, faults)),
        Kind::Null | Kind::Scalar { .. } | Kind::Broken => {}
    }
}

fn judge_block(block: &Node, faults: &mut Faults) {
    let Kind::Map(entries) = block.kind() else {
        return;
    };
    let find = |key: &str| {
        let found = entries.iter().find(|(name, _)| name == key);
        found.map(|(_, node)| node)
    };
    let says = |key: &str, word: &str| {
        find(key).filter(|node| matches!(node.kind(), Kind::Scalar { text, .. } if text == word))
    };
    if let Some(node) = says("mode", "report") {
        let hint = Some("mode: enforce, once the records show what is needed".to_owned());
        let message = "report mode is on: what the lists refuse is let through and only recorded";
        faults.warn(node.place(), message, hint);
    }
    match (find("defaultAction"), find("allowedHosts")) {
        (Some(node), Some(_)) => {
            let message = "defaultAction has no effect beside allowedHosts";
            faults.warn(&node.key_place(), message, Some("leave it out".to_owned()));
        }
        (Some(_), None) => {
            if let Some(node) = says("defaultAction", "allow") {
                let message = "every host that is not denied is allowed";
                let hint = Some("name what is needed in allowedHosts".to_owned());
                faults.warn(node.place(), message, hint);
            }
        }
        (None, _) => {}
    }
}

/// Look at one block: entries and rules that are never reached, entries that add nothing, every port allowed.
pub fn lint(egress: &EgressDocument, faults: &mut Faults) {
    let denied = Index::new(egress.denied_hosts.iter().map(|written| Item {
        entry: &written.value,
        ports: written.value.ports.or_any(),
        place: &written.place,
    }));
    let allowed = Index::new(egress.allowed_hosts.iter().flatten().map(|written| Item {
        entry: &written.value,
        ports: written.value.ports,
        place: &written.place,
    }));
    for (at, item) in allowed.items.iter().enumerate() {
        if let Some(deny) = denied.bars(item) {
            warn_unreachable(&format!("\"{}\"", item.entry), item.place, deny, faults);
        } else if let Some(wider) = allowed.wider(at) {
            warn_redundant(item, wider, faults);
        }
        if item.ports == Ports::Any {
            let message = format!("\"{}\" allows every port", item.entry);
            let hint = Some("write the ports that are needed".to_owned());
            faults.warn(item.place, message, hint);
        }
    }
    for (at, item) in denied.items.iter().enumerate() {
        if let Some(wider) = denied.wider(at) {
            warn_redundant(item, wider, faults);
        }
    }
    lint_rules(egress, &denied, faults);
    lint_addresses(egress, faults);
}

fn lint_rules(egress: &EgressDocument, denied: &Index<'_>, faults: &mut Faults) {
    for written in &egress.rules {
        let rule = &written.value;
        let item = Item {
            entry: &rule.host,
            ports: rule.host.ports.or_any(),
            place: &written.place,
        };
        if let Some(deny) = denied.bars(&item) {
            let what = format!("the rule for \"{}\"", rule.host);
            warn_unreachable(&what, item.place, deny, faults);
        }
        if rule.tls.is_none() && rule.ech.is_none() && rule.http.is_none() {
            let message = format!("the rule for \"{}\" sets nothing", rule.host);
            faults.warn(item.place, message, Some("leave it out".to_owned()));
        }
    }
}

fn lint_addresses(egress: &EgressDocument, faults: &mut Faults) {
    let mut seen: HashMap<IpNet, usize> = HashMap::new();
    for (at, written) in egress.allowed_addresses.iter().enumerate() {
        seen.entry(written.value).or_insert(at);
    }
    for (at, written) in egress.allowed_addresses.iter().enumerate() {
        let net = written.value;
        let twice = seen.get(&net).is_some_and(|first| *first < at);
        let wider = supernets(net).find(|wider| seen.contains_key(wider));
        // A metadata address counts only where it is named alone.
        if let Some(wider) = wider.or(twice.then_some(net)).filter(|_| !is_metadata(net)) {
            let message = format!("\"{net}\" adds nothing: \"{wider}\" covers it");
            faults.warn(&written.place, message, Some("leave one out".to_owned()));
        }
    }
}

fn warn_unreachable(what: &str, place: &Place, deny: &Item<'_>, faults: &mut Faults) {
    let message = format!(
        "{what} is never reached: {} denies it, and denies always win",
        deny.told()
    );
    faults.warn(place, message, Some("remove one of them".to_owned()));
}

fn warn_redundant(item: &Item<'_>, wider: &Item<'_>, faults: &mut Faults) {
    let message = format!(
        "\"{}\" adds nothing: {} covers it",
        item.entry,
        wider.told()
    );
    faults.warn(item.place, message, Some("leave one out".to_owned()));
}

/// One entry, with the ports it stands for in its list.
struct Item<'a> {
    entry: &'a Entry,
    ports: Ports,
    place: &'a Place,
}

impl Item<'_> {
    fn told(&self) -> String {
        let Place { position, path } = self.place;
        format!("\"{}\" ({path}, line {})", self.entry, position.line)
    }
}

/// A list that can be asked which of its entries cover a pattern, without looking at each.
struct Index<'a> {
    items: Vec<Item<'a>>,
    exact: HashMap<&'a str, Vec<usize>>,
    below: HashMap<&'a str, Vec<usize>>,
    nets: HashMap<IpNet, Vec<usize>>,
}

impl<'a> Index<'a> {
    fn new(items: impl Iterator<Item = Item<'a>>) -> Self {
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
    fn bars(&self, item: &Item<'_>) -> Option<&Item<'a>> {
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

    /// Another entry of the list that covers the one at `at` on its own; of two equal ones, the later has one.
    fn wider(&self, at: usize) -> Option<&Item<'a>> {
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

fn supernets(net: IpNet) -> impl Iterator<Item = IpNet> {
    std::iter::successors(net.supernet(), IpNet::supernet)
}

/// Named alone, a metadata address is excepted; a range around it does not do that.
fn is_metadata(net: IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len() && METADATA.contains(&net.addr())
}
