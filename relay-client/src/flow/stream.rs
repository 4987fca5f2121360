//! What every flow can do.

use std::task::{Context, Poll};

use bytes::Bytes;

/// A flow ended, and not in order. Never mistaken for a FIN.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Broken {
    /// The peer reset it: RST, RST_STREAM.
    #[error("reset by the peer")]
    Reset,
    /// Reset before anything took it: the far end of the stream could not connect.
    #[error("refused: nothing took the connection")]
    Refused,
    /// It stopped without a FIN: TLS without close_notify, capsules without FINAL_DATA.
    #[error("ended without an orderly close")]
    Truncated,
    /// What came is not the protocol.
    #[error("the peer broke the protocol")]
    Malformed,
    /// What carried it is gone: the connection below, or the path to the peer.
    #[error("the connection is lost")]
    Lost,
}

/// One duplex byte stream. Polled from one task: each method may replace the wakers of the others.
///
/// **Dropping a flow resets it**, unless both directions have ended in order. No end is ever clean by accident.
pub trait Flow: Send {
    /// Payload as it comes; `None` is the peer's FIN, after which this is not called again. Asking again means that the
    /// chunk given before has been passed on: only then is its room given back to the peer.
    ///
    /// # Errors
    /// The flow broke; both directions are dead.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>>;

    /// Write from the front of `chunk`, at least one byte when ready. Pending is backpressure; the same chunk comes again.
    ///
    /// # Errors
    /// As [`Flow::poll_read`].
    fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Broken>>;

    /// Push out what is buffered.
    ///
    /// # Errors
    /// As [`Flow::poll_read`].
    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    /// Send FIN after everything written. The other direction goes on.
    ///
    /// # Errors
    /// As [`Flow::poll_read`].
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>;

    /// Both FINs are through: end what carries them, in order. Takes a second at most, and says nothing of how it went.
    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Has it broken? For when nothing is being read: after the peer's FIN, or while its data has nowhere to go.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken>;

    /// Reset both directions now, as far as that can be done before the drop.
    fn reset(&mut self);

    /// Reset, saying that nothing took the stream, where the transport has a word for that.
    fn refuse(&mut self) {
        self.reset();
    }
}

/// Within an `impl Flow` that has its own reads and writes: everything else is the flow's in this field.
#[macro_export]
macro_rules! forward_flow {
    ($flow:ident) => {
        fn poll_flush(
            &mut self,
            cx: &mut ::std::task::Context<'_>,
        ) -> ::std::task::Poll<::std::result::Result<(), $crate::flow::Broken>> {
            self.$flow.poll_flush(cx)
        }

        fn poll_finish(
            &mut self,
            cx: &mut ::std::task::Context<'_>,
        ) -> ::std::task::Poll<::std::result::Result<(), $crate::flow::Broken>> {
            self.$flow.poll_finish(cx)
        }

        fn poll_close(&mut self, cx: &mut ::std::task::Context<'_>) -> ::std::task::Poll<()> {
            self.$flow.poll_close(cx)
        }

        fn poll_broken(
            &mut self,
            cx: &mut ::std::task::Context<'_>,
        ) -> ::std::task::Poll<$crate::flow::Broken> {
            self.$flow.poll_broken(cx)
        }

        fn reset(&mut self) {
            self.$flow.reset();
        }

        fn refuse(&mut self) {
            self.$flow.refuse();
        }
    };
}

impl<F: Flow + ?Sized> Flow for Box<F> {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        (**self).poll_read(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Broken>> {
        (**self).poll_write(cx, chunk)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        (**self).poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        (**self).poll_finish(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        (**self).poll_close(cx)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        (**self).poll_broken(cx)
    }

    fn reset(&mut self) {
        (**self).reset();
    }

    fn refuse(&mut self) {
        (**self).refuse();
    }
}

impl std::fmt::Debug for dyn Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flow")
    }
}
