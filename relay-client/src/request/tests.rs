#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use super::testing::Dice;
use super::*;
use proptest::prelude::*;

mod body;
mod corpora;

/// Everything a stream says about some bytes, with nothing in it of how they were cut.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Told {
    heads: Vec<(String, Vec<u8>, usize, Framing)>,
    /// Raw bytes of each message's body, ended or not.
    bodies: Vec<usize>,
    trailers: Vec<Vec<(Vec<u8>, Vec<u8>)>>,
    error: Option<HeadError>,
    opaque: bool,
    consumed: usize,
}

/// Feed pieces as a caller would: a buffer that grows at the back and is consumed at the front.
fn tell<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> Told {
    let mut stream = RequestStream::new();
    let mut told = Told::default();
    let mut buffer = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let taken = match stream.step(&buffer) {
                Event::NeedMore => break,
                Event::Head(head) => {
                    told.heads.push((
                        head.method().to_owned(),
                        head.target().to_vec(),
                        head.len(),
                        head.framing(),
                    ));
                    told.bodies.push(0);
                    head.len()
                }
                Event::Body(count) => {
                    *told.bodies.last_mut().unwrap() += count;
                    count
                }
                Event::End => {
                    let trailers = stream
                        .trailers()
                        .map(|f| (f.name.to_vec(), f.value.to_vec()));
                    told.trailers.push(trailers.collect());
                    0
                }
                Event::Opaque => {
                    told.opaque = true;
                    return told;
                }
                Event::Malformed(error) => {
                    told.error = Some(error);
                    return told;
                }
            };
            told.consumed += taken;
            buffer.drain(..taken);
        }
    }
    told
}

fn error_of(bytes: &[u8]) -> Option<HeadError> {
    let told = tell([bytes]);
    assert_eq!(
        tell(bytes.chunks(1)),
        told,
        "{:?}",
        bytes.escape_ascii().to_string()
    );
    told.error
}

/// A GET whose field section is `fields`, Host aside.
fn with_fields(fields: &[u8]) -> Vec<u8> {
    [
        b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n",
        fields,
        b"\r\n",
    ]
    .concat()
}

#[test]
fn a_head_is_told_whole() {
    let bytes = b"\r\nPOST http://a.test/x?y HTTP/1.1\r\nHost: a.test:80\r\ncontent-LENGTH: 3\r\nX-A:\t b c \t\r\nempty:\r\n\r\nabcGET ";
    let mut stream = RequestStream::new();
    let Event::Head(head) = stream.step(bytes) else {
        panic!()
    };
    assert_eq!(
        (head.method(), head.target(), head.version()),
        ("POST", &b"http://a.test/x?y"[..], Version::Http11)
    );
    assert_eq!(
        (head.framing(), head.len()),
        (Framing::Length(3), bytes.len() - 7)
    );
    let fields: Vec<_> = head.fields().map(|f| (f.name, f.value)).collect();
    assert_eq!(
        fields,
        [
            (&b"Host"[..], &b"a.test:80"[..]),
            (b"content-LENGTH", b"3"),
            (b"X-A", b"b c"),
            (b"empty", b"")
        ]
    );
    assert_eq!(head.field("x-a"), Some(&b"b c"[..]));
    let at = head.len();
    assert!(matches!(stream.step(&bytes[at..]), Event::Body(3)));
    assert!(matches!(stream.step(&bytes[at + 3..]), Event::End));
    assert!(matches!(stream.step(&bytes[at + 3..]), Event::NeedMore));
}

