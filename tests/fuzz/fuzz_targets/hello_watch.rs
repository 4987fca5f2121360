//! Of bytes after a retry, the last step is the same however they are cut.
#![no_main]
use sluicegate::sniff::{ClientStep, HelloWatch};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let (bytes, pieces) = fuzz::pieces(input);
    let mut watch = HelloWatch::new();
    let mut steps = pieces
        .map(|piece| watch.from_client(piece))
        .filter(|step| *step != ClientStep::Done);
    assert_eq!(
        steps.by_ref().last().unwrap_or(ClientStep::Pass),
        HelloWatch::new().from_client(bytes)
    );
});
