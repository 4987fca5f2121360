#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use super::*;

/// `line:column` and the differences of every expectation that is not met.
fn failing(source: &str) -> Vec<(String, Vec<String>)> {
    let suite = read(source, Path::new("suite.yaml")).unwrap();
    let results = suite.expectations.iter().map(|expectation| {
        let tried = Tried::of(&suite.policy, expectation);
        (expectation.position.to_string(), tried.differences)
    });
    results
        .filter(|(_, differences)| !differences.is_empty())
        .collect()
}

const POLICY: &str = "policy:
  allowedHosts: [api.a.test, '*.w.test:443', 'plain.a.test:80']
  deniedHosts: [no.w.test]
  rules:
    - {host: 'plain.a.test:80', http: {methods: [GET], pathPrefixes: [/v1/]}}
tests:
";

#[test]
fn what_holds_holds() {
    let tests = "  - {target: api.a.test, expect: allow, rule: 'allowedHosts[0]'}
  - {target: 'API.a.test.:80', expect: allow, rule: api.a.test}
  - {target: 'x.w.test:443', expect: allow, rule: 'allowedHosts[1] \"*.w.test:443\"', addresses: [203.0.114.1]}
  - {target: 'no.w.test:443', expect: deny, reason: host_denied, rule: 'deniedHosts[0]'}
  - {target: 'x.w.test:80', expect: deny, reason: port_not_allowed}
  - {target: 'w.test:443', expect: deny, reason: host_not_allowed}
  - {target: 'x.w.test:443', expect: deny, reason: special_address, addresses: [203.0.114.1, '::ffff:10.0.0.1']}
  - {target: 'x.w.test:443', expect: deny, reason: dns_failed, addresses: []}
  - {target: 127.1, expect: deny, reason: malformed_target}
  - {target: 'plain.a.test:80', expect: allow, path: '/v1/x?q=1'}
  - {target: 'plain.a.test:80', expect: deny, method: POST, path: /v1/x, reason: method_not_allowed}
  - {target: 'plain.a.test:80', expect: deny, path: /v2, reason: path_not_allowed}
  - {target: 'plain.a.test:80', expect: deny, path: '/v1/x?_method=delete', reason: method_not_allowed}
  - {target: 'plain.a.test:80', expect: deny, path: /v1/x, fields: {X-HTTP-Method-Override: [GET, delete]}, reason: method_not_allowed}
  - {target: 'plain.a.test:80', expect: deny, path: /v1/x, fields: {x-original-url: /admin}, reason: path_not_allowed}
  - {target: 'plain.a.test:80', expect: allow, path: /v1/x, fields: {X-Method-Override: get, Accept: '*/*'}}
  - {target: 'api.a.test:443', expect: deny, path: /x, reason: tls_required}
  - {target: api.a.test, expect: allow, began: {as: tls, sni: api.a.test, ech: true}}
  - {target: api.a.test, expect: deny, began: {as: tls, sni: b.a.test}, reason: sni_mismatch}
  - {target: api.a.test, expect: deny, began: {as: tls}, reason: sni_missing}
  - {target: api.a.test, expect: deny, began: {as: other}, reason: tls_required}
";
    assert_eq!(failing(&format!("{POLICY}{tests}")), []);
}

#[test]
fn what_does_not_hold_is_told_with_its_place() {
    let tests = "  - {target: api.a.test, expect: deny}
  - target: evil.test:443
    expect: allow
  - {target: evil.test, expect: deny, reason: host_denied}
  - {target: api.a.test, expect: allow, rule: 'allowedHosts[1]'}
";
    let found = failing(&format!("{POLICY}{tests}"));
    let places: Vec<&str> = found.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(places, ["7:5", "8:5", "10:5", "11:5"]);
    assert!(
        found[1].1[0].contains("found deny, reason: host_not_allowed"),
        "{found:?}"
    );
    assert!(found[1].1[0].contains("add \"evil.test\""), "{found:?}");
    assert!(
        found[2].1[0].contains("expected reason host_denied"),
        "{found:?}"
    );
    assert!(found[3].1[0].contains("allowedHosts[0]"), "{found:?}");
}

#[test]
fn report_mode_passes_and_still_says_why() {
    let source = "policy: {egress: {allowedHosts: [], mode: report}}\ntests: [{target: a.test, expect: allow, reason: host_not_allowed}]\n";
    assert_eq!(failing(source), []);
}

#[test]
fn a_ceiling_within_the_block_bounds_it() {
    let within = "policy: {allowedHosts: ['10.0.0.0/8'], ceiling: {addresses: ['10.0.0.0/8']}}\ntests: [{target: '10.1.2.3:443', expect: allow}]\n";
    assert_eq!(failing(within), []);
    let Err(failure) = read(
        &within.replace(", ceiling: {addresses: ['10.0.0.0/8']}", ""),
        Path::new("s"),
    ) else {
        panic!("taken");
    };
    assert_eq!(failure.code(), USAGE);
    assert!(
        failure
            .to_string()
            .contains("outside the operator's ceiling"),
        "{failure}"
    );
}

