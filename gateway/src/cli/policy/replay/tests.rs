#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use super::*;
use crate::session::AskedGrant;
use crate::trial::read_lines;
use std::path::Path;

const LOG: &str = r#"
{"target":"a.test:443","outcome":"completed"}
{"target":"a.test:443","outcome":"cut","reason":"sni_mismatch"}
{"target":"b.test:443","outcome":"completed","address":"203.0.114.9:443"}
{"target":"b.test:443","outcome":"completed","address":"10.0.0.9:443"}
{"target":"c.test:443","outcome":"refused","reason":"host_not_allowed"}
{"target":"d.test:443","outcome":"refused","reason":"host_not_allowed"}
{"target":"e.test:443","outcome":"refused","reason":"special_address"}
{"target":"127.0.0.1:443","outcome":"refused","reason":"special_address"}
{"target":"f.test:443","outcome":"completed","wouldRefuse":"host_not_allowed"}
{"target":"g.test:80","outcome":"completed","kind":"request","method":"GET","path":"/v1/x?…"}
{"target":"g.test:80","outcome":"completed","kind":"request","method":"POST","path":"/v1/x"}
{"target":"h.test:443","outcome":"refused","reason":"credential_invalid"}
"#;

fn replayed(policy: &str) -> Difference {
    let policy =
        source::from_document(policy, Path::new("new.yaml"), &AskedGrant::default()).unwrap();
    let mut difference = Difference::default();
    let passed = read_lines(LOG.as_bytes(), None, |seen| difference.add(&policy, &seen)).unwrap();
    difference.unjudged = passed.unjudged;
    difference
}

fn counts(changes: &Changes) -> Vec<(&str, usize, &str)> {
    let rows = changes.targets.iter();
    rows.map(|(target, change)| (target.as_str(), change.records, change.reason.as_str()))
        .collect()
}

#[test]
fn a_request_in_the_plain_is_denied_where_tls_is_required() {
    let found =
        replayed("allowedHosts: ['g.test:80']\nrules:\n  - {host: 'g.test:80', tls: require}\n");
    let denied = counts(&found.newly_denied);
    assert!(
        denied.contains(&("g.test:80", 2, "tls_required")),
        "{denied:?}"
    );
}

#[test]
fn exactly_what_changes_is_told() {
    let found = replayed(
        "allowedHosts: [b.test, c.test, e.test, 127.0.0.1, 'g.test:80']\nrules:\n  - {host: 'g.test:80', http: {methods: \
         [GET], pathPrefixes: [/v1]}}\n",
    );
    assert_eq!(
        counts(&found.newly_denied),
        [
            ("a.test:443", 2, "host_not_allowed"),
            ("b.test:443", 1, "special_address"),
            ("f.test:443", 1, "host_not_allowed"),
            ("g.test:80", 1, "method_not_allowed"),
        ]
    );
    assert_eq!(
        counts(&found.newly_allowed),
        [
            ("127.0.0.1:443", 1, "special_address"),
            ("c.test:443", 1, "host_not_allowed")
        ]
    );
    assert_eq!(
        counts(&found.unknown),
        [(
            "e.test:443",
            1,
            "special_address, for answers which the record does not tell"
        )]
    );
    assert_eq!(
        (
            found.records,
            found.still_allowed,
            found.still_denied,
            found.unjudged
        ),
        (11, 2, 1, 1)
    );
    assert_eq!(found.outcome(), Outcome::Changed);
    let told = told(&found, 1);
    assert!(
        told.contains("newly denied: 5 record(s), 4 target(s)\n  a.test:443  2×  host_not_allowed"),
        "{told}"
    );
    assert!(told.contains("… and 3 more"), "{told}");
}

#[test]
fn report_mode_denies_nothing_but_says_what_it_would() {
    let found = replayed("allowedHosts: [a.test]\nmode: report\n");
    // What a name resolved to is not waved through.
    assert_eq!(
        counts(&found.newly_denied),
        [("b.test:443", 1, "special_address")]
    );
    assert!(found.would_refuse >= 4, "{found:?}");
    assert_eq!(
        found.still_denied, 1,
        "a literal of loopback has no rule of its own"
    );
}

#[test]
fn nothing_decided_otherwise_is_no_change() {
    let all = "defaultAction: allow\ndeniedHosts: [c.test, d.test, e.test, 127.0.0.1]\nallowedAddresses: []\n";
    let found = replayed(all);
    assert_eq!(
        counts(&found.newly_denied),
        [("b.test:443", 1, "special_address")]
    );
    assert_eq!(found.newly_allowed, Changes::default());
    assert_eq!(found.still_denied, 4);
}

