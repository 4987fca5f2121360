//! A reader that asks for no more than it may reads a PROXY header and nothing behind it.
#![no_main]
use sluicegate::sniff::{Message, proxy_header::{read, wanted}};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut at = 0;
    while at <= bytes.len() && read(&bytes[..at]) == Message::NeedMore {
        at += wanted(&bytes[..at]).max(1);
    }
    assert!(at > bytes.len() || read(&bytes[..at]).whole().is_none_or(|(_, taken)| taken == at));
});
