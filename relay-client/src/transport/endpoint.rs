//! Where the gateway is.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use http::Uri;
use tokio::net::TcpStream;

/// Where the gateway is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
    /// Instead of what the name stands for, where there are any.
    at: Vec<IpAddr>,
}

/// Why a URL is not a gateway's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL.
    #[error("{0:?} is not a URL")]
    Malformed(String),
    /// `http` to where others may listen in.
    #[error("{0:?} would send the token in clear: http:// is for loopback and private addresses")]
    Clear(String),
    /// Neither `https` nor `http`.
    #[error("{0:?} is neither an https:// nor an http:// URL")]
    Scheme(String),
    /// A path, a query or a credential.
    #[error("{0:?} has more than a scheme, a host and a port")]
    Extra(String),
}

impl Endpoint {
    /// Parse `https://host[:port]`; `http://` is the same without TLS, for a private listener.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn parse(url: &str) -> Result<Self, EndpointError> {
        let malformed = || EndpointError::Malformed(url.into());
        let uri: Uri = url.parse().map_err(|_| malformed())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(EndpointError::Scheme(url.into())),
        };
        let authority = uri.authority().ok_or_else(malformed)?;
        let bare = matches!(uri.path(), "" | "/")
            && uri.query().is_none()
            && !authority.as_str().contains('@');
        if !bare {
            return Err(EndpointError::Extra(url.into()));
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(port) => port
                .strip_prefix(':')
                .and_then(|port| port.parse().ok())
                .ok_or_else(malformed)?,
            None => return Err(malformed()),
        };
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        if host.is_empty() || port == 0 {
            return Err(malformed());
        }
        // Without TLS the token would go in clear: not beyond this machine or a private network.
        if !tls && !is_private(&host) {
            return Err(EndpointError::Clear(url.into()));
        }
        Ok(Self {
            host,
            port,
            tls,
            at: Vec::new(),
        })
    }

    /// `host:port`, IPv6 literals in brackets.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The host's name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The same gateway, at these addresses and no others.
    #[must_use]
    pub fn fixed(self, at: Vec<IpAddr>) -> Self {
        Self { at, ..self }
    }

    /// The same gateway, at this address alone.
    #[must_use]
    pub fn at(&self, address: IpAddr) -> Self {
        self.clone().fixed(vec![address])
    }

    /// Where it is now.
    ///
    /// # Errors
    /// The resolver's word.
    pub async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        if !self.at.is_empty() {
            let all = self.at.iter().map(|ip| SocketAddr::new(*ip, self.port));
            return Ok(all.collect());
        }
        // The system's own resolution is right here: this is the sandbox asking for its gateway, not a target.
        #[allow(clippy::disallowed_methods, reason = "as TcpStream::connect does")]
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await?;
        Ok(found.collect())
    }

    pub(super) async fn tcp(&self) -> io::Result<TcpStream> {
        TcpStream::connect(&*self.addresses().await?).await
    }

    /// Is it reached over TLS?
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.authority())
    }
}

/// Loopback, private or link-local, written as an address (or `localhost`).
fn is_private(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => {
            ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
        }
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Endpoint, EndpointError};

    #[test]
    fn urls() {
        let good = [
            (
                "https://gateway.example:8443",
                "https://gateway.example:8443",
            ),
            ("https://gateway.example/", "https://gateway.example:443"),
            ("http://127.0.0.1", "http://127.0.0.1:80"),
            ("http://10.1.2.3:3128", "http://10.1.2.3:3128"),
            ("https://[::1]:1", "https://[::1]:1"),
        ];
        for (url, shown) in good {
            assert_eq!(Endpoint::parse(url).unwrap().to_string(), shown);
        }
        let bad = [
            "",
            "gateway:1",
            "ftp://a",
            "https://a/x",
            "https://a?token=1",
            "https://u:p@a",
            "https://a:0",
            "https://a:70000",
            "http://gateway.example",
            "http://8.8.8.8:3128",
        ];
        for url in bad {
            assert!(Endpoint::parse(url).is_err(), "{url}");
        }
        assert!(matches!(
            Endpoint::parse("ws://a"),
            Err(EndpointError::Scheme(_))
        ));
    }
}
