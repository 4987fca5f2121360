//! Bodies of requests to a service and of its answers: counted, their trailers cleaned, their ends recorded.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::{
    message::{
        Lent,
        headers::{clean_trailers, remove_spellings},
    },
    outcome::{Outcome, Party},
    telemetry::{Counters, Recorder},
};

/// A client's body on its way up.
pub(super) struct RequestBody {
    pub(super) inner: Lent,
    pub(super) counters: Arc<Counters>,
    /// Fields that are the operator's to set: not the client's in trailers either.
    pub(super) set: Vec<String>,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            let frame = frame?;
            if let Some(data) = frame.data_ref() {
                self.counters.add_up(data.len());
            }
            let mut frame = clean_trailers(frame);
            if let Some(trailers) = frame.trailers_mut() {
                for name in &self.set {
                    remove_spellings(trailers, name);
                }
            }
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer's body on its way down.
pub(super) enum ResponseBody {
    /// Ours.
    Whole(Option<Bytes>),
    /// The service's, with its record.
    Service(Box<Streaming>),
}

/// The rest of an answer.
pub(super) struct Streaming {
    inner: Incoming,
    /// `None` once it has ended.
    recorder: Option<Recorder>,
}

impl Streaming {
    pub(super) fn new(inner: Incoming, recorder: Recorder) -> Self {
        let mut streaming = Self {
            inner,
            recorder: Some(recorder),
        };
        // An answer without a body is never asked for one.
        if streaming.inner.is_end_stream() {
            streaming.end(Outcome::Completed, Party::Upstream);
        }
        streaming
    }

    fn end(&mut self, outcome: Outcome, by: Party) {
        if let Some(mut recorder) = self.recorder.take() {
            recorder.ended(outcome, by);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            None => {
                self.end(Outcome::Completed, Party::Upstream);
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                if let Some(recorder) = &mut self.recorder {
                    recorder.detail(&error);
                }
                self.end(Outcome::Reset, Party::Upstream);
                Poll::Ready(Some(Err(io::Error::other(error))))
            }
            Some(Ok(frame)) => {
                if let (Some(data), Some(recorder)) = (frame.data_ref(), &self.recorder) {
                    recorder.counters().add_down(data.len());
                }
                // The library asks no more once it knows that this was the end.
                if self.inner.is_end_stream() {
                    self.end(Outcome::Completed, Party::Upstream);
                }
                Poll::Ready(Some(Ok(clean_trailers(frame))))
            }
        }
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.end(Outcome::Reset, Party::Downstream);
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Service(streaming) => streaming.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Service(streaming) => streaming.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Self::Service(streaming) => streaming.inner.size_hint(),
        }
    }
}
