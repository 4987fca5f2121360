//! How large the window of each stream may be where it can change while streams are open (RFC 9113 §6.9.2). Pure arithmetic.
//!
//! Streams have one window in common, and what a stream holds already it keeps when that shrinks. So the window depends on how many
//! streams are open, and a stream is opened only once the peer was told of a window that is right with it: then the stream that
//! was opened as the n-th of those that are there has never had more than [`most`]`(n)`, whichever others have come and gone, and all
//! of them may stand still, full, within the sum of those.

use std::time::Duration;

use super::windows::STREAM;

/// While there are no more streams than this, each may have so much unread. Above all of them it is [`STREAM`].
const STEPS: [(usize, u32); 4] = [
    (4, 16 * STREAM),
    (8, 8 * STREAM),
    (16, 4 * STREAM),
    (32, 2 * STREAM),
];

/// The largest window where so many streams are open.
fn most(open: usize) -> u32 {
    let step = STEPS.iter().find(|(streams, _)| open <= *streams);
    step.map_or(STREAM, |(_, window)| *window)
}

/// The window of one connection's streams.
#[derive(Debug)]
pub(super) struct Adaptive {
    /// Streams that are open, and those that are about to be.
    open: usize,
    wanted: u32,
    /// What the peer knows, or will before anything that is sent from now on.
    told: u32,
    /// Bytes a second at which one stream ran when the window grew last.
    rate: u64,
}

impl Default for Adaptive {
    fn default() -> Self {
        Self {
            open: 0,
            wanted: STREAM,
            told: STREAM,
            rate: 0,
        }
    }
}

impl Adaptive {
    /// One stream more is about to be opened: once what the peer was told [fits](Self::fits) what this returns.
    pub(super) fn opens(&mut self) -> u32 {
        self.open += 1;
        let most = most(self.open);
        if self.wanted > most {
            self.wanted = most;
            // The way back up is found again.
            self.rate = 0;
        }
        most
    }

    /// Is what the peer was told right for a stream that waits for this? It may be larger where others have gone meanwhile: the stream
    /// is one of so few then.
    pub(super) fn fits(&self, waits_for: u32) -> bool {
        self.told <= waits_for.max(most(self.open))
    }

    /// One of them is gone, and with it what it held.
    pub(super) fn closes(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// May one more round make it larger?
    pub(super) fn may_grow(&self) -> bool {
        self.told == self.wanted && self.wanted < most(self.open)
    }

    /// One stream has passed on so many bytes while a PING took so long to come back. Has the window grown?
    ///
    /// It does where the stream has used half of it, so that it may be what holds the stream up; and not again where that made nothing
    /// faster: then it is the path, and a larger window would only stand in its queues.
    pub(super) fn round(&mut self, bytes: u64, took: Duration) -> bool {
        // No more than a window comes in a round trip. What is beyond that had come before, and its reader stood still: taken for the
        // path's, it would be a rate that no larger window comes up to.
        let bytes = bytes.min(self.wanted.into());
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let rate = bytes.saturating_mul(1_000_000) / micros;
        let held_up = bytes >= u64::from(self.wanted / 2);
        let faster = rate > self.rate.saturating_add(self.rate / 8);
        let grows = self.may_grow() && held_up && faster;
        if grows {
            self.rate = rate;
            self.wanted = (self.wanted * 2).min(most(self.open));
        }
        grows
    }

    /// What the peer is to be told, where it is something new.
    pub(super) fn to_tell(&self) -> Option<u32> {
        (self.wanted != self.told).then_some(self.wanted)
    }

    /// It is on its way, before all that follows.
    pub(super) fn has_told(&mut self, window: u32) {
        self.told = window;
    }

    /// What it was told last.
    pub(super) fn told(&self) -> u32 {
        self.told
    }
}

#[cfg(test)]
mod tests;
