//! Is what was permitted still permitted? Asked of everything open whenever its session's authority changes.

use std::{net::IpAddr, sync::Arc};

use sluicegate_policy::{
    Denial, FirstBytes, Refusal, Target, TargetPermit, TlsRule, admit_one, decide,
};

use super::{Egress, Reached};
use crate::{
    lost::{Changed, Lost},
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
pub(super) fn still_serves(authority: &Authority, target: &Target) -> Result<(), Lost> {
    let now = still_allows(live(authority)?, target)?;
    if now.tls() == TlsRule::Require {
        return Err(Changed::Bytes(Denial::TlsRequired).into());
    }
    Ok(())
}

fn still_allows(policy: &PolicyGeneration, target: &Target) -> Result<TargetPermit, Changed> {
    decide(&policy.grant, target).map_err(|refusal| Changed::Target(refusal.denial))
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
) -> Result<InForce, Lost> {
    let policy = live(authority)?;
    let now = still_allows(policy, permit.target())?;
    let passes = match known {
        Known::Request(asked) => asked
            .judge(&now)
            .map(drop)
            .map_err(|refusal| refusal.denial),
        Known::Began(seen) => now.judge_began(seen),
        Known::Nothing => Ok(()),
    };
    passes.map_err(Changed::Bytes)?;
    if let Some(reached) = reached {
        still_leads(policy, &now, reached, egress)?;
    }
    Ok(InForce {
        permit: now,
        policy: policy.clone(),
    })
}

/// Would it be led there now, and so?
fn still_leads(
    policy: &PolicyGeneration,
    permit: &TargetPermit,
    reached: &Reached,
    egress: &Egress,
) -> Result<(), Changed> {
    let (address, by) = (reached.address.ip(), reached.by.as_deref());
    // What the policy itself says of the name's addresses is the whole of them.
    let same = |one: &IpAddr| one.to_canonical() == address.to_canonical();
    let known = permit.known_answers(&egress.admission);
    if known.is_some_and(|answers| !answers.iter().any(same)) {
        return Err(Changed::Answers);
    }
    let admitted = admit_one(&policy.grant, permit, address, &egress.admission)
        .map_err(|refusal| Changed::Address(refusal.denial))?;
    let leads = egress.still_leads(permit.target(), &[admitted], by);
    leads.then_some(()).ok_or(Changed::Way)
}
