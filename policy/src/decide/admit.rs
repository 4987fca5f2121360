//! The judgement of addresses: every answer, and only these are dialled.

use super::{
    OwnAddresses,
    judge::{decide, denied, narrowed},
    permit::{AddressPermit, Basis, TargetPermit},
};
use crate::{
    AddressClass, Denial, Grant, Hint, Host, HostName, Nat64Prefix, Refusal, RuleId, Target,
    address::{canonical, embedded},
    classify,
    entry::Pattern,
    grant::is_named,
    matcher::Matcher,
};
use ipnet::IpNet;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// What to do with a set of answers of which some are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MixedAnswers {
    /// Refuse the set.
    #[default]
    Refuse,
    /// Dial the others.
    Filter,
}

/// Settings of address admission that are the gateway's, not the session's.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// Own addresses.
    pub own: Arc<OwnAddresses>,
    /// NAT64 prefixes of this network.
    pub nat64: Arc<[Nat64Prefix]>,
    /// Mixed answers.
    pub mixed: MixedAnswers,
    /// The operator's static answers (`dns.hosts`), each an exception for its name.
    pub hosts: Arc<BTreeMap<HostName, Vec<IpAddr>>>,
}

impl Admission {
    /// The same where this address has turned out to be the host's own.
    #[must_use]
    pub fn with_own(&self, address: IpAddr) -> Self {
        Self {
            own: Arc::new(self.own.with(address)),
            ..self.clone()
        }
    }

    /// Did the operator give this answer for this name?
    fn is_static(&self, host: &Host, address: IpAddr) -> bool {
        match host {
            Host::Name(name) => self
                .hosts
                .get(name)
                .is_some_and(|fixed| fixed.iter().any(|one| canonical(*one) == address)),
            Host::Ip(_) => false,
        }
    }
}

/// [`decide`], where the gateway's own addresses are known: what would allow one of its listeners is nothing, and that is said.
///
/// # Errors
/// As [`decide`].
pub fn decide_at(
    grant: &Arc<Grant>,
    target: &Target,
    admission: &Admission,
) -> Result<TargetPermit, Refusal> {
    decide(grant, target).map_err(|mut refusal| {
        if let Host::Ip(address) = target.host()
            && admission.own.listens_on(*address, target.port())
        {
            refusal.hint = Some(Hint::OWN_LISTENER);
        }
        refusal
    })
}

/// Judge every answer; the result keeps the order given. Empty input is `DnsFailed`.
///
/// Report mode changes nothing here: what a name resolves to is not the author's to wave through.
pub fn admit(
    grant: &Grant,
    permit: &TargetPermit,
    answers: &[IpAddr],
    admission: &Admission,
) -> Result<Vec<AddressPermit>, Refusal> {
    let port = permit.target.port();
    let mut admitted = Vec::with_capacity(answers.len());
    let mut first_refusal = None;
    for answer in answers {
        match judge_everywhere(grant, permit, *answer, admission) {
            Ok(()) => admitted.push(AddressPermit {
                address: SocketAddr::new(*answer, port),
            }),
            Err(refusal) if admission.mixed == MixedAnswers::Refuse => return Err(refusal),
            Err(refusal) => first_refusal = first_refusal.or(Some(refusal)),
        }
    }
    match first_refusal {
        _ if !admitted.is_empty() => Ok(admitted),
        Some(refusal) => Err(refusal),
        None => Err(Denial::DnsFailed.into()),
    }
}

/// The same of the only answer there is.
pub fn admit_one(
    grant: &Grant,
    permit: &TargetPermit,
    answer: IpAddr,
    admission: &Admission,
) -> Result<AddressPermit, Refusal> {
    judge_everywhere(grant, permit, answer, admission)?;
    Ok(AddressPermit {
        address: SocketAddr::new(answer, permit.target.port()),
    })
}

/// By this grant, and by the one that narrows it.
fn judge_everywhere(
    grant: &Grant,
    permit: &TargetPermit,
    answer: IpAddr,
    admission: &Admission,
) -> Result<(), Refusal> {
    judge_address(grant, permit, answer, admission)?;
    let Some(also) = &grant.also else {
        return Ok(());
    };
    let narrower = decide(also, &permit.target).map_err(narrowed)?;
    judge_everywhere(also, &narrower, answer, admission).map_err(narrowed)
}

