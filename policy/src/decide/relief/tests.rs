//! What is said of each kind of first bytes, as the tools show it.
#![allow(clippy::unwrap_used)]

use crate::{
    Admission, FirstBytes, Hello, Supposed, explain_supposing,
    testing::{compile, target},
};
use std::net::IpAddr;

#[test]
fn a_tunnel_that_is_cut_is_told_what_would_let_it_pass() {
    let grant = compile(
        "egress: {mode: report, allowedHosts: ['*.test:*', 9.9.9.9], deniedHosts: [], rules: [{host: '*.a.test', ech: deny}, {host: 'b.a.test:443', ech: {publicNames: [p.test]}}, \
         {host: 'c.a.test:443', ech: outer}, {host: 'd.a.test:22', tls: require, ech: deny}]}",
        "{}",
    )
    .unwrap();
    let methods = compile(
        "egress: {allowedHosts: ['a.test:80'], rules: [{host: a.test, http: {methods: [GET]}}]}",
        "{}",
    )
    .unwrap();
    let tls = |sni: Option<&str>, ech| {
        FirstBytes::Tls(Hello {
            sni: sni.map(Into::into),
            ech,
            ech_draft: false,
        })
    };
    for (grant, asked, began, rule, told) in [
        (
            &grant,
            "a.test:443",
            FirstBytes::Other,
            "tls \"require\"",
            "add {host: \"a.test:443\", tls: auto} to egress.rules",
        ),
        (
            &grant,
            "8.8.8.8:443",
            FirstBytes::Other,
            "tls \"require\"",
            "add \"8.8.8.8\" to egress.allowedHosts; then add {host: \"8.8.8.8:443\", tls: auto} to egress.rules",
        ),
        (
            &grant,
            "a.test:22",
            tls(Some("b.test"), false),
            "tls \"auto\"",
            "ask for b.test:22 itself; or, for any bytes, add {host: \"a.test:22\", tls: opaque} to egress.rules",
        ),
        (
            &grant,
            "d.a.test:22",
            tls(None, false),
            "rules[3] \"d.a.test:22\"",
            "name the host in the hello (SNI); or, for any bytes, write tls: opaque in egress.rules[3] \"d.a.test:22\"; \
             and write ech: outer in egress.rules[3] \"d.a.test:22\"",
        ),
        (
            &grant,
            "x.a.test:443",
            tls(Some("x.a.test"), true),
            "rules[0] \"*.a.test\"",
            "add {host: \"x.a.test:443\", ech: outer} to egress.rules",
        ),
        (
            &grant,
            "a.test:443",
            tls(Some("q.test"), true),
            "tls \"require\"",
            "add {host: \"a.test:443\", ech: {publicNames: [q.test]}} to egress.rules",
        ),
        (
            &grant,
            "b.a.test:443",
            tls(Some("q.test"), true),
            "tls \"require\"",
            "add \"q.test\" to egress.rules[1] \"b.a.test:443\": ech.publicNames",
        ),
        (
            &grant,
            "c.a.test:443",
            tls(Some("q.test"), true),
            "tls \"require\"",
            "write ech: {publicNames: [q.test]} in egress.rules[2] \"c.a.test:443\"",
        ),
        (
            &methods,
            "a.test:80",
            FirstBytes::Other,
            "rules[0] \"a.test\"",
            "only plain HTTP/1 can be held to methods and paths; for other bytes, add {host: \"a.test:80\", http: {}} \
             to egress.rules",
        ),
    ] {
        let supposed = Supposed {
            addresses: Some(vec![IpAddr::from([93, 184, 215, 14])]),
            began: Some(began),
            ..Supposed::default()
        };
        let shown = explain_supposing(grant, &target(asked), &Admission::default(), &supposed);
        assert_eq!(shown.outcome, "deny", "{asked}");
        assert_eq!(shown.rule.as_deref(), Some(rule), "{asked}");
        assert_eq!(shown.hint.as_deref(), Some(told), "{asked}");
    }
}
