//! Schemas of bodies and answers. Readers and writers are the authority; tests and the conformance run hold these to
//! what they really take and give.

use serde_json::{Map, Value, json};

/// Every schema, by name.
pub(super) fn all() -> Map<String, Value> {
    let all = answers().into_iter().chain(requests());
    all.map(|(name, schema)| (name.to_owned(), schema))
        .collect()
}

fn strict(properties: Value) -> Value {
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

/// An object that has at least these members; more may come.
fn object(properties: Value) -> Value {
    let required: Vec<String> = properties
        .as_object()
        .into_iter()
        .flat_map(|map| map.keys().cloned())
        .collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

/// The same with one more member that may be absent.
fn also(mut schema: Value, key: &str, member: Value) -> Value {
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    if let Some(properties) = properties {
        properties.insert(key.to_owned(), member);
    }
    schema
}

/// The same with one member that must be there.
fn required(mut schema: Value, key: &str) -> Value {
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("required".into(), json!([key]));
    }
    schema
}

fn to(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn list(of: Value) -> Value {
    json!({ "type": "array", "items": of })
}

fn or_null(kind: &str) -> Value {
    json!({ "type": [kind, "null"] })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn texts() -> Value {
    list(text())
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn boolean() -> Value {
    json!({ "type": "boolean" })
}

fn nullable(name: &str) -> Value {
    json!({ "anyOf": [to(name), { "type": "null" }] })
}

/// `300` (seconds), `250ms`, `10s`, `5m`, `1h`, `2d`.
fn duration() -> Value {
    json!({ "type": ["string", "integer"], "minimum": 0, "pattern": "^(0|[1-9][0-9]{0,5})(ms|s|m|h|d)?$" })
}

fn answers() -> Vec<(&'static str, Value)> {
    let mut answers = vec![
        (
            "Problem",
            object(json!({ "type": text(), "title": text(), "status": count(), "detail": text() })),
        ),
        ("Sessions", {
            let page = object(json!({ "sessions": list(to("Session")) }));
            also(page, "next", text())
        }),
        ("SessionShown", object(json!({ "session": to("Session") }))),
        ("SessionChanged", {
            let changed = object(json!({ "session": to("Session"), "stale": boolean() }));
            let env = json!({ "type": "object", "additionalProperties": text() });
            let files = list(object(json!({ "path": text(), "pem": text() })));
            also(also(changed, "env", env), "files", files)
        }),
        ("Session", session()),
        (
            "Explanation",
            object(json!({
                "target": text(), "outcome": { "enum": ["allow", "deny"] }, "reason": or_null("string"),
                "rule": or_null("string"), "hint": or_null("string"), "steps": texts(),
            })),
        ),
        (
            "Status",
            object(json!({
                "ready": boolean(), "notReady": or_null("string"), "storeReadable": boolean(),
                "sessions": { "type": "object", "additionalProperties": count() },
                "providers": to("Providers"), "accessRecordsDropped": count(),
                "refusalsLastHour": { "type": "object", "additionalProperties": count() },
            })),
        ),
        (
            "Keys",
            object(json!({
                "keys": list(object(json!({ "kid": text(), "signing": boolean(), "created": or_null("string") }))),
            })),
        ),
        (
            "KeyRotated",
            object(json!({ "signing": text(), "keys": { "type": "array" } })),
        ),
        (
            "Webhooks",
            object(json!({
                "webhooks": list(object(json!({
                    "name": text(), "url": text(), "cursor": count(), "delivered": count(), "attempts": count(),
                    "error": or_null("string"), "missed": count(), "deadLetters": list(json!({ "type": "object" })),
                }))),
            })),
        ),
        ("Revoked", object(json!({ "revoked": { "const": true } }))),
        (
            "Reloaded",
            object(json!({ "reloaded": { "const": true }, "detail": text() })),
        ),
        ("Draining", object(json!({ "draining": { "const": true } }))),
        (
            "Capabilities",
            object(json!({ "capabilities": list(json!({ "type": "object" })) })),
        ),
        ("Resolved", object(json!({ "resolved": {} }))),
        ("Log", json!({ "type": "object" })),
        ("Appended", object(json!({ "last": count() }))),
        (
            "OpenApi",
            object(json!({ "openapi": text(), "paths": { "type": "object" } })),
        ),
    ];
    answers.extend(profiles());
    answers
}

fn profiles() -> Vec<(&'static str, Value)> {
    let profile = object(json!({
        "canHostPlugins": boolean(),
        "hostServiceAccess": { "enum": ["none", "relay", "direct"] },
        "egressMode": { "enum": ["none", "cidr", "hostname"] },
    }));
    let shortfall = object(json!({
        "field": { "enum": ["canHostPlugins", "hostServiceAccess", "egressMode"] },
        "reason": text(), "since": or_null("integer"), "setting": or_null("string"),
    }));
    let last = object(json!({
        "outcome": { "enum": ["pass", "fail", "unknown"] }, "reason": or_null("string"),
        "at": count(), "ageSeconds": count(), "milliseconds": count(),
    }));
    let check = object(json!({
        "name": text(), "state": { "enum": ["works", "fails", "unknown"] }, "since": or_null("integer"),
        "reason": or_null("string"), "setting": or_null("string"), "last": { "anyOf": [last, { "type": "null" }] },
    }));
    let provider = object(json!({
        "name": text(), "driver": text(), "default": boolean(), "loaded": boolean(), "sessionCount": count(),
        "profile": object(json!({ "advertised": nullable("Profile"), "effective": nullable("Profile") })),
        "effectiveSince": or_null("integer"), "shortfalls": list(to("Shortfall")), "checks": list(to("Check")),
        "error": or_null("string"),
    }));
    let placement = object(json!({
        "placeable": boolean(),
        "reason": { "enum": [
            "cannot host executable providers in a host-reachable session",
            "cannot provide host service access required by this provider",
            "cannot preserve hostname-based egress required by this provider",
            null,
        ] },
        "needs": object(json!({ "executable": boolean(), "hostServices": boolean(), "hostnameEgress": boolean() })),
        "effective": nullable("Profile"),
    }));
    vec![
        ("Profile", profile),
        ("Shortfall", shortfall),
        ("Check", check),
        ("Provider", provider),
        ("Providers", list(to("Provider"))),
        ("Placement", placement),
    ]
}

fn session() -> Value {
    let session = object(json!({
        "namespace": text(), "provider": text(), "id": text(), "generation": count(),
        "state": { "enum": ["idle", "running", "paused", "stopped"] }, "policyGeneration": count(), "etag": text(),
        "createdAt": text(), "changedAt": text(), "startedAt": or_null("string"), "expiresAt": or_null("string"),
        "egress": { "type": "object" }, "services": { "type": "object" }, "expose": { "type": "object" },
        "limits": { "type": "object" },
    }));
    let by_listener = json!({ "type": "object", "additionalProperties": text() });
    let session = also(session, "dialTargets", by_listener.clone());
    let session = also(session, "dialErrors", by_listener);
    let usage = object(json!({ "open": count(), "bytes": count(), "lastActivity": text() }));
    also(session, "usage", usage)
}

fn requests() -> Vec<(&'static str, Value)> {
    let http = strict(json!({ "methods": texts(), "pathPrefixes": texts() }));
    let rule = strict(json!({
        "host": text(), "tls": { "enum": ["require", "auto", "opaque"] },
        "ech": { "anyOf": [{ "enum": ["outer", "deny"] }, strict(json!({ "publicNames": texts() }))] }, "http": http,
    }));
    let addresses =
        json!({ "type": "object", "additionalProperties": { "anyOf": [text(), texts()] } });
    let egress = strict(json!({
        "defaultAction": { "enum": ["allow", "deny"] }, "allowedHosts": texts(), "deniedHosts": texts(),
        "allowedAddresses": texts(), "rules": list(rule), "hosts": addresses, "mode": { "enum": ["enforce", "report"] },
    }));
    let service = strict(json!({
        "url": text(), "health": text(), "halfCloseTimeout": duration(), "idleTimeout": duration(), "peerUid": count(),
        "grpc": strict(json!({ "methodPrefix": text() })), "proxyProtocol": { "enum": ["v2"] },
        "http": strict(json!({
            "hosts": texts(), "origins": texts(), "methods": texts(), "pathPrefixes": texts(),
            "setHeaders": { "type": "object", "additionalProperties": text() },
        })),
    }));
    let dial = json!({ "enum": ["unix", "tcp", "tls"] });
    let exposed = strict(json!({
        "dial": dial, "port": { "type": "integer", "minimum": 1, "maximum": 65_535 }, "peerUid": count(),
        "patience": duration(), "halfCloseTimeout": duration(), "idleTimeout": duration(),
    }));
    let expose = json!({ "anyOf": [
        texts(),
        { "type": "object", "additionalProperties": { "anyOf": [dial, exposed] } },
    ] });
    let services = json!({ "anyOf": [
        texts(),
        { "type": "object", "additionalProperties": { "anyOf": [text(), service] } },
    ] });
    let limits = strict(json!({
        "tunnels": count(), "opensPerSecond": count(), "bytes": { "type": ["string", "integer"], "minimum": 0 },
        "bandwidth": { "type": ["string", "integer"], "minimum": 0 },
    }));
    let grant = json!({
        "egress": to("Egress"), "allow": texts(), "hosts": addresses, "services": services,
        "expose": expose, "limits": limits,
        "capabilities": { "type": "array" },
    });
    let mut create = strict(grant.clone());
    for (key, schema) in [
        ("id", text()),
        ("namespace", text()),
        ("start", boolean()),
        ("ttl", duration()),
        ("idleTimeout", duration()),
        ("maxLifetime", duration()),
        ("onExpiry", json!({ "enum": ["reset", "pause", "stop"] })),
        ("onPause", json!({ "enum": ["close", "hold"] })),
        ("scope", text()),
        ("sources", texts()),
        ("owner", text()),
    ] {
        create = also(create, key, schema);
    }
    let explain = required(
        strict(json!({
            "provider": text(), "namespace": text(), "session": text(), "target": text(), "egress": to("Egress"),
            "services": services, "expose": expose, "limits": limits,
        })),
        "target",
    );
    let revoke = required(strict(json!({ "credential": text() })), "credential");
    vec![
        ("Egress", egress),
        ("Bind", json!({ "type": "object" })),
        (
            "Observe",
            required(
                strict(json!({
                    "state": { "enum": ["starting", "running", "stopping", "stopped", "destroyed"] },
                    "reason": { "enum": ["completed", "stopped", "idle_timeout", "failed", "oom", "start_failed", "max_lifetime"] },
                    "generation": count(),
                })),
                "state",
            ),
        ),
        (
            "AppendLog",
            required(
                strict(json!({
                    "records": list(strict(json!({ "stream": { "enum": ["stdout", "stderr", "runtime"] }, "text": text(), "time": text() }))),
                })),
                "records",
            ),
        ),
        ("CreateSession", create),
        ("PatchSession", strict(grant)),
        ("Act", strict(json!({ "reason": text() }))),
        (
            "Keepalive",
            strict(json!({
                "reason": text(), "extendSeconds": { "type": "integer", "minimum": 1, "maximum": 31_622_400 },
            })),
        ),
        ("Explain", explain),
        ("Revoke", revoke),
        (
            "Workload",
            strict(
                json!({ "executable": boolean(), "hostServices": texts(), "egress": to("Egress") }),
            ),
        ),
    ]
}
