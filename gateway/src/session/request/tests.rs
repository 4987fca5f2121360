#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use serde_json::json;

use super::*;

#[test]
fn short_forms_are_merged_into_egress() {
    let request = CreateRequest::read(
        r#"{"egress": {"allowedHosts": ["a.example.com"]}, "allow": ["b.example.com"], "hosts": {"b.example.com": "127.0.0.1"}}"#,
    )
    .unwrap();
    let document = request.grant.document.to_value();
    assert_eq!(
        document["egress"]["allowedHosts"],
        json!(["a.example.com", "b.example.com"])
    );
    assert!(
        document["egress"]["hosts"]["b.example.com"]
            .to_string()
            .contains("127.0.0.1")
    );
    assert!(request.start);
    assert_eq!(request.namespace(), "default");
}

/// What is taken today can be read tomorrow: it is stored as one list.
#[test]
fn two_lists_are_held_to_what_one_is() {
    let ports = |from: usize, count: usize| -> Vec<String> {
        (from..from + count)
            .map(|port| format!("a.test:{port}"))
            .collect()
    };
    let read = |more: usize| {
        let egress = json!({ "allowedHosts": ports(1, 1000) });
        let body = json!({ "egress": egress, "allow": ports(1001, more) });
        CreateRequest::read(&body.to_string())
    };
    assert!(read(0).is_ok());
    let faults = read(1).unwrap_err().to_string();
    assert!(faults.contains("allow: more than 1000 "), "{faults}");
}

#[test]
fn absent_and_empty_differ() {
    let document = |source| {
        CreateRequest::read(source)
            .unwrap()
            .grant
            .document
            .to_value()
    };
    assert!(document("{}").get("egress").is_none());
    assert!(
        document("").get("egress").is_none(),
        "an empty body is an empty request"
    );
    assert_eq!(document("{allow: []}")["egress"]["allowedHosts"], json!([]));
    assert!(
        CreateRequest::read("{allow: null}").is_err(),
        "null is neither"
    );
}

#[test]
fn every_fault_is_told_with_its_place() {
    let faults = CreateRequest::read(
        "id: 'has space'\nttl: soon\nonExpiry: explode\nallow: ['*']\nsources: [nonsense]\negress: {allowedHosts: ['*.com']}\nspeling: 1\n",
    )
    .unwrap_err();
    let lines: Vec<u32> = faults
        .errors
        .iter()
        .map(|fault| fault.position.line)
        .collect();
    assert_eq!(lines, [1, 2, 3, 4, 5, 6, 7], "{faults}");
}

#[test]
fn a_digest_is_of_the_meaning() {
    let digest = |source| CreateRequest::read(source).unwrap().digest();
    assert_eq!(
        digest("{id: a, ttl: 1h, allow: [X.example.com]}"),
        digest("{allow: [x.example.com], ttl: 3600, id: a}")
    );
    for other in [
        "{id: a, ttl: 2h}",
        "{id: a, allow: [y.example.com]}",
        "{id: a, start: false}",
        "{id: a, scope: x}",
    ] {
        assert_ne!(digest("{id: a}"), digest(other), "{other}");
    }
}

#[test]
fn a_patch_replaces_exactly_what_it_names() {
    let base = CreateRequest::read(
        "{allow: [a.example.com], services: {s: 'unix:///s'}, limits: {tunnels: 3}}",
    )
    .unwrap();
    let after = |source| {
        PatchRequest::read(source)
            .unwrap()
            .apply(base.grant.document.clone())
            .to_value()
    };
    let whole = base.grant.document.to_value();
    assert_eq!(after("{}"), whole);
    assert_eq!(
        after("{allow: [b.example.com]}")["egress"]["allowedHosts"],
        json!(["b.example.com"])
    );
    assert_eq!(
        after("{allow: [b.example.com]}")["services"],
        whole["services"]
    );
    assert!(after("{services: {}}").get("services").is_none());
    assert!(after("{limits: {}}").get("limits").is_none());
    assert!(after("{egress: {}}").get("egress").is_none());
    assert!(
        PatchRequest::read("{id: x}").is_err(),
        "the id cannot be patched"
    );
}

#[test]
fn ids_are_plain() {
    for good in ["a", "A1", "x.y_z-1", &"a".repeat(63)] {
        assert!(is_session_id(good), "{good}");
    }
    for bad in [
        "",
        "-a",
        ".a",
        "a b",
        "a/b",
        "a:b",
        "ä",
        "a\n",
        &"a".repeat(64),
    ] {
        assert!(!is_session_id(bad), "{bad}");
    }
}
