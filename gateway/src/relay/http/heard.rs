//! A stream whose client is heard though nobody reads: HTTP does not while an answer is awaited, and the client may end meanwhile.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use sluicegate_relay::flow::{Broken, Flow};

/// The flow as it is, with at most one chunk read ahead. Dropping it drops the flow, whoever listens.
pub(super) struct Heard<F>(Arc<Mutex<State<F>>>);

/// Listens. Only in the task that polls the flow, and after it: each of both takes the other's wakers.
pub(super) struct Ear<F>(Weak<Mutex<State<F>>>);

struct State<F> {
    flow: F,
    /// Read ahead.
    ahead: Bytes,
    ended: Option<Result<(), Broken>>,
}

impl<F: Flow> Heard<F> {
    pub(super) fn new(flow: F) -> (Self, Ear<F>) {
        let state = Arc::new(Mutex::new(State {
            flow,
            ahead: Bytes::new(),
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
    /// Completes when the client has said FIN and everything before it has been read.
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
        if !self.ahead.is_empty() {
            return Poll::Pending;
        }
        if self.ended.is_none() {
            match ready!(self.flow.poll_read(cx)) {
                Ok(Some(chunk)) => self.ahead = chunk,
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
        if !self.ahead.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.ahead))));
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
