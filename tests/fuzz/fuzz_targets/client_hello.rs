//! Cuts never change a verdict.
#![no_main]
use sluicegate::sniff::{Reader, Verdict};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let (bytes, pieces) = fuzz::pieces(input);
    let mut reader = Reader::new();
    let verdict = pieces.map(|piece| reader.feed(piece)).last();
    assert_eq!(
        verdict.unwrap_or(Verdict::NeedMore),
        Reader::new().feed(bytes)
    );
});
