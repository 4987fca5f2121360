//! Calls of one session that are open on streams which carry calls.

use std::sync::{Arc, atomic::Ordering};

use sluicegate_policy::{Denial, Hint, Refusal};

use super::Budget;

/// One of them; dropping it says that it has ended.
#[derive(Debug)]
pub struct Calling(Arc<Budget>);

impl Drop for Calling {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Budget {
    /// One more call begins, of so many at once: each holds memory whether it moves or not, and a hundred fit on a stream, which
    /// is one place of its connection's.
    ///
    /// # Errors
    /// `TooManyTunnels`.
    pub fn call(self: &Arc<Self>, most: u64) -> Result<Calling, Refusal> {
        let begun = |calls| (calls < most).then_some(calls + 1);
        let begun = self
            .calls
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, begun);
        match begun {
            Ok(_) => Ok(Calling(self.clone())),
            Err(used) => Err(Refusal {
                denial: Denial::TooManyTunnels,
                rule: None,
                hint: Some(Hint::InUse {
                    used,
                    most,
                    what: "calls open on streams",
                }),
            }),
        }
    }
}
