//! Bytes that come later never change what a SOCKS5 message was read as.
#![no_main]
use sluicegate::sniff::socks::{greeting, login, request};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((cut, bytes)) = input.split_last() else { return };
    let start = &bytes[..usize::from(*cut).min(bytes.len())];
    assert!(!greeting(start).is_told() || greeting(start) == greeting(bytes));
    assert!(!login(start).is_told() || login(start) == login(bytes));
    assert!(!request(start).is_told() || request(start) == request(bytes));
});
