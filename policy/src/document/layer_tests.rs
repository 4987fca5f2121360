//! Documents of several authors: what stands above binds what is laid over it.
#![allow(clippy::unwrap_used, clippy::panic)]

use crate::{
    Admission, Denial, Grant, Hello, HostName, Origin, TlsRule, decide, decide_name, explain,
    testing::{ceiling, document, target},
    text::Faults,
};
use std::sync::Arc;

/// An operator's, a capability's and a session's `egress` block, laid over each other.
fn laid(operator: &str, capability: &str, session: &str) -> Result<Arc<Grant>, String> {
    let block = |egress: &str| document(&format!("egress: {{{egress}}}"));
    let merged = block(operator)
        .lay(&block(capability), Origin::Capability)
        .lay(&block(session), Origin::Session);
    let mut faults = Faults::default();
    let grant = merged.compile(&ceiling("{}"), &mut faults);
    grant.map(Arc::new).ok_or_else(|| faults.to_string())
}

const OPERATOR: &str = "deniedHosts: [b.test], allowedHosts: [a.test, 'c.test:8080'], rules: [{host: 'c.test:8080', http: {methods: [GET]}}]";
const SESSION: &str = "deniedHosts: [a.test], allowedHosts: ['d.test:8080'], rules: [{host: 'd.test:8080', http: {methods: [GET]}}]";

#[test]
fn report_mode_lifts_what_its_author_says_and_what_is_laid_over_it() {
    let reported = |grant: &Arc<Grant>, authority: &str| {
        let permit = decide(grant, &target(authority)).map_err(|refusal| refusal.denial)?;
        Ok(permit.reported().map(|refusal| refusal.denial))
    };
    let deleted = |grant: &Arc<Grant>, authority: &str| {
        let permit = decide(grant, &target(authority)).unwrap();
        let judged = permit.judge_http("DELETE", "/");
        // A tunnel keeps to what can be judged exactly where a request is held to it.
        assert_eq!(permit.keeps_to_requests(), judged.is_err(), "{authority}");
        judged
            .map(|reported| reported.map(|refusal| refusal.denial))
            .map_err(|refusal| refusal.denial)
    };
    let capability = "deniedHosts: [e.test]";
    let own = laid(OPERATOR, capability, &format!("mode: report, {SESSION}")).unwrap();
    for (authority, expected) in [
        ("b.test:443", Err(Denial::HostDenied)),
        ("e.test:443", Err(Denial::HostDenied)),
        ("a.test:443", Ok(Some(Denial::HostDenied))),
        ("x.test:443", Ok(Some(Denial::HostNotAllowed))),
        ("c.test:8080", Ok(None)),
    ] {
        assert_eq!(reported(&own, authority), expected, "{authority}");
    }
    assert_eq!(deleted(&own, "c.test:8080"), Err(Denial::MethodNotAllowed));
    assert_eq!(
        deleted(&own, "d.test:8080"),
        Ok(Some(Denial::MethodNotAllowed))
    );
    let name = HostName::parse("b.test").unwrap();
    assert!(decide_name(&own, &name).is_err());
    // The operator's own lifts everybody's, said once or twice; and a session may keep to all of it again.
    let by_operator = format!("mode: report, {OPERATOR}");
    for session in [SESSION.to_owned(), format!("mode: report, {SESSION}")] {
        let all = laid(&by_operator, capability, &session).unwrap();
        for authority in ["a.test:443", "b.test:443", "e.test:443"] {
            assert_eq!(reported(&all, authority), Ok(Some(Denial::HostDenied)));
        }
        assert_eq!(
            deleted(&all, "c.test:8080"),
            Ok(Some(Denial::MethodNotAllowed))
        );
    }
    let enforced = laid(
        &by_operator,
        capability,
        &format!("mode: enforce, {SESSION}"),
    )
    .unwrap();
    for authority in ["a.test:443", "b.test:443", "e.test:443"] {
        assert_eq!(reported(&enforced, authority), Err(Denial::HostDenied));
    }
}

