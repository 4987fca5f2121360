//! Lists in the manner of Docker, E2B and Modal: hosts, `*.host`, `host:port` and ranges, allowed and denied.
//!
//! In these systems an allowed entry usually beats a denied one. Here denies always win, so lists in which the two meet
//! are refused; a deny of everything is a default, and is kept as one.

use super::{Choices, Draft, block, bracketed, has_whole_name, refuse};
use crate::{
    Action,
    entry::{Entry, Pattern, Ports},
    text::{Faults, Node},
};

/// How a list of a system is meant.
#[derive(Clone, Copy)]
struct List {
    key: &'static str,
    allows: bool,
    /// Names are only ever matched on ports 80 and 443.
    web: bool,
    /// What happens to what no list names, where the document does not say.
    rest: Rest,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// The list's presence denies it.
    Denied,
    /// Nobody can tell.
    Unsaid,
    /// It is allowed.
    Allowed,
}

const fn list(key: &'static str, allows: bool, web: bool, rest: Rest) -> List {
    List {
        key,
        allows,
        web,
        rest,
    }
}

/// Docker's list, in which `*.` is one label and `**.` any depth.
const DOCKER_ALLOWS: &str = "allow-host";

/// Every spelling of the lists.
const LISTS: &[List] = &[
    list("allow", true, false, Rest::Denied),
    list("allowed", true, false, Rest::Denied),
    list("allowedHosts", true, false, Rest::Denied),
    list("allowedDomains", true, false, Rest::Denied),
    list("allowedCIDRs", true, false, Rest::Denied),
    list(DOCKER_ALLOWS, true, false, Rest::Unsaid),
    list("allow-cidr", true, false, Rest::Unsaid),
    list("deny", false, false, Rest::Unsaid),
    list("denied", false, false, Rest::Unsaid),
    list("deniedHosts", false, false, Rest::Unsaid),
    list("deniedDomains", false, false, Rest::Unsaid),
    list("block", false, false, Rest::Unsaid),
    list("blockedHosts", false, false, Rest::Unsaid),
    list("blockedDomains", false, false, Rest::Unsaid),
    list("blockedCIDRs", false, false, Rest::Unsaid),
    list("block-host", false, false, Rest::Unsaid),
    list("block-cidr", false, false, Rest::Unsaid),
    // E2B: without a deny an allow bounds nothing; names are matched by Host and SNI on 80 and 443.
    list("allowOut", true, true, Rest::Allowed),
    list("allow_out", true, true, Rest::Allowed),
    list("denyOut", false, true, Rest::Allowed),
    list("deny_out", false, true, Rest::Allowed),
    // Modal: a list's presence denies the rest.
    list("cidr_allowlist", true, false, Rest::Denied),
    list("outbound_cidr_allowlist", true, false, Rest::Denied),
    list("domain_allowlist", true, true, Rest::Denied),
    list("outbound_domain_allowlist", true, true, Rest::Denied),
];

/// What the name of E2B's SDK for every address stands for.
const ALL_TRAFFIC: &str = "ALL_TRAFFIC";

impl List {
    /// Is it one of E2B's?
    fn is_e2b(self) -> bool {
        self.rest == Rest::Allowed
    }
}

