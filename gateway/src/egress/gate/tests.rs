#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use std::sync::Arc;

use sluicegate_policy::{
    Ceiling, Denial, EgressDocument, FirstBytes, GrantDocument, Target, TargetPermit, decide,
    text::{self, Faults},
};

use super::{Gate, LONGEST_BLANK, LONGEST_LINE, LONGEST_METHOD, Step, first_line, word};

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

#[test]
fn http_is_told_by_its_first_line() {
    assert_eq!(first_line(b"GET / HTTP/1.1\r\nHost: x\r\n"), Step::Http);
    assert_eq!(first_line(b"GET / HTTP/1.0\n"), Step::Http);
    assert_eq!(first_line(b"GET / HT"), Step::Hold);
    assert_eq!(first_line(b"\r\n\r\nGET / HTTP/1.1\r\n"), Step::Http);
    assert_eq!(first_line(b"\r\n"), Step::Hold);
    assert_eq!(first_line(b"GET / HTTP/1.2\r\n"), Step::Http);
    assert_eq!(first_line(b"GET / HTTP/1.1 \r\n"), Step::Http);
    assert_eq!(first_line(b"get /old\r\n"), Step::Http);
    assert_eq!(first_line(b"GET\t/\tHTTP/1.1\r\n"), Step::Http);
    for gap in [0x0b, 0x1c, 0x1f, 0x85, 0xa0] {
        let line = [b"GET".as_slice(), &[gap], b"/ HTTP/1.1\r\n"].concat();
        assert_eq!(first_line(&line), Step::Http, "{gap:#x}");
        let line = [&[gap], b"GET / HTTP/1.1\r\n".as_slice()].concat();
        assert_eq!(first_line(&line), Step::Http, "{gap:#x}");
    }
    assert_eq!(first_line(b"GET /\rHTTP/1.1\r\n"), Step::Http);
    assert_eq!(first_line(b"_X / HTTP/1.1\r\n"), Step::Http);
    let long = [&[b'M'; 200][..], b" / HTTP/1.1\r\n"].concat();
    assert_eq!(first_line(&long), Step::Http);
    assert_eq!(first_line(&[b'M'; 200]), Step::Hold);
    assert_eq!(first_line(&[b'*'; 300]), Step::Forward);
    assert_eq!(first_line(&[b'M'; LONGEST_METHOD]), Step::Hold);
    assert_eq!(first_line(b"CONNECT {\"verbose\":false}\r\n"), Step::Open);
    let cut = Step::Cut(Denial::UnsupportedProtocol);
    assert_eq!(first_line(b"PRI * HTTP/2.0\r\n\r\n"), cut);
    assert_eq!(first_line(b"PRI * HTTP/2.0\n"), cut);
    assert_eq!(first_line(b"PRI * HTTP/2.0"), Step::Hold);
    assert_eq!(first_line(b"EHLO me\r\n"), Step::Open);
    assert_eq!(first_line(b"SSH-2.0-OpenSSH_9.2\r\n"), Step::Open);
    assert_eq!(first_line(b"\x00\x00\x00\x08\x04\xd2\x16\x2f"), Step::Open);
    assert_eq!(first_line(b"*1\r\n$4\r\nPING\r\n"), Step::Open);
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
        (b" /\r\nX: / HTTP/1.1\r\n", Step::Open),
        (b"\0 / HTTP/1.1\r\n", Step::Open),
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
                assert!(
                    step != cut || !gone.contains(&b'\n'),
                    "{told} at {at}: {}",
                    gone.escape_ascii()
                );
                if step == Step::Forward {
                    assert!(!gate.undecided() && gate.at_deadline(0).is_none());
                    assert_eq!(gate.seen(), Some(&FirstBytes::Other));
                }
            }
        }
    }
}

#[test]
fn a_long_first_word_is_watched_as_long_as_a_server_may_read_on() {
    let mut gate = Gate::new(&permit("{allowedHosts: ['a.test:80']}")).unwrap();
    let part = [b'M'; 4096];
    for _ in 0..word::LONGEST / part.len() {
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

#[test]
fn nothing_is_held_for_ever() {
    assert_eq!(first_line(&[b'\n'; LONGEST_BLANK]), Step::Hold);
    assert_eq!(first_line(&[b'\n'; LONGEST_BLANK + 1]), Step::Http);
    let long = [b"GET /".as_slice(), &vec![b'a'; LONGEST_LINE]].concat();
    assert_eq!(first_line(&long), Step::Http);
    let binary = [b"\x01".as_slice(), &vec![b'a'; LONGEST_LINE]].concat();
    assert_eq!(first_line(&binary), Step::Open);
}

/// Lines as clients, servers of other protocols and attackers write them, some of them very long.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec![
        "GET", "get", "\r\n", "\n", " ", "\t", "/", "HTTP/1.1", "PRI", "*", "HTTP/2.0", "Host: a",
        "\0", "x",
    ]);
    let part = prop_oneof![
        6 => word.prop_map(|word| word.as_bytes().to_vec()),
        1 => (any::<u8>(), 0..300_usize).prop_map(|(byte, times)| vec![byte; times]),
        1 => Just(vec![b'a'; LONGEST_LINE - 3]),
    ];
    prop::collection::vec(part, 0..9).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn splitting_never_changes_the_verdict(bytes in bytes(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let whole = first_line(&bytes);
        for cut in cuts {
            let part = bytes.get(..cut.index(bytes.len() + 1)).unwrap_or_default();
            let early = first_line(part);
            prop_assert!(early == Step::Hold || early == whole, "{:?} then {:?}: {}", early, whole, part.escape_ascii());
        }
    }
}
