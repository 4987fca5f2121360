#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use super::*;
use crate::testing::corpus;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn class(text: &str) -> AddressClass {
    classify(text.parse().unwrap(), &[])
}

fn is_special(text: &str) -> bool {
    matches!(class(text), AddressClass::Special { .. })
}

#[test]
fn v024_special_purpose_ipv4() {
    for text in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.255.255",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "100.127.255.255",
        "169.254.1.1",
        "192.0.0.1",
        "192.0.0.9",
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.1",
        "192.88.99.1",
        "198.18.0.1",
        "198.19.255.255",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
    ] {
        assert!(is_special(text), "{text}");
    }
    for text in [
        "1.1.1.1",
        "172.15.255.255",
        "172.32.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "198.20.0.0",
        "223.255.255.255",
    ] {
        assert_eq!(class(text), AddressClass::Global, "{text}");
    }
}

#[test]
fn v025_metadata() {
    for text in [
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "fd00:ec2::254",
        "fd20:ce::254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "64:ff9b:1::a9fe:a9fe",
        "2001:db8::5efe:a9fe:a9fe",
    ] {
        assert_eq!(class(text), AddressClass::Metadata, "{text}");
    }
}

#[test]
fn v026_special_purpose_ipv6() {
    for text in [
        "::",
        "::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "fc00::1",
        "fdff::1",
        "ff02::1",
        "100::1",
        "2001:db8::1",
        "3fff::1",
        "5f00::1",
        "2001:2::1",
        "4000::1",
        "1::1",
    ] {
        assert!(is_special(text), "{text}");
    }
    for text in [
        "2606:4700:4700::1111",
        "2001:4860:4860::8888",
        "2001:1::1",
        "2001:20::1",
    ] {
        assert_eq!(class(text), AddressClass::Global, "{text}");
    }
}

#[test]
fn v027_embedded_ipv4() {
    for text in [
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::",
        "2002:c0a8:101::1",
        "2001:0:7f00:1::",                      // Teredo, server
        "2001:0:4136:e378:8000:63bf:80ff:fffe", // Teredo, client ^127.0.0.1
        "2001:db8::5efe:7f00:1",
        "2600::5efe:a00:1", // ISATAP
        "2600::200:5efe:a00:1",
        "fe80::5efe:a9fe:102",
    ] {
        assert!(is_special(text), "{text}: {:?}", class(text));
    }
    assert_eq!(
        class("::ffff:8.8.8.8"),
        AddressClass::Global,
        "mapped is judged as what it maps"
    );
    assert_eq!(class("2600::5efe:808:808"), AddressClass::Global);
}

#[test]
fn v027_operator_prefixes_of_every_rfc_6052_length() {
    // RFC 6052 §2.4, table 1: 192.0.2.33 under each length.
    for (prefix, length, address) in [
        ("2001:db8::", 32, "2001:db8:c000:221::"),
        ("2001:db8:100::", 40, "2001:db8:1c0:2:21::"),
        ("2001:db8:122::", 48, "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::", 56, "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::", 64, "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::", 96, "2001:db8:122:344::192.0.2.33"),
    ] {
        let nat64 = Nat64Prefix::new(prefix.parse().unwrap(), length).unwrap();
        assert_eq!(
            nat64.extract(address.parse().unwrap()),
            Some(Ipv4Addr::new(192, 0, 2, 33)),
            "/{length}"
        );
    }
    // Under a global prefix only the embedded address can tell.
    for length in [32, 40, 48, 56, 64, 96] {
        let nat64 = Nat64Prefix::new("2600:1::".parse().unwrap(), length).unwrap();
        for (inner, expected) in [
            ([8, 8, 8, 8], "Global"),
            ([127, 0, 0, 1], "Special"),
            ([10, 1, 2, 3], "Special"),
            ([169, 254, 169, 254], "Metadata"),
        ] {
            let address = embed("2600:1::".parse().unwrap(), length, inner);
            let class = format!("{:?}", classify(address.into(), &[nat64]));
            assert!(class.starts_with(expected), "/{length} {address}: {class}");
        }
    }
    for (prefix, length) in [
        ("2600::", 33),
        ("2600::", 0),
        ("2600::", 128),
        ("2600::1", 96),
        ("2600:0:1::", 32),
    ] {
        assert_eq!(
            Nat64Prefix::new(prefix.parse().unwrap(), length),
            None,
            "{prefix}/{length}"
        );
    }
}

