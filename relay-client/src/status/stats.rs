//! What is counted.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use crate::{
    session::SessionError,
    transport::{OpenError, Transport},
};

/// Counters of one session.
#[derive(Debug)]
pub struct Stats {
    connects: [AtomicU64; 3],
    open: AtomicU64,
    opened: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    refreshes: AtomicU64,
    since: Mutex<SystemTime>,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            connects: Default::default(),
            open: AtomicU64::default(),
            opened: AtomicU64::default(),
            refused: AtomicU64::default(),
            failed: AtomicU64::default(),
            refreshes: AtomicU64::default(),
            since: Mutex::new(SystemTime::now()),
        }
    }
}

/// The transports, in the order they are counted in.
pub(super) const TRANSPORTS: [Transport; 3] = [Transport::Quic, Transport::H2, Transport::H1];

/// A stream that is open. Dropping it counts it out.
#[derive(Debug)]
pub struct Open(Arc<Stats>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Stats {
    /// A connection was made.
    pub fn connected(&self, transport: Transport) {
        let place = TRANSPORTS.iter().position(|one| *one == transport);
        if let Some(count) = place.and_then(|place| self.connects.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The state has changed.
    pub fn changed(&self) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = SystemTime::now();
    }

    /// A stream was opened.
    pub fn opened(self: &Arc<Self>) -> Open {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }

    /// A stream did not open.
    pub fn not_opened(&self, error: &SessionError) {
        let count = match error {
            SessionError::Open(OpenError::Refused(_)) => &self.refused,
            _ => &self.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// A fresh token was taken.
    pub fn refreshed(&self) {
        self.refreshes.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connects(&self) -> [u64; 3] {
        self.connects
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed))
    }

    /// Open now, opened, refused, failed.
    pub(super) fn streams(&self) -> [u64; 4] {
        [&self.open, &self.opened, &self.refused, &self.failed]
            .map(|count| count.load(Ordering::Relaxed))
    }

    pub(super) fn refreshes(&self) -> u64 {
        self.refreshes.load(Ordering::Relaxed)
    }

    pub(super) fn since(&self) -> SystemTime {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
