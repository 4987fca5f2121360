//! Dreadnode: `egress.allow`, a list of hosts, addresses, ranges and `tcp://HOST:PORT`.

use super::{Draft, block, bracketed, refuse};
use crate::text::{Faults, Node};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Most entries it takes.
const MAX_ENTRIES: usize = 50;

/// Read `{allow}`, bare or under `egress`. Absent inherits; `null` and `[]` leave nothing but the platform's own hosts.
pub(super) fn read(root: &Node, faults: &mut Faults) -> Draft {
    let mut draft = Draft::default();
    let block = block(root, "egress", faults);
    let mut fields = block.fields(faults);
    let allow = fields.take("allow");
    fields.finish(faults);
    let Some(node) = allow else {
        return draft;
    };
    draft.begin_allowed();
    if node.is_null() {
        return draft;
    }
    let items = node.list(faults);
    if items.len() > MAX_ENTRIES {
        faults.error(node.place(), format!("more than {MAX_ENTRIES} entries"));
    }
    for item in items {
        if let Some(text) = item.scalar(faults) {
            entry(item, text, &mut draft, faults);
        }
    }
    draft
}

fn entry(node: &Node, written: &str, draft: &mut Draft, faults: &mut Faults) {
    match judge(written.trim()) {
        Ok(entry) => {
            draft.allow(node, written, &entry, faults);
        }
        Err(why) => refuse(node, written, why, "", faults),
    }
}

/// Our entry for one of theirs, or why they (or we) do not take it.
fn judge(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if !text.is_ascii() {
        return Err("names are written in ASCII there (xn--…)");
    }
    if text.contains(|c: char| c.is_ascii_whitespace() || c.is_ascii_control()) {
        return Err("there is a space within it");
    }
    if let Some(authority) = text.strip_prefix("tcp://") {
        return endpoint(authority);
    }
    if text.contains("://") {
        return Err("only tcp:// is a scheme there");
    }
    if text.contains('/') {
        // What is before the slash is an address or it is a path; our own grammar says which, and refuses host bits.
        return match text.split('/').next().map(is_address) {
            Some(true) => Ok(bracketed(text)),
            _ => Err("a host has no path there"),
        };
    }
    if is_address(text) {
        return Ok(bracketed(text));
    }
    if text.contains(':') {
        return Err("a port needs tcp:// there");
    }
    name(text).map(str::to_owned)
}

/// `HOST:PORT` behind `tcp://`.
fn endpoint(authority: &str) -> Result<String, &'static str> {
    if authority.contains('@') {
        return Err("there is a user name in it");
    }
    if authority.contains(['/', '?', '#']) {
        return Err("tcp:// takes a host and a port, no range and no path");
    }
    let (host, port) = authority.rsplit_once(':').ok_or("tcp:// needs a port")?;
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if !digits || !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return Err("tcp:// needs a port from 1 to 65535");
    }
    match host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(inner) if inner.parse::<Ipv6Addr>().is_ok() => {
            Ok(format!("{}:{port}", bracketed(inner)))
        }
        Some(_) => Err("only an IPv6 address stands in brackets"),
        None if host.parse::<Ipv4Addr>().is_ok() => Ok(authority.to_owned()),
        None => name(host).map(|name| format!("{name}:{port}")),
    }
}

/// `label.label`, or `*.` before it. Stricter than DNS: no `_`, no trailing dot, never a single label.
fn name(text: &str) -> Result<&str, &'static str> {
    let host = text.strip_prefix("*.").unwrap_or(text);
    if host.contains('*') {
        return Err("a * stands only at the start there, for whole labels");
    }
    if host.contains('_') {
        return Err("an underscore is not accepted there");
    }
    if host.ends_with('.') {
        return Err("a trailing dot is not accepted there");
    }
    if !host.contains('.') {
        return Err("a single label is not accepted there");
    }
    Ok(text)
}

fn is_address(text: &str) -> bool {
    text.parse::<Ipv4Addr>().is_ok() || text.parse::<Ipv6Addr>().is_ok()
}
