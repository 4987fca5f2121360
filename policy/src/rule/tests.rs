#![allow(clippy::unwrap_used)]
use super::*;

#[test]
fn methods_and_paths() {
    let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
    let rule = HttpRule {
        methods: list(&["GET", "HEAD"]),
        path_prefixes: list(&["/v1", "/docs/"]),
    };
    for (method, path, expected) in [
        ("GET", "/v1", Ok(())),
        ("GET", "/v1?q=../x", Ok(())),
        ("HEAD", "/v1/a%20b/c", Ok(())),
        ("GET", "/docs/", Ok(())),
        ("GET", "/docs/x", Ok(())),
        ("GET", "/docs", Err(Denial::PathNotAllowed)),
        ("GET", "/v10", Err(Denial::PathNotAllowed)),
        ("GET", "/v1/../admin", Err(Denial::PathNotAllowed)),
        ("GET", "/v1/%2e%2e/admin", Err(Denial::PathNotAllowed)),
        ("GET", "/v1/%252e%252e/admin", Err(Denial::PathNotAllowed)),
        ("GET", "/v1/%2Fadmin", Err(Denial::PathNotAllowed)),
        ("GET", "/v1/..;/admin", Err(Denial::PathNotAllowed)),
        ("GET", "/v1\\..\\admin", Err(Denial::PathNotAllowed)),
        ("GET", "/v1//admin", Err(Denial::PathNotAllowed)),
        ("GET", "/v1/%zz", Err(Denial::PathNotAllowed)),
        ("GET", "*", Err(Denial::PathNotAllowed)),
        ("POST", "/v1", Err(Denial::MethodNotAllowed)),
        ("get", "/v1", Err(Denial::MethodNotAllowed)),
    ] {
        assert_eq!(rule.judge(method, path), expected, "{method} {path}");
    }
    assert_eq!(HttpRule::default().judge("PURGE", "*"), Ok(()));
}

#[test]
fn what_passed_under_one_rule_passes_under_another() {
    use crate::{
        decide,
        testing::{grant, target},
    };
    let permit = |rule: &str| {
        let grant = grant(&format!("allowedHosts: ['a.test:80'], rules: [{rule}]"));
        decide(&grant, &target("a.test:80")).unwrap()
    };
    let rule = |text: &str| permit(&format!("{{host: 'a.test:80', {text}}}"));
    let order = ["tls: require", "tls: auto", "tls: opaque"];
    for (at, earlier) in order.iter().enumerate() {
        for (index, now) in order.iter().enumerate() {
            assert_eq!(
                rule(now).admits_all_of(&rule(earlier)),
                at <= index,
                "{earlier} to {now}"
            );
        }
    }
    for (earlier, now, holds) in [
        ("ech: deny", "ech: outer", true),
        ("ech: outer", "ech: deny", false),
        ("ech: outer", "ech: {publicNames: [b.test]}", true),
        (
            "ech: {publicNames: [b.test]}",
            "ech: {publicNames: [c.test, b.test]}",
            true,
        ),
        ("ech: {publicNames: [b.test]}", "ech: outer", false),
        ("ech: deny", "tls: opaque", true),
        (
            "http: {methods: [GET]}",
            "http: {methods: [GET, HEAD]}",
            true,
        ),
        (
            "http: {methods: [GET, HEAD]}",
            "http: {methods: [GET]}",
            false,
        ),
        ("http: {methods: [GET]}", "tls: auto", true),
        ("tls: auto", "http: {methods: [GET]}", false),
        (
            "http: {pathPrefixes: [/v1/x]}",
            "http: {pathPrefixes: [/v1]}",
            true,
        ),
        (
            "http: {pathPrefixes: [/v1]}",
            "http: {pathPrefixes: [/v1/x]}",
            false,
        ),
    ] {
        assert_eq!(
            rule(now).admits_all_of(&rule(earlier)),
            holds,
            "{earlier} to {now}"
        );
    }
}
