//! Policies tried out over the API: the engine of `sluicegate policy`, for those who may know the policy.

use super::*;

#[tokio::test]
async fn expectations_are_held_against_a_session_or_what_one_would_ask_for() {
    let g = gateway();
    let body = r#"{"id": "one", "allow": ["api.example.com"]}"#;
    assert_eq!(g.call("POST", SESSIONS, body).await.status, 201);
    let tests = json!([
        { "target": "api.example.com", "expect": "allow", "rule": "allowedHosts[0]" },
        { "target": "other.example.com", "expect": "allow" },
        { "target": "api.example.com", "expect": "deny", "reason": "special_address", "addresses": ["10.0.0.1"] },
    ]);
    for about in [
        json!({ "session": "one" }),
        json!({ "allow": ["api.example.com"] }),
    ] {
        let mut body = about.clone();
        body["tests"] = tests.clone();
        let told = g.call("POST", "policy:test", &body.to_string()).await;
        assert_eq!(told.status, 200, "{about}: {}", told.body);
        let counts = (&told.body["passed"], &told.body["failed"]);
        assert_eq!(counts, (&json!(2), &json!(1)), "{about}: {}", told.body);
        let failed = &told.body["tests"][1];
        assert_eq!(failed["passed"], false);
        assert_eq!(failed["reason"], "host_not_allowed");
        let said = failed["differences"][0].as_str().unwrap();
        assert!(said.contains("expected allow, found deny"), "{said}");
    }
}

#[tokio::test]
async fn access_records_are_decided_again() {
    let g = gateway();
    let body = json!({
        "allow": ["a.example.com"],
        "records": [
            { "target": "a.example.com:443", "outcome": "completed", "reason": null, "bytesUp": 7 },
            { "target": "b.example.com:443", "outcome": "completed", "answers": ["203.0.114.9"] },
            { "target": "a.example.com:443", "outcome": "refused", "reason": "host_not_allowed" },
            { "target": "c.example.com:443", "outcome": "refused", "reason": "credential_invalid" },
            { "outcome": "lost" },
            "no record",
        ],
    });
    let told = g.call("POST", "policy:replay", &body.to_string()).await;
    assert_eq!(told.status, 200, "{}", told.body);
    let told = told.body;
    assert_eq!(told["records"], 3);
    assert_eq!(told["stillAllowed"], 1);
    let denied = &told["newlyDenied"]["targets"]["b.example.com:443"];
    assert_eq!(denied["reason"], "host_not_allowed");
    assert_eq!(
        told["newlyAllowed"]["targets"]["a.example.com:443"]["records"],
        1
    );
    assert_eq!(
        (&told["unjudged"], &told["malformed"]),
        (&json!(1), &json!(2))
    );
    let named = told["malformedLines"].as_array().unwrap();
    assert!(
        named[0].as_str().unwrap().starts_with("record 5: "),
        "{named:?}"
    );
}

/// An explanation is what the proxy would do: it judges what a server may read in place of the line.
#[tokio::test]
async fn an_explanation_reads_a_request_as_servers_may() {
    let g = gateway();
    let rules = json!([{ "host": "a.example.com:80", "http": { "methods": ["GET"], "pathPrefixes": ["/v1"] } }]);
    for (request, reason) in [
        (json!({ "path": "/v1?x=1" }), Value::Null),
        (
            json!({ "path": "/v1?_method=delete" }),
            json!("method_not_allowed"),
        ),
        (
            json!({ "path": "/v1", "fields": { "X-HTTP-Method-Override": "DELETE" } }),
            json!("method_not_allowed"),
        ),
        (
            json!({ "path": "/v1", "fields": { "x-original-url": ["/v1", "/admin"] } }),
            json!("path_not_allowed"),
        ),
        (
            json!({ "path": "/v1", "fields": { "accept": "*/*" } }),
            Value::Null,
        ),
    ] {
        let mut body = request.clone();
        body["target"] = json!("a.example.com:80");
        body["egress"] = json!({ "allowedHosts": ["a.example.com:80"], "rules": rules });
        let told = g.call("POST", "policy:explain", &body.to_string()).await;
        assert_eq!(told.status, 200, "{request}: {}", told.body);
        assert_eq!(told.body["reason"], reason, "{request}: {}", told.body);
    }
    let many: Vec<String> = (0..20).map(|n| format!("/{n}")).collect();
    let body = json!({ "target": "a.example.com:80", "allow": ["a.example.com"], "fields": { "x-original-url": many } });
    let told = g.call("POST", "policy:explain", &body.to_string()).await;
    assert_eq!(told.status, 422, "{}", told.body);
}

/// What looks like a number in a text stays text.
#[tokio::test]
async fn a_record_is_read_with_all_that_is_written_of_it() {
    let g = gateway();
    let record = r#"{"time":"2026-01-02T03:04:05.678Z","id":"1-2","kind":"tunnel","front":"connect","protocol":"h1",
        "downstream":"127.0.0.1:40000","session":{"namespace":"default","provider":"test","id":"42","generation":3},
        "policyGeneration":7,"method":"CONNECT","target":"a.example.com:443","address":"203.0.114.9:443",
        "answers":["203.0.114.9"],"rule":"allowedHosts[0] \"a.example.com\"","status":200,"outcome":"completed",
        "ech":true,"closedBy":"downstream","bytesUp":517,"bytesDown":18446744073709551615,"openMs":1.250,
        "began":{"as":"tls","sni":"a.example.com","ech":false},"durationMs":20.000}"#;
    let body = format!(r#"{{"allow": ["a.example.com"], "records": [{record}]}}"#);
    let told = g.call("POST", "policy:replay", &body).await;
    assert_eq!(told.status, 200, "{}", told.body);
    assert_eq!(told.body["malformed"], 0, "{}", told.body);
    assert_eq!(told.body["stillAllowed"], 1, "{}", told.body);
}

