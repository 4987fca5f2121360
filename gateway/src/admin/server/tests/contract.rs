//! The published contract: the document, and the manners every route keeps.

use std::collections::BTreeSet;

use super::*;
use crate::admin::routes;

/// Its own operation's keys, not those of another that is the same route.
#[tokio::test]
async fn an_action_that_waits_for_nothing_takes_no_wait() {
    let g = gateway();
    g.call("POST", SESSIONS, r#"{"id": "one"}"#).await;
    for (action, status) in [("pause", 400), ("start", 200)] {
        let path = format!("{SESSIONS}/one:{action}?wait=1");
        assert_eq!(g.call("POST", &path, "").await.status, status, "{action}");
    }
}

#[tokio::test]
async fn what_is_appended_to_a_log_at_once_is_bounded() {
    let g = gateway();
    g.call("POST", SESSIONS, r#"{"id": "one"}"#).await;
    let append = async |count: usize, bytes: usize| {
        let record = json!({ "stream": "stdout", "text": "x".repeat(bytes) });
        let body = json!({ "records": vec![record; count] }).to_string();
        let answer = g.call("POST", &format!("{SESSIONS}/one/logs"), &body).await;
        (answer.status, answer.body)
    };
    let most = 16 * 1024;
    assert_eq!(append(1, most).await.0, 200);
    assert_eq!(append(1, most + 1).await.0, 422);
    assert_eq!(append(1000, 900).await.0, 200);
    assert_eq!(append(1001, 1).await.0, 422);
    // As many as may be, each as long as may be: more than a body.
    let (status, told) = append(1000, most).await;
    assert_eq!((status, &told["limit"]), (413, &json!(1024 * 1024)));
    assert!(told["detail"].as_str().unwrap().contains("1 MiB"), "{told}");
}

/// The document in `docs/`, which reviews see change. `BLESS=1 cargo test` writes it anew.
#[test]
fn the_published_document_is_the_one_that_is_served() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    let served = format!("{:#}\n", routes::document());
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &served).unwrap();
    }
    let published = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        published == served,
        "docs/openapi.json is not what is served: BLESS=1 cargo test -p sluicegate --lib published"
    );
}

#[test]
fn every_reference_of_the_document_leads_somewhere_and_ids_are_unique() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(to)) = map.get("$ref") {
                    found.push(to.trim_start_matches('#').to_owned());
                }
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = routes::document();
    let mut found = Vec::new();
    references(document, &mut found);
    assert!(found.len() > 50);
    for reference in found {
        assert!(document.pointer(&reference).is_some(), "{reference}");
    }
    let mut ids = BTreeSet::new();
    let mut operations = 0;
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            operations += 1;
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()));
        }
    }
    assert!(operations > 20);
    // The schema of a whole document is not ours to check here; tests/openapi does, with a client.
    assert_eq!(document["openapi"], "3.1.0");
}

#[test]
fn every_route_is_there_scoped_and_the_gateways_own_are_refused() {
    const API: &str = "/admin/api/v1/";
    const SCOPED: &str = "/admin/api/v1/namespaces/{namespace}/";
    let paths = routes::document()["paths"].as_object().unwrap();
    let succeeds = |operation: &Value| {
        let answers = operation["responses"].as_object().unwrap();
        answers.keys().any(|status| status.starts_with('2'))
    };
    let mut refused = BTreeSet::new();
    for (path, item) in paths {
        let Some(rest) = path.strip_prefix(API).filter(|_| !path.starts_with(SCOPED)) else {
            continue;
        };
        let scoped = &paths[&format!("{SCOPED}{rest}")];
        for (method, operation) in item.as_object().unwrap() {
            let twin = &scoped[method];
            let id = operation["operationId"].as_str().unwrap();
            assert_eq!(twin["operationId"], format!("{id}InNamespace"), "{path}");
            assert!(succeeds(operation), "{path}");
            if !succeeds(twin) {
                assert!(twin["responses"]["403"].is_object() && twin["requestBody"].is_null());
                refused.insert(rest);
            }
        }
    }
    let whole = [
        "drain",
        "keys",
        "keys:retire",
        "keys:rotate",
        "probe:begin",
        "probe:report",
        "reload",
        "store:verify",
        "webhooks",
        "webhooks:redeliver",
    ];
    assert_eq!(refused.into_iter().collect::<Vec<_>>(), whole);
}

