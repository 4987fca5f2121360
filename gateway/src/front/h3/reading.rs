//! The frames of one request stream, as they come.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use sluicegate_relay::flow::{Broken, QuicReceive};

use super::{broke, number};
use crate::http3::{Code, Frames, Piece};

/// Dropped early, it tells the client to send no more: the answer does not need it.
#[derive(Debug)]
pub(super) struct Reading {
    receive: QuicReceive,
    frames: Frames,
    /// Read, not yet looked at.
    input: Bytes,
    /// Looked at before its turn.
    ahead: Option<Piece>,
    /// The client's FIN, between two frames.
    over: bool,
    failed: Option<Broken>,
    connection: quinn::Connection,
}

impl Reading {
    pub(super) fn new(receive: QuicReceive, limit: usize, connection: quinn::Connection) -> Self {
        Self {
            receive,
            frames: Frames::new(limit),
            input: Bytes::new(),
            ahead: None,
            over: false,
            failed: None,
            connection,
        }
    }

    /// What comes next; `None` is FIN.
    pub(super) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Piece>, Broken>> {
        if let Some(piece) = self.ahead.take() {
            return Poll::Ready(Ok(Some(piece)));
        }
        if let Some(broken) = self.failed {
            return Poll::Ready(Err(broken));
        }
        while !self.over {
            match self.frames.next(&mut self.input) {
                Ok(Some(piece)) => return Poll::Ready(Ok(Some(piece))),
                Ok(None) => {}
                Err(code) => return Poll::Ready(Err(self.fail(code))),
            }
            match ready!(self.receive.poll_bytes(cx)) {
                Ok(Some(bytes)) => self.input = bytes,
                // RFC 9114 §7.1: no frame ends in the middle.
                Ok(None) if !self.frames.between() => {
                    return Poll::Ready(Err(self.fail(Code::Frame)));
                }
                Ok(None) => self.over = true,
                Err(broken) => {
                    self.failed = Some(broken);
                    return Poll::Ready(Err(broken));
                }
            }
        }
        Poll::Ready(Ok(None))
    }

    /// Look whether anything follows that is there already: mostly it is FIN, and the request has no body.
    pub(super) async fn look_ahead(&mut self) {
        let looked = poll_fn(|cx| Poll::Ready(self.poll_piece(cx))).await;
        if let Poll::Ready(Ok(Some(piece))) = looked {
            self.ahead = Some(piece);
        }
    }

    /// Is it known that nothing follows?
    pub(super) fn is_over(&self) -> bool {
        self.over && self.ahead.is_none()
    }

    /// Has it been reset, though nobody reads?
    pub(super) fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        if let Some(broken) = self.failed {
            return Poll::Ready(broken);
        }
        if self.ahead.is_some() || !self.input.is_empty() {
            return Poll::Pending;
        }
        self.receive.poll_broken(cx)
    }

    /// The client broke the protocol: the connection is over.
    pub(super) fn fail(&mut self, code: Code) -> Broken {
        let broken = broke(&self.connection, code);
        self.failed = Some(broken);
        broken
    }

    /// Nothing more is wanted, and why.
    pub(super) fn stop(&mut self, code: Code) {
        self.receive.stop(number(code));
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if !self.receive.ended() {
            // RFC 9114 §4.1.1.
            self.stop(Code::NoError);
        }
    }
}
