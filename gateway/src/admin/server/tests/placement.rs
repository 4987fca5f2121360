//! Placement and providers, as a control plane asks.

use sluicegate_policy::{
    EgressMode, GrantDocument, HostServiceAccess, Profile, ServiceDocument, ServiceName,
    text::{self, Faults},
};

use super::*;
use crate::{
    probe::{Check, Finding},
    session::{
        RegistryConfig,
        testing::{ceiling, config},
    },
};

const CHECK: &str = "runtime/providers/local/placements:check";
const EVERY: [Check; 7] = [
    Check::Reach,
    Check::Certificate,
    Check::Http2,
    Check::Token,
    Check::Refuses,
    Check::Judges,
    Check::Carries,
];

fn advertising(can_host_plugins: bool) -> Gateway {
    gateway_of(Fixture::with(knowing_cache(can_host_plugins)))
}

fn service(name: &str) -> (ServiceName, ServiceDocument) {
    let mut faults = Faults::default();
    let url = text::parse("tcp://127.0.0.1:6379", &mut faults);
    let document = ServiceDocument::read(&url, &mut faults);
    (ServiceName::parse(name).unwrap(), document)
}

fn knowing_cache(can_host_plugins: bool) -> RegistryConfig {
    let mut config = config();
    config.catalogue = [service("cache")].into();
    config.providers.get_mut("local").unwrap().advertised = Some(Profile {
        can_host_plugins,
        host_service_access: HostServiceAccess::None,
        egress_mode: EgressMode::Hostname,
    });
    config
}

async fn found(g: &Gateway, finding: &Finding) {
    let all = EVERY.map(|check| (check, finding.clone()));
    for _ in 0..3 {
        g.prober.found(&all).await;
    }
}

const WORKLOAD: &str =
    r#"{"hostServices": ["cache"], "egress": {"allowedHosts": ["api.example.com"]}}"#;

