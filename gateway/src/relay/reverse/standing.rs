//! The right to one listener, watched.

use std::sync::Arc;

use sluicegate_policy::{Denial, ListenerPermit, ServiceBound, decide_listener};

use crate::session::{Authority, Changes};

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
    pub(super) async fn lost(&mut self) -> Denial {
        loop {
            if self.changes.changed().await.is_err() {
                // The session's owner is gone, and with it everything that could allow this.
                return Denial::SessionRevoked;
            }
            match self.changes.now() {
                Authority::Ended(denial) => return denial,
                Authority::Paused { hold: false, .. } => return Denial::SessionPaused,
                // What a pause holds is held within the grant of now.
                Authority::Live(policy) | Authority::Paused { hold: true, policy } => {
                    let now =
                        decide_listener(&policy.grant, self.bound.as_deref(), self.permit.name());
                    // The same name on other terms is another listener.
                    let listener = self.permit.listener();
                    if !now.is_ok_and(|now| now.listener().stands_as(listener)) {
                        return Denial::PolicyChanged;
                    }
                }
            }
        }
    }

    pub(super) fn permit(&self) -> &ListenerPermit {
        &self.permit
    }
}
