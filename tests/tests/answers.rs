//! What the admin API answers, in every place of its answers, against the document it publishes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::path::Path;

use e2e::gateway::LOOPBACK_PROVIDER;
use e2e::tasks::{free_port, until_told};
use e2e::{Contract, Settings, World};
use serde_json::json;

/// A file only its owner reads.
fn private(path: &Path, text: &str) -> String {
    std::fs::write(path, text).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, mode).unwrap();
    path.display().to_string()
}

/// A world whose answers have something in each place: a webhook that nobody takes, a capability, a scope of one place.
async fn told_of(directory: &Path) -> World {
    let token = private(&directory.join("ci.token"), "ci-0123456789abcdef");
    let secret = private(&directory.join("hook.secret"), "hook-0123456789abcdef");
    let nobody = free_port().await;
    World::with(Settings {
        runtime: format!(
            "{LOOPBACK_PROVIDER}      default: true\n      \
             session: {{scopes: {{concurrency: 1, queue: 1}}}}\n    \
             bare: {{driver: bare}}\n"
        ),
        more: format!(
            "quotas: {{sessions: 9, owner: {{sessions: 4, bytes: 1GiB}}}}\n\
             services: {{files: {{url: \"tcp://127.0.0.1:9\", health: none}}}}\n\
             capabilities: {{data: {{description: files, secrets: [key], services: [files], expose: [plugin], \
             limits: {{tunnels: 10}}, egress: {{allowedHosts: [more.example.com]}}}}}}\n\
             admin: {{credentials: [{{name: ci, scopes: [read], tokenFile: \"{token}\"}}], \
             webhooks: [{{name: hook, url: \"http://127.0.0.1:{nobody}/\", secretFile: \"{secret}\", \
             events: [session.created], attempts: 1, allowedAddresses: [127.0.0.1]}}]}}\n"
        ),
        ..Settings::default()
    })
    .await
}

/// A session that asks for something of every kind.
fn whole(id: &str) -> String {
    json!({
        "id": id, "owner": "ann", "scope": "chat", "ttl": "2h", "sources": ["127.0.0.0/8"],
        "clientKey": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
        "egress": {
            "defaultAction": "deny",
            "allowedHosts": ["api.example.com", "plain.example.com:80"],
            "deniedHosts": ["*.internal.example.com"],
            "allowedAddresses": ["127.0.0.0/24"],
            "rules": [
                {"host": "api.example.com", "tls": "require", "ech": {"publicNames": ["front.example.com"]}},
                {"host": "plain.example.com:80", "http": {"methods": ["GET"], "pathPrefixes": ["/v1/"]}},
            ],
            "hosts": {"db.example.com": "127.0.0.9"},
            "mode": "report",
        },
        "services": {
            "s3": {
                "url": "tcp://127.0.0.1:9000", "health": "none", "proxyProtocol": "v2",
                "halfCloseTimeout": 30, "idleTimeout": "2h",
                "http": {
                    "hosts": ["s3.local"], "origins": ["https://app.example.com"], "methods": ["GET"],
                    "pathPrefixes": ["/bucket"], "setHeaders": {"X-Tenant": "acme"},
                },
            },
            "grpc": {"url": "unix:///run/g.sock", "peerUid": 1000, "grpc": {"methodPrefix": "/pkg.Service"}},
        },
        "expose": {
            "port": {"dial": "tcp", "patience": "30s", "halfCloseTimeout": "1m", "idleTimeout": "2h"},
            "sock": {"dial": "unix", "peerUid": 0},
        },
        "limits": {
            "tunnels": 10, "tunnelsPerDestination": 4, "opensPerSecond": 5, "bytes": "1GiB", "bandwidth": "1MiB",
        },
    })
    .to_string()
}

