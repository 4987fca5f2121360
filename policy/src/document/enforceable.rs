//! Can `http` and `ech` be kept wherever they hold? Judged by what is in force at each host and port that is allowed, as the decision
//! finds it: a rule that stands elsewhere, or that a closer one outdoes, has no say.

mod mend;

use super::model::{RuleDocument, Written};
use crate::{
    Action, EchRule, TlsRule,
    entry::{Pattern, Ports},
    grant::{Attributes, InForce},
    matcher::Matcher,
    text::Faults,
};
use mend::Lost;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The rules as they are written, and as they are compiled, place by place.
pub(super) struct Rules<'a> {
    pub(super) written: &'a [Written<RuleDocument>],
    pub(super) matcher: &'a Matcher,
    pub(super) attributes: &'a [Attributes],
}

/// Which attribute of which rule cannot be kept: told once, however many hosts and ports it is in force for.
type Told = BTreeSet<(&'static str, u32)>;

/// Hosts that the same rules cover.
struct Place<'a> {
    /// The ports on which some of them are allowed.
    allowed: &'a BTreeSet<Ports>,
    /// The rules around them, the widest first.
    around: Vec<(u32, &'a Attributes)>,
    /// The same by their ports: of very many, few are for one.
    by_ports: BTreeMap<Ports, Vec<usize>>,
}

impl Place<'_> {
    fn asks(&self) -> bool {
        let asks = |rule: &Attributes| rule.http.is_some() || rule.ech.is_some();
        self.around.iter().any(|(_, rule)| asks(rule))
    }

    fn allows(&self, port: u16) -> bool {
        let web = self.allowed.contains(&Ports::Web) && Ports::Web.covers(port);
        web || self.allowed.contains(&Ports::Any) || self.allowed.contains(&Ports::One(port))
    }

    fn in_force(&self, port: u16) -> InForce {
        let of = |ports: Ports| self.by_ports.get(&ports).into_iter().flatten().copied();
        let mut holding: Vec<usize> = of(Ports::Any).chain(of(Ports::One(port))).collect();
        holding.sort_unstable();
        let mut found = InForce::default();
        for (index, rule) in holding.iter().filter_map(|place| self.around.get(*place)) {
            found.add(*index, rule);
        }
        found
    }

    /// Of the ports that are allowed, each that somebody names, the two of the web, and one that stands for all others.
    fn telling_ports(&self) -> impl Iterator<Item = u16> {
        let one = |ports: Ports| match ports {
            Ports::One(port) => Some(port),
            Ports::Any | Ports::Web => None,
        };
        let named = self.allowed.iter().chain(self.by_ports.keys()).copied();
        let mut ports: BTreeSet<u16> = named.filter_map(one).chain([80, 443]).collect();
        let other = (1..=u16::MAX).find(|port| !ports.contains(port));
        ports.extend(other);
        ports.into_iter().filter(move |port| self.allows(*port))
    }
}

