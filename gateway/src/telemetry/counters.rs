//! What one tunnel, request or stream has moved so far, shared by everybody who moves it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Payload bytes of one tunnel, request or stream; shared between its two directions.
#[derive(Debug, Default)]
pub struct Counters {
    up: AtomicU64,
    down: AtomicU64,
}

impl Counters {
    /// Count bytes towards the upstream.
    pub fn add_up(&self, bytes: usize) {
        self.up.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Count bytes towards the downstream.
    pub fn add_down(&self, bytes: usize) {
        self.down.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// (up, down) so far.
    pub fn total(&self) -> (u64, u64) {
        (
            self.up.load(Ordering::Relaxed),
            self.down.load(Ordering::Relaxed),
        )
    }
}
