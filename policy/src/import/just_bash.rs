//! just-bash: `allowedUrlPrefixes`, each an origin and perhaps a path; methods GET and HEAD unless written.

use super::{Choices, Draft, has_whole_name, refuse};
use crate::{
    Target,
    path::is_prefix,
    text::{Faults, Node},
};
use serde_json::json;
use std::collections::BTreeMap;

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];

/// Keys that say nothing about destinations.
const LIMITS: [&str; 3] = ["maxRedirects", "timeoutMs", "maxResponseSize"];

/// What is allowed of one origin.
struct Origin<'a> {
    node: &'a Node,
    tls: bool,
    methods: Vec<&'static str>,
    /// Empty = every path.
    paths: Vec<String>,
    every_path: bool,
}

/// `scheme://host[:port][/path]`, judged.
struct Url {
    tls: bool,
    target: Target,
    /// `None` = every path.
    path: Option<String>,
}

/// Read the network options, bare or under `network`. Absent and empty allow nothing.
pub(super) fn read(root: &Node, choices: &Choices, faults: &mut Faults) -> Draft {
    let mut draft = Draft::default();
    let block = super::block(root, "network", faults);
    let mut fields = block.fields(faults);
    let prefixes = fields.take("allowedUrlPrefixes");
    let methods = fields.take("allowedMethods");
    let everything = fields
        .take("dangerouslyAllowFullInternetAccess")
        .filter(|node| node.boolean(faults) == Some(true));
    if let Some(node) = fields.take("denyPrivateRanges")
        && node.boolean(faults) == Some(false)
    {
        let message = "private and special-purpose addresses are refused here all the same";
        let hint = Some("write those that names may resolve to in allowedAddresses".to_owned());
        faults.warn(node.place(), message, hint);
    }
    for key in LIMITS {
        if let Some(node) = fields.take(key) {
            faults.warn(&node.key_place(), format!("{key} is not kept"), None);
        }
    }
    fields.finish(faults);
    let methods = match methods {
        Some(node) => read_methods(node, faults),
        None => vec!["GET", "HEAD"],
    };
    draft.begin_allowed();
    let mut origins = BTreeMap::new();
    for item in prefixes.map(|node| node.list(faults)).unwrap_or_default() {
        prefix(item, &methods, &mut origins, faults);
    }
    if let Some(node) = everything {
        faults.warn(&node.key_place(), "everything is allowed", None);
        draft.allow_everything();
        return draft;
    }
    for (target, origin) in &origins {
        allow(target, origin, &mut draft, choices, faults);
    }
    draft
}

/// One entry: a URL, or `{url, methods, transform}`.
fn prefix<'a>(
    node: &'a Node,
    default: &[&'static str],
    origins: &mut BTreeMap<Target, Origin<'a>>,
    faults: &mut Faults,
) {
    let (url, methods) = if node.is_map() {
        let mut fields = node.fields(faults);
        let url = fields.require("url", faults);
        let methods = fields.take("methods");
        if let Some(transform) = fields.take("transform") {
            let why = "requests are not changed here";
            refuse(transform, "transform", why, "", faults);
        }
        fields.finish(faults);
        let methods = methods.map(|node| read_methods(node, faults));
        (url, methods.unwrap_or_else(|| default.to_vec()))
    } else {
        (Some(node), default.to_vec())
    };
    let Some(url) = url.and_then(|node| read_url(node, faults)) else {
        return;
    };
    let origin = origins.entry(url.target.clone()).or_insert_with(|| Origin {
        node,
        tls: url.tls,
        methods: methods.clone(),
        paths: Vec::new(),
        every_path: false,
    });
    if origin.tls != url.tls {
        let message = format!("http and https on the same port of {}", url.target);
        faults.error(node.place(), message);
    }
    if origin.methods != methods {
        faults.error_hint(
            node.place(),
            format!(
                "other methods for another path of {} cannot be kept",
                url.target
            ),
            "one host has one list of methods here",
        );
    }
    match url.path {
        Some(path) if !origin.paths.contains(&path) => origin.paths.push(path),
        Some(_) => {}
        None => origin.every_path = true,
    }
}

