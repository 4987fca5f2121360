//! `rules[]`: attributes for what `allowedHosts` already names, refused where they cannot be enforced.

use super::{
    enforceable::Rules,
    model::{RuleDocument, Written},
    within,
};
use crate::{
    Action, Origin,
    entry::{Entry, Ports},
    grant::Attributes,
    matcher::{Compiled, Matcher},
    text::Faults,
};

/// The rules as a matcher, and their attributes by index. `allow`: `allowedHosts`, where it is there; `reports`: whose report
/// mode it is, if any.
pub(super) fn compile_rules(
    rules: &[Written<RuleDocument>],
    allow: Option<&Matcher>,
    default: Action,
    reports: Option<Origin>,
    faults: &mut Faults,
) -> (Matcher, Vec<Attributes>) {
    let mut compiled = Vec::with_capacity(rules.len());
    let mut attributes = Vec::with_capacity(rules.len());
    for (index, written) in rules.iter().enumerate() {
        let rule = &written.value;
        let named = format!("rules[{index}] \"{}\"", rule.host);
        if !applies(rule, allow, default) {
            faults.error_hint(
                &written.place,
                format!("{named} is for a host that allowedHosts does not name"),
                format!("add \"{}\" to egress.allowedHosts", rule.host),
            );
        }
        judge_conflicts(written, rules, index, &named, faults);
        within::judge(written, rules, &named, faults);
        let entry = Entry {
            pattern: rule.host.pattern.clone(),
            ports: rule.host.ports.or_any(),
        };
        let origin = written.origin;
        let one = Compiled {
            entry,
            exception: false,
            origin,
        };
        compiled.push((named, one));
        attributes.push(Attributes {
            origin,
            lifted: reports.is_some_and(|by| origin >= by),
            tls: rule.tls,
            ech: rule.ech.clone(),
            http: rule.http.clone(),
        });
    }
    let matcher = Matcher::new(compiled.into_iter());
    let compiled = Rules {
        written: rules,
        matcher: &matcher,
        attributes: &attributes,
    };
    compiled.judge(allow, default, faults);
    (matcher, attributes)
}

/// Is anything allowed for which the rule has a word?
fn applies(rule: &RuleDocument, allow: Option<&Matcher>, default: Action) -> bool {
    let Some(allow) = allow else {
        return default == Action::Allow;
    };
    let entries = allow.entries().iter().map(|compiled| &compiled.entry);
    // Either may be the wider one: a rule for one name below a pattern, or for a pattern around one name.
    let mut around = entries.filter(|entry| entry.meets(&rule.host));
    around.any(|entry| match rule.host.ports {
        Ports::One(port) => entry.ports.covers(port),
        Ports::Any | Ports::Web => true,
    })
}

/// Two rules of one author for one host and port that say different things: nobody could tell which holds.
fn judge_conflicts(
    written: &Written<RuleDocument>,
    rules: &[Written<RuleDocument>],
    index: usize,
    named: &str,
    faults: &mut Faults,
) {
    let rule = &written.value;
    for (earlier, other) in rules.iter().take(index).enumerate() {
        let theirs = other.origin != written.origin;
        let other = &other.value;
        if theirs || other.host != rule.host {
            continue;
        }
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
