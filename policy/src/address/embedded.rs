//! The IPv4 addresses an IPv6 address stands for.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An operator's NAT64 prefix (RFC 6052 §2.2: /32 /40 /48 /56 /64 /96).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nat64Prefix {
    prefix: Ipv6Addr,
    length: u8,
}

impl Nat64Prefix {
    /// `None` where the length is not one of RFC 6052's, or bits are set beyond it.
    #[must_use]
    pub fn new(prefix: Ipv6Addr, length: u8) -> Option<Self> {
        let whole = u128::from(prefix)
            .checked_shl(length.into())
            .unwrap_or_default()
            == 0;
        (offsets(length).is_some() && whole).then_some(Self { prefix, length })
    }

    /// The prefix itself.
    #[must_use]
    pub fn prefix(&self) -> Ipv6Addr {
        self.prefix
    }

    /// Its length in bits.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Where this IPv4 address stands under the prefix, with nothing after it.
    pub(crate) fn embed(&self, address: Ipv4Addr) -> Ipv6Addr {
        let mut octets = self.prefix.octets();
        let offsets = offsets(self.length).into_iter().flatten();
        for (offset, octet) in offsets.zip(address.octets()) {
            if let Some(slot) = octets.get_mut(offset) {
                *slot = octet;
            }
        }
        octets.into()
    }

    /// The IPv4 address within `address`, if it lies under this prefix.
    #[must_use]
    pub fn extract(&self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let differs = u128::from(self.prefix) ^ u128::from(address);
        let shift = 128_u32.saturating_sub(self.length.into());
        (differs >> shift == 0)
            .then(|| at(address, self.length))
            .flatten()
    }
}

/// RFC 6052 §2.2, figure 1: where the four octets stand. Octet 8 is the reserved "u" octet and is skipped.
const fn offsets(length: u8) -> Option<[usize; 4]> {
    match length {
        32 => Some([4, 5, 6, 7]),
        40 => Some([5, 6, 7, 9]),
        48 => Some([6, 7, 9, 10]),
        56 => Some([7, 9, 10, 11]),
        64 => Some([9, 10, 11, 12]),
        96 => Some([12, 13, 14, 15]),
        _ => None,
    }
}

fn at(address: Ipv6Addr, length: u8) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let mut out = [0; 4];
    for (slot, offset) in out.iter_mut().zip(offsets(length)?) {
        *slot = *octets.get(offset)?;
    }
    Some(out.into())
}

/// The IPv4 address of an IPv4-mapped one (RFC 4291 §2.5.5.2): dialling either reaches the same socket.
pub(crate) fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// A range in the terms in which addresses are judged: one of mapped addresses is of IPv4. `None` where it holds all mapped
/// addresses and others: addresses are compared as IPv4, so that it would say nothing of them. Every address of IPv6
/// (`::/0`) is a range of IPv6.
#[must_use]
pub fn canonical_net(net: IpNet) -> Option<IpNet> {
    let IpNet::V6(v6) = net else {
        return Some(net);
    };
    let mapped = Ipv6Net::new_assert(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), 96);
    if mapped.contains(&v6) {
        let inner = v6.addr().to_ipv4_mapped()?;
        let length = v6.prefix_len().saturating_sub(mapped.prefix_len());
        return Ipv4Net::new(inner, length).ok().map(IpNet::V4);
    }
    (v6.prefix_len() == 0 || !v6.contains(&mapped)).then_some(net)
}

/// The ranges of IPv4 that a range of IPv6 spells out, however it is reached through them: translated, 6to4, Teredo's
/// client, ISATAP. The block of a form as a whole spells none: it is the way that is meant, and not all of IPv4.
pub(crate) fn spelled_out(net: Ipv6Net) -> impl Iterator<Item = Ipv4Net> {
    let (address, length) = (net.network(), net.prefix_len());
    let s = address.segments();
    let [first, a, b, .., s6, s7] = s;
    let from = |begins: u8, inner: Ipv4Addr| {
        let bits = length.checked_sub(begins).filter(|bits| *bits > 0)?;
        let net = Ipv4Net::new(inner, bits.min(32)).ok()?;
        Some(net.trunc())
    };
    // `::` and `::1` look like compatible addresses, and are not (RFC 4291 §2.5.5.1).
    let own = length == 128 && (address.is_unspecified() || address.is_loopback());
    let at_end = !own
        && matches!(
            s,
            [0, 0, 0, 0, 0, 0, _, _]
                | [0, 0, 0, 0, 0xffff, 0, _, _]
                | [0x64, 0xff9b, 0, 0, 0, 0, _, _]
                | [0x64, 0xff9b, 1, ..]
                | [_, _, _, _, 0 | 0x200, 0x5efe, _, _]
        );
    let teredo = matches!(s, [0x2001, 0, ..]);
    let found = [
        at_end.then(|| from(96, join(s6, s7))).flatten(),
        (first == 0x2002).then(|| from(16, join(a, b))).flatten(),
        teredo.then(|| from(96, join(!s6, !s7))).flatten(),
    ];
    found.into_iter().flatten()
}

/// NAT64's well-known prefix (RFC 6052 §2.1).
pub(crate) const WELL_KNOWN: Nat64Prefix = Nat64Prefix {
    prefix: Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0),
    length: 96,
};

/// Every IPv4 address that translation or tunnelling could reach through `address`, in no order that matters.
///
/// Local-use translation (RFC 8215) does not say its length, so each that fits its /48 is tried.
pub(crate) fn embedded(
    address: Ipv6Addr,
    nat64: &[Nat64Prefix],
) -> impl Iterator<Item = Ipv4Addr> + Clone {
    let s = address.segments();
    let [.., s6, s7] = s;
    let low = || join(s6, s7);
    let fixed = [
        // Mapped, compatible (RFC 4291 §2.5.5), translated (RFC 2765 §2.1): ::ffff:a.b.c.d, ::a.b.c.d, ::ffff:0:a.b.c.d.
        matches!(
            s,
            [0, 0, 0, 0, 0, 0 | 0xffff, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _]
        )
        .then(low),
        // 6to4 (RFC 3056 §2).
        match s {
            [0x2002, a, b, ..] => Some(join(a, b)),
            _ => None,
        },
        // Teredo (RFC 4380 §4): the server, and the client's address with all bits inverted.
        match s {
            [0x2001, 0, a, b, ..] => Some(join(a, b)),
            _ => None,
        },
        match s {
            [0x2001, 0, .., a, b] => Some(join(!a, !b)),
            _ => None,
        },
        // ISATAP (RFC 5214 §6.1): interface identifier 0:5efe or 200:5efe under any prefix.
        matches!(s, [_, _, _, _, 0 | 0x200, 0x5efe, _, _]).then(low),
        WELL_KNOWN.extract(address),
    ];
    // The operator's word for where it stands is better than a guess.
    let is_known = nat64.iter().any(|prefix| prefix.extract(address).is_some());
    let local = matches!(s, [0x64, 0xff9b, 1, ..]) && !is_known;
    let lengths: &[u8] = if local { &[48, 56, 64, 96] } else { &[] };
    let local = lengths
        .iter()
        .filter_map(move |length| at(address, *length));
    let operator = nat64
        .iter()
        .filter_map(move |prefix| prefix.extract(address));
    fixed.into_iter().flatten().chain(local).chain(operator)
}

fn join(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}
