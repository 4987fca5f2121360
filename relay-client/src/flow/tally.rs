//! How much one stream's reader takes while a PING is there and back: what says whether a window holds it up.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

/// Bytes of one stream that make a round worth measuring: a quarter of the smallest window.
const LEAST: u64 = 128 * 1024;

/// The rounds of one connection, which its streams share. A round lasts as long as a PING and its answer.
#[derive(Debug, Default)]
pub struct Rounds {
    number: AtomicU64,
    /// Bytes that the stream which passed on most has passed on in this round.
    most: AtomicU64,
    due: Notify,
}

impl Rounds {
    /// A PING goes out now.
    pub fn begin(&self) {
        self.most.store(0, Ordering::Relaxed);
        self.number.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes that one stream has passed on in this round, of the one that has passed on most.
    pub fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }

    /// Completes when some stream has passed on enough since the last round began for the next one to tell something.
    pub async fn due(&self) {
        self.due.notified().await;
    }
}

/// One stream's part in them.
#[derive(Debug)]
pub struct Tally {
    rounds: Arc<Rounds>,
    number: u64,
    bytes: u64,
}

impl Tally {
    /// Of a stream of the connection whose rounds these are.
    pub fn new(rounds: Arc<Rounds>) -> Self {
        let number = rounds.number.load(Ordering::Relaxed);
        let bytes = 0;
        Self {
            rounds,
            number,
            bytes,
        }
    }

    /// So many bytes more have been passed on.
    pub fn passed(&mut self, bytes: usize) {
        let number = self.rounds.number.load(Ordering::Relaxed);
        if self.number != number {
            (self.number, self.bytes) = (number, 0);
        }
        self.bytes = self.bytes.saturating_add(bytes as u64);
        let before = self.rounds.most.fetch_max(self.bytes, Ordering::Relaxed);
        if before < LEAST && self.bytes >= LEAST {
            self.rounds.due.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        sync::Arc,
        task::{Context, Waker},
    };

    use super::{LEAST, Rounds, Tally};

    fn is_due(rounds: &Rounds) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        pin!(rounds.due()).poll(&mut cx).is_ready()
    }

    #[test]
    fn what_counts_is_the_stream_that_passes_on_most_in_one_round() {
        let rounds = Arc::new(Rounds::default());
        let mut streams = [Tally::new(rounds.clone()), Tally::new(rounds.clone())];
        let [one, other] = &mut streams;
        let least = usize::try_from(LEAST).unwrap_or(usize::MAX);
        one.passed(least - 1);
        other.passed(least - 1);
        assert_eq!((rounds.most(), is_due(&rounds)), (LEAST - 1, false));
        other.passed(1);
        one.passed(1);
        assert_eq!((rounds.most(), is_due(&rounds)), (LEAST, true));
        assert!(!is_due(&rounds), "once for a round");
        rounds.begin();
        assert_eq!(rounds.most(), 0);
        other.passed(7);
        assert_eq!((rounds.most(), is_due(&rounds)), (7, false));
    }
}
