//! The name (or literal) and port a client asks for.

use crate::{HostError, HostName};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

// Not in a folder `target/`: many people's git ignores those everywhere.
#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;

/// A host as asked for.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Host {
    /// A name, to be resolved.
    Name(HostName),
    /// An address literal.
    Ip(IpAddr),
}

impl Host {
    /// A name, a dotted quad, or an IPv6 address in brackets, as in a URI (RFC 3986 §3.2.2, without IPvFuture and zones).
    pub fn parse(text: &str) -> Result<Self, HostError> {
        match text.strip_prefix('[') {
            Some(rest) => {
                let inner = rest.strip_suffix(']').ok_or(HostError::Ipv6)?;
                // std takes no zone, no leading zeros in an embedded dotted quad, and at most four hexadecimal digits.
                let address: Ipv6Addr = inner.parse().map_err(|_| HostError::Ipv6)?;
                Ok(Self::Ip(address.into()))
            }
            None => match text.parse::<Ipv4Addr>() {
                Ok(address) => Ok(Self::Ip(address.into())),
                // All other spellings of an address end in a number, and such names are refused.
                Err(_) => HostName::parse(text).map(Self::Name),
            },
        }
    }

    /// The same, with IPv6 addresses bare: SOCKS5 names (RFC 1928 §5), `target_host` variables (RFC 9298 §2).
    pub fn parse_bare(text: &str) -> Result<Self, HostError> {
        if text.contains(':') {
            let address: Ipv6Addr = text.parse().map_err(|_| HostError::Ipv6)?;
            return Ok(Self::Ip(address.into()));
        }
        if text.starts_with('[') {
            return Err(HostError::Ipv6);
        }
        Self::parse(text)
    }
}

impl fmt::Display for Host {
    /// IPv6 literals are bracketed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

/// Host and port asked for. The port is never 0.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Target {
    host: Host,
    port: u16,
}

/// Why a text is not a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The host part.
    #[error(transparent)]
    Host(#[from] HostError),
    /// No port where one is required, or not a port number.
    #[error("missing or malformed port")]
    Port,
    /// `user@`, which neither form takes here (RFC 9110 §4.2.4).
    #[error("userinfo is not accepted")]
    Userinfo,
}

impl Target {
    /// A target from parsed parts; `None` for port 0.
    #[must_use]
    pub fn new(host: Host, port: u16) -> Option<Self> {
        (port != 0).then_some(Self { host, port })
    }

    /// RFC 9112 §3.2.3 authority-form (CONNECT): host and port both required.
    pub fn from_authority(text: &str) -> Result<Self, TargetError> {
        let (host, port) = split(text)?;
        let port = port.ok_or(TargetError::Port).and_then(parse_port)?;
        Ok(Self {
            host: Host::parse(host)?,
            port,
        })
    }

    /// The authority of an absolute-form URI or a Host field: the port may be missing; userinfo is refused.
    pub fn from_uri_authority(text: &str, default_port: u16) -> Result<Self, TargetError> {
        let (host, port) = split(text)?;
        let port = port.map_or(Ok(default_port), parse_port)?;
        Self::new(Host::parse(host)?, port).ok_or(TargetError::Port)
    }

    /// The host asked for.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port asked for.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Host and port texts; a colon inside brackets belongs to the host.
fn split(text: &str) -> Result<(&str, Option<&str>), TargetError> {
    if text.contains('@') {
        return Err(TargetError::Userinfo);
    }
    let bracket = text.rfind(']').map_or(0, |end| end + 1);
    let Some(colon) = text.get(bracket..).and_then(|rest| rest.find(':')) else {
        return Ok((text, None));
    };
    let (host, rest) = text.split_at(bracket + colon);
    Ok((host, rest.get(1..)))
}

/// One to five decimal digits without a leading zero, 1 to 65535. A second colon or a space is no digit.
pub(crate) fn parse_port(text: &str) -> Result<u16, TargetError> {
    let canonical =
        !text.is_empty() && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    if !canonical {
        return Err(TargetError::Port);
    }
    text.parse().map_err(|_| TargetError::Port)
}
