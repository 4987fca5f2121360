//! Readers shared by the sections: what is more than a scalar and less than a section.
use ipnet::Ipv6Net;
use sluicegate_policy::{
    HostName,
    text::{Faults, Node},
};
use std::{net::IpAddr, net::SocketAddr, path::PathBuf, time::Duration};

/// Put a value that was read in the place of its default.
pub(super) fn keep<T>(slot: &mut T, read: Option<T>) {
    if let Some(value) = read {
        *slot = value;
    }
}

/// A duration above zero.
pub(super) fn positive(node: &Node, faults: &mut Faults) -> Option<Duration> {
    let duration = node.duration(faults)?;
    if duration.is_zero() {
        return node.expected("a duration above 0", faults);
    }
    Some(duration)
}

/// A duration, with 0 for "none".
pub(super) fn or_none(node: &Node, faults: &mut Faults) -> Option<Option<Duration>> {
    let duration = node.duration(faults)?;
    Some((!duration.is_zero()).then_some(duration))
}

/// A whole number that fits 32 bits.
pub(super) fn count(node: &Node, least: u32, faults: &mut Faults) -> Option<u32> {
    let range = u64::from(least)..=u64::from(u32::MAX);
    node.integer(range, faults)
        .and_then(|value| u32::try_from(value).ok())
}

/// A file's path; relative ones are meant from the working directory.
pub(super) fn path(node: &Node, faults: &mut Faults) -> Option<PathBuf> {
    match node.string(faults)? {
        "" => node.expected("a file's path", faults),
        text if text.contains('\0') => node.expected("a file's path", faults),
        text => Some(PathBuf::from(text)),
    }
}

/// `ADDRESS:PORT` with an IP literal; names are not looked up while configuring.
pub(super) fn socket_address(node: &Node, faults: &mut Faults) -> Option<SocketAddr> {
    let text = node.string(faults)?;
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) => node.expected(
            "an IP address and port such as 127.0.0.1:8443 or [::1]:8443",
            faults,
        ),
    }
}

/// An IP literal.
pub(super) fn ip_address(node: &Node, faults: &mut Faults) -> Option<IpAddr> {
    match node.string(faults)?.parse() {
        Ok(address) => Some(address),
        Err(_) => node.expected("an IP address", faults),
    }
}

/// One item, or a list of at least one.
pub(super) fn one_or_more<T>(
    node: &Node,
    faults: &mut Faults,
    mut item: impl FnMut(&Node, &mut Faults) -> Option<T>,
) -> Vec<T> {
    if node.is_list() {
        list(node, faults, item)
    } else {
        item(node, faults).into_iter().collect()
    }
}

/// A list of at least one item; items with a fault are left out.
pub(super) fn list<T>(
    node: &Node,
    faults: &mut Faults,
    mut item: impl FnMut(&Node, &mut Faults) -> Option<T>,
) -> Vec<T> {
    let items = node.list(faults);
    if node.is_list() && items.is_empty() {
        faults.error_hint(
            node.place(),
            "an empty list",
            "leave the key out for its default",
        );
    }
    items.iter().filter_map(|node| item(node, faults)).collect()
}

/// A host name as configured, with the warning its conversion earns.
pub(super) fn host_name(text: &str, node: &Node, faults: &mut Faults) -> Option<HostName> {
    match HostName::parse_configured(text) {
        Ok((name, converted)) => {
            if let Some(converted) = converted {
                faults.warn(node.place(), converted, None);
            }
            Some(name)
        }
        Err(error) => {
            faults.error(
                node.place(),
                format!("{text:?} is not a host name: {error}"),
            );
            None
        }
    }
}

/// An IPv6 prefix without host bits.
pub(super) fn ipv6_prefix(node: &Node, faults: &mut Faults) -> Option<Ipv6Net> {
    match node.string(faults)?.parse::<Ipv6Net>() {
        Ok(prefix) if prefix.trunc() == prefix => Some(prefix),
        _ => node.expected(
            "an IPv6 prefix such as 64:ff9b:1::/48, without host bits",
            faults,
        ),
    }
}
