//! What an importer has understood so far, in our terms.

use crate::{
    Action, EgressDocument, GrantDocument, HostName,
    address::{METADATA_NAMES, is_special_range},
    entry::{Entry, Pattern},
    host::{HostPattern, Suffix},
    text::{self, Faults, Node},
};
use serde_json::{Map, Value, json};
use std::{
    collections::HashSet,
    net::{IpAddr, Ipv6Addr},
};

/// An `egress` block in the making.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Absent and empty differ, as in the document.
    allowed: Option<Vec<Entry>>,
    denied: Vec<Entry>,
    seen: HashSet<(bool, Entry)>,
    default_action: Option<Action>,
    rules: Vec<Value>,
    report: bool,
}

impl Draft {
    /// There is a list of allowed hosts, empty so far.
    pub(super) fn begin_allowed(&mut self) {
        self.allowed.get_or_insert_default();
    }

    /// Allow `entry`, which stands at `node` as `written`.
    pub(super) fn allow(
        &mut self,
        node: &Node,
        written: &str,
        entry: &str,
        faults: &mut Faults,
    ) -> Option<Entry> {
        let read = parse(node, written, entry, faults)?;
        judge_breadth(node, written, &read, faults)?;
        note_special(node, written, &read, faults);
        let list = self.allowed.get_or_insert_default();
        if self.seen.insert((true, read.clone())) {
            list.push(read.clone());
        }
        Some(read)
    }

    /// Deny `entry`, which stands at `node` as `written`.
    pub(super) fn deny(
        &mut self,
        node: &Node,
        written: &str,
        entry: &str,
        faults: &mut Faults,
    ) -> Option<Entry> {
        let read = parse(node, written, entry, faults)?;
        if self.seen.insert((false, read.clone())) {
            self.denied.push(read.clone());
        }
        Some(read)
    }

    /// Forget what was allowed: the source allows everything that is not denied.
    pub(super) fn allow_everything(&mut self) {
        self.allowed = None;
        self.default_action = Some(Action::Allow);
    }

    /// Nothing is named, and this decides.
    pub(super) fn default_action(&mut self, action: Action) {
        self.default_action = Some(action);
    }

    /// Only record what would be refused.
    pub(super) fn report(&mut self) {
        self.report = true;
    }

    /// Is anything denied?
    pub(super) fn denies(&self) -> bool {
        !self.denied.is_empty()
    }

    /// Forget what was denied.
    pub(super) fn deny_nothing(&mut self) {
        self.denied.clear();
    }

    /// Forget these denies.
    pub(super) fn forget_denied(&mut self, which: &[Entry]) {
        self.denied.retain(|deny| !which.contains(deny));
    }

    /// Add an entry of `rules`, as it stands in a document.
    pub(super) fn rule(&mut self, rule: Value) {
        self.rules.push(rule);
    }

    /// Our document, read by our own reader, so that nothing gets past the grammar.
    pub(super) fn finish(self, faults: &mut Faults) -> GrantDocument {
        let shown = |list: &[Entry]| -> Value { list.iter().map(ToString::to_string).collect() };
        let mut block = Map::new();
        if let Some(action) = self.default_action {
            let word = match action {
                Action::Allow => "allow",
                Action::Deny => "deny",
            };
            block.insert("defaultAction".into(), word.into());
        }
        if let Some(allowed) = &self.allowed {
            block.insert("allowedHosts".into(), shown(allowed));
        }
        if !self.denied.is_empty() {
            block.insert("deniedHosts".into(), shown(&self.denied));
        }
        if !self.rules.is_empty() {
            block.insert("rules".into(), json!(self.rules));
        }
        if self.report {
            block.insert("mode".into(), "report".into());
        }
        let mut own = Faults::default();
        let root = text::parse(&Value::from(block).to_string(), &mut own);
        let egress = EgressDocument::read(&root, &mut own);
        // Warnings about our own text were told with the source's places; an error here is still an error.
        own.warnings.clear();
        faults.append(own);
        GrantDocument {
            egress,
            ..GrantDocument::default()
        }
    }
}