/// What was read, before it is known what it amounts to.
struct Lists<'a> {
    widen: bool,
    allowed: Vec<(&'a Node, Entry)>,
    denied: Vec<(&'a Node, Entry)>,
    allows_all: Option<&'a Node>,
    denies_all: bool,
    first: Option<&'a Node>,
    rest: Option<Rest>,
}

/// Read a list of allowed entries, or a mapping of lists and a default, bare or under `network`.
pub(super) fn read(root: &Node, choices: &Choices, faults: &mut Faults) -> Draft {
    let mut draft = Draft::default();
    let mut lists = Lists {
        widen: choices.widen,
        allowed: Vec::new(),
        denied: Vec::new(),
        allows_all: None,
        denies_all: false,
        first: None,
        rest: None,
    };
    if root.is_list() {
        let bare = list("allow", true, false, Rest::Denied);
        lists.take(root, bare, &mut draft, faults);
        return lists.conclude(None, draft, faults);
    }
    let block = block(root, "network", faults);
    let mut fields = block.fields(faults);
    let (default, blocked) = read_default(&mut fields, faults);
    for list in LISTS {
        if let Some(node) = fields.take(list.key) {
            lists.take(node, *list, &mut draft, faults);
        }
    }
    fields.finish(faults);
    if lists.first.is_none() && default.is_none() && block.is_map() {
        faults.error(block.place(), "there is no list and no default in it");
    }
    if let (Some(node), Some((_, allow))) = (blocked, lists.allowed.first()) {
        let message = format!("everything is blocked, and \"{allow}\" allowed");
        let hint = "leave block_network or the list out";
        faults.error_hint(&node.key_place(), message, hint);
    }
    lists.conclude(default, draft, faults)
}

impl<'a> Lists<'a> {
    fn take(&mut self, node: &'a Node, list: List, draft: &mut Draft, faults: &mut Faults) {
        self.first.get_or_insert(node);
        self.rest = Some(match (self.rest, list.rest) {
            // One list that bounds bounds all.
            (Some(Rest::Denied), _) | (_, Rest::Denied) => Rest::Denied,
            (Some(Rest::Unsaid), _) | (_, Rest::Unsaid) => Rest::Unsaid,
            (_, Rest::Allowed) => Rest::Allowed,
        });
        let items = if node.is_list() {
            node.list(faults)
        } else {
            std::slice::from_ref(node)
        };
        for item in items {
            let Some(text) = item.string(faults) else {
                continue;
            };
            // The value of that name is E2B's word for everything; elsewhere it is a range of IPv4 like another.
            let everything = list.is_e2b() && matches!(text, ALL_TRAFFIC | "0.0.0.0/0");
            if matches!(text, "*" | "all") || everything {
                if list.allows {
                    self.allows_all = Some(item);
                } else {
                    self.denies_all = true;
                }
                continue;
            }
            if list.is_e2b() && !list.allows && !is_range(text) {
                let why = "E2B denies addresses and ranges only";
                let hint = "write the range, or ALL_TRAFFIC for everything";
                refuse(item, text, why, hint, faults);
                continue;
            }
            let Some(entry) = entry(item, text, list, self.widen, faults) else {
                continue;
            };
            if list.allows {
                let read = draft.allow(item, text, &entry, faults);
                self.allowed.extend(read.map(|entry| (item, entry)));
            } else {
                let read = draft.deny(item, text, &entry, faults);
                self.denied.extend(read.map(|entry| (item, entry)));
            }
        }
    }

    fn conclude(mut self, stated: Option<Action>, mut draft: Draft, faults: &mut Faults) -> Draft {
        self.judge_families(stated, &mut draft, faults);
        if self.denies_all && self.rest == Some(Rest::Allowed) {
            // E2B: beside a deny of everything an allow only means anything if it wins, and the other denies, of addresses all,
            // then say nothing.
            draft.deny_nothing();
        } else {
            judge_overlaps(&self.allowed, &self.denied, faults);
        }
        let rest = match (stated, self.rest) {
            _ if self.denies_all => Some(Action::Deny),
            (Some(action), _) => Some(action),
            (None, Some(Rest::Denied)) => Some(Action::Deny),
            (None, Some(Rest::Allowed)) => Some(Action::Allow),
            (None, Some(Rest::Unsaid)) => None,
            (None, None) => return draft,
        };
        if let Some(node) = self.allows_all {
            // A wildcard that beats every deny leaves none of them standing.
            if self.denied.is_empty() && !self.denies_all {
                faults.warn(node.place(), "everything is allowed", None);
                draft.allow_everything();
            } else {
                let why = "an allow of everything beats the denies there, and here denies win";
                refuse(node, "*", why, "leave the one or the others out", faults);
            }
            return draft;
        }
        match (rest, self.first) {
            (Some(Action::Deny), _) => draft.begin_allowed(),
            (Some(Action::Allow), _) => {
                if let Some((node, _)) = self.allowed.first() {
                    let message = "what is allowed by name is allowed anyway, by default";
                    faults.warn(node.place(), message, None);
                }
                draft.allow_everything();
            }
            (None, Some(node)) => faults.error_hint(
                &node.key_place(),
                "what happens to hosts that no list names is not said",
                "write policy: deny, or policy: allow",
            ),
            (None, None) => {}
        }
        draft
    }
}

impl Lists<'_> {
    /// A deny of all of IPv4 or of IPv6. Of both it is one of everything. Of one it says nothing where the rest is denied anyway;
    /// elsewhere it is kept, and no allow can then be.
    fn judge_families(&mut self, stated: Option<Action>, draft: &mut Draft, faults: &mut Faults) {
        let is_whole =
            |deny: &Entry| matches!(&deny.pattern, Pattern::Net(net) if net.prefix_len() == 0);
        let any_port = |deny: &Entry| deny.ports == Ports::Any;
        let whole = self.denied.iter().map(|(_, deny)| deny);
        let whole: Vec<Entry> = whole
            .filter(|deny| is_whole(deny) && any_port(deny))
            .cloned()
            .collect();
        let Some(one) = whole.first() else { return };
        let both = whole.iter().any(|other| other != one);
        let bounded = match stated {
            Some(action) => action == Action::Deny,
            None => self.rest == Some(Rest::Denied),
        };
        if both || bounded {
            self.denies_all |= both;
            self.denied.retain(|(_, deny)| !whole.contains(deny));
            draft.forget_denied(&whole);
            return;
        }
        for (node, allow) in &self.allowed {
            if let Pattern::Host(_) = &allow.pattern {
                let message = format!(
                    "\"{allow}\" is allowed and \"{one}\", which it may resolve into, denied: there the allow wins, here the deny"
                );
                let hint = "write policy: deny, if everything else is to be denied";
                faults.error_hint(node.place(), message, hint);
            }
        }
    }
}

