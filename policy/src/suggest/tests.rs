#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use super::*;
use crate::{GrantDocument, decide, testing};
use proptest::prelude::*;
use std::sync::Arc;

fn suggested(seen: &[&str], collapse: Option<usize>) -> Vec<String> {
    let seen: Vec<Target> = seen.iter().map(|text| testing::target(text)).collect();
    let block = suggest(&seen, [], [], collapse).to_value();
    let list = block["allowedHosts"].as_array().unwrap();
    list.iter()
        .map(|entry| entry.as_str().unwrap().to_owned())
        .collect()
}

fn grant(egress: EgressDocument) -> Arc<crate::Grant> {
    let document = GrantDocument {
        egress,
        ..GrantDocument::default()
    };
    testing::compile(&document.to_json(), "addresses: [0.0.0.0/0, '::/0']").unwrap()
}

#[test]
fn what_was_dialled_needs_its_exception() {
    let seen = [testing::target("db.corp.test:5432")];
    let dialled = ["::ffff:10.1.2.3", "93.184.215.14", "10.1.2.3", "fd00::7"];
    let dialled = dialled.map(|address| address.parse().unwrap());
    let block = suggest(&seen, [], dialled, None).to_value();
    assert_eq!(
        block["allowedAddresses"],
        serde_json::json!(["10.1.2.3/32", "fd00::7/128"])
    );
    let none = suggest(&seen, [], ["93.184.215.14".parse().unwrap()], None).to_value();
    assert!(none.get("allowedAddresses").is_none(), "{none}");
}

fn asked(requests: &[(&str, &str)]) -> PlainUse {
    let mut asked = PlainUse::default();
    for (method, path) in requests {
        asked.add(method, path);
    }
    asked
}