/// The mapping under `key` where the text has one (and nothing beside it), else the text itself.
pub(super) fn block<'a>(root: &'a Node, key: &'static str, faults: &mut Faults) -> &'a Node {
    // Looked at without faults first: a text that is no mapping is reported by whoever reads its fields.
    if !root.is_map() {
        return root;
    }
    let mut fields = root.fields(faults);
    let Some(inner) = fields.take(key) else {
        return root;
    };
    fields.finish(faults);
    inner
}

/// Report something that has no equivalent here.
pub(super) fn refuse(node: &Node, written: &str, why: &str, hint: &str, faults: &mut Faults) {
    let message = format!("{written:?} cannot be kept: {why}");
    if hint.is_empty() {
        faults.error(node.place(), message);
    } else {
        faults.error_hint(node.place(), message, hint);
    }
}

/// Is `host` written out, in ASCII and without a trailing dot? Our own reader would convert the one and drop the other,
/// and the entry would match names it does not match in the source.
pub(super) fn has_whole_name(node: &Node, host: &str, faults: &mut Faults) -> bool {
    if host.is_empty() {
        refuse(node, host, "it is empty and matches nothing", "", faults);
        return false;
    }
    if !host.is_ascii() {
        let name = host.strip_prefix("*.").unwrap_or(host);
        let hint = match HostName::parse_configured(name) {
            Ok((name, _)) => format!("the name on the wire is {name}"),
            Err(_) => String::new(),
        };
        refuse(node, host, "names on the wire are ASCII", &hint, faults);
        return false;
    }
    if host.ends_with('.') {
        refuse(
            node,
            host,
            "a trailing dot",
            "write the name without it",
            faults,
        );
        return false;
    }
    true
}

/// A name, address or range as other systems write it, as the host part of one of our entries.
pub(super) fn bracketed(host: &str) -> String {
    let (address, length) = match host.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (host, None),
    };
    let Ok(v6) = address.parse::<Ipv6Addr>() else {
        return host.to_owned();
    };
    match (IpAddr::from(v6).to_canonical(), length) {
        // The same destination has one spelling here.
        (IpAddr::V4(v4), None) => v4.to_string(),
        _ => format!("[{}]", host.to_ascii_lowercase()),
    }
}

fn parse(node: &Node, written: &str, entry: &str, faults: &mut Faults) -> Option<Entry> {
    match Entry::parse(entry) {
        Ok((entry, _)) => Some(entry),
        Err(error) => {
            let hint = error.hint.unwrap_or_default();
            refuse(node, written, &error.message, &hint, faults);
            None
        }
    }
}

/// `None` where our own reader would not load it.
fn judge_breadth(node: &Node, written: &str, entry: &Entry, faults: &mut Faults) -> Option<()> {
    match entry.breadth() {
        Suffix::None => {}
        Suffix::Public => {
            let hint = "name the domain: \"*.example.com\"";
            refuse(
                node,
                written,
                "it covers a whole public suffix",
                hint,
                faults,
            );
            return None;
        }
        Suffix::Private => {
            let message =
                format!("{written:?} covers the names of everybody who is given one there");
            faults.warn(node.place(), message, Some("name your own".to_owned()));
        }
        Suffix::Shared => {
            let message = format!("{written:?} covers suffixes below which others are given names");
            faults.warn(node.place(), message, Some("name your own".to_owned()));
        }
        Suffix::Unlisted => {
            let message =
                format!("{written:?} covers a whole top-level name that is on no public list");
            faults.warn(node.place(), message, None);
        }
    }
    Some(())
}

/// Entries that only work where the operator's ceiling holds them.
fn note_special(node: &Node, written: &str, entry: &Entry, faults: &mut Faults) {
    let (what, key) = match &entry.pattern {
        Pattern::Net(net) if is_special_range(*net) => {
            ("private or special-purpose", "ceiling.addresses")
        }
        Pattern::Host(HostPattern::Exact(name)) if METADATA_NAMES.contains(&name.as_str()) => {
            ("a metadata service", "ceiling.allowedHosts")
        }
        _ => return,
    };
    let hint = format!("the provider's {key} must hold it");
    faults.warn(
        node.place(),
        format!("{written:?} is {what}, and needs the operator's consent here"),
        Some(hint),
    );
}