#[tokio::test]
async fn the_document_is_served_behind_the_guard() {
    let g = gateway();
    let mut request = g.request("GET", "/admin/openapi.json", "");
    let answer = g.send(request).await;
    assert_eq!(answer.status, 200);
    assert_eq!(&answer.body, routes::document());
    request = g.request("GET", "/admin/openapi.json", "");
    request.headers_mut().remove("authorization");
    assert_eq!(g.send(request).await.status, 401);
}

#[tokio::test]
async fn what_no_route_takes_is_refused_before_anything_is_done() {
    let g = gateway();
    for (method, path, status) in [
        ("GET", "sessions?limits=1", 400),
        ("GET", "sessions?limit=0", 400),
        ("GET", "sessions?limit=1001", 400),
        ("GET", "sessions?limit=1&limit=2", 400),
        ("GET", "sessions?after=!", 400),
        ("GET", "keys?x=1", 400),
        ("GET", "runtime/providers?probe=later", 400),
        (
            "GET",
            "runtime/providers/local/sessions/none/logs?limit=0",
            400,
        ),
        ("POST", "drain?now=1", 400),
        ("PUT", "sessions", 405),
        ("DELETE", "keys", 405),
    ] {
        let answer = g.call(method, path, "").await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        if status == 405 {
            assert!(answer.headers.contains_key("allow"), "{method} {path}");
        }
    }
    assert_eq!(g.drained.load(Ordering::SeqCst), 0);
    let mut form = g.request("POST", &format!("/admin/api/v1/{SESSIONS}"), "id=one");
    let kind = "application/x-www-form-urlencoded";
    form.headers_mut()
        .insert("content-type", kind.parse().unwrap());
    assert_eq!(g.send(form).await.status, 415);
    let mut page = g.request("GET", "/admin/api/v1/sessions", "");
    page.headers_mut()
        .insert("accept", "text/html".parse().unwrap());
    assert_eq!(g.send(page).await.status, 406);
    let mut events = g.request("GET", "/admin/api/v1/events?follow=false", "");
    events
        .headers_mut()
        .insert("accept", "application/json".parse().unwrap());
    assert_eq!(g.send(events).await.status, 406);
}

