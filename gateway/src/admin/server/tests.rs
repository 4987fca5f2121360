#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::body::Body;
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::*;
use crate::{
    auth::{
        AdminCredentials, AdminToken, CredentialSource, Principal, Scope, TokenSource, write_file,
    },
    drain::Drain,
    session::testing::Fixture,
    telemetry::{AccessLog, Front, Kind, SessionLabel, Telemetry},
};

struct Gateway {
    fixture: Fixture,
    router: Router,
    token: Arc<AdminToken>,
    credentials: Arc<AdminCredentials>,
    prober: Arc<crate::probe::Prober>,
    telemetry: Telemetry,
    drained: Arc<AtomicUsize>,
    drain: Drain,
}

mod contract;
mod document;
mod feed;
mod placement;
mod policy;
mod quotas;
mod removed;
mod waits;

fn gateway() -> Gateway {
    gateway_of(Fixture::new())
}

fn gateway_of(fixture: Fixture) -> Gateway {
    let token =
        Arc::new(AdminToken::load_or_create(&fixture.dir.path().join("admin.token")).unwrap());
    let drained = Arc::new(AtomicUsize::new(0));
    let count = drained.clone();
    let drain = Drain::default();
    let telemetry = Telemetry::new(AccessLog::open(&Default::default()).unwrap()).unwrap();
    let prober = crate::probe::testing::idle(&fixture.registry, &telemetry);
    let credentials = AdminCredentials::load(&token, &credentials(fixture.dir.path()));
    let credentials = Arc::new(credentials.unwrap());
    let state = State {
        registry: fixture.registry.clone(),
        webhooks: Arc::default(),
        telemetry: telemetry.clone(),
        prober: prober.clone(),
        credentials: credentials.clone(),
        allowed_hosts: Arc::new([]),
        allowed_origins: Arc::new(["https://console.test".to_owned()]),
        admission: Arc::new(Arc::default),
        trials: crate::admin::Trials::default(),
        drain: Arc::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        }),
        reload: Arc::new(|| Box::pin(async { Err("line 3: no".to_owned()) })),
        ready: Arc::new(|| Ok(())),
        status: Arc::new(|| json!({ "version": "test", "listeners": [] })),
        tasks: drain.watch(),
    };
    Gateway {
        router: router(state),
        fixture,
        token,
        credentials,
        prober,
        telemetry,
        drained,
        drain,
    }
}

/// `reader` and `team`, each with its name and `-0123456789abcdef` for a token.
fn credentials(directory: &std::path::Path) -> Vec<CredentialSource> {
    let one = |name: &str, scope, namespaces: Option<&[&str]>, owner: Option<&str>| {
        let path = directory.join(format!("{name}.token"));
        write_file(&path, format!("{name}-0123456789abcdef").as_bytes(), 0o600).unwrap();
        CredentialSource {
            principal: Principal {
                name: name.into(),
                scope,
                namespaces: namespaces.map(|l| l.iter().map(|n| (*n).to_owned()).collect()),
                owner: owner.map(Into::into),
            },
            token: TokenSource::File(path),
        }
    };
    vec![
        one("reader", Scope::Read, None, None),
        one("operator", Scope::Operate, None, None),
        one("team", Scope::Admin, Some(&["team"]), None),
        one("two", Scope::Operate, Some(&["team", "other"]), None),
        one("ann", Scope::Operate, Some(&["team"]), Some("ann")),
    ]
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Gateway {
    fn request(&self, method: &str, path: &str, body: &str) -> Request<Body> {
        Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(path)
            .header("host", "localhost")
            .header(
                "authorization",
                format!("Bearer {}", self.token.secret().reveal()),
            )
            .body(Body::from(body.to_owned()))
            .unwrap()
    }

    /// The answer, which is one that the document has.
    async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = serve(self.router.clone(), request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        let answer = Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        };
        document::holds(&method, &path, &answer);
        answer
    }

    async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        self.send(self.request(method, &format!("/admin/api/v1/{path}"), body))
            .await
    }

    /// As whoever holds the credential of that name; `path` below the API's root.
    async fn by(&self, name: &str, method: &str, path: &str, body: &str) -> Answer {
        let mut request = self.request(method, &format!("/admin/api/v1/{path}"), body);
        let token = format!("Bearer {name}-0123456789abcdef").parse().unwrap();
        request.headers_mut().insert("authorization", token);
        self.send(request).await
    }
}

