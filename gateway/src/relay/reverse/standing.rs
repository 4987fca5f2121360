//! The right to one listener, watched.

use std::sync::Arc;

use sluicegate_policy::{Denial, ListenerPermit, ServiceBound, decide_listener};

use crate::{
    lost::{Changed, Lost},
    session::{Authority, Changes},
};

/// What was permitted, and the watch on whether it still is.
#[derive(Debug)]
pub(super) struct Standing {
    bound: Option<Arc<[ServiceBound]>>,
    permit: ListenerPermit,
    changes: Changes,
}

impl Standing {
    pub(super) fn new(
        bound: Option<Arc<[ServiceBound]>>,
        permit: ListenerPermit,
        changes: Changes,
    ) -> Self {
        Self {
            bound,
            permit,
            changes,
        }
    }

    /// Completes when what was permitted no longer is, with the reason: decided again on every change of the session.
    pub(super) async fn lost(&mut self) -> Lost {
        loop {
            if self.changes.changed().await.is_err() {
                // The session's owner is gone, and with it everything that could allow this.
                return Denial::SessionRevoked.into();
            }
            match self.changes.now() {
                Authority::Ended(denial) => return denial.into(),
                Authority::Paused { hold: false, .. } => return Denial::SessionPaused.into(),
                // What a pause holds is held within the grant of now.
                Authority::Live(policy) | Authority::Paused { hold: true, policy } => {
                    let now =
                        decide_listener(&policy.grant, self.bound.as_deref(), self.permit.name());
                    let changed = match now {
                        Err(refusal) => Some(Changed::Listener(refusal.denial)),
                        // The same name on other terms is another listener.
                        Ok(now) => {
                            let differs = self.permit.listener().differs_in(now.listener());
                            differs.map(Changed::ListenerTerm)
                        }
                    };
                    if let Some(changed) = changed {
                        return changed.into();
                    }
                }
            }
        }
    }

    pub(super) fn permit(&self) -> &ListenerPermit {
        &self.permit
    }
}