/// Put four octets behind a prefix, octet by octet, stepping over the "u" octet (RFC 6052 §2.2).
fn embed(prefix: Ipv6Addr, length: u8, inner: [u8; 4]) -> Ipv6Addr {
    let mut octets = prefix.octets();
    let mut at = usize::from(length / 8);
    for octet in inner {
        if at == 8 {
            at += 1;
        }
        octets[at] = octet;
        at += 1;
    }
    octets.into()
}

#[test]
fn v028_nat64_of_a_global_address() {
    assert_eq!(class("64:ff9b::808:808"), AddressClass::Global);
}

#[test]
fn corpus_iana_probes() {
    let Some(text) = corpus("iana-special-purpose/probes_derived.json") else {
        return;
    };
    let probes: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let mut exceptions = Vec::new();
    for probe in &probes {
        let address: IpAddr = probe["addr"].as_str().unwrap().parse().unwrap();
        let reachable = probe["registry_globally_reachable"].as_bool().unwrap();
        if (classify(address, &[]) == AddressClass::Global) != reachable {
            exceptions.push(address.to_string());
        }
    }
    // By choice: 192.0.0.0/24 whole; translation judged by what is embedded, a mapped address likewise; one cloud's metadata on a public address.
    let expected = [
        "192.0.0.9",
        "192.0.0.10",
        "64:ff9b::",
        "64:ff9b::1",
        "64:ff9b::ffff:fffe",
        "64:ff9b::ffff:ffff",
        "64:ff9b::7f00:1",
        "168.63.129.16",
    ];
    let unexpected: Vec<_> = exceptions
        .iter()
        .filter(|one| !expected.contains(&one.as_str()) && *one != "::ffff:8.8.8.8")
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    assert_eq!(exceptions.len(), expected.len() + 1, "{exceptions:?}");
    assert!(probes.len() > 250);
}

#[test]
fn ranges_that_touch_anything_special() {
    for (net, special) in [
        ("10.0.0.0/8", true),
        ("10.1.0.0/16", true),
        ("8.0.0.0/8", false),
        ("0.0.0.0/0", true),
        ("168.0.0.0/6", true),
        ("168.63.129.0/24", true),
        ("1.1.1.1/32", false),
        ("127.0.0.1/32", true),
        ("2600::/12", false),
        ("2000::/3", true),
        ("2001:db8::/32", true),
        ("::/0", true),
        ("64:ff9b::/96", true),
        ("fd00::/8", true),
        ("2606:4700::/32", false),
    ] {
        assert_eq!(is_special_range(net.parse().unwrap()), special, "{net}");
    }
}

proptest::proptest! {
    #[test]
    fn wrapping_never_makes_an_ipv4_address_better(bits: u32) {
        let inner = Ipv4Addr::from_bits(bits);
        let bare = classify(inner.into(), &[]);
        for prefix in ["::ffff:0:0", "64:ff9b::"] {
            let wrapped = Ipv6Addr::from_bits(prefix.parse::<Ipv6Addr>().unwrap().to_bits() | u128::from(bits));
            proptest::prop_assert_eq!(classify(wrapped.into(), &[]), bare);
        }
        let six = Ipv6Addr::from_bits(0x2002_u128 << 112 | u128::from(bits) << 80);
        proptest::prop_assert_ne!(classify(six.into(), &[]), AddressClass::Global);
    }
}

#[test]
fn the_unspecified_and_the_loopback_address_are_no_compatible_ones() {
    for (address, name) in [
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::2", "this network"),
    ] {
        let AddressClass::Special { name: found, .. } = classify(address.parse().unwrap(), &[])
        else {
            panic!("{address} is not special");
        };
        assert!(found.contains(name), "{address}: {found}");
    }
}

#[test]
fn a_known_prefix_within_the_local_use_block_is_not_guessed_at() {
    let address = "64:ff9b:1::808:808".parse().unwrap();
    let prefix = Nat64Prefix::new("64:ff9b:1::".parse().unwrap(), 96).unwrap();
    assert!(matches!(
        classify(address, &[]),
        AddressClass::Special { .. }
    ));
    assert_eq!(classify(address, &[prefix]), AddressClass::Global);
    let metadata = "64:ff9b:1::a9fe:a9fe".parse().unwrap();
    assert_eq!(classify(metadata, &[prefix]), AddressClass::Metadata);
}