#[test]
fn an_explanation_says_whose_the_rule_is() {
    let grant = laid(OPERATOR, "allowedHosts: [e.test]", SESSION).unwrap();
    for (authority, origin) in [
        ("b.test:443", Some("operator")),
        ("a.test:443", Some("session")),
        ("e.test:443", Some("capability")),
        ("d.test:8080", Some("session")),
        ("x.test:443", None),
    ] {
        let told = explain(&grant, &target(authority), &Admission::default());
        assert_eq!(told.origin, origin, "{authority}: {told:?}");
    }
}

#[test]
fn a_rule_that_asks_for_more_than_one_above_it_is_refused() {
    let operator = "allowedHosts: ['*.c.test:8080', '*.e.test:*'], rules: [{host: '*.c.test:8080', http: {methods: [GET], pathPrefixes: [/v1]}}, {host: '*.e.test', tls: require, ech: {publicNames: [p.test]}}]";
    for (rule, attribute) in [
        ("{host: 'x.c.test:8080', http: {methods: [DELETE]}}", "http"),
        ("{host: '*.c.test:8080', http: {pathPrefixes: [/]}}", "http"),
        ("{host: x.e.test, tls: opaque}", "tls"),
        ("{host: 'x.e.test:8443', tls: auto}", "tls"),
        ("{host: x.e.test, ech: {publicNames: [q.test]}}", "ech"),
    ] {
        let rules = format!("rules: [{rule}]");
        for (capability, session) in [("", rules.as_str()), (rules.as_str(), "")] {
            let Err(faults) = laid(operator, capability, session) else {
                panic!("{rule}: accepted");
            };
            let told = format!("{attribute} asks for more than rules[");
            assert!(faults.contains(&told), "{rule}: {faults}");
        }
        // One author may say one thing of a pattern and another of a name below it; where TLS is not looked at, that also of its hello.
        let rule = rule.replace("opaque", "opaque, ech: outer");
        let one = operator.replace("rules: [", &format!("rules: [{rule}, "));
        if !rule.contains("'*.c.test") {
            assert!(laid(&one, "", "").is_ok(), "{rule}");
        }
    }
    for rule in [
        "{host: 'x.c.test:8080', http: {methods: [GET], pathPrefixes: [/v1/x]}}",
        "{host: x.e.test, tls: require, ech: deny}",
        "{host: x.e.test, ech: outer}",
    ] {
        let laid = laid(operator, "", &format!("rules: [{rule}]"));
        assert!(laid.is_ok(), "{rule}: {:?}", laid.err());
    }
}

#[test]
fn where_rules_of_two_authors_meet_both_hold() {
    let operator = "allowedHosts: ['*.c.test:8080', '*.e.test:*'], rules: [{host: 'x.c.test:8080', http: {methods: [GET, PUT]}}, {host: 'x.e.test', tls: require, ech: {publicNames: [p.test, q.test]}}]";
    let session = "rules: [{host: '*.c.test:8080', http: {methods: [GET, DELETE], pathPrefixes: [/v1]}}, {host: '*.e.test:8443', tls: opaque}, {host: '*.e.test:443', ech: {publicNames: [q.test, r.test]}}]";
    let grant = laid(operator, "", session).unwrap();
    let permit = |authority: &str| decide(&grant, &target(authority)).unwrap();
    for (method, path, expected) in [
        ("GET", "/v1/x", Ok(())),
        ("GET", "/v2", Err(Denial::PathNotAllowed)),
        ("PUT", "/v1/x", Err(Denial::MethodNotAllowed)),
        ("DELETE", "/v1/x", Err(Denial::MethodNotAllowed)),
    ] {
        let judged = permit("x.c.test:8080").judge_http(method, path);
        let judged = judged.map(drop).map_err(|refusal| refusal.denial);
        assert_eq!(judged, expected, "{method} {path}");
    }
    assert_eq!(permit("x.e.test:8443").tls(), TlsRule::Require);
    assert_eq!(permit("y.e.test:8443").tls(), TlsRule::Opaque);
    for (sni, expected) in [
        ("x.e.test", Ok(())),
        ("q.test", Ok(())),
        ("p.test", Err(Denial::SniMismatch)),
        ("r.test", Err(Denial::SniMismatch)),
    ] {
        let hello = Hello {
            sni: Some(sni.into()),
            ech: true,
            ech_draft: false,
        };
        assert_eq!(
            permit("x.e.test:443").judge_hello(&hello),
            expected,
            "{sni}"
        );
    }
}

