//! What compiles without a fault can be kept, and what could be kept compiles.
#![allow(clippy::unwrap_used)]

use crate::{
    Ceiling, EchRule, Grant, Limits, Mode, Origin, TlsRule, decide,
    testing::{ceiling, document, target},
    text::Faults,
};
use proptest::prelude::*;
use std::sync::Arc;

const HOSTS: [&str; 8] = [
    "a.test",
    "*.a.test",
    "b.a.test",
    "*.b.a.test",
    "c.b.a.test",
    "8.8.0.0/16",
    "8.8.8.0/24",
    "8.8.8.8",
];
/// One of each kind that those tell apart.
const ASKED: [&str; 8] = [
    "a.test",
    "b.a.test",
    "q.a.test",
    "c.b.a.test",
    "q.b.a.test",
    "8.8.1.1",
    "8.8.8.1",
    "8.8.8.8",
];
const PORTS: [&str; 5] = ["", ":*", ":80", ":443", ":8080"];
const ASKED_PORTS: [u16; 4] = [80, 443, 8080, 9];

fn entry() -> impl Strategy<Value = String> {
    let host = prop::sample::select(HOSTS.to_vec());
    let ports = prop::sample::select(PORTS.to_vec());
    (host, ports).prop_map(|(host, ports)| format!("{host}{ports}"))
}

fn rule() -> impl Strategy<Value = String> {
    let tls = prop::sample::select(vec!["", ", tls: require", ", tls: auto", ", tls: opaque"]);
    let ech = prop::sample::select(vec!["", "", ", ech: outer", ", ech: deny"]);
    let http = prop::sample::select(vec!["", "", ", http: {}", ", http: {methods: [GET]}"]);
    (entry(), tls, ech, http)
        .prop_map(|(host, tls, ech, http)| format!("{{host: '{host}'{tls}{ech}{http}}}"))
}

/// The block of one author; `allowedHosts` is one author's alone.
fn block(allowed: Option<&[String]>, rules: &[String]) -> String {
    let allowed = allowed.map_or_else(
        || "defaultAction: allow, ".to_owned(),
        |list| format!("allowedHosts: {list:?}, "),
    );
    format!("egress: {{{allowed}rules: [{}]}}", rules.join(", "))
}

/// What would be decided by the document, faulty or not, and its faults.
fn compiled(blocks: [String; 3], ceiling: &Ceiling) -> (Arc<Grant>, String) {
    let [operator, capability, session] = blocks.map(|block| document(&block));
    let merged = operator
        .lay(&capability, Origin::Capability)
        .lay(&session, Origin::Session);
    let mut faults = Faults::default();
    let egress = merged.egress.compile(ceiling, &mut faults);
    let grant = Grant {
        egress: egress.into(),
        services: Default::default(),
        expose: Default::default(),
        limits: Limits::default(),
        mode: Mode::Enforce,
        also: None,
    };
    (Arc::new(grant), faults.to_string())
}

/// A host and port that is allowed, with something in force that nobody could keep.
fn lost(grant: &Arc<Grant>) -> Option<String> {
    let ports = |host: &str| ASKED_PORTS.map(|port| format!("{host}:{port}"));
    ASKED.into_iter().flat_map(ports).find(|asked| {
        decide(grant, &target(asked)).is_ok_and(|permit| {
            let denied = permit.ech().any(|rule| *rule == EchRule::Deny);
            let opaque = permit.tls() == TlsRule::Opaque;
            let bound = permit.http().next().is_some();
            (denied && opaque) || (bound && permit.tls() != TlsRule::Auto)
        })
    })
}

fn rules() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(rule(), 0..4)
}

proptest! {
    #[test]
    fn exactly_what_can_be_kept_is_accepted(
        allowed in prop::option::of(prop::collection::vec(entry(), 1..4)),
        operator in rules(),
        capability in prop::option::of(rules()),
        session in prop::option::of(rules()),
    ) {
        let (capability, session) = (capability.unwrap_or_default(), session.unwrap_or_default());
        let over = |rules: &[String]| format!("egress: {{rules: [{}]}}", rules.join(", "));
        let blocks = [block(allowed.as_deref(), &operator), over(&capability), over(&session)];
        let (grant, faults) = compiled(blocks, &ceiling("{}"));
        let kept = ["cannot be enforced", "would lift the ech", "leaves nothing that could be held"];
        let refused = kept.iter().any(|told| faults.contains(told));
        let lost = lost(&grant);
        prop_assert_eq!(refused, lost.is_some(), "{:?}: {}", lost, faults);
    }
}
