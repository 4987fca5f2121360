//! `rules[]`: those that are never reached, those that a closer one outdoes, those that say what holds without them.

use super::{
    index::{Index, Item},
    warn_unreachable,
};
use crate::{
    Action, EchRule, EgressDocument, HttpRule, TlsRule,
    document::RuleDocument,
    entry::{Pattern, Ports},
    text::Faults,
};
use std::cmp::Reverse;

/// A port that nobody names, for all of those.
const ANY_OTHER: u16 = 1;

pub(super) fn lint(egress: &EgressDocument, denied: &Index<'_>, faults: &mut Faults) {
    let rules: Vec<&RuleDocument> = egress.rules.iter().map(|written| &written.value).collect();
    let mut idle = vec![false; rules.len()];
    // The later of two that say the same is the one to leave out.
    for (at, written) in egress.rules.iter().enumerate().rev() {
        let rule = &written.value;
        let what = format!("the rule for \"{}\"", rule.host);
        let item = Item {
            entry: &rule.host,
            ports: rule.host.ports.or_any(),
            place: &written.place,
        };
        let leave_out = || Some("leave it out".to_owned());
        if let Some(deny) = denied.bars(&item) {
            warn_unreachable(&what, item.place, deny, faults);
        } else if rule.tls.is_none() && rule.ech.is_none() && rule.http.is_none() {
            faults.warn(item.place, format!("{what} sets nothing"), leave_out());
        } else {
            let message = match effect(&rules, &idle, at, egress) {
                Effect::Some => continue,
                Effect::Same => format!("{what} adds nothing: what it says holds without it"),
                Effect::Outdone => format!(
                    "{what} is never used: closer rules say it all, for each host and port that is allowed"
                ),
            };
            faults.warn(item.place, message, leave_out());
        }
        if let Some(idle) = idle.get_mut(at) {
            *idle = true;
        }
    }
}

/// What a rule changes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Some,
    /// It decides, and says what would hold without it.
    Same,
    /// It never decides.
    Outdone,
}

/// What one rule changes, wherever `allowedHosts` lets it apply.
fn effect(rules: &[&RuleDocument], idle: &[bool], at: usize, egress: &EgressDocument) -> Effect {
    let Some(own) = rules.get(at) else {
        return Effect::Some;
    };
    // Only rules around the same hosts have a say; the closest comes first, as the decision takes it.
    let mut near: Vec<(usize, &RuleDocument)> = rules
        .iter()
        .copied()
        .enumerate()
        .filter(|(index, _)| *index == at || !idle.get(*index).copied().unwrap_or_default())
        .filter(|(_, rule)| rule.host.meets(&own.host))
        .collect();
    near.sort_by_key(|(index, rule)| Reverse((rule.host.closeness(), *index)));
    let ports: Vec<u16> = near
        .iter()
        .filter_map(|(_, rule)| match rule.host.ports {
            Ports::One(port) => Some(port),
            Ports::Any | Ports::Web => None,
        })
        .chain([80, 443, ANY_OTHER])
        .collect();
    let mut found = Effect::Outdone;
    for (pattern, allowed) in in_play(own, egress) {
        let covering: Vec<(usize, &RuleDocument)> = near
            .iter()
            .copied()
            .filter(|(_, rule)| rule.host.contains_hosts(pattern))
            .collect();
        let applies =
            |port: &&u16| allowed.covers(**port) && own.host.ports.or_any().covers(**port);
        let single = match allowed {
            Ports::One(port) => Some(port),
            Ports::Any | Ports::Web => None,
        };
        for port in ports.iter().chain(single.iter()).filter(applies) {
            let view = View {
                rules: &covering,
                port: *port,
                own: at,
            };
            match view.effect() {
                Effect::Some => return Effect::Some,
                Effect::Same => found = Effect::Same,
                Effect::Outdone => {}
            }
        }
    }
    found
}

/// The hosts on which a rule applies, with their ports: its own, or the narrower ones that `allowedHosts` names.
fn in_play<'a>(
    rule: &'a RuleDocument,
    egress: &'a EgressDocument,
) -> impl Iterator<Item = (&'a Pattern, Ports)> {
    let own = &rule.host.pattern;
    let everything = egress.allowed_hosts.is_none()
        && egress.default_action.unwrap_or_default() == Action::Allow;
    let listed = egress.allowed_hosts.iter().flatten();
    let listed = listed.filter_map(move |written| {
        let entry = &written.value;
        if entry.contains_hosts(own) {
            Some((own, entry.ports))
        } else {
            let narrower = rule.host.contains_hosts(&entry.pattern);
            narrower.then_some((&entry.pattern, entry.ports))
        }
    });
    everything
        .then_some((own, Ports::Any))
        .into_iter()
        .chain(listed)
}

/// The rules that cover some hosts, the closest first, as they stand on one port.
struct View<'a> {
    rules: &'a [(usize, &'a RuleDocument)],
    port: u16,
    own: usize,
}

impl View<'_> {
    /// What the own rule changes here.
    fn effect(&self) -> Effect {
        let tls = self.of(|rule| rule.tls.as_ref(), &TlsRule::default_for(self.port));
        let ech = self.of(|rule| rule.ech.as_ref(), &EchRule::default());
        let http = self.of(|rule| rule.http.as_ref(), &HttpRule::default());
        let all = [tls, ech, http];
        if all.contains(&Effect::Some) {
            Effect::Some
        } else if all.contains(&Effect::Same) {
            Effect::Same
        } else {
            Effect::Outdone
        }
    }

    /// The same of one attribute: does the own rule decide it, and does the next one say otherwise?
    fn of<T: PartialEq>(
        &self,
        attribute: impl Fn(&RuleDocument) -> Option<&T>,
        default: &T,
    ) -> Effect {
        let mut said = self.rules.iter().filter_map(|(index, rule)| {
            let covers = rule.host.ports.or_any().covers(self.port);
            let value = attribute(rule).filter(|_| covers)?;
            Some((*index == self.own, value))
        });
        match said.next() {
            Some((true, value)) => {
                let without = said.next().map_or(default, |(_, value)| value);
                if value == without {
                    Effect::Same
                } else {
                    Effect::Some
                }
            }
            _ => Effect::Outdone,
        }
    }
}
