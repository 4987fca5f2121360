//! An IPv4 address that may not be reached may not be reached inside an operator's NAT64 prefix either.
#![no_main]
use sluicegate_policy::{AddressClass, Nat64Prefix, classify};
use std::net::Ipv6Addr;

libfuzzer_sys::fuzz_target!(|input: (u128, u8, u128)| {
    let length = [32u8, 40, 48, 56, 64, 96][usize::from(input.1) % 6];
    let mask = u128::MAX << (128 - length);
    let Some(prefix) = Nat64Prefix::new(Ipv6Addr::from_bits(input.0 & mask), length) else { return };
    let address = Ipv6Addr::from_bits((input.0 & mask) | (input.2 & !mask));
    // A mapped address is dialled as IPv4, whatever prefix it lies under.
    let translated = address.to_ipv4_mapped().is_none();
    if translated && prefix.extract(address).is_some_and(|v4| classify(v4.into(), &[]) != AddressClass::Global) {
        assert_ne!(classify(address.into(), &[prefix]), AddressClass::Global, "{address}");
    }
});
