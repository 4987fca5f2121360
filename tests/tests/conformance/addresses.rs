//! C. Addresses, as literals and as DNS answers of an allowed name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use e2e::Answer;
use serde_json::json;

use crate::lab::{Lab, Shared, settings};
use crate::sandbox::Expect::{Denied, Malformed, Refused};
use crate::sandbox::{Expect, Sandbox};
use crate::table::{Front, Row};

static LAB: Shared = Shared::new(|| {
    let mut settings = settings();
    settings.more = "dns: {servers: [\"RESOLVER\"], nat64: [\"2001:db8:64::/48\", \"2001:db8:100::/40\", \"2001:db8:122:344::/64\"]}\n".into();
    settings
});

const SPECIAL: Expect = Denied(&["special_address", "metadata_address"]);
const LITERAL: Expect = Denied(&["address_not_allowed", "metadata_address"]);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text}"))
}

fn authority(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(v4) => format!("{v4}:{port}"),
        IpAddr::V6(v6) => format!("[{v6}]:{port}"),
    }
}

/// `answers` for an allowed name: refused on every front, and nothing is dialled.
async fn answers_refused(
    lab: &Lab,
    row: &mut Row,
    session: &Sandbox,
    answers: &[IpAddr],
    expect: Expect,
) {
    let name = "answers.wild.test";
    lab.dns.set(name, Answer::Addresses(answers.to_vec()));
    let target = format!("{name}:{}", lab.api.port());
    session
        .refused_once_resolved(lab, row, &target, expect)
        .await;
    row.on(Front::Answer);
}

/// Not as a literal, not as an answer.
async fn refused(lab: &Lab, row: &mut Row, addresses: &[&str]) {
    let strict = strict(lab).await;
    for text in addresses {
        let address = ip(text);
        lab.session
            .refused(lab, row, authority(address, lab.api.port()), LITERAL)
            .await;
        answers_refused(lab, row, &strict, &[address], SPECIAL).await;
    }
}

/// A session without any exception from the ban on private addresses.
async fn strict(lab: &Lab) -> Sandbox {
    let name = format!("*.wild.test:{}", lab.api.port());
    lab.sandbox(json!({"egress": {"allowedHosts": [name]}}))
        .await
}

#[test]
pub(crate) fn v023_other_spellings_of_addresses() {
    LAB.run(23, async |lab, row| {
        for host in [
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "127.1",
            "127.0.1",
            "0",
            "127.0.0.1.",
            "0x7f.0.0.1",
            "127.0.0.01",
            "127.0.0.0x1",
            "1",
            "00",
            "0x",
            "127.0.0.1.1",
            "10.1",
            "[127.0.0.1]",
            "[::ffff:127.1]",
            "[::1",
            "::1]",
        ] {
            lab.session
                .refused(lab, row, format!("{host}:{}", lab.api.port()), Refused)
                .await;
        }
    });
}

#[test]
pub(crate) fn v024_special_ipv4() {
    LAB.run(24, async |lab, row| {
        let addresses = [
            "0.0.0.0",
            "0.1.2.3",
            "0.255.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "10.0.0.1",
            "10.255.255.255",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "192.168.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.0.1",
            "169.254.255.255",
            "192.0.0.1",
            "192.0.0.255",
            "192.0.2.1",
            "198.51.100.7",
            "203.0.113.255",
            "192.88.99.1",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
        ];
        refused(lab, row, &addresses).await;
    });
}

#[test]
pub(crate) fn v025_metadata_despite_an_exception() {
    LAB.run(25, async |lab, row| {
        // A wide exception of the session's own, inside the operator's ceiling: metadata is not in it.
        let names = [format!("*.wild.test:{}", lab.api.port())];
        let wide = lab
            .sandbox(json!({"egress": {"allowedHosts": names, "allowedAddresses": ["0.0.0.0/0", "::/0"]}}))
            .await;
        let addresses = [
            "169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200",
            "168.63.129.16", "192.0.0.192", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe",
        ];
        for text in addresses {
            let expect = Denied(&["metadata_address"]);
            answers_refused(lab, row, &wide, &[ip(text)], expect).await;
            lab.session.refused(lab, row, authority(ip(text), 80), LITERAL).await;
        }
        // By name not even where everything is allowed; and a session cannot name it.
        lab.dns.point("metadata.google.internal");
        let open = lab.sandbox(json!({"egress": {"defaultAction": "allow"}})).await;
        for name in ["metadata.google.internal:80", "Metadata.Google.INTERNAL.:80"] {
            open.refused(lab, row, name, Denied(&["metadata_address"])).await;
        }
        let named = json!({"egress": {"allowedHosts": ["metadata.google.internal:*"]}});
        let path = "/runtime/providers/test/sessions";
        let reply = lab.gateway.admin("POST", path, &named.to_string()).await;
        assert_eq!(reply.status(), 422, "{}", reply.text());
        // The exception itself works.
        lab.dns.point("answers.wild.test");
        let target = format!("answers.wild.test:{}", lab.api.port());
        wide.served(lab, row, &target, &target, &lab.api).await;
    });
}

