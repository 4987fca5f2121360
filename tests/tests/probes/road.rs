//! The way in: the certificate, the listener, UDP.

use e2e::edge::showing;
use e2e::{Answer, Manner};
use serde_json::{Value, json};

use crate::lab::Lab;

#[tokio::test]
async fn a_certificate_that_expired_takes_both_and_gives_them_back() {
    let lab = Lab::start("", "").await;
    lab.is_well().await;
    let expired = showing(&lab.gateway.state(), "gateway.test", true);
    let plain = lab.gateway.ports.plain;
    lab.edge.behave(Manner::Terminate(expired, plain)).await;
    lab.loses_both("tls.names", "has expired").await;
    assert_eq!(lab.state("certificate").await, "fails");
    assert_eq!(lab.state("reach").await, "works");
    // What could not be looked at is not lost.
    assert_eq!(lab.state("token").await, "works");
    lab.mend().await;
    lab.is_well().await;
    let profile = |access: &str, mode: &str| json!({"canHostPlugins": true, "hostServiceAccess": access, "egressMode": mode});
    assert_eq!(
        lab.changes().await,
        [profile("none", "none"), profile("relay", "hostname")]
    );
    let changes = "sluicegate_profile_changes_total ";
    lab.gateway.metric_reaches(changes, 2.0).await;
    let records = lab.gateway.records();
    assert!(records.is_empty(), "probes are no traffic: {records:?}");
    let status = lab.gateway.admin("GET", "/status", "").await.json();
    assert_eq!(status["refusalsLastHour"], json!({}), "nor refusals");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_said_to_be_that() {
    let lab = Lab::start("", "").await;
    lab.is_well().await;
    let other = showing(&lab.gateway.state(), "other.test", false);
    let plain = lab.gateway.ports.plain;
    lab.edge.behave(Manner::Terminate(other, plain)).await;
    lab.loses_both("tls.names", "not valid for gateway.test")
        .await;
    // The right name on the same road: TLS that ends in front of the gateway is no shortfall.
    let right = showing(&lab.gateway.state(), "gateway.test", false);
    lab.edge.behave(Manner::Terminate(right, plain)).await;
    lab.is_well().await;
}

#[tokio::test]
async fn a_listener_that_is_gone_is_a_public_url_that_leads_nowhere() {
    let lab = Lab::start("", "").await;
    lab.is_well().await;
    lab.edge.behave(Manner::Gone).await;
    lab.loses_both("probe.resolve", "cannot connect").await;
    lab.mend().await;
    lab.is_well().await;
}

#[tokio::test]
async fn name_servers_that_fail_are_named_where_the_public_url_is_by_name() {
    let lab = Lab::by_name().await;
    lab.is_well().await;
    lab.dns.set("gateway.test", Answer::Failing);
    lab.loses_both("dns.servers", "gateway.test could not be resolved")
        .await;
    assert_eq!(lab.state("reach").await, "fails");
    lab.dns.point("gateway.test");
    lab.is_well().await;
}

#[tokio::test]
async fn blocked_udp_is_said_and_takes_nothing_while_tls_carries_the_relay() {
    let any = "services: {any: {url: \"tcp://127.0.0.1:9\", health: none}}\n";
    let lab = Lab::start(", timeout: 5s", any).await;
    lab.is_well().await;
    assert_eq!(lab.state("quic").await, "works");
    let before = lab.changes().await;
    lab.edge.carry_datagrams(None);
    lab.becomes(
        "relay",
        "hostname",
        &[("hostServiceAccess", "listeners[].quic", "UDP port")],
    )
    .await;
    assert_eq!(lab.state("quic").await, "fails");
    assert_eq!(lab.state("http2").await, "works");
    assert_eq!(
        lab.placement("test", r#"{"hostServices": ["any"]}"#).await,
        Value::Null
    );
    lab.edge.carry_datagrams(Some(lab.gateway.ports.public));
    lab.is_well().await;
    assert_eq!(lab.changes().await, before, "no profile changed");
}
