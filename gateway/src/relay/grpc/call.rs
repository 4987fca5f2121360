//! One call, from its permit to its end.

use std::future::poll_fn;

use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header, request};
use sluicegate_policy::Denial;
use sluicegate_relay::flow::Chunk;

use super::{
    exchange::{End, carry},
    status::Status,
};
use crate::{
    message::{headers, overrides},
    outcome::{Outcome, Party},
    relay::{Pool, Ticket, Upstream},
    telemetry::{Protocol, Recorder},
};

/// Carries the relay token.
pub const TOKEN: HeaderName = HeaderName::from_static("x-gestalt-host-service-relay-token");
/// Picks one of a service's bindings.
pub const BINDING: HeaderName = HeaderName::from_static("x-gestalt-host-binding");

/// A call as it came, with the means to answer it.
#[derive(Debug)]
pub struct Call {
    head: request::Parts,
    body: RecvStream,
    respond: SendResponse<Chunk>,
}

impl Call {
    /// POST with `application/grpc*`?
    pub fn is_one<B>(request: &Request<B>) -> bool {
        let content_type = request
            .headers()
            .get(header::CONTENT_TYPE)
            .map(HeaderValue::as_bytes);
        request.method() == Method::POST
            && content_type.is_some_and(|t| t.starts_with(b"application/grpc"))
    }

    /// This request.
    pub fn new(request: Request<RecvStream>, respond: SendResponse<Chunk>) -> Self {
        let (head, body) = request.into_parts();
        Self {
            head,
            body,
            respond,
        }
    }

    /// Its metadata.
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// Does it show more than one token? Two would let two readers disagree about whose call it is.
    pub fn is_of_two(&self) -> bool {
        self.head.headers.get_all(TOKEN).iter().nth(1).is_some()
    }

    /// Its path as sent, query and all: a prefix covers no path with a query.
    pub fn path(&self) -> &str {
        let path = self.head.uri.path_and_query();
        path.map_or("", |path| path.as_str())
    }

    /// What its record says of it, whatever becomes of it.
    pub fn told(&self, recorder: &mut Recorder) {
        recorder.protocol(Protocol::Http2);
        recorder.http("POST", self.head.uri.path());
    }

    /// Carry it by this right, to its end, or answer with the refusal.
    pub async fn serve(
        self,
        admitted: Result<Ticket, Status>,
        pool: &Pool,
        recorder: &mut Recorder,
    ) {
        let Self {
            head,
            body,
            mut respond,
        } = self;
        let ticket = match admitted {
            Ok(ticket) => ticket,
            Err(status) => return status.refuse(&mut respond, recorder),
        };
        let speaker = recorder.speaker();
        let upstream = tokio::select! {
            upstream = pool.take(&ticket, &speaker) => upstream,
            lost = ticket.revoked() => return Status::from(lost.told(recorder)).refuse(&mut respond, recorder),
            _ = poll_fn(|cx| respond.poll_reset(cx)) => return recorder.ended(Outcome::Reset, Party::Downstream),
        };
        let upstream = match upstream {
            Ok(upstream) => upstream,
            Err(failure) => {
                recorder.detail(&failure.detail);
                return Status::from(failure.denial).refuse(&mut respond, recorder);
            }
        };
        let Some(request) = forwarded(head, &upstream) else {
            return Status::from(Denial::MalformedRequest).refuse(&mut respond, recorder);
        };
        if let Some(address) = upstream.address {
            recorder.address(address);
        }
        recorder.opened();
        let meter = ticket.meter(recorder.counters());
        let end = carry(request, body, respond, upstream, &ticket, &meter).await;
        record(end, recorder);
    }
}