#[test]
pub(crate) fn v026_special_ipv6() {
    LAB.run(26, async |lab, row| {
        let addresses = [
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
            "3fff:fff::1",
            "5f00::1",
        ];
        refused(lab, row, &addresses).await;
    });
}

/// RFC 6052 §2.2: an IPv4 address in a prefix of so many bits, the u octet zero.
fn nat64(prefix: &str, bits: usize, inner: Ipv4Addr) -> Ipv6Addr {
    let IpAddr::V6(prefix) = ip(prefix) else {
        panic!("not IPv6")
    };
    let mut octets = prefix.octets();
    let mut at = bits / 8;
    for octet in inner.octets() {
        at += usize::from(at == 8);
        octets[at] = octet;
        at += 1;
    }
    octets.into()
}

#[test]
pub(crate) fn v027_embedded_ipv4() {
    LAB.run(27, async |lab, row| {
        let fixed = [
            "::ffff:127.0.0.1",
            "::ffff:7f00:1",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::7f00:1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            // Teredo: a private server, and a private client (its bits inverted).
            "2001:0:7f00:1::",
            "2001:0:4136:e378:8000:63bf:80ff:fffe",
            "2001:0:4136:e378:8000:63bf:5601:5601",
            "2606:4700::5efe:a9fe:a9fe",
            "2606:4700::200:5efe:7f00:1",
        ];
        refused(lab, row, &fixed).await;
        for inner in ["127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.1.1"] {
            let inner: Ipv4Addr = inner.parse().unwrap();
            // The operator's prefixes of this lab, and the local-use one in every length that fits it.
            let embedded = [
                nat64("2001:db8:64::", 48, inner),
                nat64("2001:db8:100::", 40, inner),
                nat64("2001:db8:122:344::", 64, inner),
                nat64("64:ff9b:1::", 48, inner),
                nat64("64:ff9b:1::", 56, inner),
                nat64("64:ff9b:1::", 64, inner),
                nat64("64:ff9b:1::", 96, inner),
                nat64("64:ff9b::", 96, inner),
            ];
            let texts = embedded.map(|address| address.to_string());
            refused(lab, row, &texts.each_ref().map(String::as_str)).await;
        }
    });
}

#[test]
pub(crate) fn v029_scoped_literals() {
    LAB.run(29, async |lab, row| {
        for host in [
            "[fe80::1%eth0]",
            "[fe80::1%25eth0]",
            "[::1%x.allowed.test]",
            "[::1%25lo]",
            "[::1%]",
            "fe80::1%eth0",
            "::1",
            "[::1]x",
            "[[::1]]",
            "[::1].wild.test",
            "[:::1]",
            "[1:2:3:4:5:6:7:8:9]",
            "[::00001]",
        ] {
            lab.session
                .refused(lab, row, format!("{host}:{}", lab.api.port()), Malformed)
                .await;
        }
    });
}

#[test]
pub(crate) fn v030_public_literals_without_a_rule() {
    LAB.run(30, async |lab, row| {
        for host in [
            "1.1.1.1",
            "8.8.8.8",
            "93.184.215.14",
            "[2606:4700:4700::1111]",
            "[2a00:1450::1]",
        ] {
            for port in [80, 443, lab.api.port()] {
                let expect = Denied(&["address_not_allowed"]);
                lab.session
                    .refused(lab, row, format!("{host}:{port}"), expect)
                    .await;
            }
        }
    });
}

#[test]
pub(crate) fn v031_the_hosts_own_address() {
    LAB.run(31, async |lab, row| {
        // Connecting a UDP socket sends nothing; it only makes the kernel choose the address it would send from.
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let own = match socket.connect("192.0.2.1:9") {
            Ok(()) => socket.local_addr().unwrap().ip(),
            // Without a route there is no other interface than loopback.
            Err(_) => ip("127.0.0.1"),
        };
        let port = lab.api.port();
        lab.session
            .refused(lab, row, authority(own, port), LITERAL)
            .await;
        let strict = strict(lab).await;
        // By its class or for being ours; that the latter alone is enough, `own_addresses` shows, in a network of its own.
        let expect = Denied(&["special_address", "address_not_allowed"]);
        answers_refused(lab, row, &strict, &[own], expect).await;
    });
}

#[test]
pub(crate) fn v131_aliases_of_the_host() {
    LAB.run(131, async |lab, row| {
        let port = lab.api.port();
        let names = [
            "host.docker.internal",
            "gateway.docker.internal",
            "localtest.me",
        ];
        for name in names {
            lab.dns.point(name);
            let expect = Denied(&["host_not_allowed"]);
            lab.session
                .refused(lab, row, format!("{name}:{port}"), expect)
                .await;
        }
        // Even allowed by name, what they resolve to is loopback, and no exception names it.
        let entries = names.map(|name| format!("{name}:*"));
        let session = lab
            .sandbox(json!({"egress": {"allowedHosts": entries}}))
            .await;
        for name in names {
            let target = format!("{name}:{port}");
            session
                .refused_once_resolved(lab, row, &target, SPECIAL)
                .await;
        }
    });
}
