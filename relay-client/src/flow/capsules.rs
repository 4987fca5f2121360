//! A flow as capsules, client's or server's end (draft-ietf-httpbis-connect-tcp §3.4).
//!
//! FINAL_DATA is FIN; a carrier that ends without it is cut; an abort is the carrier's own: RST_STREAM with CONNECT_ERROR
//! on HTTP/2, a connection that ends without close_notify or with RST on HTTP/1.1.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use sluicegate_relay_protocol::capsule::{Decoder, Piece};

use super::{Broken, Chunk, Flow, Tally, carrier::Carrier, connection::Connection, halves::Halves};

/// One relay stream.
#[derive(Debug)]
pub struct CapsuleFlow<C: Carrier = Halves> {
    carrier: C,
    decoder: Decoder,
    /// The bytes being decoded.
    frame: Bytes,
    received_fin: bool,
    /// Nothing comes behind it: the carrier's own end has been read.
    over: bool,
    sent_fin: bool,
}

impl CapsuleFlow<Halves> {
    /// Both halves of an HTTP/2 stream that has been accepted with a 2xx.
    pub fn new(send: SendStream<Chunk>, receive: RecvStream) -> Self {
        Self::over(Halves::new(send, receive))
    }

    /// The same, telling how fast it is read.
    pub fn tallied(send: SendStream<Chunk>, receive: RecvStream, tally: Tally) -> Self {
        Self::over(Halves::new(send, receive).tallied(tally))
    }
}

impl<F: Flow> CapsuleFlow<Connection<F>> {
    /// A connection that was upgraded with a 101; `first` was read behind it.
    pub fn upgraded(flow: F, first: Bytes) -> Self {
        Self::over(Connection::new(flow, first))
    }
}

impl<C: Carrier> CapsuleFlow<C> {
    fn over(carrier: C) -> Self {
        Self {
            carrier,
            decoder: Decoder::default(),
            frame: Bytes::new(),
            received_fin: false,
            over: false,
            sent_fin: false,
        }
    }

    /// Completes when anything has come, an empty capsule too; it is read as if nobody had asked.
    ///
    /// # Errors
    /// The carrier broke, or ended before.
    pub async fn heard(&mut self) -> Result<(), Broken> {
        poll_fn(|cx| self.poll_heard(cx)).await
    }

    fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        while self.frame.is_empty() {
            match ready!(self.carrier.poll_bytes(cx))? {
                Some(frame) => self.frame = frame,
                None => return Poll::Ready(Err(Broken::Truncated)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The carrier has ended, or FINAL_DATA is complete: after it nothing is awaited from this direction. A FIN with data behind it is none.
    fn fin(&mut self) -> Poll<Result<Option<Bytes>, Broken>> {
        self.drop_rest()?;
        self.received_fin = true;
        self.carrier.give_back();
        Poll::Ready(Ok(None))
    }
}

/// Frames dropped behind FINAL_DATA before other tasks get their turn.
const FAIR: usize = 32;

impl<C: Carrier> CapsuleFlow<C> {
    /// Behind FINAL_DATA: what is no data is dropped (RFC 9297 §3.2), data must not come (draft-ietf-httpbis-connect-tcp §3).
    fn drop_rest(&mut self) -> Result<(), Broken> {
        let before = self.frame.len();
        // It hands on nothing any more: it errs, or uses up all there is.
        let rest = self.decoder.next(&mut self.frame);
        self.carrier.passed(before - self.frame.len());
        match rest {
            Ok(None) => {
                self.frame = Bytes::new();
                Ok(())
            }
            Ok(Some(_)) | Err(_) => Err(Broken::Malformed),
        }
    }

    /// Whatever comes behind FINAL_DATA, though nobody reads.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        for _ in 0..FAIR {
            if self.over {
                return self.carrier.poll_broken(cx);
            }
            match self.carrier.poll_bytes(cx) {
                // Who reads hears of a reset.
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Some(frame))) => {
                    self.frame = frame;
                    if let Err(broken) = self.drop_rest() {
                        return Poll::Ready(broken);
                    }
                    self.carrier.give_back();
                }
                // The FIN was said: how the carrier ends its own direction behind it is all the same.
                Poll::Ready(Ok(None) | Err(Broken::Truncated)) => self.over = true,
                Poll::Ready(Err(broken)) => return Poll::Ready(broken),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<C: Carrier> Flow for CapsuleFlow<C> {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        self.carrier.give_back();
        loop {
            let before = self.frame.len();
            let piece = self
                .decoder
                .next(&mut self.frame)
                .map_err(|_| Broken::Malformed)?;
            self.carrier.passed(before - self.frame.len());
            match piece {
                Some(Piece::Data(data)) => return Poll::Ready(Ok(Some(data))),
                Some(Piece::Fin) => return self.fin(),
                // Used up; what it came in is not held until more comes.
                None => self.frame = Bytes::new(),
            }
            self.carrier.give_back();
            match ready!(self.carrier.poll_bytes(cx))? {
                Some(frame) => self.frame = frame,
                None if self.decoder.finish().is_ok() => return self.fin(),
                None => return Poll::Ready(Err(Broken::Truncated)),
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Broken>> {
        self.carrier.poll_data(cx, chunk)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.carrier.poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        ready!(self.carrier.poll_final(cx))?;
        self.sent_fin = true;
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.carrier.poll_close(cx)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        if self.received_fin {
            self.poll_rest(cx)
        } else {
            self.carrier.poll_broken(cx)
        }
    }

    fn reset(&mut self) {
        self.carrier.reset();
    }

    fn refuse(&mut self) {
        self.carrier.refuse();
    }
}

impl<C: Carrier> Drop for CapsuleFlow<C> {
    fn drop(&mut self) {
        // The carrier may end in silence, which reads like an end.
        if !self.received_fin || !self.sent_fin {
            self.reset();
        }
    }
}

#[cfg(test)]
mod tests;
