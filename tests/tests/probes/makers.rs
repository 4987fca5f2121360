//! Who makes the checks, and when.

use e2e::edge::showing;
use e2e::{Dns, Edge, Gateway, Manner, Settings};
use serde_json::Value;

use crate::lab::Lab;

#[tokio::test]
async fn an_agent_elsewhere_finds_what_the_gateway_cannot() {
    let origin = e2e::RawOrigin::start().await;
    let edge = Edge::start().await;
    let port = edge.address.port();
    let dns = Dns::start().await;
    // For the gateway itself its public name leads nowhere.
    let gateway = Gateway::start(&Settings {
        dns: Some(dns.address),
        public_url: Some(format!("https://gateway.test:{port}")),
        more: format!(
            "\nprobe: {{interval: 0, timeout: 10s, from: agent}}\nservices: {{one: \"tcp://{}\"}}\n",
            origin.address
        ),
        ..Settings::default()
    })
    .await;
    edge.carry_datagrams(Some(gateway.ports.public));
    let lab = Lab { edge, gateway, dns };
    lab.mend().await;
    let agent = async || {
        let run = [
            "probe",
            "agent",
            "--once",
            "--json",
            "--resolve",
            "127.0.0.1",
        ];
        lab.gateway.cli(&run).await.succeeded()
    };
    assert_eq!(
        lab.provider("test").await["profile"]["effective"],
        Value::Null,
        "nobody looked yet"
    );
    for _ in 0..3 {
        let report: Value = serde_json::from_str(&agent().await).unwrap();
        let checks = report["checks"].as_array().unwrap();
        assert!(checks.len() >= 8, "{report:#}");
        assert!(
            checks.iter().all(|check| check["outcome"] == "pass"),
            "{report:#}"
        );
    }
    lab.is_well().await;
    assert_eq!(
        lab.state("service:one").await,
        "works",
        "the gateway's own to ask"
    );

    let expired = showing(&lab.gateway.state(), "gateway.test", true);
    let plain = lab.gateway.ports.plain;
    lab.edge.behave(Manner::Terminate(expired, plain)).await;
    for _ in 0..3 {
        agent().await;
    }
    lab.loses_both("tls.names", "has expired").await;
    lab.mend().await;
    for _ in 0..3 {
        agent().await;
    }
    lab.is_well().await;
    let records = lab.gateway.records();
    assert!(records.is_empty(), "probes are no traffic: {records:?}");
    // A gateway that probes itself takes nobody's word.
    let own = Lab::start("", "").await;
    let refused = own.gateway.cli(&["probe", "agent", "--once"]).await;
    assert_eq!(refused.code, Some(4), "{}", refused.stderr);
    assert!(refused.stderr.contains("probe.from"), "{}", refused.stderr);
}

#[tokio::test]
async fn asked_for_now_it_looks_now() {
    // Never by itself.
    let dns = Dns::start().await;
    let gateway = Gateway::start(&Settings {
        dns: Some(dns.address),
        more: "\nprobe: {interval: 0}\n".into(),
        ..Settings::default()
    })
    .await;
    let effective = async |path: &str| {
        let reply = gateway.admin("GET", path, "").await;
        let all: Value = serde_json::from_str(&reply.text()).unwrap();
        all[0]["profile"]["effective"].clone()
    };
    assert_eq!(effective("/runtime/providers").await, Value::Null);
    assert_eq!(
        effective("/runtime/providers?probe=now").await["hostServiceAccess"],
        "relay"
    );
    assert_eq!(
        effective("/runtime/providers").await["egressMode"],
        "hostname",
        "what was found is kept"
    );
}
