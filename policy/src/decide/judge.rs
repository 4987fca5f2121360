//! The order of precedence, once: the operator's bound, denied, allowed, default.

use super::permit::{Basis, TargetPermit};
use crate::{
    Action, Denial, Grant, Hint, Host, HostPattern, Mode, Refusal, RuleId, Target,
    address::{METADATA_NAMES, canonical, embedded},
    entry::Pattern,
    grant::InForce,
    matcher::{Found, Matcher, Sought},
};
use std::{net::IpAddr, sync::Arc};

/// May the session reach `target`? Order: denied, allowed, default. Never allocates on the allow path beyond `Arc` clones.
pub fn decide(grant: &Arc<Grant>, target: &Target) -> Result<TargetPermit, Refusal> {
    let (basis, reported) = match judge(grant, target) {
        Verdict::Allowed(basis) => (basis, None),
        Verdict::Refused { stage, refusal } if grant.mode == Mode::Report && !stage.is_bound() => {
            (Basis::Default, Some(Box::new(refusal)))
        }
        Verdict::Refused { refusal, .. } => return Err(refusal),
    };
    if let Some(also) = &grant.also {
        // A bound, as the operator's is: report mode does not lift it.
        decide(also, target).map_err(narrowed)?;
    }
    Ok(permit(grant, target, basis, reported))
}

/// A credential's own bound is in no list of the session's.
pub(super) fn narrowed(refusal: Refusal) -> Refusal {
    let hint = "the credential allows less than its session: get one that allows this";
    Refusal {
        hint: Some(Hint::session(hint)),
        ..refusal
    }
}

/// Which step refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Metadata,
    BoundDeny,
    BoundAllow,
    Held,
    Deny,
    Allow,
    Default,
}

impl Stage {
    /// Is it of somebody above whoever wrote `mode: report`, which therefore does not lift it?
    pub(super) fn is_bound(self) -> bool {
        matches!(
            self,
            Self::Metadata | Self::BoundDeny | Self::BoundAllow | Self::Held
        )
    }
}

/// What the steps came to.
#[derive(Debug)]
pub(super) enum Verdict {
    Allowed(Basis),
    Refused { stage: Stage, refusal: Refusal },
}

/// The decision itself.
pub(super) fn judge(grant: &Grant, target: &Target) -> Verdict {
    let egress = &grant.egress;
    let (host, port) = (target.host(), target.port());
    if !may_name_metadata(grant, host) {
        let hint = Some(Hint::Raise(target.clone()));
        return refused(Stage::Metadata, Denial::MetadataAddress, None, hint);
    }
    let always = [&egress.bound.deny, &egress.held, &egress.deny];
    let perhaps = [egress.bound.allow.as_ref(), egress.allow.as_ref()];
    let sought = Sought::new(
        host,
        always.into_iter().chain(perhaps.into_iter().flatten()),
    );
    if let Some(rule) = denied_sought(&egress.bound.deny, &sought, host, port) {
        let hint = undeny(&rule, target);
        return refused(Stage::BoundDeny, Denial::HostDenied, Some(rule), hint);
    }
    if !within_bound(grant, &sought, host, port) {
        let hint = Some(Hint::raise(grant, target));
        return refused(Stage::BoundAllow, not_allowed(host), None, hint);
    }
    for (stage, list) in [(Stage::Held, &egress.held), (Stage::Deny, &egress.deny)] {
        if let Some(rule) = denied_sought(list, &sought, host, port) {
            let hint = undeny(&rule, target);
            return refused(stage, Denial::HostDenied, Some(rule), hint);
        }
    }
    let hint = || Some(Hint::allow(grant, target));
    let Some(allow) = &egress.allow else {
        return match egress.default {
            Action::Allow => Verdict::Allowed(Basis::Default),
            Action::Deny => refused(
                Stage::Default,
                not_allowed(host),
                Some(egress.default_rule.clone()),
                hint(),
            ),
        };
    };
    match allow.find_sought(&sought, port) {
        Found::Entry(index) => Verdict::Allowed(Basis::Entry(index)),
        Found::OtherPort(index) => {
            let rule = Some(allow.rule(index));
            refused(Stage::Allow, Denial::PortNotAllowed, rule, hint())
        }
        Found::Nothing => refused(Stage::Allow, not_allowed(host), None, hint()),
    }
}

