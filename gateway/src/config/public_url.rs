//! The address the outside knows this gateway by.
use sluicegate_policy::{
    Host, Target,
    text::{Faults, Node},
};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use super::listener::is_private;

/// Scheme, host and port, and nothing after them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicUrl {
    tls: bool,
    target: Target,
}

impl PublicUrl {
    /// Read `https://HOST[:PORT]`; `http://` only for a loopback or private address, where no TLS is needed to be safe
    /// from the road.
    pub(super) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = node.string(faults)?;
        match Self::parse(text) {
            Ok(url) => Some(url),
            Err(message) => {
                faults.error_hint(
                    node.place(),
                    message,
                    "write https://HOST or https://HOST:PORT",
                );
                None
            }
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(format!("{text:?} does not begin with https://")),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err("a path, query or fragment has no place here".to_owned());
        }
        let default_port = if tls { 443 } else { 80 };
        let target = Target::from_uri_authority(authority, default_port)
            .map_err(|error| format!("{authority:?} is not a host and port: {error}"))?;
        let private = matches!(target.host(), Host::Ip(ip) if ip.is_loopback() || is_private(*ip));
        if !tls && !private {
            return Err("http:// is for loopback and private addresses only".to_owned());
        }
        Ok(Self { tls, target })
    }

    /// The URL of a public listener bound to `address`, for a gateway that was told no other; an unspecified address
    /// becomes loopback, the only place it is surely reached at.
    #[must_use]
    pub fn of_listener(address: SocketAddr) -> Option<Self> {
        let ip = match address.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        };
        Some(Self {
            tls: true,
            target: Target::new(Host::Ip(ip), address.port())?,
        })
    }

    /// Is it `https`?
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Host and port.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, usual) = if self.tls {
            ("https", 443)
        } else {
            ("http", 80)
        };
        write!(f, "{scheme}://{}", self.target.host())?;
        if self.target.port() == usual {
            Ok(())
        } else {
            write!(f, ":{}", self.target.port())
        }
    }
}
