//! Bandwidth, by rests: whoever moved bytes is told how long to wait before it moves more.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Towards the upstream.
    Up,
    /// Towards the downstream.
    Down,
}

/// Paid in advance: this much may go at once after a silence.
const BURST: Duration = Duration::from_millis(100);
/// Nobody rests longer than this at a time: limits may rise meanwhile.
const LONGEST: Duration = Duration::from_secs(60);

/// A bandwidth for each way, shared by everything that moves bytes under it.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Bytes per second; 0 = no limit.
    rate: AtomicU64,
    /// When what was moved so far is paid for, by way.
    paid: Mutex<[Option<Instant>; 2]>,
}

impl Pace {
    pub(super) fn set(&self, rate: Option<u64>) {
        self.rate.store(rate.unwrap_or(0), Ordering::Release);
    }

    pub(super) fn rest(&self, way: Way, bytes: usize, now: Instant) -> Duration {
        let rate = self.rate.load(Ordering::Acquire);
        if rate == 0 {
            return Duration::ZERO;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let [up, down] = &mut *paid;
        let paid = match way {
            Way::Up => up,
            Way::Down => down,
        };
        let from = paid.map_or(now, |at| at.max(now));
        let until = from + cost;
        *paid = Some(until);
        (until - now).saturating_sub(BURST).min(LONGEST)
    }
}
