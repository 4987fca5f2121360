//! Is what was permitted still permitted? Asked of everything open whenever its session's authority changes.

use std::net::IpAddr;

use sluicegate_policy::{Admission, Denial, Refusal, Target, TargetPermit, TlsRule, admit, decide};

use crate::session::{Authority, PolicyGeneration};

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

fn live(authority: &Authority) -> Result<&PolicyGeneration, Denial> {
    match authority {
        Authority::Live(policy) | Authority::Paused { hold: true, policy } => Ok(policy),
        Authority::Paused { hold: false, .. } => Err(Denial::SessionPaused),
        Authority::Ended(denial) => Err(*denial),
    }
}

/// Judge an open tunnel or exchange by the authority as it is now: the target, what its rule asks, and the address that was
/// dialled. An exchange is judged by its own `request`, which is in the plain; of a tunnel it is only known what its rule let pass,
/// so that it stays where the rule of now lets all of that pass.
///
/// # Errors
/// The reason to cut it.
pub fn still_allowed(
    authority: &Authority,
    permit: &TargetPermit,
    request: Option<&Asked>,
    dialled: Option<IpAddr>,
    admission: &Admission,
) -> Result<(), Denial> {
    let policy = live(authority)?;
    let now = decide(&policy.grant, permit.target()).map_err(|_| Denial::PolicyChanged)?;
    let passes = match request {
        Some(asked) => now.tls() != TlsRule::Require && asked.judge(&now).is_ok(),
        None => now.admits_all_of(permit),
    };
    let admitted =
        dialled.is_none_or(|address| admit(&policy.grant, &now, &[address], admission).is_ok());
    if passes && admitted {
        Ok(())
    } else {
        Err(Denial::PolicyChanged)
    }
}
