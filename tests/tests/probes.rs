//! The effective profile: one prerequisite broken at a time, exactly that shortfall, and the recovery.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use e2e::edge::showing;
use e2e::tasks::PATIENCE;
use e2e::{Answer, Dns, Edge, Gateway, Manner, Settings, servers};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

/// A gateway known as `gateway.test`, reached through an edge.
struct Lab {
    edge: Edge,
    gateway: Gateway,
    _dns: Dns,
}

impl Lab {
    async fn start(probe: &str, more: &str) -> Self {
        let dns = Dns::start().await;
        dns.point("canary.test");
        Self::with(dns, probe, more).await
    }

    async fn with(dns: Dns, probe: &str, more: &str) -> Self {
        let edge = Edge::start().await;
        let timeout = if probe.contains("timeout") {
            ""
        } else {
            "timeout: 10s, "
        };
        let probe =
            format!("\nprobe: {{interval: 100ms, {timeout}resolve: 127.0.0.1{probe}}}\n{more}");
        let gateway = Gateway::start(&Settings {
            dns: Some(dns.address),
            public_url: Some(format!("https://gateway.test:{}", edge.address.port())),
            more: probe,
            ..Settings::default()
        })
        .await;
        let lab = Self {
            edge,
            gateway,
            _dns: dns,
        };
        lab.edge.carry_datagrams(Some(lab.gateway.ports.public));
        lab.mend().await;
        lab
    }

    /// Bytes go straight to the gateway.
    async fn mend(&self) {
        self.edge
            .behave(Manner::Carry(self.gateway.ports.public))
            .await;
    }

    async fn provider(&self) -> Value {
        let reply = self.gateway.admin("GET", "/runtime/providers", "").await;
        assert_eq!(reply.status(), 200);
        let all: Value = serde_json::from_str(&reply.text()).unwrap();
        all[0].clone()
    }

    /// Waits until the effective profile is this, with exactly these shortfalls: field, setting, and a word of why.
    async fn becomes(&self, access: &str, mode: &str, shortfalls: &[(&str, &str, &str)]) {
        let deadline = Instant::now() + PATIENCE;
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(50));
        loop {
            let provider = self.provider().await;
            let effective = &provider["profile"]["effective"];
            let found = provider["shortfalls"].as_array().unwrap();
            let same = effective["hostServiceAccess"] == access
                && effective["egressMode"] == mode
                && found.len() == shortfalls.len()
                && found.iter().zip(shortfalls).all(|(found, wanted)| {
                    let (field, setting, why) = *wanted;
                    let reason = found["reason"].as_str().unwrap();
                    found["field"] == field && found["setting"] == setting && reason.contains(why)
                });
            if same {
                for one in found {
                    assert!(one["since"].as_u64().unwrap() > 0, "{one}");
                }
                return;
            }
            assert!(
                Instant::now() < deadline,
                "never {access}, {mode}, {shortfalls:?}:\n{provider:#}"
            );
            tick.tick().await;
        }
    }

    async fn is_well(&self) {
        self.becomes("relay", "hostname", &[]).await;
    }

    /// The check's own state, now.
    async fn state(&self, name: &str) -> String {
        let provider = self.provider().await;
        let checks = provider["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == name);
        let check = check.unwrap_or_else(|| panic!("no check {name}: {provider:#}"));
        check["state"].as_str().unwrap().to_owned()
    }

    /// Every stored change of the effective profile: access and mode after it.
    async fn changes(&self) -> Vec<Value> {
        let events = self.gateway.cli(&["events", "--json"]).await;
        let text = events.text();
        let events = text.lines().map(|line| serde_json::from_str(line).unwrap());
        events
            .filter(|event: &Value| event["type"] == "provider.profileChanged")
            // The first that is known changes none.
            .filter(|event| !event["provider"]["before"].is_null())
            .map(|event| event["provider"]["after"].clone())
            .collect()
    }
}

