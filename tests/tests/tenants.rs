//! Two namespaces on one gateway: sessions of the same id in both, and what the credential of one sees and does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use e2e::gateway::LOOPBACK_PROVIDER;
use e2e::program::{Finished, Program, binary};
use e2e::wire::Reply;
use e2e::{Gateway, Settings, web};
use serde_json::json;

const SESSIONS: &str = "/runtime/providers/test/sessions";
const TOKEN: &str = "acme-0123456789abcdef";

/// A gateway with a credential that is bounded to the namespace `acme`.
struct Lab {
    gateway: Gateway,
    token: PathBuf,
    _directory: tempfile::TempDir,
}

impl Lab {
    async fn start(more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let token = directory.path().join("acme.token");
        std::fs::write(&token, TOKEN).unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
        let credential = format!(
            "admin: {{credentials: [{{name: acme, scopes: [operate], namespaces: [acme], tokenFile: \"{}\"}}]}}\n",
            token.display()
        );
        let gateway = Gateway::start(&Settings {
            runtime: format!("{LOOPBACK_PROVIDER}{more}"),
            more: credential,
            ..Settings::default()
        })
        .await;
        Self {
            gateway,
            token,
            _directory: directory,
        }
    }

    /// A session that is not started, with further keys of its request.
    async fn create(&self, namespace: &str, id: &str, more: &serde_json::Value) {
        let mut body = json!({ "id": id, "namespace": namespace, "start": false });
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        let created = self
            .gateway
            .admin("POST", SESSIONS, &body.to_string())
            .await;
        assert_eq!(created.status(), 201, "{}", created.text());
    }

    /// The command line with the credential of `acme`.
    async fn acme(&self, arguments: &[&str]) -> Finished {
        let url = format!("http://{}", self.gateway.ports.management);
        Program::new(binary("sluicegate"))
            .args(arguments)
            .args(["--admin-url", &url, "--admin-token-file"])
            .arg(&self.token)
            .run()
            .await
    }

    /// The admin API with the credential of `acme`.
    async fn ask(&self, method: &str, path: &str, body: &str) -> Reply {
        let extra = format!("Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n");
        let path = format!("/admin/api/v1{path}");
        web::request(self.gateway.ports.management, method, &path, &extra, body).await
    }

    /// The state of a session, asked by the operator.
    async fn state(&self, namespace: &str, id: &str) -> String {
        let path = format!("{SESSIONS}/{id}?namespace={namespace}");
        let shown = self.gateway.admin("GET", &path, "").await.json();
        shown["session"]["state"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn an_id_that_two_tenants_have_is_nobodys_until_the_namespace_is_named() {
    let lab = Lab::start("").await;
    for namespace in ["default", "acme"] {
        lab.create(namespace, "s1", &json!({})).await;
    }
    let both = [
        &["session", "stop", "s1"][..],
        &["session", "stop", "s1", "--provider", "test"],
    ];
    for command in both {
        let refused = lab.gateway.cli(command).await;
        assert_eq!(refused.code, Some(2), "{command:?}: {}", refused.stderr);
        assert!(refused.stderr.contains("--namespace"), "{}", refused.stderr);
        assert!(refused.stderr.contains("acme/test"), "{}", refused.stderr);
    }
    assert_eq!(lab.state("default", "s1").await, "idle");
    assert_eq!(lab.state("acme", "s1").await, "idle");
    let named = ["session", "stop", "s1", "--namespace", "acme"];
    lab.gateway.cli(&named).await.succeeded();
    assert_eq!(lab.state("default", "s1").await, "idle");
    assert_eq!(lab.state("acme", "s1").await, "stopped");
    // Whose events they are is told too.
    let events = lab.gateway.cli(&["events"]).await.succeeded();
    for who in ["default/test/s1", "acme/test/s1"] {
        assert!(events.contains(who), "{who} in {events}");
    }
}

#[tokio::test]
async fn the_credential_of_a_namespace_finds_its_own_with_a_provider_and_without() {
    let lab = Lab::start("").await;
    for namespace in ["default", "acme"] {
        lab.create(namespace, "s1", &json!({})).await;
    }
    lab.create("default", "other", &json!({})).await;
    for command in [
        &["session", "show", "s1"][..],
        &["session", "show", "s1", "--provider", "test"],
        &["capability", "list", "s1", "--provider", "test"],
        &["session", "stop", "s1", "--provider", "test"],
    ] {
        lab.acme(command).await.succeeded();
    }
    assert_eq!(lab.state("default", "s1").await, "idle");
    assert_eq!(lab.state("acme", "s1").await, "stopped");
    let unseen = lab.acme(&["session", "show", "other"]).await;
    assert_eq!(unseen.code, Some(4), "{}", unseen.stderr);
}

#[tokio::test]
async fn addresses_of_the_operators_services_are_the_operators_to_see() {
    let services = "      services: {pdb: {url: \"tcp://127.0.0.1:3\"}}\n\
                    capabilities:\n  data: {services: {cdb: {url: \"tcp://127.0.0.1:2\"}}}\n";
    let lab = Lab::start(services).await;
    let own = json!({ "services": { "mine": "tcp://127.0.0.1:4" }, "capabilities": ["data"] });
    lab.create("acme", "s1", &own).await;
    let one = format!("{SESSIONS}/s1?namespace=acme");
    let resolved = format!("{SESSIONS}/s1/resolved?namespace=acme");
    let all = "/sessions?namespace=acme".to_owned();
    for path in [one, resolved, all, "/capabilities".to_owned()] {
        let (seen, whole) = (
            lab.ask("GET", &path, "").await,
            lab.gateway.admin("GET", &path, "").await,
        );
        assert_eq!(seen.status(), 200, "{path}: {}", seen.text());
        let (seen, whole) = (seen.text(), whole.text());
        for address in ["tcp://127.0.0.1:2", "tcp://127.0.0.1:3"] {
            assert!(!seen.contains(address), "{path}: {seen}");
        }
        assert!(whole.contains("tcp://127.0.0.1:2"), "{path}: {whole}");
        let brought = path != "/capabilities";
        assert_eq!(
            seen.contains("tcp://127.0.0.1:4"),
            brought,
            "{path}: {seen}"
        );
    }
    let paused = lab
        .ask("POST", &format!("{SESSIONS}/s1:stop"), "")
        .await
        .text();
    assert!(!paused.contains("tcp://127.0.0.1:3"), "{paused}");
}

#[tokio::test]
async fn a_placement_is_asked_for_what_a_create_takes() {
    let lab =
        Lab::start("capabilities:\n  data: {services: {cdb: {url: \"tcp://127.0.0.1:2\"}}}\n")
            .await;
    let path = "/runtime/providers/test/placements:check?probe=now";
    for body in [
        r#"{"capabilities": ["data"]}"#,
        r#"{"services": {"mydb": "tcp://127.0.0.1:4"}, "hostServices": ["mydb"]}"#,
    ] {
        let told = lab.gateway.admin("POST", path, body).await;
        assert_eq!(told.status(), 200, "{body}: {}", told.text());
        assert_eq!(told.json()["needs"]["hostServices"], true, "{body}");
    }
}
