//! What a connection of streams has come to: whose it is, and how long it may idle. A stranger's may no longer than a head may
//! take.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sluicegate_policy::{Denial, Refusal};
use tokio::time::Instant;

use super::path::Path;
use crate::{
    http2::Limits,
    session::{Budget, Carrier, Right, Session},
};

/// Where no bound is set, the timer only has to be far away.
const FAR: Duration = Duration::from_secs(86_400);

/// Connections of a session that carry tunnels, requests or calls, for each that may carry relay streams: a program has one of its own,
/// where a sandbox's relay client has one for all of them.
const ASKED_TO_RELAYED: u64 = 16;

/// What its streams have come to. Each holds it while it lives.
#[derive(Debug, Default)]
pub(super) struct Standing {
    trusted: AtomicBool,
    /// Its place among the connections of each session that it carries relay streams of …
    relays: Mutex<Vec<Carrier>>,
    /// … and of each that it carries anything else of.
    asks: Mutex<Vec<Carrier>>,
    /// Where its client is, where it may go elsewhere.
    path: Option<Path>,
}

impl Standing {
    /// Of a connection whose client may go on from another address.
    pub(super) fn on(path: Path) -> Self {
        Self {
            path: Some(path),
            ..Self::default()
        }
    }

    /// Something is asked for on it in this session: is its client still where that may be?
    ///
    /// # Errors
    /// `SourceNotAllowed`.
    pub(super) fn here(&self, session: &Arc<Session>) -> Result<(), Denial> {
        self.path.as_ref().map_or(Ok(()), |path| path.hold(session))
    }

    /// Completes when its client has gone where one of its sessions may not be used from.
    pub(super) async fn left(&self) {
        match &self.path {
            Some(path) => path.left().await,
            None => std::future::pending().await,
        }
    }

    /// Something was asked for on it by somebody who is known.
    pub(super) fn trust(&self) {
        self.trusted.store(true, Ordering::Release);
    }

    /// It carries relay streams of this session, by this right, from here to its end or the right's, if the session has a place for one
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
        let most = u64::from(limits.of_session);
        take_place(&self.relays, budget, right, |right| {
            budget.carry(most, right)
        })
    }

    /// The same for a tunnel, a request or a call of this session's.
    ///
    /// # Errors
    /// `TooManyConnections`.
    pub(super) fn carry_asked(
        &self,
        budget: &Arc<Budget>,
        right: Right,
        limits: &Limits,
    ) -> Result<(), Refusal> {
        let most = u64::from(limits.of_session).saturating_mul(ASKED_TO_RELAYED);
        take_place(&self.asks, budget, right, |right| {
            budget.carry_asked(most, right)
        })
    }

    /// Until when the connection may idle that was last asked for something `at` that time. Without a place of some session's it is
    /// held like a stranger's, whoever is known on it: nobody counts how many of those one session has.
    pub(super) fn until(&self, at: Instant, limits: &Limits) -> Instant {
        let idle = if limits.idle.is_zero() {
            FAR
        } else {
            limits.idle
        };
        let trusted = self.trusted.load(Ordering::Acquire) && self.has_place();
        at + if trusted {
            idle
        } else {
            idle.min(limits.head_timeout)
        }
    }

    fn has_place(&self) -> bool {
        let has = |places: &Mutex<Vec<Carrier>>| {
            let places = places.lock().unwrap_or_else(PoisonError::into_inner);
            !places.is_empty()
        };
        has(&self.relays) || has(&self.asks)
    }
}

/// A place of this session's, unless there is one among these that goes on.
fn take_place(
    places: &Mutex<Vec<Carrier>>,
    budget: &Arc<Budget>,
    right: Right,
    take: impl FnOnce(Right) -> Result<Carrier, Refusal>,
) -> Result<(), Refusal> {
    let mut places = places.lock().unwrap_or_else(PoisonError::into_inner);
    let mut own = places.iter().filter(|carrier| carrier.is_of(budget));
    if own.any(|carrier| carrier.goes_on(&right)) {
        return Ok(());
    }
    places.retain(|carrier| !carrier.is_over() && !carrier.is_of(budget));
    places.push(take(right)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use sluicegate_policy::Limits as Bounds;
    use tokio::time::Instant;

    use super::{ASKED_TO_RELAYED, FAR, Standing};
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

    /// Beside the relay's, and more of them; one too many is no better than a stranger's.
    #[test]
    fn connections_that_carry_what_is_asked_are_counted_by_themselves() {
        let limits = Limits {
            of_session: 1,
            ..Limits::default()
        };
        let (budget, session) = (Arc::new(Budget::new(Bounds::default(), None)), generation());
        let right = || Right::of(&session, None);
        let relaying = Standing::default();
        assert!(relaying.carry(&budget, right(), &limits).is_ok());
        let asks = |standing: &Standing| standing.carry_asked(&budget, right(), &limits);
        let mut open: Vec<_> = (0..ASKED_TO_RELAYED).map(|_| Standing::default()).collect();
        for standing in &open {
            // However often it is asked on.
            assert!(asks(standing).is_ok() && asks(standing).is_ok());
        }
        let (another, now) = (Standing::default(), Instant::now());
        assert!(asks(&another).is_err());
        another.trust();
        assert_eq!(another.until(now, &limits), now + limits.head_timeout);
        open.pop();
        assert!(asks(&another).is_ok());
        another.trust();
        assert_eq!(another.until(now, &limits), now + limits.idle);
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
        // What takes no place, a name or a fresh token, makes nobody's connection wait.
        standing.trust();
        for limits in [&limits, &never] {
            assert_eq!(standing.until(now, limits), now + limits.head_timeout);
        }
        let (budget, session) = (Arc::new(Budget::new(Bounds::default(), None)), generation());
        let right = Right::of(&session, None);
        assert!(standing.carry_asked(&budget, right, &limits).is_ok());
        assert_eq!(standing.until(now, &limits), now + limits.idle);
        assert_eq!(standing.until(now, &never), now + FAR);
    }

    #[test]
    fn a_connection_whose_place_went_to_another_generation_is_a_strangers() {
        let limits = Limits {
            of_session: 1,
            ..Limits::default()
        };
        let budget = || Arc::new(Budget::new(Bounds::default(), None));
        let (session, standing, now) = (generation(), Standing::default(), Instant::now());
        let carry = |standing: &Standing, budget: &Arc<Budget>| {
            standing.carry(budget, Right::of(&session, None), &limits)
        };
        let first = budget();
        assert!(carry(&standing, &first).is_ok());
        standing.trust();
        assert_eq!(standing.until(now, &limits), now + limits.idle);
        // The next generation has its place elsewhere.
        drop(first);
        let (next, other) = (budget(), Standing::default());
        assert!(carry(&other, &next).is_ok());
        assert!(carry(&standing, &next).is_err());
        standing.trust();
        assert_eq!(standing.until(now, &limits), now + limits.head_timeout);
    }
}
