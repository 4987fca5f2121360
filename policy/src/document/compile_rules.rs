//! `rules[]`: attributes for what `allowedHosts` already names, refused where they cannot be enforced.

use super::{
    enforceable::Rules,
    model::{RuleDocument, Written},
    within,
};
use crate::{
    Action, Origin, RuleId,
    entry::{Entry, Ports},
    grant::Attributes,
    matcher::{Compiled, Matcher},
    text::Faults,
};
use std::collections::HashMap;

/// The rules as a matcher, and their attributes by index. `allow`: `allowedHosts`, where it is there; `reports`: whose report
/// mode it is, if any.
pub(super) fn compile_rules(
    rules: &[Written<RuleDocument>],
    allow: Option<&Matcher>,
    default: Action,
    reports: Option<Origin>,
    faults: &mut Faults,
) -> (Matcher, Vec<Attributes>) {
    let matcher = Matcher::new(rules.iter().enumerate().map(|(index, written)| {
        let rule = &written.value;
        let compiled = Compiled {
            entry: Entry {
                pattern: rule.host.pattern.clone(),
                ports: rule.host.ports.or_any(),
            },
            exception: false,
            origin: written.origin,
        };
        (format!("rules[{index}] \"{}\"", rule.host), compiled)
    }));
    let attributes: Vec<Attributes> = rules
        .iter()
        .map(|written| Attributes {
            origin: written.origin,
            lifted: reports.is_some_and(|by| written.origin >= by),
            tls: written.value.tls,
            ech: written.value.ech.clone(),
            http: written.value.http.clone(),
        })
        .collect();
    let applying = applying(rules, &matcher, allow, default);
    let mut earlier = Earlier::new();
    for ((index, written), applies) in (0_u32..).zip(rules).zip(applying) {
        let (named, host) = (matcher.rule(index), &written.value.host);
        if !applies {
            faults.error_hint(
                &written.place,
                format!("{named} is for a host that allowedHosts does not name"),
                format!("add \"{host}\" to egress.allowedHosts"),
            );
        }
        let same = earlier.entry((written.origin as u8, host)).or_default();
        judge_conflicts(written, same, &named, faults);
        same.push((index, &written.value));
        within::judge(written, rules, &matcher, &named, faults);
    }
    let compiled = Rules {
        written: rules,
        matcher: &matcher,
        attributes: &attributes,
    };
    compiled.judge(allow, default, faults);
    (matcher, attributes)
}

/// Of each rule: is anything allowed for which it has a word?
fn applying(
    rules: &[Written<RuleDocument>],
    matcher: &Matcher,
    allow: Option<&Matcher>,
    default: Action,
) -> Vec<bool> {
    let Some(allow) = allow else {
        return vec![default == Action::Allow; rules.len()];
    };
    let covers = |rule: Ports, allowed: Ports| match rule {
        Ports::One(port) => allowed.covers(port),
        Ports::Any | Ports::Web => true,
    };
    // Either may be the wider one: a rule for one name below a pattern, or for a pattern around one name.
    let below = |written: &Written<RuleDocument>| {
        let host = &written.value.host;
        let mut found = false;
        allow.visit_pattern(&host.pattern, |_, ports| found |= covers(host.ports, ports));
        found
    };
    let mut applying: Vec<bool> = rules.iter().map(below).collect();
    // Of very many entries none is looked at for nothing.
    if applying.iter().all(|applies| *applies) {
        return applying;
    }
    for allowed in allow.entries() {
        matcher.visit_pattern(&allowed.entry.pattern, |index, ports| {
            if let Some(applies) = applying.get_mut(index as usize) {
                *applies |= covers(ports, allowed.entry.ports);
            }
        });
    }
    applying
}

/// The rules of an author for one host and its ports, by their places.
type Earlier<'a> = HashMap<(u8, &'a Entry), Vec<(u32, &'a RuleDocument)>>;

/// Two rules of one author for one host and port that say different things: nobody could tell which holds.
fn judge_conflicts(
    written: &Written<RuleDocument>,
    same: &[(u32, &RuleDocument)],
    named: &RuleId,
    faults: &mut Faults,
) {
    let rule = &written.value;
    for (earlier, other) in same {
        let differ = [
            (
                "tls",
                other.tls.is_some() && rule.tls.is_some() && other.tls != rule.tls,
            ),
            (
                "ech",
                other.ech.is_some() && rule.ech.is_some() && other.ech != rule.ech,
            ),
            (
                "http",
                other.http.is_some() && rule.http.is_some() && other.http != rule.http,
            ),
        ];
        for (key, _) in differ.iter().filter(|(_, differs)| *differs) {
            let message = format!("{named} and rules[{earlier}] say different things of {key}");
            faults.error_hint(&written.place, message, "say it once");
        }
    }
}

#[cfg(test)]
mod tests;
