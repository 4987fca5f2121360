#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use super::super::testing::Dice;
use super::super::{Reader, Sni, Verdict};
use super::*;

fn long(content: &[u8]) -> Vec<u8> {
    [
        &u16::try_from(content.len()).unwrap().to_be_bytes()[..],
        content,
    ]
    .concat()
}

fn record(kind: u8, fragment: &[u8]) -> Vec<u8> {
    [&[kind, 3, 3][..], &long(fragment)].concat()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

fn hello(name: &str) -> Vec<u8> {
    let list = [vec![0], long(name.as_bytes())].concat();
    let extension = [vec![0, 0], long(&long(&list))].concat();
    let body = [
        &[3, 3][..],
        &[9; 32],
        &[0, 0, 2, 0x13, 1, 1, 0],
        &long(&extension),
    ]
    .concat();
    message(1, &body)
}

fn server_hello(random: [u8; 32]) -> Vec<u8> {
    message(2, &[&[3, 3][..], &random, &[0, 0x13, 1, 0, 0, 0]].concat())
}

fn retry() -> Vec<u8> {
    record(22, &server_hello(RETRY_RANDOM))
}

fn named(step: ClientStep) -> String {
    match step {
        ClientStep::Hello(ClientHello {
            sni: Some(Sni::Name(name)),
            ..
        }) => name,
        other => panic!("{other:?}"),
    }
}

const DUMMY_CCS: &[u8] = &[20, 3, 3, 0, 1, 1];

#[test]
fn retry_random_is_the_hash_the_rfc_names() {
    use sha2::Digest as _;
    assert_eq!(
        RETRY_RANDOM[..],
        sha2::Sha256::digest(b"HelloRetryRequest")[..]
    );
}

#[test]
fn a_server_hello_ends_the_watch() {
    let mut watch = HelloWatch::new();
    assert_eq!(watch.from_client(b""), ClientStep::Pass);
    assert_eq!(
        watch.from_server(&record(22, &server_hello([5; 32]))),
        ServerStep::Done
    );
    assert_eq!(
        watch.from_client(&record(22, &hello("evil.test"))),
        ClientStep::Done
    );
    assert_eq!(watch.from_server(b"anything"), ServerStep::Done);
}

#[test]
fn after_a_retry_the_second_hello_is_held_and_shown() {
    for before in [&b""[..], DUMMY_CCS] {
        let mut watch = HelloWatch::new();
        assert_eq!(watch.from_server(&retry()), ServerStep::Retry);
        let flight = [before, &record(22, &hello("b.test"))].concat();
        assert_eq!(watch.from_client(&flight[..before.len()]), ClientStep::Pass);
        assert_eq!(
            watch.from_client(&flight[before.len()..before.len() + 1]),
            ClientStep::NeedMore
        );
        assert_eq!(
            named(watch.from_client(&flight[before.len() + 1..])),
            "b.test"
        );
        assert_eq!(watch.from_client(b"\x17\x03\x03"), ClientStep::Done);
        assert_eq!(watch.from_server(b"\x16\x03\x03"), ServerStep::Done);
    }
}

#[test]
fn the_second_hello_in_any_records_and_pieces() {
    let mut dice = Dice::new(11);
    for most in [1, 3, 20, 500] {
        let mut watch = HelloWatch::new();
        let server: Vec<u8> = dice
            .cut(&server_hello(RETRY_RANDOM), most)
            .into_iter()
            .flat_map(|f| record(22, f))
            .collect();
        let steps: Vec<_> = dice
            .cut(&server, most)
            .into_iter()
            .map(|piece| watch.from_server(piece))
            .collect();
        assert_eq!(steps.iter().filter(|s| **s == ServerStep::Retry).count(), 1);
        assert!(!steps.contains(&ServerStep::Done));
        let client: Vec<u8> = dice
            .cut(&hello("b.test"), most)
            .into_iter()
            .flat_map(|f| record(22, f))
            .collect();
        let pieces = dice.cut(&client, most);
        let (last, held) = pieces.split_last().unwrap();
        for piece in held {
            assert_eq!(watch.from_client(piece), ClientStep::NeedMore);
        }
        assert_eq!(named(watch.from_client(last)), "b.test");
    }
}

#[test]
fn after_a_retry_only_a_hello_may_follow() {
    for (bytes, error) in [
        (
            record(22, &message(11, b"certificate")),
            HelloError::NotClientHello,
        ),
        (
            [record(22, &hello("b.test")[..20]), DUMMY_CCS.to_vec()].concat(),
            HelloError::UnexpectedRecord,
        ),
        (record(22, b""), HelloError::EmptyRecord),
        (b"GET / ".to_vec(), HelloError::UnexpectedRecord),
    ] {
        let mut watch = HelloWatch::new();
        watch.from_server(&retry());
        assert_eq!(watch.from_client(&bytes), ClientStep::Malformed(error));
        assert_eq!(
            watch.from_client(&record(22, &hello("b.test"))),
            ClientStep::Malformed(error)
        );
    }
}

#[test]
fn early_data_passes_before_and_after_a_retry() {
    let early = record(23, &[0xee; 9000]);
    let mut watch = HelloWatch::new();
    assert_eq!(
        watch.from_client(&[DUMMY_CCS, &early].concat()),
        ClientStep::Pass
    );
    assert_eq!(watch.from_client(&early[..100]), ClientStep::Pass);
    assert_eq!(
        watch.from_server(&[retry(), DUMMY_CCS.to_vec()].concat()),
        ServerStep::Retry
    );
    assert_eq!(watch.from_client(&early[100..]), ClientStep::Pass);
    assert_eq!(
        named(watch.from_client(&record(22, &hello("b.test")))),
        "b.test"
    );
}

#[test]
fn a_second_hello_sent_unasked_is_shown_too() {
    let both = [hello("a.test"), hello("evil.test")].concat();
    let separate = [
        record(22, &hello("a.test")),
        record(22, &hello("evil.test")),
    ]
    .concat();
    let hidden = [hello("a.test"), message(4, &[1; 700]), hello("evil.test")].concat();
    for wire in [record(22, &both), separate, record(22, &hidden)] {
        let mut reader = Reader::new();
        assert!(matches!(reader.feed(&wire), Verdict::Hello(_)));
        let rest = &wire[reader.consumed()..];
        assert_eq!(
            named(reader.clone().into_watch().from_client(rest)),
            "evil.test"
        );
        let mut watch = reader.into_watch();
        let (last, held) = rest.split_last().unwrap();
        for byte in held {
            assert!(matches!(
                watch.from_client(&[*byte]),
                ClientStep::NeedMore | ClientStep::Pass
            ));
        }
        assert_eq!(named(watch.from_client(&[*last])), "evil.test");
    }
}

#[test]
fn a_held_piece_is_never_reported_as_passed() {
    // Every byte of the hello itself is held back, down to the record's first.
    let wire = record(22, &hello("evil.test"));
    let mut watch = HelloWatch::new();
    for byte in &wire[..wire.len() - 1] {
        assert_eq!(watch.from_client(&[*byte]), ClientStep::NeedMore);
    }
}

#[test]
fn what_else_an_upstream_may_say_first() {
    let first = |bytes: &[u8]| HelloWatch::new().from_server(bytes);
    assert_eq!(first(b"SSH-2.0"), ServerStep::Done);
    assert_eq!(first(&record(23, b"data")), ServerStep::Done);
    assert_eq!(first(&record(22, &message(11, b"x"))), ServerStep::Done);
    assert_eq!(first(&retry()[..42]), ServerStep::Watching);
    assert_eq!(first(&retry()[..43]), ServerStep::Retry);
    let warned = [record(21, &[1, 112]), retry()].concat();
    assert_eq!(first(&warned), ServerStep::Retry);
    let mut watch = HelloWatch::new();
    for byte in &warned[..warned.len() - 6 - 1] {
        assert_eq!(watch.from_server(&[*byte]), ServerStep::Watching);
    }
}

#[test]
fn without_a_hello_there_is_nothing_to_watch() {
    let mut reader = Reader::new();
    assert_eq!(reader.feed(b"GET"), Verdict::NotTls);
    assert_eq!(
        reader
            .into_watch()
            .from_client(&record(22, &hello("b.test"))),
        ClientStep::Done
    );
}
