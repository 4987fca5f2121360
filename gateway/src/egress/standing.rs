//! Is what was permitted still permitted? Asked of everything open whenever its session's authority changes.

use std::{net::IpAddr, sync::Arc};

use sluicegate_policy::{
    Denial, FirstBytes, Refusal, Target, TargetPermit, TlsRule, admit, decide,
};

use super::{Egress, Reached};
use crate::{
    session::{Authority, PolicyGeneration},
    telemetry::Recorder,
};

/// A plain HTTP request, as it was judged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Every method and path that a server may read in it, its own first.
    read_as: Box<[(Box<str>, Box<str>)]>,
}

impl Asked {
    /// Of these pairs.
    pub fn new<M: AsRef<str>, P: AsRef<str>>(read_as: impl Iterator<Item = (M, P)>) -> Self {
        let pair = |(method, path): (M, P)| (method.as_ref().into(), path.as_ref().into());
        Self {
            read_as: read_as.map(pair).collect(),
        }
    }

    /// The pairs.
    pub fn read_as(&self) -> impl Iterator<Item = (&str, &str)> {
        self.read_as
            .iter()
            .map(|(method, path)| (&**method, &**path))
    }

    /// Judge every pair by the rule's methods and paths. In report mode it passes, with what would have been refused.
    ///
    /// # Errors
    /// `MethodNotAllowed`, `PathNotAllowed`.
    pub fn judge(&self, permit: &TargetPermit) -> Result<Option<Refusal>, Refusal> {
        let mut reported = None;
        for (method, path) in self.read_as() {
            reported = reported.or(permit.judge_http(method, path)?);
        }
        Ok(reported)
    }
}

/// May requests to `target` still be made in a connection that was opened for them? Each is judged by itself, method and path too.
///
/// # Errors
/// The reason to end the connection.
pub(super) fn still_serves(authority: &Authority, target: &Target) -> Result<(), Denial> {
    let policy = live(authority)?;
    let allowed = decide(&policy.grant, target).is_ok_and(|now| now.tls() != TlsRule::Require);
    allowed.then_some(()).ok_or(Denial::PolicyChanged)
}

fn live(authority: &Authority) -> Result<&Arc<PolicyGeneration>, Denial> {
    match authority {
        Authority::Live(policy) | Authority::Paused { hold: true, policy } => Ok(policy),
        Authority::Paused { hold: false, .. } => Err(Denial::SessionPaused),
        Authority::Ended(denial) => Err(*denial),
    }
}

/// What is known of something open.
#[derive(Clone, Copy, Debug)]
pub enum Known<'a> {
    /// The request of an exchange, which is in the plain.
    Request(&'a Asked),
    /// What a tunnel began with.
    Began(&'a FirstBytes),
    /// Nothing of the client's has gone up yet: whoever asks judges what comes by the permit that is the answer.
    Nothing,
}

/// What permits something open now.
#[derive(Clone, Debug)]
pub struct InForce {
    /// The permit.
    pub permit: TargetPermit,
    /// The policy that gave it.
    pub policy: Arc<PolicyGeneration>,
}

impl InForce {
    /// Record that it is what judges: nothing was judged by what was in force before but the target.
    pub fn record(&self, recorder: &mut Recorder) {
        let reported = self.permit.reported().map(|refusal| refusal.denial);
        recorder.judged_by(self.policy.number, self.permit.rule(), reported);
    }
}

/// Judge an open tunnel or exchange by the authority and the way out as they are now, as if it were opened now: the target, the
/// address that was reached and by whom, and what is known of the bytes in it. The answer is what is in force now.
///
/// # Errors
/// The reason to cut it.
pub fn still_allowed(
    authority: &Authority,
    permit: &TargetPermit,
    known: Known<'_>,
    reached: Option<&Reached>,
    egress: &Egress,
) -> Result<InForce, Denial> {
    let policy = live(authority)?;
    let now = decide(&policy.grant, permit.target()).map_err(|_| Denial::PolicyChanged)?;
    let passes = match known {
        Known::Request(asked) => asked.judge(&now).is_ok(),
        Known::Began(seen) => now.admits(seen),
        Known::Nothing => true,
    };
    // What the policy itself says of the name's addresses is the whole of them.
    let listed = |address: IpAddr| {
        let same = |one: &IpAddr| one.to_canonical() == address.to_canonical();
        now.known_answers(&egress.admission)
            .is_none_or(|answers| answers.iter().any(same))
    };
    let admitted = reached.is_none_or(|reached| {
        let (address, by) = (reached.address.ip(), reached.by.as_deref());
        listed(address)
            && admit(&policy.grant, &now, &[address], &egress.admission)
                .is_ok_and(|admitted| egress.still_leads(now.target(), &admitted, by))
    });
    if passes && admitted {
        Ok(InForce {
            permit: now,
            policy: policy.clone(),
        })
    } else {
        Err(Denial::PolicyChanged)
    }
}
