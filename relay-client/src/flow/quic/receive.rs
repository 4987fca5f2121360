//! What a QUIC stream brings.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Bytes, BytesMut};
use quinn::{ReadError, RecvStream, ResetError, VarInt};

use super::{super::Broken, reason};

/// Packets are small: what has come is joined up to this, so that a socket is not written to packet by packet.
pub(super) const JOINED: usize = 64 * 1024;

/// The receiving direction of a stream. Dropping it early stops the peer with code 0: whoever owns it says why instead.
#[derive(Debug)]
pub struct QuicReceive {
    stream: RecvStream,
    /// How it broke, maybe behind the chunk given last. quinn tells a reset once, and after that an end.
    later: Option<Broken>,
    ended: bool,
    /// Whoever did not read waits to hear of a reset.
    watched: bool,
}

impl QuicReceive {
    /// Over quinn's.
    pub fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            later: None,
            ended: false,
            watched: false,
        }
    }

    /// The peer's FIN has been read.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Bytes as they come; `None` is FIN.
    ///
    /// # Errors
    /// The stream broke.
    pub fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        if let Some(broken) = self.later {
            return Poll::Ready(Err(broken));
        }
        if std::mem::take(&mut self.watched)
            && let Poll::Ready(broken) = self.poll_reset(&mut Context::from_waker(Waker::noop()))
        {
            // The waker was taken back: quinn would keep it, and so the task, behind an end that is read without a pause.
            return Poll::Ready(Err(broken));
        }
        // The future holds nothing between polls: quinn keeps the waker.
        let first = match ready!(pin!(self.stream.read_chunk(JOINED, true)).poll(cx)) {
            Ok(Some(chunk)) => chunk.bytes,
            Ok(None) => {
                self.ended = true;
                return Poll::Ready(Ok(None));
            }
            Err(error) => {
                let broken = unread(&error);
                self.later = Some(broken);
                return Poll::Ready(Err(broken));
            }
        };
        let mut more = [const { Bytes::new() }; 48];
        let filled = match pin!(self.stream.read_chunks(&mut more)).poll(cx) {
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

    /// Has it been reset, though nobody reads?
    pub fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        if let Some(broken) = self.later {
            return Poll::Ready(broken);
        }
        if self.ended {
            return Poll::Pending;
        }
        self.watched = true;
        self.poll_reset(cx)
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        match pin!(self.stream.received_reset()).poll(cx) {
            Poll::Ready(Ok(Some(number))) => self.later = Some(reason(number)),
            Poll::Ready(Err(error)) => self.later = Some(unheard(&error)),
            Poll::Ready(Ok(None)) | Poll::Pending => return Poll::Pending,
        }
        // Whoever reads after all must not be told an end.
        self.later.map_or(Poll::Pending, Poll::Ready)
    }

    /// STOP_SENDING, where there is still something to stop.
    pub fn stop(&mut self, code: VarInt) {
        let _ = self.stream.stop(code);
    }
}

fn unread(error: &ReadError) -> Broken {
    match error {
        ReadError::ConnectionLost(_) => Broken::Lost,
        ReadError::Reset(number) => reason(*number),
        ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
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