#[tokio::test]
async fn a_certificate_that_expired_takes_both_and_gives_them_back() {
    let lab = Lab::start("", "").await;
    lab.is_well().await;
    let expired = showing(&lab.gateway.state(), "gateway.test", true);
    let plain = lab.gateway.ports.plain;
    lab.edge.behave(Manner::Terminate(expired, plain)).await;
    lab.becomes(
        "none",
        "none",
        &[
            ("hostServiceAccess", "tls.names", "has expired"),
            ("egressMode", "tls.names", "has expired"),
        ],
    )
    .await;
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
    assert!(
        lab.gateway
            .metric("sluicegate_profile_changes_total ")
            .await
            >= 2.0
    );
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
    let why = "not valid for gateway.test";
    lab.becomes(
        "none",
        "none",
        &[
            ("hostServiceAccess", "tls.names", why),
            ("egressMode", "tls.names", why),
        ],
    )
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
    lab.becomes(
        "none",
        "none",
        &[
            ("hostServiceAccess", "probe.resolve", "cannot connect"),
            ("egressMode", "probe.resolve", "cannot connect"),
        ],
    )
    .await;
    lab.mend().await;
    lab.is_well().await;
}

#[tokio::test]
async fn a_proxy_that_lets_everything_pass_loses_hostname_egress_alone() {
    let lab = Lab::start("", "").await;
    lab.is_well().await;
    let right = showing(&lab.gateway.state(), "gateway.test", false);
    let plain = lab.gateway.ports.plain;
    lab.edge.behave(Manner::Leak(right, plain)).await;
    lab.becomes(
        "relay",
        "none",
        &[("egressMode", "publicUrl", "denied.probe.invalid")],
    )
    .await;
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
async fn a_service_that_is_down_loses_host_service_access_alone() {
    let mut redis = servers::redis().await;
    let services = format!(
        "services: {{cache: {{url: \"tcp://{}\", health: redis}}}}\n",
        redis.address
    );
    let lab = Lab::start("", &services).await;
    lab.is_well().await;
    assert_eq!(lab.state("service:cache").await, "works");
    redis.process.signal(rustix::process::Signal::KILL);
    redis.process.wait("redis to be gone").await;
    lab.becomes(
        "none",
        "hostname",
        &[("hostServiceAccess", "services.cache", "cache is not well")],
    )
    .await;
    let placed = lab.placement(r#"{"hostServices": ["cache"]}"#).await;
    assert_eq!(
        placed,
        json!("cannot provide host service access required by this provider")
    );
    // Something else on its port is not the service.
    let port = redis.address;
    let impostor = tokio::net::TcpListener::bind(port).await.unwrap();
    let tasks = e2e::Tasks::default();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = impostor.accept().await {
            use tokio::io::AsyncWriteExt;
            let _ = stream.write_all(b"-LOADING Redis is loading\r\n").await;
        }
    });
    lab.becomes(
        "none",
        "hostname",
        &[("hostServiceAccess", "services.cache", "LOADING")],
    )
    .await;
}

impl Lab {
    async fn placement(&self, workload: &str) -> Value {
        let path = "/runtime/providers/test/placements:check";
        let reply = self.gateway.admin("POST", path, workload).await;
        assert_eq!(reply.status(), 200, "{}", reply.text());
        let body: Value = serde_json::from_str(&reply.text()).unwrap();
        body["reason"].clone()
    }
}

