//! What one tunnel, request or stream has moved so far, shared by everybody who moves it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Payload bytes of one tunnel, request or stream, and who of it waits for a turn of bandwidth; shared between its two directions.
#[derive(Debug, Default)]
pub struct Counters {
    up: AtomicU64,
    down: AtomicU64,
    /// Waits under way.
    waiting: AtomicU64,
    /// Waits that have ended.
    waited: AtomicU64,
}

/// What an idle clock looks at: as long as it stays the same and nobody waits, there is silence.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Motion {
    bytes: (u64, u64),
    waited: u64,
}

/// Bytes wait for their turn within a bandwidth while this is held: that is the gateway's doing, and no silence of either end's.
#[derive(Debug)]
pub struct Wait(Arc<Counters>);

impl Drop for Wait {
    fn drop(&mut self) {
        // In this order: whoever sees no wait any more sees that there was one.
        self.0.waited.fetch_add(1, Ordering::Release);
        self.0.waiting.fetch_sub(1, Ordering::Release);
    }
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

    /// A wait for bandwidth begins.
    pub fn wait(self: &Arc<Self>) -> Wait {
        self.waiting.fetch_add(1, Ordering::Release);
        Wait(self.clone())
    }

    /// Is a wait for bandwidth under way?
    pub fn waits(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// What has moved so far, and waits that have ended: silence counts from their end.
    pub fn motion(&self) -> Motion {
        Motion {
            bytes: self.total(),
            waited: self.waited.load(Ordering::Acquire),
        }
    }
}
