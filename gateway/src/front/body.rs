//! The bodies of forwarded messages: counted, bounded by the session's authority, their trailers cleaned.

use std::{
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
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

use super::{
    client_body::ClientBody,
    exchange::Exchange,
    paced::{Paced, frame_bytes},
};
use crate::{
    message::headers::clean_trailers,
    session::{Budget, Way},
    telemetry::Counters,
};

/// How long a request with `Expect: 100-continue` waits for the upstream's word before its body goes anyway (RFC 9110
/// §10.1.1 lets a client do so).
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// Set when the upstream says 100 Continue.
#[derive(Debug, Default)]
pub(super) struct Continue {
    said: Mutex<(bool, Option<Waker>)>,
}

impl Continue {
    pub(super) fn say(&self) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.0 = true;
        if let Some(waker) = said.1.take() {
            waker.wake();
        }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.0 {
            return Poll::Ready(());
        }
        said.1 = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// A client's body on its way up, as its exchange sees it.
#[derive(Debug, Default)]
struct Upload {
    whole: AtomicBool,
    /// The gateway has ended it: the byte quota is used up.
    over_quota: AtomicBool,
    over: Continue,
}

/// The exchange's end of it: whatever is not sent by the time this is dropped is not sent any more. Nobody would watch it.
#[derive(Debug)]
pub(super) struct UploadEnd(Arc<Upload>);

impl UploadEnd {
    /// Has the byte quota ended it?
    pub(super) fn is_over_quota(&self) -> bool {
        self.0.over_quota.load(Ordering::Acquire)
    }

    /// Has all of it gone up?
    pub(super) fn is_whole(&self) -> bool {
        self.0.whole.load(Ordering::Acquire)
    }
}

impl Drop for UploadEnd {
    fn drop(&mut self) {
        self.0.over.say();
    }
}

/// A client's body on its way up.
#[derive(Debug)]
pub(super) struct RequestBody {
    inner: Option<ClientBody>,
    upload: Arc<Upload>,
    counters: Arc<Counters>,
    budget: Arc<Budget>,
    /// While set, the body is not read, so that the client is not told to go on.
    wait: Option<(Arc<Continue>, Pin<Box<Sleep>>)>,
    /// Bandwidth: nothing is read meanwhile.
    paced: Paced,
}

impl RequestBody {
    pub(super) fn new(
        inner: Option<ClientBody>,
        counters: Arc<Counters>,
        budget: Arc<Budget>,
    ) -> Self {
        let upload = Arc::new(Upload::default());
        let whole = inner.as_ref().is_none_or(Body::is_end_stream);
        upload.whole.store(whole, Ordering::Release);
        Self {
            inner,
            upload,
            counters,
            budget,
            wait: None,
            paced: Paced::default(),
        }
    }

    /// For the exchange it belongs to.
    pub(super) fn end(&self) -> UploadEnd {
        UploadEnd(self.upload.clone())
    }

    /// Send nothing before the upstream has said 100, or a moment has passed.
    pub(super) fn wait_for(mut self, word: Arc<Continue>) -> Self {
        self.wait = Some((word, Box::pin(sleep(CONTINUE_WAIT))));
        self
    }
}

impl RequestBody {
    /// This part goes up now.
    fn goes(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        self.counters.add_up(frame_bytes(&frame));
        // hyper asks no more once it knows that this was the end.
        if self.is_end_stream() {
            self.upload.whole.store(true, Ordering::Release);
        }
        frame
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        if this.inner.is_some() && this.upload.over.poll(cx).is_ready() {
            return Poll::Ready(Some(Err(io::Error::other("the exchange is over"))));
        }
        if let Some((word, timer)) = &mut this.wait {
            if word.poll(cx).is_pending() && timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.wait = None;
        }
        loop {
            if let Some(frame) =
                ready!(this.paced.poll(cx, (&this.budget, Way::Up), &this.counters))
            {
                return Poll::Ready(Some(Ok(this.goes(frame))));
            }
            let Some(inner) = &mut this.inner else {
                return Poll::Ready(None);
            };
            let frame = match ready!(Pin::new(inner).poll_frame(cx)) {
                None => {
                    this.upload.whole.store(true, Ordering::Release);
                    return Poll::Ready(None);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => clean_trailers(frame),
            };
            if this.budget.spend(frame_bytes(&frame)).is_err() {
                this.upload.over_quota.store(true, Ordering::Release);
                return Poll::Ready(Some(Err(io::Error::other("byte quota"))));
            }
            if let Some(frame) = this.paced.hold(frame, &this.budget) {
                return Poll::Ready(Some(Ok(this.goes(frame))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.paced.is_empty() && self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// An answer's body on its way down.
pub(super) enum ResponseBody {
    /// Ours.
    Whole(Option<Bytes>),
    /// The upstream's, with the exchange it belongs to.
    Upstream(Box<Streaming>),
}

/// The rest of an exchange, streamed.
pub(super) struct Streaming {
    inner: Incoming,
    /// `None` once it has ended.
    exchange: Option<Exchange>,
    /// Bandwidth: nothing is read meanwhile.
    paced: Paced,
    /// It was asked for once: what sends it has its head.
    begun: bool,
}

impl Streaming {
    pub(super) fn new(inner: Incoming, exchange: Exchange) -> Self {
        let mut streaming = Self {
            inner,
            exchange: Some(exchange),
            paced: Paced::default(),
            begun: false,
        };
        // An answer without a body is never asked for one.
        if streaming.inner.is_end_stream()
            && let Some(exchange) = streaming.exchange.take()
        {
            exchange.complete();
        }
        streaming
    }
}

impl Streaming {
    /// This part goes down now.
    fn goes(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        if let Some(exchange) = &self.exchange {
            exchange.sent(frame_bytes(&frame));
        }
        // hyper asks no more once it knows that this was the end.
        if self.paced.is_empty()
            && self.inner.is_end_stream()
            && let Some(exchange) = self.exchange.take()
        {
            exchange.complete();
        }
        frame
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.downstream_left();
        }
    }
}

impl ResponseBody {
    /// Ready once its exchange must be ended, whether anybody takes its bytes or not.
    pub(super) fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self::Upstream(streaming) = self else {
            return Poll::Pending;
        };
        match &mut streaming.exchange {
            Some(exchange) => exchange.poll_cut(cx).map(drop),
            None => Poll::Pending,
        }
    }

    /// A body of ours.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes))
    }

    /// No body.
    pub(super) fn empty() -> Self {
        Self::Whole(None)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let streaming = match &mut *self {
            Self::Whole(bytes) => {
                return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))));
            }
            Self::Upstream(streaming) => streaming,
        };
        let Some(exchange) = &mut streaming.exchange else {
            return Poll::Ready(None);
        };
        let begun = std::mem::replace(&mut streaming.begun, true);
        if let Poll::Ready(lost) = exchange.poll_cut(cx) {
            if !begun {
                // The library forgets a head that it has not sent where the body fails at once, and the client would be told
                // nothing. By the next time it is sent.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(exchange) = streaming.exchange.take() {
                exchange.cut(lost);
            }
            return Poll::Ready(Some(Err(io::Error::other(lost.denial.reason()))));
        }
        loop {
            let budget = exchange.budget();
            let down = (budget, Way::Down);
            if let Some(frame) = ready!(streaming.paced.poll(cx, down, exchange.counters())) {
                return Poll::Ready(Some(Ok(streaming.goes(frame))));
            }
            let frame = match ready!(Pin::new(&mut streaming.inner).poll_frame(cx)) {
                None => {
                    if let Some(exchange) = streaming.exchange.take() {
                        exchange.complete();
                    }
                    return Poll::Ready(None);
                }
                Some(Err(error)) => {
                    if let Some(exchange) = streaming.exchange.take() {
                        exchange.upstream_broke(&error);
                    }
                    return Poll::Ready(Some(Err(io::Error::other(error))));
                }
                Some(Ok(frame)) => clean_trailers(frame),
            };
            if let Err(denial) = budget.spend(frame_bytes(&frame)) {
                if let Some(exchange) = streaming.exchange.take() {
                    exchange.cut(denial.into());
                }
                return Poll::Ready(Some(Err(io::Error::other(denial.reason()))));
            }
            if let Some(frame) = streaming.paced.hold(frame, budget) {
                return Poll::Ready(Some(Ok(streaming.goes(frame))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Upstream(streaming) => {
                streaming.exchange.is_none() && streaming.inner.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Self::Upstream(streaming) => streaming.inner.size_hint(),
        }
    }
}
