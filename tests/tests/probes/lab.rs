//! A gateway that is reached through an edge, probes only when it is asked to, and says what it found.

use e2e::gateway::LOOPBACK_PROVIDER;
use e2e::{Dns, Edge, Gateway, Manner, Settings};
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

/// The longest that a change of the effective profile may take: it takes three runs, in each of which something may run
/// into its deadline, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(180);

/// A gateway known as `gateway.test`, reached through an edge.
pub(crate) struct Lab {
    pub(crate) edge: Edge,
    pub(crate) gateway: Gateway,
    pub(crate) dns: Dns,
}

impl Lab {
    /// With further keys of `probe` (`, KEY: VALUE`), and further sections.
    pub(crate) async fn start(probe: &str, more: &str) -> Self {
        Self::of(LOOPBACK_PROVIDER, probe, more).await
    }

    /// With these providers.
    pub(crate) async fn of(runtime: &str, probe: &str, more: &str) -> Self {
        Self::told(runtime, &format!("resolve: 127.0.0.1{probe}"), more).await
    }

    /// Probes find the way by asking for the gateway's name.
    pub(crate) async fn by_name() -> Self {
        Self::told(LOOPBACK_PROVIDER, "from: self", "").await
    }

    async fn told(runtime: &str, probe: &str, more: &str) -> Self {
        let dns = Dns::start().await;
        dns.point("canary.test");
        dns.point("gateway.test");
        let edge = Edge::start().await;
        let timeout = if probe.contains("timeout") {
            ""
        } else {
            "timeout: 10s, "
        };
        let probe = format!("\nprobe: {{interval: 0, {timeout}{probe}}}\n{more}");
        let gateway = Gateway::start(&Settings {
            dns: Some(dns.address),
            public_url: Some(format!("https://gateway.test:{}", edge.address.port())),
            more: probe,
            runtime: runtime.to_owned(),
            ..Settings::default()
        })
        .await;
        let lab = Self { edge, gateway, dns };
        lab.edge.carry_datagrams(Some(lab.gateway.ports.public));
        lab.mend().await;
        lab
    }

    /// Bytes go straight to the gateway.
    pub(crate) async fn mend(&self) {
        self.edge
            .behave(Manner::Carry(self.gateway.ports.public))
            .await;
    }

    /// The provider, as it was found last.
    pub(crate) async fn provider(&self, name: &str) -> Value {
        let reply = self.gateway.admin("GET", "/runtime/providers", "").await;
        assert_eq!(reply.status(), 200);
        named(&reply.json(), name)
    }

    /// The provider, as it is found now (`?probe=now`).
    async fn look(&self, name: &str) -> Value {
        let found = self.gateway.cli(&["provider", "check", "--json"]).await;
        named(&serde_json::from_str(&found.succeeded()).unwrap(), name)
    }

    /// Probes until the effective profile of `test` is this, with exactly these shortfalls: field, setting, and a word of why.
    pub(crate) async fn becomes(
        &self,
        access: &str,
        mode: &str,
        shortfalls: &[(&str, &str, &str)],
    ) {
        self.becomes_of("test", access, mode, shortfalls).await;
    }

    /// As [`Lab::becomes`], of another provider.
    pub(crate) async fn becomes_of(
        &self,
        name: &str,
        access: &str,
        mode: &str,
        shortfalls: &[(&str, &str, &str)],
    ) {
        let deadline = Instant::now() + PATIENCE;
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        loop {
            let provider = self.look(name).await;
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

    pub(crate) async fn is_well(&self) {
        self.becomes("relay", "hostname", &[]).await;
    }

    /// Nothing but host services is lost, for this reason.
    pub(crate) async fn loses_a_service(&self, setting: &str, why: &str) {
        let shortfall = ("hostServiceAccess", setting, why);
        self.becomes("none", "hostname", &[shortfall]).await;
    }

    /// Nothing but hostname egress is lost, for this reason.
    pub(crate) async fn loses_egress(&self, setting: &str, why: &str) {
        let shortfall = ("egressMode", setting, why);
        self.becomes("relay", "none", &[shortfall]).await;
    }

    /// Both are lost, for one reason.
    pub(crate) async fn loses_both(&self, setting: &str, why: &str) {
        let fields = ["hostServiceAccess", "egressMode"];
        let shortfalls = fields.map(|field| (field, setting, why));
        self.becomes("none", "none", &shortfalls).await;
    }

    /// The check's own state, as it was found last; nothing where the provider does not rest on it.
    pub(crate) async fn state_of(&self, provider: &str, name: &str) -> Option<String> {
        let provider = self.provider(provider).await;
        let checks = provider["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == name)?;
        Some(check["state"].as_str().unwrap().to_owned())
    }

    /// The check's own state, as it was found last.
    pub(crate) async fn state(&self, name: &str) -> String {
        let state = self.state_of("test", name).await;
        state.unwrap_or_else(|| panic!("no check {name}"))
    }

    /// Every stored change of an effective profile: access and mode after it.
    pub(crate) async fn changes(&self) -> Vec<Value> {
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

    /// Why the workload is not placeable with the provider.
    pub(crate) async fn placement(&self, provider: &str, workload: &str) -> Value {
        let path = format!("/runtime/providers/{provider}/placements:check");
        let reply = self.gateway.admin("POST", &path, workload).await;
        assert_eq!(reply.status(), 200, "{}", reply.text());
        reply.json()["reason"].clone()
    }
}

fn named(providers: &Value, name: &str) -> Value {
    let all = providers.as_array().unwrap();
    let one = all.iter().find(|provider| provider["name"] == name);
    one.unwrap_or_else(|| panic!("no provider {name}: {providers:#}"))
        .clone()
}