fn refused(stage: Stage, denial: Denial, rule: Option<RuleId>, hint: Option<Hint>) -> Verdict {
    let refusal = Refusal { denial, rule, hint };
    Verdict::Refused { stage, refusal }
}

/// Only its removal allows what a deny covers.
fn undeny(rule: &RuleId, target: &Target) -> Option<Hint> {
    Some(Hint::Undeny {
        rule: rule.clone(),
        target: target.clone(),
    })
}

fn not_allowed(host: &Host) -> Denial {
    match host {
        Host::Name(_) => Denial::HostNotAllowed,
        Host::Ip(_) => Denial::AddressNotAllowed,
    }
}

/// The entry of a deny list that covers this host and port. An IPv6 literal is also denied for the IPv4 it stands for.
pub(super) fn denied(list: &Matcher, host: &Host, port: u16) -> Option<RuleId> {
    denied_sought(list, &Sought::new(host, [list]), host, port)
}

/// The same, of a host that is looked for in other lists too.
#[inline]
fn denied_sought(list: &Matcher, sought: &Sought<'_>, host: &Host, port: u16) -> Option<RuleId> {
    if list.is_empty() {
        return None;
    }
    let rule = |found: Found| match found {
        Found::Entry(index) => Some(list.rule(index)),
        Found::OtherPort(_) | Found::Nothing => None,
    };
    rule(list.find_sought(sought, port)).or_else(|| match host {
        Host::Ip(IpAddr::V6(address)) => {
            embedded(*address, &[]).find_map(|inner| rule(list.find(&Host::Ip(inner.into()), port)))
        }
        _ => None,
    })
}

/// A name of a metadata service is refused unless the operator's own list names it, whole.
fn may_name_metadata(grant: &Grant, host: &Host) -> bool {
    let Host::Name(name) = host else {
        return true;
    };
    if !METADATA_NAMES.contains(&name.as_str()) {
        return true;
    }
    let exact = HostPattern::Exact(name.clone());
    let entries = grant
        .egress
        .bound
        .allow
        .as_ref()
        .map(Matcher::entries)
        .unwrap_or_default();
    entries.iter().any(
        |compiled| matches!(&compiled.entry.pattern, Pattern::Host(pattern) if *pattern == exact),
    )
}

fn within_bound(grant: &Grant, sought: &Sought<'_>, host: &Host, port: u16) -> bool {
    let bound = &grant.egress.bound;
    let Some(allow) = &bound.allow else {
        return true;
    };
    let addressed = match host {
        Host::Ip(address) => bound
            .addresses
            .iter()
            .any(|net| net.contains(&canonical(*address))),
        Host::Name(_) => false,
    };
    addressed || matches!(allow.find_sought(sought, port), Found::Entry(_))
}

/// Each attribute comes from the most specific rule that has it, of every author's by themselves: together they allow what all of
/// them do.
fn permit(
    grant: &Arc<Grant>,
    target: &Target,
    basis: Basis,
    reported: Option<Box<Refusal>>,
) -> TargetPermit {
    TargetPermit {
        grant: Arc::clone(grant),
        target: target.clone(),
        basis,
        in_force: in_force(grant, target),
        reported,
    }
}

/// Most grants have no rules.
#[inline]
fn in_force(grant: &Grant, target: &Target) -> InForce {
    let (egress, port) = (&grant.egress, target.port());
    let mut found = InForce::default();
    if egress.attributes.is_empty() {
        return found;
    }
    egress.rules.visit(target.host(), |index, ports| {
        let rule = egress.attributes.get(index as usize);
        if let Some(rule) = rule.filter(|_| ports.covers(port)) {
            found.add(index, rule);
        }
    });
    found
}
