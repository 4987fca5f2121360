//! Any value is a credential or a refusal.
#![no_main]
use sluicegate::auth::{bearer, proxy_credential};

libfuzzer_sys::fuzz_target!(|value: &[u8]| {
    let _ = (
        proxy_credential(std::iter::once(value)),
        bearer(std::iter::once(value)),
    );
});