#[tokio::test]
async fn dns_that_is_dead_loses_hostname_egress_alone() {
    let dns = Dns::start().await;
    dns.point("canary.test");
    let lab = Lab::with(dns, ", name: canary.test", "").await;
    lab.is_well().await;
    lab._dns.set("canary.test", Answer::Failing);
    lab.becomes(
        "relay",
        "none",
        &[("egressMode", "dns.servers", "canary.test does not resolve")],
    )
    .await;
    let placed = lab
        .placement(r#"{"egress": {"allowedHosts": ["api.example.com"]}}"#)
        .await;
    assert_eq!(
        placed,
        json!("cannot preserve hostname-based egress required by this provider")
    );
    lab._dns.point("canary.test");
    lab.is_well().await;
}

#[tokio::test]
async fn a_canary_of_the_operators_own_must_pass() {
    let origin = e2e::RawOrigin::start().await;
    let canary = format!(", canary: \"canary.test:{}\"", origin.address.port());
    let lab = Lab::start(&canary, "").await;
    lab.is_well().await;
    assert_eq!(lab.state("proxy.canary").await, "works");
    drop(origin);
    lab.becomes(
        "relay",
        "none",
        &[("egressMode", "probe.canary", "canary.test")],
    )
    .await;
}

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
            "\nprobe: {{interval: 100ms, timeout: 10s, from: agent}}\nservices: {{one: \"tcp://{}\"}}\n",
            origin.address
        ),
        ..Settings::default()
    })
    .await;
    edge.carry_datagrams(Some(gateway.ports.public));
    let lab = Lab {
        edge,
        gateway,
        _dns: dns,
    };
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
        lab.provider().await["profile"]["effective"],
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
    lab.becomes(
        "none",
        "none",
        &[
            ("hostServiceAccess", "tls.names", "has expired"),
            ("egressMode", "tls.names", "has expired"),
        ],
    )
    .await;
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

#[tokio::test]
async fn blocked_udp_is_said_and_takes_nothing_while_tls_carries_the_relay() {
    let any = "services: {any: {url: \"tcp://127.0.0.1:9\", health: none}}\n";
    let lab = Lab::start(", timeout: 2s", any).await;
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
        lab.placement(r#"{"hostServices": ["any"]}"#).await,
        Value::Null
    );
    lab.edge.carry_datagrams(Some(lab.gateway.ports.public));
    lab.is_well().await;
    assert_eq!(lab.changes().await, before, "no profile changed");
}

/// A gateway with one service, which is well.
async fn with_service(service: &str) -> Lab {
    let lab = Lab::start(", timeout: 2s", &format!("services: {{one: {service}}}\n")).await;
    lab.is_well().await;
    assert_eq!(lab.state("service:one").await, "works");
    lab
}

impl Lab {
    /// The service is lost, and nothing else.
    async fn loses_the_service(&self, why: &str) {
        let shortfall = ("hostServiceAccess", "services.one", why);
        self.becomes("none", "hostname", &[shortfall]).await;
    }
}

#[tokio::test]
async fn grpc_health_is_believed_both_ways() {
    let server = servers::python("health.py", &["a.b.Service"]).await;
    let lab = with_service(&format!(
        "{{url: \"tcp://{}\", health: \"grpc:a.b.Service\"}}",
        server.address
    ))
    .await;
    server.process.signal(Signal::USR1);
    lab.loses_the_service("NOT_SERVING").await;
    server.process.signal(Signal::USR2);
    lab.is_well().await;
}

#[tokio::test]
async fn postgresql_answers_an_sslrequest_and_a_stopped_one_does_not() {
    let server = servers::postgres().await;
    let url = format!("tcp://{}", server.address);
    let lab = with_service(&format!("{{url: \"{url}\", health: postgres}}")).await;
    // The postmaster accepts for as long as it exists; stopped, nobody answers.
    server.process.signal(Signal::STOP);
    lab.loses_the_service("one").await;
    server.process.signal(Signal::CONT);
    lab.is_well().await;
}

#[tokio::test]
async fn an_http_path_must_be_answered_2xx_and_a_bare_one_must_accept() {
    let origin = servers::nginx_plain().await;
    let url = format!("tcp://{}", origin.address);
    let lab = with_service(&format!("{{url: \"{url}\", health: /healthz}}")).await;
    server_gone(origin).await;
    lab.loses_the_service("one is not well").await;

    let bare = e2e::RawOrigin::start().await;
    let address = bare.address;
    let lab = with_service(&format!("\"tcp://{address}\"")).await;
    drop(bare);
    lab.loses_the_service("one is not well").await;
    let _back = tokio::net::TcpListener::bind(address).await.unwrap();
    lab.is_well().await;
}

async fn server_gone(mut server: servers::Server) {
    server.process.signal(Signal::KILL);
    server.process.wait("the server to be gone").await;
}
