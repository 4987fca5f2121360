//! Whom a request names: by its target, and by Host, which may name nobody else (RFC 9112 §3.2). Spelled as the gateway's own
//! listeners take it; whether there is such a name, and whether it may be reached, is the gateway's business.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, Uri, Version, header, uri::Scheme};
use sluicegate_relay_protocol::Handshake;

use super::answer::Own;

/// The port of `http` (RFC 9110 §4.2.1).
const HTTP: u16 = 80;

/// A host, so that two spellings of one are equal.
#[derive(PartialEq, Eq, Debug)]
enum Host {
    /// In lower case, without the dot at its end.
    Name(String),
    Ip(IpAddr),
}

/// `host[:port]`.
#[derive(Debug)]
struct Named<'t> {
    host: Host,
    /// As it was written, IPv6 literals without brackets (RFC 9298 §2).
    bare: &'t str,
    port: Option<u16>,
}

impl<'t> Named<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        // A colon inside brackets belongs to the host.
        let bracket = text.rfind(']').map_or(0, |end| end + 1);
        let colon = text.get(bracket..)?.find(':').map(|at| bracket + at);
        let (written, port) = match colon {
            Some(at) => (text.get(..at)?, Some(port(text.get(at + 1..)?)?)),
            None => (text, None),
        };
        let (host, bare) = match written.strip_prefix('[') {
            // Brackets are for IPv6 addresses, which have no zones here.
            Some(rest) => {
                let inner = rest.strip_suffix(']')?;
                (Host::Ip(inner.parse::<Ipv6Addr>().ok()?.into()), inner)
            }
            None => match written.parse::<Ipv4Addr>() {
                Ok(address) => (Host::Ip(address.into()), written),
                Err(_) => (Host::Name(name(written)?), written),
            },
        };
        Some(Self { host, bare, port })
    }

    fn egress(&self, port: u16) -> Handshake {
        Handshake::Egress {
            host: self.bare.to_owned(),
            port,
        }
    }
}

/// One to five decimal digits without a leading zero, 1 to 65535.
fn port(text: &str) -> Option<u16> {
    let plain = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

/// Labels of letters, digits, `-` and `_`; one dot may stand at the end.
fn name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty() && label.bytes().all(plain)
    };
    name.split('.')
        .all(label)
        .then(|| name.to_ascii_lowercase())
}

/// Host, if there is one. HTTP/1.0 has none to ask for; that HTTP/1.1 has exactly one is seen to before.
fn host(fields: &HeaderMap) -> Result<Option<Named<'_>>, Own> {
    let Some(host) = fields.get(header::HOST) else {
        return Ok(None);
    };
    let named = host.to_str().ok().and_then(Named::parse);
    named.map(Some).ok_or(Own::Ambiguous)
}

/// The target of a CONNECT: authority-form, port included (RFC 9112 §3.2.3). Real clients leave the port out of Host.
///
/// # Errors
/// The answer to what is no such target, or where Host names another.
pub(super) fn connect(uri: &Uri, fields: &HeaderMap) -> Result<Handshake, Own> {
    if uri.scheme().is_some() || uri.path_and_query().is_some() {
        return Err(Own::Target);
    }
    let authority = uri.authority().ok_or(Own::Target)?;
    let target = Named::parse(authority.as_str()).ok_or(Own::Target)?;
    let port = target.port.ok_or(Own::Target)?;
    match host(fields)? {
        Some(host) if host.host != target.host => Err(Own::Mismatch),
        _ => Ok(target.egress(port)),
    }
}