fn record(end: End, recorder: &mut Recorder) {
    recorder.status(200);
    match end {
        End::Completed(code) => {
            recorder.ended(Outcome::Completed, Party::Upstream);
            if let Some(code) = code {
                recorder.grpc_status(code);
            }
        }
        End::Reset(by) => recorder.ended(Outcome::Reset, by),
        End::Cut(lost) => {
            lost.cut(recorder);
            recorder.grpc_status(Status::from(lost.denial).code());
        }
        End::Failed(detail) => {
            recorder.grpc_status(Status::from(Denial::ServiceUnavailable).code());
            recorder.detail(detail);
            recorder.refused(&Denial::ServiceUnavailable.into());
        }
    }
}

/// The request as the service sees it: our own scheme and authority, no hop-by-hop field, no credential of ours.
fn forwarded(head: request::Parts, upstream: &Upstream) -> Option<Request<()>> {
    let path = head.uri.path_and_query()?.clone();
    let uri = Uri::builder()
        .scheme(upstream.scheme)
        .authority(upstream.authority.as_str())
        .path_and_query(path);
    let mut request = Request::new(());
    *request.method_mut() = head.method;
    *request.uri_mut() = uri.build().ok()?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = passing(head.headers);
    Some(request)
}

/// The fields that go up. A value that was shown as a token goes up under no name.
fn passing(headers: HeaderMap) -> HeaderMap {
    // Tokens are ASCII. The client chooses both what is looked for and in what: as text it is found in linear time.
    let shown = headers.get_all(TOKEN).iter();
    let tokens: Vec<String> = shown
        .filter_map(|token| token.to_str().ok())
        .filter(|token| !token.is_empty())
        .map(str::to_owned)
        .collect();
    let names_token = |value: &HeaderValue| {
        let text = String::from_utf8_lossy(value.as_bytes());
        tokens.iter().any(|token| text.contains(token.as_str()))
    };
    let mut passing = HeaderMap::new();
    let mut previous = None;
    for (name, value) in headers {
        previous = name.or(previous);
        if let Some(name) = &previous
            && passes(name, &value)
            && !names_token(&value)
        {
            passing.append(name.clone(), value);
        }
    }
    passing
}

/// What is ours stays here, what is between neighbours (RFC 9113 §8.2.2; `te: trailers` alone passes, and gRPC asks for it), and
/// what a server might read in place of the path that was judged, or as the gateway's word.
fn passes(name: &HeaderName, value: &HeaderValue) -> bool {
    if *name == header::TE {
        return value == "trailers";
    }
    let ours = [TOKEN, BINDING, header::HOST].contains(name);
    let name = name.as_str();
    let steers = headers::is_steering(name) || overrides::is_one(name);
    !(ours || steers || name.starts_with("proxy-"))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::passing;

    #[test]
    fn what_is_ours_or_between_neighbours_stays_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-gestalt-host-service-relay-token", "secret"),
            ("x-gestalt-host-service-relay-token", ""),
            ("x-gestalt-host-service-relay-token", "another"),
            ("x-gestalt-host-binding", "main"),
            ("x-gestalt_host-binding", "main"),
            ("authorization", "Bearer secret"),
            ("x-copy", "an another one"),
            ("proxy-authorization", "Basic eDp5"),
            ("host", "evil.test"),
            ("forwarded", "for=192.0.2.1"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x_real_ip", "192.0.2.1"),
            ("x-http-method-override", "DELETE"),
            ("x-original-url", "/pkg.Other/Method"),
            ("x-envoy-original-path", "/pkg.Other/Method"),
            ("te", "gzip"),
            ("te", "trailers"),
            ("x-kept", "one"),
            ("x-kept", "two"),
            ("grpc-timeout", "5S"),
        ] {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        let passing = passing(headers);
        let mut seen: Vec<_> = passing
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        seen.sort_unstable();
        let wanted: [(&str, &[u8]); 4] = [
            ("grpc-timeout", b"5S"),
            ("te", b"trailers"),
            ("x-kept", b"one"),
            ("x-kept", b"two"),
        ];
        assert_eq!(seen, wanted);
    }
}
