//! Streams that one connection has room for. The gateway takes more of them; here they are so few that all of them may stand
//! still, full, and leave some of the connection's window to nobody who stands still.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::windows::{OFFERS, STREAMS};

/// Kept free of what a peer takes: proofs, refreshes and questions of names.
const BRIEF: usize = 8;

/// Clones share the places.
#[derive(Clone, Debug)]
pub(super) struct Places {
    streams: Arc<Semaphore>,
    /// How many there are in all.
    all: usize,
    /// Kept back for accept streams: what fills a connection must not keep the host from dialling.
    offers: Arc<Semaphore>,
    /// One has been taken since [`has_rested`](Self::has_rested) was asked last.
    taken: Arc<AtomicBool>,
}

impl Default for Places {
    fn default() -> Self {
        Self::of(STREAMS)
    }
}

impl Places {
    /// Of a connection on which so many streams have room, and accept streams beside them.
    pub(super) fn of(all: usize) -> Self {
        Self {
            streams: Arc::new(Semaphore::new(all)),
            all,
            offers: Arc::new(Semaphore::new(OFFERS)),
            taken: Arc::default(),
        }
    }

    /// Of a connection whose peer takes so many streams at once: those that wait for dials, and what is asked for shortly, find
    /// room beside.
    pub(super) fn within(most: usize) -> Self {
        Self::of(STREAMS.min(most.saturating_sub(OFFERS + BRIEF)).max(1))
    }

    /// A place for a stream that carries bytes, if there is one.
    pub(super) fn stream(&self) -> Option<OwnedSemaphorePermit> {
        self.take(&self.streams)
    }

    /// A place for a stream that waits for a dial, of those kept back for such, if there is one.
    pub(super) fn offer(&self) -> Option<OwnedSemaphorePermit> {
        self.take(&self.offers)
    }

    fn take(&self, places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        let place = places.clone().try_acquire_owned().ok()?;
        self.taken.store(true, Ordering::Relaxed);
        Some(place)
    }

    /// How many streams more.
    pub(super) fn free(&self) -> usize {
        self.streams.available_permits()
    }

    /// Is nothing open, and has nothing been since this was asked before? What is short comes and goes in between.
    pub(super) fn has_rested(&self) -> bool {
        let taken = self.taken.swap(false, Ordering::Relaxed);
        !taken && self.is_unused()
    }

    /// Are they the same connection's?
    pub(super) fn are(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.streams, &other.streams)
    }

    /// Is nothing open?
    fn is_unused(&self) -> bool {
        self.free() == self.all && self.offers.available_permits() == OFFERS
    }
}

#[cfg(test)]
mod tests {
    use super::Places;
    use crate::transport::windows::{
        CONNECTION, LARGE_CONNECTION, LARGE_STREAM, LARGE_STREAMS, OFFERS, STREAM, STREAMS,
    };

    #[test]
    fn offers_have_places_that_streams_do_not_take() {
        let places = Places::default();
        assert!(places.is_unused());
        let taken: Vec<_> = std::iter::from_fn(|| places.stream()).collect();
        assert_eq!((taken.len(), places.free()), (STREAMS, 0));
        let offered: Vec<_> = std::iter::from_fn(|| places.offer()).collect();
        assert_eq!(offered.len(), OFFERS);
        drop(taken);
        assert!(places.free() == STREAMS && !places.is_unused());
        drop(offered);
        assert!(places.is_unused());
    }

    #[test]
    fn what_came_and_went_meanwhile_is_use() {
        let places = Places::default();
        assert!(places.has_rested());
        for take in [Places::stream, Places::offer] {
            drop(take(&places));
            assert!(places.is_unused() && !places.has_rested());
            assert!(places.has_rested());
            let held = take(&places);
            for _ in 0..2 {
                assert!(!places.has_rested());
            }
            drop(held);
            assert!(places.has_rested());
        }
    }

    #[test]
    fn there_are_no_more_places_than_the_peer_takes() {
        for (most, all) in [(usize::MAX, STREAMS), (104, 88), (50, 34), (3, 1)] {
            let places = Places::within(most);
            assert_eq!(places.free(), all, "{most}");
            assert!(places.is_unused());
            let one = places.stream();
            assert!(one.is_some() && !places.is_unused());
        }
    }

    #[test]
    fn streams_that_stand_still_leave_an_eighth_of_the_window_and_more() {
        for (streams, stream, connection) in [
            (STREAMS, STREAM, CONNECTION),
            (LARGE_STREAMS, LARGE_STREAM, LARGE_CONNECTION),
        ] {
            let still = (streams + OFFERS) as u64 * u64::from(stream);
            // quinn says that there is room again when an eighth of the window was read.
            assert!(still + u64::from(connection) / 8 < u64::from(connection));
        }
    }
}
