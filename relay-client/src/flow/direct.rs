//! A flow straight on an HTTP/2 stream: classic CONNECT (RFC 9113 §8.5), without capsules.
//!
//! END_STREAM is FIN, RST_STREAM is RST.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};

use super::{Broken, Chunk, Flow, carrier::Carrier, halves::Halves};

/// One tunnel's HTTP/2 stream.
#[derive(Debug)]
pub struct StreamFlow {
    halves: Halves,
    received_fin: bool,
    sent_fin: bool,
}

impl StreamFlow {
    /// Both halves of a stream that has been accepted with a 2xx.
    pub fn new(send: SendStream<Chunk>, receive: RecvStream) -> Self {
        Self {
            halves: Halves::new(send, receive),
            received_fin: false,
            sent_fin: false,
        }
    }
}

impl Flow for StreamFlow {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        loop {
            self.halves.give_back();
            match ready!(self.halves.poll_bytes(cx))? {
                // Nothing, said in a frame of its own.
                Some(frame) if frame.is_empty() => {}
                Some(frame) => {
                    self.halves.passed(frame.len());
                    return Poll::Ready(Ok(Some(frame)));
                }
                None => {
                    self.received_fin = true;
                    return Poll::Ready(Ok(None));
                }
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Broken>> {
        self.halves.poll_send(cx, None, chunk)
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.halves.end(Chunk::default())?;
        self.sent_fin = true;
        Poll::Ready(Ok(()))
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        self.halves.poll_broken(cx)
    }

    fn reset(&mut self) {
        self.halves.reset();
    }
}

impl Drop for StreamFlow {
    fn drop(&mut self) {
        // h2 would end the stream in silence, which reads like an end.
        if !self.received_fin || !self.sent_fin {
            self.reset();
        }
    }
}
