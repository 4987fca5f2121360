//! Gestalt: a non-empty `allowedHosts` decides alone; else `defaultAction` does. Ports are never looked at.

use super::{Draft, block, bracketed, has_whole_name, refuse};
use crate::{
    Action, EgressDocument,
    text::{self, Faults, Fields, Node},
};
use std::net::Ipv6Addr;

const ACTIONS: &[(&str, Action)] = &[("allow", Action::Allow), ("deny", Action::Deny)];

/// The policy in a token's claims `allowed_hosts` and `default_action`. Entries that match nothing there match nothing
/// here; without any host and any action nothing is allowed.
pub fn import_gestalt_claims(hosts: &[String], default: Option<Action>) -> EgressDocument {
    let hosts: Vec<&str> = hosts
        .iter()
        .map(|host| host.trim())
        .filter(|host| !host.is_empty())
        .collect();
    // Nobody reads these faults: whoever could mend them signed the token long ago.
    let mut faults = Faults::default();
    let root = text::parse(&serde_json::json!(hosts).to_string(), &mut faults);
    let mut draft = Draft::default();
    for item in root.list(&mut faults) {
        draft.begin_allowed();
        if let Some(text) = item.string(&mut faults) {
            host(item, text, &mut draft, &mut faults);
        }
    }
    if let (true, Some(action)) = (hosts.is_empty(), default) {
        draft.default_action(action);
    }
    draft.finish(&mut faults).egress
}

/// Read `{allowedHosts, defaultAction}`, bare or under `egress`; the claims of its tokens spell the keys with `_`.
pub(super) fn read(root: &Node, faults: &mut Faults) -> Draft {
    let mut draft = Draft::default();
    let block = block(root, "egress", faults);
    let mut fields = block.fields(faults);
    let hosts = either(&mut fields, "allowedHosts", "allowed_hosts", faults);
    let default = either(&mut fields, "defaultAction", "default_action", faults);
    fields.finish(faults);
    let action = default.and_then(|node| node.choice(ACTIONS, faults));
    let items = hosts.map(|node| node.list(faults)).unwrap_or_default();
    for item in items {
        if let Some(text) = item.string(faults) {
            host(item, text, &mut draft, faults);
        }
    }
    match (items.is_empty(), default, action) {
        (false, Some(node), _) => faults.warn(
            &node.key_place(),
            "a non-empty allowedHosts decides alone there: defaultAction is ignored",
            None,
        ),
        (false, None, _) => {}
        (true, _, Some(action)) => draft.default_action(action),
        // An unknown word was reported above.
        (true, Some(_), None) => {}
        (true, None, None) if block.is_map() => faults.error_hint(
            hosts.map_or(block.place(), Node::place),
            "without allowed hosts defaultAction decides, and unset it allows everything there",
            "write out what is meant: defaultAction: allow, or defaultAction: deny",
        ),
        (true, None, None) => {}
    }
    draft
}

fn host(node: &Node, text: &str, draft: &mut Draft, faults: &mut Faults) {
    if !has_whole_name(node, text, faults) {
        return;
    }
    let host = bracketed(text);
    if text.contains('/') {
        let why = "hosts are compared as text there, so a range matches nothing";
        return refuse(node, text, why, "", faults);
    }
    if text.contains(':') && text.parse::<Ipv6Addr>().is_err() {
        let why = "hosts are compared without their port there, so it matches nothing";
        return refuse(node, text, why, "write the host alone", faults);
    }
    draft.allow(node, text, &format!("{host}:*"), faults);
}

/// One key in two spellings; both at once is a fault.
fn either<'a>(
    fields: &mut Fields<'a>,
    one: &'static str,
    other: &'static str,
    faults: &mut Faults,
) -> Option<&'a Node> {
    let (first, second) = (fields.take(one), fields.take(other));
    if let (Some(_), Some(node)) = (first, second) {
        faults.error(
            &node.key_place(),
            format!("{one:?} and {other:?} are the same key"),
        );
    }
    first.or(second)
}
