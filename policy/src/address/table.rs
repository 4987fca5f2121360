//! The registries as data: blocks that are not globally reachable, and the exceptions inside them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One block and what it is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block<A> {
    /// First address.
    pub(crate) first: A,
    /// Prefix length.
    pub(crate) length: u8,
    /// Globally reachable, inside a block that is not.
    pub(crate) global: bool,
    /// Name.
    pub(crate) name: &'static str,
    /// Source.
    pub(crate) source: &'static str,
}

const fn v4(
    octets: [u8; 4],
    length: u8,
    name: &'static str,
    source: &'static str,
) -> Block<Ipv4Addr> {
    let [a, b, c, d] = octets;
    Block {
        first: Ipv4Addr::new(a, b, c, d),
        length,
        global: false,
        name,
        source,
    }
}

const fn v6(
    first: Ipv6Addr,
    length: u8,
    global: bool,
    name: &'static str,
    source: &'static str,
) -> Block<Ipv6Addr> {
    Block {
        first,
        length,
        global,
        name,
        source,
    }
}

/// IANA IPv4 Special-Purpose Address Registry, last updated 2025-10-09, less its globally reachable rows; plus
/// multicast. 192.0.0.0/24 is refused whole, though 192.0.0.9 and .10 are reachable: nothing served there is a web
/// service, and 192.0.0.192 is one cloud's metadata.
pub(crate) const V4: &[Block<Ipv4Addr>] = &[
    v4([0, 0, 0, 0], 8, "this network", "RFC 791 §3.2"),
    v4([10, 0, 0, 0], 8, "private use", "RFC 1918"),
    v4([100, 64, 0, 0], 10, "shared address space", "RFC 6598"),
    v4([127, 0, 0, 0], 8, "loopback", "RFC 1122 §3.2.1.3"),
    v4([169, 254, 0, 0], 16, "link local", "RFC 3927"),
    v4([172, 16, 0, 0], 12, "private use", "RFC 1918"),
    v4(
        [192, 0, 0, 0],
        24,
        "IETF protocol assignments",
        "RFC 6890 §2.1",
    ),
    v4([192, 0, 2, 0], 24, "documentation (TEST-NET-1)", "RFC 5737"),
    v4(
        [192, 88, 99, 0],
        24,
        "6to4 relay anycast (deprecated)",
        "RFC 7526",
    ),
    v4([192, 168, 0, 0], 16, "private use", "RFC 1918"),
    v4([198, 18, 0, 0], 15, "benchmarking", "RFC 2544"),
    v4(
        [198, 51, 100, 0],
        24,
        "documentation (TEST-NET-2)",
        "RFC 5737",
    ),
    v4(
        [203, 0, 113, 0],
        24,
        "documentation (TEST-NET-3)",
        "RFC 5737",
    ),
    v4([224, 0, 0, 0], 4, "multicast", "RFC 5771"),
    v4([240, 0, 0, 0], 4, "reserved", "RFC 1112 §4"),
];

const fn groups(g: [u16; 8]) -> Ipv6Addr {
    let [a, b, c, d, e, f, h, i] = g;
    Ipv6Addr::new(a, b, c, d, e, f, h, i)
}

const fn top(a: u16, b: u16, c: u16, d: u16) -> Ipv6Addr {
    groups([a, b, c, d, 0, 0, 0, 0])
}

