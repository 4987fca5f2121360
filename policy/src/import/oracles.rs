//! An imported list decides as its source would: each source's own rule, written out, against the one decision.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use super::*;
use crate::{Grant, decide, testing};
use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;

/// Labels that make names meet: short, few, and some a suffix of others as text.
fn name() -> impl Strategy<Value = String> {
    let label = prop::sample::select(vec!["a", "b", "ab", "x-a", "API"]);
    let domain = prop::sample::select(vec!["one.test", "xone.test", "two.test", "Two.TEST"]);
    (prop::collection::vec(label, 0..3), domain).prop_map(|(labels, domain)| {
        labels
            .into_iter()
            .chain([domain])
            .collect::<Vec<_>>()
            .join(".")
    })
}

/// Names, and `*.` before some of them.
fn pattern() -> impl Strategy<Value = String> {
    (any::<bool>(), name()).prop_map(|(below, name)| if below { format!("*.{name}") } else { name })
}

fn patterns() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(pattern(), 0..5)
}

/// Few hosts, so that path and method decide.
fn origin() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["one.test", "Two.TEST"]).prop_map(str::to_owned)
}

fn prefix() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "/", "/v1", "/v1/", "/v1/a"])
}

fn port() -> impl Strategy<Value = u16> {
    prop::sample::select(vec![80_u16, 443, 22, 8443])
}

fn grant(system: System, source: &serde_json::Value, role: &str) -> Arc<Grant> {
    let choices = Choices {
        role: Some(role.to_owned()),
        widen: false,
    };
    let imported =
        import(system, &source.to_string(), &choices).unwrap_or_else(|f| panic!("{source}: {f}"));
    testing::compile(
        &imported.document.to_json(),
        "addresses: [0.0.0.0/0, '::/0']",
    )
    .unwrap()
}

fn passes(grant: &Arc<Grant>, host: &str, port: u16) -> bool {
    decide(grant, &testing::target(&format!("{host}:{port}"))).is_ok()
}

/// Exact, or `*.` and a suffix of the text; without case. Gestalt and Smokescreen compare so.
fn suffix_match(pattern: &str, host: &str) -> bool {
    let (pattern, host) = (pattern.to_lowercase(), host.to_lowercase());
    match pattern.strip_prefix('*') {
        Some(suffix) => host.ends_with(suffix),
        None => pattern == host,
    }
}

/// `*` stands for any text, the rest for itself: Gondolin's regular expression.
fn glob_match(pattern: &str, host: &str) -> bool {
    fn walk(pattern: &[u8], host: &[u8]) -> bool {
        match pattern.split_first() {
            None => host.is_empty(),
            Some((b'*', rest)) => (0..=host.len()).any(|at| walk(rest, &host[at..])),
            Some((c, rest)) => host
                .split_first()
                .is_some_and(|(h, host)| h == c && walk(rest, host)),
        }
    }
    walk(
        pattern.to_lowercase().as_bytes(),
        host.to_lowercase().as_bytes(),
    )
}

/// Does one of two patterns cover the other?
fn meet(a: &str, b: &str) -> bool {
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    // A label in place of a star: what `*.x.test` covers, `x.test` apart, `*.test` covers too.
    let covers = |outer: &str, inner: &str| {
        outer == inner
            || (outer.starts_with('*') && suffix_match(outer, &inner.replace("*.", "any.")))
    };
    covers(&a, &b) || covers(&b, &a)
}

/// Does the path stand under the prefix, segment by segment? just-bash's rule.
fn path_match(prefix: &str, path: &str) -> bool {
    if prefix.is_empty() || prefix == "/" {
        return true;
    }
    if prefix.ends_with('/') {
        return path.starts_with(prefix);
    }
    path == prefix || path.starts_with(&format!("{prefix}/"))
}

