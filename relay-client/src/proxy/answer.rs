//! What the proxy says in HTTP: the gateway's refusals as they are, and a few of its own in the same form.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full};
use serde_json::json;

use super::{notice::Why, upload::Answered};
use crate::{
    request::HeadError,
    session::SessionError,
    transport::{OpenError, Refused},
};

/// Whole, or the upstream's as it comes.
pub(super) type Body = Either<Full<Bytes>, Answered>;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// A refusal of the proxy's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Own {
    /// Another user's process asks.
    Peer,
    /// Not a request for a proxy.
    Malformed,
    /// It has two meanings, or none.
    Ambiguous,
    /// Its target is no host and port.
    Target,
    /// Its Host names another host than its target.
    Mismatch,
    /// Its head is too large.
    TooLarge,
    /// Its body ended before its end, or has two meanings.
    BrokenOff,
    /// The gateway cannot be reached.
    Unreachable,
    /// It takes no further connection, and those there are are full.
    Full,
    /// It did not answer in time.
    Timeout,
    /// The stream ended before its answer.
    Cut,
}

impl Own {
    /// Status, reason token, `error` of Proxy-Status (RFC 9209 §2.3), and a sentence.
    fn said(self) -> (StatusCode, &'static str, &'static str, &'static str) {
        match self {
            Self::Peer => (
                StatusCode::FORBIDDEN,
                "peer_not_allowed",
                "http_request_denied",
                "This proxy serves the user who started it only.",
            ),
            Self::Malformed => (
                StatusCode::BAD_REQUEST,
                "malformed_request",
                "http_request_error",
                "This is a proxy: CONNECT host:port, or a request for http://host/.",
            ),
            // The words of the gateway, whose listeners refuse the same.
            Self::Ambiguous => (
                StatusCode::BAD_REQUEST,
                "malformed_request",
                "http_request_error",
                "The request is malformed.",
            ),
            Self::Target => (
                StatusCode::BAD_REQUEST,
                "malformed_target",
                "http_request_error",
                "The target is not a host and port.",
            ),
            Self::Mismatch => (
                StatusCode::BAD_REQUEST,
                "host_mismatch",
                "http_request_error",
                "The Host field names another host than the target.",
            ),
            Self::TooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "header_too_large",
                "http_request_error",
                "The request's head is too large.",
            ),
            Self::BrokenOff => (
                StatusCode::BAD_REQUEST,
                "malformed_request",
                "http_request_error",
                "The request's body broke off, or is malformed.",
            ),
            Self::Unreachable => (
                StatusCode::BAD_GATEWAY,
                "gateway_unreachable",
                "destination_unavailable",
                "The gateway cannot be reached.",
            ),
            Self::Full => (
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_streams",
                "connection_limit_reached",
                "Every connection to the gateway carries all the streams it has room for.",
            ),
            Self::Timeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "gateway_timeout",
                "http_response_timeout",
                "The gateway did not answer in time.",
            ),
            Self::Cut => (
                StatusCode::BAD_GATEWAY,
                "upstream_reset",
                "connection_terminated",
                "The upstream closed before it answered.",
            ),
        }
    }

    /// Why nothing was asked of the gateway.
    pub(super) fn why(self) -> Why {
        match self {
            Self::Target => Why::Target,
            Self::Mismatch => Why::Mismatch,
            Self::TooLarge => Why::TooLarge,
            _ => Why::Malformed,
        }
    }

    /// The answer. It is the connection's last where what was sent may be read another way.
    pub(super) fn response(self) -> Response<Body> {
        let mut response = self.said_whole();
        if response.status().is_client_error() {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        response.map(|body| Either::Left(Full::new(body)))
    }

    fn said_whole(self) -> Response<Bytes> {
        let (status, reason, error, sentence) = self.said();
        let body = json!({"error": sentence, "reason": reason});
        let mut response = bare(status, format!("{body}\n").into());
        let fields = response.headers_mut();
        fields.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        let said = format!("sluicegate-relay; error={error}; details=\"{reason}\"");
        if let Ok(said) = HeaderValue::from_str(&said) {
            fields.insert(PROXY_STATUS, said);
        }
        response
    }
}

