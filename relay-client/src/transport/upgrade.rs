//! One HTTP/1.1 connection: upgraded to `connect-tcp`, or asked one thing.

use std::{io, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use rustls::{ClientConfig, pki_types::ServerName};
use sluicegate_certs::{Channel, ClientKey};
use sluicegate_relay_protocol::{
    ALPN_HTTP1, CAPSULE_PROTOCOL, CAPSULE_PROTOCOL_TRUE, CONNECT_TCP, Handshake, TAKEN,
    capsule::{DATA, Head},
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    ConnectError, Endpoint, OpenError,
    error::{BODY_MAX, CONNECT_TIMEOUT, refused},
    prover::Prover,
};
use crate::flow::{Ahead, CapsuleFlow, Flow, Shared, SocketFlow, TlsFlow};

/// TCP asks for a sign of life after this much silence, and again.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Bytes of an answer's head.
const HEAD_MAX: usize = 16 * 1024;
/// Its fields.
const FIELDS_MAX: usize = 64;

/// The TLS configuration for gateways under `trust`.
///
/// # Errors
/// As `sluicegate_certs::tls::client`.
pub fn tls(
    trust: &sluicegate_certs::TrustBundle,
) -> Result<Arc<ClientConfig>, sluicegate_certs::CertError> {
    sluicegate_certs::tls::client(trust, &[ALPN_HTTP1], None)
}

/// Connect and open one stream. `tls` is [`tls()`]'s. The answer may be long in coming: the caller knows how long it may take.
///
/// # Errors
/// [`OpenError::Connect`] where there is no connection, [`OpenError::Refused`] where the gateway says no, and the others
/// for what happens on the way.
pub async fn open(
    endpoint: &Endpoint,
    tls: &Arc<ClientConfig>,
    key: Option<Arc<ClientKey>>,
    target: &Handshake,
    token: &str,
) -> Result<Box<dyn Flow>, OpenError> {
    let connected = timeout(CONNECT_TIMEOUT, connect(endpoint, tls))
        .await
        .map_err(|_| ConnectError::Timeout(endpoint.to_string(), CONNECT_TIMEOUT))??;
    let request = request(endpoint, target, &connected.prover(key).present(token))?;
    let offer = matches!(target, Handshake::Listener { .. });
    // Given up before its answer, it is reset: no stream is to be opened on it any more.
    let abandoned = Abandoned(Some(connected.socket()));
    let opened = match connected {
        Connected::Plain(mut stream) => {
            let first = ask(&mut stream, &request).await?;
            taken(&mut stream, offer).await?;
            upgraded(SocketFlow::new(stream), first)
        }
        Connected::Tls(mut stream) => {
            let first = ask(stream.as_mut(), &request).await?;
            taken(stream.as_mut(), offer).await?;
            upgraded(TlsFlow::new(*stream), first)
        }
    };
    abandoned.not();
    Ok(opened)
}

/// Ask one thing and read the whole answer: the body of a good one.
///
/// # Errors
/// As [`open`].
pub(super) async fn whole(
    connected: Connected,
    endpoint: &Endpoint,
    method: Method,
    path: &str,
    token: Option<&str>,
) -> Result<Bytes, OpenError> {
    let authorization = match token {
        Some(token) if HeaderValue::from_str(token).is_err() => return Err(OpenError::Token),
        Some(token) => format!("Authorization: Bearer {token}\r\n"),
        None => String::new(),
    };
    let length = if method == Method::POST {
        "Content-Length: 0\r\n"
    } else {
        ""
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{length}{authorization}\r\n",
        endpoint.authority()
    );
    match connected {
        Connected::Plain(mut stream) => answer(&mut stream, &request).await,
        Connected::Tls(mut stream) => answer(stream.as_mut(), &request).await,
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    request: &str,
) -> Result<Bytes, OpenError> {
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut buffer = BytesMut::new();
    loop {
        let (status, fields, length) = read_head(stream, &mut buffer).await?;
        buffer.advance(length);
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            continue;
        }
        let body = match status {
            StatusCode::NO_CONTENT => Bytes::new(),
            _ => read_body(stream, buffer, &fields).await,
        };
        return if status.is_success() {
            Ok(body)
        } else {
            Err(OpenError::Refused(refused(status, &fields, &body)))
        };
    }
}

/// A connection whose answer is awaited.
struct Abandoned(Option<Shared>);

impl Abandoned {
    fn not(mut self) {
        self.0 = None;
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        if let Some(socket) = &self.0 {
            socket.close_resets();
        }
    }
}

fn upgraded(flow: impl Flow + 'static, first: Bytes) -> Box<dyn Flow> {
    Box::new(CapsuleFlow::upgraded(flow, first))
}

/// Connected, and nothing asked yet.
#[derive(Debug)]
pub(super) enum Connected {
    Plain(Shared),
    Tls(Box<tokio_rustls::client::TlsStream<Ahead>>),
}

impl Connected {
    /// Shows credentials on it.
    pub(super) fn prover(&self, key: Option<Arc<ClientKey>>) -> Prover {
        let channel = match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Channel::of(stream.get_ref().1),
        };
        Prover::new(key, channel)
    }

    fn socket(&self) -> Shared {
        match self {
            Self::Plain(socket) => socket.clone(),
            Self::Tls(stream) => Shared::clone(stream.get_ref().0),
        }
    }
}

