//! `rules[]`: those that are never reached, those that a closer one outdoes, those that say what holds without them.

use super::{
    index::{Index, Inside, Item},
    warn_unreachable,
};
use crate::{
    Action, EchRule, EgressDocument, HttpRule, TlsRule,
    document::RuleDocument,
    entry::{Pattern, Ports},
    text::Faults,
};
use std::{cmp::Reverse, collections::BTreeSet};

/// Rules, and what `allowedHosts` has for them: each asked for by pattern.
struct Around<'a> {
    egress: &'a EgressDocument,
    rules: Index<'a>,
    allowed: Index<'a>,
    inside: Inside,
    /// Those that change nothing: what is left must say it.
    idle: Vec<bool>,
}

impl<'a> Around<'a> {
    fn of(egress: &'a EgressDocument) -> Self {
        let allowed = egress.allowed_hosts.as_deref().unwrap_or_default();
        Self {
            egress,
            rules: Index::over(egress.rules.iter().map(|written| Item {
                entry: &written.value.host,
                ports: written.value.host.ports.or_any(),
                place: &written.place,
            })),
            allowed: Index::of(allowed, |ports| ports),
            inside: Inside::of(allowed),
            idle: vec![false; egress.rules.len()],
        }
    }
}

pub(super) fn lint(egress: &EgressDocument, denied: &Index<'_>, faults: &mut Faults) {
    if egress.rules.is_empty() {
        return;
    }
    let mut around = Around::of(egress);
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
            let message = match around.effect(at, rule) {
                // Of one that nothing is allowed for the fault says what to add.
                Effect::Some | Effect::Nowhere => continue,
                Effect::Same => format!("{what} adds nothing: what it says holds without it"),
                Effect::Outdone => format!(
                    "{what} is never used: closer rules say it all, for each host and port that is allowed"
                ),
            };
            faults.warn(item.place, message, leave_out());
        }
        if let Some(idle) = around.idle.get_mut(at) {
            *idle = true;
        }
    }
}

/// What a rule changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Effect {
    Some,
    /// It decides, and says what would hold without it.
    Same,
    /// It never decides.
    Outdone,
    /// It applies to nothing that is allowed.
    Nowhere,
}

impl<'a> Around<'a> {
    /// What one rule changes, wherever `allowedHosts` lets it apply.
    fn effect(&self, at: usize, own: &'a RuleDocument) -> Effect {
        let own_ports = own.host.ports.or_any();
        let mut found = Effect::Nowhere;
        for (pattern, allowed) in self.in_play(own) {
            let covering = self.covering(pattern, own_ports, at);
            for port in telling_ports(&covering, own_ports, allowed) {
                let view = View {
                    rules: &covering,
                    port,
                    own: at,
                };
                match view.effect() {
                    Effect::Some => return Effect::Some,
                    Effect::Outdone if found == Effect::Nowhere => found = Effect::Outdone,
                    Effect::Same => found = Effect::Same,
                    Effect::Outdone | Effect::Nowhere => {}
                }
            }
        }
        found
    }

    /// The rules around these hosts that have a say on some of these ports, the closest first, as the decision takes it.
    fn covering(
        &self,
        pattern: &Pattern,
        ports: Ports,
        own: usize,
    ) -> Vec<(usize, &'a RuleDocument)> {
        let idle = |index: usize| self.idle.get(index).copied().unwrap_or_default();
        let rule = |index: usize| Some((index, &self.egress.rules.get(index)?.value));
        let found = self.rules.covering(pattern).into_iter();
        let found = found.filter(|index| *index == own || !idle(*index));
        let mut found: Vec<(usize, &RuleDocument)> = found.filter_map(rule).collect();
        found.retain(|(_, rule)| {
            let theirs = rule.host.ports.or_any();
            ports == Ports::Any || theirs == Ports::Any || theirs == ports
        });
        found.sort_by_key(|(index, rule)| Reverse((rule.host.closeness(), *index)));
        found
    }

    /// The hosts on which a rule applies, with their ports: its own, or the narrower ones that `allowedHosts` names.
    fn in_play(&self, rule: &'a RuleDocument) -> impl Iterator<Item = (&'a Pattern, Ports)> {
        let own = &rule.host.pattern;
        let everything = self.egress.allowed_hosts.is_none()
            && self.egress.default_action.unwrap_or_default() == Action::Allow;
        let entry = move |at: usize| Some(&self.egress.allowed_hosts.as_ref()?.get(at)?.value);
        let around = self.allowed.covering(own).into_iter().filter_map(entry);
        let around = around.map(move |entry| (own, entry.ports));
        let narrower = self.inside.narrower(own).into_iter().filter_map(entry);
        let narrower = narrower.map(|entry| (&entry.pattern, entry.ports));
        let all = everything.then_some((own, Ports::Any));
        all.into_iter().chain(around).chain(narrower)
    }
}

/// Of the ports on which a rule applies, each that somebody names, the two of the web, and one that stands for all others.
fn telling_ports(
    covering: &[(usize, &RuleDocument)],
    own: Ports,
    allowed: Ports,
) -> impl Iterator<Item = u16> + use<> {
    let one = |ports: Ports| match ports {
        Ports::One(port) => Some(port),
        Ports::Any | Ports::Web => None,
    };
    let theirs = covering.iter().map(|(_, rule)| rule.host.ports);
    let named = theirs.chain([own, allowed]).filter_map(one);
    let mut ports: BTreeSet<u16> = named.chain([80, 443]).collect();
    let other = (1..=u16::MAX).find(|port| !ports.contains(port));
    ports.extend(other);
    let applies = move |port: &u16| allowed.covers(*port) && own.covers(*port);
    ports.into_iter().filter(applies)
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

#[cfg(test)]
mod tests;
