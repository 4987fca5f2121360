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
    transport::{OpenError, Reason, Transport},
};

/// Counters of one session.
#[derive(Debug)]
pub struct Stats {
    /// By transport, and why it.
    connects: [[AtomicU64; REASONS]; 3],
    /// Why the last one.
    reason: Mutex<Option<Reason>>,
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
            reason: Mutex::default(),
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

const REASONS: usize = Reason::ALL.len();

/// A stream that is open. Dropping it counts it out.
#[derive(Debug)]
pub struct Open(Arc<Stats>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Stats {
    /// A connection was made, by this transport and not another, because.
    pub fn connected(&self, transport: Transport, reason: Reason) {
        let of = TRANSPORTS.iter().position(|one| *one == transport);
        let by = Reason::ALL.iter().position(|one| *one == reason);
        if let (Some(of), Some(by)) = (of, by)
            && let Some(count) = self.connects.get(of).and_then(|of| of.get(by))
        {
            count.fetch_add(1, Ordering::Relaxed);
        }
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
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
        self.reasons().map(|reasons| reasons.iter().sum())
    }

    /// The same, in the order of [`Reason::ALL`].
    pub(super) fn reasons(&self) -> [[u64; REASONS]; 3] {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        self.connects.each_ref().map(|of| of.each_ref().map(count))
    }

    /// Why the connection there is, or was last.
    pub(super) fn reason(&self) -> Option<Reason> {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner)
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
