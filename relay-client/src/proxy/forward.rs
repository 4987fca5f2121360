//! Absolute-form requests (RFC 9112 §3.2.2): each target is an egress stream in which the gateway reads and judges plain
//! HTTP, request by request.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Either;
use hyper::{
    body::{Body as _, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use sluicegate_relay_protocol::Handshake;
use tokio::sync::Mutex;

use super::{
    answer::{Body, Own},
    named,
    serve::Proxy,
    upload::{Answered, Fate, MOST, Upload, UploadEnd, expects},
};
use crate::flow::FlowIo;

/// Between two neighbours only (RFC 9110 §7.6.1), the program's proxy credential included: it is not for anyone.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// One program's connection's requests. The stream of the last target is kept for the next request to it.
pub(super) struct Forwarder {
    proxy: Proxy,
    idle: Mutex<Option<(Handshake, SendRequest<Upload>)>>,
}

impl Forwarder {
    pub(super) fn new(proxy: Proxy) -> Self {
        Self {
            proxy,
            idle: Mutex::new(None),
        }
    }

    /// Send one request, and answer what comes. Where its target was `pathless`, OPTIONS asks the server as a whole.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        pathless: bool,
    ) -> Response<Body> {
        let asked = request.uri().clone();
        let named = named::absolute(&asked, request.version(), request.headers());
        let rewritten = named.and_then(|target| {
            let request = rewrite(request, pathless).ok_or(Own::Target)?;
            Ok((target, request))
        });
        match rewritten {
            Ok((target, request)) => match self.exchange(target, request).await {
                Ok(answer) | Err(answer) => answer,
            },
            Err(own) => {
                let notice = &self.proxy.notice;
                notice.refused(&asked.to_string(), own.why());
                own.response()
            }
        }
    }

    async fn exchange(
        &self,
        target: Handshake,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Response<Body>> {
        let fate = Fate::new(expects(request.headers()));
        let end = UploadEnd::new(fate.clone());
        let large = request.body().size_hint().lower() > MOST;
        let (head, body) = request.into_parts();
        let (upload, left) = Upload::new(body, fate.clone());
        let mut request = Request::from_parts(head, upload);
        if fate.waits() {
            let fate = fate.clone();
            hyper::ext::on_informational(&mut request, move |informational| {
                if informational.status() == StatusCode::CONTINUE {
                    fate.go_on();
                }
            });
        }
        let cut = |error: hyper::Error| {
            tracing::debug!(?target, %error, "no answer");
            // What the program itself did not end is nobody's fault up there.
            let own = if fate.is_broken() {
                Own::BrokenOff
            } else {
                Own::Cut
            };
            own.response()
        };
        let idle = self.idle.lock().await.take();
        let mut kept = idle
            .filter(|(to, sender)| *to == target && !sender.is_closed())
            .map(|(_, sender)| sender);
        let (sender, answer) = loop {
            let (sender, anew) = match kept.take() {
                Some(sender) => (sender, false),
                None => (self.connect(&target).await?, true),
            };
            match attempt(sender, request).await {
                Ok(answered) => break answered,
                // The gateway closed what was kept meanwhile.
                Err(Failed {
                    unsent: Some(unsent),
                    ..
                }) if !anew => request = unsent,
                Err(Failed { error, .. }) => return Err(cut(error)),
            }
        };
        // On a stream whose gateway closes it, or that may take the rest of this body for it, no further request is sent (RFC 9112 §9.3,
        // §9.6).
        let (ended, closes) = (fate.has_ended(), says_close(answer.headers()));
        if ended && !closes {
            *self.idle.lock().await = Some((target, sender));
        }
        let unasked = fate.waits().then_some(end);
        if !ended && unasked.is_none() {
            self.proxy.tasks.spawn(left.read());
        }
        let mut answer = answer.map(|body| Either::Right(Answered::new(body, unasked)));
        strip(answer.headers_mut());
        if closes && !ended && large {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(header::CONNECTION, close);
        }
        Ok(answer)
    }

    async fn connect(&self, target: &Handshake) -> Result<SendRequest<Upload>, Response<Body>> {
        let stream = self.proxy.open(target).await?;
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .handshake(TokioIo::new(FlowIo::new(stream)))
            .await
            .map_err(|_| Own::Cut.response())?;
        self.proxy.tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a request's stream ended early");
            }
        });
        Ok(sender)
    }
}

