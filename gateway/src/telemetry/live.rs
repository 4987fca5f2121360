//! Records as they are written, for whoever follows them.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::broadcast;

/// A reader that falls behind by so many loses the oldest.
const BEHIND: usize = 1024;

/// Hands records to their readers. Where there are none, that is a look at a flag: the channel takes a lock to say so, and
/// everything that ends would wait for it.
#[derive(Debug)]
pub(super) struct Live {
    records: broadcast::Sender<Arc<str>>,
    /// There are readers, or were when the last record was sent.
    followed: AtomicBool,
    /// Held while that changes.
    changing: Mutex<()>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            records: broadcast::channel(BEHIND).0,
            followed: AtomicBool::new(false),
            changing: Mutex::default(),
        }
    }
}

impl Live {
    /// Does anybody read records?
    pub(super) fn is_followed(&self) -> bool {
        self.followed.load(Ordering::Acquire)
    }

    /// Hand one record to all readers.
    pub(super) fn send(&self, line: &str) {
        if self.is_followed() && self.records.send(line.into()).is_err() {
            let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
            // Somebody may have come meanwhile.
            let followed = self.records.receiver_count() > 0;
            self.followed.store(followed, Ordering::Release);
        }
    }

    /// Read what is recorded from now on.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Arc<str>> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.followed.store(true, Ordering::Release);
        self.records.subscribe()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn readers_come_and_go() {
        let live = Live::default();
        live.send("before");
        for line in ["first", "second"] {
            assert!(!live.is_followed());
            let (mut one, other) = (live.subscribe(), live.subscribe());
            assert!(live.is_followed());
            drop(other);
            live.send(line);
            assert!(live.is_followed());
            assert_eq!(&*one.try_recv().unwrap(), line);
            assert!(one.try_recv().is_err());
            drop(one);
            live.send("nobody's");
        }
    }
}
