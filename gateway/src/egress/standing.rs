//! Is what was permitted still permitted? Asked of everything open whenever its session's authority changes.

use std::net::IpAddr;

use sluicegate_policy::{Admission, Denial, TargetPermit, admit, decide};

use crate::session::Authority;

/// Judge an open tunnel or exchange by the authority as it is now: the target, what its rule asks of first bytes and
/// methods, and the address that was dialled.
///
/// # Errors
/// The reason to cut it.
pub fn still_allowed(
    authority: &Authority,
    permit: &TargetPermit,
    dialled: Option<IpAddr>,
    admission: &Admission,
) -> Result<(), Denial> {
    let policy = match authority {
        Authority::Live(policy) | Authority::Paused { hold: true, policy } => policy,
        Authority::Paused { hold: false, .. } => return Err(Denial::SessionPaused),
        Authority::Ended(denial) => return Err(*denial),
    };
    let now = decide(&policy.grant, permit.target()).map_err(|_| Denial::PolicyChanged)?;
    // Bytes that were let pass under one rule may not have passed under another.
    let same =
        now.tls() == permit.tls() && now.ech() == permit.ech() && now.http() == permit.http();
    let admitted =
        dialled.is_none_or(|address| admit(&policy.grant, &now, &[address], admission).is_ok());
    if same && admitted {
        Ok(())
    } else {
        Err(Denial::PolicyChanged)
    }
}
