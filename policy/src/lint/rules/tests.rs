//! What is looked up of a rule's neighbours is what a look at every rule and every entry finds.
#![allow(clippy::unwrap_used)]

use super::{Around, Effect, View};
use crate::{
    Action, EgressDocument,
    document::RuleDocument,
    entry::{Pattern, Ports},
    testing::{document, entry},
};
use proptest::prelude::*;
use std::cmp::Reverse;

fn rule() -> impl Strategy<Value = String> {
    let tls = prop::sample::select(vec!["", ", tls: require", ", tls: auto", ", tls: opaque"]);
    let ech = prop::sample::select(vec!["", "", ", ech: outer", ", ech: deny"]);
    let http = prop::sample::select(vec!["", "", ", http: {}", ", http: {methods: [GET]}"]);
    (entry(), tls, ech, http)
        .prop_map(|(host, tls, ech, http)| format!("{{host: '{host}'{tls}{ech}{http}}}"))
}

/// The hosts on which a rule applies, with their ports.
fn in_play<'a>(rule: &'a RuleDocument, egress: &'a EgressDocument) -> Vec<(&'a Pattern, Ports)> {
    let own = &rule.host.pattern;
    let Some(allowed) = &egress.allowed_hosts else {
        let all = egress.default_action.unwrap_or_default() == Action::Allow;
        return all.then_some((own, Ports::Any)).into_iter().collect();
    };
    let listed = allowed.iter().filter_map(|written| {
        let entry = &written.value;
        if entry.contains_hosts(own) {
            Some((own, entry.ports))
        } else {
            let narrower = rule.host.contains_hosts(&entry.pattern);
            narrower.then_some((&entry.pattern, entry.ports))
        }
    });
    listed.collect()
}

/// What a rule changes, each other one and each port that anybody might tell apart looked at.
fn effect(egress: &EgressDocument, idle: &[bool], at: usize) -> Effect {
    let own = &egress.rules.get(at).unwrap().value;
    let rules = egress
        .rules
        .iter()
        .map(|written| &written.value)
        .enumerate();
    let mut near: Vec<(usize, &RuleDocument)> = rules
        .filter(|(index, _)| *index == at || !idle.get(*index).unwrap())
        .collect();
    near.sort_by_key(|(index, rule)| Reverse((rule.host.closeness(), *index)));
    let mut found = Effect::Nowhere;
    for (pattern, allowed) in in_play(own, egress) {
        let mut covering = near.clone();
        covering.retain(|(_, rule)| rule.host.contains_hosts(pattern));
        for port in [80, 443, 8080, 9] {
            if !allowed.covers(port) || !own.host.ports.or_any().covers(port) {
                continue;
            }
            let view = View {
                rules: &covering,
                port,
                own: at,
            };
            match view.effect() {
                Effect::Some => return Effect::Some,
                Effect::Same => found = Effect::Same,
                Effect::Outdone if found == Effect::Same => {}
                Effect::Outdone => found = Effect::Outdone,
                Effect::Nowhere => unreachable!("each is looked at where it applies"),
            }
        }
    }
    found
}

proptest! {
    #[test]
    fn a_rule_changes_what_it_changes_if_each_other_is_looked_at(
        allowed in prop::option::of(prop::collection::vec(entry(), 0..6)),
        rules in prop::collection::vec((rule(), any::<bool>()), 1..7),
    ) {
        let allowed = allowed.map_or_else(
            || "defaultAction: allow".to_owned(),
            |list| format!("allowedHosts: {list:?}"),
        );
        let (rules, idle): (Vec<String>, Vec<bool>) = rules.into_iter().unzip();
        let source = format!("egress: {{{allowed}, rules: [{}]}}", rules.join(", "));
        let egress = document(&source).egress;
        let mut around = Around::of(&egress);
        around.idle.clone_from(&idle);
        for (at, written) in egress.rules.iter().enumerate() {
            let found = around.effect(at, &written.value);
            prop_assert_eq!(found, effect(&egress, &idle, at), "{}: {}", at, source);
        }
    }
}
