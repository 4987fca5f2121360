//! Requests that came to nothing because their client gave them up.

use std::time::Duration;

use tokio::time::Instant;

/// More than this many, less those of use, are an attack (as CVE-2023-44487 is on HTTP/2).
const MOST: u32 = 256;
/// So many of them each second are somebody's habit: a program that only looks whether a port is open.
const PER_SECOND: u32 = 1;

/// The requests of one connection, counted as they end.
#[derive(Debug)]
pub(super) struct Waste {
    requests: u32,
    /// What was forgiven so far is of the time before.
    since: Instant,
}

impl Waste {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            requests: 0,
            since: now,
        }
    }

    /// One has ended. `false`: it was one too many that was of no use.
    pub(super) fn count(&mut self, of_use: bool, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since).as_secs();
        self.since += Duration::from_secs(passed);
        let forgiven = u32::try_from(passed).unwrap_or(u32::MAX);
        let forgiven = forgiven.saturating_mul(PER_SECOND);
        self.requests = self.requests.saturating_sub(forgiven);
        if of_use {
            self.requests = self.requests.saturating_sub(1);
            return true;
        }
        self.requests = self.requests.saturating_add(1);
        self.requests <= MOST
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Duration, Instant};

    use super::{MOST, PER_SECOND, Waste};

    fn until_too_many(waste: &mut Waste, now: Instant) -> u32 {
        let mut taken = 0;
        while waste.count(false, now) {
            taken += 1;
            assert!(taken <= 2 * MOST, "no end");
        }
        taken
    }

    #[test]
    fn what_is_given_up_is_counted_against_what_was_of_use() {
        let now = Instant::now();
        assert_eq!(until_too_many(&mut Waste::new(now), now), MOST);
        let mut waste = Waste::new(now);
        // Nothing is saved up for later.
        assert!(waste.count(true, now));
        for _ in 0..10 * MOST {
            assert!(waste.count(false, now) && waste.count(true, now));
        }
        assert_eq!(until_too_many(&mut waste, now), MOST);
    }

    #[test]
    fn a_few_of_them_may_go_on_for_ever() {
        let mut now = Instant::now();
        let mut waste = Waste::new(now);
        for _ in 0..10 * MOST {
            now += Duration::from_millis(1001);
            assert!((0..PER_SECOND).all(|_| waste.count(false, now)));
        }
        assert!(until_too_many(&mut waste, now) < MOST);
        now += Duration::from_secs(u64::from(2 * MOST));
        assert_eq!(until_too_many(&mut waste, now), MOST);
    }
}
