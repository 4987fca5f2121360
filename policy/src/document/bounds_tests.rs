//! What the ceiling and the rules refuse.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use super::*;
use crate::{
    Denial, ServiceName, ServiceUrl, decide,
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
        // The closest rule says what the first bytes are,
        (
            "allowedHosts: ['*.a.test:*'], rules: [{host: '*.a.test', tls: require}, {host: 'x.a.test:8080', tls: auto, http: {methods: [GET]}}]",
            "",
        ),
        (
            "allowedHosts: ['*.a.test:*'], rules: [{host: '*.a.test:8080', tls: auto, http: {methods: [GET]}}, {host: x.a.test, tls: require}]",
            "rules[0] \"*.a.test:8080\": http cannot be enforced inside the TLS that tls: require asks for",
        ),
        // on port 443 too.
        (
            "allowedHosts: [a.test], rules: [{host: a.test, tls: auto, http: {methods: [GET]}}]",
            "",
        ),
        // Any method and any path bound nothing, and take back what a wider rule says.
        (
            "allowedHosts: [a.test], rules: [{host: a.test, http: {}}]",
            "",
        ),
        (
            "allowedHosts: ['*.a.test:8080'], rules: [{host: '*.a.test', http: {methods: [GET]}}, {host: x.a.test, tls: require, http: {}}]",
            "",
        ),
        (
            "allowedHosts: [10.1.0.0/16], rules: [{host: '10.0.0.0/8:443', ech: deny}, {host: 10.1.2.0/24, tls: opaque}]",
            "rules[0] \"10.0.0.0/8:443\": ech cannot be enforced in an opaque tunnel, which rules[1] \"10.1.2.0/24\" asks for",
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
        let found = compile(
            &format!("egress: {{{egress}}}"),
            "{addresses: [10.0.0.0/8]}",
        )
        .err()
        .unwrap_or_default();
        assert_eq!(found.is_empty(), expected.is_empty(), "{egress}: {found}");
        assert!(found.contains(expected), "{egress}: {found}");
    }
}

#[test]
fn a_list_of_sockets_holds_for_whoever_names_a_service() {
    for (url, ceiling, expected) in [
        ("unix:///run/docker.sock", "{}", ""),
        (
            "unix:///run/docker.sock",
            "{sockets: []}",
            "service \"db\": /run/docker.sock is outside the operator's ceiling.sockets",
        ),
        ("unix:///run/app/a.sock", "{sockets: [/run/app/]}", ""),
        ("unix:///run/db.sock", "{sockets: [/run/db.sock]}", ""),
        (
            "unix:///run/apple/a.sock",
            "{sockets: [/run/app/]}",
            "outside the operator's ceiling.sockets",
        ),
        ("tcp://127.0.0.1:1", "{sockets: []}", ""),
    ] {
        let found = compile(&format!("services: {{db: '{url}'}}"), ceiling)
            .err()
            .unwrap_or_default();
        assert_eq!(found.is_empty(), expected.is_empty(), "{url}: {found}");
        assert!(found.contains(expected), "{url}: {found}");
    }
}

#[test]
fn a_bounded_author_names_no_socket_that_is_not_listed() {
    let docker = ServiceUrl::parse("unix:///run/docker.sock").unwrap();
    let refused = |ceiling: &Ceiling, url, author| {
        let admitted = ceiling.admits_service(url, author);
        admitted.err().map(|(_, key)| key)
    };
    let open = ceiling("{}");
    assert_eq!(refused(&open, &docker, Author::Operator), None);
    assert_eq!(
        refused(&open, &docker, Author::Bounded),
        Some("ceiling.sockets")
    );
    // With a list, compiling judges everybody's.
    let listed = ceiling("{sockets: [/run/docker.sock]}");
    assert_eq!(refused(&listed, &docker, Author::Bounded), None);
    let local = ServiceUrl::parse("tcp://169.254.1.1:1").unwrap();
    for author in [Author::Operator, Author::Bounded] {
        assert_eq!(refused(&open, &local, author), Some("ceiling.addresses"));
    }
}

#[test]
fn what_a_service_turns_out_to_be_is_bounded_too() {
    let within = ceiling("{addresses: [10.0.0.0/8, 169.254.0.0/16, 100.100.100.200]}");
    let bounded = within.within_for(Author::Bounded);
    for (address, refused) in [
        ("93.184.216.34", None),
        ("10.1.2.3", None),
        ("::ffff:10.1.2.3", None),
        ("127.0.0.1", Some(Denial::SpecialAddress)),
        ("::1", Some(Denial::SpecialAddress)),
        // A range around it does not name it.
        ("169.254.169.254", Some(Denial::MetadataAddress)),
        ("169.254.1.1", None),
        ("100.100.100.200", None),
    ] {
        let address = address.parse().unwrap();
        assert_eq!(bounded.admits(address).err(), refused, "{address}");
    }
    let operators = within.within_for(Author::Operator);
    assert_eq!(operators.admits("127.0.0.1".parse().unwrap()), Ok(()));
    assert_eq!(operators.sockets, None);
    assert_eq!(bounded.sockets.as_deref(), Some(&[][..]));
    let document = document("services: {db: 'tls://db.test:1'}");
    let grant = document.compile(&within, &mut Faults::default());
    let (mut grant, name) = (grant.unwrap(), ServiceName::parse("db").unwrap());
    assert_eq!(grant.service(&name).unwrap().within, operators);
    grant.bound_service(&name, bounded.clone());
    assert_eq!(grant.service(&name).unwrap().within, bounded);
}
