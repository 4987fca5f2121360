//! Field sections as messages (RFC 9114 §4): requests in, answers out.

use bytes::Bytes;
use h2::ext::Protocol;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header, uri,
};

use super::{
    frame,
    qpack::{self, Field, Unreadable},
};

/// Fields that are about a connection: a message that has one is malformed (RFC 9114 §4.2).
const OF_CONNECTIONS: [&str; 5] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

/// A request's head. Extended CONNECT has its [`Protocol`] in the extensions, as with HTTP/2.
#[derive(Debug)]
pub struct Asked {
    /// The request, without a body.
    pub head: Request<()>,
    /// What Content-Length says of its body.
    pub length: Option<u64>,
}

/// There is no request in a field section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unasked {
    /// It cannot be decoded: the connection is over.
    Coding,
    /// It is larger than allowed.
    TooLarge,
    /// It breaks a rule (RFC 9114 §4.1.2).
    Malformed,
}

impl From<Unreadable> for Unasked {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::Coding => Self::Coding,
            Unreadable::TooLarge => Self::TooLarge,
        }
    }
}

/// The request in a field section, all of whose fields count for at most `limit`.
///
/// # Errors
/// There is none.
pub fn request(section: &[u8], limit: usize) -> Result<Asked, Unasked> {
    let fields = qpack::decode(section, limit)?;
    read(fields).ok_or(Unasked::Malformed)
}

/// The fields behind a body.
///
/// # Errors
/// They are none.
pub fn trailers(section: &[u8], limit: usize) -> Result<HeaderMap, Unasked> {
    let mut trailers = HeaderMap::new();
    for field in qpack::decode(section, limit)? {
        let (name, value) = regular(&field).ok_or(Unasked::Malformed)?;
        trailers.append(name, value);
    }
    Ok(trailers)
}

/// An answer's head, or an interim one, as a HEADERS frame.
pub fn answer(answer: &Response<()>) -> Bytes {
    let section = qpack::section(&[(":status", answer.status().as_str())], answer.headers());
    frame::frame(frame::HEADERS, &section)
}

#[derive(Default)]
struct Pseudo {
    method: Option<Vec<u8>>,
    scheme: Option<Vec<u8>>,
    authority: Option<Vec<u8>>,
    path: Option<Vec<u8>>,
    protocol: Option<Vec<u8>>,
}

impl Pseudo {
    fn place(&mut self, name: &[u8]) -> Option<&mut Option<Vec<u8>>> {
        Some(match name {
            b":method" => &mut self.method,
            b":scheme" => &mut self.scheme,
            b":authority" => &mut self.authority,
            b":path" => &mut self.path,
            b":protocol" => &mut self.protocol,
            _ => return None,
        })
    }
}

fn read(fields: Vec<Field>) -> Option<Asked> {
    let mut pseudo = Pseudo::default();
    let mut headers = HeaderMap::new();
    for field in fields {
        if field.name.starts_with(b":") {
            let place = pseudo.place(&field.name)?;
            // Once, and before all others.
            if place.is_some() || !headers.is_empty() {
                return None;
            }
            *place = Some(field.value);
        } else {
            let (name, value) = regular(&field)?;
            headers.append(name, value);
        }
    }
    let length = length(&headers)?;
    let mut head = Request::new(());
    *head.method_mut() = Method::from_bytes(&pseudo.method.take()?).ok()?;
    if let Some(protocol) = &pseudo.protocol {
        if head.method() != Method::CONNECT {
            return None;
        }
        let protocol = Protocol::from(str::from_utf8(protocol).ok()?);
        head.extensions_mut().insert(protocol);
    }
    let classic = head.method() == Method::CONNECT && pseudo.protocol.is_none();
    *head.uri_mut() = target(pseudo, classic, &headers)?;
    *head.version_mut() = http::Version::HTTP_3;
    *head.headers_mut() = headers;
    Some(Asked { head, length })
}

/// RFC 9114 §4.3.1, §4.4.
fn target(pseudo: Pseudo, classic: bool, headers: &HeaderMap) -> Option<Uri> {
    let mut parts = uri::Parts::default();
    parts.authority = match pseudo.authority {
        Some(authority) => Some(uri::Authority::try_from(&*authority).ok()?),
        // It may be said as Host alone; a CONNECT must say it.
        None if !classic => {
            let host = headers.get(header::HOST)?.as_bytes();
            Some(uri::Authority::try_from(host).ok()?)
        }
        None => return None,
    };
    match (classic, pseudo.scheme, pseudo.path) {
        (true, None, None) => {}
        (false, Some(scheme), Some(path)) => {
            parts.scheme = Some(uri::Scheme::try_from(&*scheme).ok()?);
            // Empty is no path; `*` is one, of OPTIONS.
            // Nor has a path a fragment, which would be dropped.
            if !path.starts_with(b"/") && path != b"*" || path.contains(&b'#') {
                return None;
            }
            parts.path_and_query = Some(uri::PathAndQuery::try_from(&*path).ok()?);
        }
        _ => return None,
    }
    Uri::from_parts(parts).ok()
}

/// One field that is no pseudo-header field.
fn regular(field: &Field) -> Option<(HeaderName, HeaderValue)> {
    if field.name.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let name = HeaderName::from_bytes(&field.name).ok()?;
    if OF_CONNECTIONS.contains(&name.as_str()) {
        return None;
    }
    // RFC 9110 §5.5: whitespace around a value is no part of it, and a sender has none.
    if field.value.trim_ascii().len() != field.value.len() {
        return None;
    }
    if name == header::TE && field.value != b"trailers" {
        return None;
    }
    Some((name, HeaderValue::from_bytes(&field.value).ok()?))
}

/// Content-Length, once at most, in digits. The outer `None`: it is malformed.
fn length(headers: &HeaderMap) -> Option<Option<u64>> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else {
        return Some(None);
    };
    let digits = length.as_bytes();
    let number = str::from_utf8(digits).ok()?;
    if lengths.next().is_some() || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    number.parse().ok().map(Some)
}

/// 100 (Continue).
pub fn carry_on() -> Bytes {
    let mut interim = Response::new(());
    *interim.status_mut() = StatusCode::CONTINUE;
    answer(&interim)
}

/// Trailers as a HEADERS frame.
pub fn behind(trailers: &HeaderMap) -> Bytes {
    frame::frame(frame::HEADERS, &qpack::section(&[], trailers))
}

#[cfg(test)]
mod tests;