proptest! {
    #[test]
    fn gestalt(list in patterns(), allow in any::<bool>(), host in name(), port in port()) {
        let action = if allow { "allow" } else { "deny" };
        let grant = grant(System::Gestalt, &json!({"allowedHosts": list, "defaultAction": action}), "");
        let expected = if list.is_empty() { allow } else { list.iter().any(|p| suffix_match(p, &host)) };
        prop_assert_eq!(passes(&grant, &host, port), expected);
    }

    #[test]
    fn gondolin(list in prop::option::of(patterns()), everything in any::<bool>(), host in name(), port in port()) {
        let mut list = list;
        if let (Some(list), true) = (&mut list, everything) {
            list.push("*".to_owned());
        }
        let source = match &list {
            Some(list) => json!({ "allowedHosts": list }),
            None => json!({}),
        };
        let expected = list.is_none_or(|list| list.iter().any(|p| glob_match(p, &host)));
        prop_assert_eq!(passes(&grant(System::Gondolin, &source, ""), &host, port), expected);
    }

    #[test]
    fn dreadnode(
        list in prop::collection::vec((pattern(), prop::option::of(port())), 0..5),
        host in name(),
        port in port(),
    ) {
        let written: Vec<String> = list.iter().map(|(pattern, port)| match port {
            Some(port) => format!("tcp://{pattern}:{port}"),
            None => format!(" {pattern} "),
        }).collect();
        let expected = list.iter().any(|(pattern, own)| {
            suffix_match(pattern, &host) && own.map_or(matches!(port, 80 | 443), |own| own == port)
        });
        let grant = grant(System::Dreadnode, &json!({"egress": {"allow": written}}), "");
        prop_assert_eq!(passes(&grant, &host, port), expected);
    }

    /// As there, but for the one thing that is not kept: a deny is never overruled. Never more is allowed.
    #[test]
    fn smokescreen(
        own in patterns(),
        denied in patterns(),
        allowed in patterns(),
        open in any::<bool>(),
        host in name(),
        port in port(),
    ) {
        let lower = |list: &[String]| -> Vec<String> { list.iter().map(|p| p.to_lowercase()).collect() };
        let (own, denied, allowed) = (lower(&own), lower(&denied), lower(&allowed));
        let source = json!({
            "services": [{"name": "r", "action": if open { "open" } else { "enforce" }, "allowed_domains": own}],
            "global_deny_list": denied,
            "global_allow_list": allowed,
        });
        let matches = |list: &[String]| list.iter().any(|p| suffix_match(p, &host));
        let there = matches(&own) || (!matches(&denied) && (matches(&allowed) || open));
        let overruled = matches(&own) && matches(&denied);
        prop_assert_eq!(passes(&grant(System::Smokescreen, &source, "r"), &host, port), there && !overruled);
        if overruled {
            let choices = Choices { role: Some("r".to_owned()), widen: false };
            let notes = import(System::Smokescreen, &source.to_string(), &choices).unwrap().notes;
            prop_assert!(notes.iter().any(|note| note.message.contains("denies always win")), "{:?}", notes);
        }
    }

    #[test]
    fn just_bash(
        list in prop::collection::vec((origin(), prefix(), any::<bool>()), 0..5),
        host in origin(),
        port in prop::sample::select(vec![80_u16, 8080, 443]),
        method in prop::sample::select(vec!["GET", "HEAD", "POST"]),
        path in prop::sample::select(vec!["/", "/v1", "/v1/", "/v1/a", "/v10", "/v1/ab", "/v2"]),
    ) {
        let url = |(host, path, odd): &(String, &str, bool)| {
            format!("http://{host}{}{path}", if *odd { ":8080" } else { "" })
        };
        let written: Vec<String> = list.iter().map(url).collect();
        let grant = grant(System::JustBash, &json!({"allowedUrlPrefixes": written}), "");
        let expected = matches!(method, "GET" | "HEAD") && list.iter().any(|(own, prefix, odd)| {
            own.eq_ignore_ascii_case(&host) && port == if *odd { 8080 } else { 80 } && path_match(prefix, path)
        });
        let permit = decide(&grant, &testing::target(&format!("{host}:{port}")));
        prop_assert_eq!(permit.is_ok_and(|permit| permit.judge_http(method, path).is_ok()), expected);
    }

    /// Whatever is not refused decides as a system would in which the allow wins.
    #[test]
    fn docker(allowed in patterns(), denied in patterns(), open in any::<bool>(), host in name(), port in port()) {
        let policy = if open { "allow" } else { "deny" };
        let source = json!({"policy": policy, "allow": allowed, "deny": denied});
        let Ok(_) = import(System::Docker, &source.to_string(), &Choices::default()) else {
            // Only lists that meet are refused.
            let meet = allowed.iter().any(|a| denied.iter().any(|d| meet(a, d)));
            prop_assert!(meet, "refused without need: {}", source);
            return Ok(());
        };
        let matches = |list: &[String]| list.iter().any(|p| suffix_match(p, &host));
        let there = matches(&allowed) || (open && !matches(&denied));
        prop_assert_eq!(passes(&grant(System::Docker, &source, ""), &host, port), there);
    }

    /// Whatever is written in an entry: it is refused at its place, or what comes of it is loaded.
    #[test]
    fn an_entry_is_refused_or_loaded(
        entry in prop_oneof!["\\PC{0,24}", "(tcp://|https?://|\\*\\.)?[a-z0-9*._:/%@\\[\\]-]{0,24}(:[0-9]{1,5})?"],
        at in 0..System::ALL.len(),
    ) {
        let (_, system) = System::ALL[at];
        let source = match system {
            System::Gestalt | System::Gondolin => json!({"allowedHosts": [entry]}),
            System::Dreadnode | System::Docker => json!({"allow": [entry]}),
            System::JustBash => json!({"allowedUrlPrefixes": [entry]}),
            System::Smokescreen => json!({"default": {"action": "enforce", "allowed_domains": [entry]}}),
        };
        match import(system, &source.to_string(), &Choices::default()) {
            Ok(imported) => {
                let loaded = testing::compile(&imported.document.to_json(), "addresses: [0.0.0.0/0, '::/0']");
                let metadata = loaded.as_ref().is_err_and(|faults| faults.contains("metadata"));
                prop_assert!(loaded.is_ok() || metadata, "{}: {:?}", source, loaded.err());
            }
            Err(faults) => {
                let placed = faults.errors.iter().all(|fault| fault.path.contains("[0]"));
                prop_assert!(placed, "{}: {}", source, faults);
            }
        }
    }
}
