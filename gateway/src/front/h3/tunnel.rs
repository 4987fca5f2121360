//! A flow on an HTTP/3 stream: classic CONNECT (RFC 9114 §4.4), and what carries the capsules of `connect-tcp`.
//!
//! FIN is FIN; RESET_STREAM or STOP_SENDING, whatever its code, is RST, and ours is H3_CONNECT_ERROR
//! (as draft-ietf-httpbis-connect-tcp §3.4 has it for capsules).

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use sluicegate_relay::flow::{Broken, Flow, QuicSend};

use super::{number, reading::Reading};
use crate::http3::{Code, Piece, data_head};

/// One tunnel's stream.
#[derive(Debug)]
pub(in crate::front) struct Tunnel {
    send: QuicSend,
    reading: Reading,
    /// What is still to be sent of a DATA frame's head …
    head: Bytes,
    /// … and of its payload, whose length the head has said.
    left: usize,
    aborted: bool,
}

impl Tunnel {
    /// A stream whose 2xx is sent.
    pub(super) fn new(send: QuicSend, reading: Reading) -> Self {
        Self {
            send,
            reading,
            head: Bytes::new(),
            left: 0,
            aborted: false,
        }
    }
}

impl Flow for Tunnel {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        loop {
            let Poll::Ready(piece) = self.reading.poll_piece(cx) else {
                // STOP_SENDING alone is a reset too, and a reader may be all there is to hear it.
                return self.send.poll_broken(cx).map(Err);
            };
            match piece? {
                Some(Piece::Data(data)) if data.is_empty() => {}
                Some(Piece::Data(data)) => return Poll::Ready(Ok(Some(data))),
                None => return Poll::Ready(Ok(None)),
                // RFC 9114 §4.4.
                Some(_) => return Poll::Ready(Err(self.reading.fail(Code::FrameUnexpected))),
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Broken>> {
        if self.left == 0 {
            self.left = chunk.len();
            self.head = data_head(self.left);
        }
        loop {
            let payload = chunk.slice(..self.left.min(chunk.len()));
            let offered = payload.len();
            let mut parts = [self.head.clone(), payload];
            ready!(self.send.poll_chunks(cx, &mut parts))?;
            let [head, payload] = parts;
            self.head = head;
            let sent = offered - payload.len();
            chunk.advance(sent);
            self.left -= sent;
            // The head alone is no byte of it.
            if sent > 0 || offered == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.left > 0 {
            // A frame cut short would cost the client its whole connection.
            self.reset();
            return Poll::Ready(Err(Broken::Truncated));
        }
        self.send.poll_finish(cx)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        match self.reading.poll_broken(cx) {
            Poll::Ready(broken) => Poll::Ready(broken),
            Poll::Pending => self.send.poll_broken(cx),
        }
    }

    fn reset(&mut self) {
        if !std::mem::replace(&mut self.aborted, true) {
            self.send.reset(number(Code::Connect));
            self.reading.stop(Code::Connect);
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // quinn would finish the stream, which reads like an end.
        if !self.reading.is_over() || !self.send.finished() {
            self.reset();
        }
    }
}
