#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use h2::ext::Protocol;
use http::{HeaderMap, Method, Response};

use super::{Asked, Unasked, answer, request, trailers};
use crate::http3::{
    frame::{Frames, Piece},
    qpack::{self, Encoder},
};

fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    for (name, value) in fields {
        encoder.field(name.as_bytes(), value.as_bytes());
    }
    encoder.finish()
}

fn read(fields: &[(&str, &str)]) -> Result<Asked, Unasked> {
    request(&section(fields), 10_000)
}

const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "gateway.test"),
    (":path", "/healthz"),
];

#[test]
fn a_classic_connect() {
    let asked = read(&[
        (":method", "CONNECT"),
        (":authority", "api.test:443"),
        ("proxy-authorization", "Bearer x"),
    ]);
    let head = asked.unwrap().head;
    assert_eq!(
        (head.method(), head.uri().to_string()),
        (&Method::CONNECT, "api.test:443".into())
    );
    assert!(head.uri().scheme().is_none() && head.uri().path_and_query().is_none());
    assert_eq!(head.headers().len(), 1);
}

#[test]
fn an_extended_connect() {
    let path = "/.well-known/masque/tcp/api.test/443/";
    let asked = read(&[
        (":method", "CONNECT"),
        (":protocol", "connect-tcp"),
        (":scheme", "https"),
        (":authority", "gateway.test"),
        (":path", path),
    ]);
    let head = asked.unwrap().head;
    assert_eq!(
        head.extensions().get::<Protocol>().unwrap().as_str(),
        "connect-tcp"
    );
    assert_eq!(head.uri().path(), path);
}

#[test]
fn plain_requests() {
    let with = |more: &[(&str, &str)]| read(&[&GET[..], more].concat());
    assert_eq!(with(&[]).unwrap().length, None);
    assert_eq!(with(&[("content-length", "12")]).unwrap().length, Some(12));
    assert!(with(&[("te", "trailers"), ("cookie", "a=1"), ("cookie", "b=2")]).is_ok());
    // Host may say what `:authority` does not.
    let by_host = [GET[0], GET[1], GET[3], ("host", "plain.test:81")];
    let head = read(&by_host).unwrap().head;
    assert_eq!(head.uri().authority().unwrap(), "plain.test:81");
}

#[test]
fn malformed_requests() {
    let more = |more: &[(&'static str, &'static str)]| [&GET[..], more].concat();
    let table: Vec<Vec<(&str, &str)>> = vec![
        vec![],
        GET[1..].to_vec(),
        GET[..3].to_vec(),
        vec![GET[0], GET[2], GET[3]],
        vec![GET[0], GET[1], GET[3]],
        vec![GET[0], GET[1], GET[2], (":path", "")],
        vec![GET[0], GET[1], GET[2], (":path", "healthz")],
        vec![("accept", "*/*"), GET[0], GET[1], GET[2], GET[3]],
        more(&[(":method", "GET")]),
        more(&[(":status", "200")]),
        more(&[(":protocol", "connect-tcp")]),
        more(&[("Accept", "*/*")]),
        more(&[("connection", "close")]),
        more(&[("transfer-encoding", "chunked")]),
        more(&[("upgrade", "websocket")]),
        more(&[("te", "gzip")]),
        more(&[("x y", "1")]),
        more(&[("x", "a\r\nb: c")]),
        more(&[("x", " a")]),
        more(&[("content-length", "1"), ("content-length", "1")]),
        more(&[("content-length", "+1")]),
        more(&[("content-length", "")]),
        more(&[("content-length", "99999999999999999999999")]),
        vec![(":method", "CONNECT")],
        vec![(":method", "CONNECT"), (":authority", "a b")],
        vec![(":method", "CONNECT"), ("host", "api.test:443")],
        vec![
            (":method", "CONNECT"),
            (":authority", "a.test:443"),
            (":path", "/"),
        ],
        vec![
            (":method", "CONNECT"),
            (":authority", "a.test:443"),
            (":scheme", "https"),
        ],
        vec![
            (":method", "CONNECT"),
            (":authority", "a.test"),
            (":protocol", "connect-tcp"),
        ],
    ];
    for fields in table {
        assert_eq!(read(&fields).unwrap_err(), Unasked::Malformed, "{fields:?}");
    }
}

#[test]
fn sections_are_bounded() {
    let long = "x".repeat(1000);
    let fields = section(&[&GET[..], &[("x", &long)]].concat());
    assert_eq!(request(&fields, 1000).unwrap_err(), Unasked::TooLarge);
    assert_eq!(request(b"\xff", 1000).unwrap_err(), Unasked::Coding);
}

#[test]
fn trailers_have_no_pseudo_fields() {
    let found = trailers(&section(&[("x-sum", "1")]), 1000).unwrap();
    assert_eq!(found["x-sum"], "1");
    let refused = trailers(&section(&[(":path", "/")]), 1000);
    assert_eq!(refused.unwrap_err(), Unasked::Malformed);
}

#[test]
fn answers() {
    let mut response = Response::new(());
    *response.status_mut() = http::StatusCode::PROXY_AUTHENTICATION_REQUIRED;
    let fields: HeaderMap = [(http::header::CONTENT_LENGTH, "3".parse().unwrap())]
        .into_iter()
        .collect();
    *response.headers_mut() = fields;
    let mut bytes = answer(&response);
    let Ok(Some(Piece::Headers(section))) = Frames::new(1000).next(&mut bytes) else {
        unreachable!("one frame");
    };
    let fields = qpack::decode(&section, 1000).unwrap();
    let text: Vec<_> = fields
        .iter()
        .map(|field| {
            (
                str::from_utf8(&field.name).unwrap(),
                str::from_utf8(&field.value).unwrap(),
            )
        })
        .collect();
    assert_eq!(text, [(":status", "407"), ("content-length", "3")]);
}
