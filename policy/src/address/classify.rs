//! From an address to its class.

use super::{
    Nat64Prefix,
    embedded::{WELL_KNOWN, canonical, embedded},
    table::{METADATA, V4, V6},
};
use ipnet::{IpNet, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressClass {
    /// Globally reachable.
    Global,
    /// A special-purpose block (name and source, e.g. `("loopback", "RFC 1122")`).
    Special {
        /// What the block is for.
        name: &'static str,
        /// The document that says so.
        source: &'static str,
    },
    /// A cloud metadata address: needs naming one by one by the operator.
    Metadata,
}

/// Classify `address`; an IPv4 address embedded in an IPv6 one is judged itself.
///
/// Mapped addresses and those of a NAT64 prefix (the well-known one, and the operator's) are exactly what the embedded
/// address is. In tunnels (6to4, Teredo, ISATAP) an embedded address can only make things worse.
#[must_use]
pub fn classify(address: IpAddr, nat64: &[Nat64Prefix]) -> AddressClass {
    match canonical(address) {
        IpAddr::V4(address) => classify_v4(address),
        IpAddr::V6(address) => classify_v6(address, nat64),
    }
}

fn classify_v4(address: Ipv4Addr) -> AddressClass {
    if METADATA.contains(&address.into()) {
        return AddressClass::Metadata;
    }
    let bits = address.to_bits();
    V4.iter()
        .find(|block| (bits ^ block.first.to_bits()) >> (32 - block.length) == 0)
        .map_or(AddressClass::Global, |block| AddressClass::Special {
            name: block.name,
            source: block.source,
        })
}

fn classify_v6(address: Ipv6Addr, nat64: &[Nat64Prefix]) -> AddressClass {
    if METADATA.contains(&address.into()) {
        return AddressClass::Metadata;
    }
    // `::` and `::1` look like compatible addresses, and are not (RFC 4291 §2.5.5.1).
    if address.is_unspecified() || address.is_loopback() {
        return registry(address);
    }
    let mut worst = AddressClass::Global;
    for inner in embedded(address, nat64) {
        match classify_v4(inner) {
            AddressClass::Metadata => return AddressClass::Metadata,
            special @ AddressClass::Special { .. } => worst = special,
            AddressClass::Global => {}
        }
    }
    let translated = || {
        WELL_KNOWN.extract(address).is_some() || nat64.iter().any(|p| p.extract(address).is_some())
    };
    match worst {
        AddressClass::Global if translated() => AddressClass::Global,
        AddressClass::Global => registry(address),
        special => special,
    }
}

/// The most specific block; outside 2000::/3 nothing is globally reachable (RFC 4291 §2.4).
fn registry(address: Ipv6Addr) -> AddressClass {
    let bits = address.to_bits();
    let block = V6
        .iter()
        .filter(|block| (bits ^ block.first.to_bits()) >> (128 - block.length) == 0)
        .max_by_key(|block| block.length);
    match block {
        Some(block) if block.global => AddressClass::Global,
        Some(block) => AddressClass::Special {
            name: block.name,
            source: block.source,
        },
        None if bits >> 125 == 1 => AddressClass::Global,
        None => AddressClass::Special {
            name: "outside global unicast",
            source: "RFC 4291 §2.4",
        },
    }
}

/// Could any address of this range be special-purpose or a metadata address? Then naming it is an exception.
pub(crate) fn is_special_range(net: IpNet) -> bool {
    let overlaps = |block: IpNet| block.contains(&net) || net.contains(&block);
    if METADATA.iter().any(|address| net.contains(address)) {
        return true;
    }
    if net.prefix_len() == net.max_prefix_len() {
        return classify(net.addr(), &[]) != AddressClass::Global;
    }
    match net {
        IpNet::V4(_) => V4
            .iter()
            .filter_map(|block| IpNet::new(block.first.into(), block.length).ok())
            .any(overlaps),
        IpNet::V6(v6) => {
            let global = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
            !global.contains(&v6)
                || V6
                    .iter()
                    .filter(|block| !block.global)
                    .filter_map(|block| IpNet::new(block.first.into(), block.length).ok())
                    .any(overlaps)
        }
    }
}
