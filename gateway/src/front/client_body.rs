//! A client's body, whichever HTTP version brings it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};

use super::h3;
use crate::message::Lent;

/// The body of a request that is to be forwarded.
#[derive(Debug)]
pub(super) enum ClientBody {
    /// HTTP/1, framed by the library from judged bytes.
    Http1(Lent),
    /// HTTP/2: its stream. h2 has made sure that a Content-Length is the sum of its DATA (RFC 9113 §8.1.1).
    Http2(RecvStream),
    /// HTTP/3: its stream, which has made sure of the same (RFC 9114 §4.1.2).
    Http3(Box<h3::Body>),
}

impl From<RecvStream> for ClientBody {
    fn from(body: RecvStream) -> Self {
        Self::Http2(body)
    }
}

impl From<h3::Body> for ClientBody {
    fn from(body: h3::Body) -> Self {
        Self::Http3(Box::new(body))
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Http1(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(io::Error::other))),
            Self::Http2(stream) => {
                match ready!(stream.poll_data(cx)) {
                    Some(Ok(data)) => {
                        // Asked for only when the upstream takes it: the room is free again. Refused only for a stream
                        // that is over.
                        let _ = stream.flow_control().release_capacity(data.len());
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                    None => {}
                }
                let trailers = ready!(stream.poll_trailers(cx)).map_err(io::Error::other)?;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Self::Http3(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(stream) => stream.is_end_stream(),
            Self::Http3(body) => body.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(stream) if stream.is_end_stream() => SizeHint::with_exact(0),
            Self::Http3(body) if body.is_over() => SizeHint::with_exact(0),
            Self::Http2(_) | Self::Http3(_) => SizeHint::default(),
        }
    }
}