/// IANA IPv6 Special-Purpose Address Registry, last updated 2025-10-09, with the rows inside 2001::/23 that are
/// globally reachable; plus multicast and the deprecated site-local block. The most specific block counts; outside
/// 2000::/3 nothing is globally reachable but what the embedded IPv4 address says (RFC 4291 §2.4).
pub(crate) const V6: &[Block<Ipv6Addr>] = &[
    v6(
        groups([0, 0, 0, 0, 0, 0, 0, 1]),
        128,
        false,
        "loopback",
        "RFC 4291 §2.5.3",
    ),
    v6(
        top(0, 0, 0, 0),
        128,
        false,
        "unspecified",
        "RFC 4291 §2.5.2",
    ),
    v6(
        top(0, 0, 0, 0),
        96,
        false,
        "IPv4-compatible (deprecated)",
        "RFC 4291 §2.5.5.1",
    ),
    v6(
        groups([0, 0, 0, 0, 0xffff, 0, 0, 0]),
        96,
        false,
        "IPv4-translated",
        "RFC 2765 §2.1",
    ),
    v6(
        top(0x64, 0xff9b, 1, 0),
        48,
        false,
        "local-use IPv4/IPv6 translation",
        "RFC 8215",
    ),
    v6(top(0x100, 0, 0, 0), 64, false, "discard only", "RFC 6666"),
    v6(top(0x100, 0, 0, 1), 64, false, "dummy prefix", "RFC 9780"),
    v6(
        top(0x2001, 0, 0, 0),
        23,
        false,
        "IETF protocol assignments",
        "RFC 2928",
    ),
    v6(top(0x2001, 0, 0, 0), 32, false, "Teredo", "RFC 4380"),
    v6(
        groups([0x2001, 1, 0, 0, 0, 0, 0, 1]),
        128,
        true,
        "PCP anycast",
        "RFC 7723",
    ),
    v6(
        groups([0x2001, 1, 0, 0, 0, 0, 0, 2]),
        128,
        true,
        "TURN anycast",
        "RFC 8155",
    ),
    v6(
        groups([0x2001, 1, 0, 0, 0, 0, 0, 3]),
        128,
        true,
        "DNS-SD SRP anycast",
        "RFC 9665",
    ),
    v6(top(0x2001, 3, 0, 0), 32, true, "AMT", "RFC 7450"),
    v6(top(0x2001, 4, 0x112, 0), 48, true, "AS112", "RFC 7535"),
    v6(top(0x2001, 0x20, 0, 0), 28, true, "ORCHIDv2", "RFC 7343"),
    v6(
        top(0x2001, 0x30, 0, 0),
        28,
        true,
        "drone remote ID",
        "RFC 9374",
    ),
    v6(
        top(0x2001, 0xdb8, 0, 0),
        32,
        false,
        "documentation",
        "RFC 3849",
    ),
    v6(top(0x2002, 0, 0, 0), 16, false, "6to4", "RFC 3056"),
    v6(top(0x3fff, 0, 0, 0), 20, false, "documentation", "RFC 9637"),
    v6(
        top(0x5f00, 0, 0, 0),
        16,
        false,
        "segment routing (SRv6) SIDs",
        "RFC 9602",
    ),
    v6(top(0xfc00, 0, 0, 0), 7, false, "unique local", "RFC 4193"),
    v6(
        top(0xfe80, 0, 0, 0),
        10,
        false,
        "link local",
        "RFC 4291 §2.5.6",
    ),
    v6(
        top(0xfec0, 0, 0, 0),
        10,
        false,
        "site local (deprecated)",
        "RFC 3879",
    ),
    v6(top(0xff00, 0, 0, 0), 8, false, "multicast", "RFC 4291 §2.7"),
];

/// Metadata services of clouds: they hand credentials to whoever asks.
pub(crate) const METADATA: &[IpAddr] = &[
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), // nearly everybody
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),   // AWS ECS task credentials
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),  // AWS EKS pod identity
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), // Alibaba Cloud
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),   // Azure wire server, on a public address
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),     // Oracle Cloud, older images
    IpAddr::V6(groups([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254])), // AWS IMDS
    IpAddr::V6(groups([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23])), // AWS EKS pod identity
    IpAddr::V6(groups([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254])), // Google Cloud
];

/// Names of metadata services, refused before any resolution.
pub(crate) const METADATA_NAMES: &[&str] = &[
    "metadata.google.internal",
    "metadata.goog",
    "instance-data.ec2.internal",
];
