//! The request line: method, target, version, parted by single spaces (RFC 9112 §3).

use super::HeadError;
use super::fields::is_token_byte;

/// The HTTP version of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// A sound request line.
#[derive(Clone, Copy, Debug)]
pub(super) struct StartLine<'b> {
    pub(super) method: &'b str,
    pub(super) target: &'b [u8],
    pub(super) version: Version,
}

impl<'b> StartLine<'b> {
    /// Parse a line without its CRLF, in which the scan found no control bytes.
    pub(super) fn parse(line: &'b [u8]) -> Result<Self, HeadError> {
        let mut parts = line.split(|&b| b == b' ');
        let (Some(method), Some(target), version, None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(HeadError::RequestLine);
        };
        if method.is_empty() || target.is_empty() || !method.iter().copied().all(is_token_byte) {
            return Err(HeadError::RequestLine);
        }
        let version = match version {
            Some(b"HTTP/1.1") => Version::Http11,
            Some(b"HTTP/1.0") => Version::Http10,
            // Two parts only is HTTP/0.9.
            Some(_) | None => return Err(HeadError::Version),
        };
        // HTTP/2's preface alone begins so (RFC 9113 §11.6).
        if method == b"PRI" {
            return Err(HeadError::RequestLine);
        }
        let method = std::str::from_utf8(method).map_err(|_| HeadError::RequestLine)?;
        judge_target(method, target)?;
        Ok(Self {
            method,
            target,
            version,
        })
    }
}

/// The bytes of a target that decide where a request goes are ASCII; a path may be what clients send raw. No form of target has
/// a fragment (RFC 9112 §3.2).
fn judge_target(method: &str, target: &[u8]) -> Result<(), HeadError> {
    let authority = if method == "CONNECT" {
        target
    } else if target.starts_with(b"/") {
        &[]
    } else {
        let after_scheme = target
            .windows(3)
            .position(|w| w == b"://")
            .map_or(0, |at| at + 3);
        let rest = target.get(after_scheme..).unwrap_or_default();
        let length = rest
            .iter()
            .position(|b| matches!(b, b'/' | b'?'))
            .unwrap_or(rest.len());
        target.get(..after_scheme + length).unwrap_or(target)
    };
    if !authority.is_ascii() || target.contains(&b'#') {
        Err(HeadError::Target)
    } else {
        Ok(())
    }
}
