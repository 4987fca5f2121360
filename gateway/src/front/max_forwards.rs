//! `Max-Forwards` of OPTIONS and TRACE (RFC 9110 §7.6.2): counted down, and answered here where the count is over.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use sluicegate_policy::Denial;

use super::body::ResponseBody;

/// Nobody has more neighbours; a larger count is lowered to it, as §7.6.2 allows.
const MOST: u64 = u32::MAX as u64;

/// Fields a TRACE must not reflect (RFC 9110 §9.3.8): they hold, or may hold, credentials.
const SENSITIVE: [HeaderName; 3] = [
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::COOKIE,
];

/// Count the request down.
///
/// # Errors
/// A count that is none, or two of them.
pub(super) fn is_final(method: &Method, headers: &mut HeaderMap) -> Result<bool, Denial> {
    // Every other method ignores the field.
    if !matches!(*method, Method::OPTIONS | Method::TRACE) {
        return Ok(false);
    }
    let mut values = headers.get_all(header::MAX_FORWARDS).iter();
    let (first, second) = (values.next(), values.next());
    let Some(first) = first else {
        return Ok(false);
    };
    let digits = first
        .to_str()
        .ok()
        .filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    let (Some(digits), None) = (digits, second) else {
        return Err(Denial::MalformedRequest);
    };
    match digits
        .parse::<u64>()
        .unwrap_or(MOST)
        .min(MOST)
        .checked_sub(1)
    {
        None => Ok(true),
        Some(left) => {
            headers.insert(header::MAX_FORWARDS, HeaderValue::from(left));
            Ok(false)
        }
    }
}

/// The answer of the last recipient: nothing for OPTIONS, the request itself for TRACE.
pub(super) fn answer<B>(request: &Request<B>) -> Response<ResponseBody> {
    if *request.method() != Method::TRACE {
        return Response::new(ResponseBody::empty());
    }
    let mut seen = format!("TRACE {} {:?}\r\n", request.uri(), request.version()).into_bytes();
    for (name, value) in request.headers() {
        if !SENSITIVE.contains(name) {
            seen.extend_from_slice(name.as_str().as_bytes());
            seen.extend_from_slice(b": ");
            seen.extend_from_slice(value.as_bytes());
            seen.extend_from_slice(b"\r\n");
        }
    }
    seen.extend_from_slice(b"\r\n");
    let mut answer = Response::new(ResponseBody::whole(Bytes::from(seen)));
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("message/http"),
    );
    answer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn counted(method: &Method, values: &[&'static str]) -> (Result<bool, Denial>, Option<String>) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::MAX_FORWARDS, HeaderValue::from_static(value));
        }
        let is_final = is_final(method, &mut headers);
        let left = headers.get(header::MAX_FORWARDS);
        (is_final, left.map(|left| left.to_str().unwrap().to_owned()))
    }

    #[test]
    fn the_count_goes_down_and_ends_here() {
        for method in [Method::OPTIONS, Method::TRACE] {
            assert_eq!(counted(&method, &[]), (Ok(false), None));
            assert_eq!(counted(&method, &["0"]).0, Ok(true));
            assert_eq!(counted(&method, &["000"]).0, Ok(true));
            assert_eq!(counted(&method, &["1"]), (Ok(false), Some("0".into())));
            assert_eq!(counted(&method, &["10"]), (Ok(false), Some("9".into())));
            let huge = counted(&method, &["99999999999999999999999999"]);
            assert_eq!(huge, (Ok(false), Some("4294967294".into())));
            for none in ["", "-1", "1.0", "+1", "1, 2", "x"] {
                assert_eq!(
                    counted(&method, &[none]).0,
                    Err(Denial::MalformedRequest),
                    "{none}"
                );
            }
            assert_eq!(
                counted(&method, &["1", "1"]).0,
                Err(Denial::MalformedRequest)
            );
        }
    }

    #[test]
    fn other_methods_ignore_it() {
        assert_eq!(counted(&Method::GET, &["0"]), (Ok(false), Some("0".into())));
        assert_eq!(counted(&Method::POST, &["x", "y"]).0, Ok(false));
    }
}