#[test]
fn request_lines() {
    use HeadError::{BareCr, BareLf, RequestLine, Target, Version};
    for (line, error) in [
        (&b"GET / HTTP/1.1\r\n"[..], None),
        (b"\r\nGET / HTTP/1.1\r\n", None),
        (
            b"GET http://a.test/%00/\xc3\xbc|\"{}\\^` HTTP/1.1\r\n",
            None,
        ),
        (b"GET http://b\xc3\xbccher.test/ HTTP/1.1\r\n", Some(Target)),
        (
            b"GET http://b\xc3\xbccher.test?q HTTP/1.1\r\n",
            Some(Target),
        ),
        (b"CONNECT b\xc3\xbccher.test:443 HTTP/1.1\r\n", Some(Target)),
        (b"GET http://a.test/#frag HTTP/1.1\r\n", Some(Target)),
        (b"GET http://a.test#@evil.test/ HTTP/1.1\r\n", Some(Target)),
        (b"\r\n\r\nGET / HTTP/1.1\r\n", Some(RequestLine)),
        (b"\nGET / HTTP/1.1\r\n", Some(BareLf)),
        (b"\rGET / HTTP/1.1\r\n", Some(BareCr)),
        (b" GET / HTTP/1.1\r\n", Some(RequestLine)),
        (b"GET  / HTTP/1.1\r\n", Some(RequestLine)),
        (b"GET /  HTTP/1.1\r\n", Some(RequestLine)),
        (b"GET / HTTP/1.1 \r\n", Some(RequestLine)),
        (b"GET\t/ HTTP/1.1\r\n", Some(RequestLine)),
        (b"GET /\0 HTTP/1.1\r\n", Some(RequestLine)),
        (b"GET /\x7f HTTP/1.1\r\n", Some(RequestLine)),
        (b"GET /a b HTTP/1.1\r\n", Some(RequestLine)),
        (b"G@T / HTTP/1.1\r\n", Some(RequestLine)),
        (b"GET\r\n", Some(RequestLine)),
        (b"\x16\x03\x01", Some(RequestLine)),
        (b"GET /\r\n", Some(Version)),
        (b"GET / HTTP/0.9\r\n", Some(Version)),
        (b"GET / HTTP/1.2\r\n", Some(Version)),
        (b"GET / HTTP/2.0\r\n", Some(Version)),
        (b"PRI * HTTP/2.0\r\n", Some(Version)),
        (b"GET / http/1.1\r\n", Some(Version)),
        (b"GET / HTTP/1.10\r\n", Some(Version)),
        (b"GET / HTTP/1.1\n", Some(BareLf)),
        (b"GET / HTTP/1.1\r ", Some(BareCr)),
        (b"GET / HTTP/1.1\rX: y\r\n", Some(BareCr)),
        (b"GET /\rHTTP/1.1\r\n", Some(Version)),
    ] {
        assert_eq!(error_of(line), error, "{}", line.escape_ascii());
    }
}

#[test]
fn field_lines() {
    use HeadError::{BareCr, BareLf, FieldName, FieldValue, Folding, SpaceBeforeColon};
    for (fields, error) in [
        (&b"X: a\tb \xff\r\n"[..], None),
        (b"X:\r\n", None),
        (b"X: a\n", Some(BareLf)),
        (b"X: a\nY: b\r\n", Some(BareLf)),
        (b"\n", Some(BareLf)),
        (b"X\n", Some(BareLf)),
        (b"X: a\rY: b\r\n", Some(BareCr)),
        (b"X: a\r\r\n", Some(BareCr)),
        (b"\rX: a\r\n", Some(BareCr)),
        (b"X: a\r\n b\r\n", Some(Folding)),
        (b"X: a\r\n\tb\r\n", Some(Folding)),
        (b" X: a\r\n", Some(Folding)),
        (b"X: a\0b\r\n", Some(FieldValue)),
        (b"X: \x0b\r\n", Some(FieldValue)),
        (b"X: \x7f\r\n", Some(FieldValue)),
        (b"X: \x1b[31m\r\n", Some(FieldValue)),
        (b"X : a\r\n", Some(SpaceBeforeColon)),
        (b"X\t: a\r\n", Some(SpaceBeforeColon)),
        (b"X Y: a\r\n", Some(SpaceBeforeColon)),
        (b": a\r\n", Some(FieldName)),
        (b"X\r\n", Some(FieldName)),
        (b"X\0: a\r\n", Some(FieldName)),
        (b"X\xc3\xa9: a\r\n", Some(FieldName)),
        (b"(X): a\r\n", Some(FieldName)),
    ] {
        assert_eq!(
            error_of(&with_fields(fields)),
            error,
            "{}",
            fields.escape_ascii()
        );
    }
}

#[test]
fn hosts() {
    use HeadError::{Host, MissingHost, RepeatedHost};
    for (head, error) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], Some(MissingHost)),
        (b"CONNECT a.test:443 HTTP/1.1\r\n\r\n", Some(MissingHost)),
        (b"CONNECT a.test:443 HTTP/1.0\r\n\r\n", None),
        (b"GET http://a.test/ HTTP/1.0\r\n\r\n", None),
        (
            b"GET / HTTP/1.1\r\nHost: a.test\r\nhost: a.test\r\n\r\n",
            Some(RepeatedHost),
        ),
        (
            b"GET / HTTP/1.0\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
            Some(RepeatedHost),
        ),
        (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Some(Host)),
        (b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", Some(Host)),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Some(Host)),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", Some(Host)),
        (b"GET / HTTP/1.1\r\nHost: u@a.test\r\n\r\n", Some(Host)),
        (b"GET / HTTP/1.1\r\nHost: a.test/x\r\n\r\n", Some(Host)),
        (b"GET / HTTP/1.1\r\nHost: \xc3\xbc.test\r\n\r\n", Some(Host)),
        (b"GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHOST:a_b.test\r\n\r\n", None),
    ] {
        assert_eq!(error_of(head), error, "{}", head.escape_ascii());
    }
}

#[test]
fn credentials_stand_once() {
    for name in ["Proxy-Authorization", "Authorization"] {
        let fields = format!(
            "{name}: Basic YTpi\r\n{}: Basic YTpi\r\n",
            name.to_lowercase()
        );
        assert_eq!(
            error_of(&with_fields(fields.as_bytes())),
            Some(HeadError::RepeatedCredential)
        );
    }
}

