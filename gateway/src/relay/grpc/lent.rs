//! A stream's bytes, lent to HTTP/2, which does not give back what it was given.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use sluicegate_relay::flow::FlowIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};

use super::authority::Authority;
use crate::egress::linger_close;

/// What HTTP/2 has.
pub(super) struct Lent(Arc<Mutex<FlowIo>>, Authority);

/// Whose it is. Dropped with what was lent, the stream is reset.
pub(super) struct Lender(Arc<Mutex<FlowIo>>);

impl Lent {
    pub(super) fn new(io: FlowIo) -> (Self, Lender) {
        let io = Arc::new(Mutex::new(io));
        (Self(io.clone(), Authority::new()), Lender(io))
    }

    /// Nobody waits for it: lender and borrower are in one task.
    fn io(&self) -> MutexGuard<'_, FlowIo> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lender {
    /// What was lent is gone: end the stream in order, so that the last words on it are heard. A client that has not taken them
    /// and gone by then is reset.
    pub(super) async fn close(self, limit: Duration) {
        let Some(io) = Arc::into_inner(self.0) else {
            return;
        };
        let mut io = io.into_inner().unwrap_or_else(PoisonError::into_inner);
        let _ = timeout(limit, linger_close(&mut io)).await;
    }
}

impl AsyncRead for Lent {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut *self.io()).poll_read(cx, buffer))?;
        if let Some(came) = buffer.filled_mut().get_mut(before..) {
            self.get_mut().1.pass(came);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Lent {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.io()).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io()).poll_shutdown(cx)
    }
}