#[tokio::test]
async fn a_workload_is_placed_by_the_effective_profile_with_the_contracts_sentences() {
    let g = advertising(true);
    let unknown = g.call("POST", CHECK, WORKLOAD).await;
    assert_eq!(unknown.status, 503, "{}", unknown.body);
    assert_eq!(
        unknown.body["type"],
        "urn:sluicegate:problem:profile-unknown"
    );
    // What needs nothing that must be proved is answered at once.
    let modest = r#"{"egress": {"defaultAction": "allow"}}"#;
    assert_eq!(g.call("POST", CHECK, modest).await.body["placeable"], true);

    found(&g, &Finding::Pass).await;
    let placed = g.call("POST", CHECK, WORKLOAD).await;
    assert_eq!(placed.status, 200);
    assert_eq!(
        (&placed.body["placeable"], &placed.body["reason"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(placed.body["effective"]["hostServiceAccess"], "relay");

    let lost = Finding::Fail {
        reason: "the certificate has expired".into(),
        setting: "tls.certificate".into(),
    };
    found(&g, &lost).await;
    for (body, reason) in [
        (
            WORKLOAD,
            "cannot provide host service access required by this provider",
        ),
        (
            r#"{"egress": {"allowedHosts": ["api.example.com"], "defaultAction": "allow"}}"#,
            "cannot preserve hostname-based egress required by this provider",
        ),
        (
            r#"{"egress": {"allowedHosts": []}}"#,
            "cannot preserve hostname-based egress required by this provider",
        ),
        // As a session that says nothing: deny.
        (
            "{}",
            "cannot preserve hostname-based egress required by this provider",
        ),
    ] {
        let answer = g.call("POST", CHECK, body).await;
        assert_eq!(
            (&answer.body["placeable"], answer.body["reason"].as_str()),
            (&json!(false), Some(reason)),
            "{body}"
        );
    }
    let modest = g.call("POST", CHECK, modest).await;
    assert_eq!(modest.body["placeable"], true);

    let g = advertising(false);
    found(&g, &Finding::Pass).await;
    assert_eq!(
        g.call("POST", CHECK, WORKLOAD).await.body["reason"],
        "cannot host executable providers in a host-reachable session"
    );
    let data = r#"{"executable": false, "egress": {"defaultAction": "allow"}}"#;
    assert_eq!(g.call("POST", CHECK, data).await.body["placeable"], true);
}

#[tokio::test]
async fn what_create_refuses_is_not_placeable_and_what_it_adds_counts() {
    let mut config = knowing_cache(true);
    let local = config.providers.get_mut("local").unwrap();
    local.ceiling = ceiling("{allowedHosts: [api.example.com], addresses: [127.0.0.0/8]}");
    let g = gateway_of(Fixture::with(config));
    found(&g, &Finding::Pass).await;
    for (workload, session) in [
        (
            r#"{"hostServices": ["nobody-knows"]}"#,
            r#"{"services": ["nobody-knows"]}"#,
        ),
        (
            r#"{"egress": {"allowedHosts": ["outside.example.com"]}}"#,
            r#"{"egress": {"allowedHosts": ["outside.example.com"]}}"#,
        ),
    ] {
        let placed = g.call("POST", CHECK, workload).await;
        let created = g
            .call("POST", "runtime/providers/local/sessions", session)
            .await;
        assert_eq!((placed.status, created.status), (422, 422), "{workload}");
        let messages = |body: &Value| body["errors"][0]["message"].clone();
        assert_eq!(messages(&placed.body), messages(&created.body));
    }

    // Services and a default that the provider brings are part of every workload there.
    let mut config = knowing_cache(true);
    let local = config.providers.get_mut("local").unwrap();
    let mut faults = Faults::default();
    let defaults = text::parse(
        "{egress: {defaultAction: allow}, services: [cache]}",
        &mut faults,
    );
    local.defaults = GrantDocument::read(&defaults, &mut faults);
    let g = gateway_of(Fixture::with(config));
    found(&g, &Finding::Pass).await;
    let needs = g.call("POST", CHECK, "{}").await.body["needs"].clone();
    let expected = json!({"executable": true, "hostServices": true, "hostnameEgress": false});
    assert_eq!(needs, expected);
}

#[tokio::test]
async fn what_is_no_workload_is_refused_whole() {
    let g = advertising(true);
    for (body, faults) in [
        (r#"{"hostService": []}"#, 1),
        (r#"{"hostServices": "cache", "executable": 1}"#, 2),
        (r#"{"hostServices": ["Not A Name"]}"#, 1),
        (r#"{"egress": {"allowedHosts": ["*"], "surprise": 1}}"#, 2),
    ] {
        let answer = g.call("POST", CHECK, body).await;
        assert_eq!(answer.status, 422, "{body}: {}", answer.body);
        let errors = answer.body["errors"].as_array().unwrap();
        assert_eq!(errors.len(), faults, "{body}: {errors:?}");
    }
    let nowhere = "runtime/providers/none/placements:check";
    assert_eq!(g.call("POST", nowhere, "{}").await.status, 404);
    for query in ["probe=later", "probe=now&probe=now", "prob=now"] {
        let answer = g.call("POST", &format!("{CHECK}?{query}"), "{}").await;
        assert_eq!(answer.status, 400, "{query}");
    }
}

#[tokio::test]
async fn providers_show_both_profiles_and_what_falls_short() {
    let g = advertising(true);
    let one = async || g.call("GET", "runtime/providers", "").await.body[0].clone();
    let before = one().await;
    assert_eq!(before["profile"]["effective"], Value::Null);
    let checks = before["checks"].as_array().unwrap();
    assert_eq!(checks.len(), EVERY.len() + 1);
    let resolver = checks.iter().find(|check| check["name"] == "resolver");
    let last = &resolver.unwrap()["last"];
    assert_eq!(last["outcome"], "unknown");
    assert!(last["reason"].as_str().unwrap().contains("probe.name"));
    found(&g, &Finding::Pass).await;
    let proved = one().await;
    for key in [
        "name",
        "driver",
        "default",
        "loaded",
        "sessionCount",
        "profile",
        "checks",
        "error",
    ] {
        assert!(proved.get(key).is_some(), "{key}");
    }
    assert_eq!(
        proved["profile"],
        json!({
            "advertised": {"canHostPlugins": true, "hostServiceAccess": "none", "egressMode": "hostname"},
            "effective": {"canHostPlugins": true, "hostServiceAccess": "relay", "egressMode": "hostname"},
        })
    );
    assert_eq!(proved["shortfalls"], json!([]));
    let lost = Finding::Fail {
        reason: "nobody answers".into(),
        setting: "publicUrl".into(),
    };
    found(&g, &lost).await;
    let lost = one().await;
    assert_eq!(lost["profile"]["effective"]["egressMode"], "none");
    let shortfall = &lost["shortfalls"][0];
    assert_eq!(
        (
            &shortfall["field"],
            &shortfall["reason"],
            &shortfall["setting"]
        ),
        (
            &json!("hostServiceAccess"),
            &json!("nobody answers"),
            &json!("publicUrl")
        )
    );
    assert!(shortfall["since"].as_u64().is_some());
    assert_eq!(
        (&lost["loaded"], &lost["error"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(lost["checks"][0]["state"], "fails");
    // Asked to look now: gateway.test is nowhere, and that is what is found.
    let asked = g.call("GET", "runtime/providers?probe=now", "").await;
    assert!(asked.body[0]["probed"]["runs"].as_u64() >= Some(1));
    let not = g.call("GET", "runtime/providers", "").await;
    assert!(not.body[0]["probed"].is_null());
    let reason = asked.body[0]["checks"][0]["last"]["reason"]
        .as_str()
        .unwrap();
    assert!(reason.contains("gateway.test"), "{reason}");
}
