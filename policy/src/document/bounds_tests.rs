//! What the ceiling and the rules refuse.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use super::*;
use crate::{
    Denial, decide,
    testing::{ceiling, compile, document, target},
    text::Faults,
};

#[test]
fn the_ceiling_bounds_the_author() {
    let bounded = "{allowedHosts: ['*.example.com:*', 'a.test:443', 10.0.0.0/8], addresses: [127.0.0.0/8, 10.0.0.0/8]}";
    for (egress, ceiling, expected) in [
        ("allowedHosts: [anything.test, 8.8.8.8]", "{}", ""),
        (
            "allowedHosts: [127.0.0.1]",
            "{}",
            "allowedHosts[0]: egress.allowedHosts entry \"127.0.0.1\": 127.0.0.1 is outside",
        ),
        (
            "allowedHosts: ['0.0.0.0/0']",
            "{addresses: [10.0.0.0/8]}",
            "0.0.0.0/0 is outside",
        ),
        (
            "allowedHosts: ['10.1.0.0/16:5432']",
            "{addresses: [10.0.0.0/8]}",
            "",
        ),
        (
            "allowedHosts: ['[::ffff:0:0/96]']",
            "{addresses: [10.0.0.0/8]}",
            "is outside",
        ),
        (
            "allowedAddresses: [10.0.0.0/7]",
            "{addresses: [10.0.0.0/8]}",
            "egress.allowedAddresses[0]: egress.allowedAddresses: 10.0.0.0/7 is outside",
        ),
        (
            "allowedAddresses: [10.0.0.0/8]",
            "{addresses: [10.0.0.0/8]}",
            "",
        ),
        (
            "hosts: {a.test: [127.0.0.1, 10.0.0.1]}",
            "{addresses: [127.0.0.0/8]}",
            "egress.hosts.a.test: 10.0.0.1 is outside",
        ),
        ("allowedHosts: [x.example.com]", bounded, ""),
        ("allowedHosts: ['*.y.example.com:9']", bounded, ""),
        ("allowedHosts: ['*.example.com']", bounded, ""),
        (
            "allowedHosts: [example.com]",
            bounded,
            "\"example.com\" is outside",
        ),
        ("allowedHosts: [a.test]", bounded, "\"a.test\" is outside"),
        ("allowedHosts: ['a.test:443']", bounded, ""),
        (
            "allowedHosts: ['a.test:*']",
            bounded,
            "\"a.test:*\" is outside",
        ),
        (
            "allowedHosts: ['*.a.test:443']",
            bounded,
            "\"*.a.test:443\" is outside",
        ),
        ("allowedHosts: [8.8.8.8]", bounded, "\"8.8.8.8\" is outside"),
        ("allowedHosts: [10.1.1.1]", bounded, ""),
        (
            "defaultAction: allow",
            bounded,
            "defaultAction: allow asks for more",
        ),
        ("defaultAction: allow, allowedHosts: []", bounded, ""),
    ] {
        let found = compile(&format!("egress: {{{egress}}}"), ceiling)
            .err()
            .unwrap_or_default();
        assert_eq!(found.is_empty(), expected.is_empty(), "{egress}: {found}");
        assert!(found.contains(expected), "{egress}: {found}");
    }
}

#[test]
fn the_ceiling_denies_too_and_local_is_loopback() {
    let grant = compile(
        "egress: {allowedHosts: ['*.example.com']}",
        "{deniedHosts: ['*.secret.example.com']}",
    )
    .unwrap();
    assert_eq!(
        decide(&grant, &target("x.secret.example.com:443"))
            .unwrap_err()
            .denial,
        Denial::HostDenied
    );
    let local = Ceiling::local();
    assert_eq!(local, ceiling("{addresses: [127.0.0.0/8, '::1']}"));
    let mut faults = Faults::default();
    assert!(
        document("egress: {allowedAddresses: [127.0.0.1, '::1']}")
            .compile(&local, &mut faults)
            .is_some()
    );
    assert!(
        document("egress: {allowedAddresses: [10.0.0.1]}")
            .compile(&local, &mut faults)
            .is_none()
    );
    assert_eq!(faults.errors.len(), 1);
}

#[test]
fn rules_that_cannot_hold_are_refused() {
    for (egress, expected) in [
        (
            "allowedHosts: [a.test], rules: [{host: b.test, tls: auto}]",
            "rules[0] \"b.test\" is for a host that allowedHosts does not name",
        ),
        (
            "allowedHosts: [a.test], rules: [{host: 'a.test:22', tls: opaque}]",
            "does not name",
        ),
        ("rules: [{host: a.test, tls: auto}]", "does not name"),
        (
            "defaultAction: allow, rules: [{host: a.test, tls: auto}]",
            "",
        ),
        (
            "allowedHosts: ['*.a.test'], rules: [{host: x.a.test, tls: auto}]",
            "",
        ),
        (
            "allowedHosts: [x.a.test], rules: [{host: '*.a.test', tls: auto}]",
            "",
        ),
        (
            "allowedHosts: [a.test], rules: [{host: a.test, http: {methods: [GET]}}]",
            "rules[0] \"a.test\": http cannot be enforced inside TLS on port 443",
        ),
        (
            "allowedHosts: ['a.test:443'], rules: [{host: a.test, http: {methods: [GET]}}]",
            "inside TLS on port 443",
        ),
        (
            "allowedHosts: ['a.test:*'], rules: [{host: a.test, http: {pathPrefixes: [/]}}]",
            "inside TLS on port 443",
        ),
        (
            "allowedHosts: ['*.a.test'], rules: [{host: x.a.test, http: {methods: [GET]}}]",
            "inside TLS on port 443",
        ),
        (
            "allowedHosts: ['a.test:80'], rules: [{host: 'a.test:80', tls: require, http: {methods: [GET]}}]",
            "the TLS that tls: require asks for",
        ),
        (
            "allowedHosts: ['a.test:80'], rules: [{host: 'a.test:80', tls: opaque, http: {methods: [GET]}}]",
            "in an opaque tunnel",
        ),
        (
            "allowedHosts: ['a.test:80'], rules: [{host: a.test, tls: opaque}, {host: 'a.test:80', http: {methods: [GET]}}]",
            "in an opaque tunnel",
        ),
        (
            "allowedHosts: ['a.test:80'], rules: [{host: a.test, http: {methods: [GET]}}]",
            "",
        ),
        (
            "allowedHosts: [a.test], rules: [{host: 'a.test:80', http: {methods: [GET]}}]",
            "",
        ),
        (
            "allowedHosts: [a.test], rules: [{host: a.test, tls: auto}, {host: a.test, tls: opaque}]",
            "say different things of tls",
        ),
        (
            "allowedHosts: [a.test], rules: [{host: a.test, tls: auto}, {host: a.test, ech: deny}]",
            "",
        ),
    ] {
        let found = compile(&format!("egress: {{{egress}}}"), "{}")
            .err()
            .unwrap_or_default();
        assert_eq!(found.is_empty(), expected.is_empty(), "{egress}: {found}");
        assert!(found.contains(expected), "{egress}: {found}");
    }
}
