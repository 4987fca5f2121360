//! Where dials and accept streams of one listener meet. The dial that has waited longest is served first, and by the accept stream
//! that came last: of all clients its is the likeliest to live.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sluicegate_relay::flow::Flow;
use tokio::sync::{mpsc, oneshot};

use super::{doorway::Doorway, standing::Standing};

/// Accept streams that may wait for one listener of one generation, all its clients together.
pub(super) const MAX_WAITING: usize = 128;
/// Dials that may wait for one listener.
pub(super) const MAX_DIALS: usize = 256;

/// What an accept stream gives to the dial that took it: the way into the sandbox, and what ends when that is over.
pub(super) struct Delivery {
    pub(super) flow: Box<dyn Flow>,
    /// Dropped by the dial when the stream is over.
    pub(super) over: oneshot::Sender<()>,
    /// Silence after which the stream is cut, where the listener sets none.
    pub(super) idle: Option<Duration>,
    /// The sandbox's own right to it, which its credential gives.
    pub(super) standing: Standing,
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("idle", &self.idle)
            .finish_non_exhaustive()
    }
}

/// A dial's word to an accept stream: answer now, and give the stream here. Where it was said to several, the first has the dial;
/// the others find it closed.
pub(super) type Call = mpsc::Sender<Delivery>;

/// One listener of one generation.
#[derive(Debug, Default)]
pub(super) struct Board {
    state: Mutex<State>,
    doorway: Arc<Doorway>,
}

#[derive(Debug, Default)]
struct State {
    accepts: VecDeque<oneshot::Sender<Call>>,
    dials: VecDeque<oneshot::Sender<oneshot::Sender<Call>>>,
    /// How long clients take to say that they have a dial; the slowest of late.
    takes: Duration,
}

impl Board {
    /// Who of them is here at all.
    pub(super) fn doorway(&self) -> &Arc<Doorway> {
        &self.doorway
    }

    /// A client has said that it has a dial, so long after it was answered: a round trip, and its own time.
    pub(super) fn taken_in(&self, took: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Clients of one listener may be near and far; what is gone is forgotten with a few dials.
        state.takes = took.max(state.takes * 3 / 4);
    }

    /// How long that takes, of late.
    pub(super) fn takes(&self) -> Duration {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.takes
    }

    /// An accept stream waits. `None`: enough of them do.
    pub(super) fn offer(&self) -> Option<oneshot::Receiver<Call>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut accept, called) = oneshot::channel();
        while let Some(dial) = state.dials.pop_front() {
            match dial.send(accept) {
                Ok(()) => return Some(called),
                // That dial has given up meanwhile.
                Err(back) => accept = back,
            }
        }
        state.accepts.retain(|accept| !accept.is_closed());
        if state.accepts.len() >= MAX_WAITING {
            return None;
        }
        state.accepts.push_back(accept);
        Some(called)
    }

    /// The accept stream that came last, as soon as there is one. `None`: too many dials wait for one already.
    pub(super) async fn take(&self) -> Option<oneshot::Sender<Call>> {
        loop {
            let taken = {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                while let Some(accept) = state.accepts.pop_back() {
                    if !accept.is_closed() {
                        return Some(accept);
                    }
                }
                state.dials.retain(|dial| !dial.is_closed());
                if state.dials.len() >= MAX_DIALS {
                    return None;
                }
                let (dial, taken) = oneshot::channel();
                state.dials.push_back(dial);
                taken
            };
            // Never dropped unsent while the board lives; if it were, the queue is asked again.
            if let Ok(accept) = taken.await {
                return Some(accept);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Board, MAX_DIALS, MAX_WAITING};
    use std::time::Duration;
    use tokio::sync::mpsc;

    /// What it is ready with now, if it is.
    async fn now<F: Future>(future: F) -> Option<F::Output> {
        tokio::time::timeout(Duration::ZERO, future).await.ok()
    }

    #[tokio::test]
    async fn they_meet_whoever_comes_first() {
        let board = Board::default();
        let mut waiting = board.offer().unwrap();
        let accept = board.take().await.unwrap();
        accept.send(mpsc::channel(1).0).unwrap();
        waiting.try_recv().unwrap();

        let mut dial = Box::pin(board.take());
        assert!(now(&mut dial).await.is_none());
        let _waiting = board.offer().unwrap();
        assert!(now(dial).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn the_newest_that_lives_has_the_dial() {
        let board = Board::default();
        let mut oldest = board.offer().unwrap();
        let mut newer = board.offer().unwrap();
        drop(board.offer().unwrap());
        for waiting in [&mut newer, &mut oldest] {
            let accept = board.take().await.unwrap();
            accept.send(mpsc::channel(1).0).unwrap();
            waiting.try_recv().unwrap();
        }
    }

    #[tokio::test]
    async fn who_gave_up_is_passed_over() {
        let board = Board::default();
        drop(board.offer());
        let mut given_up = Box::pin(board.take());
        assert!(now(&mut given_up).await.is_none());
        drop(given_up);
        let mut dial = Box::pin(board.take());
        assert!(now(&mut dial).await.is_none());
        let _waiting = board.offer().unwrap();
        assert!(now(dial).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn both_queues_are_bounded_and_forget_the_dead() {
        let board = Board::default();
        let waiting: Vec<_> = (0..MAX_WAITING).map(|_| board.offer().unwrap()).collect();
        assert!(board.offer().is_none());
        drop(waiting);
        drop(board.offer().unwrap());
        let mut dials: Vec<_> = (0..MAX_DIALS).map(|_| Box::pin(board.take())).collect();
        for dial in &mut dials {
            assert!(now(dial).await.is_none());
        }
        assert!(now(board.take()).await.unwrap().is_none());
        drop(dials);
        assert!(now(board.take()).await.is_none(), "it waits");
    }
}