#[test]
fn an_opaque_rule_that_lifts_nothing_of_another_authors_is_accepted() {
    for (operator, session) in [
        // It is for another port,
        (
            "{host: 'x.e.test:8443', ech: deny}",
            "{host: 'x.e.test:8444', tls: opaque}",
        ),
        // nothing is asked of ECH there,
        (
            "{host: x.e.test, ech: outer}",
            "{host: x.e.test, tls: opaque}",
        ),
        // or what stands beside it of TLS holds by itself.
        (
            "{host: x.e.test, tls: auto, ech: deny}",
            "{host: '*.e.test', tls: opaque}",
        ),
        (
            "{host: x.e.test, tls: opaque}",
            "{host: '*.e.test', tls: auto, ech: deny}",
        ),
    ] {
        let operator = format!("allowedHosts: ['*.e.test:*'], rules: [{operator}]");
        let laid = laid(&operator, "", &format!("rules: [{session}]"));
        assert!(laid.is_ok(), "{session}: {:?}", laid.err());
    }
}

#[test]
fn what_the_word_of_whoever_stands_above_makes_vain_is_refused() {
    for (rule, told) in [
        (
            "{host: '*.e.test', ech: deny}",
            "rules[1] \"*.e.test\": ech cannot be enforced in an opaque tunnel, which rules[0] \"x.e.test\" asks for",
        ),
        (
            "{host: '*.e.test:8080', http: {methods: [GET]}}",
            "rules[1] \"*.e.test:8080\": http cannot be enforced in an opaque tunnel",
        ),
    ] {
        let operator = "allowedHosts: ['*.e.test:*'], rules: [{host: x.e.test, tls: opaque}]";
        let faults = laid(operator, "", &format!("rules: [{rule}]")).unwrap_err();
        assert!(faults.contains(told), "{rule}: {faults}");
        // And who is laid over one's methods is told what it is that cannot stand.
        let operator = format!("allowedHosts: ['*.e.test:8080'], rules: [{rule}]");
        let faults = laid(&operator, "", "rules: [{host: x.e.test, tls: opaque}]").unwrap_err();
        assert!(faults.contains("\"x.e.test\": tls: opaque "), "{faults}");
    }
}

#[test]
fn an_opaque_rule_opens_no_way_around_the_ech_of_another_author() {
    for (operator, session) in [
        ("*.e.test", "x.e.test"),
        ("x.e.test", "*.e.test:8443"),
        ("x.e.test:8443", "x.e.test"),
    ] {
        let operator =
            format!("allowedHosts: ['*.e.test:*'], rules: [{{host: '{operator}', ech: deny}}]");
        let opaque = format!("rules: [{{host: '{session}', tls: opaque}}]");
        let told = laid(&operator, "", &opaque).unwrap_err();
        assert!(told.contains("would lift the ech"), "{told}");
        assert!(laid(&operator, &opaque, "").is_err(), "{session}");
        // Nor does anybody mind what is beside it.
        let beside = "allowedHosts: ['x.f.test:*'], rules: [{host: 'x.f.test', tls: opaque}]";
        assert!(laid(&operator, "", beside).is_ok());
    }
}
