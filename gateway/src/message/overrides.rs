//! What else than its request line a request may ask for: some servers let a field or the query say another method or path.

use std::borrow::Cow;

use http::HeaderMap;

/// The method that counts, for servers that support it.
const METHODS: [&str; 5] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-method",
    "_method",
];
/// The path that counts.
const PATHS: [&str; 6] = [
    "x-original-url",
    "x-rewrite-url",
    "x-original-uri",
    "x-override-url",
    "x-envoy-original-path",
    "x-http-path-override",
];
/// The method that counts, in a query.
const IN_QUERY: &str = "_method";

/// Might a server take the value of a field of this name, in lower case, for the request's method or path?
pub(crate) fn is_one(name: &str) -> bool {
    METHODS.contains(&name) || PATHS.contains(&name)
}

/// Readings of one request that are judged. Each is judged, kept and recorded with the whole path: a query that names a method
/// five thousand times would cost the gateway five thousand paths.
pub(crate) const MOST: usize = 16;

/// Every method and path that a server may read in a request, its own first. Where methods and paths are ruled, each pair must pass:
/// a rule judges the two apart, so that no mixture of pairs which pass asks for more. `path` has its query. `None`: more than [`MOST`],
/// as no request has that means well.
pub(crate) fn readings<'r>(
    method: &'r str,
    path: &'r str,
    fields: &'r HeaderMap,
) -> Option<Vec<(Cow<'r, str>, Cow<'r, str>)>> {
    let all: Vec<_> = read_as(method, path, fields).take(MOST + 1).collect();
    (all.len() <= MOST).then_some(all)
}

fn read_as<'r>(
    method: &'r str,
    path: &'r str,
    fields: &'r HeaderMap,
) -> impl Iterator<Item = (Cow<'r, str>, Cow<'r, str>)> {
    let methods = values(fields, &METHODS)
        .chain(in_query(path))
        .map(|value| value.to_ascii_uppercase());
    let paths = values(fields, &PATHS).map(|value| path_of(&value).to_owned());
    std::iter::once((method.into(), path.into()))
        .chain(methods.map(move |method| (method.into(), path.into())))
        .chain(paths.map(move |path| (method.into(), path.into())))
}

/// What these fields say. A value that is no text is no method or path of any rule.
fn values<'r>(
    fields: &'r HeaderMap,
    names: &'r [&'static str],
) -> impl Iterator<Item = Cow<'r, str>> {
    names
        .iter()
        .flat_map(|name| fields.get_all(*name))
        .map(|value| String::from_utf8_lossy(value.as_bytes().trim_ascii()))
        .filter(|value| !value.is_empty())
}

/// Some servers part a query at `;` too.
fn in_query(path: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    query
        .split(';')
        .flat_map(|part| form_urlencoded::parse(part.as_bytes()))
        .filter(|(name, value)| name == IN_QUERY && !value.is_empty())
        .map(|(_, value)| value)
}

/// Of an absolute URI its path; anything else as it is.
fn path_of(value: &str) -> &str {
    let scheme = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    match value.split_once("://") {
        Some((before, rest)) if scheme(before) => {
            let end = rest.find(['/', '?', '#']);
            let path = end.and_then(|at| rest.get(at..)).unwrap_or_default();
            if path.starts_with('/') { path } else { "/" }
        }
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::Request;

    use super::{MOST, read_as, readings};

    fn pairs(path: &str, fields: &[(&str, &[u8])]) -> Vec<(String, String)> {
        let mut request = Request::builder();
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        read_as("POST", path, request.headers())
            .map(|(method, path)| (method.into_owned(), path.into_owned()))
            .collect()
    }

    fn pair(method: &str, path: &str) -> (String, String) {
        (method.to_owned(), path.to_owned())
    }

    #[test]
    fn a_request_of_too_many_readings_is_none() {
        let path = |ways: usize| format!("/?{}", "_method=a;".repeat(ways));
        let none = http::HeaderMap::new();
        let own = path(MOST - 1);
        assert_eq!(readings("GET", &own, &none).unwrap().len(), MOST);
        assert!(readings("GET", &path(MOST), &none).is_none());
        let mut fields = http::HeaderMap::new();
        for _ in 0..MOST {
            fields.append("x-original-url", "/a".parse().unwrap());
        }
        assert!(readings("GET", "/", &fields).is_none());
    }

    #[test]
    fn a_request_is_what_its_line_says() {
        let plain: [(&str, &[u8]); 2] = [("accept", b"*/*"), ("x-http-method-override", b" ")];
        let path = "/api?method=DELETE";
        assert_eq!(pairs(path, &plain), [pair("POST", path)]);
    }

    #[test]
    fn and_what_its_fields_and_its_query_say() {
        let fields: [(&str, &[u8]); 10] = [
            ("x-http-method-override", b"delete"),
            ("X-HTTP-Method", b"MERGE"),
            ("X-Original-Method", b"PATCH"),
            ("_method", b"purge"),
            ("x-original-url", b"/admin"),
            ("x-rewrite-url", b"http://other.test/root?x"),
            ("x-original-uri", b"http://other.test"),
            ("X-Override-URL", b"/a"),
            ("X-Envoy-Original-Path", b"/b"),
            ("X-HTTP-Path-Override", b"/c"),
        ];
        let path = "/api?a=1&%5fmethod=put";
        let all = [
            pair("POST", path),
            pair("DELETE", path),
            pair("MERGE", path),
            pair("PATCH", path),
            pair("PURGE", path),
            pair("PUT", path),
            pair("POST", "/admin"),
            pair("POST", "/root?x"),
            pair("POST", "/"),
            pair("POST", "/a"),
            pair("POST", "/b"),
            pair("POST", "/c"),
        ];
        assert_eq!(pairs(path, &fields), all);
    }

    #[test]
    fn a_path_is_what_stands_behind_the_authority() {
        for (value, path) in [
            ("/admin?next=http://h/v1/ok", "/admin?next=http://h/v1/ok"),
            ("/admin/://x/v1/ok", "/admin/://x/v1/ok"),
            ("http://h?/v1/x", "/"),
            ("http://h#/v1/x", "/"),
            ("HTTP://h/v1/x", "/v1/x"),
            ("v1", "v1"),
        ] {
            let read = pairs("/api", &[("x-original-url", value.as_bytes())]);
            assert_eq!(read.get(1).unwrap().1, path, "{value}");
        }
        let path = "/api?a=1;_method=delete";
        assert_eq!(pairs(path, &[]).get(1), Some(&pair("DELETE", path)));
    }

    #[test]
    fn what_is_no_text_passes_no_rule() {
        let read = pairs("/api", &[("x-http-method-override", b"GET\xff")]);
        assert_eq!(read.get(1).unwrap().0, "GET\u{fffd}");
    }
}
