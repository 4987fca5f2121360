//! One entry of a host list: a name, a pattern, an address or a range, and its ports.

use crate::{
    Host, HostName, HostPattern,
    address::canonical_net,
    host::{Suffix, suffix},
    target::parse_port,
};
use ipnet::IpNet;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// What an entry names.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Pattern {
    /// A name or names.
    Host(HostPattern),
    /// An address (a range of one) or a range.
    Net(IpNet),
}

/// The ports of an entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Ports {
    /// `:*`
    Any,
    /// None written: 80 and 443 where allowed; every port where denied.
    Web,
    /// This one.
    One(u16),
}

impl Ports {
    /// Is `port` among them?
    pub(crate) fn covers(self, port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::Web => matches!(port, 80 | 443),
            Self::One(one) => one == port,
        }
    }

    /// In lists where no port written means every port.
    pub(crate) fn or_any(self) -> Self {
        match self {
            Self::Web => Self::Any,
            other => other,
        }
    }
}

/// One entry, compared by meaning and not by spelling.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Entry {
    pub(crate) pattern: Pattern,
    pub(crate) ports: Ports,
}

/// Why a text is no entry, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EntryError {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

fn wrong<T>(message: impl Into<String>, hint: Option<&str>) -> Result<T, EntryError> {
    Err(EntryError {
        message: message.into(),
        hint: hint.map(str::to_owned),
    })
}

impl Entry {
    /// Parse as written in configuration; the second value says what was converted.
    pub(crate) fn parse(text: &str) -> Result<(Self, Option<String>), EntryError> {
        if text.is_empty() {
            return wrong("an entry is empty", None);
        }
        if text.contains("://") {
            return wrong(
                "is a URL, not a host",
                Some("write the host, and the port if it is not 80 or 443"),
            );
        }
        if text.contains('@') {
            return wrong("has a user name, not only a host", None);
        }
        let (host, ports) = split_ports(text)?;
        if host.starts_with('[') {
            let inner = host
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'));
            let net = match inner {
                Some(inner) if inner.contains(':') => parse_net(inner)?,
                _ => return wrong("only an IPv6 address or range stands in brackets", None),
            };
            return Ok((Self::net(net, ports), None));
        }
        if host.contains('/') || host.parse::<Ipv4Addr>().is_ok() {
            return parse_net(host).map(|net| (Self::net(net, ports), None));
        }
        let (pattern, note) = parse_pattern(host)?;
        let pattern = Pattern::Host(pattern);
        Ok((Self { pattern, ports }, note))
    }

    fn net(net: IpNet, ports: Ports) -> Self {
        Self {
            pattern: Pattern::Net(net),
            ports,
        }
    }

    /// The narrowest entry that would allow this host and port.
    pub(crate) fn for_target(host: &Host, port: u16) -> Self {
        let pattern = match host {
            Host::Name(name) => Pattern::Host(HostPattern::Exact(name.clone())),
            Host::Ip(address) => Pattern::Net(IpNet::from(*address)),
        };
        let ports = match port {
            80 | 443 => Ports::Web,
            other => Ports::One(other),
        };
        Self { pattern, ports }
    }

    /// Does this entry cover all hosts of `other`, ports aside?
    pub(crate) fn contains_hosts(&self, other: &Pattern) -> bool {
        match (&self.pattern, other) {
            (Pattern::Host(outer), Pattern::Host(inner)) => outer.contains(inner),
            (Pattern::Net(outer), Pattern::Net(inner)) => outer.contains(inner),
            _ => false,
        }
    }

    /// Of two entries around the same hosts, in lists where no port written means every port, the more specific one has
    /// more: it is the one whose attributes hold.
    pub(crate) fn closeness(&self) -> (usize, Ports) {
        let length = match &self.pattern {
            Pattern::Host(HostPattern::Exact(_)) => usize::MAX,
            Pattern::Host(HostPattern::Below(name)) => name.as_str().len(),
            Pattern::Net(net) => usize::from(net.prefix_len()),
        };
        (length, self.ports.or_any())
    }

    /// The suffix of a `*.suffix` entry.
    pub(crate) fn below(&self) -> Option<&HostName> {
        match &self.pattern {
            Pattern::Host(HostPattern::Below(name)) => Some(name),
            _ => None,
        }
    }

