//! What is sent on a QUIC stream.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use quinn::{SendStream, StoppedError, VarInt, WriteError};

use super::{super::Broken, reason};

type Stopped = Pin<Box<dyn Future<Output = Result<Option<VarInt>, StoppedError>> + Send>>;

/// The sending direction of a stream. Dropping quinn's `SendStream` would finish it: whoever owns this one resets it
/// before it is dropped early.
pub struct QuicSend {
    stream: SendStream,
    /// STOP_SENDING, or everything acknowledged.
    stopped: Option<Stopped>,
    /// FIN is queued; not yet known to have arrived.
    finishing: bool,
    finished: bool,
}

impl std::fmt::Debug for QuicSend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuicSend")
            .field("stream", &self.stream.id())
            .finish_non_exhaustive()
    }
}

impl QuicSend {
    /// Over quinn's.
    pub fn new(stream: SendStream) -> Self {
        Self {
            stream,
            stopped: None,
            finishing: false,
            finished: false,
        }
    }

    /// FIN and everything before it has arrived.
    pub fn finished(&self) -> bool {
        self.finished
    }

    /// FIN is queued.
    pub fn finishing(&self) -> bool {
        self.finishing
    }

    /// Write from the front of these, at least one byte when ready.
    ///
    /// # Errors
    /// The stream broke.
    pub fn poll_chunks(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<Result<(), Broken>> {
        let written = ready!(pin!(self.stream.write_chunks(chunks)).poll(cx));
        Poll::Ready(written.map(|_| ()).map_err(|error| unwritten(&error)))
    }

    /// Write all of it.
    ///
    /// # Errors
    /// The stream broke.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Broken> {
        let written = self.stream.write_chunk(bytes).await;
        written.map_err(|error| unwritten(&error))
    }

    /// Queue FIN; it goes out though this is dropped.
    ///
    /// # Errors
    /// The stream broke.
    pub fn finish(&mut self) -> Result<(), Broken> {
        if !self.finishing {
            self.stream.finish().map_err(|_| Broken::Reset)?;
            self.finishing = true;
        }
        Ok(())
    }

    /// FIN, and that everything has arrived: only what is acknowledged is sure to outlive a connection that is closed
    /// right after.
    ///
    /// # Errors
    /// The stream broke.
    pub fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.finish()?;
        let stopped = ready!(self.stopped().as_mut().poll(cx));
        self.stopped = None;
        match stopped {
            Ok(None) => {
                self.finished = true;
                Poll::Ready(Ok(()))
            }
            Ok(Some(number)) => Poll::Ready(Err(reason(number))),
            Err(_) => Poll::Ready(Err(Broken::Lost)),
        }
    }

    /// Has the peer stopped it?
    pub fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        if self.finished {
            return Poll::Pending;
        }
        match ready!(self.stopped().as_mut().poll(cx)) {
            Ok(Some(number)) => Poll::Ready(reason(number)),
            Err(_) => Poll::Ready(Broken::Lost),
            Ok(None) => {
                // Everything has arrived: nobody can stop this direction any more.
                self.stopped = None;
                self.finished = true;
                Poll::Pending
            }
        }
    }

    /// Nobody asks any more whether the peer has stopped it: what waited for that is let go.
    pub fn unwatched(&mut self) {
        if !self.finishing {
            self.stopped = None;
        }
    }

    #[cfg(test)]
    pub(super) fn waits(&self) -> bool {
        self.stopped.is_some()
    }

    /// Completes when the peer has stopped it, or is gone.
    pub async fn broken(&mut self) -> Broken {
        poll_fn(|cx| self.poll_broken(cx)).await
    }

    /// RESET_STREAM, where there is still something to reset.
    pub fn reset(&mut self, code: VarInt) {
        let _ = self.stream.reset(code);
    }

    fn stopped(&mut self) -> &mut Stopped {
        let stream = &self.stream;
        self.stopped
            .get_or_insert_with(|| Box::pin(stream.stopped()))
    }
}

fn unwritten(error: &WriteError) -> Broken {
    match error {
        WriteError::ConnectionLost(_) => Broken::Lost,
        WriteError::Stopped(number) => reason(*number),
        WriteError::ClosedStream | WriteError::ZeroRttRejected => Broken::Reset,
    }
}
