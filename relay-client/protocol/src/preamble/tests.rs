#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::{FIELDS_MAX, HEAD_MAX, PreambleError, Purpose, Request, Response};
use crate::{Handshake, Instance, Once};
use proptest::prelude::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn request(purpose: Purpose) -> Request {
    Request::new(purpose, "tok")
}

fn once() -> Once {
    Once {
        number: 7,
        tried: vec![Instance::new([0xab; 16])],
    }
}

fn service(name: &str) -> Request {
    request(Purpose::Open(Handshake::Service { name: name.into() }))
}

fn egress(host: &str, port: u16) -> Request {
    let host = host.into();
    request(Purpose::Open(Handshake::Egress { host, port }))
}

fn listener(name: &str) -> Request {
    request(Purpose::Open(Handshake::Listener { name: name.into() }))
}

fn name(name: &str) -> Request {
    request(Purpose::Name { name: name.into() })
}

#[test]
fn requests_on_the_wire() {
    for (request, wire) in [
        // Version, purpose, length; token (0).
        (request(Purpose::Control), "0100050003746f6b"),
        // … service (1).
        (service("db"), "0101090003746f6b01026462"),
        // … host (2) and port (3).
        (
            egress("a.test", 443),
            "0102110003746f6b0206612e74657374030201bb",
        ),
        // … listener (4).
        (listener("p"), "0103080003746f6b040170"),
        (request(Purpose::Refresh), "0104050003746f6b"),
        // … name (5).
        (name("a.test"), "01050d0003746f6b0506612e74657374"),
        // … number and instance (6).
        (
            Request {
                once: Some(once()),
                ..service("db")
            },
            "0101230003746f6b0102646206180000000000000007abababababababababababababababab",
        ),
        // … it says when it has the dial (7).
        (
            Request {
                says_taken: true,
                ..listener("p")
            },
            "01030a0003746f6b0401700700",
        ),
    ] {
        let bytes = request.encode().unwrap();
        assert_eq!(hex(&bytes), wire);
        assert_eq!(Request::decode(&bytes), Ok(Some((request, bytes.len()))));
    }
}

#[test]
fn responses_on_the_wire() {
    let refused = Response::Refused {
        status: 403,
        body: b"{}".to_vec(),
        said: Vec::new(),
    };
    let told = Response::Refused {
        status: 429,
        body: Vec::new(),
        said: b"a: b".to_vec(),
    };
    for (response, wire) in [
        (Response::ACCEPTED, "0000"),
        // … instance (3).
        (
            Response::Accepted {
                instance: Some(Instance::new([0xab; 16])),
                say_taken: false,
            },
            "00120310abababababababababababababababab",
        ),
        // … it is to say so (4).
        (
            Response::Accepted {
                instance: None,
                say_taken: true,
            },
            "00020400",
        ),
        // Verdict, length; status (0), body (1).
        (refused, "01080002019301027b7d"),
        // … fields (2).
        (told, "010c000201ad01000204613a2062"),
    ] {
        let bytes = response.encode().unwrap();
        assert_eq!(hex(&bytes), wire);
        assert_eq!(Response::decode(&bytes), Ok(Some((response, bytes.len()))));
    }
}

#[test]
fn what_follows_is_left() {
    let mut bytes = service("db").encode().unwrap();
    let length = bytes.len();
    bytes.extend_from_slice(b"SELECT 1");
    assert_eq!(
        Request::decode(&bytes).unwrap().unwrap(),
        (service("db"), length)
    );
}

