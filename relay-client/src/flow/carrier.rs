//! What capsules travel on.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::Broken;

/// A duplex of bytes that carries capsules: an HTTP/2 stream, or a whole connection after an upgrade.
pub trait Carrier: Send {
    /// Bytes as they come; `None`, then and ever after, at the carrier's own end.
    ///
    /// # Errors
    /// It broke.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>>;

    /// So many bytes have been passed on, or were none to pass on.
    fn passed(&mut self, _bytes: usize) {}

    /// The peer may send as many again as have been passed on.
    fn give_back(&mut self) {}

    /// One DATA capsule with as much of the front of `payload` as goes. After `Pending` the same payload comes again.
    ///
    /// # Errors
    /// It broke.
    fn poll_data(&mut self, cx: &mut Context<'_>, payload: &mut Bytes) -> Poll<Result<(), Broken>>;

    /// Push out what is buffered.
    ///
    /// # Errors
    /// It broke.
    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    /// An empty FINAL_DATA capsule, and the carrier's own end where that costs nothing.
    ///
    /// # Errors
    /// It broke.
    fn poll_final(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>;

    /// As [`super::Flow::poll_close`].
    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// As [`super::Flow::poll_broken`].
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken>;

    /// As [`super::Flow::reset`].
    fn reset(&mut self);

    /// As [`super::Flow::refuse`].
    fn refuse(&mut self) {
        self.reset();
    }
}