#[test]
fn what_was_asked_in_the_plain_has_its_methods_and_paths() {
    let target = testing::target("a.test:8080");
    let rules = |requests: &[(&str, &str)], collapse| {
        let asked = asked(requests);
        let block = suggest([&target], [(&target, &asked)], [], collapse);
        block.to_value()["rules"].clone()
    };
    let rule = |http: Value| json!([{"host": "a.test:8080", "http": http}]);
    let some = [
        ("GET", "/v1/items/1?…"),
        ("GET", "/v1/items/2"),
        ("POST", "/v1/items"),
        ("GET", "/v1/items/2/parts"),
        ("GET", "/ping"),
    ];
    // The others stand below the second.
    let http = json!({"methods": ["GET", "POST"], "pathPrefixes": ["/ping", "/v1/items"]});
    assert_eq!(rules(&some, None), rule(http));
    let apart = [
        ("GET", "/v1/a"),
        ("GET", "/v1/b"),
        ("GET", "/w"),
        ("GET", "/x"),
    ];
    let http = json!({"methods": ["GET"], "pathPrefixes": ["/v1/a", "/v1/b", "/w", "/x"]});
    assert_eq!(rules(&apart, None), rule(http.clone()));
    assert_eq!(rules(&apart, Some(3)), rule(http));
    // The root is no directory of anybody's.
    let http = json!({"methods": ["GET"], "pathPrefixes": ["/v1/", "/w", "/x"]});
    assert_eq!(rules(&apart, Some(2)), rule(http));
    // What no rule can name leaves its half open.
    for (open, left) in [
        (("GET", "/"), json!({"methods": ["GET"]})),
        (("GET", "/a//b"), json!({"methods": ["GET"]})),
        (("get", "/a"), json!({"pathPrefixes": ["/a"]})),
    ] {
        assert_eq!(rules(&[open], None), rule(left), "{open:?}");
    }
    assert_eq!(rules(&[("get", "/")], None), Value::Null);
    let many: Vec<String> = (0..100).map(|number| format!("/x/{number}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|path| ("GET", path.as_str())).collect();
    assert_eq!(rules(&many, None), rule(json!({"methods": ["GET"]})));
    let http = json!({"methods": ["GET"], "pathPrefixes": ["/x/"]});
    assert_eq!(rules(&many, Some(3)), rule(http));
}

/// A name that was not seen has no more than those that were.
#[test]
fn a_pattern_has_the_rule_that_all_below_it_need() {
    let hosts = ["a", "b", "c"].map(|name| format!("{name}.example.com:80"));
    let hosts = hosts.map(|host| testing::target(&host));
    let uses = [
        asked(&[("GET", "/d/x")]),
        asked(&[("GET", "/d/x"), ("PUT", "/d/y")]),
        asked(&[("GET", "/e")]),
    ];
    let block = suggest(&hosts, hosts.iter().zip(&uses), [], Some(3));
    let value = block.to_value();
    assert_eq!(value["allowedHosts"], json!(["*.example.com:80"]));
    let rules = value["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 4, "{value}");
    assert_eq!(
        rules[0],
        json!({"host": "*.example.com:80", "http": {"methods": ["GET", "PUT"], "pathPrefixes": ["/d/x", "/d/y", "/e"]}})
    );
    let grant = grant(block);
    let passes = |host: &str, method: &str, path: &str| {
        let permit = decide(&grant, &testing::target(host)).unwrap();
        permit.judge_http(method, path).is_ok()
    };
    for (host, method, path, expected) in [
        ("d.example.com:80", "GET", "/e", true),
        ("d.example.com:80", "DELETE", "/e", false),
        ("d.example.com:80", "GET", "/secret", false),
        ("a.example.com:80", "GET", "/d/x", true),
        ("a.example.com:80", "GET", "/e", false),
    ] {
        assert_eq!(
            passes(host, method, path),
            expected,
            "{host} {method} {path}"
        );
    }
    // Where one of them carries something else there is none: it would be refused.
    let block = suggest(&hosts, hosts.iter().zip(&uses).take(2), [], Some(3)).to_value();
    let rules = block["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 2, "{block}");
    assert!(rules.iter().all(|rule| rule["host"] != "*.example.com:80"));
}

#[test]
fn where_tls_is_due_there_is_no_rule_of_requests() {
    let target = testing::target("a.test:443");
    let asked = asked(&[("GET", "/a")]);
    let block = suggest([&target], [(&target, &asked)], [], None).to_value();
    assert!(block.get("rules").is_none(), "{block}");
}

#[test]
fn what_was_seen_and_no_port_more() {
    let seen = [
        "api.example.com:443",
        "www.example.com:80",
        "www.example.com:443",
        "db.example.com:5432",
        "203.0.113.9:8443",
        "[2001:db8::1]:443",
        "api.example.com:443",
    ];
    assert_eq!(
        suggested(&seen, None),
        [
            "api.example.com:443",
            "db.example.com:5432",
            "www.example.com",
            "203.0.113.9:8443",
            "[2001:db8::1]:443",
        ]
    );
    assert!(
        suggested(&[], None).is_empty(),
        "nothing seen, nothing allowed"
    );
}

#[test]
fn siblings_collapse_where_there_are_enough_of_them_on_one_port() {
    let seen = [
        "a.x.example.com:443",
        "b.x.example.com:443",
        "c.x.example.com:443",
        "c.x.example.com:22",
        "x.example.com:443",
        "deep.a.x.example.com:443",
    ];
    assert_eq!(
        suggested(&seen, Some(3)),
        [
            "*.x.example.com:443",
            "c.x.example.com:22",
            "x.example.com:443"
        ]
    );
    assert!(!suggested(&seen, Some(4)).contains(&"*.x.example.com:443".to_owned()));
    assert!(
        !suggested(&seen, None)
            .iter()
            .any(|entry| entry.starts_with('*'))
    );
}

#[test]
fn a_suffix_is_nobodys_own() {
    for parent in [
        "com",
        "co.uk",
        "s3.amazonaws.com",
        "github.io",
        "internal",
        "corp.internal",
    ] {
        let seen: Vec<String> = (0..5).map(|i| format!("h{i}.{parent}:443")).collect();
        let seen: Vec<&str> = seen.iter().map(String::as_str).collect();
        let list = suggested(&seen, Some(2));
        assert_eq!(list.len(), 5, "{parent}: {list:?}");
    }
}

fn targets() -> impl Strategy<Value = Vec<Target>> {
    let name = prop_oneof![
        "[a-c]\\.(example|sample)\\.(com|org)",
        "[a-d]\\.[a-b]\\.example\\.(com|co\\.uk)",
        "(example|sample)\\.com",
        "192\\.0\\.2\\.[1-3]",
    ];
    let port = prop::sample::select(vec![80_u16, 443, 8443, 5432]);
    let one = (name, port).prop_map(|(host, port)| testing::target(&format!("{host}:{port}")));
    prop::collection::vec(one, 0..12)
}

proptest! {
    #[test]
    fn exactly_what_was_seen_is_allowed(seen in targets(), others in targets()) {
        let grant = grant(suggest(&seen, [], [], None));
        for target in seen.iter().chain(&others) {
            prop_assert_eq!(decide(&grant, target).is_ok(), seen.contains(target), "{}", target);
        }
    }

    /// By what is suggested each request passes that was seen, collapsed or not.
    #[test]
    fn every_request_seen_passes(
        requests in prop::collection::vec(("GET|PUT|get", "/([ab]|[0-9]{1,2}|)(/[abc]{0,2}){0,3}"), 1..12),
        collapse in prop::option::of(0..4_usize),
    ) {
        let target = testing::target("a.test:80");
        let requests: Vec<(&str, &str)> = requests.iter().map(|(method, path)| (method.as_str(), path.as_str())).collect();
        let asked = asked(&requests);
        let grant = grant(suggest([&target], [(&target, &asked)], [], collapse));
        let permit = decide(&grant, &target).unwrap();
        for (method, path) in requests {
            prop_assert!(permit.judge_http(method, path).is_ok(), "{} {} {:?}", method, path, permit.http().collect::<Vec<_>>());
        }
    }

    /// Nor does the rule of a pattern refuse what was seen below it.
    #[test]
    fn every_request_seen_passes_below_a_pattern(
        requests in prop::collection::vec(("[a-d]", "GET|PUT|get", "/([ab]|[0-9]{1,2}|)(/[abc]{0,2}){0,2}"), 1..16),
    ) {
        let mut uses = BTreeMap::<Target, PlainUse>::new();
        for (name, method, path) in &requests {
            let target = testing::target(&format!("{name}.example.com:8080"));
            uses.entry(target).or_default().add(method, path);
        }
        let grant = grant(suggest(uses.keys(), &uses, [], Some(2)));
        for (name, method, path) in &requests {
            let target = testing::target(&format!("{name}.example.com:8080"));
            let permit = decide(&grant, &target).unwrap();
            prop_assert!(permit.judge_http(method, path).is_ok(), "{} {} {}", name, method, path);
        }
    }

    #[test]
    fn collapsing_loses_nothing_and_never_lengthens(seen in targets(), least in 0..5_usize) {
        let (short, long) = (suggest(&seen, [], [], Some(least)), suggest(&seen, [], [], None));
        let length = |block: &EgressDocument| block.to_value()["allowedHosts"].as_array().unwrap().len();
        prop_assert!(length(&short) <= length(&long));
        let grant = grant(short);
        for target in &seen {
            prop_assert!(decide(&grant, target).is_ok(), "{}", target);
        }
    }
}
