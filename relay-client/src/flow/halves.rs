//! Both halves of one HTTP/2 stream: room given back as bytes move on, resets that are resets.

use std::{
    collections::VecDeque,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use sluicegate_relay_protocol::capsule::{DATA, FINAL_DATA, Head};

use super::{Broken, Chunk, Early, Tally, carrier::Carrier};

/// Frames smaller than this are joined while they wait: h2 budgets small unread frames per connection, and one slow
/// reader must not use up its neighbours' share.
const SMALL: usize = 1024;
/// What small frames are joined into.
const JOINED: usize = 16 * 1024;
/// Less room than this (and a head) is not worth a frame.
const LEAST: usize = 64;

/// A stream that has been accepted with a 2xx. Dropping it says nothing: whoever owns it resets it.
pub struct Halves {
    send: SendStream<Chunk>,
    receive: RecvStream,
    /// Received while nobody was reading; its room is not given back before it is passed on.
    waiting: VecDeque<Bytes>,
    /// Bytes passed on since room was last given back.
    owed: usize,
    /// The peer's stream has ended.
    ended: bool,
    aborted: bool,
    tally: Option<Tally>,
}

impl std::fmt::Debug for Halves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Halves")
            .field("stream", &self.send.stream_id())
            .finish_non_exhaustive()
    }
}

impl Halves {
    pub(super) fn new(send: SendStream<Chunk>, receive: RecvStream) -> Self {
        Self {
            send,
            receive,
            waiting: VecDeque::new(),
            owed: 0,
            ended: false,
            aborted: false,
            tally: None,
        }
    }

    /// The same, telling how fast it is read.
    pub(super) fn tallied(self, tally: Tally) -> Self {
        let tally = Some(tally);
        Self { tally, ..self }
    }

    /// Send from the front of `payload`, as a capsule of this kind or as it is.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        kind: Option<u64>,
        payload: &mut Bytes,
    ) -> Poll<Result<(), Broken>> {
        match ready!(poll_send(&mut self.send, cx, kind, payload)) {
            Some(sent) => Poll::Ready(sent.map_err(|error| broken(&error))),
            None => Poll::Ready(Err(self.closed(cx))),
        }
    }

    /// END_STREAM, behind this last frame.
    pub(super) fn end(&mut self, last: Chunk) -> Result<(), Broken> {
        // h2 queues what the window does not take yet: these few bytes need no room.
        self.send
            .send_data(last, true)
            .map_err(|error| broken(&error))
    }

    /// Sending is over though we did not end it: why?
    fn closed(&mut self, cx: &mut Context<'_>) -> Broken {
        match self.send.poll_reset(cx) {
            Poll::Ready(Ok(code)) => reason(code),
            Poll::Ready(Err(error)) => broken(&error),
            Poll::Pending => Broken::Lost,
        }
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

impl Carrier for Halves {
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
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

    fn passed(&mut self, bytes: usize) {
        self.owed += bytes;
    }

    /// Flow control as backpressure: the peer may send again only what has been passed on.
    fn give_back(&mut self) {
        let owed = std::mem::take(&mut self.owed);
        if owed > 0 {
            if let Some(tally) = &mut self.tally {
                tally.passed(owed);
            }
            // Refused only for a stream that is over, whose room h2 has given back itself.
            let _ = self.receive.flow_control().release_capacity(owed);
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>, payload: &mut Bytes) -> Poll<Result<(), Broken>> {
        self.poll_send(cx, Some(DATA), payload)
    }

    fn poll_final(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(self.end(Chunk::capsule(FINAL_DATA, Bytes::new())))
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
            // draft-ietf-httpbis-connect-tcp §3.4.
            self.send.send_reset(Reason::CONNECT_ERROR);
        }
    }

    fn refuse(&mut self) {
        if !std::mem::replace(&mut self.aborted, true) {
            // RFC 9113 §8.7: closed before any processing occurred.
            self.send.send_reset(Reason::REFUSED_STREAM);
        }
    }
}

/// From the front of `payload`; `None`: sending is over.
fn poll_send(
    send: &mut SendStream<Chunk>,
    cx: &mut Context<'_>,
    kind: Option<u64>,
    payload: &mut Bytes,
) -> Poll<Option<Result<(), h2::Error>>> {
    let head = if kind.is_some() { Head::USUAL_MAX } else { 0 };
    let wanted = payload.len() + head;
    // Reserved only with data in hand: an idle stream holds none of the connection's window.
    send.reserve_capacity(wanted);
    loop {
        let room = send.capacity();
        // A few bytes of room would make frames of almost nothing but head.
        if room >= wanted.min(head + LEAST) {
            let payload = payload.split_to(payload.len().min(room - head));
            let chunk = match kind {
                Some(kind) => Chunk::capsule(kind, payload),
                None => payload.into(),
            };
            return Poll::Ready(Some(send.send_data(chunk, false)));
        }
        match ready!(send.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => return Poll::Ready(None),
        }
    }
}

/// Sends, on a stream that is not answered yet, what a program says that does not wait for it. Never ready but for a
/// program that has given up: what becomes of the stream, its answer says.
pub(crate) fn poll_early(
    send: &mut SendStream<Chunk>,
    early: &mut Early<'_>,
    cx: &mut Context<'_>,
) -> Poll<Broken> {
    loop {
        match ready!(early.poll_next(cx)) {
            Err(broken) => return Poll::Ready(broken),
            Ok(unsent) => match ready!(poll_send(send, cx, Some(DATA), unsent)) {
                Some(Ok(())) => {}
                Some(Err(_)) | None => return Poll::Pending,
            },
        }
    }
}

/// Any reset is a reset: CANCEL and NO_ERROR too, never an end.
fn reason(code: Reason) -> Broken {
    if code == Reason::REFUSED_STREAM {
        Broken::Refused
    } else {
        Broken::Reset
    }
}

fn broken(error: &h2::Error) -> Broken {
    match error.reason() {
        Some(code) if error.is_reset() => reason(code),
        _ => Broken::Lost,
    }
}