/// TCP, and TLS where the gateway has it.
///
/// # Errors
/// See [`ConnectError`].
pub(super) async fn connect(
    endpoint: &Endpoint,
    tls: &Arc<ClientConfig>,
) -> Result<Connected, ConnectError> {
    let name = || endpoint.to_string();
    let tcp = endpoint
        .tcp()
        .await
        .map_err(|e| ConnectError::Tcp(name(), e))?;
    // An accept stream may wait for days: a path that is dead by then is noticed.
    let alive = TcpKeepalive::new()
        .with_time(KEEP_ALIVE)
        .with_interval(KEEP_ALIVE);
    let _ = SockRef::from(&tcp).set_tcp_keepalive(&alive);
    let tcp = Shared::from(tcp);
    tcp.no_delay();
    if !endpoint.tls {
        return Ok(Connected::Plain(tcp));
    }
    let server = ServerName::try_from(endpoint.host.clone())
        .map_err(|_| ConnectError::Name(endpoint.host.clone()))?;
    let stream = TlsConnector::from(tls.clone())
        .connect(server, Ahead::from(tcp))
        .await
        .map_err(|e| ConnectError::of_handshake(name(), e))?;
    // A middlebox that terminates TLS may know no ALPN: HTTP/1.1 is what is spoken without it (RFC 9112 §9.7).
    match stream.get_ref().1.alpn_protocol() {
        None | Some(ALPN_HTTP1) => Ok(Connected::Tls(Box::new(stream))),
        Some(_) => Err(ConnectError::Alpn(name())),
    }
}

/// Say that the dial is here: the gateway waits for that before it passes on what the host says, and asks somebody else where it
/// does not come. An empty capsule, which is no data.
async fn taken<S: AsyncWrite + Unpin>(stream: &mut S, offer: bool) -> Result<(), OpenError> {
    if offer {
        stream.write_all(Head::new(DATA, 0).as_slice()).await?;
        stream.flush().await?;
    }
    Ok(())
}

/// The request; nothing may follow it before the 101.
fn request(endpoint: &Endpoint, target: &Handshake, token: &str) -> Result<String, OpenError> {
    let path = target.path();
    let taken = match target {
        Handshake::Listener { .. } => format!("{TAKEN}: {CAPSULE_PROTOCOL_TRUE}\r\n"),
        Handshake::Service { .. } | Handshake::Egress { .. } => String::new(),
    };
    if HeaderValue::from_str(token).is_err() || !path.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(OpenError::Token);
    }
    Ok(format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: {CONNECT_TCP}\r\n\
         Authorization: Bearer {token}\r\n{CAPSULE_PROTOCOL}: {CAPSULE_PROTOCOL_TRUE}\r\n{taken}\r\n",
        endpoint.authority()
    ))
}

