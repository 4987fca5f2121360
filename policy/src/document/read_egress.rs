//! The `egress` block, read.

use super::{
    EgressDocument, GrantDocument,
    model::{RuleDocument, Written},
    read_expose::read_expose,
    read_http_rule,
    read_service::{read_limits, read_services},
};
use crate::{
    Action, EchRule, HostName, HostPattern, Mode, TlsRule,
    entry::{Entry, Pattern, parse_net},
    host::{Suffix, suffix},
    text::{Faults, Fields, Node, Place},
};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

/// Most entries of `rules`: each is compared with each other and with all of `allowedHosts`.
const MAX_RULES: usize = 2000;
/// Most entries of a list that a decision may have to go through from its beginning to its end.
const MAX_LISTED: usize = 1000;
/// Most static answers of one name, each of which is judged: no more addresses of a name are dialled.
const MAX_ANSWERS: usize = 64;

impl GrantDocument {
    /// Read `{egress, services, expose, limits}` from a tree (YAML or JSON).
    pub fn read(node: &Node, faults: &mut Faults) -> Self {
        let mut fields = node.fields(faults);
        let document = Self::take(&mut fields, faults);
        fields.finish(faults);
        document
    }

    /// Take `egress`, `services`, `expose` and `limits` out of a larger mapping; the caller finishes it.
    pub fn take(fields: &mut Fields<'_>, faults: &mut Faults) -> Self {
        let egress = fields
            .take("egress")
            .map(|node| EgressDocument::read(node, faults));
        let services = fields
            .take("services")
            .map(|node| read_services(node, faults));
        let expose = fields.take("expose").map(|node| read_expose(node, faults));
        let limits = fields.take("limits").map(|node| read_limits(node, faults));
        Self {
            egress: egress.unwrap_or_default(),
            services: services.unwrap_or_default(),
            expose: expose.unwrap_or_default(),
            limits: limits.unwrap_or_default(),
        }
    }
}

impl EgressDocument {
    /// Read the value of an `egress` key.
    pub fn read(node: &Node, faults: &mut Faults) -> Self {
        let mut fields = node.fields(faults);
        let document = Self::take(&mut fields, faults);
        fields.finish(faults);
        document
    }

    /// Take the keys of an `egress` block out of a larger mapping; the caller finishes it.
    pub fn take(fields: &mut Fields<'_>, faults: &mut Faults) -> Self {
        const ACTIONS: &[(&str, Action)] = &[("allow", Action::Allow), ("deny", Action::Deny)];
        const MODES: &[(&str, Mode)] = &[("enforce", Mode::Enforce), ("report", Mode::Report)];
        let default_action = fields
            .take("defaultAction")
            .and_then(|node| node.choice(ACTIONS, faults));
        let allowed_hosts = fields
            .take("allowedHosts")
            .map(|node| entries(node, true, faults));
        let denied_hosts = fields
            .take("deniedHosts")
            .map(|node| entries(node, false, faults));
        let allowed_addresses = fields.take("allowedAddresses").map(|node| {
            bound(node, MAX_LISTED, "addresses", faults);
            addresses(node, faults)
        });
        let rules = fields.take("rules").map(|node| {
            let items = node.list(faults);
            if items.len() > MAX_RULES {
                faults.error(node.place(), format!("more than {MAX_RULES} rules"));
            }
            items
                .iter()
                .take(MAX_RULES)
                .filter_map(|item| rule(item, faults))
                .collect()
        });
        let hosts = fields
            .take("hosts")
            .map(|node| static_answers(node, faults));
        let mode = fields.take("mode").and_then(|node| {
            let mode = node.choice(MODES, faults)?;
            Some(Written::new(mode, node.place().clone()))
        });
        Self {
            default_action,
            allowed_hosts,
            denied_hosts: denied_hosts.unwrap_or_default(),
            allowed_addresses: allowed_addresses.unwrap_or_default(),
            rules: rules.unwrap_or_default(),
            hosts: hosts.unwrap_or_default(),
            mode,
        }
    }

    /// `allowedHosts` that were written in two places and are one author's: together they are held to what one list is.
    pub fn bound_joined(&self, place: &Place, faults: &mut Faults) {
        let list = self.allowed_hosts.as_deref().unwrap_or_default();
        bound_each_host(list, place, faults);
    }
}

