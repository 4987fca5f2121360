//! A request's body on an HTTP/3 stream, or what is to come of a tunnel.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Frame;
use sluicegate_relay::flow::Broken;

use super::reading::Reading;
use crate::http3::{self, Code, Piece};

/// Trailers may be as large as the rest of a head usually is.
const TRAILERS: usize = 16 * 1024;

/// DATA, then maybe trailers.
#[derive(Debug)]
pub(in crate::front) struct Body {
    reading: Reading,
    /// What Content-Length says is still to come.
    left: Option<u64>,
    /// Trailers have come: only FIN may follow.
    closed: bool,
}

impl Body {
    pub(super) fn new(reading: Reading, length: Option<u64>) -> Self {
        Self {
            reading,
            left: length,
            closed: false,
        }
    }

    /// The stream, for a tunnel.
    pub(super) fn into_reading(self) -> Reading {
        self.reading
    }

    /// Is it known that nothing follows, and that nothing had to?
    pub(in crate::front) fn is_over(&self) -> bool {
        self.reading.is_over() && self.left.unwrap_or_default() == 0
    }

    pub(in crate::front) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            let frame = match ready!(self.reading.poll_piece(cx)) {
                Err(broken) => Err(error(broken)),
                Ok(None) if self.left.unwrap_or_default() == 0 => return Poll::Ready(None),
                Ok(None) => Err(self.malformed()),
                Ok(Some(Piece::Data(data))) if !self.closed => {
                    if let Some(left) = &mut self.left {
                        match left.checked_sub(data.len() as u64) {
                            Some(rest) => *left = rest,
                            None => return Poll::Ready(Some(Err(self.malformed()))),
                        }
                    }
                    if data.is_empty() {
                        continue;
                    }
                    Ok(Frame::data(data))
                }
                Ok(Some(Piece::Headers(section))) if !self.closed => {
                    self.closed = true;
                    match http3::trailers(&section, TRAILERS) {
                        Ok(trailers) => Ok(Frame::trailers(trailers)),
                        Err(http3::Unasked::Coding) => {
                            Err(error(self.reading.fail(Code::DecompressionFailed)))
                        }
                        Err(_) => Err(self.malformed()),
                    }
                }
                Ok(Some(Piece::TooLarge)) => Err(self.malformed()),
                Ok(Some(_)) => Err(error(self.reading.fail(Code::FrameUnexpected))),
            };
            return Poll::Ready(Some(frame));
        }
    }

    /// RFC 9114 §4.1.2: what came is not the message that was announced.
    fn malformed(&mut self) -> io::Error {
        self.reading.stop(Code::Message);
        error(Broken::Malformed)
    }
}

fn error(broken: Broken) -> io::Error {
    io::Error::other(broken)
}
