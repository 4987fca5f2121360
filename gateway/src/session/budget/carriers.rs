//! How many connections carry a session's streams: each may hold a window of unread bytes.

use std::sync::{Arc, Weak, atomic::Ordering};

use sluicegate_policy::{Denial, Hint, Refusal};

use super::Budget;

/// A connection that carries streams of a session's generation; dropping it frees the place. It keeps nothing of a generation that
/// is over.
#[derive(Debug)]
pub struct Carrier(Weak<Budget>);

impl Budget {
    /// One more connection begins to carry streams, of so many at once.
    ///
    /// # Errors
    /// `TooManyConnections`.
    pub fn carry(self: &Arc<Self>, most: u64) -> Result<Carrier, Refusal> {
        let more = |carriers| (carriers < most).then_some(carriers + 1);
        let begun = self
            .carriers
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        match begun {
            Ok(_) => Ok(Carrier(Arc::downgrade(self))),
            Err(used) => Err(Refusal {
                denial: Denial::TooManyConnections,
                rule: None,
                hint: Some(Hint::InUse {
                    used,
                    most,
                    what: "connections",
                }),
            }),
        }
    }
}

impl Carrier {
    /// Is it one of this generation's?
    pub fn is_of(&self, budget: &Arc<Budget>) -> bool {
        std::ptr::eq(self.0.as_ptr(), Arc::as_ptr(budget))
    }

    /// Is the generation gone?
    pub fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        if let Some(budget) = self.0.upgrade() {
            budget.carriers.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
