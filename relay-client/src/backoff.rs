//! How long to wait before the next attempt: exponential with full jitter, so that a thousand sandboxes cut off in one
//! moment do not come back in one moment.

use std::time::Duration;

/// Waits grow from `first` to `cap`, each drawn evenly from nothing to its bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backoff {
    /// Bound of the first wait.
    pub first: Duration,
    /// Bound of every later wait.
    pub cap: Duration,
    attempts: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(Duration::from_millis(250), Duration::from_secs(15))
    }
}

impl Backoff {
    /// From `first`, doubling, up to `cap`.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self {
            first,
            cap,
            attempts: 0,
        }
    }

    /// The next wait. Never gives up.
    pub fn wait(&mut self) -> Duration {
        // Without randomness the bound itself: late is better than all at once.
        let share = getrandom::u32().map_or(1.0, |r| f64::from(r) / f64::from(u32::MAX));
        let wait = self.bound().mul_f64(share);
        self.attempts = self.attempts.saturating_add(1);
        wait
    }

    /// The largest the next wait can be.
    pub fn bound(&self) -> Duration {
        let doubled = 1u32.checked_shl(self.attempts.min(31)).unwrap_or(u32::MAX);
        self.first.saturating_mul(doubled).min(self.cap)
    }

    /// Attempts since the last success.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Backoff;
    use std::time::Duration;

    #[test]
    fn waits_stay_under_a_doubling_bound_for_ever() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let mut bounds = Vec::new();
        for _ in 0..200 {
            bounds.push(backoff.bound().as_millis());
            let bound = backoff.bound();
            assert!(backoff.wait() <= bound);
        }
        assert_eq!(bounds.get(..6), Some(&[100, 200, 400, 800, 1600, 2000][..]));
        assert_eq!(backoff.bound(), Duration::from_secs(2));
        backoff.reset();
        assert_eq!(backoff.bound(), Duration::from_millis(100));
    }

    #[test]
    fn waits_differ() {
        let waits: std::collections::BTreeSet<_> =
            (0..50).map(|_| Backoff::default().wait()).collect();
        assert!(waits.len() > 1);
    }
}
