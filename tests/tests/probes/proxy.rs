//! The proxy: what it must refuse, what it must pass, and the names that it must find.

use std::net::IpAddr;

use e2e::edge::showing;
use e2e::{Answer, Manner};
use serde_json::json;

use crate::lab::Lab;

#[tokio::test]
async fn a_proxy_that_lets_everything_pass_loses_hostname_egress_alone() {
    let lab = Lab::start("", "").await;
    lab.is_well().await;
    let right = showing(&lab.gateway.state(), "gateway.test", false);
    let plain = lab.gateway.ports.plain;
    lab.edge.behave(Manner::Leak(right, plain)).await;
    lab.loses_egress("publicUrl", "denied.probe.invalid").await;
    assert_eq!(lab.state("proxy.refuses").await, "fails");
    assert_eq!(
        lab.state("proxy.judges").await,
        "fails",
        "TLS for another name arrived"
    );
    lab.mend().await;
    lab.is_well().await;
}

#[tokio::test]
async fn dns_that_is_dead_loses_hostname_egress_alone() {
    let lab = Lab::start(", name: canary.test", "").await;
    lab.is_well().await;
    lab.dns.set("canary.test", Answer::Failing);
    lab.loses_egress("dns.servers", "canary.test does not resolve")
        .await;
    let placed = lab
        .placement(
            "test",
            r#"{"egress": {"allowedHosts": ["api.example.com"]}}"#,
        )
        .await;
    assert_eq!(
        placed,
        json!("cannot preserve hostname-based egress required by this provider")
    );
    lab.dns.point("canary.test");
    lab.is_well().await;
}

#[tokio::test]
async fn a_canary_of_the_operators_own_must_pass() {
    let origin = e2e::RawOrigin::start().await;
    let canary = format!(", canary: \"canary.test:{}\"", origin.address.port());
    let lab = Lab::start(&canary, "").await;
    lab.is_well().await;
    assert_eq!(lab.state("proxy.canary").await, "works");
    // Where nobody listens, while the name goes on resolving.
    let nobody = IpAddr::from([127, 0, 0, 2]);
    lab.dns.set("canary.test", Answer::Addresses(vec![nobody]));
    lab.loses_egress("probe.canary", "canary.test").await;
    assert_eq!(lab.state("proxy.canary").await, "fails");
    for other in ["proxy.refuses", "proxy.judges", "proxy.carries", "resolver"] {
        assert_eq!(lab.state(other).await, "works", "{other}");
    }
    lab.dns.point("canary.test");
    lab.is_well().await;
    assert_eq!(lab.state("proxy.canary").await, "works");
}
