//! Cuts never change what a request stream says.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let (bytes, pieces) = fuzz::pieces(input);
    assert_eq!(fuzz::requests(pieces), fuzz::requests([bytes]));
});
