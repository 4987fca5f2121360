//! What of a message is between two neighbours only (RFC 9110 §7.6.1), and what never goes on.

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response,
    header::{self, Entry},
};

use bytes::Bytes;
use http_body::Frame;
use sluicegate_policy::Denial;

use super::proxy_status::drop_own;
use crate::sniff::{is_twin, trailer_may_pass};

/// Hop-by-hop whatever Connection says.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-authentication-info",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Fields a client could steer other proxies or the origin by. `Proxy` is no field of HTTP: to a program behind CGI it is
/// `HTTP_PROXY`, the proxy it is to go out by (httpoxy).
const STEERING: [&str; 15] = [
    "forwarded",
    "proxy",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-method",
    "x-forwarded-path",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-forwarded-uri",
    "x-host",
    "x-original-host",
    "x-real-ip",
    "x-upstream-https-proxy",
];

/// Named in Connection or not, these are the message's own: a client may not have them stripped.
const NEVER_STRIPPED: [&str; 7] = [
    "authorization",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "origin",
    "cache-control",
];

/// The protocol asked for by `Connection: upgrade`; h2c is not offered on (RFC 9113 §3.1 withdrew it).
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked =
        tokens(headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let protocol = headers.get(header::UPGRADE)?;
    let h2c = protocol
        .to_str()
        .is_ok_and(|p| p.split(',').any(|p| p.trim().eq_ignore_ascii_case("h2c")));
    (asked && !h2c).then(|| protocol.clone())
}

/// Take off what is between neighbours; `TE: trailers` is renewed by the caller where it was there.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
        .filter(|name| {
            !NEVER_STRIPPED
                .iter()
                .any(|kept| kept.eq_ignore_ascii_case(name))
        })
        .filter_map(|name| name.parse().ok())
        .collect();
    for name in named {
        remove(headers, &name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Take off a request what is between neighbours and what must not reach an origin; how its content is framed stays as it was
/// judged.
pub(crate) fn strip_request(headers: &mut HeaderMap) {
    let chunked = headers.contains_key(header::TRANSFER_ENCODING);
    strip_hop_by_hop(headers);
    strip_steering(headers);
    plain_length(headers);
    if chunked {
        // Said anew, or the library would send no content with a GET whose length it does not know.
        let chunked = HeaderValue::from_static("chunked");
        headers.insert(header::TRANSFER_ENCODING, chunked);
    }
}

/// Take off an answer what is between neighbours, and what its upstream says in our name.
pub(crate) fn strip_answer(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    drop_own(headers);
}

/// Take off what must not reach an origin from a sandbox.
fn strip_steering(headers: &mut HeaderMap) {
    remove_where(headers, is_steering);
}

/// Must a field of this name, in lower case, not reach an origin from a sandbox? Steering fields and those between neighbours, and
/// twins of sensitive names spelt with `_` (some servers read both spellings as one).
pub(crate) fn is_steering(name: &str) -> bool {
    let mut known = STEERING.iter().chain(&HOP_BY_HOP);
    is_twin(name.as_bytes()) || known.any(|known| reads_as(name, known))
}

/// Take off a field in every spelling: `x_tenant-id` is `x-tenant-id` to a CGI-style reader.
pub(crate) fn remove_spellings(headers: &mut HeaderMap, known: &str) {
    remove_where(headers, |name| reads_as(name, known));
}

/// Do some servers read the two as one name, `_` being like `-`? Both are in lower case.
pub(crate) fn reads_as(name: &str, known: &str) -> bool {
    let plain = |b: u8| if b == b'_' { b'-' } else { b };
    name.bytes().map(plain).eq(known.bytes().map(plain))
}

fn remove_where(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let names = headers.keys().filter(|name| unwanted(name.as_str()));
    for name in names.cloned().collect::<Vec<HeaderName>>() {
        remove(headers, &name);
    }
}

/// Append `1.1 pseudonym` to Via.
pub(crate) fn append_via(headers: &mut HeaderMap, pseudonym: &str) {
    if let Ok(value) = HeaderValue::from_str(&format!("1.1 {pseudonym}")) {
        headers.append(header::VIA, value);
    }
}

/// Has this process forwarded the message before?
pub(crate) fn looped(headers: &HeaderMap, pseudonym: &str) -> bool {
    tokens(headers, &header::VIA).any(|via| via.split_ascii_whitespace().nth(1) == Some(pseudonym))
}

/// Does the client prefer a page?
pub(crate) fn wants_html(headers: &HeaderMap) -> bool {
    let fields = headers.get_all(header::ACCEPT).iter();
    prefers_html(fields.map(HeaderValue::as_bytes))
}

/// The same of the values of its `Accept` fields (RFC 9110 §12.5.1): it names `text/html` itself, with a weight that is
/// neither zero nor below JSON's.
pub(crate) fn prefers_html<'h>(fields: impl Iterator<Item = &'h [u8]>) -> bool {
    let (mut html, mut json) = (0.0_f32, 0.0_f32);
    for range in fields.flat_map(|field| field.split(|b| *b == b',')) {
        let Ok(range) = std::str::from_utf8(range) else {
            continue;
        };
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let weight = parts
            .filter_map(|part| part.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
            .map_or(1.0, |(_, q)| q.trim().parse().unwrap_or(0.0));
        if kind.eq_ignore_ascii_case("text/html") {
            html = html.max(weight);
        } else if kind.eq_ignore_ascii_case("application/json") {
            json = json.max(weight);
        }
    }
    html > 0.0 && html >= json
}

/// The same of a head that was refused before it was read: of the lines of it that are there. Not of one that is too long or
/// late: what was read of it may be anything.
pub(crate) fn raw_prefers_html(head: &[u8], denial: Denial) -> bool {
    if matches!(denial, Denial::HeaderTooLarge | Denial::HeadTimeout) {
        return false;
    }
    let lines = head.split_inclusive(|b| *b == b'\n').skip(1);
    let lines = lines.take_while(|line| line.ends_with(b"\n") && !line.trim_ascii().is_empty());
    prefers_html(lines.filter_map(|line| {
        let colon = line.iter().position(|b| *b == b':')?;
        let (name, value) = line.split_at(colon);
        name.eq_ignore_ascii_case(b"accept")
            .then(|| value.get(1..).unwrap_or_default().trim_ascii())
    }))
}

/// About how many bytes the head of a request takes on the wire, in HTTP/1's form.
pub(crate) fn request_bytes<B>(request: &Request<B>) -> usize {
    let target = request.uri().path_and_query();
    let target = target.map_or(1, |target| target.as_str().len());
    request.method().as_str().len() + target + LINE + fields_bytes(request.headers())
}

/// The same of an answer's.
pub(crate) fn answer_bytes<B>(answer: &Response<B>) -> usize {
    let reason = answer.status().canonical_reason().unwrap_or_default();
    reason.len() + 3 + LINE + fields_bytes(answer.headers())
}

/// What else the first line of a head has, with the empty line at its end.
const LINE: usize = "  HTTP/1.1\r\n\r\n".len();

/// The same of fields alone.
pub(crate) fn fields_bytes(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len())
        .sum()
}

/// Does a request announce what it has (RFC 9110 §8.6)? One length at most, and none of a body that is over. What brings a
/// request has made sure of it; nothing is forwarded on its word alone.
pub(crate) fn announces(headers: &HeaderMap, over: bool) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else {
        return true;
    };
    let length = length.to_str().ok().and_then(|text| text.parse().ok());
    lengths.next().is_none() && length.is_some_and(|length: u64| length == 0 || !over)
}

