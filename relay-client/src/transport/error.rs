//! Why there is no connection, and why a stream did not open.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use rustls::AlertDescription;

use crate::flow::Broken;

/// Until there is a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The gateway answers after it has dialled the service.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// The gateway has room for as many streams as a client opens on a connection; one that has less says so by silence.
pub(super) const ROOM_TIMEOUT: Duration = Duration::from_secs(5);
/// A refusal's body is a few hundred bytes.
pub(super) const BODY_MAX: usize = 16 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Name resolution or TCP.
    #[error("cannot reach {0}: {1}")]
    Tcp(String, #[source] io::Error),
    /// The URL's host is not a name or address a certificate could have.
    #[error("{0:?} cannot be verified: not a host name or an address")]
    Name(String),
    /// The handshake failed; an untrusted certificate says so here.
    #[error("TLS with {0} failed: {1}")]
    Tls(String, #[source] io::Error),
    /// Some other protocol was chosen.
    #[error("{0} does not speak the HTTP that was asked for")]
    Alpn(String),
    /// HTTP/2 failed.
    #[error("HTTP/2 with {0} failed: {1}")]
    Http(String, #[source] h2::Error),
    /// The peer speaks HTTP/2 but takes no extended CONNECT: not a gateway.
    #[error("{0} speaks HTTP/2 but does not take relay streams; is it the gateway's public URL?")]
    NotAGateway(String),
    /// QUIC failed; an untrusted certificate says so here.
    #[error("QUIC with {0} failed: {1}")]
    Quic(String, String),
    /// It is there, and takes nobody now.
    #[error("{0} is going down")]
    Draining(String),
    /// It never said what it thinks of the credential.
    #[error("{0} did not answer for the token: {1}")]
    Unproved(String, #[source] Box<OpenError>),
    /// Neither transport.
    #[error("{}; {}", _0.0, _0.1)]
    Neither(Box<(ConnectError, ConnectError)>),
    /// It took too long.
    #[error("{0} did not answer within {1:?}")]
    Timeout(String, Duration),
}

impl ConnectError {
    /// Why the handshake with `gateway` failed: some say in an alert that they speak no protocol of ours (RFC 7301 §3.2).
    pub(super) fn of_handshake(gateway: String, error: io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        match inner {
            Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
                Self::Alpn(gateway)
            }
            _ => Self::Tls(gateway, error),
        }
    }

    /// Has the gateway said that it goes down?
    pub fn is_draining(&self) -> bool {
        match self {
            Self::Draining(_) => true,
            Self::Neither(both) => both.0.is_draining() || both.1.is_draining(),
            _ => false,
        }
    }

    /// The host says that nobody listens there.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Tcp(_, error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// Something answered over TCP (and TLS), but not as a gateway does over HTTP/2: a middlebox may pass HTTP/1.1.
    pub fn is_of_http2(&self) -> bool {
        match self {
            Self::Alpn(_)
            | Self::Http(..)
            | Self::NotAGateway(_)
            | Self::Unproved(..)
            // Swallowed, maybe.
            | Self::Timeout(..) => true,
            Self::Neither(both) => both.0.is_of_http2() || both.1.is_of_http2(),
            Self::Tcp(..)
            | Self::Name(_)
            | Self::Tls(..)
            | Self::Quic(..)
            | Self::Draining(_) => false,
        }
    }
}

/// A stream refused by the gateway.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{status} {reason}{}", hint.as_deref().map(|h| format!(" ({h})")).unwrap_or_default())]
pub struct Refused {
    /// HTTP status.
    pub status: StatusCode,
    /// The gateway's reason token, or what else it said.
    pub reason: String,
    /// What would change it.
    pub hint: Option<String>,
    /// The id in the gateway's access record.
    pub request_id: Option<String>,
    /// The whole answer, for whoever passes it on.
    pub answer: Arc<Answer>,
}

/// Fields and body of a refusal, as they came.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answer {
    /// The fields.
    pub fields: HeaderMap,
    /// The body, or as much of it as was read.
    pub body: Bytes,
}

impl Refused {
    /// Is it the gateway going down? Then nothing was opened, and another connection may have it.
    pub fn is_draining(&self) -> bool {
        self.reason == "draining"
    }

    /// Is the credential no good, or not without something that did not come with it?
    pub fn is_of_credential(&self) -> bool {
        self.reason == "credential_invalid"
    }

    /// Is it the session that has no streams now, whatever credential of its is shown?
    pub fn is_of_session(&self) -> bool {
        matches!(
            &*self.reason,
            "session_paused" | "session_revoked" | "session_expired"
        )
    }

    /// Is it the credential or its session that is refused, and so whatever else would be opened with it?
    pub fn is_of_standing(&self) -> bool {
        let of_credential = matches!(&*self.reason, "credential_missing" | "source_not_allowed");
        self.is_of_credential() || self.is_of_session() || of_credential
    }

    /// Is it one connection more than the session may have?
    pub fn is_of_room(&self) -> bool {
        self.reason == "too_many_connections"
    }

    /// May an earlier attempt at the same open have got through?
    pub fn is_repeated(&self) -> bool {
        self.reason == "already_opened"
    }
}

/// Why a stream did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An answer, and it was no.
    #[error("refused: {0}")]
    Refused(Refused),
    /// The connection takes no more streams (GOAWAY, or it is gone) and the gateway has not seen this one: safe to try
    /// on another connection.
    #[error("the connection is going away")]
    Retired,
    /// Failed on the way.
    #[error("the stream failed: {0}")]
    Stream(#[source] h2::Error),
    /// As it says, on QUIC.
    #[error("the stream failed: {0}")]
    Broken(#[source] Broken),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The gateway lets no further stream begin on this connection.
    #[error("the gateway takes no further stream on this connection within {0:?}")]
    Full(Duration),
    /// There is no connection to open it on.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Cut off while it was being opened.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The answer is not a gateway's.
    #[error("the answer is {0}; is that the gateway's public URL?")]
    Answer(&'static str),
    /// The credential holds characters no header field takes.
    #[error("the token is not a header value")]
    Token,
}

/// As much of a refusal's body as can matter.
pub(super) async fn read_some(mut body: h2::RecvStream) -> Bytes {
    let mut read = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        read.extend_from_slice(&data);
        if read.len() > BODY_MAX {
            break;
        }
    }
    read.into()
}

/// The reason from the JSON body; else from Proxy-Status (RFC 9209 §2.1.2), else the status's own words.
pub(super) fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refused {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| {
        json.get(key)
            .and_then(serde_json::Value::as_str)
            .map(str::to_owned)
    };
    let proxy_status = || {
        headers
            .get("proxy-status")
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned)
    };
    let reason = text("reason").or_else(proxy_status);
    Refused {
        status,
        reason: reason.unwrap_or_else(|| {
            status
                .canonical_reason()
                .unwrap_or("refused")
                .to_lowercase()
        }),
        hint: text("hint"),
        request_id: text("requestId"),
        answer: Arc::new(Answer {
            fields: headers.clone(),
            body: Bytes::copy_from_slice(body),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::refused;
    use http::{HeaderMap, HeaderValue, StatusCode};

    #[test]
    fn a_refusal_says_why() {
        let mut headers = HeaderMap::new();
        let from_json = refused(
            StatusCode::FORBIDDEN,
            &headers,
            br#"{"reason":"service_not_allowed","hint":"add it","requestId":"01"}"#,
        );
        assert_eq!(
            from_json.to_string(),
            "403 Forbidden service_not_allowed (add it)"
        );
        headers.insert(
            "proxy-status",
            HeaderValue::from_static("sluicegate; error=http_request_denied"),
        );
        let from_header = refused(StatusCode::FORBIDDEN, &headers, b"<html>");
        assert_eq!(from_header.reason, "sluicegate; error=http_request_denied");
        assert_eq!(
            refused(StatusCode::NOT_FOUND, &HeaderMap::new(), b"").reason,
            "not found"
        );
    }
}
