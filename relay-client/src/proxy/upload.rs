//! A program's body on its way to the gateway.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, header};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;

/// Bytes of a body that its stream takes no more which are read and thrown away, at most.
pub(super) const MOST: u64 = 1024 * 1024;
/// They have so long to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Does the program wait to be told that its body is wanted (RFC 9110 §10.1.1)? Read as the HTTP library of either end does, or one of
/// them would wait for a word that the other never says.
pub(super) fn expects(fields: &HeaderMap) -> bool {
    let last = fields.get_all(header::EXPECT).iter().next_back();
    last.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// What becomes of a body, as its exchange sees it.
#[derive(Debug, Default)]
pub(super) struct Fate {
    /// Nobody has asked for it yet.
    waits: AtomicBool,
    /// It ended before its end, or had two meanings: its program's fault.
    broken: AtomicBool,
    /// All of it was handed on.
    ended: AtomicBool,
    over: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Fate {
    /// Of one that waits to be asked for, or of any other.
    pub(super) fn new(waits: bool) -> Arc<Self> {
        let fate = Self::default();
        fate.waits.store(waits, Ordering::Release);
        Arc::new(fate)
    }

    /// It is asked for.
    pub(super) fn go_on(&self) {
        self.waits.store(false, Ordering::Release);
        self.wake();
    }

    /// Does it wait still?
    pub(super) fn waits(&self) -> bool {
        self.waits.load(Ordering::Acquire)
    }

    /// Did it break off?
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Was all of it handed on?
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn wake(&self) {
        let waker = self
            .waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// `false`: nobody will ask any more.
    fn poll_asked(&self, cx: &mut Context<'_>) -> Poll<bool> {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        if !self.waits() {
            Poll::Ready(true)
        } else if self.over.load(Ordering::Acquire) {
            Poll::Ready(false)
        } else {
            Poll::Pending
        }
    }
}

/// The exchange's end of it: a body that was not asked for by the time this is dropped never is.
#[derive(Debug)]
pub(super) struct UploadEnd(Arc<Fate>);

impl UploadEnd {
    pub(super) fn new(fate: Arc<Fate>) -> Self {
        Self(fate)
    }
}

impl Drop for UploadEnd {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
        self.0.wake();
    }
}

/// The body. While it waits it is not read, and so its program is not told to go on.
#[derive(Debug)]
pub(super) struct Upload {
    /// There until it is dropped.
    body: Option<Incoming>,
    fate: Arc<Fate>,
    left: Option<oneshot::Sender<Incoming>>,
}

/// What is left of a body when its stream takes no more of it.
#[derive(Debug)]
pub(super) struct Left(oneshot::Receiver<Incoming>);

impl Upload {
    pub(super) fn new(body: Incoming, fate: Arc<Fate>) -> (Self, Left) {
        fate.ended.store(body.is_end_stream(), Ordering::Release);
        let (left, receiver) = oneshot::channel();
        let upload = Self {
            body: Some(body),
            fate,
            left: Some(left),
        };
        (upload, Left(receiver))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let (Some(body), Some(left)) = (self.body.take(), self.left.take()) {
            // Where nobody reads it on, it ends here.
            drop(left.send(body));
        }
    }
}

impl Left {
    /// Wait for it, and read it: the program's connection serves its next request behind it only (RFC 9112 §9.3). What is too much
    /// ends the connection.
    pub(super) async fn read(self) {
        let Ok(mut body) = self.0.await else {
            return;
        };
        let read = async {
            let mut most = MOST;
            while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                match most.checked_sub(bytes) {
                    Some(left) => most = left,
                    None => break,
                }
            }
        };
        // In time or not, what is left then is left.
        let _ = tokio::time::timeout(PATIENCE, read).await;
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        if this.fate.waits() && !ready!(this.fate.poll_asked(cx)) {
            return Poll::Ready(Some(Err(io::Error::other("the body was not asked for"))));
        }
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        if matches!(frame, Some(Err(_))) {
            this.fate.broken.store(true, Ordering::Release);
        } else if frame.is_none() || body.is_end_stream() {
            this.fate.ended.store(true, Ordering::Release);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// An answer's body. With it ends the wait of a request's that nobody asked for: then its stream is of no more use.
#[derive(Debug)]
pub(super) struct Answered {
    body: Incoming,
    _unasked: Option<UploadEnd>,
}

impl Answered {
    pub(super) fn new(body: Incoming, unasked: Option<UploadEnd>) -> Self {
        Self {
            body,
            _unasked: unasked,
        }
    }
}

impl Body for Answered {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        task::{Context, Poll, Waker},
    };

    use http::{HeaderMap, HeaderValue, header};

    use super::{Fate, UploadEnd, expects};

    #[test]
    fn what_waits_is_what_either_end_says_100_to() {
        let asked = |values: &[&'static str]| {
            let mut fields = HeaderMap::new();
            for value in values {
                fields.append(header::EXPECT, HeaderValue::from_static(value));
            }
            expects(&fields)
        };
        assert!(asked(&["100-continue"]) && asked(&["100-Continue"]));
        assert!(!asked(&[]) && !asked(&["soon"]) && !asked(&["100-continue", "soon"]));
    }

    #[tokio::test]
    async fn a_body_waits_to_be_asked_for_or_for_nothing() {
        let fate = Fate::new(true);
        let mut idle = Context::from_waker(Waker::noop());
        assert!(fate.poll_asked(&mut idle).is_pending());
        fate.go_on();
        assert!(poll_fn(|cx| fate.poll_asked(cx)).await);
        let fate = Fate::new(true);
        let end = UploadEnd::new(fate.clone());
        let (asked, ()) = tokio::join!(poll_fn(|cx| fate.poll_asked(cx)), async { drop(end) });
        assert!(!asked);
        // Who was asked in time goes on though the exchange is over.
        fate.go_on();
        assert_eq!(fate.poll_asked(&mut idle), Poll::Ready(true));
    }
}