/// A list of host entries. Broad ones are faults only where they allow.
pub(super) fn entries(node: &Node, allowing: bool, faults: &mut Faults) -> Vec<Written<Entry>> {
    let items = node.list(faults).iter();
    let list: Vec<_> = items
        .filter_map(|item| entry(item, allowing, faults))
        .collect();
    bound_each_host(&list, node.place(), faults);
    list
}

/// A fault where one host has more entries than that.
fn bound_each_host(list: &[Written<Entry>], place: &Place, faults: &mut Faults) {
    if list.len() <= MAX_LISTED {
        return;
    }
    let mut of_one: HashMap<&Pattern, usize> = HashMap::new();
    for written in list {
        *of_one.entry(&written.value.pattern).or_default() += 1;
    }
    if of_one.into_values().any(|count| count > MAX_LISTED) {
        let message = format!("more than {MAX_LISTED} entries for one host");
        faults.error_hint(place, message, "write HOST:* for all its ports");
    }
}

fn entry(node: &Node, allowing: bool, faults: &mut Faults) -> Option<Written<Entry>> {
    let text = node.string(faults)?;
    let (entry, note) = match Entry::parse(text) {
        Ok(read) => read,
        Err(error) => {
            let message = format!("{text:?}: {}", error.message);
            // Who denies every host means to allow none.
            let every = text.split(':').next() == Some("*");
            let hint = if every && !allowing {
                Some("write allowedHosts: [], which allows nothing".to_owned())
            } else {
                error.hint
            };
            match hint {
                Some(hint) => faults.error_hint(node.place(), message, hint),
                None => faults.error(node.place(), message),
            }
            return None;
        }
    };
    if let Some(note) = note {
        faults.warn(node.place(), note, Some("write names in ASCII".to_owned()));
    }
    if allowing {
        judge_breadth(node, text, &entry, faults)?;
    }
    Some(Written::new(entry, node.place().clone()))
}

/// `None` where the entry is too broad to be loaded.
fn judge_breadth(node: &Node, text: &str, entry: &Entry, faults: &mut Faults) -> Option<()> {
    if let Pattern::Host(HostPattern::Exact(name)) = &entry.pattern
        && suffix(name) == Suffix::Public
    {
        let message =
            format!("{text:?} is a public suffix itself: that name alone, and none below it");
        let hint = "name the host: \"www.example.com\"".to_owned();
        faults.warn(node.place(), message, Some(hint));
    }
    match entry.breadth() {
        Suffix::None => {}
        Suffix::Public => {
            let message = format!("{text:?} covers a whole public suffix");
            faults.error_hint(node.place(), message, "name the domain: \"*.example.com\"");
            return None;
        }
        Suffix::Private => {
            let message = format!("{text:?} covers the names of everybody who is given one there");
            faults.warn(node.place(), message, Some("name your own".to_owned()));
        }
        Suffix::Shared => {
            let message = format!("{text:?} covers suffixes below which others are given names");
            faults.warn(node.place(), message, Some("name your own".to_owned()));
        }
        Suffix::Unlisted => {
            let message =
                format!("{text:?} covers a whole top-level name that is on no public list");
            faults.warn(node.place(), message, None);
        }
    }
    Some(())
}

/// A list of addresses and ranges, without ports; IPv6 with or without brackets.
pub(super) fn addresses(node: &Node, faults: &mut Faults) -> Vec<Written<IpNet>> {
    let items = node.list(faults).iter();
    items
        .filter_map(|item| {
            let text = item.string(faults)?;
            let inner = text
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'));
            let value = net(inner.unwrap_or(text), text, item, faults)?;
            Some(Written::new(value, item.place().clone()))
        })
        .collect()
}

fn net(text: &str, shown: &str, node: &Node, faults: &mut Faults) -> Option<IpNet> {
    match parse_net(text) {
        Ok(net) => Some(net),
        Err(error) => {
            let message = format!("{shown:?}: {}", error.message);
            match error.hint {
                Some(hint) => faults.error_hint(node.place(), message, hint),
                None => faults.error(node.place(), message),
            }
            None
        }
    }
}

