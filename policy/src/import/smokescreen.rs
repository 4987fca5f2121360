//! Smokescreen's ACL: a role's allowed domains, then the global denies, then the global allows, then the role's action.

use super::{Choices, Draft, bracketed, has_whole_name, refuse};
use crate::{
    entry::Entry,
    text::{Faults, Fields, Node},
};
use std::{collections::HashSet, net::Ipv6Addr};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    Open,
    Report,
    Enforce,
}

const POLICIES: &[(&str, Policy)] = &[
    ("open", Policy::Open),
    ("report", Policy::Report),
    ("enforce", Policy::Enforce),
];

struct Role<'a> {
    node: &'a Node,
    name: Option<&'a str>,
    policy: Option<Policy>,
    domains: &'a [Node],
    /// What a role can have that nothing here stands for.
    unkept: Vec<(&'static str, &'a Node)>,
}

/// Read an ACL of version `v1`, as the role chosen sees it. The whole file is judged, as Smokescreen does.
pub(super) fn read(root: &Node, choices: &Choices, faults: &mut Faults) -> Draft {
    let mut fields = root.fields(faults);
    if let Some(node) = fields.take("version") {
        node.choice(&[("v1", ())], faults);
    }
    let services = fields.take("services");
    let mut roles = Vec::new();
    for node in services.map(|node| node.list(faults)).unwrap_or_default() {
        roles.push(role(node, faults));
    }
    let default = fields.take("default").map(|node| role(node, faults));
    let denied = list(&mut fields, "global_deny_list", faults);
    let allowed = list(&mut fields, "global_allow_list", faults);
    fields.finish(faults);
    judge_names(&roles, faults);
    for role in roles.iter().chain(&default) {
        // The others must be well-formed too; what they say is not ours to take.
        let mut aside = Draft::default();
        for node in role.domains {
            glob(node, &mut aside, true, &mut Faults::default(), faults);
        }
    }
    let Some(chosen) = choose(root, services, &roles, default.as_ref(), choices, faults) else {
        let mut nothing = Draft::default();
        nothing.begin_allowed();
        return nothing;
    };
    for (key, node) in &chosen.unkept {
        let why = "nothing is intercepted or chained to other proxies here";
        refuse(node, key, why, "", faults);
    }
    assemble(chosen, denied, allowed, choices, faults)
}

fn assemble(
    role: &Role<'_>,
    denied: &[Node],
    allowed: &[Node],
    choices: &Choices,
    faults: &mut Faults,
) -> Draft {
    let mut draft = Draft::default();
    draft.begin_allowed();
    let mut told = Faults::default();
    let denies: Vec<(&Node, Entry)> = denied
        .iter()
        .filter_map(|node| Some((node, glob(node, &mut draft, false, faults, &mut told)?)))
        .collect();
    faults.append(told);
    // Syntax was reported when the whole file was judged.
    let mut quiet = Faults::default();
    for node in role.domains {
        if let Some(entry) = glob(node, &mut draft, true, faults, &mut quiet) {
            note_overridden(node, &entry, &denies, faults);
        }
    }
    let mut told = Faults::default();
    for node in allowed {
        glob(node, &mut draft, true, faults, &mut told);
    }
    faults.append(told);
    match role.policy {
        Some(Policy::Open) => draft.allow_everything(),
        Some(Policy::Report) => {
            draft.report();
            judge_report(&mut draft, denied, choices, faults);
        }
        Some(Policy::Enforce) | None => {}
    }
    draft
}

/// Report mode lifts a session's own denies here; there the global ones hold in every mode.
fn judge_report(draft: &mut Draft, denied: &[Node], choices: &Choices, faults: &mut Faults) {
    let (true, Some(first)) = (draft.denies(), denied.first()) else {
        return;
    };
    if choices.widen {
        draft.deny_nothing();
        faults.warn(
            first.place(),
            "global_deny_list is dropped: report mode only records",
            Some("put it into the provider's ceiling.deniedHosts".to_owned()),
        );
        return;
    }
    refuse(
        first,
        "global_deny_list",
        "it denies even where action is report, and report mode here only records",
        "put it into the provider's ceiling.deniedHosts and import without it, or give the role action enforce",
        faults,
    );
}