#[tokio::test]
async fn lists_come_in_pages_that_lose_and_repeat_nothing() {
    let g = gateway();
    for index in 0..7 {
        let body = format!(r#"{{"id": "s{index}", "start": false}}"#);
        assert_eq!(g.call("POST", SESSIONS, &body).await.status, 201);
    }
    for base in ["sessions", SESSIONS] {
        let mut seen = Vec::new();
        let mut path = format!("{base}?limit=3");
        loop {
            let answer = g.call("GET", &path, "").await;
            assert_eq!(answer.status, 200, "{path}");
            let page = answer.body["sessions"].as_array().unwrap();
            seen.extend(page.iter().map(|s| s["id"].as_str().unwrap().to_owned()));
            let Some(next) = answer.body["next"].as_str() else {
                break;
            };
            assert_eq!(page.len(), 3);
            path = format!("{base}?limit=3&after={next}");
        }
        let all: Vec<String> = (0..7).map(|index| format!("s{index}")).collect();
        assert_eq!(seen, all);
    }
    let exact = g.call("GET", "sessions?limit=7", "").await;
    assert!(exact.body.get("next").is_none(), "nothing comes after");
    let other = g.call("GET", "sessions?namespace=other", "").await;
    assert_eq!(other.body["sessions"], json!([]));
}

#[tokio::test]
async fn an_idempotency_key_is_one_session_across_a_restart() {
    let g = gateway();
    let create = |g: &Gateway, key: &str, body: &str| {
        let mut request = g.request("POST", &format!("/admin/api/v1/{SESSIONS}"), body);
        request
            .headers_mut()
            .insert("idempotency-key", key.parse().unwrap());
        request
    };
    let body = r#"{"allow": ["api.example.com"]}"#;
    let first = g.send(create(&g, "key-1", body)).await;
    assert_eq!(first.status, 201);
    let again = g.send(create(&g, "key-1", body)).await;
    assert_eq!(again.status, 200);
    assert_eq!(again.body["session"]["id"], first.body["session"]["id"]);
    assert!(
        again.body["env"].is_object(),
        "a lost answer loses no session"
    );
    let another = g.send(create(&g, "key-1", "{}")).await;
    assert_eq!(another.status, 409, "the same key for another request");
    let other = g.send(create(&g, "key-2", body)).await;
    assert_eq!(other.status, 201);
    assert_ne!(other.body["session"]["id"], first.body["session"]["id"]);
    let empty = g.send(create(&g, "", body)).await;
    assert_eq!(empty.status, 400);
    let mut two = create(&g, "key-1", body);
    two.headers_mut()
        .append("idempotency-key", "key-2".parse().unwrap());
    assert_eq!(g.send(two).await.status, 400);
    let Gateway {
        fixture,
        router,
        prober,
        ..
    } = g;
    drop((router, prober));
    let g = gateway_of(fixture.restarted());
    let after = g.send(create(&g, "key-1", body)).await;
    assert_eq!(after.status, 200);
    assert_eq!(after.body["session"]["id"], first.body["session"]["id"]);
}

#[tokio::test]
async fn a_change_meant_for_another_version_is_refused() {
    let g = gateway();
    g.call("POST", SESSIONS, r#"{"id": "one"}"#).await;
    let shown = g.call("GET", &format!("{SESSIONS}/one"), "").await;
    let tag = shown.headers["etag"].clone();
    assert_eq!(
        tag.to_str().unwrap(),
        format!("\"{}\"", shown.body["session"]["etag"].as_str().unwrap())
    );
    let patch = |tag: &str, body: &str| {
        let mut request = g.request("PATCH", &format!("/admin/api/v1/{SESSIONS}/one"), body);
        request
            .headers_mut()
            .insert("if-match", tag.parse().unwrap());
        request
    };
    let first = r#"{"allow": ["a.example.com"]}"#;
    let changed = g.send(patch(tag.to_str().unwrap(), first)).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    let now = changed.headers["etag"].clone();
    assert_ne!(now, tag);
    let second = r#"{"allow": ["b.example.com"]}"#;
    for stale in [tag.to_str().unwrap(), "\"nonsense\"", "W/\"x\"", "bare"] {
        let refused = g.send(patch(stale, second)).await;
        assert_eq!(refused.status, 412, "{stale}");
        assert_eq!(
            format!("\"{}\"", refused.body["etag"].as_str().unwrap()),
            now.to_str().unwrap()
        );
    }
    let listed = format!("\"x\", {}", now.to_str().unwrap());
    assert_eq!(g.send(patch(&listed, second)).await.status, 200);
    assert_eq!(g.send(patch("*", first)).await.status, 200);
}

#[tokio::test]
async fn every_change_of_a_session_keeps_to_if_match() {
    let g = gateway();
    let created = g.call("POST", SESSIONS, r#"{"id": "one"}"#).await;
    let tag = created.headers["etag"].clone();
    let ask = async |method: &str, path: &str, tag: &str| {
        let mut request = g.request(method, &format!("/admin/api/v1/{path}"), "");
        request
            .headers_mut()
            .insert("if-match", tag.parse().unwrap());
        g.send(request).await
    };
    let own = format!("{SESSIONS}/one");
    for (method, what) in [
        ("POST", ":start"),
        ("POST", ":pause"),
        ("POST", ":resume"),
        ("POST", ":keepalive"),
        ("POST", ":reset"),
        ("POST", ":stop"),
        ("DELETE", ""),
        ("POST", "/capabilities/any"),
        ("POST", "/capabilities/any:enable"),
        ("POST", "/capabilities/any:update"),
        ("DELETE", "/capabilities/any"),
    ] {
        let refused = ask(method, &format!("{own}{what}"), "\"stale\"").await;
        assert_eq!(refused.status, 412, "{method} {what}: {}", refused.body);
    }
    let now = g.call("GET", &own, "").await;
    assert_eq!(now.headers["etag"], tag, "nothing changed");

    let paused = ask("POST", &format!("{own}:pause"), tag.to_str().unwrap()).await;
    assert_eq!(paused.status, 200, "{}", paused.body);
    let again = ask("POST", &format!("{own}:resume"), tag.to_str().unwrap()).await;
    assert_eq!(again.status, 412, "it is another one by now");
    let now = paused.headers["etag"].to_str().unwrap();
    assert_eq!(ask("DELETE", &own, now).await.status, 200);

    // What has no tag cannot be held to one.
    for path in ["reload", "drain", "keys:rotate", SESSIONS] {
        let refused = ask("POST", path, "\"any\"").await;
        assert_eq!(refused.status, 400, "{path}");
        assert_eq!(refused.body["type"], "urn:sluicegate:problem:no-etag");
    }
}

#[tokio::test]
async fn what_an_action_is_told_is_read_and_bounded() {
    let g = gateway();
    g.call("POST", SESSIONS, r#"{"id": "one", "secretIds": ["x"]}"#)
        .await;
    let missing = g.call("GET", &format!("{SESSIONS}/one"), "").await;
    assert_eq!(missing.status, 404, "there are no secrets to begin with");
    g.call("POST", SESSIONS, r#"{"id": "one"}"#).await;
    let pause = async |reason: &str| {
        let body = json!({ "reason": reason }).to_string();
        g.call("POST", &format!("{SESSIONS}/one:pause"), &body)
            .await
            .status
    };
    assert_eq!(pause(&"x".repeat(1025)).await, 422);
    assert_eq!(pause(&"x".repeat(1024)).await, 200);
    for body in [r#"{"garbage": 1}"#, "[1]"] {
        let path = format!("{SESSIONS}/one/capabilities/x:enable");
        assert_eq!(g.call("POST", &path, body).await.status, 422, "{body}");
    }
    let retire = async |kid: &str| {
        let body = json!({ "kid": kid }).to_string();
        g.call("POST", "keys:retire", &body).await
    };
    let signing = g.call("GET", "keys", "").await.body["keys"][0]["kid"].clone();
    let signing = signing.as_str().unwrap();
    assert_eq!(retire(signing).await.status, 409);
    assert_eq!(retire("../admin").await.status, 404);
    g.call("POST", "keys:rotate", "").await;
    let left = retire(signing).await;
    assert_eq!(left.status, 200, "{}", left.body);
    assert_eq!(left.body["keys"].as_array().unwrap().len(), 1);
    assert_eq!(retire(signing).await.status, 404);
}

#[tokio::test]
async fn what_is_not_there_is_not_an_empty_list() {
    let g = gateway();
    for query in ["provider=nosuch", "namespace=a%20b", "namespace="] {
        let answer = g.call("GET", &format!("sessions?{query}"), "").await;
        assert_eq!(answer.status, 404, "{query}: {}", answer.body);
    }
    for query in ["provider=local", "namespace=empty"] {
        let answer = g.call("GET", &format!("sessions?{query}"), "").await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.body);
    }
    g.call("POST", SESSIONS, r#"{"id": "one"}"#).await;
    let bare = g.call("POST", &format!("{SESSIONS}/one"), "").await;
    assert_eq!(bare.status, 405);
    assert_eq!(bare.headers["allow"], "GET, HEAD, PATCH, DELETE");
}

#[tokio::test]
async fn an_empty_last_event_id_is_none() {
    let g = gateway();
    let mut request = g.request("GET", "/admin/api/v1/events?follow=false", "");
    request
        .headers_mut()
        .insert("last-event-id", "".parse().unwrap());
    let response = serve(g.router.clone(), request).await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn an_idempotency_key_is_one_rotation() {
    let g = gateway();
    let rotate = async |key: Option<&str>| {
        let mut request = g.request("POST", "/admin/api/v1/keys:rotate", "");
        if let Some(key) = key {
            let key = key.parse().unwrap();
            request.headers_mut().insert("idempotency-key", key);
        }
        g.send(request).await
    };
    let once = rotate(Some("key-1")).await;
    assert_eq!(once.status, 200);
    assert_eq!(once.body["keys"].as_array().unwrap().len(), 2);
    assert_eq!(rotate(Some("key-1")).await.body, once.body);
    let other = rotate(Some("key-2")).await;
    assert_eq!(other.body["keys"].as_array().unwrap().len(), 3);
    assert_eq!(rotate(Some("key-1")).await.body, other.body, "as it is now");
    let keyless = rotate(None).await;
    assert_eq!(keyless.body["keys"].as_array().unwrap().len(), 4);
    let long = "k".repeat(256);
    assert_eq!(rotate(Some(&long)).await.status, 400);
}