fn static_answers(node: &Node, faults: &mut Faults) -> BTreeMap<HostName, Written<Vec<IpAddr>>> {
    let mut answers = BTreeMap::new();
    for (key, value) in node.entries(faults) {
        let name = match HostName::parse_configured(key) {
            Ok((name, note)) => {
                if let Some(note) = note {
                    faults.warn(&value.key_place(), note, None);
                }
                name
            }
            Err(error) => {
                faults.error(&value.key_place(), format!("{key:?}: {error}"));
                continue;
            }
        };
        let items = if value.is_list() {
            value.list(faults)
        } else {
            std::slice::from_ref(value)
        };
        if items.is_empty() {
            faults.error(value.place(), "no address");
        }
        bound(value, MAX_ANSWERS, "addresses", faults);
        let list = items
            .iter()
            .filter_map(|item| answer(item, faults))
            .collect();
        let written = Written::new(list, value.place().clone());
        if answers.insert(name, written).is_some() {
            faults.error(&value.key_place(), format!("{key:?} is written twice"));
        }
    }
    answers
}

fn answer(node: &Node, faults: &mut Faults) -> Option<IpAddr> {
    let text = node.string(faults)?;
    let found = net(text, text, node, faults)?;
    if text.contains('/') {
        faults.error(node.place(), format!("{text:?} is a range, not an address"));
        return None;
    }
    Some(found.addr().to_canonical())
}

fn rule(node: &Node, faults: &mut Faults) -> Option<Written<RuleDocument>> {
    const TLS: &[(&str, TlsRule)] = &[
        ("require", TlsRule::Require),
        ("auto", TlsRule::Auto),
        ("opaque", TlsRule::Opaque),
    ];
    let mut fields = node.fields(faults);
    let host = fields
        .require("host", faults)
        .and_then(|host| entry(host, true, faults));
    let tls = fields.take("tls").and_then(|node| node.choice(TLS, faults));
    let ech = fields.take("ech").and_then(|node| ech(node, faults));
    let http = fields.take("http").map(|node| {
        let mut inner = node.fields(faults);
        let rule = read_http_rule(&mut inner, faults);
        inner.finish(faults);
        rule
    });
    if let Some(intercept) = fields.take("intercept")
        && intercept.boolean(faults) == Some(true)
    {
        not_built(intercept, "intercept", faults);
    }
    if let Some(inject) = fields.take("inject") {
        not_built(inject, "inject", faults);
    }
    fields.finish(faults);
    let rule = RuleDocument {
        host: host?.value,
        tls,
        ech,
        http,
    };
    Some(Written::new(rule, node.place().clone()))
}

fn not_built(node: &Node, key: &str, faults: &mut Faults) {
    let message = format!("{key} is not built yet");
    faults.error_hint(
        &node.key_place(),
        message,
        "leave it out; nothing is intercepted",
    );
}

fn ech(node: &Node, faults: &mut Faults) -> Option<EchRule> {
    if !node.is_map() {
        let choices = [("outer", EchRule::Outer), ("deny", EchRule::Deny)];
        return node.choice(&choices, faults);
    }
    let mut fields = node.fields(faults);
    let list = fields.require("publicNames", faults);
    let rule = list.map(|list| EchRule::PublicNames(names(list, faults).into()));
    fields.finish(faults);
    rule
}

/// A fault where a list has more entries than that.
fn bound(node: &Node, most: usize, what: &str, faults: &mut Faults) {
    if node.is_list() && node.list(faults).len() > most {
        faults.error(node.place(), format!("more than {most} {what}"));
    }
}

/// A list of exact host names.
pub(super) fn names(node: &Node, faults: &mut Faults) -> Vec<HostName> {
    bound(node, MAX_LISTED, "names", faults);
    let items = node.list(faults).iter();
    items.filter_map(|item| name(item, faults)).collect()
}

/// An exact host name.
fn name(node: &Node, faults: &mut Faults) -> Option<HostName> {
    let text = node.string(faults)?;
    match HostName::parse_configured(text) {
        Ok((name, note)) => {
            if let Some(note) = note {
                faults.warn(node.place(), note, None);
            }
            Some(name)
        }
        Err(error) => {
            faults.error(node.place(), format!("{text:?}: {error}"));
            None
        }
    }
}

/// A list of texts, each judged.
pub(super) fn strings(
    node: &Node,
    what: &str,
    accept: impl Fn(&str) -> bool,
    faults: &mut Faults,
) -> Vec<String> {
    bound(node, MAX_LISTED, "entries", faults);
    let items = node.list(faults).iter();
    items
        .filter_map(|item| {
            let text = item.string(faults)?;
            if accept(text) {
                return Some(text.to_owned());
            }
            item.expected(what, faults)
        })
        .collect()
}
