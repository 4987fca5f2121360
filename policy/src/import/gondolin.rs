//! Gondolin: `allowedHosts`, patterns in which `*` stands for any text. Ports are never looked at.

use super::{Draft, bracketed, has_whole_name, refuse};
use crate::text::{Faults, Node};
use std::net::Ipv6Addr;

/// Read `{allowedHosts, blockInternalRanges}`. Absent allows everything, `[]` nothing.
pub(super) fn read(root: &Node, faults: &mut Faults) -> Draft {
    let mut draft = Draft::default();
    let mut fields = root.fields(faults);
    let hosts = fields.take("allowedHosts");
    if let Some(node) = fields.take("blockInternalRanges")
        && node.boolean(faults) == Some(false)
    {
        let hint = "write the ranges that names may resolve to in allowedAddresses";
        let why = "private and special-purpose addresses are refused here";
        refuse(node, "blockInternalRanges: false", why, hint, faults);
    }
    if let Some(node) = fields.take("secrets") {
        let why = "credentials are not inserted into requests here";
        refuse(node, "secrets", why, "", faults);
    }
    fields.finish(faults);
    let Some(list) = hosts else {
        draft.allow_everything();
        return draft;
    };
    draft.begin_allowed();
    let mut everything = false;
    for item in list.list(faults) {
        let Some(written) = item.string(faults) else {
            continue;
        };
        let text = written.trim();
        if !text.is_empty() && text.bytes().all(|b| b == b'*') {
            everything = true;
            faults.warn(item.place(), format!("{written:?} allows everything"), None);
            continue;
        }
        pattern(item, written, text, &mut draft, faults);
    }
    if everything {
        draft.allow_everything();
    }
    draft
}

fn pattern(node: &Node, written: &str, text: &str, draft: &mut Draft, faults: &mut Faults) {
    if !has_whole_name(node, text, faults) {
        return;
    }
    // `**.x` is `*.x`: both stand for any text before `.x`.
    let rest = text.trim_start_matches('*');
    let is_below = rest.len() < text.len() && rest.starts_with('.');
    if rest.contains('*') || (rest.len() < text.len() && !is_below) {
        let why = "its * stands for part of a label, or for labels in the middle";
        return refuse(node, written, why, "name the hosts it is for", faults);
    }
    let host = if is_below {
        format!("*{rest}")
    } else {
        bracketed(text)
    };
    if text.contains('/') || (text.contains(':') && text.parse::<Ipv6Addr>().is_err()) {
        let why = "patterns are compared with the host name alone there, so it matches nothing";
        return refuse(node, written, why, "write the host alone", faults);
    }
    draft.allow(node, written, &format!("{host}:*"), faults);
}