/// Send the request and read until the 101; what came behind it is answered.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    request: &str,
) -> Result<Bytes, OpenError> {
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut buffer = BytesMut::new();
    loop {
        let (status, fields, length) = read_head(stream, &mut buffer).await?;
        buffer.advance(length);
        if status == StatusCode::SWITCHING_PROTOCOLS {
            let ours = fields
                .get(header::UPGRADE)
                .is_some_and(|value| value.as_bytes() == CONNECT_TCP.as_bytes());
            return if ours {
                Ok(buffer.freeze())
            } else {
                Err(OpenError::Answer("a 101 to another protocol"))
            };
        }
        if !status.is_informational() {
            let body = read_body(stream, buffer, &fields).await;
            return Err(OpenError::Refused(refused(status, &fields, &body)));
        }
    }
}

async fn read_head<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
) -> Result<(StatusCode, HeaderMap, usize), OpenError> {
    loop {
        if let Some(head) = parse(buffer)? {
            return Ok(head);
        }
        if buffer.len() > HEAD_MAX {
            return Err(OpenError::Answer("a head without an end"));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

fn parse(buffer: &[u8]) -> Result<Option<(StatusCode, HeaderMap, usize)>, OpenError> {
    const NOT_HTTP: OpenError = OpenError::Answer("something that is not HTTP/1.1");
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    let length = match head.parse(buffer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(NOT_HTTP),
    };
    let status = head
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(NOT_HTTP)?;
    let mut map = HeaderMap::new();
    for field in head.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| NOT_HTTP)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| NOT_HTTP)?;
        map.append(name, value);
    }
    Ok(Some((status, map, length)))
}

/// As much of a refusal's body as can matter; the connection is not used again.
async fn read_body<S: AsyncRead + Unpin>(
    stream: &mut S,
    mut buffer: BytesMut,
    fields: &HeaderMap,
) -> Bytes {
    let length = fields
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let wanted = length.unwrap_or(BODY_MAX).min(BODY_MAX);
    while buffer.len() < wanted && matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {}
    buffer.truncate(wanted);
    buffer.freeze()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::{OpenError, ask};

    /// What `ask` makes of an answer, sent in two pieces cut at `cut`.
    async fn answered(answer: &[u8], cut: usize) -> Result<Vec<u8>, OpenError> {
        let (mut near, mut far) = duplex(64 * 1024);
        let (asked, ()) = tokio::join!(ask(&mut near, "GET / HTTP/1.1\r\n\r\n"), async {
            let mut request = [0; 18];
            far.read_exact(&mut request).await.unwrap();
            let (first, rest) = answer.split_at(cut.min(answer.len()));
            far.write_all(first).await.unwrap();
            tokio::task::yield_now().await;
            far.write_all(rest).await.unwrap();
            drop(far);
        });
        asked.map(|bytes| bytes.to_vec())
    }

    #[tokio::test]
    async fn what_follows_the_101_is_kept() {
        let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n\
            Connection: Upgrade\r\nUpgrade: connect-tcp\r\n\r\ncapsules";
        for cut in 0..answer.len() {
            assert_eq!(answered(answer, cut).await.unwrap(), b"capsules", "{cut}");
        }
    }

    #[tokio::test]
    async fn a_refusal_says_why() {
        let body = r#"{"reason":"service_not_allowed"}"#;
        let answer = format!(
            "HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        for cut in [0, 10, answer.len() - 3] {
            let error = answered(answer.as_bytes(), cut).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                "refused: 403 Forbidden service_not_allowed"
            );
        }
    }

    #[tokio::test]
    async fn anything_else_is_an_error() {
        let endless = [b"HTTP/1.1 101 x\r\n".as_slice(), &[b'a'; 20_000]].concat();
        let answers: [&[u8]; 5] = [
            b"",
            b"SSH-2.0-OpenSSH\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: connect-tcp\r\n",
            &endless,
        ];
        for answer in answers {
            let error = answered(answer, 0).await.unwrap_err();
            assert!(
                !matches!(error, OpenError::Refused(_)),
                "{error} to {}",
                answer.escape_ascii()
            );
        }
    }
}
