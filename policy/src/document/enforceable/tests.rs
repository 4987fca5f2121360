//! What compiles without a fault can be kept, and what could be kept compiles.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use crate::{
    Ceiling, EchRule, Grant, Limits, Mode, Origin, TlsRule, decide,
    testing::{ceiling, document, target},
    text::{Fault, Faults},
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

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
    let ech = prop::sample::select(vec![
        "",
        "",
        ", ech: outer",
        ", ech: deny",
        ", ech: {publicNames: [p.test]}",
    ]);
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
fn compiled(blocks: [String; 3], ceiling: &Ceiling) -> (Arc<Grant>, Faults) {
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
    (Arc::new(grant), faults)
}

/// A host and port that is allowed, with something in force that nobody could keep.
fn lost(grant: &Arc<Grant>) -> Option<String> {
    let ports = |host: &str| ASKED_PORTS.map(|port| format!("{host}:{port}"));
    ASKED.into_iter().flat_map(ports).find(|asked| {
        decide(grant, &target(asked)).is_ok_and(|permit| {
            let asked = permit.ech().any(|rule| *rule != EchRule::Outer);
            let opaque = permit.tls() == TlsRule::Opaque;
            let bound = permit.http().next().is_some();
            (asked && opaque) || (bound && permit.tls() != TlsRule::Auto)
        })
    })
}

/// Is it told of a rule that it cannot be kept?
fn is_of_keeping(fault: &Fault) -> bool {
    let told = [
        "cannot be enforced",
        "would lift the ech",
        "leaves nothing that could be held",
    ];
    told.iter().any(|told| fault.message.contains(told))
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
        let refused = faults.errors.iter().any(is_of_keeping);
        let lost = lost(&grant);
        prop_assert_eq!(refused, lost.is_some(), "{:?}: {}", lost, faults);
    }
}

/// One author's `rules`: each its host, and what it says by key.
type Told = Vec<(String, BTreeMap<String, String>)>;

fn told() -> impl Strategy<Value = Told> {
    let says = |values: &'static [&'static str]| prop::option::of(prop::sample::select(values));
    let tls = says(&["require", "auto", "opaque"]);
    let ech = says(&["outer", "deny", "{publicNames: [p.test]}"]);
    let http = says(&["{}", "{methods: [GET]}"]);
    let rules = prop::collection::vec((entry(), tls, ech, http), 0..4);
    rules.prop_map(|rules| {
        let mut hosts = BTreeSet::new();
        let mut told = Told::new();
        for (host, tls, ech, http) in rules {
            // Two for one host and its ports are another matter.
            if !hosts.insert(host.trim_end_matches(":*").to_owned()) {
                continue;
            }
            let says = [("tls", tls), ("ech", ech), ("http", http)].into_iter();
            let says = says.filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())));
            told.push((host, says.collect()));
        }
        told
    })
}

fn written(rules: &Told) -> Vec<String> {
    let rule = |(host, says): &(String, BTreeMap<String, String>)| {
        let says = says.iter().map(|(key, value)| format!(", {key}: {value}"));
        format!("{{host: '{host}'{}}}", says.collect::<String>())
    };
    rules.iter().map(rule).collect()
}

/// Where each rule stands that is left when they are laid over each other: what says the same as one before is left out.
fn merged(authors: &[Told; 3]) -> Vec<(usize, usize)> {
    let mut places: Vec<(usize, usize)> = Vec::new();
    for (author, rules) in authors.iter().enumerate() {
        for (index, rule) in rules.iter().enumerate() {
            let same = |at: &(usize, usize)| authors[at.0][at.1] == *rule;
            if !places.iter().any(same) {
                places.push((author, index));
            }
        }
    }
    places
}

/// The place in `rules[0] …`, among all.
fn place(text: &str) -> usize {
    let (_, rest) = text.split_once("rules[").unwrap();
    rest.split(']').next().unwrap().parse().unwrap()
}

/// The rule that a fault is about.
fn at_fault(authors: &[Told; 3], fault: &Fault) -> (usize, usize) {
    let places = merged(authors);
    let named = places[place(&fault.message)];
    if fault.message.starts_with("rules[") {
        return named;
    }
    // It is one that is laid over the rule it names.
    let index = place(&fault.path);
    let host = fault.message.split('"').nth(1).unwrap();
    let tls = fault.hint.as_ref().unwrap().split([' ']).nth(2);
    let is_it = |at: &&(usize, usize)| {
        let (own, says) = &authors[at.0][at.1];
        let same = own.trim_end_matches(":*") == host.trim_end_matches(":*");
        at.0 > named.0 && at.1 == index && same && says.get("tls").map(String::as_str) == tls
    };
    *places.iter().find(is_it).unwrap()
}

