//! Who asks on a loopback port may be a web page that had its own name point here (DNS rebinding): it says that name in `Host`, and
//! where it comes from in `Origin`. A name of this machine is all that is answered to.

use std::net::IpAddr;

use http::{HeaderMap, Request, StatusCode, Uri, header, uri::Authority};

/// Why this request is not answered: 421 under another name (RFC 9110 §7.4), 403 to a page from elsewhere.
pub(super) fn refusal<B>(request: &Request<B>) -> Option<StatusCode> {
    let named = match request.uri().authority() {
        // RFC 9112 §3.2.2: in absolute-form it stands for Host.
        Some(authority) => is_here(authority.as_str()),
        None => true,
    };
    if !named || !all(request.headers(), &header::HOST, is_here) {
        return Some(StatusCode::MISDIRECTED_REQUEST);
    }
    if !request.headers().contains_key(header::HOST) && request.version() != http::Version::HTTP_10
    {
        return Some(StatusCode::BAD_REQUEST);
    }
    let from_here = all(request.headers(), &header::ORIGIN, |origin| {
        let origin = origin.parse::<Uri>().ok();
        let authority = origin.as_ref().and_then(Uri::authority);
        authority.is_some_and(|authority| is_here(authority.as_str()))
    });
    (!from_here).then_some(StatusCode::FORBIDDEN)
}

fn all(fields: &HeaderMap, name: &header::HeaderName, good: impl Fn(&str) -> bool) -> bool {
    let mut values = fields.get_all(name).iter();
    values.all(|value| value.to_str().is_ok_and(&good))
}

/// `localhost` or a loopback address, with a port or without.
fn is_here(text: &str) -> bool {
    let Ok(authority) = text.parse::<Authority>() else {
        return false;
    };
    let host = authority.host();
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    let address = literal.parse::<IpAddr>();
    !text.contains('@')
        && (host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http::{Request, StatusCode, Version, header};

    use super::refusal;

    fn asked(target: &str, host: Option<&str>, origin: Option<&str>) -> Option<StatusCode> {
        let mut request = Request::get(target);
        for (name, value) in [(header::HOST, host), (header::ORIGIN, origin)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        refusal(&request.body(()).unwrap())
    }

    /// Vector 129.
    #[test]
    fn v129_no_page_of_elsewhere_is_told() {
        let misdirected = Some(StatusCode::MISDIRECTED_REQUEST);
        for host in [
            "127.0.0.1:9900",
            "localhost",
            "LOCALHOST:80",
            "[::1]:9900",
            "127.9.9.9",
        ] {
            assert_eq!(asked("/status", Some(host), None), None, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9900",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "0.0.0.0:9900",
            "localhost@evil.example",
            "evil.example@localhost",
            "",
        ] {
            assert_eq!(asked("/status", Some(host), None), misdirected, "{host}");
        }
        let absolute = asked("http://evil.example/status", Some("localhost"), None);
        assert_eq!(absolute, misdirected);
        let origin = |origin| asked("/status", Some("localhost"), Some(origin));
        for good in ["http://localhost:3000", "https://127.0.0.1"] {
            assert_eq!(origin(good), None, "{good}");
        }
        for bad in [
            "https://evil.example",
            "null",
            "http://localhost.evil.example",
        ] {
            assert_eq!(origin(bad), Some(StatusCode::FORBIDDEN), "{bad}");
        }
        assert_eq!(asked("/status", None, None), Some(StatusCode::BAD_REQUEST));
        let mut old = Request::get("/status").body(()).unwrap();
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(refusal(&old), None);
    }
}
