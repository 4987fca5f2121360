//! Credentials with less than all: scopes, namespaces, owners.
use super::*;

fn token(answer: &Answer) -> &str {
    let kind = answer.body["type"].as_str().unwrap_or_default();
    kind.rsplit(':').next().unwrap()
}

#[tokio::test]
async fn a_scope_is_what_a_route_needs() {
    let g = gateway();
    g.call("POST", SESSIONS, r#"{"id": "one"}"#).await;
    let routes = [
        ("GET", "sessions", "", ["200", "200"]),
        ("GET", &format!("{SESSIONS}/one"), "", ["200", "200"]),
        ("GET", "status", "", ["200", "200"]),
        (
            "POST",
            "policy:explain",
            r#"{"session": "one", "target": "a.test"}"#,
            ["200", "200"],
        ),
        (
            "POST",
            &format!("{SESSIONS}/one:pause"),
            "",
            ["scope", "200"],
        ),
        (
            "PATCH",
            &format!("{SESSIONS}/one"),
            r#"{"allow": ["a.test"]}"#,
            ["scope", "200"],
        ),
        ("DELETE", &format!("{SESSIONS}/one"), "", ["scope", "200"]),
        ("POST", SESSIONS, r#"{"id": "two"}"#, ["scope", "201"]),
        (
            "POST",
            "credentials:revoke",
            r#"{"credential": "x"}"#,
            ["scope", "unknown-credential"],
        ),
        ("POST", "reload", "", ["scope", "scope"]),
        ("POST", "keys:rotate", "", ["scope", "scope"]),
        ("POST", "drain", "", ["scope", "scope"]),
    ];
    for (method, path, body, expected) in routes {
        for (name, expected) in ["reader", "operator"].into_iter().zip(expected) {
            let answer = g.by(name, method, path, body).await;
            let status = answer.status.to_string();
            let found = if answer.status < 400 {
                status.as_str()
            } else {
                token(&answer)
            };
            assert_eq!(found, expected, "{name}: {method} {path}: {}", answer.body);
        }
    }
    assert_eq!(g.drained.load(Ordering::SeqCst), 0);
    let nobody = g.by("stranger", "GET", "sessions", "").await;
    assert_eq!(nobody.status, 401);
}

#[tokio::test]
async fn a_namespace_sees_its_own_sessions_and_no_others() {
    let g = gateway();
    let own = g.by("team", "POST", SESSIONS, r#"{"id": "mine"}"#).await;
    assert_eq!(own.status, 201, "{}", own.body);
    assert_eq!(own.body["session"]["namespace"], "team", "its home");
    g.call("POST", SESSIONS, r#"{"id": "theirs"}"#).await;
    g.call("POST", SESSIONS, r#"{"id": "mine", "namespace": "other"}"#)
        .await;

    let ids = |answer: &Answer| -> Vec<String> {
        let sessions = answer.body["sessions"].as_array().unwrap();
        let name = |s: &Value| format!("{}/{}", s["namespace"], s["id"]).replace('"', "");
        sessions.iter().map(name).collect()
    };
    assert_eq!(
        ids(&g.by("team", "GET", "sessions", "").await),
        ["team/mine"]
    );
    assert_eq!(ids(&g.by("team", "GET", SESSIONS, "").await), ["team/mine"]);
    let two = g.by("two", "GET", "sessions", "").await;
    assert_eq!(ids(&two), ["other/mine", "team/mine"]);
    assert_eq!(ids(&g.call("GET", "sessions", "").await).len(), 3);
    let scoped = g.call("GET", "namespaces/team/sessions", "").await;
    assert_eq!(ids(&scoped), ["team/mine"]);

    for (path, expected) in [
        (format!("{SESSIONS}/mine"), 200),
        (format!("namespaces/team/{SESSIONS}/mine"), 200),
        (format!("{SESSIONS}/mine?namespace=team"), 200),
        (format!("{SESSIONS}/theirs"), 404),
        (format!("{SESSIONS}/theirs?namespace=default"), 404),
        (format!("{SESSIONS}/mine?namespace=other"), 404),
        (format!("namespaces/other/{SESSIONS}/mine"), 404),
        // However it is spelled.
        (
            format!("{SESSIONS}/mine?namespace=team&namespace=other"),
            404,
        ),
        (format!("{SESSIONS}/mine?namespace=%6fther"), 404),
        (format!("{SESSIONS}/mine?%6eamespace=other"), 404),
        (format!("{SESSIONS}/%6dine?namespace=other"), 404),
        (
            format!("namespaces/team/{SESSIONS}/mine?namespace=other"),
            404,
        ),
        (format!("namespaces/../{SESSIONS}/mine"), 404),
    ] {
        let answer = g.by("team", "GET", &path, "").await;
        assert_eq!(answer.status, expected, "{path}: {}", answer.body);
    }
    for body in [
        r#"{"id": "x", "namespace": "other"}"#,
        r#"{"id": "x", "namespace": "default"}"#,
    ] {
        let answer = g.by("team", "POST", SESSIONS, body).await;
        assert_eq!(
            (answer.status, token(&answer)),
            (404, "unknown-namespace"),
            "{body}"
        );
    }
    let both = g
        .call(
            "POST",
            &format!("namespaces/a/{SESSIONS}"),
            r#"{"namespace": "b"}"#,
        )
        .await;
    assert_eq!(token(&both), "two-namespaces");
    let question = r#"{"session": "theirs", "namespace": "default", "target": "a.test"}"#;
    assert_eq!(
        g.by("team", "POST", "policy:explain", question)
            .await
            .status,
        404
    );
    // Its scope is admin, its namespace is not the gateway.
    for (method, path) in [
        ("POST", "drain"),
        ("POST", "reload"),
        ("GET", "keys"),
        ("POST", "keys:rotate"),
        ("POST", "keys:retire"),
        ("GET", "webhooks"),
        ("POST", "probe:begin"),
    ] {
        let answer = g.by("team", method, path, "{}").await;
        assert_eq!((answer.status, token(&answer)), (403, "bounded"), "{path}");
        let why = answer.body["detail"].as_str().unwrap();
        assert!(why.contains(path) && why.contains("\"team\""), "{why}");
        // Nor for whoever sees all: that no namespace has a part of it is said, and nothing done.
        let scoped = format!("namespaces/team/{path}");
        for answer in [
            g.by("team", method, &scoped, "{}").await,
            g.call(method, &scoped, "{}").await,
            g.call(method, &format!("{path}?namespace=team"), "{}")
                .await,
        ] {
            assert_eq!(
                (answer.status, token(&answer)),
                (403, "whole-gateway"),
                "{scoped}"
            );
        }
    }
    assert_eq!(g.drained.load(Ordering::SeqCst), 0);
    let stranger = g.by("stranger", "POST", "namespaces/team/drain", "").await;
    assert_eq!(stranger.status, 401);
    let document = g.request("GET", "/admin/openapi.json", "");
    let mut document = document;
    let own = "Bearer team-0123456789abcdef".parse().unwrap();
    document.headers_mut().insert("authorization", own);
    assert_eq!(g.send(document).await.status, 200);
}

#[tokio::test]
async fn credentials_of_others_are_not_ones_own_to_revoke() {
    let g = gateway();
    let created = async |body: &str| {
        let answer = g.call("POST", SESSIONS, body).await;
        let url = answer.body["env"]["HTTP_PROXY"]
            .as_str()
            .unwrap()
            .to_owned();
        let handle = url.split(['@', ':']).nth(2).unwrap().to_owned();
        let relay = answer.body["env"]["SLUICEGATE_RELAY_TOKEN"]
            .as_str()
            .unwrap()
            .to_owned();
        [handle, relay].map(|credential| json!({ "credential": credential }).to_string())
    };
    let own = created(r#"{"id": "a", "namespace": "team"}"#).await;
    let other = created(r#"{"id": "b", "namespace": "other"}"#).await;
    for credential in &other {
        let answer = g.by("team", "POST", "credentials:revoke", credential).await;
        assert_eq!(token(&answer), "unknown-credential");
    }
    // An id alone says nothing of whose it is: it is revoked of what is the credential's own to revoke, and of nobody's else.
    let id = json!({ "credential": data_encoding::BASE64URL_NOPAD.encode(&[7; 16]) }).to_string();
    let revoked = g.by("team", "POST", "credentials:revoke", &id).await;
    assert_eq!(revoked.status, 200, "{}", revoked.body);
    assert_eq!(revoked.body["known"], false);
    let by_owner = g.by("ann", "POST", "credentials:revoke", &id).await;
    assert_eq!(token(&by_owner), "unknown-credential");
    for credential in &own {
        let answer = g.by("team", "POST", "credentials:revoke", credential).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

/// In its scoped form too, whoever asks: the namespace of the path is the one that is meant.
#[tokio::test]
async fn explain_and_revoke_are_of_the_namespace_in_the_path() {
    let g = gateway();
    let mut handles = Vec::new();
    for (namespace, host) in [("team", "a.test"), ("other", "b.test")] {
        let body = json!({ "id": "one", "namespace": namespace, "allow": [host] });
        let made = g.call("POST", SESSIONS, &body.to_string()).await;
        let url = made.body["env"]["HTTP_PROXY"].as_str().unwrap().to_owned();
        handles.push(url.split(['@', ':']).nth(2).unwrap().to_owned());
    }
    let question = r#"{"session": "one", "target": "a.test"}"#;
    for (path, expected) in [
        ("namespaces/team/policy:explain", "allow"),
        ("policy:explain?namespace=team", "allow"),
        ("namespaces/other/policy:explain", "deny"),
    ] {
        let told = g.call("POST", path, question).await;
        assert_eq!(told.body["outcome"], expected, "{path}: {}", told.body);
    }
    let none = g.call("POST", "namespaces/none/policy:explain", question);
    assert_eq!(none.await.status, 404);
    let two = r#"{"session": "one", "namespace": "other", "target": "a.test"}"#;
    let two = g.call("POST", "namespaces/team/policy:explain", two).await;
    assert_eq!(token(&two), "two-namespaces");
    let theirs = g.by("team", "POST", "namespaces/other/policy:explain", question);
    assert_eq!(token(&theirs.await), "unknown-namespace");

    let of = |handle: &str| json!({ "credential": handle }).to_string();
    let lives = |handle: &str| g.fixture.registry.session_of(handle).is_some();
    for (name, path) in [
        (None, "namespaces/team/credentials:revoke"),
        (None, "credentials:revoke?namespace=team"),
        (Some("team"), "credentials:revoke"),
        (Some("team"), "namespaces/team/credentials:revoke"),
    ] {
        let other = of(&handles[1]);
        let refused = match name {
            Some(name) => g.by(name, "POST", path, &other).await,
            None => g.call("POST", path, &other).await,
        };
        assert_eq!(token(&refused), "unknown-credential", "{name:?} {path}");
        assert!(lives(&handles[1]), "{name:?} {path}");
    }
    let path = "namespaces/team/credentials:revoke";
    let own = g.by("team", "POST", path, &of(&handles[0])).await;
    assert_eq!(own.status, 200, "{}", own.body);
    let path = "namespaces/other/credentials:revoke";
    let other = g.call("POST", path, &of(&handles[1])).await;
    assert_eq!(other.status, 200, "{}", other.body);
    assert!(!lives(&handles[0]) && !lives(&handles[1]));
}

/// No namespace that an owner could invent has a quota of its own for it.
#[tokio::test]
async fn an_owner_cannot_leave_its_namespaces() {
    let g = gateway();
    for body in [
        json!({ "id": "a", "namespace": "inv0" }),
        json!({ "id": "b", "namespace": "default" }),
    ] {
        let answer = g.by("ann", "POST", SESSIONS, &body.to_string()).await;
        assert_eq!(answer.status, 404, "{}", answer.body);
        assert_eq!(token(&answer), "unknown-namespace");
    }
    let path = format!("namespaces/inv1/{SESSIONS}");
    let answer = g.by("ann", "POST", &path, r#"{"id": "c"}"#).await;
    assert_eq!((answer.status, token(&answer)), (404, "unknown-namespace"));
}

#[tokio::test]
async fn whoever_is_not_the_owner_gets_403() {
    let g = gateway();
    let mine = g.by("ann", "POST", SESSIONS, r#"{"id": "hers"}"#).await;
    assert_eq!(mine.body["session"]["owner"], "ann");
    let other = r#"{"id": "his", "namespace": "team", "owner": "bob"}"#;
    g.call("POST", SESSIONS, other).await;
    g.call(
        "POST",
        SESSIONS,
        r#"{"id": "nobodys", "namespace": "team"}"#,
    )
    .await;
    for (method, below) in [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", ":start"),
        ("POST", ":observe"),
        ("GET", "/resolved"),
        ("POST", "/capabilities/x"),
    ] {
        for id in ["his", "nobodys"] {
            let path = format!("{SESSIONS}/{id}{below}");
            let answer = g.by("ann", method, &path, "{}").await;
            assert_eq!(
                (answer.status, token(&answer)),
                (403, "not-the-owner"),
                "{method} {path}"
            );
        }
    }
    let unknown = g
        .by("ann", "POST", &format!("{SESSIONS}/none:start"), "")
        .await;
    assert_eq!((unknown.status, token(&unknown)), (404, "unknown-session"));
    let list = g.by("ann", "GET", "sessions", "").await;
    assert_eq!(list.body["sessions"].as_array().unwrap().len(), 1);
    let stolen = g.by("ann", "POST", SESSIONS, r#"{"owner": "bob"}"#).await;
    assert_eq!(token(&stolen), "not-the-owner");
    assert_eq!(
        g.by("team", "POST", &format!("{SESSIONS}/his:pause"), "")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn events_of_others_are_not_seen() {
    let g = gateway();
    g.call(
        "POST",
        SESSIONS,
        r#"{"id": "a", "namespace": "team", "owner": "bob"}"#,
    )
    .await;
    g.by("ann", "POST", SESSIONS, r#"{"id": "b"}"#).await;
    g.call("POST", SESSIONS, r#"{"id": "c"}"#).await;
    let seen = async |name: Option<&str>, path: &str| {
        let path = format!("/admin/api/v1/{path}");
        let mut request = g.request("GET", &path, "");
        if let Some(name) = name {
            let token = format!("Bearer {name}-0123456789abcdef").parse().unwrap();
            request.headers_mut().insert("authorization", token);
        }
        let response = serve(g.router.clone(), request).await.unwrap();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.into()).unwrap();
        let of = |id: &str| text.contains(&format!("\"id\":\"{id}\""));
        ["a", "b", "c"].map(of)
    };
    assert_eq!(seen(None, "events?follow=false").await, [true, true, true]);
    assert_eq!(
        seen(Some("team"), "events?follow=false").await,
        [true, true, false]
    );
    assert_eq!(
        seen(Some("ann"), "events?follow=false").await,
        [false, true, false]
    );
    let scoped = "namespaces/default/events?follow=false";
    assert_eq!(seen(None, scoped).await, [false, false, true]);
}

/// From the document: what is scoped there is scoped in truth, however it is asked.
#[tokio::test]
async fn every_route_of_a_namespace_is_there_in_each_form() {
    let g = gateway();
    let document = crate::admin::routes::document();
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let Some(rest) = path.strip_prefix("/admin/api/v1/namespaces/{namespace}/") else {
            continue;
        };
        for (method, operation) in item.as_object().unwrap() {
            let answers = operation["responses"].as_object().unwrap();
            if !answers.keys().any(|status| status.starts_with('2')) {
                // No namespace has a part of it.
                continue;
            }
            asked += 1;
            let rest = rest
                .replace("{provider}", "local")
                .replace("{session}", "none")
                .replace("{capability}", "none")
                .replace("{owner}", "none");
            let plain = match rest.as_str() {
                "events" => "events?follow=false",
                rest => rest,
            };
            let (mark, end) = match plain.split_once('?') {
                Some(_) => ('&', "?follow=false"),
                None => ('?', ""),
            };
            let forms = [
                plain.to_owned(),
                format!("{plain}{mark}namespace=team"),
                format!("namespaces/team/{rest}{end}"),
            ];
            for form in forms {
                let method = method.to_uppercase();
                let mut request = g.request(&method, &format!("/admin/api/v1/{form}"), "{}");
                let token = "Bearer team-0123456789abcdef".parse().unwrap();
                request.headers_mut().insert("authorization", token);
                let response = serve(g.router.clone(), request).await.unwrap();
                let status = response.status().as_u16();
                let bytes = response.into_body().collect().await.unwrap().to_bytes();
                let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                let kind = body["type"].as_str().unwrap_or_default();
                for never in [
                    "malformed-query",
                    "bounded",
                    ":not-found",
                    "unknown-namespace",
                ] {
                    assert!(!kind.ends_with(never), "{method} {form}: {status} {kind}");
                }
            }
        }
    }
    assert!(asked > 15, "{asked}");
}

#[tokio::test]
async fn sessions_are_counted_for_whoever_asks() {
    let g = gateway();
    for body in [
        r#"{"id": "a", "namespace": "team", "owner": "ann"}"#,
        r#"{"id": "b", "namespace": "team"}"#,
        r#"{"id": "c"}"#,
    ] {
        g.call("POST", SESSIONS, body).await;
    }
    let count = |answer: &Answer| answer.body[0]["sessionCount"].as_u64().unwrap();
    let providers = "runtime/providers";
    assert_eq!(count(&g.call("GET", providers, "").await), 3);
    let scoped = g.call("GET", "namespaces/team/runtime/providers", "").await;
    assert_eq!(count(&scoped), 2);
    assert_eq!(count(&g.by("team", "GET", providers, "").await), 2);
    assert_eq!(count(&g.by("two", "GET", providers, "").await), 2);
    assert_eq!(count(&g.by("ann", "GET", providers, "").await), 1);
}

#[tokio::test]
async fn a_new_session_stands_where_its_location_says() {
    let g = gateway();
    for (body, place) in [
        (r#"{"id": "a"}"#, "/admin/api/v1/runtime"),
        (
            r#"{"id": "a", "namespace": "team"}"#,
            "/admin/api/v1/namespaces/team/runtime",
        ),
    ] {
        let created = g.call("POST", SESSIONS, body).await;
        assert_eq!(created.status, 201);
        let location = created.headers["location"].to_str().unwrap();
        assert!(location.starts_with(place), "{location}");
        let path = location.strip_prefix("/admin/api/v1/").unwrap();
        let shown = g.call("GET", path, "").await;
        assert_eq!(shown.status, 200, "{path}");
        assert_eq!(shown.headers["etag"], created.headers["etag"]);
    }
}

#[tokio::test]
async fn what_another_owner_has_is_not_told_by_a_create() {
    let g = gateway();
    let theirs = r#"{"id": "t1", "namespace": "team", "owner": "tom"}"#;
    g.call("POST", SESSIONS, theirs).await;
    let taken = g.by("ann", "POST", SESSIONS, r#"{"id": "t1"}"#).await;
    assert_eq!((taken.status, token(&taken)), (403, "not-the-owner"));
    // The same key of two owners is two sessions.
    let create = async |name: &str| {
        let path = format!("/admin/api/v1/{SESSIONS}?namespace=team");
        let mut request = g.request("POST", &path, "{}");
        let token = format!("Bearer {name}-0123456789abcdef").parse().unwrap();
        request.headers_mut().insert("authorization", token);
        let key = "run-1".parse().unwrap();
        request.headers_mut().insert("idempotency-key", key);
        g.send(request).await
    };
    let (team, ann) = (create("team").await, create("ann").await);
    assert_eq!((team.status, ann.status), (201, 201), "{}", ann.body);
    assert_eq!(create("ann").await.status, 200);
    assert_ne!(team.body["session"]["id"], ann.body["session"]["id"]);
}

#[tokio::test]
async fn a_status_is_of_what_one_sees() {
    let g = gateway();
    for body in [
        r#"{"id": "a", "namespace": "team", "owner": "ann"}"#,
        r#"{"id": "b", "namespace": "team", "start": false}"#,
        r#"{"id": "c", "namespace": "other"}"#,
        r#"{"id": "d"}"#,
    ] {
        assert_eq!(g.call("POST", SESSIONS, body).await.status, 201);
    }
    let refuse = |namespace: &str, owner: Option<&str>, count| {
        for _ in 0..count {
            let source: std::net::SocketAddr = "127.0.0.1:1".parse().unwrap();
            let mut one = g.telemetry.begin(Kind::tunnel, Front::connect, source);
            let session = SessionLabel {
                namespace: namespace.into(),
                provider: "local".into(),
                id: "x".into(),
                generation: 1,
                owner: owner.map(Into::into),
            };
            one.session(session, 1);
            one.refused(&sluicegate_policy::Denial::HostNotAllowed.into());
        }
    };
    refuse("team", Some("ann"), 1);
    refuse("team", None, 2);
    refuse("other", None, 4);
    refuse("default", None, 8);
    let sum = |answer: &Answer, key: &str| -> u64 {
        let counts = answer.body[key].as_object().unwrap();
        counts.values().map(|count| count.as_u64().unwrap()).sum()
    };
    let scoped = "namespaces/team/status";
    for (answer, sessions, refusals) in [
        (g.call("GET", "status", "").await, 4, 15),
        (g.call("GET", scoped, "").await, 2, 3),
        (g.by("team", "GET", "status", "").await, 2, 3),
        (g.by("team", "GET", scoped, "").await, 2, 3),
        (g.by("two", "GET", "status", "").await, 3, 7),
        (
            g.by("two", "GET", "namespaces/other/status", "").await,
            1,
            4,
        ),
        (g.by("ann", "GET", "status", "").await, 1, 1),
    ] {
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(sum(&answer, "sessions"), sessions, "{}", answer.body);
        assert_eq!(
            sum(&answer, "refusalsLastHour"),
            refusals,
            "{}",
            answer.body
        );
        let since = answer.body["refusalsSince"].as_str().unwrap();
        assert!(crate::clock::is_rfc3339(since), "{since}");
    }
    let whole = g.call("GET", "status", "").await.body;
    let team = g.by("team", "GET", "status", "").await.body;
    assert!(whole["listeners"].is_array() && whole["accessRecordsDropped"].is_u64());
    assert!(team["listeners"].is_null() && team["accessRecordsDropped"].is_null());
    assert_eq!(team["quota"]["sessions"]["inUse"], 2);
    let other = g.by("team", "GET", "namespaces/other/status", "").await;
    assert_eq!(token(&other), "unknown-namespace");
}

#[tokio::test]
async fn an_owner_sees_what_is_in_use() {
    let mut config = crate::session::testing::config();
    config.owner_quota.sessions = Some(3);
    config.owner_quota.limits.bytes = Some(1000);
    let g = gateway_of(Fixture::with(config));
    for (id, namespace, owner) in [
        ("a", "team", "ann"),
        ("b", "team", "ann"),
        ("c", "team", "bob"),
        ("d", "other", "ann"),
    ] {
        let body = json!({ "id": id, "namespace": namespace, "owner": owner }).to_string();
        assert_eq!(g.call("POST", SESSIONS, &body).await.status, 201);
    }
    let index = g.fixture.registry.index();
    let key = crate::session::SessionKey {
        namespace: "team".into(),
        ..g.fixture.key("a")
    };
    let live = index.session(&key).unwrap();
    live.session.budget().spend(70).unwrap();
    let slot = live.session.budget().open(std::time::SystemTime::now());
    g.call("POST", &format!("namespaces/team/{SESSIONS}/b:stop"), "")
        .await;

    let ann = g.call("GET", "namespaces/team/owners/ann", "").await;
    assert_eq!(ann.status, 200, "{}", ann.body);
    let ann = &ann.body["owner"];
    assert_eq!(
        (&ann["namespace"], &ann["owner"]),
        (&json!("team"), &json!("ann"))
    );
    let sessions = json!({ "inUse": 1, "limit": 3, "states": { "running": 1, "stopped": 1 } });
    assert_eq!(ann["sessions"], sessions);
    assert_eq!(ann["bytes"], json!({ "inUse": 70, "limit": 1000 }));
    assert_eq!(ann["tunnels"], json!({ "inUse": 1, "limit": null }));
    assert!(ann["lastActivity"].is_string());
    drop(slot);

    let names = |answer: &Answer| -> Vec<String> {
        let owners = answer.body["owners"].as_array().unwrap();
        let name = |one: &Value| format!("{}/{}", one["namespace"], one["owner"]).replace('"', "");
        owners.iter().map(name).collect()
    };
    let all = g.call("GET", "owners", "").await;
    assert_eq!(names(&all), ["other/ann", "team/ann", "team/bob"]);
    let first = g.call("GET", "owners?limit=2", "").await;
    assert_eq!(names(&first), ["other/ann", "team/ann"]);
    let after = first.body["next"].as_str().unwrap();
    let rest = g
        .call("GET", &format!("owners?limit=2&after={after}"), "")
        .await;
    assert_eq!(names(&rest), ["team/bob"]);
    assert!(rest.body["next"].is_null());
    for (who, expected) in [
        ("team", vec!["team/ann", "team/bob"]),
        ("two", vec!["other/ann", "team/ann", "team/bob"]),
        ("ann", vec!["team/ann"]),
    ] {
        assert_eq!(
            names(&g.by(who, "GET", "owners", "").await),
            expected,
            "{who}"
        );
    }
    for (who, path, expected) in [
        ("ann", "owners/ann", "200"),
        ("ann", "owners/bob", "not-the-owner"),
        ("team", "owners/bob", "200"),
        ("team", "owners/carol", "unknown-owner"),
        ("team", "namespaces/other/owners/ann", "unknown-namespace"),
        ("two", "owners/ann", "unknown-namespace"),
        ("two", "owners/ann?namespace=other", "200"),
    ] {
        let answer = g.by(who, "GET", path, "").await;
        let status = answer.status.to_string();
        let found = if answer.status == 200 {
            &status
        } else {
            token(&answer)
        };
        assert_eq!(found, expected, "{who} {path}: {}", answer.body);
    }
    for bad in ["owners?limit=0", "owners?after=!", "owners?after=YQ"] {
        assert_eq!(g.call("GET", bad, "").await.status, 400, "{bad}");
    }
}