fn judge_address(
    grant: &Grant,
    permit: &TargetPermit,
    answer: IpAddr,
    admission: &Admission,
) -> Result<(), Refusal> {
    let (egress, port) = (&grant.egress, permit.target.port());
    let address = canonical(answer);
    // Whatever IPv4 socket the address could lead to is judged along with it.
    let inner = match address {
        IpAddr::V6(v6) => Some(embedded(v6, &admission.nat64).map(IpAddr::V4)),
        IpAddr::V4(_) => None,
    };
    let reached = || std::iter::once(address).chain(inner.clone().into_iter().flatten());
    if reached().any(|one| admission.own.listens_on(one, port)) {
        return Err(refused(Denial::OwnListener, Hint::OWN_LISTENER));
    }
    for one in reached() {
        let host = Host::Ip(one);
        let by = |list| {
            denied(list, &host, port)
                .or_else(|| denied_in_translation(list, one, port, &admission.nat64))
        };
        let lists = [&egress.bound.deny, &egress.held, &egress.deny];
        if let Some(rule) = lists.into_iter().find_map(by) {
            let hint = Hint::Undeny {
                rule: rule.clone(),
                target: Target::new(host, port).unwrap_or_else(|| permit.target.clone()),
            };
            return Err(Refusal {
                rule: Some(rule),
                ..refused(Denial::HostDenied, hint)
            });
        }
    }
    if admission.is_static(permit.target.host(), address) {
        return Ok(());
    }
    let class = classify(address, &admission.nat64);
    let denial = match class {
        AddressClass::Metadata
            if !(egress.bound.names(address) && is_exception(grant, permit, address, true)) =>
        {
            Denial::MetadataAddress
        }
        AddressClass::Special { .. } if !is_exception(grant, permit, address, false) => {
            Denial::SpecialAddress
        }
        AddressClass::Global
            if reached().any(|one| admission.own.is_interface(one))
                && !is_exception(grant, permit, address, false) =>
        {
            Denial::AddressNotAllowed
        }
        _ => return Ok(()),
    };
    let hint = Hint::except(grant, &permit.target, address, class);
    Err(refused(denial, hint))
}

/// The entry of a deny list that spells this IPv4 address out under a NAT64 prefix of this network. An entry that holds the prefix
/// as a whole means the way, and not all of IPv4.
fn denied_in_translation(
    list: &Matcher,
    address: IpAddr,
    port: u16,
    nat64: &[Nat64Prefix],
) -> Option<RuleId> {
    let IpAddr::V4(address) = address else {
        return None;
    };
    nat64.iter().find_map(|prefix| {
        let mut found = None;
        let host = Host::Ip(prefix.embed(address).into());
        list.visit(&host, |index, ports| {
            let spells = list.entry(index).is_some_and(|compiled| {
                matches!(&compiled.entry.pattern, Pattern::Net(IpNet::V6(net)) if net.prefix_len() > prefix.length())
            });
            if spells && ports.covers(port) {
                found = Some(list.rule(index));
            }
        });
        found
    })
}

fn refused(denial: Denial, hint: Hint) -> Refusal {
    Refusal {
        denial,
        rule: None,
        hint: Some(hint),
    }
}

/// Is the address excepted for this target: by its own literal or range, by its static answer, by `allowedAddresses`?
/// With `named`, ranges do not count.
fn is_exception(grant: &Grant, permit: &TargetPermit, address: IpAddr, named: bool) -> bool {
    let egress = &grant.egress;
    match permit.target.host() {
        Host::Ip(_) => {
            let Basis::Entry(_) = permit.basis else {
                return false;
            };
            let mut excepted = false;
            if let Some(allow) = &egress.allow {
                allow.visit(permit.target.host(), |index, ports| {
                    let Some(compiled) = allow.entry(index) else {
                        return;
                    };
                    let single = compiled.entry.pattern == Pattern::Net(IpNet::from(address));
                    let covers = ports.covers(permit.target.port());
                    excepted |= compiled.exception && covers && (single || !named);
                });
            }
            excepted
        }
        Host::Name(name) => {
            let fixed = egress
                .answers
                .get(name)
                .is_some_and(|own| own.contains(&address));
            let ranged = egress.exceptions.iter().any(|net| net.contains(&address));
            fixed || (ranged && (!named || is_named(&egress.exceptions, address)))
        }
    }
}
