//! The paths of `connect-tcp` requests: built and parsed by the rules of RFC 9298 §2.
//!
//! A variable is percent-decoded exactly once and never repaired. What is parsed here is text: whether it is a host or
//! a service that may be reached is not this crate's business.

use std::fmt::Write;

/// The default template's fixed part (draft-ietf-httpbis-connect-tcp §3, by the rules of RFC 9298 §2).
const EGRESS_PREFIX: &str = "/.well-known/masque/tcp/";
/// Relay streams: same mapping, targets are names.
const SERVICE_PREFIX: &str = "/relay/v1/";
/// GET here with a relay credential is answered with a good status where that credential opens streams now, else with the
/// refusal they would get: a client shows it before it says that it is connected.
pub const PROOF_PATH: &str = SERVICE_PREFIX;
/// POST here with a relay credential is answered with a fresh one, as JSON: `{token, expiresAt}`.
pub const TOKEN_PATH: &str = "/relay/v1/token";
/// Accept streams: the same again, for listeners of the sandbox.
const LISTENER_PREFIX: &str = "/relay/v1/listeners/";
/// GET here with an egress credential and a name behind it: may the session reach that name on any port?
const NAME_PREFIX: &str = "/egress/v1/names/";
/// A host name has at most 253 octets, an IPv6 literal fewer; a service name fewer still.
const VARIABLE_MAX: usize = 255;

/// What a `connect-tcp` request asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Handshake {
    /// A host service by name.
    Service {
        /// The name as sent, percent-decoded.
        name: String,
    },
    /// A listener of the sandbox, offered to its host: accepted only once the host dials it.
    Listener {
        /// The name as sent, percent-decoded.
        name: String,
    },
    /// An egress target.
    Egress {
        /// `target_host` as sent, percent-decoded: a name, an IPv4 or an unbracketed IPv6 literal.
        host: String,
        /// `target_port`, 1 to 65535.
        port: u16,
    },
}

/// Why a path is not a `connect-tcp` request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PathError {
    /// Neither template matches: there is nothing at this path.
    #[error("no connect-tcp template matches this path")]
    Unknown,
    /// A variable is empty, too long, badly encoded, or not text.
    #[error("the path's variable is malformed")]
    Variable,
    /// `target_port` is not a number from 1 to 65535 without leading zeros.
    #[error("the path's port is not a number from 1 to 65535")]
    Port,
}

impl Handshake {
    /// Parse the path of a request, as sent.
    ///
    /// # Errors
    /// See [`PathError`]. A query is part of no template and makes the variable malformed.
    pub fn parse(path: &str) -> Result<Self, PathError> {
        // The longer prefix first; a service's name has no slash, so that neither hides the other.
        if let Some(name) = path.strip_prefix(LISTENER_PREFIX) {
            return Ok(Self::Listener {
                name: decode(name)?,
            });
        }
        if let Some(name) = path.strip_prefix(SERVICE_PREFIX) {
            return Ok(Self::Service {
                name: decode(name)?,
            });
        }
        let rest = path.strip_prefix(EGRESS_PREFIX).ok_or(PathError::Unknown)?;
        let rest = rest.strip_suffix('/').ok_or(PathError::Variable)?;
        let (host, port) = rest.split_once('/').ok_or(PathError::Variable)?;
        let host = decode(host)?;
        let port = decode(port)?;
        let canonical = port.bytes().all(|b| b.is_ascii_digit()) && !port.starts_with('0');
        match port.parse() {
            Ok(port) if canonical => Ok(Self::Egress { host, port }),
            _ => Err(PathError::Port),
        }
    }

    /// The path that asks for it.
    pub fn path(&self) -> String {
        match self {
            Self::Service { name } => service_path(name),
            Self::Listener { name } => listener_path(name),
            Self::Egress { host, port } => egress_path(host, *port),
        }
    }
}

/// The path of a relay stream to `service`.
pub fn service_path(service: &str) -> String {
    let mut path = SERVICE_PREFIX.to_owned();
    encode(service, &mut path);
    path
}

/// The path of an accept stream for `listener`.
pub fn listener_path(listener: &str) -> String {
    let mut path = LISTENER_PREFIX.to_owned();
    encode(listener, &mut path);
    path
}

/// The path of an egress stream. IPv6 literals go without brackets, their colons encoded (RFC 9298 §2).
pub fn egress_path(host: &str, port: u16) -> String {
    let mut path = EGRESS_PREFIX.to_owned();
    encode(host, &mut path);
    // Writing to a String cannot fail.
    let _ = write!(path, "/{port}/");
    path
}

/// The path that asks whether a name may be reached.
pub fn name_path(name: &str) -> String {
    let mut path = NAME_PREFIX.to_owned();
    encode(name, &mut path);
    path
}

/// The name a path asks about, as sent and percent-decoded; `None` where it asks something else.
///
/// # Errors
/// It is no text, too long, or has what no name has: what stands in the path instead.
pub fn asked_name(path: &str) -> Option<Result<String, &str>> {
    let segment = path.strip_prefix(NAME_PREFIX)?;
    Some(decode(segment).map_err(|_| segment))
}

/// Everything but RFC 3986 `unreserved` is encoded: what simple string expansion (RFC 6570 §3.2.2) leaves alone.
fn encode(text: &str, path: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            let _ = write!(path, "%{byte:02X}");
        }
    }
}

fn decode(segment: &str) -> Result<String, PathError> {
    if segment.is_empty() || segment.len() > 3 * VARIABLE_MAX {
        return Err(PathError::Variable);
    }
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let high = bytes.next().and_then(hex).ok_or(PathError::Variable)?;
                let low = bytes.next().and_then(hex).ok_or(PathError::Variable)?;
                high << 4 | low
            }
            b'/' | b'?' | b'#' | b'\\' => return Err(PathError::Variable),
            byte => byte,
        });
    }
    // A control character, a separator or an escape that appears by decoding is an attempt at something else.
    let bad = |b: &u8| !b.is_ascii_graphic() || b"/?#\\%@".contains(b);
    if decoded.len() > VARIABLE_MAX || decoded.iter().any(bad) {
        return Err(PathError::Variable);
    }
    String::from_utf8(decoded).map_err(|_| PathError::Variable)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|d| u8::try_from(d).ok())
}

#[cfg(test)]
mod tests;
