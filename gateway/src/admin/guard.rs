//! Before any route: is this request meant for us, and whose is it?

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State as Extract},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{Problem, Seat, State, access};
use crate::auth::{AdminCredentials, Principal, TokenHash, bearer};

/// Probes that carry no credential.
const OPEN_PATHS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Host allowlist (against DNS rebinding), Origin check (against other pages), credential.
pub(super) async fn guard(
    Extract(state): Extract<State>,
    mut request: Request,
    next: Next,
) -> Response {
    let admitted = check(&state, &request).and_then(|principal| {
        let Some((principal, token)) = principal else {
            if let Some(seat) = request.extensions().get::<Arc<Seat>>() {
                seat.touch();
            }
            return Ok(None);
        };
        access::admit(&state, &principal, &mut request)?;
        let seat = request.extensions().get::<Arc<Seat>>().cloned();
        let held = seat.map(|seat| seat.hold(&principal)).transpose()?;
        request.extensions_mut().insert(principal);
        request.extensions_mut().insert(token);
        Ok(held)
    });
    match admitted {
        Ok(None) => next.run(request).await,
        // Whoever reads slowly, or a feed, is there until the end of it.
        Ok(Some(held)) => next.run(request).await.map(|body| held.until_told(body)),
        Err(problem) => problem.into_response(),
    }
}

/// Who asks, by which token; `None` on the paths that need nobody.
type Asker = Option<(Arc<Principal>, TokenHash)>;

fn check(state: &State, request: &Request) -> Result<Asker, Problem> {
    let headers = request.headers();
    if !host_allowed(headers, &state.allowed_hosts) {
        let detail = "the Host field names a host this listener does not answer to; add it to admin.allowedHosts";
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "host-not-allowed",
            detail,
        ));
    }
    for origin in headers.get_all(header::ORIGIN) {
        let listed = |allowed: &String| allowed.as_bytes() == origin.as_bytes();
        if !is_own_origin(headers, origin) && !state.allowed_origins.iter().any(listed) {
            let detail =
                "requests of other web pages are refused; add the origin to admin.allowedOrigins";
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "origin-not-allowed",
                detail,
            ));
        }
    }
    if OPEN_PATHS.contains(&request.uri().path()) {
        return Ok(None);
    }
    let presented = bearer(
        headers
            .get_all(header::AUTHORIZATION)
            .iter()
            .map(|value| value.as_bytes()),
    );
    let token = presented.map(|presented| AdminCredentials::hash(presented.reveal()));
    let found = token.ok().and_then(|token| {
        let principal = state.credentials.identify(&token)?;
        Some((principal, token))
    });
    if found.is_some() {
        return Ok(found);
    }
    let detail = "send an admin credential as Authorization: Bearer; the file admin.token in the state directory holds it";
    Err(Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        detail,
    ))
}

/// Does a page that came from where this request goes ask? (The host was judged before.)
fn is_own_origin(headers: &HeaderMap, origin: &HeaderValue) -> bool {
    let authority = origin.to_str().ok().and_then(|text| text.split_once("://"));
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    authority.is_some_and(|(scheme, authority)| {
        matches!(scheme, "http" | "https")
            && host.is_some_and(|host| host.eq_ignore_ascii_case(authority.as_bytes()))
    })
}

/// Exactly one Host, and one of ours: loopback names and addresses, or a configured one. The port does not matter.
fn host_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    let mut values = headers.get_all(header::HOST).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    let Ok(authority) = value
        .to_str()
        .unwrap_or_default()
        .parse::<http::uri::Authority>()
    else {
        return false;
    };
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let address = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    address
        .parse::<IpAddr>()
        .is_ok_and(|ip| ip.to_canonical().is_loopback())
        || host.eq_ignore_ascii_case("localhost")
        || allowed.iter().any(|own| {
            own.eq_ignore_ascii_case(host) || own.eq_ignore_ascii_case(authority.as_str())
        })
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )]
    use super::*;

    #[test]
    fn only_our_own_hosts_are_answered() {
        let configured = ["gateway.internal".to_owned()];
        let allowed = |hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, host.parse().unwrap());
            }
            host_allowed(&headers, &configured)
        };
        for host in [
            "localhost",
            "LOCALHOST:9443",
            "127.0.0.1",
            "127.0.0.1:9443",
            "127.8.8.8",
            "[::1]:9443",
            "gateway.internal",
            "Gateway.Internal:1",
        ] {
            assert!(allowed(&[host]), "{host}");
        }
        for host in [
            "evil.test",
            "localhost.evil.test",
            "127.0.0.1.nip.io",
            "10.0.0.1",
            "user@localhost",
            "evil.test@localhost",
            "",
            "localhost, evil.test",
            "0.0.0.0",
            "2130706433",
        ] {
            assert!(!allowed(&[host]), "{host}");
        }
        assert!(!allowed(&[]), "none");
        assert!(host_allowed(
            &{
                let mut headers = HeaderMap::new();
                headers.append(header::HOST, "[2001:db8::1]:9443".parse().unwrap());
                headers
            },
            &["[2001:db8::1]".to_owned()]
        ));
        assert!(!allowed(&["localhost", "localhost"]), "two");
    }
    #[test]
    fn a_page_of_ours_is_told_by_where_it_came_from() {
        let own = |host: &str, origin: &str| {
            let mut headers = HeaderMap::new();
            headers.append(header::HOST, host.parse().unwrap());
            is_own_origin(&headers, &origin.parse().unwrap())
        };
        assert!(own("127.0.0.1:9443", "http://127.0.0.1:9443"));
        assert!(own("gateway.internal", "https://Gateway.Internal"));
        for other in [
            "null",
            "http://127.0.0.1:9444",
            "http://evil.test",
            "file://127.0.0.1:9443",
            "127.0.0.1:9443",
        ] {
            assert!(!own("127.0.0.1:9443", other), "{other}");
        }
    }
}