/// Content-Length as a plain number: leading zeros read as octal somewhere (RFC 9110 §8.6 has digits, and no more to say).
pub(crate) fn plain_length(headers: &mut HeaderMap) {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = values.next().and_then(|value| value.to_str().ok()) else {
        return;
    };
    if values.next().is_none()
        && length.starts_with('0')
        && let Ok(length) = length.parse::<u64>()
    {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
}

/// An answer whose framing can be read two ways is not passed on (RFC 9112 §6.3): Content-Length beside a transfer coding,
/// more than one length, or a coding that we would take off without knowing it.
pub(crate) fn framed_one_way(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let plain = |length: &HeaderValue| length.as_bytes().iter().all(u8::is_ascii_digit);
    if !lengths.next().is_none_or(plain) || lengths.next().is_some() {
        return false;
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return true;
    };
    let chunked = coding
        .as_bytes()
        .trim_ascii()
        .eq_ignore_ascii_case(b"chunked");
    chunked && codings.next().is_none() && !headers.contains_key(header::CONTENT_LENGTH)
}

fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
}

fn remove(headers: &mut HeaderMap, name: &HeaderName) {
    if let Entry::Occupied(entry) = headers.entry(name) {
        entry.remove_entry_mult();
    }
}

/// A frame as it may go on. Trailers may not frame, route or authenticate (RFC 9110 §6.5.1), nor speak in our name.
pub(crate) fn clean_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Err(frame) => frame,
        Ok(trailers) => {
            let mut kept = HeaderMap::new();
            for (name, value) in &trailers {
                if trailer_may_pass(name.as_str().as_bytes()) {
                    kept.append(name, value.clone());
                }
            }
            drop_own(&mut kept);
            Frame::trailers(kept)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http::HeaderMap;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(n, v)| {
                (
                    n.parse::<HeaderName>().unwrap(),
                    HeaderValue::from_static(v),
                )
            })
            .collect()
    }

    #[test]
    fn a_head_that_was_refused_may_have_asked_for_a_page() {
        let wants = |head: &str| raw_prefers_html(head.as_bytes(), Denial::MalformedRequest);
        let page =
            "GET http://a.test/ HTTP/1.1\r\nHost: a\r\nHost: b\r\naccept:  text/html, */*\r\n\r\n";
        assert!(wants(page));
        assert!(!raw_prefers_html(page.as_bytes(), Denial::HeaderTooLarge));
        for head in [
            "",
            "Accept: text/html",
            "GET / HTTP/1.1\r\nAccept: text/html",
            "GET / HTTP/1.1\r\nAccept: application/json\r\n\r\n",
            "GET / HTTP/1.1\r\nX-Accept: text/html\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\n\r\nAccept: text/html\r\n",
        ] {
            assert!(!wants(head), "{head:?}");
        }
    }

    #[test]
    fn what_connection_names_is_stripped_but_not_the_messages_own() {
        let mut map = headers(&[
            ("connection", "close, X-Hop, Authorization, Host"),
            ("x-hop", "1"),
            ("authorization", "Bearer theirs"),
            ("host", "a.test"),
            ("proxy-authorization", "Basic ours"),
            ("te", "trailers"),
        ]);
        strip_hop_by_hop(&mut map);
        let mut left: Vec<_> = map.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "host"]);
    }

    #[test]
    fn a_request_is_framed_as_it_was() {
        for (framing, kept) in [
            (
                &[("transfer-encoding", "chunked")][..],
                &[("transfer-encoding", "chunked")][..],
            ),
            (&[("content-length", "007")], &[("content-length", "7")]),
            (&[], &[]),
        ] {
            let mut map = headers(framing);
            // Neither may be had stripped, nor a twin stand beside.
            map.insert(
                "connection",
                HeaderValue::from_static("content-length, transfer-encoding"),
            );
            map.insert("transfer_encoding", HeaderValue::from_static("chunked"));
            strip_request(&mut map);
            assert_eq!(map, headers(kept), "{framing:?}");
        }
    }

    #[test]
    fn steering_fields_and_twins_are_dropped() {
        let mut map = headers(&[
            ("x-forwarded-host", "evil.test"),
            ("x-upstream-https-proxy", "evil.test"),
            ("content_length", "5"),
            ("x-forwarded_for", "1.2.3.4"),
            ("x_original-host", "evil.test"),
            ("proxy", "http://evil.test"),
            ("x-host", "evil.test"),
            ("x_host", "evil.test"),
            ("x-upstream_https-proxy", "evil.test"),
            ("proxy_authentication-info", "x"),
            ("http2_settings", "x"),
            ("x_mine", "1"),
            ("x-mine", "1"),
        ]);
        strip_steering(&mut map);
        let mut left: Vec<_> = map.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["x-mine", "x_mine"]);
    }

    #[test]
    fn a_field_is_taken_off_in_every_spelling() {
        let mut map = headers(&[
            ("x-tenant-id", "evil"),
            ("x_tenant_id", "evil"),
            ("x_tenant-id", "evil"),
            ("x-tenant_id", "evil"),
            ("x-tenant", "1"),
        ]);
        remove_spellings(&mut map, "x-tenant_id");
        assert_eq!(map.keys().collect::<Vec<_>>(), ["x-tenant"]);
    }

    #[test]
    fn neither_an_answer_nor_its_trailers_speak_in_our_name() {
        let mut map = headers(&[
            ("connection", "close, proxy-status"),
            ("proxy-status", "sluicegate; error=http_request_denied"),
            ("proxy-authenticate", "Basic realm=\"sluicegate\""),
            ("retry-after", "5"),
        ]);
        let trailers = map.clone();
        strip_answer(&mut map);
        let frame = clean_trailers(Frame::trailers(trailers));
        for map in [map, frame.into_trailers().unwrap()] {
            let left: Vec<_> = map.keys().map(HeaderName::as_str).collect();
            assert_eq!(left, ["retry-after"]);
        }
        let other = headers(&[
            ("proxy-status", "cdn; error=x"),
            ("proxy-status", "sluicegate"),
        ]);
        let frame = clean_trailers(Frame::trailers(other));
        assert_eq!(
            frame.into_trailers().unwrap(),
            headers(&[("proxy-status", "cdn; error=x")])
        );
    }

    #[test]
    fn an_upgrade_needs_connection_and_is_never_h2c() {
        assert!(upgrade(&headers(&[("upgrade", "websocket")])).is_none());
        assert!(
            upgrade(&headers(&[
                ("connection", "keep-alive, Upgrade"),
                ("upgrade", "websocket")
            ]))
            .is_some()
        );
        assert!(upgrade(&headers(&[("connection", "upgrade"), ("upgrade", "h2c")])).is_none());
    }

    #[test]
    fn a_page_is_for_those_who_name_it() {
        for (accept, page) in [
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                true,
            ),
            ("TEXT/HTML ; q=0.5, */*", true),
            ("application/json;q=0.4, text/html;q=0.5", true),
            ("application/json, text/html;q=0.5", false),
            ("text/html;q=0", false),
            ("text/html; Q=0.000", false),
            ("text/htmlx", false),
            ("*/*", false),
            ("", false),
        ] {
            let map = headers(&[("accept", accept)]);
            assert_eq!(wants_html(&map), page, "{accept}");
        }
    }

    #[test]
    fn a_loop_is_seen_by_our_own_name_only() {
        let map = headers(&[("via", "1.1 other, 1.1 sluicegate-1234")]);
        assert!(looped(&map, "sluicegate-1234"));
        assert!(!looped(&map, "sluicegate-5678"));
    }
}
