//! What would let a rule be kept that cannot be: an instruction that leads on when it is followed, for whoever can follow it.

use super::{super::within, Place, Rules};
use crate::{
    EchRule, TlsRule,
    document::{RuleDocument, Written},
    entry::{Entry, Ports},
    grant::InForce,
    text::Faults,
};

/// A rule's `http` where it is lost.
pub(super) struct Lost<'a> {
    pub(super) place: &'a Place<'a>,
    pub(super) port: u16,
    pub(super) found: &'a InForce,
    /// The rule.
    pub(super) index: u32,
    /// What is in force of `tls`, and the rule that says so; none where it is the port's default.
    pub(super) tls: TlsRule,
    pub(super) by: Option<u32>,
}

impl Rules<'_> {
    /// What keeps methods and paths: plain HTTP, or where that is not meant no bound.
    pub(super) fn mend_http(&self, lost: &Lost<'_>) -> String {
        if let Some(host) = self.plain_port(lost) {
            return format!("name the plain HTTP port alone: host: \"{host}\"");
        }
        let above = lost.by.filter(|by| {
            let ours = self.get(lost.index).map(|own| own.origin);
            lost.tls == TlsRule::Require && self.get(*by).map(|by| by.origin) < ours
        });
        if let Some(by) = above {
            return self.ask_operator(by);
        }
        let (at, closer) = self.speaker(lost.index, lost.found);
        let rule = self.matcher.rule(at);
        if closer {
            return format!(
                "write http: {{}} in egress.{rule}, if no requests are meant there; else tls: auto in its place"
            );
        }
        match self.required_above(at) {
            Some(above) => self.ask_operator(above),
            None => format!("write tls: auto in egress.{rule}"),
        }
    }

    /// What keeps a word of encrypted hellos: bytes that are looked at, or where any are meant none.
    pub(super) fn mend_ech(&self, index: u32, found: &InForce) -> String {
        let (at, closer) = self.speaker(index, found);
        let rule = self.matcher.rule(at);
        // Nobody writes less than he is bound to.
        let looked = match self.required_above(at) {
            Some(_) => "tls: require",
            None => "tls: auto",
        };
        if closer && self.may(at, |rule| rule.ech = Some(EchRule::Outer)) {
            format!(
                "write ech: outer in egress.{rule}, if any bytes are meant there; else {looked} in its place"
            )
        } else {
            format!("write {looked} in egress.{rule}")
        }
    }

    /// The rule's host with the port of plain HTTP alone, where that is another rule and can be kept.
    fn plain_port(&self, lost: &Lost<'_>) -> Option<Entry> {
        let own = self.get(lost.index)?;
        let host = &own.value.host;
        if lost.port == 80 || matches!(host.ports, Ports::One(_)) || !lost.place.allows(80) {
            return None;
        }
        let there = lost.place.in_force(80);
        let tls = there.tls(self.attributes);
        let auto = tls.is_none_or(|(tls, _)| tls == TlsRule::Auto);
        let holds = there.http_of(own.origin) == Some(lost.index);
        let plain = Entry {
            pattern: host.pattern.clone(),
            ports: Ports::One(80),
        };
        // Another one might say other things of what it has besides.
        let mut single = true;
        self.matcher.visit_pattern(&host.pattern, |index, ports| {
            let other = self.get(index).filter(|_| ports == Ports::One(80));
            single &= other.is_none_or(|other| {
                other.origin != own.origin || other.value.host.pattern != host.pattern
            });
        });
        let alone = plain.clone();
        let may = self.may(lost.index, |rule| rule.host = alone);
        (auto && holds && single && may).then_some(plain)
    }

    fn get(&self, index: u32) -> Option<&Written<RuleDocument>> {
        self.written.get(index as usize)
    }

    /// The rule in which its author's word of `tls` is heard: this one, or another one of his that is there already; and whether that is
    /// a closer one.
    fn speaker(&self, index: u32, found: &InForce) -> (u32, bool) {
        let closeness = |index: u32| self.get(index).map(|rule| rule.value.host.closeness());
        let author = self.get(index).map(|own| own.origin);
        match author.and_then(|author| found.tls_of(author)) {
            Some(said) if closeness(said) > closeness(index) => (said, true),
            Some(said) if closeness(said) == closeness(index) => (said, false),
            Some(_) | None => (index, false),
        }
    }

    /// Might the rule be changed so, by what those above its author say?
    fn may(&self, index: u32, change: impl FnOnce(&mut RuleDocument)) -> bool {
        let Some(mut changed) = self.get(index).cloned() else {
            return false;
        };
        change(&mut changed.value);
        let (named, mut faults) = (self.matcher.rule(index), Faults::default());
        within::judge(&changed, self.written, self.matcher, &named, &mut faults);
        faults.is_clean()
    }

    /// The rule of an author above by which this one may not say less than `tls: require`.
    fn required_above(&self, index: u32) -> Option<u32> {
        let [tls, ..] = within::around(self.get(index)?, self.written, self.matcher);
        let requires = |index: &u32| {
            let rule = self.get(*index);
            rule.is_some_and(|rule| rule.value.tls == Some(TlsRule::Require))
        };
        tls.into_iter().flatten().find(requires)
    }

    /// A rule of an author above, or of one above that, is the operator's to change: so are the capabilities of the catalogue.
    fn ask_operator(&self, by: u32) -> String {
        let mut at = by;
        while let Some(above) = self.required_above(at) {
            at = above;
        }
        let rule = self.matcher.rule(at);
        format!(
            "only the operator can let plain HTTP pass there: write tls: auto in egress.{rule}; or leave http out"
        )
    }
}
