//! How long to wait between attempts: longer and longer, but for a gateway that has said that it goes down, which comes back
//! soon as a rule, and is waited for by whatever is opened meanwhile.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;

/// No wait is longer than this after such a word …
const SOON: Duration = Duration::from_secs(1);
/// … for this long after it: a whole drain, and a start.
const EXPECTED: Duration = Duration::from_secs(90);

/// Of one session.
pub(super) struct Pace {
    usual: Backoff,
    soon: Backoff,
    /// When the gateway said that it goes down, where that was its last word.
    going: Option<Instant>,
}

impl Pace {
    pub(super) fn new(usual: Backoff) -> Self {
        Self {
            usual,
            soon: Backoff::new(usual.first.min(SOON), usual.cap.min(SOON)),
            going: None,
        }
    }

    /// It has said that it goes down.
    pub(super) fn goes_down(&mut self) {
        self.going = Some(Instant::now());
    }

    /// It is there.
    pub(super) fn is_there(&mut self) {
        self.going = None;
        self.soon.reset();
    }

    /// What is there is good.
    pub(super) fn settled(&mut self) {
        self.usual.reset();
    }

    /// Until the next attempt.
    pub(super) fn wait(&mut self) -> Duration {
        match self.going {
            Some(said) if said.elapsed() < EXPECTED => self.soon.wait(),
            _ => self.usual.wait(),
        }
    }

    /// Attempts since the last success.
    pub(super) fn attempts(&self) -> u32 {
        self.usual.attempts().saturating_add(self.soon.attempts())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, advance};

    use super::{EXPECTED, Pace, SOON};
    use crate::{backoff::Backoff, session::OPEN_PATIENCE};

    /// `drainTimeout` by default.
    const DRAIN: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_goes_down_is_asked_for_all_through_its_drain() {
        let mut pace = Pace::new(Backoff::default());
        pace.goes_down();
        let begun = Instant::now();
        while begun.elapsed() < EXPECTED {
            let wait = pace.wait();
            assert!(wait <= SOON, "{wait:?} after {:?}", begun.elapsed());
            advance(wait + Duration::from_millis(1)).await;
        }
        // It does not come back: like any other that is gone.
        let longest = (0..50).map(|_| pace.wait()).max();
        assert!(longest.is_some_and(|wait| wait > SOON), "{longest:?}");
        pace.is_there();
        pace.settled();
        assert_eq!(pace.attempts(), 0);
        let longest = (0..50).map(|_| pace.wait()).max();
        assert!(
            longest.is_some_and(|wait| wait > SOON),
            "nobody has said so"
        );
    }

    #[test]
    fn an_open_outlasts_a_drain_and_a_start() {
        assert!(OPEN_PATIENCE > DRAIN + SOON + Duration::from_secs(15));
        assert!(EXPECTED > OPEN_PATIENCE);
    }
}
