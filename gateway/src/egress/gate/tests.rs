#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use sluicegate_policy::{
    Ceiling, Denial, EgressDocument, FirstBytes, GrantDocument, Target, TargetPermit, decide,
    text::{self, Faults},
};

use super::{Gate, Step, line::LONGEST_METHOD, watch};

/// To `a.test` on port 80, where GET alone is allowed.
fn gate(mode: &str) -> Gate {
    let permit = permit(&format!(
        "{{mode: {mode}, allowedHosts: ['a.test:80'], rules: [{{host: 'a.test:80', http: {{methods: [GET]}}}}]}}"
    ));
    Gate::new(&permit).unwrap()
}

/// To `a.test` on port 80, by this block.
fn permit(egress: &str) -> TargetPermit {
    let mut faults = Faults::default();
    let root = text::parse(egress, &mut faults);
    let egress = EgressDocument::read(&root, &mut faults);
    let document = GrantDocument {
        egress,
        ..GrantDocument::default()
    };
    let grant = document.compile(&Ceiling::default(), &mut faults).unwrap();
    let target = Target::from_authority("a.test:80").unwrap();
    decide(&Arc::new(grant), &target).unwrap()
}

fn hello() -> Vec<u8> {
    let tls = sluicegate_certs::tls::client(&sluicegate_certs::TrustBundle::empty(), &[], None);
    let name = "a.test".try_into().unwrap();
    let mut bytes = Vec::new();
    let mut client = rustls::ClientConnection::new(tls.unwrap(), name).unwrap();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn what_methods_cannot_be_seen_in_is_cut_or_in_report_mode_told() {
    let tls = hello();
    for bytes in [b"SSH-2.0-x\r\n".as_slice(), &tls] {
        let mut enforced = gate("enforce");
        let step = enforced.client_sent(bytes, bytes.len());
        assert_eq!(step, Step::Cut(Denial::MethodNotAllowed));
        let mut reported = gate("report");
        let step = reported.client_sent(bytes, bytes.len());
        assert!(matches!(step, Step::Open | Step::Forward), "{step:?}");
        assert_eq!(reported.reported(), Some(Denial::MethodNotAllowed));
    }
    let mut half = gate("report");
    assert_eq!(half.client_sent(b"SSH-2", 5), Step::Hold);
    assert_eq!(half.reported(), None, "it may become a request");
    assert_eq!(half.at_end(b"SSH-2"), None);
    assert_eq!(half.reported(), Some(Denial::MethodNotAllowed));
    let mut half = gate("enforce");
    half.client_sent(b"SSH-2", 5);
    assert_eq!(half.at_end(b"SSH-2"), Some(Denial::MethodNotAllowed));
    // A request is judged by itself, and told by whoever judges it.
    let mut request = gate("report");
    let get = b"POST / HTTP/1.1\r\n";
    assert_eq!(request.client_sent(get, get.len()), Step::Http);
    assert_eq!(request.reported(), None);
}

#[test]
fn a_line_that_the_end_of_the_stream_ends_is_judged_like_any_other() {
    let half = Some(Denial::MalformedRequest);
    for (held, expected) in [
        (b"GET http://evil.test/ HTTP/1.1".as_slice(), half),
        (b"GET / HTTP/1.0\rHost: evil.test\r\r", half),
        (b"\r\nGET / HTTP/1.1", half),
        (b"get /old", half),
        (b"PRI * HTTP/2.0", Some(Denial::UnsupportedProtocol)),
        (b"OPTIONS rtsp://evil.test/ RTSP/1.0", half),
        (b"GET HTTP://evil.test/", half),
        (b"\r\n\r\n\0\r\nQUIT", half),
        (b"SSH-2.0-x", None),
        (b"EHLO me", None),
        (b"\r\n", None),
    ] {
        let mut gate = gate("report");
        let step = gate.client_sent(held, held.len());
        assert_eq!(step, Step::Hold, "{}", held.escape_ascii());
        assert_eq!(gate.at_end(held), expected, "{}", held.escape_ascii());
    }
}

/// What comes of these bytes, given in two pieces and as the pump gives them, and how many of them may go.
fn in_two(gate: &mut Gate, bytes: &[u8], at: usize) -> (Step, usize) {
    let (mut held, mut gone, mut last) = (Vec::new(), 0, Step::Hold);
    for piece in [bytes.get(..at), bytes.get(at..)].into_iter().flatten() {
        if piece.is_empty() {
            continue;
        }
        held.extend_from_slice(piece);
        last = gate.client_sent(&held, piece.len());
        match last {
            Step::Hold => {}
            Step::Forward => gone += std::mem::take(&mut held).len(),
            Step::Open | Step::Http | Step::Cut(_) => break,
        }
    }
    (last, gone)
}

#[test]
fn a_long_first_word_goes_and_no_request_behind_it() {
    let permit = permit("{allowedHosts: ['a.test:80']}");
    let cut = Step::Cut(Denial::MalformedRequest);
    let word = [b'M'; LONGEST_METHOD + 1];
    for (behind, expected) in [
        (b" / HTTP/1.1\r\nHost: evil.test\r\n\r\n".as_slice(), cut),
        (b"\t/\thttp/1.1\r\n", cut),
        (b"\x0b/\x85HtTp/", cut),
        (b" a b c HTT HTTP/9\n", cut),
        (b" HTTP/", cut),
        (b"", Step::Forward),
        (b"MMM", Step::Forward),
        (b" / HTTP", Step::Forward),
        (b" and more", Step::Forward),
        (b"\r\n", Step::Open),
        (b" x\r\nX: / HTTP/1.1\r\n", Step::Open),
        // waitress asks for no version.
        (b" /\r\n", cut),
        (b" a+b://c d\r\n", cut),
        (b" /\nX", Step::Forward),
        // Python takes it for a method's, and Twisted a line end for a gap.
        (b"\0 / HTTP/1.1\r\n", cut),
        (b"\n/ HTTP/1.1\r\n", cut),
        (b"M=/x HTTP/1.1\r\n", Step::Open),
    ] {
        for before in [b"".as_slice(), b"\r\n"] {
            let bytes = [before, &word, behind].concat();
            let version = bytes.len() - behind.len();
            for at in 0..=bytes.len() {
                let mut gate = Gate::new(&permit).unwrap();
                let (step, gone) = in_two(&mut gate, &bytes, at);
                let told = bytes.escape_ascii();
                assert_eq!(step, expected, "{told} at {at}");
                // Whatever has gone, a line that says its version has not.
                let gone = bytes.get(version..gone).unwrap_or_default();
                assert!(step != cut || !is_told(gone), "{told} at {at}");
                if step == Step::Forward {
                    assert!(!gate.undecided() && gate.at_deadline(0).is_none());
                    assert_eq!(gate.seen(), Some(&FirstBytes::Other));
                }
            }
        }
    }
}

/// Has it a line's end, or a version, that a server would go by?
fn is_told(gone: &[u8]) -> bool {
    let gone = gone.trim_ascii_start().to_ascii_lowercase();
    gone.windows(5).any(|five| five == b"http/") || gone.windows(2).any(|two| two == b"\r\n")
}

/// What begins a line that is not waited for, up to where that is known.
const GOING: [&[u8]; 7] = [
    b"003agit-upload-pack x\0",
    b"0033git-upload-pack /x\0",
    b"PURGE x\0",
    b"PURGE x y\x01",
    b"0\x0c\x02\x01\x01`\x07\x02\x01\x03\x04\0\x80\0",
    b"hrpc\t\0",
    b"\r\n \r\nHELF \0\0\0",
];

/// However it is split: it goes on, whatever the upstream says meanwhile, and no request with it.
#[test]
fn a_line_with_a_control_byte_goes_and_no_request_with_it() {
    let permit = permit("{allowedHosts: ['a.test:80']}");
    let cut = Step::Cut(Denial::MalformedRequest);
    let behind = [
        (b" HTTP/1.1\r\nHost: evil.test\r\n\r\n".as_slice(), cut),
        (b"\thttp/1.1\r\n", cut),
        (b"\rHTTP/1.1\n", cut),
        (b"host=b\0 c d \0 \x85HtTp/", cut),
        (b"", Step::Forward),
        (b"host=a.test\0\0version=2\0", Step::Forward),
        (b" HTTP", Step::Forward),
        (b" X/HTTP/1.1 y \0HTTP/1.1 HTTPS/1.1", Step::Forward),
        (b" a b c d\n", Step::Open),
    ];
    for (line, (behind, expected)) in GOING.into_iter().flat_map(|l| behind.map(|b| (l, b))) {
        let bytes = [line, behind].concat();
        for at in 0..=bytes.len() {
            let mut gate = Gate::new(&permit).unwrap();
            let (step, gone) = in_two(&mut gate, &bytes, at);
            let told = bytes.escape_ascii();
            assert_eq!(step, expected, "{told} at {at}");
            let gone = bytes.get(..gone).unwrap();
            assert!(step != cut || !is_told(gone), "{told} at {at}");
            if step == Step::Forward {
                assert_eq!(gone.len(), bytes.len(), "{told} at {at}");
                assert!(!gate.undecided() && gate.at_deadline(0).is_none());
                assert!(!gate.server_sent(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
                assert_eq!(gate.client_sent(b"\x01 HTTP/", 7), cut, "{told}");
            }
        }
    }
}

/// The forms that are judged where a line is waited for, and a line end that is none to Twisted.
#[test]
fn what_makes_a_request_of_a_line_that_goes() {
    let permit = permit("{allowedHosts: ['a.test:80']}");
    let cut = Step::Cut(Denial::MalformedRequest);
    for (bytes, expected) in [
        (b"PURGE x\0\nHTTP/1.1\r\n".as_slice(), cut),
        (b"PURGE x\0\n\n HTTP/1.1\r\n", cut),
        (b"PURGE x\0 y\nHTTP/1.1\r\n", Step::Open),
        (b"PURGE x\0\r\nHTTP/1.1\r\n", Step::Open),
        (b"PLAY x\0 RTSP/1.0", cut),
        (b"PLAY x\0 RTSP/1.", Step::Forward),
        (b"PLAY x\0 RTSP/1.x 1/1.0\r\n", Step::Open),
        (b"PLAY x\0 y RTSP/1.0\r\n", Step::Open),
        (b"0033git-upload-pack /x\0y\r\n", cut),
        (b"0033git-upload-pack /x\0y z\r\n", cut),
        (b"0033git-upload-pack a://x\0\r\n", cut),
        (b"0033git-upload-pack x\0y\r\n", Step::Open),
        // As git goes on.
        (
            b"0033git-upload-pack /x\0host=a\0\0version=2\0",
            Step::Forward,
        ),
        (
            b"0033git-upload-pack /x\0host=a\x00000fcommand=a\n0015agent=git/2.39.2",
            Step::Forward,
        ),
        (
            b"0033git-upload-pack /x\0host=a\x000032want 0123 ofs-delta agent=git/2.39.2\n",
            Step::Open,
        ),
        // A method with control bytes, which Python takes, and binary data with a request in it.
        (b"G\0T / HTTP/1.1\r\n", cut),
        (b"\0GET\n/\rHTTP/", cut),
        (b"G\x01(T /\r\n", cut),
        (b"\0\0\x03 /x RTSP/1.0", Step::Forward),
        (b"\0\0\x03 x\r\n", Step::Open),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", Step::Forward),
        (b"\0INSERT 'GET / HTTP/1.1'\n", Step::Open),
        (b"\0\0\x03 a b RTSP/1.0 HTTP/1.1\n", cut),
        (b"\0\0\x03 a( b RTSP/1.0 HTTP/1.1\n", Step::Open),
        // Of random bytes one in some hundred begins so.
        (b"G\0T /x\n", Step::Forward),
    ] {
        for at in 0..=bytes.len() {
            let mut gate = Gate::new(&permit).unwrap();
            let (step, gone) = in_two(&mut gate, bytes, at);
            let told = bytes.escape_ascii();
            assert_eq!(step, expected, "{told} at {at}");
            let gone = bytes.get(..gone).unwrap();
            assert!(step != cut || !is_told(gone), "{told} at {at}");
        }
    }
}

/// Netty skips control bytes before a line, with white space and line ends among them; to BalsaFrame (Envoy) they are white space.
#[test]
fn what_makes_nothing_of_control_bytes_gets_no_request() {
    let permit = permit("{allowedHosts: ['a.test:80']}");
    let cut = Step::Cut(Denial::MalformedRequest);
    for (bytes, expected) in [
        (b"\0 GET / HTTP/1.1\r\n".as_slice(), cut),
        (b"\x01 \x02\t\x03 GET / HTTP/1.1\n", cut),
        (b"\0\r\nGET / HTTP/1.1\r\n", cut),
        (b"\0\n\0\n\r\n\x7fGET /\0x HTTP/1.1\r\n", cut),
        (b"\0 GET / RTSP/1.0\n", cut),
        (b"\0 GET /x A1/1.0\n", cut),
        (b"\0 GET /\r\n", cut),
        (b"\x14\x03\x03\0\x02 GET / HTTP/1.1\r\n", cut),
        (b"\x80GET / HTTP/1.1\r\n", cut),
        (b"\x9f\r\n\x84\0\x85\x8f GET /x A1/1.0\n", cut),
        (b"GET\0/\0HTTP/1.1\r\n", cut),
        (b"GET\x01/x HTTP/1.1\r\n", cut),
        (b"GET\x1b\0http://evil.test/\x1bhttp/1.1\n", cut),
        // What parts words for one server is part of a word for the next (waitress, Netty, BalsaFrame).
        (b"G\0T /\x0bx HTTP/1.1\r\n", cut),
        (b"\0GET /\xa0x HTTP/1.1\r\n", cut),
        (b"\0GET x\x85y A/1.0\n", cut),
        (b"GET\0/\x7fx\0HTTP/1.1\r\n", cut),
        (b"GET\0/\xa0x\x85y\0HTTP/1.1\r\n", cut),
        (b"PURGE x\0HTTP/1.1\r\n", cut),
        // Too many words, other bytes than methods have, and no version.
        (b"\0 a GET / HTTP/1.1\r\n", Step::Open),
        (b"\0 G(T / HTTP/1.1\r\n", Step::Open),
        (b"\0\r\nx y z\r\n", Step::Open),
        (b"G\x80T / HTTP/1.1\r\n", Step::Open),
        (b"\0\r\n\0\0\n", Step::Forward),
        // gzip, and an array of MessagePack's with a method's name.
        (b"\x1f\x8b\x08\0", Step::Forward),
        (b"\x94\0\x02\xa3get", Step::Open),
        // MQTT, with a client's name and version.
        (
            b"\x10\x16\0\x04MQTT\x04\x02\0<\0\x0aclient/1.2",
            Step::Forward,
        ),
    ] {
        for at in 0..=bytes.len() {
            let mut gate = Gate::new(&permit).unwrap();
            let (step, gone) = in_two(&mut gate, bytes, at);
            let told = bytes.escape_ascii();
            assert_eq!(step, expected, "{told} at {at}");
            let gone = bytes.get(..gone).unwrap().to_ascii_lowercase();
            let version = gone.windows(5).any(|five| five == b"http/");
            assert!(step != cut || !version, "{told} at {at}");
        }
    }
}

#[test]
fn a_long_first_word_is_watched_as_long_as_a_server_may_read_on() {
    let mut gate = Gate::new(&permit("{allowedHosts: ['a.test:80']}")).unwrap();
    let part = [b'M'; 4096];
    for _ in 0..watch::LONGEST / part.len() {
        assert_eq!(gate.client_sent(&part, part.len()), Step::Forward);
    }
    assert_eq!(gate.client_sent(b" / HTTP/", 8), Step::Open);
}

#[test]
fn a_long_first_word_is_no_request_where_methods_are_ruled() {
    let word = [b'M'; LONGEST_METHOD + 1];
    let mut enforced = gate("enforce");
    let step = enforced.client_sent(&word, word.len());
    assert_eq!(step, Step::Cut(Denial::MethodNotAllowed));
    let mut reported = gate("report");
    assert_eq!(reported.client_sent(&word, word.len()), Step::Forward);
    assert_eq!(reported.reported(), Some(Denial::MethodNotAllowed));
    let step = reported.client_sent(b" / HTTP/1.1\r\n", 13);
    assert_eq!(step, Step::Cut(Denial::MalformedRequest));
}

/// Under each rule, however it comes, and nothing of it may go.
#[test]
fn a_proxy_header_is_cut_and_said() {
    let request = b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n".as_slice();
    let malformed = Denial::MalformedRequest;
    for (rule, denial) in [("auto", malformed), ("require", Denial::TlsRequired)] {
        let rules = format!("rules: [{{host: 'a.test:80', tls: {rule}}}]");
        let permit = permit(&format!("{{allowedHosts: ['a.test:80'], {rules}}}"));
        for header in [
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n".as_slice(),
            b"PROXY UNKNOWN\r\n",
            b"PROXYX TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY\0 UNKNOWN\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x01\x01\x01\x02\x02\x02\x02\0\x01\0\x02",
            b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        ] {
            for behind in [request, &hello()] {
                let bytes = [header, behind].concat();
                for at in 0..=header.len() {
                    let mut gate = Gate::new(&permit).unwrap();
                    let told = header.escape_ascii();
                    let expected = (Step::Cut(denial), 0);
                    assert_eq!(in_two(&mut gate, &bytes, at), expected, "{told} at {at}");
                    assert_eq!(gate.preamble(), denial == malformed, "{told} at {at}");
                }
            }
        }
    }
    let permit = permit("{allowedHosts: ['a.test:80']}");
    for other in [b"PROX Y\r\n".as_slice(), b"\r\n\r\n\0\r\nQUITE\r\n"] {
        let mut gate = Gate::new(&permit).unwrap();
        assert_eq!(in_two(&mut gate, other, 6).0, Step::Open);
        assert!(!gate.preamble());
    }
}

/// Lengths at the head of messages of databases, whose first byte is a record's content type; and what may stand before a hello.
#[test]
fn what_only_begins_like_a_record_goes() {
    let permit = permit("{allowedHosts: ['a.test:80']}");
    let cut = Step::Cut(Denial::TlsMalformed);
    for (bytes, expected) in [
        // MongoDB: length and number of the request.
        (b"\x14\x01\0\0\x01\0\0\0".as_slice(), Step::Forward),
        (b"\x15\x01\0\0\x02\0\0\0", Step::Forward),
        (b"\x16\x01\0\0\x03\0\0\0", Step::Forward),
        (b"\x17\x03\0\0\x04\0\0\0", Step::Forward),
        (b"\x18\x03\0\0\x05\0\0\0", Step::Forward),
        // MySQL: length, place in the exchange, capabilities.
        (b"\x15\0\0\x01\x85\xa6", Step::Forward),
        (b"\x16\0\0\x01\x85\xa6", Step::Forward),
        // A warning alert, an empty change_cipher_spec, a hello of an unknown version.
        (b"\x15\x03\x03\0\x02\x01\x5a\x16\x03", cut),
        (b"\x14\x03\x03\0\0\x16\x03", cut),
        (b"\x16\x01\x01\x01\0\x01\0", cut),
    ] {
        for at in 0..=bytes.len() {
            let mut gate = Gate::new(&permit).unwrap();
            let told = bytes.escape_ascii();
            let gone = if expected == cut { 0 } else { bytes.len() };
            assert_eq!(
                in_two(&mut gate, bytes, at),
                (expected, gone),
                "{told} at {at}"
            );
            assert!(expected == cut || !gate.tls(), "{told} at {at}");
        }
    }
}
