//! Datagrams that were refused in this network namespace. Every address is local in there, and nobody takes any: the kernel refuses
//! each by ICMP and counts it. One that was sent to loopback is counted too, and is no less lost.

use std::fs;

/// So many until now; none where the kernel does not tell.
pub(super) fn refused() -> u64 {
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
    use super::{of_v4, of_v6};

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
}
