#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use super::super::testing::Dice;
use super::*;
use proptest::prelude::*;

mod corpora;
mod wire;

/// A hello built field by field, so that each can be spoilt alone.
struct Builder {
    version: u16,
    session_id: Vec<u8>,
    suites: Vec<u8>,
    compressions: Vec<u8>,
    extensions: Option<Vec<(u16, Vec<u8>)>>,
}

impl Builder {
    fn new(name: &[u8]) -> Self {
        Self {
            version: 0x0303,
            session_id: vec![7; 32],
            suites: vec![0x13, 1, 0x13, 2],
            compressions: vec![0],
            extensions: Some(vec![
                (0, server_name(&[(0, name)])),
                (43, vec![4, 3, 4, 3, 3]),
            ]),
        }
    }

    fn with(mut self, kind: u16, content: &[u8]) -> Self {
        self.extensions
            .as_mut()
            .unwrap()
            .push((kind, content.to_vec()));
        self
    }

    fn server_name(mut self, content: Vec<u8>) -> Self {
        self.extensions.as_mut().unwrap()[0].1 = content;
        self
    }

    fn body(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend([9; 32]);
        body.push(u8::try_from(self.session_id.len()).unwrap());
        body.extend(&self.session_id);
        body.extend(long(&self.suites));
        body.push(u8::try_from(self.compressions.len()).unwrap());
        body.extend(&self.compressions);
        if let Some(extensions) = &self.extensions {
            let block: Vec<u8> = extensions
                .iter()
                .flat_map(|(kind, content)| [kind.to_be_bytes().to_vec(), long(content)].concat())
                .collect();
            body.extend(long(&block));
        }
        body
    }

    fn message(&self) -> Vec<u8> {
        message(1, &self.body())
    }

    fn wire(&self) -> Vec<u8> {
        record(22, &self.message())
    }
}

fn long(content: &[u8]) -> Vec<u8> {
    [
        &u16::try_from(content.len()).unwrap().to_be_bytes()[..],
        content,
    ]
    .concat()
}

fn server_name(names: &[(u8, &[u8])]) -> Vec<u8> {
    let list: Vec<u8> = names
        .iter()
        .flat_map(|(kind, name)| [vec![*kind], long(name)].concat())
        .collect();
    long(&list)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

fn record(kind: u8, fragment: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1][..], &long(fragment)].concat()
}

fn feed(bytes: &[u8]) -> Verdict {
    Reader::new().feed(bytes)
}

fn feed_pieces<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> Verdict {
    let mut reader = Reader::new();
    let mut verdict = Verdict::NeedMore;
    for piece in pieces {
        verdict = reader.feed(piece);
    }
    verdict
}

fn name_of(verdict: &Verdict) -> Option<&str> {
    match verdict {
        Verdict::Hello(ClientHello {
            sni: Some(Sni::Name(name)),
            ..
        }) => Some(name),
        Verdict::Hello(ClientHello { sni: None, .. }) => None,
        other => panic!("no hello with a sound name or none: {other:?}"),
    }
}

fn field(bytes: &[u8]) -> HelloError {
    match feed(bytes) {
        Verdict::Malformed(error) => error,
        other => panic!("not malformed: {other:?}"),
    }
}

/// The same verdict at every cut in two, byte by byte, in random pieces, and re-cut into random records.
fn assert_steady(bytes: &[u8], expected: &Verdict, seed: u64) {
    let mut dice = Dice::new(seed);
    for at in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(at);
        assert_eq!(&feed_pieces([head, tail]), expected, "cut at {at}");
    }
    assert_eq!(&feed_pieces(bytes.chunks(1)), expected, "byte by byte");
    for _ in 0..16 {
        assert_eq!(&feed_pieces(dice.cut(bytes, 64)), expected, "random pieces");
    }
}

#[test]
fn drafts_of_ech_hide_a_name_too() {
    for (extension, ech) in [(0xffce, true), (0xfe0a, true), (0xfe0e, false)] {
        let hello = Builder::new(b"a.test").with(extension, b"x");
        let Verdict::Hello(read) = feed(&hello.wire()) else {
            panic!()
        };
        assert_eq!((read.ech, read.ech_draft), (false, ech), "{extension:#x}");
    }
}

#[test]
fn reads_what_is_there() {
    let hello = Builder::new(b"API.allowed.test.")
        .with(0xfe0d, b"x")
        .with(16, b"\0\x0c\x02h2\x08http/1.1")
        .with(42, b"")
        .with(0x0a0a, b"grease");
    let Verdict::Hello(read) = feed(&hello.wire()) else {
        panic!()
    };
    assert_eq!(read.sni, Some(Sni::Name("API.allowed.test.".into())));
    assert!(read.ech && read.early_data);
    assert_eq!(
        read.alpn,
        [Box::from(&b"h2"[..]), Box::from(&b"http/1.1"[..])]
    );
    assert_eq!(
        (read.legacy_version, read.supported_versions),
        (0x0303, vec![0x0304, 0x0303])
    );
    let bare = Builder {
        extensions: None,
        ..Builder::new(b"x")
    };
    let Verdict::Hello(read) = feed(&bare.wire()) else {
        panic!()
    };
    assert_eq!((read.sni, read.ech, read.early_data), (None, false, false));
}

#[test]
fn a_verdict_stays_and_the_rest_is_not_read() {
    let wire = Builder::new(b"a.test").wire();
    let mut reader = Reader::new();
    let verdict = reader.feed(&[&wire[..], b"\x16\x03\x03 and more"].concat());
    assert_eq!(name_of(&verdict), Some("a.test"));
    assert_eq!(reader.consumed(), wire.len());
    assert_eq!(reader.feed(b"\x80\x80\x80"), verdict);
    assert_eq!(reader.consumed(), wire.len());
}

