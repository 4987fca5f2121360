//! A head is read the same however it is written, never past its end, and a refused one stays refused.
#![no_main]
use sluicegate_relay_protocol::preamble::Request;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some((request, length))) = Request::decode(bytes) {
        assert!(Request::decode(&bytes[..length - 1]) == Ok(None));
        let again = request.encode().unwrap();
        assert!(Request::decode(&again) == Ok(Some((request, again.len()))));
    }
});
