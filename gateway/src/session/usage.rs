//! When a handle was last of use: one that somebody came by lately, or is here by, never makes room for another.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use crate::clock::unix_seconds;

/// In use for so long after somebody was there by it, in seconds.
const LATELY: u64 = 300;

/// The use of one handle.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Seconds since the epoch; 0 = never.
    last: AtomicU64,
    /// Somebody came by it, as far as this process knows.
    known: AtomicBool,
}

impl Usage {
    /// Of use just now: one that a generation begins or comes back with is on its way to whoever needs it.
    pub(super) fn fresh() -> Arc<Self> {
        let usage = Self::default();
        usage.touch();
        Arc::new(usage)
    }

    fn touch(&self) {
        let now = unix_seconds(SystemTime::now());
        self.last.fetch_max(now, Ordering::AcqRel);
    }

    /// Is it spared for nothing but a guess, since nobody has come by it yet?
    pub(super) fn is_guessed(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && !self.known.load(Ordering::Acquire)
    }

    /// Since when it is of no use; `None` = it is.
    pub(super) fn idle_since(self: &Arc<Self>, now: SystemTime) -> Option<u64> {
        let last = self.last.load(Ordering::Acquire);
        let open = Arc::strong_count(self) > 1;
        (!open && last.saturating_add(LATELY) <= unix_seconds(now)).then_some(last)
    }
}

/// Somebody is here by a handle, until this is dropped.
#[derive(Debug)]
pub(super) struct Visit(Arc<Usage>);

impl Visit {
    pub(super) fn of(usage: &Arc<Usage>) -> Arc<Self> {
        usage.known.store(true, Ordering::Release);
        usage.touch();
        Arc::new(Self(usage.clone()))
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.touch();
    }
}