impl Rules<'_> {
    /// Report each rule whose `http` or `ech` is in force where nobody could hold anything to it.
    pub(super) fn judge(&self, allow: Option<&Matcher>, default: Action, faults: &mut Faults) {
        let mut told = Told::new();
        for (pattern, allowed) in self.places(allow, default) {
            let place = self.place(pattern, &allowed);
            if !place.asks() {
                continue;
            }
            for port in place.telling_ports() {
                self.judge_at(&place, port, &mut told, faults);
            }
        }
    }

    fn place<'a>(&'a self, pattern: &Pattern, allowed: &'a BTreeSet<Ports>) -> Place<'a> {
        let mut place = Place {
            allowed,
            around: Vec::new(),
            by_ports: BTreeMap::new(),
        };
        self.matcher.visit_pattern(pattern, |index, ports| {
            if let Some(rule) = self.attributes.get(index as usize) {
                let at = place.around.len();
                place.by_ports.entry(ports).or_default().push(at);
                place.around.push((index, rule));
            }
        });
        place
    }

    /// The hosts of each rule that no closer one covers, with the ports on which some of them are allowed.
    fn places(&self, allow: Option<&Matcher>, default: Action) -> Vec<(&Pattern, BTreeSet<Ports>)> {
        let patterns = || self.written.iter().map(|rule| &rule.value.host.pattern);
        let mut places: HashMap<&Pattern, BTreeSet<Ports>> =
            patterns().map(|one| (one, BTreeSet::new())).collect();
        if let Some(allow) = allow {
            for (pattern, allowed) in &mut places {
                allow.visit_pattern(pattern, |_, ports| {
                    allowed.insert(ports);
                });
            }
            // Narrower entries are allowed where the closest rule around them holds.
            for compiled in allow.entries() {
                let mut closest = None;
                self.matcher
                    .visit_pattern(&compiled.entry.pattern, |index, _| closest = Some(index));
                let rule = closest.and_then(|index| self.written.get(index as usize));
                let place = rule.and_then(|rule| places.get_mut(&rule.value.host.pattern));
                if let Some(allowed) = place {
                    allowed.insert(compiled.entry.ports);
                }
            }
        } else if default == Action::Allow {
            for allowed in places.values_mut() {
                allowed.insert(Ports::Any);
            }
        }
        patterns()
            .filter_map(|one| places.remove_entry(one))
            .collect()
    }

    fn judge_at(&self, place: &Place<'_>, port: u16, told: &mut Told, faults: &mut Faults) {
        let found = place.in_force(port);
        let said = found.tls(self.attributes);
        let tls = said.map_or(TlsRule::default_for(port), |(tls, _)| tls);
        let by = said.map(|(_, by)| by);
        if tls != TlsRule::Auto {
            for (index, _, _) in found.http(self.attributes) {
                if told.insert(("http", index)) {
                    let lost = Lost {
                        place,
                        port,
                        found: &found,
                        index,
                        tls,
                        by,
                    };
                    self.tell_http(&lost, faults);
                }
            }
        }
        let Some(by) = by.filter(|_| tls == TlsRule::Opaque) else {
            return;
        };
        // What says no more than the default loses nothing: it is how an author says that he means any bytes.
        let kept = found.ech(self.attributes);
        for (index, _) in kept.filter(|(_, ech)| **ech != EchRule::Outer) {
            if told.insert(("ech", index)) {
                self.tell_ech(index, by, &found, faults);
            }
        }
    }

    fn pair(
        &self,
        index: u32,
        by: u32,
    ) -> Option<(&Written<RuleDocument>, &Written<RuleDocument>)> {
        let written = |index: u32| self.written.get(index as usize);
        Some((written(index)?, written(by)?))
    }

    /// Methods and paths cannot be seen inside TLS, nor promised of bytes nobody looks at.
    fn tell_http(&self, lost: &Lost<'_>, faults: &mut Faults) {
        let (index, tls, by) = (lost.index, lost.tls, lost.by);
        let named = self.matcher.rule(index);
        let Some((own, other)) = self.pair(index, by.unwrap_or(index)) else {
            return;
        };
        // Whoever is laid over this author takes nothing back that binds him.
        if other.origin > own.origin {
            let asked = format!("tls: {}", tls.as_str());
            let message = format!(
                "\"{}\": {asked} leaves nothing that could be held to the http of {named}, which binds it",
                other.value.host
            );
            let hint = format!("leave {asked} out");
            faults.error_hint(&other.place, message, hint);
            return;
        }
        let why = match (tls, by) {
            (TlsRule::Opaque, _) => "in an opaque tunnel",
            (_, Some(_)) => "inside the TLS that tls: require asks for",
            (_, None) => "inside TLS on port 443",
        };
        let message = format!("{named}: http cannot be enforced {why}, and nothing is intercepted");
        faults.error_hint(&own.place, message, self.mend_http(lost));
    }

    /// An encrypted hello cannot be told from other bytes where nobody looks at them.
    fn tell_ech(&self, index: u32, by: u32, found: &InForce, faults: &mut Faults) {
        let named = self.matcher.rule(index);
        let Some((own, other)) = self.pair(index, by) else {
            return;
        };
        if other.origin > own.origin {
            let message = format!(
                "\"{}\": tls: opaque would lift the ech of {named}, which binds it",
                other.value.host
            );
            faults.error_hint(&other.place, message, "leave tls: opaque out");
            return;
        }
        let asker = if index == by {
            String::new()
        } else {
            format!(", which {} asks for", self.matcher.rule(by))
        };
        let message = format!("{named}: ech cannot be enforced in an opaque tunnel{asker}");
        faults.error_hint(&own.place, message, self.mend_ech(index, found));
    }
}

#[cfg(test)]
mod tests;
