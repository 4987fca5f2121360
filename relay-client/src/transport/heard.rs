//! Since when nothing has come from the peer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::flow::{Broken, Flow};

/// What goes ahead of an answer goes only to a peer that has been heard from within this: while there is work. That a peer is
/// gone is known only after a while, and what goes ahead meanwhile cannot be said again.
const LATELY: Duration = Duration::from_millis(5);

/// When something came last. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct LastWord {
    begin: Instant,
    /// Microseconds after that.
    at: Arc<AtomicU64>,
}

impl LastWord {
    /// Something came.
    pub(super) fn heard(&self) {
        self.heard_at(Instant::now());
    }

    /// May somebody be gone at the other end?
    pub(super) fn is_doubtful(&self) -> bool {
        self.silence(Instant::now()) > LATELY
    }

    fn heard_at(&self, now: Instant) {
        let at = now.duration_since(self.begin).as_micros();
        self.at
            .store(u64::try_from(at).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn silence(&self, now: Instant) -> Duration {
        let at = Duration::from_micros(self.at.load(Ordering::Relaxed));
        now.duration_since(self.begin).saturating_sub(at)
    }
}

/// Something came just now.
impl Default for LastWord {
    fn default() -> Self {
        Self {
            begin: Instant::now(),
            at: Arc::default(),
        }
    }
}

/// A flow whose bytes are signs of life.
#[derive(Debug)]
pub(super) struct Heard<F> {
    flow: F,
    last: LastWord,
}

impl<F: Flow> Heard<F> {
    pub(super) fn new(flow: F, last: LastWord) -> Self {
        Self { flow, last }
    }
}

impl<F: Flow> Flow for Heard<F> {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        let read = ready!(self.flow.poll_read(cx));
        if read.is_ok() {
            self.last.heard();
        }
        Poll::Ready(read)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Broken>> {
        self.flow.poll_write(cx, chunk)
    }

    crate::forward_flow!(flow);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::LastWord;

    #[test]
    fn silence_begins_with_the_last_word() {
        let (last, second) = (LastWord::default(), Duration::from_secs(1));
        let begin = last.begin;
        assert_eq!(last.silence(begin + second), second);
        last.clone().heard_at(begin + second);
        assert_eq!(last.silence(begin + second), Duration::ZERO);
        assert_eq!(last.silence(begin + 3 * second), 2 * second);
    }
}
