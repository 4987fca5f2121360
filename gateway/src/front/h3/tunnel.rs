//! A flow on an HTTP/3 stream: classic CONNECT (RFC 9114 §4.4), and what carries the capsules of `connect-tcp`.
//!
//! FIN is FIN; RESET_STREAM or STOP_SENDING, whatever its code, is RST, and ours is H3_CONNECT_ERROR
//! (as draft-ietf-httpbis-connect-tcp §3.4 has it for capsules).

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use sluicegate_relay::flow::{Broken, Flow, QuicSend};

use super::{number, reading::Reading, respond::Worth};
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
    worth: Worth,
    /// The client has reset it, or the connection is gone.
    given_up: bool,
}

impl Tunnel {
    /// A stream whose 2xx is sent.
    pub(super) fn new(send: QuicSend, reading: Reading, worth: Worth) -> Self {
        Self {
            send,
            reading,
            head: Bytes::new(),
            left: 0,
            aborted: false,
            worth,
            given_up: false,
        }
    }

    fn give_up(&mut self, broken: Broken) -> Broken {
        self.given_up = true;
        broken
    }
}

impl Flow for Tunnel {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        loop {
            let Poll::Ready(piece) = self.reading.poll_piece(cx) else {
                // STOP_SENDING alone is a reset too, and a reader may be all there is to hear it.
                let broken = ready!(self.send.poll_broken(cx));
                return Poll::Ready(Err(self.give_up(broken)));
            };
            match piece.map_err(|broken| self.give_up(broken))? {
                Some(Piece::Data(data)) if data.is_empty() => {}
                Some(Piece::Data(data)) => {
                    self.worth.set();
                    return Poll::Ready(Ok(Some(data)));
                }
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
            ready!(self.send.poll_chunks(cx, &mut parts)).map_err(|broken| self.give_up(broken))?;
            let [head, payload] = parts;
            self.head = head;
            let sent = offered - payload.len();
            chunk.advance(sent);
            self.left -= sent;
            // The head alone is no byte of it.
            if sent > 0 || offered == 0 {
                self.worth.set();
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
        let finished = ready!(self.send.poll_finish(cx));
        Poll::Ready(finished.map_err(|broken| self.give_up(broken)))
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        let broken = match self.reading.poll_broken(cx) {
            Poll::Ready(broken) => broken,
            Poll::Pending => ready!(self.send.poll_broken(cx)),
        };
        Poll::Ready(self.give_up(broken))
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
        if !self.given_up {
            self.worth.set();
        }
        // quinn would finish the stream, which reads like an end.
        if !self.reading.is_over() || !self.send.finished() {
            self.reset();
        }
    }
}