/// Of a head that is not sound.
impl From<HeadError> for Own {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::TooLarge => Self::TooLarge,
            HeadError::Target => Self::Target,
            _ => Self::Ambiguous,
        }
    }
}

/// Why a stream did not open, as an answer.
pub(super) fn failed(error: &SessionError) -> Response<Body> {
    why(error).map(|body| Either::Left(Full::new(body)))
}

fn why(error: &SessionError) -> Response<Bytes> {
    match error {
        SessionError::Open(OpenError::Refused(refused)) => passed_on(refused),
        SessionError::Full(..) | SessionError::Open(OpenError::Full(_)) => Own::Full.said_whole(),
        SessionError::Open(OpenError::Timeout(_)) => Own::Timeout.said_whole(),
        _ => Own::Unreachable.said_whole(),
    }
}

/// The same as the bytes of a last HTTP/1.1 answer, for a connection that nobody serves.
pub fn refusal(error: &SessionError) -> Bytes {
    let response = why(error);
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or("Refused");
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in response.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    let length = response.body().len();
    let end = format!("Content-Length: {length}\r\nConnection: close\r\n\r\n");
    bytes.extend_from_slice(end.as_bytes());
    bytes.extend_from_slice(response.body());
    bytes.into()
}

/// The gateway's refusal. Its 401 asks for a credential the program does not have: to the program that is a no.
fn passed_on(refused: &Refused) -> Response<Bytes> {
    let status = match refused.status {
        StatusCode::UNAUTHORIZED => StatusCode::FORBIDDEN,
        status => status,
    };
    let mut response = bare(status, refused.answer.body.clone());
    for name in [
        header::CONTENT_TYPE,
        header::CACHE_CONTROL,
        header::RETRY_AFTER,
        PROXY_STATUS,
    ] {
        if let Some(value) = refused.answer.fields.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

pub(super) fn whole(status: StatusCode, body: Bytes) -> Response<Body> {
    bare(status, body).map(|body| Either::Left(Full::new(body)))
}

fn bare(status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{sync::Arc, time::Duration};

    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::{Own, failed};
    use crate::{
        session::SessionError,
        transport::{Answer, OpenError, Refused},
    };

    fn refused(status: StatusCode) -> SessionError {
        let mut fields = HeaderMap::new();
        for (name, value) in [
            ("proxy-status", "sluicegate; error=http_request_denied"),
            ("www-authenticate", "Bearer"),
            ("connection", "close"),
        ] {
            fields.insert(name, HeaderValue::from_static(value));
        }
        let refused = Refused {
            status,
            reason: "host_not_allowed".into(),
            hint: None,
            request_id: None,
            answer: Arc::new(Answer {
                fields,
                body: "{}".into(),
            }),
        };
        SessionError::Open(OpenError::Refused(refused))
    }

    #[test]
    fn a_last_answer_is_whole() {
        let bytes = super::refusal(&refused(StatusCode::FORBIDDEN));
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        assert!(text.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{text}");
        assert!(text.contains("\r\nproxy-status: sluicegate;"), "{text}");
        assert!(text.ends_with("Content-Length: 2\r\nConnection: close\r\n\r\n{}"));
    }

    #[test]
    fn a_refusal_is_passed_on_and_an_outage_is_none() {
        let table = [
            (refused(StatusCode::FORBIDDEN), 403),
            (refused(StatusCode::TOO_MANY_REQUESTS), 429),
            // The program has no credential to give.
            (refused(StatusCode::UNAUTHORIZED), 403),
            (SessionError::NotConnected(Duration::ZERO), 502),
            (OpenError::Timeout(Duration::ZERO).into(), 504),
            (SessionError::Full(Duration::ZERO, String::new()), 503),
            (OpenError::Full(Duration::ZERO).into(), 503),
        ];
        for (error, status) in table {
            let response = failed(&error);
            assert_eq!(response.status(), status, "{error}");
            assert!(response.headers().contains_key("proxy-status"), "{error}");
            assert!(!response.headers().contains_key("www-authenticate"));
            assert!(!response.headers().contains_key("connection"));
        }
        assert_eq!(Own::Peer.response().status(), 403);
    }
}