#[test]
fn malformed_requests() {
    let field = PreambleError::Field;
    let long = [&[1, 1, 0x80, 0, 0x40, 1][..], &[0; 64]].concat();
    assert_eq!(FIELDS_MAX + 1, 0x4001);
    for (what, bytes, expected) in [
        ("another version", &[2][..], PreambleError::Version(2)),
        ("another purpose", &[1, 6], PreambleError::Kind(6)),
        ("too long", &long, PreambleError::TooLong),
        ("no token", &[1, 0, 0], field),
        ("no name", &[1, 1, 3, 0, 1, b't'], field),
        ("an empty name", &[1, 1, 5, 0, 1, b't', 1, 0], field),
        (
            "a space in the name",
            &[1, 1, 6, 0, 1, b't', 1, 1, b' '],
            field,
        ),
        ("not text", &[1, 1, 6, 0, 1, b't', 1, 1, 0xff], field),
        ("two tokens", &[1, 0, 6, 0, 1, b't', 0, 1, b'u'], field),
        ("half a number", &[1, 0, 6, 0, 1, b't', 6, 1, 0], field),
        ("a field cut short", &[1, 0, 3, 0, 9, b't'], field),
        (
            "port 0",
            &[1, 2, 10, 0, 1, b't', 2, 1, b'h', 3, 2, 0, 0],
            field,
        ),
        (
            "a port of one byte",
            &[1, 2, 9, 0, 1, b't', 2, 1, b'h', 3, 1, 80],
            field,
        ),
    ] {
        assert_eq!(Request::decode(bytes), Err(expected), "{what}");
    }
}

#[test]
fn a_field_of_tomorrow_is_passed_over() {
    let bytes = [1, 0, 7, 0, 1, b't', 0x40, 0x99, 1, b'x'];
    let (read, length) = Request::decode(&bytes).unwrap().unwrap();
    assert_eq!((read.purpose, length), (Purpose::Control, 10));
}

#[test]
fn a_head_that_cannot_be_read_back_is_not_written() {
    let long = Request::new(Purpose::Control, "t".repeat(FIELDS_MAX));
    assert_eq!(long.encode(), Err(PreambleError::TooLong));
    let body = vec![b'x'; FIELDS_MAX];
    let refused = Response::Refused {
        status: 403,
        body,
        said: Vec::new(),
    };
    assert_eq!(refused.encode(), Err(PreambleError::TooLong));
}

#[test]
fn the_credential_does_not_show() {
    assert!(!format!("{:?}", service("db")).contains("tok"));
}

proptest! {
    #[test]
    fn every_prefix_asks_for_more(
        name in "[!-~]{1,40}", token in "[!-~]{1,200}", port in 1u16.., kind in 0..5,
        again in any::<bool>(), number in any::<u64>(),
    ) {
        let purpose = match kind {
            0 => Purpose::Control,
            1 => Purpose::Open(Handshake::Service { name }),
            2 => Purpose::Open(Handshake::Listener { name }),
            3 => Purpose::Refresh,
            _ => Purpose::Open(Handshake::Egress { host: name, port }),
        };
        let once = again.then(|| Once { number, tried: vec![Instance::new([1; 16])] });
        let request = Request { once, ..Request::new(purpose, token) };
        let bytes = request.encode().unwrap();
        prop_assert!(bytes.len() <= HEAD_MAX);
        for cut in 0..bytes.len() {
            prop_assert_eq!(Request::decode(&bytes[..cut]), Ok(None));
        }
        prop_assert_eq!(Request::decode(&bytes), Ok(Some((request, bytes.len()))));
    }

    #[test]
    fn refusals_come_back(
        status in 1u16..,
        body in proptest::collection::vec(any::<u8>(), 0..300),
        said in proptest::collection::vec(any::<u8>(), 0..99),
    ) {
        let refused = Response::Refused { status, body, said };
        let bytes = refused.encode().unwrap();
        for cut in 0..bytes.len() {
            prop_assert_eq!(Response::decode(&bytes[..cut]), Ok(None));
        }
        prop_assert_eq!(Response::decode(&bytes), Ok(Some((refused, bytes.len()))));
    }

    #[test]
    fn anything_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(Some((request, length))) = Request::decode(&bytes) {
            prop_assert!(length <= bytes.len());
            let again = request.encode().unwrap();
            prop_assert_eq!(Request::decode(&again), Ok(Some((request, again.len()))));
        }
    }
}