/// Allow one origin, as far as it can be enforced.
fn allow(
    target: &Target,
    origin: &Origin<'_>,
    draft: &mut Draft,
    choices: &Choices,
    faults: &mut Faults,
) {
    let (node, entry) = (origin.node, target.to_string());
    let mut paths = origin.paths.as_slice();
    if origin.every_path {
        paths = &[];
    }
    let any_method = METHODS.iter().all(|method| origin.methods.contains(method));
    if !any_method && origin.methods.is_empty() {
        faults.warn(
            node.place(),
            format!("{entry}: no method, so nothing is allowed"),
            None,
        );
        return;
    }
    let rule = if origin.tls {
        let lost = match (any_method, paths.is_empty()) {
            (true, true) => None,
            (false, true) => Some("its methods"),
            (true, false) => Some("its path"),
            (false, false) => Some("its methods and path"),
        };
        if let Some(lost) = lost {
            judge_lost(node, &entry, lost, choices, faults);
        } else {
            let message = format!(
                "{entry}: inside TLS any method passes, also one that is none of these seven"
            );
            faults.warn(node.place(), message, None);
        }
        // Port 443 is TLS without saying so.
        (target.port() != 443).then(|| json!({"host": entry, "tls": "require"}))
    } else if target.port() == 443 {
        let why = "plain HTTP on port 443 is not let through here";
        return refuse(node, &entry, why, "", faults);
    } else {
        // Even without a bound on methods a rule is needed: its presence keeps TLS and other bytes out.
        let mut http = serde_json::Map::new();
        http.insert("methods".into(), json!(origin.methods));
        if !paths.is_empty() {
            http.insert("pathPrefixes".into(), json!(paths));
        }
        Some(json!({"host": entry, "http": http}))
    };
    if draft.allow(node, &entry, &entry, faults).is_some() {
        rule.into_iter().for_each(|rule| draft.rule(rule));
    }
}

fn judge_lost(node: &Node, entry: &str, lost: &str, choices: &Choices, faults: &mut Faults) {
    if choices.widen {
        let message = format!("{entry}: {lost} cannot be seen inside TLS and are dropped");
        faults.warn(node.place(), message, None);
        return;
    }
    let why = format!("{lost} cannot be enforced inside TLS, and nothing is intercepted");
    let hint = "import with the choice to widen, if the whole host may be reached with any method";
    refuse(node, &format!("https://{entry}"), &why, hint, faults);
}

fn read_methods(node: &Node, faults: &mut Faults) -> Vec<&'static str> {
    let choices: Vec<(&str, &'static str)> = METHODS.iter().map(|name| (*name, *name)).collect();
    let mut methods: Vec<&'static str> = node
        .list(faults)
        .iter()
        .filter_map(|item| item.choice(&choices, faults))
        .collect();
    methods.sort_by_key(|name| METHODS.iter().position(|known| known == name));
    methods.dedup();
    methods
}

fn read_url(node: &Node, faults: &mut Faults) -> Option<Url> {
    let text = node.string(faults)?;
    let Some((tls, default_port, rest)) = split_scheme(text) else {
        refuse(
            node,
            text,
            "an entry begins with https:// or http:// there",
            "",
            faults,
        );
        return None;
    };
    if rest.contains(['?', '#']) {
        refuse(
            node,
            text,
            "an entry has no query and no fragment there",
            "",
            faults,
        );
        return None;
    }
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    let host = match authority.rfind(':') {
        Some(colon) if !authority.ends_with(']') => authority.get(..colon).unwrap_or_default(),
        _ => authority,
    };
    if !has_whole_name(node, host, faults) {
        return None;
    }
    let target = match Target::from_uri_authority(authority, default_port) {
        Ok(target) => target,
        Err(error) => {
            refuse(node, text, &error.to_string(), "", faults);
            return None;
        }
    };
    let path = match path {
        "" | "/" => None,
        path if is_prefix(path) => Some(path.to_owned()),
        _ => {
            let why = "its path could be read in more than one way";
            refuse(
                node,
                text,
                why,
                "write it without encodings, dots, ; and \\",
                faults,
            );
            return None;
        }
    };
    Some(Url { tls, target, path })
}

/// Whether it is TLS, the port where none is written, and what follows `://`.
fn split_scheme(text: &str) -> Option<(bool, u16, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    match scheme.to_ascii_lowercase().as_str() {
        "https" => Some((true, 443, rest)),
        "http" => Some((false, 80, rest)),
        _ => None,
    }
}