#[test]
fn sizes_at_the_edge() {
    let fields = |count: usize| with_fields("X: y\r\n".repeat(count - 1).as_bytes());
    assert_eq!(error_of(&fields(MAX_FIELDS)), None);
    assert_eq!(error_of(&fields(MAX_FIELDS + 1)), Some(HeadError::TooLarge));
    let sized = |size: usize| {
        let room = size - with_fields(b"X: \r\n").len();
        with_fields(format!("X: {}\r\n", "y".repeat(room)).as_bytes())
    };
    assert_eq!(sized(MAX_HEAD).len(), MAX_HEAD);
    assert_eq!(tell([&sized(MAX_HEAD)[..]]).error, None);
    assert_eq!(
        tell([&sized(MAX_HEAD + 1)[..]]).error,
        Some(HeadError::TooLarge)
    );
    let endless = [b"GET /".to_vec(), vec![b'a'; MAX_HEAD]].concat();
    assert_eq!(tell([&endless[..]]).error, Some(HeadError::TooLarge));
    assert_eq!(
        (HeadError::TooLarge.status(), HeadError::BareLf.status()),
        (431, 400)
    );
}

#[test]
fn twins_and_trailers_by_name() {
    for twin in [
        "Content_Length",
        "Transfer_Encoding",
        "proxy_authorization",
        "X_Session",
        "X_Forwarded_For",
        "x-gestalt_host-binding",
    ] {
        assert!(is_twin(twin.as_bytes()), "{twin}");
        assert!(!trailer_may_pass(twin.as_bytes()), "{twin}");
    }
    for other in [
        "Content-Length",
        "X_Custom",
        "my_host",
        "host_",
        "_host",
        "",
    ] {
        assert!(!is_twin(other.as_bytes()), "{other}");
    }
    for name in [
        "Host",
        "TE",
        "content-length",
        "Transfer-Encoding",
        "Authorization",
        "X-Forwarded-For",
        "Set-Cookie",
    ] {
        assert!(!trailer_may_pass(name.as_bytes()), "{name}");
    }
    for name in ["grpc-status", "Digest", "x-checksum", "Server-Timing"] {
        assert!(trailer_may_pass(name.as_bytes()), "{name}");
    }
    let bytes = with_fields(b"Content_Length: 9\r\nX: y\r\nProxy_Authorization: z\r\n");
    let mut stream = RequestStream::new();
    let Event::Head(head) = stream.step(&bytes) else {
        panic!()
    };
    let twins: Vec<_> = head.twins().map(|f| f.name).collect();
    assert_eq!(
        (twins, head.framing()),
        (
            vec![&b"Content_Length"[..], b"Proxy_Authorization"],
            Framing::None
        )
    );
}

#[test]
fn targets_that_name_a_server_and_no_path() {
    for (target, pathless) in [
        ("http://a.test", true),
        ("HTTP://a.test:80", true),
        ("http://a.test/", false),
        ("http://a.test?u=b://c", false),
        ("http://a.test/?u=b://c", false),
        ("/", false),
        ("/a?u=b://c", false),
        ("/a://b", false),
        ("//a://b", false),
        ("*", false),
    ] {
        let bytes = format!("OPTIONS {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let mut stream = RequestStream::new();
        let Event::Head(head) = stream.step(bytes.as_bytes()) else {
            panic!("{target}")
        };
        assert_eq!(head.is_pathless(), pathless, "{target}");
    }
}

#[test]
fn malformed_and_released_are_final() {
    let mut stream = RequestStream::new();
    assert!(matches!(
        stream.step(b"\0"),
        Event::Malformed(HeadError::RequestLine)
    ));
    stream.release();
    let good = with_fields(b"");
    assert!(matches!(
        stream.step(&good),
        Event::Malformed(HeadError::RequestLine)
    ));
    let mut stream = RequestStream::new();
    assert!(matches!(stream.step(&good), Event::Head(_)));
    stream.release();
    assert!(matches!(stream.step(b"\0\0"), Event::Opaque));
}

proptest! {
    #[test]
    fn cuts_never_change_a_verdict(bytes in near_requests(), seed in any::<u64>(), most in 1..50usize) {
        prop_assert_eq!(tell(Dice::new(seed).cut(&bytes, most)), tell([&bytes[..]]));
    }
}

/// Streams of requests, spliced of pieces that matter, with a few bytes changed.
fn near_requests() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        &b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n"[..],
        b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 7\r\n\r\n\r\nGET /x",
        b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"0\r\nX: y\r\n\r\n",
        b"1;a=\"b\"\r\nx\r\n",
        b"\r\n",
        b"\n",
        b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ]);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2);
    (prop::collection::vec(pieces, 1..8), changes).prop_map(|(pieces, changes)| {
        let mut bytes = pieces.concat();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}
