//! A flow as one bidirectional QUIC stream of ours, either end (ALPN `sluicegate-relay/1`): FIN, RESET_STREAM and
//! STOP_SENDING are QUIC's own (RFC 9000 §3).

use std::{
    any::Any,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use quinn::{ReadError, RecvStream, ResetError, SendStream, StoppedError, VarInt, WriteError};
use sluicegate_relay_protocol::ErrorCode;

use super::{Broken, Flow};

/// Packets are small: what has come is joined up to this, so that a socket is not written to packet by packet.
const JOINED: usize = 64 * 1024;

type Stopped = Pin<Box<dyn Future<Output = Result<Option<VarInt>, StoppedError>> + Send>>;

/// One stream. Dropping quinn's `SendStream` would finish it: only this guard may hold one.
pub struct QuicFlow {
    send: SendStream,
    receive: RecvStream,
    /// Read with what stood before the payload.
    ahead: Bytes,
    /// How it broke, maybe behind the chunk given last. quinn tells a reset once, and after that an end.
    later: Option<Broken>,
    /// STOP_SENDING, or everything acknowledged.
    stopped: Option<Stopped>,
    received_fin: bool,
    /// FIN is queued; not yet known to have arrived.
    finishing: bool,
    sent_fin: bool,
    aborted: bool,
    /// What has to live as long as the stream does.
    _held: Option<Arc<dyn Any + Send + Sync>>,
}

impl std::fmt::Debug for QuicFlow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuicFlow")
            .field("stream", &self.send.id())
            .finish_non_exhaustive()
    }
}

impl QuicFlow {
    /// Both halves of a stream.
    pub fn new(send: SendStream, receive: RecvStream) -> Self {
        Self {
            send,
            receive,
            ahead: Bytes::new(),
            later: None,
            stopped: None,
            received_fin: false,
            finishing: false,
            sent_fin: false,
            aborted: false,
            _held: None,
        }
    }

    /// Keep this for as long as the stream lives.
    #[must_use]
    pub fn holding(mut self, held: Arc<dyn Any + Send + Sync>) -> Self {
        self._held = Some(held);
        self
    }

    /// Read what stands before the payload: `decode` is given all that has come so far, and says what it is and how long,
    /// or that it needs more. What came behind it is payload.
    ///
    /// # Errors
    /// The stream broke or ended before that, or `decode` refused it: [`Broken::Malformed`].
    pub async fn head<T, E>(
        &mut self,
        decode: impl Fn(&[u8]) -> Result<Option<(T, usize)>, E>,
    ) -> Result<T, Broken> {
        let mut read = BytesMut::from(std::mem::take(&mut self.ahead));
        loop {
            if let Some((head, length)) = decode(&read).map_err(|_| Broken::Malformed)? {
                self.ahead = read.split_off(length.min(read.len())).freeze();
                return Ok(head);
            }
            match self.receive.read_chunk(JOINED, true).await {
                Ok(Some(chunk)) => read.extend_from_slice(&chunk.bytes),
                Ok(None) => return Err(Broken::Truncated),
                Err(error) => return Err(unread(&error)),
            }
        }
    }

    /// Send all of this, in front of any payload.
    ///
    /// # Errors
    /// The stream broke.
    pub async fn send_head(&mut self, head: Vec<u8>) -> Result<(), Broken> {
        let written = self.send.write_chunk(head.into()).await;
        written.map_err(|error| unwritten(&error))
    }

    /// Send FIN after what was sent, and want nothing more from the peer: the orderly end of a stream that was refused.
    pub fn refuse(mut self) {
        let _ = self.send.finish();
        let _ = self.receive.stop(code(ErrorCode::Refused));
        self.aborted = true;
    }

    /// End both directions early, with a reason for the peer.
    pub fn abort(&mut self, reason: ErrorCode) {
        if !std::mem::replace(&mut self.aborted, true) {
            // Either fails only where that direction is over already.
            let _ = self.send.reset(code(reason));
            let _ = self.receive.stop(code(reason));
        }
    }

    fn stopped(&mut self) -> &mut Stopped {
        let send = &self.send;
        self.stopped.get_or_insert_with(|| Box::pin(send.stopped()))
    }
}