/// A role's allow beats a global deny there; here denies always win.
fn note_overridden(node: &Node, entry: &Entry, denies: &[(&Node, Entry)], faults: &mut Faults) {
    for (deny, denied) in denies {
        let covered = denied.contains_hosts(&entry.pattern);
        if !covered && !entry.contains_hosts(&denied.pattern) {
            continue;
        }
        let what = if covered {
            "it stays denied here"
        } else {
            "that part of it stays denied here"
        };
        let host = |entry: &Entry| entry.to_string().trim_end_matches(":*").to_owned();
        faults.warn(
            node.place(),
            format!(
                "{:?} wins over \"{}\" of global_deny_list (line {}) there; denies always win, so {what}",
                host(entry),
                host(denied),
                deny.position().line
            ),
            Some("take it off global_deny_list if it is meant to be reached".to_owned()),
        );
    }
}

fn role<'a>(node: &'a Node, faults: &mut Faults) -> Role<'a> {
    let mut fields = node.fields(faults);
    let name = fields.take("name").and_then(|node| node.scalar(faults));
    fields.take("project");
    let policy = fields
        .require("action", faults)
        .and_then(|node| node.choice(POLICIES, faults));
    let domains = list(&mut fields, "allowed_domains", faults);
    let mut unkept = Vec::new();
    for key in ["mitm_domains", "allowed_external_proxies"] {
        if let Some(node) = fields.take(key) {
            unkept.push((key, node));
        }
    }
    fields.finish(faults);
    Role {
        node,
        name,
        policy,
        domains,
        unkept,
    }
}

fn list<'a>(fields: &mut Fields<'a>, key: &'static str, faults: &mut Faults) -> &'a [Node] {
    fields
        .take(key)
        .map(|node| node.list(faults))
        .unwrap_or_default()
}

fn judge_names(roles: &[Role<'_>], faults: &mut Faults) {
    let mut names = HashSet::new();
    for role in roles {
        match role.name {
            None if role.node.is_map() => faults.error(role.node.place(), "a service has no name"),
            None => {}
            Some(name) if !names.insert(name) => {
                faults.error(role.node.place(), format!("a second rule for {name:?}"));
            }
            Some(_) => {}
        }
    }
}

/// The rule of the role asked for; `None` where Smokescreen has none, and denies.
fn choose<'r, 'a>(
    root: &Node,
    services: Option<&Node>,
    roles: &'r [Role<'a>],
    default: Option<&'r Role<'a>>,
    choices: &Choices,
    faults: &mut Faults,
) -> Option<&'r Role<'a>> {
    let Some(wanted) = &choices.role else {
        if let (Some(services), false) = (services, roles.is_empty()) {
            let names: Vec<&str> = roles.iter().filter_map(|role| role.name).collect();
            faults.error_hint(
                &services.key_place(),
                "there is a rule for each role, and a policy here is for one",
                format!(
                    "choose the role: {}, or any other name for the default rule",
                    names.join(", ")
                ),
            );
        }
        return default;
    };
    let found = roles.iter().find(|role| role.name == Some(wanted));
    if found.is_none() {
        let message = match default {
            Some(_) => format!("no rule for {wanted:?}: the default rule is taken"),
            None => format!("no rule for {wanted:?} and no default rule: everything is denied"),
        };
        faults.warn(
            default.map_or(root, |role| role.node).place(),
            message,
            None,
        );
    }
    found.or(default)
}

/// `host` or `*.host`, in its normal form: Smokescreen loads nothing else. Warnings and errors go where the caller wants
/// them.
fn glob(
    node: &Node,
    draft: &mut Draft,
    allowing: bool,
    notes: &mut Faults,
    errors: &mut Faults,
) -> Option<Entry> {
    let mut own = Faults::default();
    let entry = judged_glob(node, draft, allowing, &mut own);
    notes.append(Faults {
        errors: Vec::new(),
        warnings: std::mem::take(&mut own.warnings),
    });
    errors.append(own);
    entry
}

fn judged_glob(
    node: &Node,
    draft: &mut Draft,
    allowing: bool,
    faults: &mut Faults,
) -> Option<Entry> {
    let text = node.string(faults)?;
    if !has_whole_name(node, text, faults) {
        return None;
    }
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        let hint = format!("write {:?}", text.to_ascii_lowercase());
        refuse(
            node,
            text,
            "Smokescreen takes names in lower case only",
            &hint,
            faults,
        );
        return None;
    }
    let host = bracketed(text);
    if text.contains('/') || (text.contains(':') && text.parse::<Ipv6Addr>().is_err()) {
        let why = "Smokescreen takes hosts without port or range only";
        refuse(node, text, why, "", faults);
        return None;
    }
    let entry = format!("{host}:*");
    if allowing {
        draft.allow(node, text, &entry, faults)
    } else {
        draft.deny(node, text, &entry, faults)
    }
}