/// Report each pair of an allowed and a denied entry that share a destination.
fn judge_overlaps(allowed: &[(&Node, Entry)], denied: &[(&Node, Entry)], faults: &mut Faults) {
    for (node, allow) in allowed {
        for (other, deny) in denied {
            let ports = allow.ports.or_any() == deny.ports.or_any()
                || allow.ports.or_any() == Ports::Any
                || deny.ports.or_any() == Ports::Any;
            let hosts = deny.contains_hosts(&allow.pattern) || allow.contains_hosts(&deny.pattern);
            if hosts && ports {
                let message = format!(
                    "\"{allow}\" is allowed and \"{deny}\" (line {}) denied: there the allow wins, here the deny",
                    other.position().line
                );
                let hint = "leave out the one that is not meant, or narrow it";
                faults.error_hint(node.place(), message, hint);
            }
        }
        if let Pattern::Host(_) = &allow.pattern
            && let Some((_, range)) = denied
                .iter()
                .find(|(_, deny)| matches!(deny.pattern, Pattern::Net(_)))
        {
            let message = format!(
                "\"{allow}\" is refused here where it resolves into a denied range (\"{range}\"); there it would pass"
            );
            faults.warn(node.place(), message, None);
        }
    }
}

/// An address or a range, without a port.
fn is_range(text: &str) -> bool {
    text.starts_with('[') || crate::entry::parse_net(text).is_ok()
}

fn entry(node: &Node, text: &str, list: List, widen: bool, faults: &mut Faults) -> Option<String> {
    if text.contains("://") {
        refuse(
            node,
            text,
            "it is a URL, not a host",
            "write the host and its port",
            faults,
        );
        return None;
    }
    let alone = bracketed(text);
    let is_bare_v6 = alone.starts_with('[') && !text.starts_with('[');
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !is_bare_v6 && !text.ends_with(']') => (host, Some(port)),
        _ => (alone.as_str(), None),
    };
    if !has_whole_name(node, host, faults) {
        return None;
    }
    // Two stars are any depth, which is what one is here.
    let (host, stars) = match host.strip_prefix("**.") {
        Some(rest) => (format!("*.{rest}"), true),
        None => (host.to_owned(), false),
    };
    if host.starts_with("*.") && !stars {
        judge_depth(node, text, list, widen, faults)?;
    }
    let is_range = is_range(&host);
    Some(match port {
        Some(port) => format!("{host}:{port}"),
        None if list.web && !is_range && list.allows => host,
        None => format!("{host}:*"),
    })
}

/// One star is one label in some of these systems, and any depth in others and here. `None` where that allows more.
fn judge_depth(
    node: &Node,
    text: &str,
    list: List,
    widen: bool,
    faults: &mut Faults,
) -> Option<()> {
    if list.key == DOCKER_ALLOWS && !widen {
        let why = "it is one label there, and names of any depth here";
        let hint =
            "write the hosts out, or \"**.\" for any depth; or import with the choice to widen";
        refuse(node, text, why, hint, faults);
        return None;
    }
    let message =
        format!("{text:?} covers names of any depth here, which not all of these systems do");
    let hint = "write the hosts out, if only one label was meant".to_owned();
    faults.warn(node.place(), message, Some(hint));
    Some(())
}

/// The default, however it is spelled, and where it is a block of the whole network.
fn read_default<'a>(
    fields: &mut crate::text::Fields<'a>,
    faults: &mut Faults,
) -> (Option<Action>, Option<&'a Node>) {
    const WORDS: &[(&str, Action)] = &[
        ("allow", Action::Allow),
        ("open", Action::Allow),
        ("deny", Action::Deny),
        ("block", Action::Deny),
    ];
    let mut found: Option<Action> = None;
    let mut say = |node: &Node, action: Action, faults: &mut Faults| {
        if found.replace(action).is_some_and(|before| before != action) {
            faults.error(&node.key_place(), "the default is said twice, in two ways");
        }
    };
    for key in ["policy", "default", "defaultPolicy", "defaultAction"] {
        if let Some(node) = fields.take(key)
            && let Some(action) = node.choice(WORDS, faults)
        {
            say(node, action, faults);
        }
    }
    let mut blocked = None;
    for (key, when_true) in [
        ("allowInternetAccess", Action::Allow),
        ("allow_internet_access", Action::Allow),
        ("block_network", Action::Deny),
    ] {
        let Some(node) = fields.take(key) else {
            continue;
        };
        match node.boolean(faults) {
            Some(true) => {
                say(node, when_true, faults);
                blocked = blocked.or((when_true == Action::Deny).then_some(node));
            }
            // `block_network: false` says nothing that a list would not overrule.
            Some(false) if when_true == Action::Allow => say(node, Action::Deny, faults),
            Some(false) => {}
            None => {}
        }
    }
    (found, blocked)
}