#[test]
fn a_suite_that_cannot_be_read_is_bad_input() {
    for (source, words) in [
        ("policy: {}\n", "tests"),
        ("policy: {}\ntests: []\n", "no test"),
        ("tests: [{target: a.test, expect: allow}]\n", "no policy"),
        (
            "policy: {}\nconfig: x\ntests: [{target: a.test, expect: allow}]\n",
            "not both",
        ),
        ("policy: {}\ntests: [{target: a.test}]\n", "expect"),
        (
            "policy: {}\ntests: [{target: a.test, expect: maybe}]\n",
            "one of allow, deny",
        ),
        (
            "policy: {}\ntests: [{target: a.test, expect: deny, reason: because}]\n",
            "because",
        ),
        (
            "policy: {}\ntests: [{target: a.test, expect: deny, addresses: [a]}]\n",
            "an IP address",
        ),
        (
            "policy: {}\ntests: [{target: a.test, expect: deny, adresses: []}]\n",
            "did you mean",
        ),
        (
            "policy: {}\ntests: [{target: a.test, expect: deny, fields: {'a b': c}}]\n",
            "no field name",
        ),
        (
            "policy: {allowedHosts: ['*']}\ntests: [{target: a.test, expect: allow}]\n",
            "every host",
        ),
    ] {
        let Err(failure) = read(source, Path::new("suite.yaml")) else {
            panic!("{source}: taken");
        };
        assert_eq!(failure.code(), USAGE, "{source}");
        assert!(failure.to_string().contains(words), "{source}: {failure}");
    }
}

#[test]
fn what_the_operator_answers_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let config = "dns: {hosts: {fixed.a.test: 203.0.114.9}}\negress: {allowedHosts: ['*.a.test'], deniedHosts: [203.0.114.9]}\n";
    std::fs::write(directory.path().join("config.yaml"), config).unwrap();
    let source = "config: config.yaml\ntests:\n  - {target: fixed.a.test, expect: deny, reason: host_denied}\n  \
                  - {target: other.a.test, expect: allow}\n";
    let suite = read(source, &directory.path().join("suite.yaml")).unwrap();
    for expectation in &suite.expectations {
        let tried = Tried::of(&suite.policy, expectation);
        assert_eq!(tried.differences, Vec::<String>::new());
    }
}

const CONFIG: &str = "capabilities:
  data: {egress: {allowedHosts: ['db.a.test:5432']}}
runtime:
  providers:
    p: {default: true, egress: {allowedHosts: [api.a.test], ceiling: {allowedHosts: ['*.a.test', 'db.a.test:5432'], addresses: [203.0.114.0/24]}}}
";

/// A suite about sessions of `CONFIG` that ask for this, in YAML's flow style.
fn asking(session: &str, tests: &str) -> Result<Vec<Vec<String>>, Failure> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.yaml"), CONFIG).unwrap();
    let source = format!("config: config.yaml\nsession: {session}\ntests: {tests}\n");
    let suite = read(&source, &directory.path().join("suite.yaml"))?;
    let differences = suite
        .expectations
        .iter()
        .map(|expectation| Tried::of(&suite.policy, expectation).differences);
    Ok(differences.filter(|all| !all.is_empty()).collect())
}

#[test]
fn what_a_session_asks_for_is_part_of_its_policy() {
    let met: Vec<Vec<String>> = Vec::new();
    for (session, tests) in [
        (
            "{}",
            "[{target: api.a.test, expect: allow}, {target: own.a.test, expect: deny}]",
        ),
        (
            "{egress: {allowedHosts: [own.a.test], deniedHosts: [api.a.test]}}",
            "[{target: api.a.test, expect: deny, reason: host_denied}, {target: own.a.test, expect: allow}]",
        ),
        (
            "{allow: [own.a.test], hosts: {own.a.test: 203.0.114.7}}",
            "[{target: own.a.test, expect: allow}]",
        ),
        (
            "{capabilities: [data]}",
            "[{target: 'db.a.test:5432', expect: allow}]",
        ),
        (
            "{capabilities: [{name: data, enabled: false}]}",
            "[{target: 'db.a.test:5432', expect: deny}]",
        ),
        (
            "{egress: {mode: report}}",
            "[{target: x.a.test, expect: allow, reason: host_not_allowed}]",
        ),
    ] {
        assert_eq!(asking(session, tests).unwrap(), met, "{session}");
    }
}

#[test]
fn a_session_asks_in_vain_here_as_at_a_gateway() {
    let one = "[{target: api.a.test, expect: allow}]";
    for (session, words) in [
        ("{allow: [a.other.test]}", "outside the operator's ceiling"),
        ("{hosts: {own.a.test: 10.0.0.1}}", "10.0.0.1"),
        ("{capabilities: [none]}", "no capability \"none\""),
        ("{alow: [own.a.test]}", "did you mean"),
        (
            "{services: {own: 'tcp://127.0.0.1:8443'}}",
            "the gateway itself",
        ),
    ] {
        let failure = asking(session, one).unwrap_err();
        assert_eq!(failure.code(), USAGE, "{session}");
        assert!(failure.to_string().contains(words), "{session}: {failure}");
    }
    let alone = "policy: {allowedHosts: [a.test]}\nsession: {capabilities: [data]}\ntests: [{target: a.test, expect: allow}]\n";
    let failure = read(alone, Path::new("suite.yaml")).err().unwrap();
    assert!(failure.to_string().contains("no catalogue"), "{failure}");
    let alone = "policy: {allowedHosts: [a.test]}\nsession: {allow: [b.test]}\ntests: [{target: b.test, expect: allow}]\n";
    assert_eq!(failing(alone), []);
}
