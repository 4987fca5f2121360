//! How long a connection of streams may idle: a stranger's no longer than a head may take.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::h2::Limits;

/// Where no bound is set, the timer only has to be far away.
const FAR: Duration = Duration::from_secs(86_400);

/// What its streams have come to. Each holds it while it lives.
#[derive(Debug, Default)]
pub(super) struct Standing(AtomicBool);

impl Standing {
    /// Something was asked for on it by somebody who is known.
    pub(super) fn trust(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Until when the connection may idle that was last asked for something `at` that time.
    pub(super) fn until(&self, at: Instant, limits: &Limits) -> Instant {
        let idle = if limits.idle.is_zero() {
            FAR
        } else {
            limits.idle
        };
        let trusted = self.0.load(Ordering::Acquire);
        at + if trusted {
            idle
        } else {
            idle.min(limits.head_timeout)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{FAR, Standing};
    use crate::front::h2::Limits;

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