#[test]
fn fields_of_impossible_length() {
    let cases = [
        (
            Builder {
                version: 0x0200,
                ..Builder::new(b"a")
            },
            HelloError::HelloVersion,
        ),
        (
            Builder {
                session_id: vec![1; 33],
                ..Builder::new(b"a")
            },
            HelloError::Field("legacy_session_id"),
        ),
        (
            Builder {
                suites: vec![],
                ..Builder::new(b"a")
            },
            HelloError::Field("cipher_suites"),
        ),
        (
            Builder {
                suites: vec![1; 3],
                ..Builder::new(b"a")
            },
            HelloError::Field("cipher_suites"),
        ),
        (
            Builder {
                compressions: vec![],
                ..Builder::new(b"a")
            },
            HelloError::Field("legacy_compression_methods"),
        ),
        (
            Builder::new(b"a").with(0, &server_name(&[(0, b"a")])),
            HelloError::Repeated("server_name"),
        ),
        (
            Builder::new(b"a").with(0xfe0d, b"").with(0xfe0d, b""),
            HelloError::Repeated("encrypted_client_hello"),
        ),
        (
            Builder::new(b"a").with(43, b"\x02\x03\x04"),
            HelloError::Repeated("supported_versions"),
        ),
        (
            Builder::new(b"a").with(42, b"").with(42, b""),
            HelloError::Repeated("early_data"),
        ),
    ];
    for (hello, error) in cases {
        assert_eq!(field(&hello.wire()), error);
        assert_steady(&hello.wire(), &Verdict::Malformed(error), 3);
    }
}

#[test]
fn server_name_lists() {
    const NAME: HelloError = HelloError::Field("server_name");
    for (content, error) in [
        (
            server_name(&[(0, b"a.test"), (0, b"b.test")]),
            HelloError::TwoNames,
        ),
        (
            server_name(&[(0, b"a.test"), (0, b"a.test")]),
            HelloError::TwoNames,
        ),
        (server_name(&[(0, b"a.test"), (1, b"b.test")]), NAME),
        (server_name(&[(1, b"a.test"), (0, b"b.test")]), NAME),
        (server_name(&[]), NAME),
        (Vec::new(), NAME),
        ([server_name(&[(0, b"a.test")]), vec![0]].concat(), NAME),
        (b"\0\x08\0\0\x06a.tes".to_vec(), NAME),
        (
            b"\0\x08\0\0\x05a.test".to_vec(),
            HelloError::Field("server_name"),
        ),
    ] {
        let verdict = feed(&Builder::new(b"x").server_name(content.clone()).wire());
        match verdict {
            // A byte left over inside the list reads as the type of a second entry.
            Verdict::Malformed(found) => assert!(
                found == error || found == HelloError::TwoNames,
                "{content:x?}: {found:?}"
            ),
            other => panic!("{content:x?}: {other:?}"),
        }
    }
}

#[test]
fn names_no_host_can_have() {
    let sni = |name: &[u8]| match feed(&Builder::new(name).wire()) {
        Verdict::Hello(hello) => hello.sni.unwrap(),
        other => panic!("{other:?}"),
    };
    let long = [b"a.".repeat(127), b"aa".to_vec()].concat();
    for name in [
        &b""[..],
        b".",
        b"a.test..",
        b".a.test",
        b"a..test",
        b"a.test\0",
        b"a.test\0.evil.test",
        b"a test",
        b"a.test\n",
        b"b\xc3\xbccher.test",
        b"\xff\xfe",
        b"a.test\x7f",
        &long,
    ] {
        assert_eq!(sni(name), Sni::Malformed, "{name:x?}");
    }
    for name in [
        "a.test",
        "A.Test.",
        "_srv.a.test",
        "127.0.0.1",
        "xn--bcher-kva.test",
        &"a.".repeat(127),
    ] {
        assert_eq!(sni(name.as_bytes()), Sni::Name(name.to_owned()));
    }
}

#[test]
fn memory_grows_with_what_is_received_and_alpn_is_bounded() {
    let many = long(&b"\x01x".repeat(1000));
    let Verdict::Hello(hello) = feed(&Builder::new(b"a.test").with(16, &many).wire()) else {
        panic!()
    };
    assert_eq!(hello.alpn.len(), 32);
    for bad in [&b"\0\0"[..], b"\0\x01\0", b"\0\x03\x03h2", b"\0\x03\x02h2x"] {
        assert!(
            matches!(
                feed(&Builder::new(b"a.test").with(16, bad).wire()),
                Verdict::Malformed(_)
            ),
            "{bad:x?}"
        );
    }
}

proptest! {
    #[test]
    fn cuts_never_change_a_verdict(bytes in near_hello(), cuts in proptest::collection::vec(1..40usize, 1..60)) {
        let whole = feed(&bytes);
        let mut rest = &bytes[..];
        let mut reader = Reader::new();
        let mut verdict = Verdict::NeedMore;
        for cut in cuts.into_iter().cycle() {
            if rest.is_empty() { break; }
            let (piece, later) = rest.split_at(cut.min(rest.len()));
            verdict = reader.feed(piece);
            rest = later;
        }
        prop_assert_eq!(verdict, whole);
    }
}

/// Hellos with a few bytes changed, so that faults lie at every depth.
fn near_hello() -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (changes, 1..200usize, "[a-z]{1,9}\\.test").prop_map(|(changes, size, name)| {
        let message = Builder::new(name.as_bytes())
            .with(16, b"\0\x03\x02h2")
            .message();
        let mut wire: Vec<u8> = message.chunks(size).flat_map(|f| record(22, f)).collect();
        for (at, byte) in changes {
            let at = at.index(wire.len());
            wire[at] = byte;
        }
        wire
    })
}
