//! Requests where a place is held already. The first is what its tunnel or stream was opened for: both are one open.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::SystemTime,
};

use sluicegate_policy::Denial;

use super::Budget;

/// The requests on one tunnel or stream.
#[derive(Debug, Default)]
pub struct Requests {
    /// The open has had its request.
    begun: AtomicBool,
}

impl Requests {
    /// One more request: each but the first is an open. Bytes bound all of them.
    ///
    /// # Errors
    /// As [`Budget::again`].
    pub fn count(&self, budget: &Budget, now: SystemTime) -> Result<(), Denial> {
        if self.begun.load(Ordering::Acquire) {
            return budget.again(now);
        }
        budget.goes_on(now)?;
        if self.begun.swap(true, Ordering::AcqRel) {
            // Another has had it in the meantime.
            return budget.again(now);
        }
        Ok(())
    }
}

impl Budget {
    /// One more request where a place is held already: bytes and the rate of opens bound it all the same.
    ///
    /// # Errors
    /// `TooManyOpens`, `ByteQuota`.
    pub fn again(&self, now: SystemTime) -> Result<(), Denial> {
        self.has_bytes(now)?;
        self.take(now)?;
        let along = self.owner.as_ref().map_or(Ok(()), |owner| owner.again(now));
        along.inspect_err(|_| self.bucket().give_back())
    }

    /// What was counted as an open goes on.
    fn goes_on(&self, now: SystemTime) -> Result<(), Denial> {
        self.has_bytes(now)?;
        self.owner
            .as_ref()
            .map_or(Ok(()), |owner| owner.goes_on(now))
    }

    fn has_bytes(&self, now: SystemTime) -> Result<(), Denial> {
        self.touch(now);
        let has = self.bytes() < self.max_bytes.load(Ordering::Acquire);
        has.then_some(()).ok_or(Denial::ByteQuota)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{sync::Arc, time::SystemTime};

    use sluicegate_policy::{Denial, Limits};

    use super::Requests;
    use crate::session::Budget;

    fn limits(opens: Option<u32>, bytes: Option<u64>) -> Limits {
        Limits {
            opens_per_second: opens,
            bytes,
            ..Limits::default()
        }
    }

    /// For a session's own rate, and for its owner's.
    #[test]
    fn an_open_and_its_first_request_are_one() {
        let (one, none) = (limits(Some(1), None), Limits::default());
        let now = SystemTime::UNIX_EPOCH;
        for (own, owners) in [(one, none), (none, one), (one, one)] {
            let owner = Arc::new(Budget::new(owners, None));
            let budget = Arc::new(Budget::new(own, Some(owner)));
            let _slot = budget.open(now).unwrap();
            let requests = Requests::default();
            requests.count(&budget, now).unwrap();
            let second = requests.count(&budget, now);
            assert_eq!(second, Err(Denial::TooManyOpens));
        }
    }

    #[test]
    fn bytes_bound_the_first_as_well_and_leave_it_the_first() {
        let now = SystemTime::UNIX_EPOCH;
        let budget = Arc::new(Budget::new(limits(Some(1), Some(10)), None));
        let _slot = budget.open(now).unwrap();
        let requests = Requests::default();
        budget.spend(10).unwrap();
        assert_eq!(requests.count(&budget, now), Err(Denial::ByteQuota));
        // Another `bytes` leaves the rate as it is.
        budget.set_limits(limits(Some(1), Some(20)));
        requests.count(&budget, now).unwrap();
    }
}
