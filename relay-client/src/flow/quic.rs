//! A flow as one bidirectional QUIC stream of ours, either end (ALPN `sluicegate-relay/1`): FIN, RESET_STREAM and
//! STOP_SENDING are QUIC's own (RFC 9000 §3). Its two directions, each by itself, serve HTTP/3 too.

mod receive;
mod send;

use std::{
    any::Any,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use quinn::{RecvStream, SendStream, VarInt};
use sluicegate_relay_protocol::ErrorCode;

pub use receive::QuicReceive;
pub use send::QuicSend;

use super::{Broken, Early, Flow, rest::apart};

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
        read_head(&mut self.receive, &mut self.ahead, decode).await
    }

    /// As [`QuicFlow::head`], and meanwhile sends what a program says that does not wait for it.
    ///
    /// # Errors
    /// As [`QuicFlow::head`], or the program has given up.
    pub async fn answer<T, E>(
        &mut self,
        decode: impl Fn(&[u8]) -> Result<Option<(T, usize)>, E>,
        early: &mut Early<'_>,
    ) -> Result<T, Broken> {
        let Self {
            send,
            receive,
            ahead,
            ..
        } = self;
        tokio::select! {
            biased;
            head = read_head(receive, ahead, decode) => head,
            broken = poll_fn(|cx| poll_early(send, early, cx)) => Err(broken),
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
    pub fn decline(mut self) {
        let _ = self.send.finish();
        self.receive.stop(code(ErrorCode::Refused));
        self.aborted = true;
    }

    /// It is asked no longer whether it is broken, until it is asked again: an open stream need not hold what opening it waited for.
    pub fn unwatched(&mut self) {
        self.send.unwatched();
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

    fn refuse(&mut self) {
        self.abort(ErrorCode::Refused);
    }
}

impl Drop for QuicFlow {
    fn drop(&mut self) {
        if !self.receive.ended() || !self.send.finished() {
            self.reset();
        }
    }
}

async fn read_head<T, E>(
    receive: &mut QuicReceive,
    ahead: &mut Bytes,
    decode: impl Fn(&[u8]) -> Result<Option<(T, usize)>, E>,
) -> Result<T, Broken> {
    let mut read = BytesMut::from(std::mem::take(ahead));
    loop {
        if let Some((head, length)) = decode(&read).map_err(|_| Broken::Malformed)? {
            *ahead = apart(read.split_off(length.min(read.len())).freeze());
            return Ok(head);
        }
        match poll_fn(|cx| receive.poll_bytes(cx)).await? {
            Some(bytes) => read.extend_from_slice(&bytes),
            None => return Err(Broken::Truncated),
        }
    }
}

/// Never ready but for a program that has given up: what becomes of the stream, its answer says.
fn poll_early(send: &mut QuicSend, early: &mut Early<'_>, cx: &mut Context<'_>) -> Poll<Broken> {
    loop {
        match ready!(early.poll_next(cx)) {
            Err(broken) => return Poll::Ready(broken),
            Ok(unsent) => {
                let chunks = std::slice::from_mut(unsent);
                if ready!(send.poll_chunks(cx, chunks)).is_err() {
                    return Poll::Pending;
                }
            }
        }
    }
}

/// The number as quinn has it.
pub fn code(reason: ErrorCode) -> VarInt {
    VarInt::from_u32(reason.number())
}

/// Any reset is a reset; one says more.
fn reason(number: VarInt) -> Broken {
    if number == code(ErrorCode::Refused) {
        Broken::Refused
    } else {
        Broken::Reset
    }
}

#[cfg(test)]
mod tests;