impl Flow for QuicFlow {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        if !self.ahead.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.ahead))));
        }
        if let Some(broken) = self.later {
            return Poll::Ready(Err(broken));
        }
        // The future holds nothing between polls: quinn keeps the waker.
        let first = match ready!(pin!(self.receive.read_chunk(JOINED, true)).poll(cx)) {
            Ok(Some(chunk)) => chunk.bytes,
            Ok(None) => {
                self.received_fin = true;
                return Poll::Ready(Ok(None));
            }
            Err(error) => {
                let broken = unread(&error);
                self.later = Some(broken);
                return Poll::Ready(Err(broken));
            }
        };
        let mut more = [const { Bytes::new() }; 48];
        let filled = match pin!(self.receive.read_chunks(&mut more)).poll(cx) {
            Poll::Ready(Ok(Some(filled))) => filled,
            Poll::Ready(Err(error)) => {
                self.later = Some(unread(&error));
                0
            }
            // An end is told again.
            Poll::Ready(Ok(None)) | Poll::Pending => 0,
        };
        if filled == 0 {
            return Poll::Ready(Ok(Some(first)));
        }
        let rest = more.iter().take(filled);
        let total = first.len() + rest.clone().map(Bytes::len).sum::<usize>();
        let mut joined = BytesMut::with_capacity(total);
        joined.extend_from_slice(&first);
        rest.for_each(|chunk| joined.extend_from_slice(chunk));
        Poll::Ready(Ok(Some(joined.freeze())))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Broken>> {
        let chunks = std::slice::from_mut(chunk);
        let written = ready!(pin!(self.send.write_chunks(chunks)).poll(cx));
        Poll::Ready(written.map(|_| ()).map_err(|error| unwritten(&error)))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if !self.finishing {
            self.send.finish().map_err(|_| Broken::Reset)?;
            self.finishing = true;
        }
        // Only what is acknowledged is sure to outlive a connection that is closed right after.
        let stopped = ready!(self.stopped().as_mut().poll(cx));
        self.stopped = None;
        match stopped {
            Ok(None) => {
                self.sent_fin = true;
                Poll::Ready(Ok(()))
            }
            Ok(Some(_)) => Poll::Ready(Err(Broken::Reset)),
            Err(_) => Poll::Ready(Err(Broken::Lost)),
        }
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        if let Some(broken) = self.later {
            return Poll::Ready(broken);
        }
        if !self.received_fin && self.ahead.is_empty() {
            match pin!(self.receive.received_reset()).poll(cx) {
                Poll::Ready(Ok(Some(_))) => return Poll::Ready(Broken::Reset),
                Poll::Ready(Err(error)) => return Poll::Ready(unheard(&error)),
                Poll::Ready(Ok(None)) | Poll::Pending => {}
            }
        }
        if !self.sent_fin {
            match self.stopped().as_mut().poll(cx) {
                Poll::Ready(Ok(Some(_))) => return Poll::Ready(Broken::Reset),
                Poll::Ready(Err(_)) => return Poll::Ready(Broken::Lost),
                Poll::Ready(Ok(None)) => {
                    // Everything has arrived: nobody can stop this direction any more.
                    self.stopped = None;
                    self.sent_fin = true;
                }
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    fn reset(&mut self) {
        self.abort(ErrorCode::Connect);
    }
}

impl Drop for QuicFlow {
    fn drop(&mut self) {
        if !self.received_fin || !self.sent_fin {
            self.reset();
        }
    }
}

/// The number as quinn has it.
pub fn code(reason: ErrorCode) -> VarInt {
    VarInt::from_u32(reason.number())
}

fn unread(error: &ReadError) -> Broken {
    match error {
        ReadError::ConnectionLost(_) => Broken::Lost,
        ReadError::Reset(_)
        | ReadError::ClosedStream
        | ReadError::IllegalOrderedRead
        | ReadError::ZeroRttRejected => Broken::Reset,
    }
}

fn unwritten(error: &WriteError) -> Broken {
    match error {
        WriteError::ConnectionLost(_) => Broken::Lost,
        WriteError::Stopped(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => {
            Broken::Reset
        }
    }
}

fn unheard(error: &ResetError) -> Broken {
    match error {
        ResetError::ConnectionLost(_) => Broken::Lost,
        ResetError::ZeroRttRejected => Broken::Reset,
    }
}

#[cfg(test)]
mod tests;
