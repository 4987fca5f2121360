//! What a connection of streams has come to: whose it is, and how long it may idle. A stranger's may no longer than a head may
//! take.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sluicegate_policy::Refusal;
use tokio::time::Instant;

use crate::{
    http2::Limits,
    session::{Budget, Carrier, Right},
};

/// Where no bound is set, the timer only has to be far away.
const FAR: Duration = Duration::from_secs(86_400);

/// What its streams have come to. Each holds it while it lives.
#[derive(Debug, Default)]
pub(super) struct Standing {
    trusted: AtomicBool,
    /// Its place among the connections of each session that it carries streams of.
    carries: Mutex<Vec<Carrier>>,
}

impl Standing {
    /// Something was asked for on it by somebody who is known.
    pub(super) fn trust(&self) {
        self.trusted.store(true, Ordering::Release);
    }

    /// It carries streams of this session, by this right, from here to its end or the right's, if the session has a place for one
    /// more connection.
    ///
    /// # Errors
    /// `TooManyConnections`.
    pub(super) fn carry(
        &self,
        budget: &Arc<Budget>,
        right: Right,
        limits: &Limits,
    ) -> Result<(), Refusal> {
        let mut carries = self.carries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut own = carries.iter().filter(|carrier| carrier.is_of(budget));
        if own.any(|carrier| carrier.goes_on(&right)) {
            return Ok(());
        }
        carries.retain(|carrier| !carrier.is_over() && !carrier.is_of(budget));
        carries.push(budget.carry(limits.of_session.into(), right)?);
        Ok(())
    }

    /// Until when the connection may idle that was last asked for something `at` that time.
    pub(super) fn until(&self, at: Instant, limits: &Limits) -> Instant {
        let idle = if limits.idle.is_zero() {
            FAR
        } else {
            limits.idle
        };
        let trusted = self.trusted.load(Ordering::Acquire);
        at + if trusted {
            idle
        } else {
            idle.min(limits.head_timeout)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use sluicegate_policy::Limits as Bounds;
    use tokio::time::Instant;

    use super::{FAR, Standing};
    use crate::{
        http2::Limits,
        session::{Budget, Right, testing::generation},
    };

    #[test]
    fn a_connection_takes_one_place_of_each_session_it_carries() {
        let limits = Limits {
            of_session: 1,
            ..Limits::default()
        };
        let budget = || Arc::new(Budget::new(Bounds::default(), None));
        let (one, other) = (budget(), budget());
        let (first, second) = (Standing::default(), Standing::default());
        let session = generation();
        let carry = |standing: &Standing, budget| {
            let right = Right::of(&session, None);
            standing.carry(budget, right, &limits)
        };
        for _ in 0..2 {
            assert!(carry(&first, &one).is_ok());
            assert!(carry(&first, &other).is_ok());
        }
        assert!(carry(&second, &one).is_err());
        drop(first);
        assert!(carry(&second, &one).is_ok());
    }

    #[test]
    fn what_was_allowed_something_is_waited_for_longer() {
        let (standing, limits, now) = (Standing::default(), Limits::default(), Instant::now());
        let never = Limits {
            idle: Duration::ZERO,
            ..limits
        };
        for limits in [&limits, &never] {
            assert_eq!(standing.until(now, limits), now + limits.head_timeout);
        }
        standing.trust();
        assert_eq!(standing.until(now, &limits), now + limits.idle);
        assert_eq!(standing.until(now, &never), now + FAR);
    }
}