/// Do what is told of a rule; whose is changed by it?
fn follow(authors: &mut [Told; 3], fault: &Fault) -> usize {
    let hint = fault.hint.as_deref().unwrap();
    let at = at_fault(authors, fault);
    if let Some(host) = hint.strip_prefix("name the plain HTTP port alone: host: ") {
        authors[at.0][at.1].0 = host.trim_matches('"').to_owned();
        return at.0;
    }
    if let Some(attribute) = hint.strip_prefix("leave ") {
        let (key, _) = attribute.split_once(": ").unwrap();
        authors[at.0][at.1].1.remove(key).unwrap();
        return at.0;
    }
    let (_, rest) = hint.split_once("write ").unwrap();
    let (attribute, rest) = rest.split_once(" in egress.").unwrap();
    let (key, value) = attribute.split_once(": ").unwrap();
    let (author, index) = merged(authors)[place(rest)];
    let says = &mut authors[author][index].1;
    let before = says.insert(key.to_owned(), value.to_owned());
    assert_ne!(before.as_deref(), Some(value), "it is there: {hint}");
    author
}

proptest! {
    /// Whoever does what is told of rules that cannot be kept has rules in the end that can.
    #[test]
    fn following_what_is_told_leads_to_rules_that_can_be_kept(
        allowed in prop::collection::vec(entry(), 1..4),
        operator in told(),
        capability in told(),
        session in told(),
    ) {
        let mut authors = [operator, capability, session];
        let (mut followed, mut tightened) = (Vec::new(), false);
        loop {
            let over = |rules: &[String]| format!("egress: {{rules: [{}]}}", rules.join(", "));
            let [operator, capability, session] = authors.each_ref().map(written);
            let blocks = [block(Some(&allowed), &operator), over(&capability), over(&session)];
            let (_, faults) = compiled(blocks, &ceiling("{}"));
            let mut others = faults.errors.iter().filter(|fault| !is_of_keeping(fault));
            if faults.errors.iter().any(|fault| !is_of_keeping(fault)) {
                // Who is bound by what an author above has changed is told so; and a rule that said what one above said is no longer left out.
                let told = ["asks for more than", "say different things"];
                let bound = |fault: &Fault| tightened && told.iter().any(|told| fault.message.contains(told));
                prop_assert!(followed.is_empty() || others.all(bound), "{:?} led to {}", followed, faults);
                break;
            }
            let Some(fault) = faults.errors.first() else { break };
            prop_assert!(followed.len() < 50, "nowhere lead {:?}", followed);
            tightened |= follow(&mut authors, fault) < 2;
            followed.push(fault.to_string());
        }
    }
}

#[test]
fn who_can_let_plain_http_pass_is_told() {
    let laid = |operator: &str, session: &str| {
        let operator = format!("egress: {{allowedHosts: ['*.a.test:*'], rules: [{operator}]}}");
        let session = format!("egress: {{rules: [{session}]}}");
        let blocks = [operator, "egress: {}".to_owned(), session];
        let (_, faults) = compiled(blocks, &ceiling("{}"));
        let mut hints = faults.errors.into_iter().map(|fault| fault.hint.unwrap());
        let first = hints.next().unwrap();
        assert_eq!(hints.next(), None, "{first}");
        first
    };
    for (operator, session, told) in [
        // What stands there already is no help.
        (
            "{host: '*.a.test', tls: require}",
            "{host: 'x.a.test:80', http: {methods: [GET]}}",
            "only the operator can let plain HTTP pass there: write tls: auto in egress.rules[0] \"*.a.test\"; or leave http out",
        ),
        (
            "{host: '*.a.test:443', tls: require}",
            "{host: x.a.test, http: {methods: [GET]}}",
            "name the plain HTTP port alone: host: \"x.a.test:80\"",
        ),
        (
            "",
            "{host: x.a.test, http: {methods: [GET]}}",
            "name the plain HTTP port alone: host: \"x.a.test:80\"",
        ),
        (
            "",
            "{host: 'x.a.test:443', http: {methods: [GET]}}",
            "write tls: auto in egress.rules[0] \"x.a.test:443\"",
        ),
        (
            "",
            "{host: '*.a.test:80', tls: require}, {host: 'x.a.test:80', http: {methods: [GET]}}",
            "write tls: auto in egress.rules[1] \"x.a.test:80\"",
        ),
        (
            "",
            "{host: '*.a.test:80', http: {methods: [GET]}}, {host: x.a.test, tls: require}",
            "write http: {} in egress.rules[1] \"x.a.test\", if no requests are meant there; else tls: auto in its place",
        ),
        (
            "{host: x.a.test, tls: opaque}",
            "{host: '*.a.test', ech: {publicNames: [p.test]}}",
            "write tls: auto in egress.rules[1] \"*.a.test\"",
        ),
        (
            "",
            "{host: '*.a.test', ech: {publicNames: [p.test]}}, {host: x.a.test, tls: opaque}",
            "write ech: outer in egress.rules[1] \"x.a.test\", if any bytes are meant there; else tls: auto in its place",
        ),
    ] {
        assert_eq!(laid(operator, session), told, "{operator} {session}");
    }
}
