//! Is what was permitted still permitted? Asked of everything open whenever its session's authority changes.

use std::net::IpAddr;

use sluicegate_policy::{Admission, Denial, TargetPermit, admit, decide};

use crate::session::Authority;

/// Judge an open tunnel or exchange by the authority as it is now: the target, what its rule asks, and the address that was
/// dialled. An exchange is judged by its own `request`, method and path; of a tunnel it is only known what its rule let pass,
/// so that it stays where the rule of now lets all of that pass.
///
/// # Errors
/// The reason to cut it.
pub fn still_allowed(
    authority: &Authority,
    permit: &TargetPermit,
    request: Option<(&str, &str)>,
    dialled: Option<IpAddr>,
    admission: &Admission,
) -> Result<(), Denial> {
    let policy = match authority {
        Authority::Live(policy) | Authority::Paused { hold: true, policy } => policy,
        Authority::Paused { hold: false, .. } => return Err(Denial::SessionPaused),
        Authority::Ended(denial) => return Err(*denial),
    };
    let now = decide(&policy.grant, permit.target()).map_err(|_| Denial::PolicyChanged)?;
    let passes = match request {
        Some((method, path)) => now.judge_http(method, path).is_ok(),
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
