//! What is looked up by names and ranges is what a look at each rule and each entry would find.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::{applying, compile_rules, within};
use crate::{
    Action, Origin, RuleId,
    document::{EgressDocument, RuleDocument, Written},
    entry::Ports,
    matcher::{Compiled, Matcher},
    testing::{document, entry},
    text::Faults,
};
use proptest::prelude::*;

fn rules() -> impl Strategy<Value = String> {
    let tls = prop::sample::select(vec!["", ", tls: require", ", tls: auto"]);
    let ech = prop::sample::select(vec!["", ", ech: deny"]);
    let rule =
        (entry(), tls, ech).prop_map(|(host, tls, ech)| format!("{{host: '{host}'{tls}{ech}}}"));
    let rules = prop::collection::vec(rule, 0..5);
    rules.prop_map(|rules| format!("egress: {{rules: [{}]}}", rules.join(", ")))
}

/// Three authors' rules, laid over each other.
fn laid(blocks: &[String; 3]) -> EgressDocument {
    let [operator, capability, session] = blocks.each_ref().map(|block| document(block));
    let merged = operator.lay(&capability, Origin::Capability);
    merged.lay(&session, Origin::Session).egress
}

fn list(entries: &[String]) -> Matcher {
    let block = document(&format!("egress: {{allowedHosts: {entries:?}}}"));
    let entries = block.egress.allowed_hosts.unwrap_or_default();
    Matcher::new(entries.into_iter().map(|written| {
        let compiled = Compiled {
            entry: written.value,
            exception: false,
            origin: written.origin,
        };
        (String::new(), compiled)
    }))
}

/// Does the rule have a word for anything that is allowed?
fn applies(rule: &RuleDocument, allow: &Matcher) -> bool {
    let entries = allow.entries().iter().map(|compiled| &compiled.entry);
    let mut around = entries.filter(|entry| {
        entry.contains_hosts(&rule.host.pattern) || rule.host.contains_hosts(&entry.pattern)
    });
    around.any(|entry| match rule.host.ports {
        Ports::One(port) => entry.ports.covers(port),
        Ports::Any | Ports::Web => true,
    })
}

/// The closest rule of this author around all hosts and ports of one, of those that have an attribute.
fn closest(
    written: &Written<RuleDocument>,
    rules: &[Written<RuleDocument>],
    by: Origin,
    is_there: fn(&RuleDocument) -> bool,
) -> Option<u32> {
    let ports = written.value.host.ports.or_any();
    let around = (0_u32..).zip(rules).filter(|(_, other)| {
        let theirs = other.value.host.ports.or_any();
        other.origin == by
            && by < written.origin
            && is_there(&other.value)
            && other.value.host.contains_hosts(&written.value.host.pattern)
            && (theirs == ports || theirs == Ports::Any)
    });
    let closest = around.max_by_key(|(_, other)| other.value.host.closeness());
    closest.map(|(index, _)| index)
}

proptest! {
    #[test]
    fn each_rule_is_judged_as_if_each_other_were_looked_at(
        blocks in [rules(), rules(), rules()],
        allowed in prop::collection::vec(entry(), 0..4),
    ) {
        let egress = laid(&blocks);
        let rules = &egress.rules;
        let allow = list(&allowed);
        let (matcher, _) = compile_rules(rules, Some(&allow), Action::Deny, None, &mut Faults::default());
        let applying = applying(rules, &matcher, Some(&allow), Action::Deny);
        for (written, found) in rules.iter().zip(applying) {
            prop_assert_eq!(found, applies(&written.value, &allow), "{}", written.value.host);
        }
        let attributes: [fn(&RuleDocument) -> bool; 3] =
            [|rule| rule.tls.is_some(), |rule| rule.ech.is_some(), |rule| rule.http.is_some()];
        for written in rules {
            let found = within::around(written, rules, &matcher);
            for (is_there, found) in attributes.into_iter().zip(found) {
                let expected = Origin::ALL.map(|by| closest(written, rules, by, is_there));
                prop_assert_eq!(found, expected, "{}", written.value.host);
            }
        }
    }

    /// Of one author's rules for one host and port, each that differs from an earlier one is told with it.
    #[test]
    fn conflicts_are_told_pair_by_pair(blocks in [rules(), rules(), rules()]) {
        let egress = laid(&blocks);
        let mut faults = Faults::default();
        let (matcher, _) = compile_rules(&egress.rules, None, Action::Allow, None, &mut faults);
        let mut expected = Vec::new();
        let named = |index: usize| matcher.rule(index as u32);
        let same = |one: &Written<RuleDocument>, other: &Written<RuleDocument>| {
            one.origin == other.origin && one.value.host == other.value.host
        };
        let differ = |a: &RuleDocument, b: &RuleDocument| {
            let tls = a.tls.is_some() && b.tls.is_some() && a.tls != b.tls;
            tls.then_some("tls")
        };
        for (index, written) in egress.rules.iter().enumerate() {
            for (earlier, other) in egress.rules.iter().enumerate().take(index) {
                if let Some(key) = differ(&written.value, &other.value).filter(|_| same(written, other)) {
                    let named: RuleId = named(index);
                    expected.push(format!("{named} and rules[{earlier}] say different things of {key}"));
                }
            }
        }
        let told = faults.errors.iter().map(|fault| fault.message.clone());
        let mut told: Vec<String> = told.filter(|message| message.contains("say different things")).collect();
        // They come in the order of their places, each in its own text.
        told.sort();
        expected.sort();
        prop_assert_eq!(told, expected);
    }
}
