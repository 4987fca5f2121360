//! A flow as capsules on one HTTP/2 stream, client's or server's end (draft-ietf-httpbis-connect-tcp).
//!
//! FINAL_DATA is FIN; a stream that ends without it is cut; an abort is RST_STREAM with CONNECT_ERROR.

use std::{
    collections::VecDeque,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use sluicegate_relay_protocol::capsule::{DATA, Decoder, FINAL_DATA, Head, Piece};

use super::{Broken, Chunk, Flow};

/// Frames smaller than this are joined while they wait: h2 budgets small unread frames per connection, and one slow
/// reader must not use up its neighbours' share.
const SMALL: usize = 1024;
/// What small frames are joined into.
const JOINED: usize = 16 * 1024;

/// One relay stream.
pub struct CapsuleFlow {
    send: SendStream<Chunk>,
    receive: RecvStream,
    decoder: Decoder,
    /// Received while nobody was reading; its room is not given back before it is passed on.
    waiting: VecDeque<Bytes>,
    /// The frame being decoded.
    frame: Bytes,
    /// Bytes passed on since room was last given back.
    owed: usize,
    /// The peer's stream has ended (whether in order, the decoder knows).
    ended: bool,
    received_fin: bool,
    sent_fin: bool,
    aborted: bool,
}

impl std::fmt::Debug for CapsuleFlow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CapsuleFlow")
            .field("stream", &self.send.stream_id())
            .finish_non_exhaustive()
    }
}

impl CapsuleFlow {
    /// Both halves of a stream that has been accepted with a 2xx.
    pub fn new(send: SendStream<Chunk>, receive: RecvStream) -> Self {
        Self {
            send,
            receive,
            decoder: Decoder::default(),
            waiting: VecDeque::new(),
            frame: Bytes::new(),
            owed: 0,
            ended: false,
            received_fin: false,
            sent_fin: false,
            aborted: false,
        }
    }

    /// Flow control as backpressure: the peer may send again only what has been passed on.
    fn give_back(&mut self) {
        let owed = std::mem::take(&mut self.owed);
        if owed > 0 {
            // Refused only for a stream that is over, whose room h2 has given back itself.
            let _ = self.receive.flow_control().release_capacity(owed);
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        if let Some(frame) = self.waiting.pop_front() {
            return Poll::Ready(Ok(Some(frame)));
        }
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        match ready!(self.receive.poll_data(cx)) {
            Some(Ok(frame)) => Poll::Ready(Ok(Some(frame))),
            Some(Err(error)) => Poll::Ready(Err(broken(&error))),
            None => {
                self.ended = true;
                Poll::Ready(Ok(None))
            }
        }
    }

    /// The stream has ended, or FINAL_DATA is complete: after it nothing is awaited from this direction.
    fn fin(&mut self) -> Poll<Result<Option<Bytes>, Broken>> {
        self.received_fin = true;
        self.give_back();
        Poll::Ready(Ok(None))
    }

    /// Whatever arrives while nobody reads is put aside, small frames joined. The peer's window bounds it.
    fn poll_aside(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        while !self.ended {
            match self.receive.poll_data(cx) {
                Poll::Ready(Some(Ok(frame))) => self.put_aside(frame),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(broken(&error)),
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    fn put_aside(&mut self, frame: Bytes) {
        if self.received_fin {
            // Unknown capsules may follow the FIN; anything else is refused when it is decoded. Nobody will pass it on.
            self.owed += frame.len();
            self.give_back();
            return;
        }
        let room = JOINED.saturating_sub(frame.len());
        match self.waiting.pop_back() {
            Some(last) if frame.len() < SMALL && last.len() <= room => {
                // Alone in its buffer, it grows in place.
                let mut joined = last.try_into_mut().unwrap_or_else(|last| {
                    let mut joined = BytesMut::with_capacity(JOINED);
                    joined.extend_from_slice(&last);
                    joined
                });
                joined.extend_from_slice(&frame);
                self.waiting.push_back(joined.freeze());
            }
            last => {
                self.waiting.extend(last);
                self.waiting.push_back(frame);
            }
        }
    }
}

impl Flow for CapsuleFlow {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        self.give_back();
        loop {
            let before = self.frame.len();
            let piece = self
                .decoder
                .next(&mut self.frame)
                .map_err(|_| Broken::Malformed)?;
            self.owed += before - self.frame.len();
            match piece {
                Some(Piece::Data(data)) => return Poll::Ready(Ok(Some(data))),
                Some(Piece::Fin) => return self.fin(),
                None => {}
            }
            self.give_back();
            match ready!(self.poll_frame(cx))? {
                Some(frame) => self.frame = frame,
                None if self.decoder.finish().is_ok() => return self.fin(),
                None => return Poll::Ready(Err(Broken::Truncated)),
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Broken>> {
        let wanted = chunk.len() + Head::USUAL_MAX;
        // Reserved only with data in hand: an idle stream holds none of the connection's window.
        self.send.reserve_capacity(wanted);
        loop {
            let room = self.send.capacity();
            // A few bytes of room would make frames of almost nothing but head.
            if room >= wanted.min(Head::USUAL_MAX + 64) {
                let payload = chunk.split_to(chunk.len().min(room - Head::USUAL_MAX));
                self.send
                    .send_data(Chunk::capsule(DATA, payload), false)
                    .map_err(|error| broken(&error))?;
                return Poll::Ready(Ok(()));
            }
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(&error))),
                None => return Poll::Ready(Err(self.closed(cx))),
            }
        }
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        // h2 queues what the window does not take yet: these few bytes need no room.
        self.send
            .send_data(Chunk::capsule(FINAL_DATA, Bytes::new()), true)
            .map_err(|error| broken(&error))?;
        self.sent_fin = true;
        Poll::Ready(Ok(()))
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        if let Poll::Ready(reset) = self.send.poll_reset(cx) {
            return Poll::Ready(reset.map_or_else(|error| broken(&error), reason));
        }
        self.poll_aside(cx)
    }

    fn reset(&mut self) {
        if !std::mem::replace(&mut self.aborted, true) {
            // RFC 9113 §8.5: "TCP connection error" of a CONNECT.
            self.send.send_reset(Reason::CONNECT_ERROR);
        }
    }
}

impl CapsuleFlow {
    /// Sending is over though we did not end it: why?
    fn closed(&mut self, cx: &mut Context<'_>) -> Broken {
        match self.send.poll_reset(cx) {
            Poll::Ready(Ok(code)) => reason(code),
            Poll::Ready(Err(error)) => broken(&error),
            Poll::Pending => Broken::Lost,
        }
    }
}

impl Drop for CapsuleFlow {
    fn drop(&mut self) {
        // h2 would end the stream in silence, which reads like an end.
        if !self.received_fin || !self.sent_fin {
            self.reset();
        }
    }
}

/// Any reset is a reset: CANCEL and NO_ERROR too, never an end.
fn reason(_code: Reason) -> Broken {
    Broken::Reset
}

fn broken(error: &h2::Error) -> Broken {
    if error.is_reset() {
        Broken::Reset
    } else {
        Broken::Lost
    }
}

#[cfg(test)]
mod tests;