    /// How wide the entry is, by the public suffix list.
    pub(crate) fn breadth(&self) -> Suffix {
        self.below().map_or(Suffix::None, suffix)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pattern {
            Pattern::Host(pattern) => pattern.fmt(f)?,
            Pattern::Net(net) => {
                let single = net.prefix_len() == net.max_prefix_len();
                match (net, single) {
                    (IpNet::V4(net), true) => net.addr().fmt(f)?,
                    (IpNet::V4(net), false) => net.fmt(f)?,
                    (IpNet::V6(net), true) => write!(f, "[{}]", net.addr())?,
                    (IpNet::V6(net), false) => write!(f, "[{net}]")?,
                }
            }
        }
        match self.ports {
            Ports::Web => Ok(()),
            Ports::Any => f.write_str(":*"),
            Ports::One(port) => write!(f, ":{port}"),
        }
    }
}

/// Host text and ports; a colon inside brackets belongs to the host.
fn split_ports(text: &str) -> Result<(&str, Ports), EntryError> {
    let bracket = text.rfind(']').map_or(0, |end| end + 1);
    let Some(colon) = text.get(bracket..).and_then(|rest| rest.find(':')) else {
        return Ok((text, Ports::Web));
    };
    let (host, rest) = text.split_at(bracket + colon);
    let port = rest.get(1..).unwrap_or_default();
    if bracket == 0 && port.contains(':') {
        return wrong(
            "an IPv6 address or range stands in brackets",
            Some("write it as \"[2001:db8::/32]:443\""),
        );
    }
    match port {
        "*" => Ok((host, Ports::Any)),
        port => match parse_port(port) {
            Ok(port) => Ok((host, Ports::One(port))),
            Err(_) => wrong(
                format!("{port:?} is not a port (1 to 65535, or * for any)"),
                None,
            ),
        },
    }
}

/// An address or range without brackets or port: `10.0.0.1`, `10.0.0.0/8`, `fd00::/8`. Addresses are judged in their canonical form,
/// and so ranges are read in it: what is written as IPv4-mapped is IPv4.
pub(crate) fn parse_net(text: &str) -> Result<IpNet, EntryError> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    // std refuses what other parsers read as octal or short forms; zones too.
    let address: IpAddr = match (address.parse::<Ipv4Addr>(), address.parse::<Ipv6Addr>()) {
        (Ok(v4), _) => v4.into(),
        (_, Ok(v6)) => v6.into(),
        _ => {
            return wrong(
                "is not an IP address or range",
                Some("a host is written without a path"),
            );
        }
    };
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => whole,
        Some("0") => 0,
        Some(text) => match parse_port(text) {
            Ok(length) if length <= whole => length,
            _ => {
                return wrong(
                    format!("/{text} is not a prefix length from 0 to {whole}"),
                    None,
                );
            }
        },
    };
    let length = u8::try_from(length).unwrap_or(u8::MAX);
    let Ok(net) = IpNet::new(address, length) else {
        return wrong("is not an IP range", None);
    };
    if net.trunc() != net {
        let hint = format!("write {} for the range, or the address alone", net.trunc());
        return wrong("has bits set beyond its prefix length", Some(&hint));
    }
    canonical_net(net).map_or_else(
        || {
            wrong(
                "is of IPv6, and holds the IPv4-mapped addresses, which are IPv4 here",
                Some("write the ranges of IPv6 that are meant, and those of IPv4 as 0.0.0.0/0 and the like"),
            )
        },
        Ok,
    )
}

/// A name or `*.name`.
fn parse_pattern(text: &str) -> Result<(HostPattern, Option<String>), EntryError> {
    if text == "*" {
        return wrong(
            "matches every host",
            Some("leave allowedHosts out and write defaultAction: allow, if that is meant"),
        );
    }
    if text.strip_prefix("*.").unwrap_or(text).contains('*') {
        return wrong(
            "has a * that is not a whole label at the start",
            Some("write it as \"*.example.com\""),
        );
    }
    HostPattern::parse_configured(text).or_else(|error| wrong(error.to_string(), None))
}

#[cfg(test)]
mod tests;
