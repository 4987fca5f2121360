//! A request's body on loan: what whoever passes the request on leaves of it comes back to whoever answers.
//!
//! A connection serves its next request only behind the whole of this one (RFC 9112 §9.3). So what is left of a refused one is read where
//! that is little, and else the refusal says that it is the last answer (§9.6).

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// Bytes of a refused body that are read and thrown away, at most.
const MOST: u64 = 64 * 1024;
/// They have so long to come: the refusal waits for them.
const PATIENCE: Duration = Duration::from_secs(1);

/// The body.
#[derive(Debug)]
pub(crate) struct Lent {
    /// There until it is dropped.
    body: Option<Incoming>,
    left: Arc<Mutex<Left>>,
}

#[derive(Debug, Default)]
struct Left {
    ended: bool,
    body: Option<Incoming>,
}

/// What will be left of it.
#[derive(Debug)]
pub(crate) struct Rest {
    left: Arc<Mutex<Left>>,
    /// Its client waits to be told to send it.
    expects: bool,
}

fn lock(left: &Mutex<Left>) -> MutexGuard<'_, Left> {
    left.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lent {
    /// The same request, and what will be left of its body.
    pub(crate) fn of(request: Request<Incoming>) -> (Request<Self>, Rest) {
        let left = Arc::new(Mutex::new(Left {
            ended: request.body().is_end_stream(),
            body: None,
        }));
        let rest = Rest {
            left: left.clone(),
            expects: request.headers().contains_key(header::EXPECT),
        };
        let lent = request.map(|body| Self {
            body: Some(body),
            left,
        });
        (lent, rest)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        lock(&self.left).body = self.body.take();
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        if frame.is_none() || body.is_end_stream() {
            lock(&this.left).ended = true;
        }
        Poll::Ready(frame)
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

impl Rest {
    /// Before a refusal is sent: these are its fields.
    pub(crate) async fn settle(self, answer: &mut HeaderMap) {
        if !answer.contains_key(header::CONNECTION) && !self.comes_to_its_end().await {
            answer.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }

    async fn comes_to_its_end(self) -> bool {
        let body = {
            let mut left = lock(&self.left);
            if left.ended {
                return true;
            }
            left.body.take()
        };
        match body {
            // To read it would be to ask for it (RFC 9110 §10.1.1).
            Some(body) if !self.expects => tokio::time::timeout(PATIENCE, read(body))
                .await
                .unwrap_or(false),
            _ => false,
        }
    }
}

/// Read to the end of it. `false`: that is too far, or never comes.
async fn read(mut body: Incoming) -> bool {
    let mut most = MOST;
    while !body.is_end_stream() {
        if body.size_hint().lower() > most {
            return false;
        }
        let frame = match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(frame)) => frame,
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        let Some(left) = most.checked_sub(bytes) else {
            return false;
        };
        most = left;
    }
    true
}
