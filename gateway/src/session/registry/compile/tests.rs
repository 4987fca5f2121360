#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use sluicegate_policy::{
    Author, Denial, GrantDocument, Target, decide,
    text::{self, Faults},
};

use super::RegistryError;
use crate::session::testing::{Fixture, config, patch, request};

/// A gateway whose provider says this of egress.
fn under(egress: &str) -> Fixture {
    let mut faults = Faults::default();
    let node = text::parse(&format!("egress: {{{egress}}}"), &mut faults);
    let defaults = GrantDocument::read(&node, &mut faults);
    assert!(faults.is_clean(), "{faults}");
    let mut config = config();
    config.providers.get_mut("local").unwrap().defaults = defaults;
    Fixture::with(config)
}

#[tokio::test]
async fn a_session_lifts_nothing_that_its_provider_says() {
    let f = under(
        "deniedHosts: [b.test], allowedHosts: ['c.test:8080'], rules: [{host: 'c.test:8080', http: {methods: [GET]}}]",
    );
    let create = request("{id: one, egress: {mode: report}}");
    f.registry.create("local".into(), create).await.unwrap();
    let live = f.registry.index().session(&f.key("one")).unwrap();
    let grant = live.session.policy().unwrap().grant.clone();
    let decided = |authority: &str| decide(&grant, &Target::from_authority(authority).unwrap());
    let denied = decided("b.test:443").unwrap_err();
    assert_eq!(denied.denial, Denial::HostDenied);
    let deleted = decided("c.test:8080").unwrap().judge_http("DELETE", "/");
    assert_eq!(deleted.unwrap_err().denial, Denial::MethodNotAllowed);
    // What nobody has denied is what it is for.
    assert!(decided("x.test:443").unwrap().reported().is_some());
}

#[tokio::test]
async fn a_sessions_rule_is_held_to_its_providers() {
    let f = under(
        "allowedHosts: ['*.c.test:8080'], rules: [{host: '*.c.test:8080', http: {methods: [GET]}}]",
    );
    let laxer = "egress: {rules: [{host: 'x.c.test:8080', http: {methods: [DELETE]}}]}";
    let create = request(&format!("{{id: one, {laxer}}}"));
    let refused = f.registry.create("local".into(), create).await.err();
    let Some(RegistryError::Faults(faults)) = &refused else {
        panic!("{refused:?}");
    };
    assert!(faults.to_string().contains("which binds it"), "{faults}");
    let create = request("{id: one}");
    f.registry.create("local".into(), create).await.unwrap();
    let patched = f
        .registry
        .patch(f.key("one"), patch(&format!("{{{laxer}}}")))
        .await;
    assert!(matches!(patched.err(), Some(RegistryError::Faults(_))));
}

/// A session that an earlier version made, with more than this one takes.
#[tokio::test]
async fn what_is_not_read_any_more_is_said_anew() {
    let f = Fixture::with(config());
    let create = request("{id: one, limits: {tunnels: 3}}");
    f.registry.create("local".into(), create).await.unwrap();
    let mut entry = (*f.registry.entry(&f.key("one")).unwrap()).clone();
    let many: Vec<String> = (0..1001)
        .map(|n| format!("10.0.{}.{}", n / 256, n % 256))
        .collect();
    let egress = serde_json::json!({ "allowedAddresses": many });
    let document = serde_json::json!({ "egress": egress, "limits": { "tunnels": 3 } });
    entry.record.document = document.to_string();
    entry.policy = None;
    f.registry.put(Arc::new(entry));
    let changed = async |change: &str| f.registry.patch(f.key("one"), patch(change)).await;
    let elsewhere = changed("{limits: {tunnels: 2}}").await;
    assert!(matches!(elsewhere.err(), Some(RegistryError::Faults(_))));
    changed("{egress: {allowedHosts: [a.test]}}").await.unwrap();
    let entry = f.registry.entry(&f.key("one")).unwrap();
    let expected = r#"{"egress":{"allowedHosts":["a.test"]},"limits":{"tunnels":3}}"#;
    assert_eq!(entry.record.document, expected);
    assert!(entry.policy.is_some());
}

/// Nor is what the operator says of a service undone by a tenant who only names it.
#[test]
fn a_tenants_word_on_a_named_service_lifts_nothing() {
    let mut config = config();
    let defaults = "{services: {docker: {url: 'tcp://192.0.2.1:2375', http: {methods: [GET]}}}}";
    config.providers.get_mut("local").unwrap().defaults = request(defaults).grant.document;
    let listed = "{services: {search: {url: 'tcp://192.0.2.2:9200', http: {methods: [GET]}}}}";
    config.catalogue = request(listed).grant.document.services;
    let asked = |source: &str, author: Author| {
        let own = request(source).grant.document;
        super::grant(&config, "local", &[], (&own, author)).map(drop)
    };
    for name in ["docker", "search"] {
        let wider = format!("{{services: {{{name}: {{http: {{}}}}}}}}");
        let refused = asked(&wider, Author::Bounded).unwrap_err();
        let RegistryError::Faults(faults) = &refused else {
            panic!("{refused:?}");
        };
        assert!(faults.to_string().contains("which binds it"), "{faults}");
        for same in [
            format!("{{services: {{{name}: {{http: {{methods: [GET]}}}}}}}}"),
            format!("{{services: [{name}]}}"),
        ] {
            asked(&same, Author::Bounded).unwrap();
        }
        asked(&wider, Author::Operator).unwrap();
    }
}
