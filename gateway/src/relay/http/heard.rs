//! A stream whose client is heard though nobody reads: HTTP does not while an answer is awaited, and the client may end meanwhile.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use sluicegate_relay::flow::{Broken, Flow};

/// Read ahead no further than the chunk that passes this: behind more, an end is not heard before somebody reads.
const AHEAD: usize = 64 * 1024;

/// The flow as it is, with a little read ahead. Dropping it drops the flow, whoever listens.
pub(super) struct Heard<F>(Arc<Mutex<State<F>>>);

/// Listens. Only in the task that polls the flow, and after it: each of both takes the other's wakers.
pub(super) struct Ear<F>(Weak<Mutex<State<F>>>);

struct State<F> {
    flow: F,
    /// Read ahead.
    ahead: VecDeque<Bytes>,
    ended: Option<Result<(), Broken>>,
}

impl<F: Flow> Heard<F> {
    pub(super) fn new(flow: F) -> (Self, Ear<F>) {
        let state = Arc::new(Mutex::new(State {
            flow,
            ahead: VecDeque::new(),
            ended: None,
        }));
        let ear = Ear(Arc::downgrade(&state));
        (Self(state), ear)
    }

    fn state(&self) -> MutexGuard<'_, State<F>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Flow> Ear<F> {
    /// Completes when the client has said FIN, behind no more than is read ahead.
    pub(super) async fn fin(&self) {
        poll_fn(|cx| {
            let Some(state) = self.0.upgrade() else {
                return Poll::Pending;
            };
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.poll_fin(cx)
        })
        .await;
    }
}

impl<F: Flow> State<F> {
    fn poll_fin(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.ended.is_none() {
            // Whoever reads next is in this task, and asks again after it.
            if self.ahead.iter().map(Bytes::len).sum::<usize>() >= AHEAD {
                return Poll::Pending;
            }
            match ready!(self.flow.poll_read(cx)) {
                Ok(Some(chunk)) => self.ahead.push_back(chunk),
                Ok(None) => self.ended = Some(Ok(())),
                Err(broken) => self.ended = Some(Err(broken)),
            }
            // Whoever would read has been asked before this came.
            cx.waker().wake_by_ref();
        }
        match self.ended {
            Some(Ok(())) => Poll::Ready(()),
            Some(Err(_)) | None => Poll::Pending,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        if let Some(chunk) = self.ahead.pop_front() {
            return Poll::Ready(Ok(Some(chunk)));
        }
        match self.ended {
            Some(Ok(())) => return Poll::Ready(Ok(None)),
            Some(Err(broken)) => return Poll::Ready(Err(broken)),
            None => {}
        }
        let read = ready!(self.flow.poll_read(cx));
        if let Ok(None) = read {
            self.ended = Some(Ok(()));
        }
        Poll::Ready(read)
    }
}

impl<F: Flow> Flow for Heard<F> {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        self.state().poll_read(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Broken>> {
        self.state().flow.poll_write(cx, chunk)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.state().flow.poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.state().flow.poll_finish(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.state().flow.poll_close(cx)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        self.state().flow.poll_broken(cx)
    }

    fn reset(&mut self) {
        self.state().flow.reset();
    }

    fn refuse(&mut self) {
        self.state().flow.refuse();
    }
}
