//! Datagrams, which nothing carries: what is sent to anybody but the sandbox itself is refused at once, in a rule of its own network
//! namespace that counts by destination. By ICMP as well, for whoever listens to that rather than to its own call (dig).
//!
//! ```text
//! table inet sluicegate-udp { chain out { type filter hook output priority 0
//!     ip daddr != 127.0.0.0/8 ip daddr != OWN meta l4proto udp add @all { meta l4proto counter } add @v4 { ip daddr . udp dport counter }
//!     ip daddr != 127.0.0.0/8 ip daddr != OWN meta l4proto udp reject with icmpx port-unreachable
//!     … and the same of ip6 } }
//! ```

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::{
    control::Refused,
    tables::{Batch, Family, REGISTER, WORDS, count, counted, expression},
};

const TABLE: &[u8] = b"sluicegate-udp\0";
const PRIORITY: i32 = 0;
/// All datagrams, by their one protocol.
const ALL: &[u8] = b"all\0";
/// By address, port, and two bytes of zero.
const V4: &[u8] = b"v4\0";
const V6: &[u8] = b"v6\0";
/// Destinations of each family that are told apart; a program may try more than anybody wants to read.
const MOST: u32 = 40;
const IPPROTO_UDP: u8 = 17;
/// `NFT_REJECT_ICMPX_UNREACH`, and of those `NFT_REJECT_ICMPX_PORT_UNREACH`.
const UNREACHABLE: u32 = 2;
const PORT_UNREACHABLE: u8 = 1;

/// Refuse them from now on: who sends one hears of it (EPERM), and so does who is connected and only reads (ECONNREFUSED).
///
/// # Errors
/// The kernel has no nf_tables with sets that rules add to, or without `reject`, or no capability is held.
pub(super) fn refuse() -> io::Result<()> {
    let mut batch = Batch::new(TABLE, b"filter\0", PRIORITY);
    batch.set(ALL, 1, 1);
    for (family, set) in [(Family::v4(), V4), (Family::v6(), V6)] {
        batch.set(set, family.length + 4, MOST);
        let elsewhere = family.elsewhere(IPPROTO_UDP);
        // The protocol was loaded last.
        let mut counting = [&elsewhere[..], &[count(ALL, REGISTER)]].concat();
        counting.extend(family.destination());
        counting.push(count(set, WORDS));
        batch.rule(&counting);
        let refusal = expression(b"reject\0", |data| {
            data.attribute(1, &UNREACHABLE.to_be_bytes());
            data.attribute(2, &[PORT_UNREACHABLE]);
        });
        batch.rule(&[&elsewhere[..], &[refusal]].concat());
    }
    batch.commit()
}

/// What has been refused until now, in this process's network.
///
/// # Errors
/// The kernel does not tell.
pub(super) fn refused() -> io::Result<Refused> {
    let mut to = Vec::new();
    for set in [V4, V6] {
        let counted = counted(TABLE, set)?.into_iter();
        to.extend(counted.filter_map(|(key, count)| Some((destination(&key)?, count))));
    }
    to.sort_unstable();
    let told: u64 = to.iter().map(|(_, count)| count).sum();
    let all: u64 = counted(TABLE, ALL)?.iter().map(|(_, count)| count).sum();
    Ok(Refused {
        to,
        others: all.saturating_sub(told).saturating_add(unclaimed()),
    })
}

/// A key of the sets.
fn destination(key: &[u8]) -> Option<SocketAddr> {
    let (address, port) = key.split_at_checked(key.len().checked_sub(4)?)?;
    let port = u16::from_be_bytes([*port.first()?, *port.get(1)?]);
    let address = match <[u8; 4]>::try_from(address) {
        Ok(v4) => IpAddr::from(Ipv4Addr::from(v4)),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?).into(),
    };
    Some(SocketAddr::new(address, port))
}

/// What they are told of as; `name`: what an address stands for.
pub(super) fn told(refused: &Refused, name: impl Fn(IpAddr) -> Option<String>) -> Vec<String> {
    let times = |count: u64| match count {
        1 => "1 datagram".to_owned(),
        count => format!("{count} datagrams"),
    };
    let one = |(to, count): &(SocketAddr, u64)| match name(to.ip()) {
        Some(name) => format!("udp {name}:{} ({})", to.port(), times(*count)),
        None => format!("udp {to} ({})", times(*count)),
    };
    let mut told: Vec<String> = refused.to.iter().map(one).collect();
    if refused.others > 0 {
        told.push(format!("udp ({})", times(refused.others)));
    }
    told
}

/// Those that came to the sandbox itself and that nobody there took: the kernel refuses each by ICMP and counts it. None where it does
/// not tell.
fn unclaimed() -> u64 {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (v4, v6) = (read("/proc/net/snmp"), read("/proc/net/snmp6"));
    of_v4(&v4)
        .unwrap_or(0)
        .saturating_add(of_v6(&v6).unwrap_or(0))
}

/// A line of names, and one of numbers.
fn of_v4(table: &str) -> Option<u64> {
    let mut lines = table.lines().filter_map(|line| line.strip_prefix("Udp:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let place = names
        .split_whitespace()
        .position(|name| name == "NoPorts")?;
    numbers.split_whitespace().nth(place)?.parse().ok()
}

/// A name and a number on each line.
fn of_v6(table: &str) -> Option<u64> {
    let mut lines = table.lines();
    let line = lines.find_map(|line| line.strip_prefix("Udp6NoPorts"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::IpAddr;

    use super::{Refused, destination, of_v4, of_v6, told};

    #[test]
    fn the_kernels_tables() {
        let v4 = "Tcp: A NoPorts\nTcp: 1 2\nUdp: InDatagrams NoPorts InErrors\nUdp: 7 5 0\nUdpLite: NoPorts\nUdpLite: 9\n";
        assert_eq!(of_v4(v4), Some(5));
        assert_eq!(of_v4("Udp: InDatagrams\nUdp: 7\n"), None);
        assert_eq!(of_v4(""), None);
        assert_eq!(
            of_v6("Ip6InReceives   \t4\nUdp6NoPorts     \t3\nUdp6InErrors \t1\n"),
            Some(3)
        );
        assert_eq!(of_v6("Ip6InReceives 4\n"), None);
    }

    #[test]
    fn keys_of_sets() {
        let v4 = [8, 8, 8, 8, 0, 53, 0, 0];
        assert_eq!(destination(&v4), Some("8.8.8.8:53".parse().unwrap()));
        let mut v6 = [0; 20];
        (v6[15], v6[17]) = (1, 123);
        assert_eq!(destination(&v6), Some("[::1]:123".parse().unwrap()));
        for odd in [0, 3, 4, 7, 19, 21] {
            assert_eq!(destination(&vec![0; odd]), None, "{odd}");
        }
    }

    #[test]
    fn each_destination_is_told_of_by_its_name() {
        let refused = Refused {
            to: [("198.18.0.1:443", 3), ("[2001:db8::1]:53", 1)]
                .map(|(to, count)| (to.parse().unwrap(), count))
                .to_vec(),
            others: 7,
        };
        let stands_for = IpAddr::from([198, 18, 0, 1]);
        let name = |address: IpAddr| (address == stands_for).then(|| "api.test".to_owned());
        let expected = [
            "udp api.test:443 (3 datagrams)",
            "udp [2001:db8::1]:53 (1 datagram)",
            "udp (7 datagrams)",
        ];
        assert_eq!(told(&refused, name), expected);
        assert!(told(&Refused::default(), |_| None).is_empty());
    }
}
