//! Absolute-form requests (RFC 9112 §3.2.2): each target is an egress stream in which the gateway reads and judges plain
//! HTTP, request by request.

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, header, uri::Scheme};
use http_body_util::Either;
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use sluicegate_relay_protocol::Handshake;
use tokio::sync::Mutex;

use super::{
    answer::{Body, Own},
    notice::Why,
    serve::{Proxy, egress},
};
use crate::flow::FlowIo;

/// Between two neighbours only (RFC 9110 §7.6.1), the program's proxy credential included: it is not for anyone.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    // Answered here: the body is read as soon as it is sent on.
    header::EXPECT,
];

/// One program's connection's requests. The stream of the last target is kept for the next request to it.
pub(super) struct Forwarder {
    proxy: Proxy,
    idle: Mutex<Option<(Handshake, SendRequest<Incoming>)>>,
}

impl Forwarder {
    pub(super) fn new(proxy: Proxy) -> Self {
        Self {
            proxy,
            idle: Mutex::new(None),
        }
    }

    /// Send one request, and answer what comes.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let asked = request.uri().clone();
        let Some((target, request)) = target(&asked).zip(rewrite(request)) else {
            let notice = &self.proxy.notice;
            notice.refused(&asked.to_string(), Why::Malformed);
            return Own::Malformed.response();
        };
        match self.exchange(target, request).await {
            Ok(answer) => {
                let mut answer = answer.map(Either::Right);
                strip(answer.headers_mut());
                answer
            }
            Err(answer) => answer,
        }
    }

    async fn exchange(
        &self,
        target: Handshake,
        request: Request<Incoming>,
    ) -> Result<Response<Incoming>, Response<Body>> {
        let idle = self.idle.lock().await.take();
        let kept = idle.filter(|(to, sender)| *to == target && !sender.is_closed());
        let mut sender = match kept {
            Some((_, sender)) => sender,
            None => self.connect(&target).await?,
        };
        let cut = |error: hyper::Error| {
            tracing::debug!(?target, %error, "no answer");
            Own::Cut.response()
        };
        sender.ready().await.map_err(cut)?;
        let answer = sender.send_request(request).await.map_err(cut)?;
        *self.idle.lock().await = Some((target, sender));
        Ok(answer)
    }

    async fn connect(&self, target: &Handshake) -> Result<SendRequest<Incoming>, Response<Body>> {
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

/// `http://host[:port]/…`; https in absolute-form would be downgraded on the way.
fn target(uri: &Uri) -> Option<Handshake> {
    if uri.scheme() != Some(&Scheme::HTTP) {
        return None;
    }
    let authority = uri.authority()?;
    egress(authority, authority.port_u16().unwrap_or(80))
}

/// Origin form, with the target's own Host (RFC 9112 §3.2.2: the one the request brought is ignored).
fn rewrite(mut request: Request<Incoming>) -> Option<Request<Incoming>> {
    let host = HeaderValue::from_str(request.uri().authority()?.as_str()).ok()?;
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
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

    use http::{HeaderMap, HeaderValue};
    use sluicegate_relay_protocol::Handshake;

    use super::{strip, target};

    #[test]
    fn targets_of_absolute_form() {
        let to = |host: &str, port| {
            Some(Handshake::Egress {
                host: host.into(),
                port,
            })
        };
        let table = [
            ("http://a.test/x", to("a.test", 80)),
            ("http://a.test:8080", to("a.test", 8080)),
            ("http://[::1]:81/", to("::1", 81)),
            ("https://a.test/", None),
            ("/x", None),
            ("a.test:80", None),
            ("http://u:p@a.test/", None),
            ("http://a.test:0/", None),
        ];
        for (uri, expected) in table {
            assert_eq!(target(&uri.parse().unwrap()), expected, "{uri}");
        }
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