/// The target of a request in absolute-form, `http://host[:port]/…`; https would be downgraded on the way.
///
/// # Errors
/// The answer to what is no such target, or where Host names another.
pub(super) fn absolute(uri: &Uri, version: Version, fields: &HeaderMap) -> Result<Handshake, Own> {
    if uri.scheme() != Some(&Scheme::HTTP) {
        let origin = uri.authority().is_none() && uri.path().starts_with('/');
        return Err(if origin { Own::Malformed } else { Own::Target });
    }
    let authority = uri.authority().ok_or(Own::Target)?;
    let target = Named::parse(authority.as_str()).ok_or(Own::Target)?;
    let port = target.port.unwrap_or(HTTP);
    let agrees = match host(fields)? {
        // A Host without a port is the target's; several clients leave it off where it is another than the scheme's.
        Some(host) => host.host == target.host && host.port.unwrap_or(port) == port,
        None => version == Version::HTTP_10,
    };
    agrees.then(|| target.egress(port)).ok_or(Own::Mismatch)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http::{HeaderMap, Uri, Version, header};
    use sluicegate_relay_protocol::Handshake;

    use super::{super::answer::Own, absolute, connect};

    fn to(host: &str, port: u16) -> Result<Handshake, Own> {
        Ok(Handshake::Egress {
            host: host.into(),
            port,
        })
    }

    fn fields(host: &str) -> HeaderMap {
        let mut fields = HeaderMap::new();
        if !host.is_empty() {
            fields.insert(header::HOST, host.parse().unwrap());
        }
        fields
    }

    /// What the library takes for a URI, if it does: else it does not come as far as here.
    fn uri(text: &str) -> Option<Uri> {
        text.parse().ok()
    }

    #[test]
    fn targets_of_connect() {
        let table = [
            ("a.test:443", to("a.test", 443)),
            ("A.Test.:443", to("A.Test.", 443)),
            ("[::1]:81", to("::1", 81)),
            ("1.2.3.4:1", to("1.2.3.4", 1)),
            ("_srv.a.test:65535", to("_srv.a.test", 65535)),
            ("[a.test]:443", Err(Own::Target)),
            ("[1.2.3.4]:443", Err(Own::Target)),
            ("[fe80::1%25eth0]:443", Err(Own::Target)),
            ("a.test", Err(Own::Target)),
            ("a.test:", Err(Own::Target)),
            ("a.test:0", Err(Own::Target)),
            ("a.test:+443", Err(Own::Target)),
            ("a.test:0443", Err(Own::Target)),
            ("a.test:65536", Err(Own::Target)),
            ("a.test:443:80", Err(Own::Target)),
            ("u@a.test:443", Err(Own::Target)),
            ("a..test:443", Err(Own::Target)),
            (".a.test:443", Err(Own::Target)),
            ("a%2etest:443", Err(Own::Target)),
            ("http://a.test:80/", Err(Own::Target)),
            ("/x", Err(Own::Target)),
        ];
        for (text, expected) in table {
            let Some(uri) = uri(text) else {
                assert!(expected.is_err(), "{text}");
                continue;
            };
            assert_eq!(connect(&uri, &HeaderMap::new()), expected, "{text}");
        }
    }

    #[test]
    fn targets_of_absolute_form() {
        let table = [
            ("http://a.test/x", to("a.test", 80)),
            ("http://a.test:8080", to("a.test", 8080)),
            ("http://[::1]:81/", to("::1", 81)),
            ("https://a.test/", Err(Own::Target)),
            ("ftp://a.test/", Err(Own::Target)),
            ("*", Err(Own::Target)),
            ("/x", Err(Own::Malformed)),
            ("a.test:80", Err(Own::Target)),
            ("http://u:p@a.test/", Err(Own::Target)),
            ("http://a.test:0/", Err(Own::Target)),
            ("http://a.test:+80/", Err(Own::Target)),
            ("http://a.test:080/", Err(Own::Target)),
            ("http://[a.test]/", Err(Own::Target)),
        ];
        for (text, expected) in table {
            let Some(uri) = uri(text) else {
                assert!(expected.is_err(), "{text}");
                continue;
            };
            let asked = absolute(&uri, Version::HTTP_10, &HeaderMap::new());
            assert_eq!(asked, expected, "{text}");
        }
    }

    #[test]
    fn host_names_the_target_or_nobody() {
        let (target, url) = (
            uri("a.test:443").unwrap(),
            uri("http://a.test:8080/").unwrap(),
        );
        // In a tunnel the port of Host is nothing's.
        let table = [
            ("a.test", None, None),
            ("A.test.", None, None),
            ("a.test:8080", None, None),
            ("a.test:1", None, Some(Own::Mismatch)),
            ("b.test", Some(Own::Mismatch), Some(Own::Mismatch)),
            ("a.test.b.test", Some(Own::Mismatch), Some(Own::Mismatch)),
            ("127.0.0.1", Some(Own::Mismatch), Some(Own::Mismatch)),
            ("[a.test]", Some(Own::Ambiguous), Some(Own::Ambiguous)),
            ("a.test:+8080", Some(Own::Ambiguous), Some(Own::Ambiguous)),
            ("@", Some(Own::Ambiguous), Some(Own::Ambiguous)),
        ];
        for (host, tunnel, forwarded) in table {
            let fields = fields(host);
            assert_eq!(connect(&target, &fields).err(), tunnel, "{host}");
            let asked = absolute(&url, Version::HTTP_11, &fields);
            assert_eq!(asked.err(), forwarded, "{host}");
        }
        let none = absolute(&url, Version::HTTP_11, &HeaderMap::new());
        assert_eq!(none, Err(Own::Mismatch));
    }
}
