//! Can `http` and `ech` be kept wherever they hold? Judged by what is in force at each host and port that is allowed, as the decision
//! finds it: a rule that stands elsewhere, or that a closer one outdoes, has no say.

use super::model::{RuleDocument, Written};
use crate::{
    Action, EchRule, TlsRule,
    entry::{Entry, Pattern, Ports},
    grant::{Attributes, InForce},
    matcher::Matcher,
    text::Faults,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The rules as they are written, and as they are compiled, place by place.
pub(super) struct Rules<'a> {
    pub(super) written: &'a [Written<RuleDocument>],
    pub(super) matcher: &'a Matcher,
    pub(super) attributes: &'a [Attributes],
}

/// Which attribute of which rule cannot be kept: told once, however many hosts and ports it is in force for.
type Told = BTreeSet<(&'static str, u32)>;

impl Rules<'_> {
    /// Report each rule whose `http` or `ech` is in force where nobody could hold anything to it.
    pub(super) fn judge(&self, allow: Option<&Matcher>, default: Action, faults: &mut Faults) {
        let mut told = Told::new();
        for (pattern, allowed) in self.places(allow, default) {
            // The widest first, and by their ports: of very many, few are for one.
            let mut around: Vec<(u32, &Attributes)> = Vec::new();
            let mut by_ports: BTreeMap<Ports, Vec<usize>> = BTreeMap::new();
            self.matcher.visit_pattern(pattern, |index, ports| {
                if let Some(rule) = self.attributes.get(index as usize) {
                    by_ports.entry(ports).or_default().push(around.len());
                    around.push((index, rule));
                }
            });
            let asks = |rule: &Attributes| rule.http.is_some() || rule.ech.is_some();
            if !around.iter().any(|(_, rule)| asks(rule)) {
                continue;
            }
            let places = |ports: Ports| by_ports.get(&ports).into_iter().flatten().copied();
            for port in telling_ports(&allowed, by_ports.keys().copied()) {
                let mut holding: Vec<usize> =
                    places(Ports::Any).chain(places(Ports::One(port))).collect();
                holding.sort_unstable();
                let mut found = InForce::default();
                for (index, rule) in holding.iter().filter_map(|place| around.get(*place)) {
                    found.add(*index, rule);
                }
                self.judge_at(port, &found, &mut told, faults);
            }
        }
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

    fn judge_at(&self, port: u16, found: &InForce, told: &mut Told, faults: &mut Faults) {
        let said = found.tls(self.attributes);
        let tls = said.map_or(TlsRule::default_for(port), |(tls, _)| tls);
        let by = said.map(|(_, by)| by);
        if tls != TlsRule::Auto {
            for (index, _, _) in found.http(self.attributes) {
                if told.insert(("http", index)) {
                    self.tell_http(index, tls, by, faults);
                }
            }
        }
        let Some(by) = by.filter(|_| tls == TlsRule::Opaque) else {
            return;
        };
        for (index, ech) in found.ech(self.attributes) {
            if self.is_lost(ech, index, by) && told.insert(("ech", index)) {
                self.tell_ech(index, by, faults);
            }
        }
    }

    /// Is what this rule says of encrypted hellos lost in the opaque tunnel that the other one makes? What an author leaves to a host
    /// and others around it (`publicNames`), he may leave to one of them with everything else.
    fn is_lost(&self, ech: &EchRule, index: u32, by: u32) -> bool {
        match ech {
            EchRule::Outer => false,
            EchRule::Deny => true,
            EchRule::PublicNames(_) => self.pair(index, by).is_some_and(|(own, opaque)| {
                let closer = opaque.value.host.closeness() > own.value.host.closeness();
                opaque.origin > own.origin || !closer
            }),
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
    fn tell_http(&self, index: u32, tls: TlsRule, by: Option<u32>, faults: &mut Faults) {
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
        let host = Entry {
            ports: Ports::Web,
            ..own.value.host.clone()
        };
        let hint = format!("name the plain HTTP port alone: host: \"{host}:80\"");
        faults.error_hint(&own.place, message, hint);
    }

    /// An encrypted hello cannot be told from other bytes where nobody looks at them.
    fn tell_ech(&self, index: u32, by: u32, faults: &mut Faults) {
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
        let closer = other.value.host.closeness() > own.value.host.closeness();
        let (asker, hint) = if index == by {
            (String::new(), "write tls: auto or tls: require")
        } else {
            let asker = format!(", which {} asks for", self.matcher.rule(by));
            let hint = if closer && other.origin == own.origin {
                "write ech: outer beside tls: opaque, if any bytes are meant; else tls: auto in its place"
            } else {
                "write tls: auto or tls: require"
            };
            (asker, hint)
        };
        let message = format!("{named}: ech cannot be enforced in an opaque tunnel{asker}");
        faults.error_hint(&own.place, message, hint);
    }
}

/// Of the ports that are allowed, each that somebody names, the two of the web, and one that stands for all others.
fn telling_ports(
    allowed: &BTreeSet<Ports>,
    around: impl Iterator<Item = Ports>,
) -> impl Iterator<Item = u16> {
    let one = |ports: Ports| match ports {
        Ports::One(port) => Some(port),
        Ports::Any | Ports::Web => None,
    };
    let named = allowed.iter().copied().chain(around).filter_map(one);
    let mut ports: BTreeSet<u16> = named.chain([80, 443]).collect();
    let other = (1..=u16::MAX).find(|port| !ports.contains(port));
    ports.extend(other);
    ports.into_iter().filter(move |port| {
        let web = allowed.contains(&Ports::Web) && Ports::Web.covers(*port);
        web || allowed.contains(&Ports::Any) || allowed.contains(&Ports::One(*port))
    })
}

#[cfg(test)]
mod tests;