#[tokio::test]
async fn what_cannot_be_tried_is_refused_with_every_fault() {
    let g = gateway();
    let many = |item: Value| Value::Array(vec![item; 10_001]);
    let tests = json!({ "tests": many(json!({ "target": "a.test", "expect": "deny" })) });
    let answers =
        json!({ "records": [{ "outcome": "completed", "answers": many("192.0.2.1".into()) }] });
    let readings =
        json!({ "records": [{ "outcome": "completed", "alsoReadAs": many(json!(["GET", "/"])) }] });
    let fields: serde_json::Map<String, Value> =
        (0..33_000).map(|n| (format!("f{n}"), "v".into())).collect();
    let fields = json!({ "tests": [{ "target": "a.test", "expect": "deny", "fields": fields }] });
    // Each of these is as many requests as one may be.
    let readings_of_tests = {
        let path = format!("/?{}", "_method=a;".repeat(15));
        json!({ "tests": vec![json!({ "target": "a.test", "expect": "deny", "path": path }); 700] })
    };
    let prefixes: Vec<String> = (0..1001).map(|n| format!("/{n}")).collect();
    let rule = json!({ "host": "a.test:80", "http": { "pathPrefixes": prefixes } });
    let egress = json!({ "allowedHosts": ["a.test:80"], "rules": [rule] });
    let prefixes_tested =
        json!({ "egress": egress, "tests": [{ "target": "a.test", "expect": "deny" }] });
    let prefixes_replayed = json!({ "egress": egress, "records": [] });
    let ways = format!("/?{}", "_method=a;".repeat(20));
    let ways = json!({ "tests": [{ "target": "a.test", "expect": "deny", "path": ways }] });
    let addresses = json!({ "target": "a.test", "addresses": vec!["192.0.2.1"; 1001] });
    for (path, body, status) in [
        ("policy:explain", addresses, 422),
        ("policy:test", ways, 422),
        ("policy:test", readings_of_tests, 422),
        ("policy:test", prefixes_tested, 422),
        ("policy:replay", prefixes_replayed, 422),
        ("policy:test", json!({}), 422),
        ("policy:test", json!({ "tests": [] }), 422),
        (
            "policy:test",
            json!({ "tests": [{ "target": "a.test", "expect": "maybe" }] }),
            422,
        ),
        (
            "policy:test",
            json!({ "tests": [{ "target": "a.test", "expect": "deny", "reason": "because" }] }),
            422,
        ),
        ("policy:test", tests, 422),
        ("policy:test", fields, 422),
        ("policy:replay", json!({}), 422),
        ("policy:replay", json!({ "records": {} }), 422),
        ("policy:replay", answers, 422),
        ("policy:replay", readings, 422),
        (
            "policy:replay",
            json!({ "session": "none", "records": [] }),
            404,
        ),
        (
            "policy:replay",
            json!({ "provider": "none", "records": [] }),
            404,
        ),
        (
            "policy:replay",
            json!({ "session": "one", "allow": ["a.test"], "records": [] }),
            422,
        ),
        (
            "policy:replay",
            json!({ "allow": ["*"], "records": [] }),
            422,
        ),
    ] {
        let told = g.call("POST", path, &body.to_string()).await;
        assert_eq!(told.status, status, "{path}: {}", told.body);
        assert_eq!(told.headers["content-type"], "application/problem+json");
    }
    let large = format!(
        r#"{{"records": [], "provider": "{}"}}"#,
        "p".repeat(1024 * 1024)
    );
    assert_eq!(g.call("POST", "policy:replay", &large).await.status, 413);
    assert_eq!(g.call("POST", "policy:test", "a: [b").await.status, 400);
}

/// Whoever may ask about a session is who may see it, by its namespace and its owner.
#[tokio::test]
async fn a_policy_is_tried_by_those_who_may_know_it() {
    let g = gateway();
    for (namespace, owner) in [("team", "ann"), ("other", "bob")] {
        let body =
            json!({ "id": "one", "namespace": namespace, "owner": owner, "allow": ["a.test"] });
        assert_eq!(
            g.call("POST", SESSIONS, &body.to_string()).await.status,
            201
        );
    }
    let body = json!({ "id": "bobs", "namespace": "team", "owner": "bob" }).to_string();
    assert_eq!(g.call("POST", SESSIONS, &body).await.status, 201);
    for (path, more) in [
        (
            "policy:test",
            json!([{ "target": "a.test", "expect": "allow" }]),
        ),
        (
            "policy:replay",
            json!([{ "target": "a.test:443", "outcome": "completed" }]),
        ),
    ] {
        let key = if path == "policy:test" {
            "tests"
        } else {
            "records"
        };
        let about = |session: &str| json!({ "session": session, key: more }).to_string();
        for (name, scoped, session, expected) in [
            ("reader", "namespaces/team", "one", 200),
            ("team", "", "one", 200),
            ("team", "namespaces/team", "one", 200),
            ("team", "namespaces/other", "one", 404),
            ("ann", "namespaces/team", "one", 200),
            ("ann", "namespaces/team", "bobs", 403),
        ] {
            let asked = format!("{scoped}/{path}");
            let asked = asked.trim_start_matches('/');
            let told = g.by(name, "POST", asked, &about(session)).await;
            assert_eq!(told.status, expected, "{name} {asked}: {}", told.body);
        }
    }
}