#[tokio::test]
async fn every_answer_is_what_the_published_document_says() {
    let directory = tempfile::tempdir().unwrap();
    let world = told_of(directory.path()).await;
    let contract = Contract::of(&world.gateway).await;
    let ask = async |method: &str, path: &str, body: &str, status: u16| {
        contract
            .ask(&world.gateway, method, path, body, status)
            .await
    };
    let sessions = "/runtime/providers/test/sessions";
    let one = format!("{sessions}/one");
    let created = ask("POST", sessions, &whole("one"), 201).await;
    let token = created["env"]["SLUICEGATE_RELAY_TOKEN"].as_str().unwrap();
    assert!(created["session"]["dialTargets"]["port"].is_string());
    let queued = ask("POST", sessions, &whole("two"), 202).await;
    assert_eq!(queued["session"]["queued"]["position"], 1);
    let full = ask("POST", sessions, &whole("three"), 429).await;
    assert_eq!((&full["waiting"], &full["limit"]), (&json!(1), &json!(1)));

    let observed = r#"{"state": "running", "reason": "completed"}"#;
    let observed = ask("POST", &format!("{one}:observe"), observed, 200).await;
    assert_eq!(observed["current"], true);
    let bound = r#"{"services": ["files"], "limits": {"tunnels": 2}}"#;
    let bound = ask("POST", &format!("{one}/capabilities/data"), bound, 201).await;
    assert_eq!(bound["session"]["capabilities"][0]["name"], "data");
    let started = ask("POST", &format!("{one}:start"), "", 200).await;
    assert_eq!(started["staleBindings"].as_array().unwrap().len(), 2);
    let lines = r#"{"records": [{"stream": "stdout", "text": "x"}]}"#;
    let explained = r#"{"provider": "test", "session": "one", "target": "other.example.com"}"#;
    let tested = r#"{"provider": "test", "session": "one", "tests": [{"target": "other.example.com", "expect": "deny"}, {"target": "other.example.com", "expect": "allow", "addresses": ["192.0.2.1"]}]}"#;
    let replayed = r#"{"provider": "test", "session": "one", "records": [{"kind": "tunnel", "target": "other.example.com:443", "session": {"id": "one", "generation": 1}, "address": "192.0.2.1:443", "status": 200, "outcome": "completed", "bytesUp": 517, "bytesDown": 0, "durationMs": 1.500}, {"outcome": "none"}]}"#;
    let revoked = json!({ "credential": token }).to_string();
    let faulty = r#"{"allow": ["*"], "ttl": "soon"}"#;
    for (method, path, body, status) in [
        ("POST", sessions, whole("one").as_str(), 200),
        ("GET", &one, "", 200),
        ("GET", &format!("{sessions}/two"), "", 200),
        ("GET", "/sessions?limit=1", "", 200),
        ("GET", sessions, "", 200),
        ("GET", &format!("{one}/resolved"), "", 200),
        ("GET", &format!("{one}/capabilities"), "", 200),
        ("GET", "/capabilities", "", 200),
        ("POST", &format!("{one}/capabilities/data:disable"), "", 200),
        ("DELETE", &format!("{one}/capabilities/data"), "", 200),
        ("POST", &format!("{one}/logs"), lines, 200),
        ("GET", &format!("{one}/logs"), "", 200),
        ("PATCH", &one, r#"{"limits": {"tunnels": 3}}"#, 200),
        (
            "POST",
            &format!("{one}:pause"),
            r#"{"reason": "rest"}"#,
            200,
        ),
        ("POST", &format!("{one}:keepalive"), "", 409),
        ("POST", &format!("{one}:resume"), "", 200),
        ("POST", &format!("{sessions}/two:reset"), "", 200),
        ("POST", "/policy:explain", explained, 200),
        ("POST", "/policy:test", tested, 200),
        ("POST", "/policy:replay", replayed, 200),
        ("POST", "/policy:test", r#"{"tests": []}"#, 422),
        ("POST", "/policy:replay", "{}", 422),
        ("GET", "/owners", "", 200),
        ("GET", "/owners/ann", "", 200),
        ("POST", "/store:verify", "", 200),
        ("GET", "/status", "", 200),
        ("GET", "/namespaces/default/status", "", 200),
        ("GET", "/runtime/providers?probe=now", "", 200),
        (
            "POST",
            "/runtime/providers/bare/placements:check?probe=now",
            r#"{"egress": {"defaultAction": "allow"}}"#,
            200,
        ),
        ("GET", "/keys", "", 200),
        ("POST", "/keys:rotate", "", 200),
        ("POST", "/credentials:revoke", &revoked, 200),
        ("POST", "/reload", "", 200),
        // And what is refused.
        ("POST", "/runtime/providers/none/sessions", "", 404),
        ("GET", &format!("{sessions}/none"), "", 404),
        ("POST", sessions, r#"{"id": "one"}"#, 409),
        ("POST", sessions, faulty, 422),
        ("POST", sessions, "{", 400),
        ("GET", "/sessions?limit=0", "", 400),
    ] {
        ask(method, path, body, status).await;
    }
    // The same routes of a namespace: what is its own, and what none has a part of.
    let own = "/namespaces/default";
    let credential = r#"{"credential": "none"}"#;
    let placed = format!("{own}/runtime/providers/bare/placements:check?probe=now");
    for (method, path, body, status) in [
        ("GET", format!("{own}/runtime/providers"), "", 200),
        (
            "POST",
            placed,
            r#"{"egress": {"defaultAction": "allow"}}"#,
            200,
        ),
        ("GET", format!("{own}/sessions"), "", 200),
        ("GET", format!("{own}{sessions}"), "", 200),
        ("GET", format!("{own}{one}"), "", 200),
        ("POST", format!("{own}{one}:keepalive"), "", 200),
        ("GET", format!("{own}{one}/resolved"), "", 200),
        ("GET", format!("{own}{one}/logs"), "", 200),
        ("GET", format!("{own}{one}/capabilities"), "", 200),
        ("GET", format!("{own}/capabilities"), "", 200),
        ("POST", format!("{own}/policy:explain"), explained, 200),
        ("POST", format!("{own}/policy:test"), tested, 200),
        ("POST", format!("{own}/policy:replay"), replayed, 200),
        ("GET", format!("{own}/owners"), "", 200),
        ("GET", format!("{own}/owners/ann"), "", 200),
        ("POST", format!("{own}/credentials:revoke"), credential, 404),
        ("POST", format!("{own}/reload"), "", 403),
        ("POST", format!("{own}/drain"), "", 403),
        ("GET", format!("{own}/keys"), "", 403),
        ("POST", format!("{own}/keys:rotate"), "", 403),
        ("POST", format!("{own}/keys:retire"), "", 403),
        ("GET", format!("{own}/webhooks"), "", 403),
        ("POST", format!("{own}/probe:begin"), "", 403),
        ("POST", format!("{own}/probe:report"), "", 403),
        ("POST", format!("{own}/webhooks:redeliver"), "{}", 403),
        ("POST", format!("{own}/store:verify"), "", 403),
    ] {
        ask(method, &path, body, status).await;
    }
    let management = world.gateway.ports.management;
    let operator = std::fs::read_to_string(world.gateway.state().join("admin.token")).unwrap();
    let stale = format!(
        "Authorization: Bearer {}\r\nIf-Match: \"x\"\r\n",
        operator.trim()
    );
    let less = "Authorization: Bearer ci-0123456789abcdef\r\n";
    for (method, path, fields, status) in [
        ("PATCH", &*one, stale.as_str(), 412),
        ("DELETE", &one, less, 403),
        ("GET", "/keys", "", 401),
    ] {
        let full = format!("/admin/api/v1{path}");
        let reply = e2e::web::request(management, method, &full, fields, "{}").await;
        assert_eq!(reply.status(), status, "{method} {path}: {}", reply.text());
        contract.holds(method, path, &reply);
    }
    let fed = world.gateway.admin("GET", "/events?follow=false", "").await;
    assert_eq!(fed.status(), 200);
    contract.holds_head("GET", "/events", &fed);
    let letter = until_told("a dead letter", async || {
        let told = ask("GET", "/webhooks", "", 200).await;
        let letters = told["webhooks"][0]["deadLetters"].as_array()?;
        let letter = json!({ "name": told["webhooks"][0]["name"] });
        (!letters.is_empty()).then_some(letter)
    })
    .await;
    let letter = letter.to_string();
    ask("POST", "/webhooks:redeliver", &letter, 202).await;
    ask("POST", "/webhooks:redeliver", r#"{"name": "none"}"#, 404).await;
    ask("DELETE", &one, "", 200).await;
    ask("POST", "/drain", "", 202).await;
}