mod scopes;
mod sockets;

const SESSIONS: &str = "runtime/providers/local/sessions";

#[tokio::test]
async fn a_session_goes_through_its_life_over_http() {
    let g = gateway();
    let created = g
        .call(
            "POST",
            SESSIONS,
            r#"{"id": "one", "allow": ["api.example.com"], "ttl": "1h"}"#,
        )
        .await;
    assert_eq!(created.status, 201);
    assert_eq!(
        created.headers["location"],
        "/admin/api/v1/runtime/providers/local/sessions/one"
    );
    assert_eq!(created.headers["cache-control"], "no-store");
    let session = &created.body["session"];
    assert_eq!(
        (session["id"].as_str(), session["state"].as_str()),
        (Some("one"), Some("running"))
    );
    assert!(
        created.body["env"]["HTTPS_PROXY"]
            .as_str()
            .unwrap()
            .contains("sgh_")
    );
    assert_eq!(created.body["files"], json!([]));

    let again = g
        .call(
            "POST",
            SESSIONS,
            r#"{"ttl": "1h", "allow": ["api.example.com"], "id": "one"}"#,
        )
        .await;
    assert_eq!(again.status, 200);
    assert!(again.body["env"].is_object());
    let other = g.call("POST", SESSIONS, r#"{"id": "one"}"#).await;
    assert_eq!(
        (other.status, other.body["state"].as_str()),
        (409, Some("running"))
    );

    let shown = g.call("GET", &format!("{SESSIONS}/one"), "").await;
    assert_eq!(shown.status, 200);
    assert!(
        shown.body.get("env").is_none(),
        "credentials only where they are issued"
    );
    for (action, status, state) in [
        ("pause", 200, "paused"),
        ("pause", 200, "paused"),
        ("resume", 200, "running"),
        ("keepalive", 200, "running"),
        ("reset", 200, "idle"),
        ("start", 200, "running"),
        ("stop", 200, "stopped"),
        ("stop", 200, "stopped"),
    ] {
        let answer = g
            .call("POST", &format!("{SESSIONS}/one:{action}"), "")
            .await;
        assert_eq!(
            (answer.status, answer.body["session"]["state"].as_str()),
            (status, Some(state)),
            "{action}"
        );
        assert_eq!(answer.body.get("env").is_some(), action == "start");
    }
    let over = g.call("POST", &format!("{SESSIONS}/one:start"), "").await;
    assert_eq!(
        (over.status, over.body["state"].as_str()),
        (409, Some("stopped"))
    );
    assert_eq!(over.headers["content-type"], "application/problem+json");
    for path in [
        "sessions",
        SESSIONS,
        "sessions?provider=local&namespace=default",
    ] {
        assert_eq!(
            g.call("GET", path, "").await.body["sessions"]
                .as_array()
                .unwrap()
                .len(),
            1,
            "{path}"
        );
    }
}

#[tokio::test]
async fn keepalive_takes_seconds_and_patch_takes_blocks() {
    let g = gateway();
    g.call("POST", SESSIONS, r#"{"id": "one", "ttl": 10}"#)
        .await;
    let kept = g
        .call(
            "POST",
            &format!("{SESSIONS}/one:keepalive"),
            r#"{"extendSeconds": 3600}"#,
        )
        .await;
    let before = g.call("GET", &format!("{SESSIONS}/one"), "").await;
    assert_eq!(
        kept.body["session"]["expiresAt"],
        before.body["session"]["expiresAt"]
    );
    let session = g.fixture.registry.show(&g.fixture.key("one")).unwrap();
    assert!(session["expiresAt"].as_str().unwrap() > session["startedAt"].as_str().unwrap());
    assert_eq!(
        g.call(
            "POST",
            &format!("{SESSIONS}/one:keepalive"),
            r#"{"extendSeconds": 0}"#
        )
        .await
        .status,
        422
    );
    assert_eq!(
        g.call(
            "POST",
            &format!("{SESSIONS}/one:pause"),
            r#"{"extendSeconds": 5}"#
        )
        .await
        .status,
        422
    );

    let patched = g
        .call(
            "PATCH",
            &format!("{SESSIONS}/one"),
            r#"{"egress": {"allowedHosts": ["b.example.com"]}}"#,
        )
        .await;
    assert_eq!(
        (
            patched.status,
            patched.body["session"]["policyGeneration"].as_u64()
        ),
        (200, Some(2))
    );
    assert_eq!(
        g.call("DELETE", &format!("{SESSIONS}/one"), "").await.body["session"]["state"],
        "stopped"
    );
    assert_eq!(
        g.call("PATCH", &format!("{SESSIONS}/one"), r#"{"egress": {}}"#)
            .await
            .status,
        409
    );
}

#[tokio::test]
async fn bad_input_gets_every_fault_and_a_problem_document() {
    let g = gateway();
    let bad = g
        .call(
            "POST",
            SESSIONS,
            "{\"ttl\": \"soon\",\n \"allow\": [\"*\"],\n \"speling\": 1}",
        )
        .await;
    assert_eq!(bad.status, 422);
    let lines: Vec<u64> = bad.body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["line"].as_u64().unwrap())
        .collect();
    assert_eq!(lines, [1, 2, 3]);
    for key in ["type", "title", "status", "detail"] {
        assert!(!bad.body[key].is_null(), "{key}");
    }
    let ceiling = g
        .call(
            "POST",
            SESSIONS,
            r#"{"egress": {"allowedAddresses": ["10.0.0.0/8"]}}"#,
        )
        .await;
    assert_eq!(ceiling.status, 422);
    assert!(ceiling.body.to_string().contains("10.0.0.0/8"));
    for (method, path, body, status) in [
        ("POST", SESSIONS, "{", 400),
        ("POST", SESSIONS, "{\"id\": \"a\",", 400),
        ("POST", "policy:explain", "a: [b", 400),
        ("POST", SESSIONS, r#"{"ttl": "25h"}"#, 422),
        ("POST", SESSIONS, r#"{"maxLifetime": "25h"}"#, 422),
        (
            "POST",
            SESSIONS,
            r#"{"maxLifetime": "1h", "ttl": "61m"}"#,
            422,
        ),
        ("POST", SESSIONS, "[]", 422),
        ("POST", "runtime/providers/none/sessions", "{}", 404),
        ("GET", "runtime/providers/none/sessions", "", 404),
        ("GET", "runtime/providers/local/sessions/none", "", 404),
        (
            "POST",
            "runtime/providers/local/sessions/none:start",
            "",
            404,
        ),
        (
            "POST",
            "runtime/providers/local/sessions/one:explode",
            "",
            404,
        ),
        ("POST", "runtime/providers/local/sessions/one", "", 405),
        ("PUT", "sessions", "", 405),
        ("GET", "nothing", "", 404),
        ("POST", "policy:explain", "{}", 422),
        ("POST", "policy:explain", r#"{"target": "not a host"}"#, 422),
        ("POST", "reload", "", 422),
        ("GET", "events?follow=maybe", "", 400),
        ("GET", "events?after=x", "", 400),
        (
            "POST",
            "credentials:revoke",
            r#"{"credential": "rubbish"}"#,
            404,
        ),
    ] {
        let answer = g.call(method, path, body).await;
        assert_eq!(answer.status, status, "{method} {path} {body}");
        assert_eq!(
            answer.headers["content-type"], "application/problem+json",
            "{method} {path}"
        );
    }
    let huge = format!("{{\"id\": \"{}\"}}", "a".repeat(1024 * 1024));
    assert_eq!(g.call("POST", SESSIONS, &huge).await.status, 413);
    let mut request = g.request("POST", &format!("/admin/api/v1/{SESSIONS}"), "");
    *request.body_mut() = Body::from(vec![0xff, 0xfe]);
    assert_eq!(g.send(request).await.status, 400);
}

#[tokio::test]
async fn v102_only_the_header_is_a_credential() {
    let g = gateway();
    let secret = g.token.secret().reveal().to_owned();
    let with = |name: &'static str, value: String, query: &str| {
        let request = Request::builder()
            .uri(format!("/admin/api/v1/sessions{query}"))
            .header("host", "127.0.0.1:9443");
        let request = if name.is_empty() {
            request
        } else {
            request.header(name, value)
        };
        g.send(request.body(Body::empty()).unwrap())
    };
    assert_eq!(
        with("authorization", format!("Bearer {secret}"), "")
            .await
            .status,
        200
    );
    let none = with("", String::new(), "").await;
    assert_eq!(none.status, 401);
    assert!(none.headers.contains_key("www-authenticate"));
    assert_eq!(
        with("cookie", format!("token={secret}"), "").await.status,
        401
    );
    assert_eq!(
        with(
            "",
            String::new(),
            &format!("?access_token={secret}&token={secret}")
        )
        .await
        .status,
        401
    );
    assert_eq!(
        with("authorization", format!("Bearer {secret}x"), "")
            .await
            .status,
        401
    );
    assert_eq!(
        with("authorization", "Bearer ".into(), "").await.status,
        401
    );
}

#[tokio::test]
async fn session_credentials_open_no_admin_door() {
    let g = gateway();
    let created = g.call("POST", SESSIONS, r#"{"id": "one"}"#).await;
    let token = created.body["env"]["SLUICEGATE_RELAY_TOKEN"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut request = g.request("GET", "/admin/api/v1/sessions", "");
    request
        .headers_mut()
        .insert("authorization", format!("Bearer {token}").parse().unwrap());
    assert_eq!(g.send(request).await.status, 401);
}

#[tokio::test]
async fn other_hosts_and_other_pages_are_refused() {
    let g = gateway();
    let with = |name: &'static str, value: &'static str| {
        let mut request = g.request("GET", "/healthz", "");
        request.headers_mut().insert(name, value.parse().unwrap());
        g.send(request)
    };
    assert_eq!(with("host", "evil.test").await.status, 403);
    assert_eq!(with("origin", "https://evil.test").await.status, 403);
    assert_eq!(with("origin", "null").await.status, 403);
    assert_eq!(with("origin", "https://console.test").await.status, 200);
}

#[tokio::test]
async fn health_and_metrics_carry_no_credential() {
    let g = gateway();
    for path in ["/healthz", "/readyz", "/metrics"] {
        let request = Request::builder()
            .uri(path)
            .header("host", "localhost")
            .body(Body::empty())
            .unwrap();
        assert_eq!(g.send(request).await.status, 200, "{path}");
    }
    let aside = g.fixture.dir.path().join("aside");
    std::fs::rename(g.fixture.store_path(), aside).unwrap();
    g.fixture.sweep(std::time::SystemTime::now());
    assert_eq!(
        g.send(g.request("GET", "/readyz", "")).await.status,
        503,
        "an unreadable store is not ready"
    );
}

#[tokio::test]
async fn the_rest_of_the_api_answers() {
    let g = gateway();
    g.call(
        "POST",
        SESSIONS,
        r#"{"id": "one", "allow": ["api.example.com"]}"#,
    )
    .await;
    let providers = g.call("GET", "runtime/providers", "").await.body;
    assert_eq!(
        (
            providers[0]["name"].as_str(),
            providers[0]["sessionCount"].as_u64()
        ),
        (Some("local"), Some(1))
    );
    let explain = |body: &'static str| g.call("POST", "policy:explain", body);
    assert_eq!(
        explain(r#"{"session": "one", "target": "api.example.com"}"#)
            .await
            .body["outcome"],
        "allow"
    );
    assert_eq!(
        explain(r#"{"session": "one", "target": "b.example.com:443"}"#)
            .await
            .body["outcome"],
        "deny"
    );
    let document =
        r#"{"egress": {"allowedHosts": ["b.example.com"]}, "target": "b.example.com:443"}"#;
    assert_eq!(explain(document).await.body["outcome"], "allow");
    let short = r#"{"allow": ["b.example.com"], "target": "b.example.com:443"}"#;
    assert_eq!(explain(short).await.body["outcome"], "allow");
    let unknown = r#"{"capabilities": ["none"], "target": "b.example.com:443"}"#;
    assert_eq!(explain(unknown).await.status, 422);
    let both = r#"{"session": "one", "allow": ["b.example.com"], "target": "b.example.com:443"}"#;
    assert_eq!(explain(both).await.status, 422);
    for (supposed, reason) in [
        (r#""addresses": ["10.0.0.1"]"#, "special_address"),
        (r#""method": "GET""#, "tls_required"),
        (
            r#""began": {"as": "tls", "sni": "evil.test"}"#,
            "sni_mismatch",
        ),
    ] {
        let body = format!(r#"{{"session": "one", "target": "api.example.com", {supposed}}}"#);
        let told = g.call("POST", "policy:explain", &body).await.body;
        assert_eq!(told["reason"], reason, "{supposed}: {told}");
    }
    assert_eq!(
        g.call("GET", "status", "").await.body["sessions"]["running"],
        1
    );
    assert_eq!(
        g.call("POST", "keys:rotate", "").await.body["keys"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(
        g.call("GET", "keys", "").await.body["keys"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(g.call("POST", "drain", "").await.status, 202);
    assert_eq!(g.drained.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn events_are_replayed_and_then_followed() {
    let g = gateway();
    g.call("POST", SESSIONS, r#"{"id": "one"}"#).await;
    let response = g
        .router
        .clone()
        .oneshot(g.request("GET", "/admin/api/v1/events?follow=false", ""))
        .await
        .unwrap();
    let stored = String::from_utf8(
        response
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .to_vec(),
    )
    .unwrap();
    assert_eq!(stored.matches("event: session\n").count(), 2, "{stored}");
    assert!(stored.contains("id: 2\n"));

    let mut request = g.request("GET", "/admin/api/v1/events", "");
    request
        .headers_mut()
        .insert("last-event-id", "1".parse().unwrap());
    let mut body = g.router.clone().oneshot(request).await.unwrap().into_body();
    let mut seen = String::new();
    while !seen.contains(": ready") {
        seen.push_str(
            std::str::from_utf8(body.frame().await.unwrap().unwrap().data_ref().unwrap()).unwrap(),
        );
    }
    assert!(seen.contains("session.started") && !seen.contains("session.created"));
    g.call("POST", &format!("{SESSIONS}/one:pause"), "").await;
    while !seen.contains("session.paused") {
        seen.push_str(
            std::str::from_utf8(body.frame().await.unwrap().unwrap().data_ref().unwrap()).unwrap(),
        );
    }
}

#[tokio::test]
async fn the_socket_serves_and_its_idle_connections_hold_no_drain() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let g = gateway();
    let path = g.fixture.dir.path().join("admin.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let drain = Drain::default();
    drain
        .watch()
        .spawn_service(serve_unix(listener, g.router.clone(), drain.watch()));
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"),
        "{answer}"
    );
    // An idle keep-alive connection does not hold the drain.
    let _idle = tokio::net::UnixStream::connect(&path).await.unwrap();
    assert_eq!(
        drain
            .run(Duration::from_millis(1), Duration::from_secs(5))
            .await,
        0
    );
}

#[tokio::test]
async fn what_a_cursor_cannot_give_is_told() {
    let g = gateway();
    g.call("POST", SESSIONS, r#"{"id": "one"}"#).await;
    let read = async |query: &str| {
        let path = format!("/admin/api/v1/events?follow=false&{query}");
        let response = g.router.clone().oneshot(g.request("GET", &path, ""));
        let body = response.await.unwrap().into_body().collect().await.unwrap();
        String::from_utf8(body.to_bytes().into()).unwrap()
    };
    // The cursor of another store: all there is, and a word about it.
    let reset = read("after=77").await;
    assert!(reset.starts_with("event: reset\ndata: "), "{reset}");
    assert!(
        reset.contains("\"after\":77") && reset.contains("id: 1\n"),
        "{reset}"
    );
    for fine in ["after=0", "after=1", "after=2"] {
        let text = read(fine).await;
        assert!(
            !text.contains("reset") && !text.contains("lagged"),
            "{text}"
        );
    }
    assert_eq!(read("after=2").await, "", "nothing came since");
    // More than are kept: the first of them is number 8.
    let store = g.fixture.registry.store();
    let event = crate::store::NewEvent {
        of: "default".into(),
        body: b"{}".to_vec(),
    };
    let many = crate::store::Batch {
        events: vec![event; 10_005],
        keep_events: Some(10_000),
        ..crate::store::Batch::default()
    };
    assert_eq!(store.commit(&many).unwrap(), 10_007);
    let lagged = read("after=2").await;
    let told =
        "event: lagged\ndata: {\"kind\":\"session\",\"missed\":5,\"type\":\"events.lagged\"}\n\n";
    assert!(lagged.starts_with(told), "{}", &lagged[..200]);
    assert!(lagged[told.len()..].starts_with("event: session\nid: 8\n"));
    assert!(read("after=0").await.starts_with("event: session\nid: 8\n"));
}
