//! Bandwidth: bytes go on once everything that went before them is paid for, a piece at a time, whoever moves them.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, sleep},
};

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Towards the upstream.
    Up,
    /// Towards the downstream.
    Down,
}

/// What was not used for so long may be made up for: so much goes at once after a silence, and a timer that is late costs
/// nothing.
const CREDIT: Duration = Duration::from_millis(100);
/// A piece is this part of a second's worth: nobody waits long for the piece before …
const PART: u64 = 10;
/// … but not so small that its frame costs more than the bytes, where a second has as many.
const LEAST: u64 = 1024;
/// Whoever waits looks at least so often whether the limit has risen.
const LOOK: Duration = Duration::from_secs(1);

/// A bandwidth for each way, shared by everything that moves bytes under it.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Bytes per second; 0 = no limit.
    rate: AtomicU64,
    /// The lock is a queue: whoever holds it is next, and the others come in the order in which they asked.
    up: Mutex<Debt>,
    down: Mutex<Debt>,
}

/// What was moved and is not paid for yet.
#[derive(Debug, Default)]
pub(super) struct Debt {
    /// Bytes as of `since`; below zero, credit.
    owed: f64,
    /// `None`: nothing was ever moved.
    since: Option<Instant>,
}

impl Pace {
    pub(super) fn set(&self, rate: Option<u64>) {
        self.rate.store(rate.unwrap_or(0), Ordering::Release);
    }

    fn rate(&self) -> Option<u64> {
        Some(self.rate.load(Ordering::Acquire)).filter(|rate| *rate > 0)
    }

    /// The most that goes on at once; `None` where there is no limit.
    pub(super) fn piece(&self) -> Option<usize> {
        let rate = self.rate()?;
        let piece = (rate / PART).max(rate.min(LEAST));
        Some(usize::try_from(piece).unwrap_or(usize::MAX))
    }

    /// Wait until it is this one's turn, and all that was moved before is paid for. It is the next one's once this is dropped.
    pub(super) async fn turn(&self, way: Way) -> MutexGuard<'_, Debt> {
        let mut debt = match way {
            Way::Up => self.up.lock().await,
            Way::Down => self.down.lock().await,
        };
        loop {
            let wait = debt.until_paid(self.rate(), Instant::now());
            if wait.is_zero() {
                return debt;
            }
            sleep(wait.min(LOOK)).await;
        }
    }

    /// In a turn: so many bytes go on now.
    pub(super) fn charge(&self, debt: &mut Debt, bytes: usize) {
        if let Some(rate) = self.rate() {
            debt.settle(rate, Instant::now());
            debt.owed += bytes as f64;
        }
    }
}

impl Debt {
    /// Time pays for bytes, and some of it in advance.
    fn settle(&mut self, rate: u64, now: Instant) {
        let rate = rate as f64;
        let credit = -rate * CREDIT.as_secs_f64();
        self.owed = self.since.map_or(credit, |since| {
            let paid = now.saturating_duration_since(since).as_secs_f64() * rate;
            (self.owed - paid).max(credit)
        });
        self.since = Some(now);
    }

    fn until_paid(&mut self, rate: Option<u64>, now: Instant) -> Duration {
        let Some(rate) = rate else {
            return Duration::ZERO;
        };
        self.settle(rate, now);
        Duration::try_from_secs_f64(self.owed / rate as f64).unwrap_or_default()
    }
}