/// An exchange that came to nothing.
#[derive(Debug)]
struct Failed<B> {
    error: hyper::Error,
    /// The request, where nothing of it was sent.
    unsent: Option<Request<B>>,
}

/// Send a request on a stream, and wait for its answer's head.
async fn attempt<B: hyper::body::Body + 'static>(
    mut sender: SendRequest<B>,
    request: Request<B>,
) -> Result<(SendRequest<B>, Response<Incoming>), Failed<B>> {
    if let Err(error) = sender.ready().await {
        let unsent = Some(request);
        return Err(Failed { error, unsent });
    }
    match sender.try_send_request(request).await {
        Ok(answer) => Ok((sender, answer)),
        Err(mut failed) => {
            let unsent = failed.take_message();
            let error = failed.into_error();
            Err(Failed { error, unsent })
        }
    }
}

/// Is this the last answer on its connection (RFC 9112 §9.6)?
fn says_close(fields: &HeaderMap) -> bool {
    let said = fields.get_all(header::CONNECTION).iter();
    said.filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|option| option.trim().eq_ignore_ascii_case("close"))
}

/// Origin form, with the target's own Host.
fn rewrite(mut request: Request<Incoming>, pathless: bool) -> Option<Request<Incoming>> {
    let host = HeaderValue::from_str(request.uri().authority()?.as_str()).ok()?;
    let path = request.uri().path_and_query();
    let path = match path.map_or("/", |path| path.as_str()) {
        // RFC 9112 §3.2.4.
        "/" if pathless && *request.method() == Method::OPTIONS => "*".to_owned(),
        // RFC 9112 §3.2.1: a path that is empty goes as `/`.
        query if query.starts_with('?') => format!("/{query}"),
        path => path.to_owned(),
    };
    *request.uri_mut() = path.parse().ok()?;
    *request.version_mut() = http::Version::HTTP_11;
    let fields = request.headers_mut();
    let chunked = fields.contains_key(header::TRANSFER_ENCODING);
    strip(fields);
    fields.insert(header::HOST, host);
    if chunked {
        // Said anew, or no content would be sent with a GET whose length is not known.
        let coding = HeaderValue::from_static("chunked");
        fields.insert(header::TRANSFER_ENCODING, coding);
    }
    Some(request)
}

fn strip(fields: &mut HeaderMap) {
    let named: Vec<HeaderName> = fields
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // The message's own: no client may have them stripped.
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        fields.remove(name);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, Request, header};
    use http_body_util::Empty;
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;

    use super::{attempt, says_close, strip};

    #[tokio::test]
    async fn what_was_not_sent_on_a_closed_stream_comes_back() {
        let (near, far) = tokio::io::duplex(1024);
        let (sender, connection) = http1::handshake(TokioIo::new(near)).await.unwrap();
        let request = Request::new(Empty::<Bytes>::new());
        drop(far);
        let (attempted, _closed) = tokio::join!(attempt(sender, request), connection);
        assert!(attempted.unwrap_err().unsent.is_some());
    }

    #[test]
    fn a_last_answer_says_so_in_any_spelling() {
        let said = |values: &[&'static str]| {
            let mut fields = HeaderMap::new();
            for value in values {
                fields.append(header::CONNECTION, HeaderValue::from_static(value));
            }
            says_close(&fields)
        };
        assert!(said(&["close"]) && said(&["x-hop, Close"]) && said(&["x-hop", "close"]));
        assert!(!said(&[]) && !said(&["keep-alive"]) && !said(&["closed"]));
    }

    #[test]
    fn what_is_between_neighbours_stays_here() {
        let mut fields = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-hop, host"),
            ("x-hop", "1"),
            ("host", "a.test"),
            ("proxy-authorization", "Basic eA=="),
            ("upgrade", "websocket"),
            ("authorization", "Bearer theirs"),
        ] {
            fields.insert(name, HeaderValue::from_static(value));
        }
        strip(&mut fields);
        let mut left: Vec<_> = fields.keys().map(http::HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "host"]);
    }
}
