//! What would let a tunnel pass that is refused for its first bytes: what a rule for its host and port would have to say.

use super::{FirstBytes, Hello, TargetPermit};
use crate::{
    Action, Denial, EchRule, Hint, HintFor, Host, HostName, Refusal,
    entry::{Entry, Ports},
    hint,
    matcher::Found,
};

/// An attribute as it would have to be written, and the place in `rules` it comes from now; none where it is a default.
type Change<'a> = (&'a str, Option<u32>);

/// An instruction, and who can follow it.
type Told = (String, HintFor);

impl TargetPermit {
    /// The refusal of a tunnel for what it began with: the rule behind it, and what would let it pass. `seen` are its first bytes, as
    /// far as they are known.
    #[must_use]
    pub fn refuse(&self, denial: Denial, seen: Option<&FirstBytes>) -> Refusal {
        let relief = self.relief(denial, seen);
        Refusal {
            denial,
            rule: self.rule_behind(denial),
            hint: relief.map(|(told, whose)| Hint::Rule {
                told: told.into(),
                whose,
            }),
        }
    }

    /// What would let bytes pass that are no TLS.
    pub(super) fn without_tls(&self) -> Told {
        self.named(self.written(&[("tls: auto", self.tls_from())]))
    }

    fn relief(&self, denial: Denial, seen: Option<&FirstBytes>) -> Option<Told> {
        let hello = match seen {
            Some(FirstBytes::Tls(hello)) => Some(hello),
            Some(FirstBytes::Other | FirstBytes::Unseen) | None => None,
        };
        let told = match denial {
            Denial::TlsRequired => return Some(self.without_tls()),
            Denial::EchDenied => self.written(&[("ech: outer", self.ech_denied_by())]),
            Denial::MethodNotAllowed => {
                let (told, whose) = self.written(&[("http: {}", self.http_bound_by())]);
                let why = "only plain HTTP/1 can be held to methods and paths; for other bytes,";
                (format!("{why} {told}"), whose)
            }
            Denial::SniMismatch => self.for_name(hello),
            Denial::SniMissing => self.for_any("name the host in the hello (SNI)"),
            Denial::TlsMalformed => self.for_any("send a hello that can be read"),
            Denial::FirstBytesTimeout => self.for_any("send the first bytes in time"),
            _ => return None,
        };
        Some(self.named(told))
    }

    /// Of a hello that names somebody else.
    fn for_name(&self, hello: Option<&Hello>) -> Told {
        let sni = hello.and_then(|hello| HostName::parse(hello.sni.as_deref()?).ok());
        let Some(sni) = sni else {
            return self.for_any("name the host in the hello (SNI)");
        };
        let encrypted = hello.is_some_and(|hello| hello.ech);
        match self.target.host() {
            Host::Name(_) if encrypted => self.for_public_name(&sni),
            Host::Name(_) | Host::Ip(_) => {
                let port = self.target.port();
                self.for_any(&format!("ask for {sni}:{port} itself"))
            }
        }
    }

    /// Of an encrypted hello with this outer name, which every rule in force has to have.
    fn for_public_name(&self, sni: &HostName) -> Told {
        let egress = &self.grant.egress;
        let has =
            |rule: &EchRule| matches!(rule, EchRule::PublicNames(names) if names.contains(sni));
        let mut rules = self.in_force.ech(&egress.attributes);
        match rules.find(|(_, rule)| !has(rule)) {
            Some((index, EchRule::PublicNames(_))) => {
                let rule = egress.rules.rule(index);
                let told = format!("add \"{sni}\" to egress.{rule}: ech.publicNames");
                (told, HintFor::of(rule.origin()))
            }
            other => {
                let says = format!("ech: {{publicNames: [{sni}]}}");
                self.written(&[(says.as_str(), other.map(|(index, _)| index))])
            }
        }
    }

    /// What the client may do, or else a rule that lets any bytes pass. That one takes back what could not be kept beside it.
    fn for_any(&self, client: &str) -> Told {
        let mut rules = self.in_force.ech(&self.grant.egress.attributes);
        let ech = rules.find(|(_, rule)| **rule != EchRule::Outer);
        let mut changes = vec![("tls: opaque", self.tls_from())];
        changes.extend(ech.map(|(index, _)| ("ech: outer", Some(index))));
        let http = self.http_rules().next();
        changes.extend(http.map(|(index, ..)| ("http: {}", Some(index))));
        let (told, whose) = self.written(&changes);
        (format!("{client}; or, for any bytes, {told}"), whose)
    }

    /// Attributes are changed where they stand, if that is a rule for this host and port alone; else a closer rule has them. Its author
    /// is that of the rule in the way: those he binds have no say. What is a default now, whoever writes may say otherwise.
    fn written(&self, changes: &[Change<'_>]) -> Told {
        let rules = &self.grant.egress.rules;
        let own = Entry {
            ports: Ports::One(self.target.port()),
            ..hint::entry(self.target.host(), self.target.port())
        };
        let (mut parts, mut added) = (Vec::new(), Vec::new());
        for (says, from) in changes {
            let is_own = |index: &u32| rules.entry(*index).is_some_and(|one| one.entry == own);
            match from.filter(is_own) {
                Some(index) => parts.push(format!("write {says} in egress.{}", rules.rule(index))),
                None => added.push(*says),
            }
        }
        if !added.is_empty() {
            let added = added.join(", ");
            parts.push(format!("add {{host: \"{own}\", {added}}} to egress.rules"));
        }
        let authors = changes.iter().filter_map(|(_, from)| *from);
        let authors = authors.map(|index| HintFor::of(rules.rule(index).origin()));
        let whose = authors.min().unwrap_or(HintFor::Session);
        (parts.join("; and "), whose)
    }

    /// A rule is for what `allowedHosts` names: what report mode lets pass has to be named first.
    fn named(&self, (told, whose): Told) -> Told {
        let (egress, host, port) = (&self.grant.egress, self.target.host(), self.target.port());
        let named = match &egress.allow {
            Some(allow) => matches!(allow.find(host, port), Found::Entry(_)),
            None => egress.default == Action::Allow,
        };
        if named {
            return (told, whose);
        }
        let entry = hint::held_entry(&self.grant, host, port);
        let told = format!("add \"{entry}\" to egress.allowedHosts; then {told}");
        (told, whose)
    }
}

#[cfg(test)]
mod tests;
