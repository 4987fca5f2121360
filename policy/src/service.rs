//! Host services: names, addresses only the gateway knows, method prefixes.

use crate::{Host, Target, path};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

/// The name of a host service: `[a-z0-9][a-z0-9._-]{0,62}`, optionally `:binding` of the same alphabet.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ServiceName(Box<str>);

/// Why a text is not a service name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a service name")]
pub struct ServiceNameError;

impl ServiceName {
    /// Parse; nothing is repaired.
    pub fn parse(text: &str) -> Result<Self, ServiceNameError> {
        let (name, binding) = match text.split_once(':') {
            Some((name, binding)) => (name, Some(binding)),
            None => (text, None),
        };
        let valid = is_name(name) && binding.is_none_or(is_name);
        valid.then(|| Self(text.into())).ok_or(ServiceNameError)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before `:binding`.
    #[must_use]
    pub fn base(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }

    /// The part after the colon, if any.
    #[must_use]
    pub fn binding(&self) -> Option<&str> {
        self.0.split_once(':').map(|(_, binding)| binding)
    }
}

fn is_name(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.bytes().next().is_some_and(letter)
        && text
            .bytes()
            .all(|b| letter(b) || matches!(b, b'.' | b'_' | b'-'))
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which way a relay stream opens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Sandbox to host service.
    In,
    /// Host to a listener in the sandbox.
    Out,
}

/// A gRPC/HTTP path prefix matching whole segments of the path as sent: `/pkg.Cache` covers `/pkg.Cache/Get`, not `/pkg.CacheX/Get`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MethodPrefix(Box<str>);

impl MethodPrefix {
    /// Parse: starts with `/`, no empty, `.` or `..` segment, no `%`, query or fragment. One trailing slash is kept: it
    /// excludes the path without it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        path::is_prefix(text).then(|| Self(text.into()))
    }

    /// Does it cover this path? A path with a query, encoded separators or dot segments is covered by nothing.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        path::covers(&self.0, path)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where a host service listens. Only the gateway ever sees it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ServiceUrl {
    /// `unix:///absolute/path` (no `..`, no trailing slash, no abstract name).
    Unix(PathBuf),
    /// `tcp://ADDRESS:PORT` with an IP literal or `localhost`.
    Tcp(IpAddr, u16),
    /// `tls://HOST:PORT`: name verified; `host` may be a name resolved by the operator's resolver or an IP literal.
    Tls {
        /// Whom to dial, and whose certificate to ask for.
        host: Host,
        /// The port.
        port: u16,
    },
}

/// Longest path of a unix socket on Linux, `sun_path` less its closing NUL (unix(7)).
const UNIX_PATH: usize = 107;

impl ServiceUrl {
    /// Parse; the error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("{text:?} is not unix://, tcp:// or tls://"));
        };
        match scheme {
            "unix" => socket_path(rest).map(Self::Unix),
            "tcp" | "tls" => {
                let target =
                    Target::from_authority(rest).map_err(|error| format!("{rest:?}: {error}"))?;
                stream(scheme == "tls", &target)
            }
            _ => Err(format!("scheme {scheme:?} is not unix, tcp or tls")),
        }
    }
}

/// The path of a unix socket: absolute, without anything that another reader would take for more than a path.
pub(crate) fn socket_path(path: &str) -> Result<PathBuf, String> {
    let wrong = |what: &str| Err(format!("socket path {path:?} {what}"));
    let Some(rest) = path.strip_prefix('/') else {
        return wrong("is not absolute (three slashes: unix:///run/x.sock)");
    };
    if path.len() > UNIX_PATH {
        return wrong("is longer than 107 octets");
    }
    if path.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return wrong("has a control character");
    }
    if path.contains(['%', '?', '#']) {
        return wrong("has %, ? or #, which other readers take for more than a path");
    }
    if rest.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return wrong("has an empty, . or .. part, or a trailing slash");
    }
    Ok(PathBuf::from(path))
}

fn stream(tls: bool, target: &Target) -> Result<ServiceUrl, String> {
    let port = target.port();
    match target.host() {
        host if tls => Ok(ServiceUrl::Tls {
            host: host.clone(),
            port,
        }),
        Host::Ip(address) => Ok(ServiceUrl::Tcp(*address, port)),
        Host::Name(name) if name.as_str() == "localhost" => {
            Ok(ServiceUrl::Tcp(Ipv4Addr::LOCALHOST.into(), port))
        }
        Host::Name(name) => Err(format!(
            "tcp:// takes an IP address or localhost, not \"{name}\""
        )),
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address, port) => write!(f, "tcp://{}:{port}", Host::Ip(*address)),
            Self::Tls { host, port } => write!(f, "tls://{host}:{port}"),
        }
    }
}

/// How a host service is asked whether it is well.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Health {
    /// It accepts a connection (and completes a TLS handshake, where its URL is `tls://`).
    #[default]
    Connect,
    /// It is not asked.
    None,
    /// `grpc.health.v1.Health/Check` of this service (`""` = the server as a whole) says SERVING.
    Grpc(String),
    /// It answers `PING` (that it wants a password is an answer).
    Redis,
    /// It answers an SSLRequest (PostgreSQL protocol 3.0), either way.
    Postgres,
    /// `GET` of this path gives a 2xx answer.
    Http(String),
}

impl Health {
    /// Parse `connect`, `none`, `grpc`, `grpc:SERVICE`, `redis`, `postgres`, or the path of an HTTP GET.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let word = |b: u8| b.is_ascii_graphic();
        match text {
            "connect" => Some(Self::Connect),
            "none" => Some(Self::None),
            "grpc" => Some(Self::Grpc(String::new())),
            "redis" => Some(Self::Redis),
            "postgres" => Some(Self::Postgres),
            path if path.starts_with('/') && path.bytes().all(word) && !path.contains('#') => {
                Some(Self::Http(path.to_owned()))
            }
            text => {
                let name = text.strip_prefix("grpc:")?;
                (!name.is_empty() && name.bytes().all(word)).then(|| Self::Grpc(name.to_owned()))
            }
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::None => f.write_str("none"),
            Self::Grpc(name) if name.is_empty() => f.write_str("grpc"),
            Self::Grpc(name) => write!(f, "grpc:{name}"),
            Self::Redis => f.write_str("redis"),
            Self::Postgres => f.write_str("postgres"),
            Self::Http(path) => f.write_str(path),
        }
    }
}

/// An upper bound a token puts on the session's services (claim `svc`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceBound {
    /// The service.
    pub name: ServiceName,
    /// Only paths it covers, where given.
    pub method_prefix: Option<MethodPrefix>,
    /// Which way.
    pub direction: Direction,
}

#[cfg(test)]
mod tests;
