//! Capsules on a whole connection: HTTP/1.1 after `101 Switching Protocols`.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use sluicegate_relay_protocol::capsule::{DATA, FINAL_DATA, Head};
use tokio::time::{Sleep, sleep};

use super::{Broken, Flow, Rest, carrier::Carrier, chunk::CAPSULE};

/// After both FINs the connection's own end is awaited this long: closed with bytes unread, TCP would say RST, and that
/// can destroy the last bytes on their way.
const LINGER: Duration = Duration::from_secs(1);

/// A connection that carries capsules and nothing else from now on. The flow below has its own ends; they mean only
/// whether the connection was cut.
#[derive(Debug)]
pub struct Connection<F> {
    flow: F,
    /// Read before the upgrade was complete.
    first: Rest,
    /// Being written: a capsule's head and payload.
    out: Bytes,
    /// Bytes of the caller's payload in `out`.
    taken: usize,
    /// FINAL_DATA is in `out`, or gone.
    last: bool,
    ended: bool,
    closing: Closing,
}

#[derive(Debug)]
enum Closing {
    Open,
    /// Our own end is said; until the timer, the peer's is awaited.
    Awaiting(Pin<Box<Sleep>>),
    Done,
}

impl<F: Flow> Connection<F> {
    pub(super) fn new(flow: F, first: Bytes) -> Self {
        Self {
            flow,
            first: Rest::new(first),
            out: Bytes::new(),
            taken: 0,
            last: false,
            ended: false,
            closing: Closing::Open,
        }
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        while !self.out.is_empty() {
            ready!(self.flow.poll_write(cx, &mut self.out))?;
        }
        // Empty, it would hold the capsule until there is another.
        self.out = Bytes::new();
        Poll::Ready(Ok(()))
    }
}

fn capsule(kind: u64, payload: &[u8]) -> Bytes {
    let head = Head::new(kind, payload.len());
    let mut bytes = BytesMut::with_capacity(Head::USUAL_MAX + payload.len());
    bytes.extend_from_slice(head.as_slice());
    bytes.extend_from_slice(payload);
    bytes.freeze()
}

impl<F: Flow> Carrier for Connection<F> {
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Ok(Some(first)));
        }
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        let read = ready!(self.flow.poll_read(cx));
        self.ended = matches!(read, Ok(None));
        Poll::Ready(read)
    }

    fn poll_data(&mut self, cx: &mut Context<'_>, payload: &mut Bytes) -> Poll<Result<(), Broken>> {
        if self.out.is_empty() {
            // Copied, once: two writes would be two records, and two packets.
            self.taken = payload.len().min(CAPSULE - Head::USUAL_MAX);
            self.out = capsule(DATA, payload.get(..self.taken).unwrap_or_default());
        }
        ready!(self.poll_out(cx))?;
        payload.advance(std::mem::take(&mut self.taken));
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        ready!(self.poll_out(cx))?;
        self.flow.poll_flush(cx)
    }

    /// The connection itself stays open both ways until both FINs are through: not every middlebox lets a connection live
    /// that is half closed.
    fn poll_final(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if !std::mem::replace(&mut self.last, true) {
            self.out = capsule(FINAL_DATA, &[]);
        }
        self.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.closing {
                Closing::Done => return Poll::Ready(()),
                Closing::Open => {
                    // A peer that is gone already needs no end of ours.
                    self.closing = match ready!(self.flow.poll_finish(cx)) {
                        Ok(()) if !self.ended => Closing::Awaiting(Box::pin(sleep(LINGER))),
                        _ => Closing::Done,
                    };
                }
                Closing::Awaiting(timer) => {
                    let over = timer.as_mut().poll(cx).is_ready();
                    // Both FINs are through, and believed: what still comes, data or not, is too late to change that.
                    let more = self.flow.poll_read(cx);
                    match more {
                        Poll::Ready(Ok(Some(_))) if !over => {}
                        Poll::Pending if !over => return Poll::Pending,
                        _ => self.closing = Closing::Done,
                    }
                }
            }
        }
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        self.flow.poll_broken(cx)
    }

    fn reset(&mut self) {
        self.flow.reset();
    }
}
