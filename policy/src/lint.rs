//! What is allowed to be written and still should be looked at.
//!
//! [`lint`] looks at the meaning of one `egress` block, [`lint_ceiling`] at an operator's bound, [`lint_below`] at denies below one, [`lint_services`] at services it leaves to nobody, [`lint_source`] at the
//! text they stand in. All only warn.

use crate::{
    Ceiling, EgressDocument,
    address::METADATA,
    document::Written,
    entry::{Pattern, Ports},
    text::{self, Fault, Faults, Kind, Node, Place},
};
use index::{Index, Item};
use ipnet::IpNet;
use std::collections::HashMap;

mod index;
mod rules;
mod secrets;
mod sockets;
#[cfg(test)]
mod tests;

pub use sockets::lint_services;

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
    visit(&root, &mut |block| judge_block(block, &mut faults));
    SourceLint { faults, masked }
}

/// Every `egress` block of the tree.
fn visit(node: &Node, found: &mut impl FnMut(&Node)) {
    match node.kind() {
        Kind::Map(entries) => {
            for (key, value) in entries {
                if key == "egress" {
                    found(value);
                }
                visit(value, found);
            }
        }
        Kind::List(items) => items.iter().for_each(|item| visit(item, found)),
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

/// Look at one block: entries and rules that are never reached or add nothing, every port allowed, very large ranges.
pub fn lint(egress: &EgressDocument, faults: &mut Faults) {
    let denied = Index::of(&egress.denied_hosts, Ports::or_any);
    let allowed = egress.allowed_hosts.as_deref().unwrap_or_default();
    let allowed = Index::of(allowed, |ports| ports);
    lint_hosts(&allowed, &denied, faults);
    for item in allowed.items.iter().filter(|item| item.ports == Ports::Any) {
        let message = format!("\"{}\" allows every port", item.entry);
        let hint = Some("write the ports that are needed".to_owned());
        faults.warn(item.place, message, hint);
    }
    rules::lint(egress, &denied, faults);
    lint_addresses(&egress.allowed_addresses, faults);
}

/// Look at an operator's bound as at a block. Every port of a host is a bound like another.
pub fn lint_ceiling(ceiling: &Ceiling, faults: &mut Faults) {
    let denied = Index::of(ceiling.denied(), Ports::or_any);
    let allowed = Index::of(ceiling.allowed(), |ports| ports);
    lint_hosts(&allowed, &denied, faults);
    warn_idle(&denied, ceiling, faults);
    lint_addresses(ceiling.excepted(), faults);
    sockets::lint(ceiling, faults);
}

/// Look at what a block denies below an operator's bound: names that no session may ask for anyway. Without a bound on names there is
/// nothing to say: whatever a block allows itself, sessions and capabilities may add to it, and its denies hold over theirs.
pub fn lint_below(egress: &EgressDocument, ceiling: &Ceiling, faults: &mut Faults) {
    let denied = Index::of(&egress.denied_hosts, Ports::or_any);
    warn_idle(&denied, ceiling, faults);
}

fn warn_idle(denied: &Index<'_>, ceiling: &Ceiling, faults: &mut Faults) {
    if !ceiling.bounds_names() {
        return;
    }
    let allowed = Index::of(ceiling.allowed(), |ports| ports);
    for item in denied.idle(&allowed) {
        let message = format!(
            "\"{}\" denies nothing: the ceiling allows no session such a name",
            item.entry
        );
        faults.warn(item.place, message, Some("leave it out".to_owned()));
    }
}

fn lint_hosts(allowed: &Index<'_>, denied: &Index<'_>, faults: &mut Faults) {
    for (at, item) in allowed.items.iter().enumerate() {
        if let Some(deny) = denied.bars(item) {
            warn_unreachable(&format!("\"{}\"", item.entry), item.place, deny, faults);
        } else if let Some(wider) = allowed.wider(at) {
            warn_redundant(item, wider, faults);
        }
        if let Pattern::Net(net) = item.entry.pattern {
            warn_broad(net, item.place, faults);
        }
    }
    for (at, item) in denied.items.iter().enumerate() {
        if let Some(wider) = denied.wider(at) {
            warn_redundant(item, wider, faults);
        }
    }
}

fn lint_addresses(list: &[Written<IpNet>], faults: &mut Faults) {
    let mut seen: HashMap<IpNet, usize> = HashMap::new();
    for (at, written) in list.iter().enumerate() {
        seen.entry(written.value).or_insert(at);
    }
    for (at, written) in list.iter().enumerate() {
        let net = written.value;
        let twice = seen.get(&net).is_some_and(|first| *first < at);
        let wider = supernets(net).find(|wider| seen.contains_key(wider));
        // A metadata address counts only where it is named alone.
        if let Some(wider) = wider.or(twice.then_some(net)).filter(|_| !is_metadata(net)) {
            let message = format!("\"{net}\" adds nothing: \"{wider}\" covers it");
            faults.warn(&written.place, message, Some("leave one out".to_owned()));
        }
        warn_broad(net, &written.place, faults);
    }
}

/// Each `egress` block of a text, and the ceiling in it, on its own: where the text as a whole is refused, what is well
/// formed can be looked at all the same. Faults are left to whoever reads the text.
#[must_use]
pub fn lint_blocks(source: &str) -> Faults {
    let mut found = Faults::default();
    let root = text::parse(source, &mut Faults::default());
    visit(&root, &mut |block| {
        let (mut read, mut told) = (Faults::default(), Faults::default());
        lint(&EgressDocument::read(block, &mut read), &mut told);
        if let Kind::Map(entries) = block.kind() {
            let ceilings = entries.iter().filter(|(key, _)| key == "ceiling");
            for (_, ceiling) in ceilings {
                let ceiling = Ceiling::read(ceiling, &mut read);
                lint_ceiling(&ceiling, &mut told);
                lint_below(&EgressDocument::read(block, &mut read), &ceiling, &mut told);
            }
        }
        // Of what could be read in part it is not known what it says.
        let broken = |warning: &Fault| read.errors.iter().any(|error| is_within(error, warning));
        told.warnings.retain(|warning| !broken(warning));
        found.append(told);
    });
    Faults {
        warnings: found.warnings,
        ..Faults::default()
    }
}

fn is_within(inner: &Fault, outer: &Fault) -> bool {
    let rest = inner.path.strip_prefix(&outer.path);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// More than anybody has: larger than a /8, than all unique local addresses, than what a registry hands out.
fn warn_broad(net: IpNet, place: &Place, faults: &mut Faults) {
    let broad = match net {
        IpNet::V4(net) => net.prefix_len() < 8,
        IpNet::V6(net) if net.addr().is_unique_local() => false,
        IpNet::V6(net) => net.prefix_len() < 16 && !net.addr().is_unicast_link_local(),
    };
    if broad {
        let message = if net.prefix_len() == 0 {
            let family = if net.addr().is_ipv4() { "IPv4" } else { "IPv6" };
            format!("\"{net}\" covers every {family} address")
        } else {
            format!("\"{net}\" covers a very large range of addresses")
        };
        let hint = Some("name the networks that are needed".to_owned());
        faults.warn(place, message, hint);
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

fn supernets(net: IpNet) -> impl Iterator<Item = IpNet> {
    std::iter::successors(net.supernet(), IpNet::supernet)
}

/// Named alone, a metadata address is excepted; a range around it does not do that.
fn is_metadata(net: IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len() && METADATA.contains(&net.addr())
}