/// What a name resolved to is in the record of its refusal: the same policy decides the same.
#[test]
fn a_refusal_by_answers_is_decided_again_by_the_answers() {
    let log = r#"
{"target":"a.test:443","outcome":"refused","reason":"host_denied","rule":"deniedHosts[0]","answers":["203.0.114.9"]}
{"target":"b.test:443","outcome":"refused","reason":"special_address","answers":["203.0.114.7","10.0.0.9"]}
{"target":"c.test:443","outcome":"refused","reason":"own_listener","answers":["127.0.0.1"]}
"#;
    let against = |policy: &str| {
        let policy =
            source::from_document(policy, Path::new("new.yaml"), &AskedGrant::default()).unwrap();
        let mut difference = Difference::default();
        read_lines(log.as_bytes(), None, |seen| difference.add(&policy, &seen)).unwrap();
        difference
    };
    let same = against("defaultAction: allow\ndeniedHosts: [203.0.114.9]\n");
    assert_eq!(same.outcome(), Outcome::Same, "{same:?}");
    assert_eq!((same.still_denied, same.unknown.records), (3, 0));
    let other = against(
        "{egress: {defaultAction: allow, allowedAddresses: [10.0.0.0/8, 127.0.0.0/8], ceiling: {addresses: [10.0.0.0/8, 127.0.0.0/8]}}}",
    );
    assert_eq!(
        counts(&other.newly_allowed),
        [
            ("a.test:443", 1, "host_denied"),
            ("b.test:443", 1, "special_address")
        ]
    );
    assert_eq!(other.still_denied, 1, "the gateway itself stays refused");
}

#[test]
fn what_a_server_may_read_instead_is_judged_again() {
    let log = r#"
{"target":"g.test:80","outcome":"completed","kind":"request","method":"POST","path":"/v1/x","alsoReadAs":[["GET","/v1/x"]]}
{"target":"g.test:80","outcome":"refused","reason":"method_not_allowed","kind":"request","method":"POST","path":"/v1/x?…","alsoReadAs":[["DELETE","/v1/x?…"]]}
{"target":"g.test:80","outcome":"refused","reason":"path_not_allowed","kind":"request","method":"GET","path":"/v1/x","alsoReadAs":[["GET","/admin"]]}
"#;
    let policy = "allowedHosts: ['g.test:80']\nrules:\n  - {host: 'g.test:80', http: {methods: [GET, POST], pathPrefixes: [/v1]}}\n";
    let same = source::from_document(policy, Path::new("p"), &AskedGrant::default()).unwrap();
    let mut difference = Difference::default();
    read_lines(log.as_bytes(), None, |seen| difference.add(&same, &seen)).unwrap();
    assert_eq!(difference.outcome(), Outcome::Same, "{difference:?}");
    assert_eq!((difference.still_allowed, difference.still_denied), (1, 2));
}

#[test]
fn first_bytes_are_judged_again() {
    let log = r#"
{"target":"a.test:443","outcome":"completed","kind":"tunnel","bytesUp":9,"bytesDown":9,"began":{"as":"tls","sni":"a.test"}}
{"target":"b.test:443","outcome":"completed","kind":"tunnel","bytesUp":9,"bytesDown":9,"began":{"as":"unseen"}}
{"target":"c.test:443","outcome":"cut","reason":"sni_mismatch","kind":"tunnel","bytesUp":0,"bytesDown":0,"began":{"as":"tls","sni":"evil.test"}}
{"target":"d.test:22","outcome":"completed","kind":"tunnel","bytesUp":9,"bytesDown":9,"began":{"as":"other"}}
{"target":"e.test:22","outcome":"completed","kind":"tunnel","bytesUp":9,"bytesDown":9}
{"target":"f.test:443","outcome":"cut","reason":"tls_malformed","kind":"tunnel","bytesUp":0,"bytesDown":0}
{"target":"g.test:443","outcome":"completed","kind":"tunnel","bytesUp":9,"bytesDown":9,"began":{"as":"tls","sni":"g.test","ech":true}}
{"target":"h.test:443","outcome":"completed","kind":"tunnel","bytesUp":0,"bytesDown":0}
"#;
    let against = |rules: &str| {
        let policy = format!("defaultAction: allow\nrules: [{rules}]\n");
        let policy =
            source::from_document(&policy, Path::new("p"), &AskedGrant::default()).unwrap();
        let mut difference = Difference::default();
        read_lines(log.as_bytes(), None, |seen| difference.add(&policy, &seen)).unwrap();
        difference
    };
    let why = "first bytes, which the record does not tell";
    let plain = against("");
    assert_eq!(plain.outcome(), Outcome::Unknown, "{plain:?}");
    let undecided = format!("2 not decided again: 2× {why}");
    assert_eq!(plain.undecided(), Some(undecided));
    let told = plain.to_json();
    assert_eq!(told["outcome"], "unknown");
    assert_eq!(told["unknown"]["reasons"][why], 2);
    assert_eq!((plain.still_allowed, plain.still_denied), (4, 2));
    let unknown = [("b.test:443", 1, why), ("e.test:22", 1, why)];
    assert_eq!(counts(&plain.unknown), unknown);
    let strict = against("{host: '*.test:22', tls: require}, {host: '*.test:443', ech: deny}");
    assert_eq!(
        counts(&strict.newly_denied),
        [
            ("d.test:22", 1, "tls_required"),
            ("g.test:443", 1, "ech_denied")
        ]
    );
    let lax = against("{host: '*.test', tls: opaque}");
    assert_eq!(
        counts(&lax.newly_allowed),
        [
            ("c.test:443", 1, "sni_mismatch"),
            ("f.test:443", 1, "tls_malformed")
        ]
    );
    assert_eq!((lax.still_allowed, lax.unknown.records), (6, 0));
}
