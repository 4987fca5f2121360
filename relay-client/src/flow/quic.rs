//! A flow as one bidirectional QUIC stream of ours, either end (ALPN `sluicegate-relay/1`): FIN, RESET_STREAM and
//! STOP_SENDING are QUIC's own (RFC 9000 §3). Its two directions, each by itself, serve HTTP/3 too.

mod receive;
mod send;

use std::{
    any::Any,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use quinn::{RecvStream, SendStream, VarInt};
use sluicegate_relay_protocol::ErrorCode;

pub use receive::QuicReceive;
pub use send::QuicSend;

use super::{Broken, Flow};

/// One stream.
#[derive(Debug)]
pub struct QuicFlow {
    send: QuicSend,
    receive: QuicReceive,
    /// Read with what stood before the payload.
    ahead: Bytes,
    aborted: bool,
    /// What has to live as long as the stream does.
    _held: Option<Arc<dyn Any + Send + Sync>>,
}

impl QuicFlow {
    /// Both halves of a stream.
    pub fn new(send: SendStream, receive: RecvStream) -> Self {
        Self {
            send: QuicSend::new(send),
            receive: QuicReceive::new(receive),
            ahead: Bytes::new(),
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
            match std::future::poll_fn(|cx| self.receive.poll_bytes(cx)).await? {
                Some(bytes) => read.extend_from_slice(&bytes),
                None => return Err(Broken::Truncated),
            }
        }
    }

    /// Send all of this, in front of any payload.
    ///
    /// # Errors
    /// The stream broke.
    pub async fn send_head(&mut self, head: Vec<u8>) -> Result<(), Broken> {
        self.send.write(head.into()).await
    }

    /// Send FIN after what was sent, and want nothing more from the peer: the orderly end of a stream that was refused.
    pub fn refuse(mut self) {
        let _ = self.send.finish();
        self.receive.stop(code(ErrorCode::Refused));
        self.aborted = true;
    }

    /// End both directions early, with a reason for the peer.
    pub fn abort(&mut self, reason: ErrorCode) {
        if !std::mem::replace(&mut self.aborted, true) {
            self.send.reset(code(reason));
            self.receive.stop(code(reason));
        }
    }
}

impl Flow for QuicFlow {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        if !self.ahead.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.ahead))));
        }
        self.receive.poll_bytes(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Broken>> {
        self.send.poll_chunks(cx, std::slice::from_mut(chunk))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.send.poll_finish(cx)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        if self.ahead.is_empty()
            && let Poll::Ready(broken) = self.receive.poll_broken(cx)
        {
            return Poll::Ready(broken);
        }
        self.send.poll_broken(cx)
    }

    fn reset(&mut self) {
        self.abort(ErrorCode::Connect);
    }
}

impl Drop for QuicFlow {
    fn drop(&mut self) {
        if !self.receive.ended() || !self.send.finished() {
            self.reset();
        }
    }
}

/// The number as quinn has it.
pub fn code(reason: ErrorCode) -> VarInt {
    VarInt::from_u32(reason.number())
}

#[cfg(test)]
mod tests;
