#![allow(clippy::unwrap_used)]
use super::{CapsuleError, DATA, Decoder, FINAL_DATA, Head, Piece};
use bytes::Bytes;
use proptest::prelude::*;

fn capsule(kind: u64, payload: &[u8]) -> Vec<u8> {
    [Head::new(kind, payload.len()).as_slice(), payload].concat()
}

/// Everything a wire gives when it is cut into `sizes`: payload joined, and how it ended.
fn read(wire: &[u8], sizes: &[usize]) -> (Vec<u8>, bool, Result<(), CapsuleError>) {
    let mut decoder = Decoder::default();
    let (mut payload, mut fin, mut rest) = (Vec::new(), false, wire);
    let mut sizes = sizes.iter().copied().chain(std::iter::repeat(usize::MAX));
    while !rest.is_empty() {
        let (now, later) = rest.split_at(sizes.next().unwrap().min(rest.len()));
        rest = later;
        let mut input = Bytes::copy_from_slice(now);
        loop {
            match decoder.next(&mut input) {
                Ok(Some(Piece::Data(data))) => {
                    assert!(!data.is_empty() && !fin);
                    payload.extend_from_slice(&data);
                }
                Ok(Some(Piece::Fin)) => fin = true,
                Ok(None) => break,
                Err(error) => return (payload, fin, Err(error)),
            }
        }
    }
    (payload, fin, decoder.finish())
}

fn hex(head: Head) -> String {
    head.as_slice().iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn heads_on_the_wire() {
    assert_eq!(hex(Head::new(DATA, 0)), "a028d7f200");
    assert_eq!(hex(Head::new(DATA, 5)), "a028d7f205");
    assert_eq!(hex(Head::new(DATA, 63)), "a028d7f23f");
    assert_eq!(hex(Head::new(DATA, 64)), "a028d7f24040");
    assert_eq!(hex(Head::new(DATA, 16_383)), "a028d7f27fff");
    assert_eq!(hex(Head::new(DATA, 16_384)), "a028d7f280004000");
    assert_eq!(hex(Head::new(FINAL_DATA, 0)), "a028d7f300");
    assert_eq!(
        hex(Head::new(FINAL_DATA, 1 << 30)),
        "a028d7f3c000000040000000"
    );
    // RFC 9000 §A.1.
    assert_eq!(hex(Head::new(37, 15_293)), "257bbd");
    assert_eq!(hex(Head::new(494_878_333, 0)), "9d7f3e7d00");
}

#[test]
fn a_stream_with_both_kinds() {
    let wire = [
        capsule(DATA, b"hello "),
        capsule(0x17, b"ignored"),
        capsule(FINAL_DATA, b"world"),
    ]
    .concat();
    assert_eq!(read(&wire, &[]), (b"hello world".to_vec(), true, Ok(())));
}

#[test]
fn payload_is_handed_on_before_its_capsule_is_complete() {
    let mut decoder = Decoder::default();
    let mut input = Bytes::from([Head::new(DATA, 1000).as_slice(), b"abc"].concat());
    assert_eq!(
        decoder.next(&mut input),
        Ok(Some(Piece::Data(Bytes::from_static(b"abc"))))
    );
    assert_eq!(decoder.next(&mut input), Ok(None));
    assert_eq!(decoder.finish(), Err(CapsuleError::Truncated));
}

#[test]
fn ends_that_are_not_clean() {
    let table: [(&str, Vec<u8>); 5] = [
        ("nothing at all", vec![]),
        ("data without FINAL_DATA", capsule(DATA, b"x")),
        (
            "inside a head",
            capsule(DATA, b"x").into_iter().take(3).collect(),
        ),
        (
            "inside FINAL_DATA",
            Head::new(FINAL_DATA, 2)
                .as_slice()
                .iter()
                .copied()
                .chain(*b"x")
                .collect(),
        ),
        (
            "inside an unknown capsule after the FIN",
            [capsule(FINAL_DATA, b""), vec![0x17, 2, 0]].concat(),
        ),
    ];
    for (name, wire) in table {
        assert_eq!(read(&wire, &[]).2, Err(CapsuleError::Truncated), "{name}");
    }
}

#[test]
fn nothing_of_either_kind_after_the_final_one() {
    for kind in [DATA, FINAL_DATA] {
        let wire = [capsule(FINAL_DATA, b"x"), capsule(kind, b"")].concat();
        assert_eq!(
            read(&wire, &[]),
            (b"x".to_vec(), true, Err(CapsuleError::DataAfterFinal))
        );
    }
    let wire = [capsule(FINAL_DATA, b""), capsule(0x29, b"noise")].concat();
    assert_eq!(read(&wire, &[]), (vec![], true, Ok(())));
}

#[test]
fn long_encodings_of_small_numbers_are_read() {
    // Type DATA as eight bytes, length 1 as four.
    let wire = [0xc0, 0, 0, 0, 0x20, 0x28, 0xd7, 0xf2, 0x80, 0, 0, 1, b'x'];
    assert_eq!(read(&wire, &[]).0, b"x");
}

fn any_stream() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let one = (
        prop_oneof![3 => Just(DATA), 1 => 0u64..0x2000_0000],
        prop::collection::vec(any::<u8>(), 0..300),
    );
    (
        prop::collection::vec(one, 0..12),
        prop::collection::vec(any::<u8>(), 0..50),
    )
        .prop_map(|(capsules, last)| {
            let (mut wire, mut payload) = (Vec::new(), Vec::new());
            for (kind, body) in capsules {
                wire.extend(capsule(kind, &body));
                if kind == DATA {
                    payload.extend(body);
                }
            }
            wire.extend(capsule(FINAL_DATA, &last));
            payload.extend(last);
            (wire, payload)
        })
}

proptest! {
    #[test]
    fn splits_change_nothing((wire, payload) in any_stream(), sizes in prop::collection::vec(1usize..40, 0..200)) {
        prop_assert_eq!(read(&wire, &sizes), (payload, true, Ok(())));
    }

    #[test]
    fn a_cut_stream_is_never_a_clean_end((wire, _) in any_stream(), at in any::<prop::sample::Index>()) {
        let cut = at.index(wire.len());
        let (_, fin, end) = read(wire.get(..cut).unwrap(), &[]);
        prop_assert!(!fin && end == Err(CapsuleError::Truncated));
    }

    #[test]
    fn noise_never_panics(wire in prop::collection::vec(any::<u8>(), 0..200), sizes in prop::collection::vec(1usize..9, 0..50)) {
        let _ = read(&wire, &sizes);
    }
}
