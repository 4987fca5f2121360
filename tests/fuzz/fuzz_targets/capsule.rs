//! However the bytes are cut, the decoder makes the same of them: the same payload, the same end, the same refusal.
#![no_main]
use bytes::Bytes;
use sluicegate_relay_protocol::capsule::{Decoder, Piece};

/// Payload, whether FINAL_DATA came, and whether the rest was refused.
fn read(pieces: &[&[u8]]) -> (Vec<u8>, bool, bool) {
    let mut decoder = Decoder::default();
    let (mut payload, mut ended) = (Vec::new(), false);
    for piece in pieces {
        let mut bytes = Bytes::copy_from_slice(piece);
        loop {
            match decoder.next(&mut bytes) {
                Ok(Some(Piece::Data(data))) => payload.extend_from_slice(&data),
                Ok(Some(Piece::Fin)) => ended = true,
                Ok(None) => break,
                Err(_) => return (payload, ended, true),
            }
        }
    }
    (payload, ended, false)
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    // The first byte says where to cut.
    let Some((cut, bytes)) = input.split_first() else {
        return;
    };
    let whole = read(&[bytes]);
    let (first, second) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(read(&[first, second]), whole);
    let single: Vec<_> = bytes.chunks(1).collect();
    assert_eq!(read(&single), whole);
});
