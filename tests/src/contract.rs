//! Answers of the admin API held to the document it publishes: their statuses and the fields of their heads are in it, each member
//! of an answer stands in its schema, what the schema requires is there, and kinds and words are as it says.

use serde_json::{Map, Value};

use crate::gateway::Gateway;
use crate::web;
use crate::wire::{Head, Reply};

const API: &str = "/admin/api/v1";
/// What every message has (RFC 9110 §6.6, RFC 9112 §6): no document of ours says so.
const OF_MESSAGES: [&str; 5] = [
    "connection",
    "content-length",
    "content-type",
    "date",
    "transfer-encoding",
];

/// The document, as a gateway serves it.
pub struct Contract(Value);

impl Contract {
    /// Asks for it.
    pub async fn of(gateway: &Gateway) -> Self {
        let token = std::fs::read_to_string(gateway.state().join("admin.token")).unwrap();
        let credential = format!("Authorization: Bearer {}\r\n", token.trim());
        let management = gateway.ports.management;
        let reply = web::request(management, "GET", "/admin/openapi.json", &credential, "").await;
        Self(reply.json())
    }

    /// Asks the admin API: the answer, which must have this status and be what the document says.
    pub async fn ask(
        &self,
        gateway: &Gateway,
        method: &str,
        path: &str,
        body: &str,
        status: u16,
    ) -> Value {
        let reply = gateway.admin(method, path, body).await;
        let told = reply.text();
        assert_eq!(reply.status(), status, "{method} {path} {body}: {told}");
        self.holds(method, path, &reply)
    }

    /// An answer to this request, which must be what the document says.
    pub fn holds(&self, method: &str, path: &str, reply: &Reply) -> Value {
        let schema = &self.holds_head(method, path, reply)["schema"];
        let told = reply.json();
        let faults = self.faults(schema, &told, "");
        let status = reply.status();
        assert!(
            faults.is_empty(),
            "{method} {path}, {status}: {faults:#?} in {told:#}"
        );
        told
    }

    /// The same of the head alone, its status and its fields: what the document says of the body.
    pub fn holds_head(&self, method: &str, path: &str, reply: &Reply) -> &Value {
        let answer = self.answer(method, path, reply);
        let status = reply.status();
        let faults = self.faults_of_fields(&answer["headers"], &reply.head);
        assert!(
            faults.is_empty(),
            "{method} {path}, {status}: {faults:#?} in {:#?}",
            reply.head.headers
        );
        let kind = reply.head.value("content-type");
        let content = &answer["content"][kind];
        assert!(
            content["schema"].is_object(),
            "{method} {path} may not answer {status} {kind}"
        );
        content
    }

    /// What the document says of this status of the one route whose path this is.
    fn answer(&self, method: &str, path: &str, reply: &Reply) -> &Value {
        let path = path.split('?').next().unwrap_or_default();
        let path = format!("{API}{path}");
        let routes = self.0["paths"].as_object().expect("paths");
        let found: Vec<_> = routes.iter().filter(|(own, _)| fits(own, &path)).collect();
        let [(_, route)] = found[..] else {
            panic!("{path} is of one route, not of {}", found.len());
        };
        let status = reply.status().to_string();
        let answer = &route[method.to_ascii_lowercase()]["responses"][&status];
        assert!(
            answer.is_object(),
            "{method} {path} may not answer {status}"
        );
        answer
    }

    /// What is sent is in the document, and what it says is always sent is there.
    fn faults_of_fields(&self, documented: &Value, head: &Head) -> Vec<String> {
        let empty = Map::new();
        let documented = documented.as_object().unwrap_or(&empty);
        let unknown = head.headers.iter().filter(|(name, _)| {
            !OF_MESSAGES.contains(&name.as_str())
                && !documented.keys().any(|own| own.eq_ignore_ascii_case(name))
        });
        let mut faults: Vec<String> = unknown
            .map(|(name, value)| format!("{name} is in no answer: {value}"))
            .collect();
        for (name, field) in documented {
            let value = head.value(&name.to_ascii_lowercase());
            if value.is_empty() {
                if field["required"] == true {
                    faults.push(format!("{name} is not there"));
                }
                continue;
            }
            faults.extend(self.faults(&field["schema"], &value.into(), name));
        }
        faults
    }

    fn faults(&self, schema: &Value, value: &Value, at: &str) -> Vec<String> {
        if let Some(reference) = schema["$ref"].as_str() {
            let named = self.0.pointer(reference.trim_start_matches('#'));
            return self.faults(named.expect(reference), value, at);
        }
        if let Some(ways) = schema["anyOf"].as_array() {
            let possible = |way: &&Value| way["type"] != "null" || value.is_null();
            let tried = ways.iter().filter(possible);
            let tried = tried.map(|way| self.faults(way, value, at));
            // The one that is nearest tells most.
            return tried.min_by_key(Vec::len).unwrap_or_default();
        }
        if !is_of_kind(&schema["type"], value) {
            return vec![format!("{at} is not {}: {value}", schema["type"])];
        }
        if let Some(words) = schema["enum"].as_array()
            && !words.contains(value)
        {
            return vec![format!("{at} is none of {words:?}: {value}")];
        }
        match value {
            Value::Object(members) => self.faults_of_members(schema, members, at),
            Value::Array(items) => {
                let items = items.iter().enumerate();
                let one = |(n, item): (usize, &Value)| {
                    self.faults(&schema["items"], item, &format!("{at}[{n}]"))
                };
                items.flat_map(one).collect()
            }
            _ => Vec::new(),
        }
    }

    fn faults_of_members(
        &self,
        schema: &Value,
        members: &Map<String, Value>,
        at: &str,
    ) -> Vec<String> {
        let required = schema["required"].as_array().into_iter().flatten();
        let missing = required
            .filter_map(Value::as_str)
            .filter(|name| !members.contains_key(*name));
        let mut faults: Vec<String> = missing
            .map(|name| format!("{at}.{name} is not there"))
            .collect();
        for (name, value) in members {
            let at = format!("{at}.{name}");
            let own = match &schema["properties"][name] {
                Value::Null => &schema["additionalProperties"],
                own => own,
            };
            if own.is_object() {
                faults.extend(self.faults(own, value, &at));
            } else {
                faults.push(format!("{at} stands in no schema: {value}"));
            }
        }
        faults
    }
}

/// Is the path of this route? No name of ours holds a slash or a colon.
fn fits(route: &str, path: &str) -> bool {
    let wanted: Vec<&str> = route.split('/').collect();
    let found: Vec<&str> = path.split('/').collect();
    let one = |(wanted, found): (&&str, &&str)| {
        let named = wanted.strip_prefix('{');
        match named.and_then(|rest| rest.split_once('}')) {
            Some((_, action)) => found
                .strip_suffix(action)
                .is_some_and(|name| !name.is_empty() && !name.contains(':')),
            None => wanted == found,
        }
    };
    wanted.len() == found.len() && wanted.iter().zip(&found).all(one)
}

fn is_of_kind(kinds: &Value, value: &Value) -> bool {
    let is = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        _ => false,
    };
    match kinds {
        Value::String(kind) => is(kind),
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).any(is),
        // Where words are listed, no kind is.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_as_the_schema_says_is_told() {
        let contract = Contract(json!({"components": {"schemas": {"Name": {"type": "string"}}}}));
        let name = json!({"$ref": "#/components/schemas/Name"});
        let nullable = json!({"anyOf": [
            {"type": "object", "properties": {"at": name}, "required": ["at"]},
            {"type": "null"},
        ]});
        let schema = json!({
            "type": "object",
            "properties": {
                "name": name,
                "state": {"enum": ["idle", null]},
                "seconds": {"type": ["number", "null"]},
                "since": nullable,
                "uses": {"type": "object", "additionalProperties": {"type": "integer"}},
                "all": {"type": "array", "items": name},
                "free": {"type": "object"},
            },
            "required": ["name"],
        });
        let faults = |value: Value| contract.faults(&schema, &value, "");
        for good in [
            json!({"name": "a"}),
            json!({"name": "a", "state": null, "seconds": 1.5, "since": null, "free": {}}),
            json!({"name": "a", "since": {"at": "x"}, "uses": {"any": 1}, "all": ["x"]}),
        ] {
            assert_eq!(faults(good), Vec::<String>::new());
        }
        for (bad, at) in [
            (json!({}), ".name is"),
            (json!({"name": 1}), ".name is"),
            (json!({"name": "a", "more": 1}), ".more stands"),
            (json!({"name": "a", "state": "on"}), ".state is"),
            (json!({"name": "a", "seconds": "1"}), ".seconds is"),
            (json!({"name": "a", "since": {}}), ".since.at is"),
            (
                json!({"name": "a", "since": {"at": "x", "by": 1}}),
                ".since.by stands",
            ),
            (json!({"name": "a", "uses": {"any": 1.5}}), ".uses.any is"),
            (json!({"name": "a", "all": ["x", {}]}), ".all[1] is"),
            (json!({"name": "a", "free": {"x": 1}}), ".free.x stands"),
        ] {
            let told = faults(bad);
            assert!(told.len() == 1 && told[0].starts_with(at), "{at}: {told:?}");
        }
    }

    #[test]
    fn fields_of_a_head_are_those_of_the_document() {
        let contract = Contract(Value::Null);
        let documented = json!({
            "Cache-Control": {"required": true, "schema": {"enum": ["no-store"]}},
            "ETag": {"schema": {"type": "string"}},
        });
        let faults = |fields: &[(&str, &str)]| {
            let headers = fields
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let head = Head {
                status: 200,
                headers: headers.collect(),
            };
            contract.faults_of_fields(&documented, &head)
        };
        let kept = ("cache-control", "no-store");
        for good in [&[kept][..], &[kept, ("etag", "x"), ("date", "now")][..]] {
            assert_eq!(faults(good), Vec::<String>::new());
        }
        for (bad, told) in [
            (
                &[("cache-control", "public")][..],
                "Cache-Control is none of",
            ),
            (&[kept, ("location", "/x")][..], "location is in no answer"),
            (&[][..], "Cache-Control is not there"),
        ] {
            let faults = faults(bad);
            assert!(
                faults.len() == 1 && faults[0].starts_with(told),
                "{told}: {faults:?}"
            );
        }
    }

    #[test]
    fn a_path_is_of_the_route_with_its_action() {
        let session = "/p/{provider}/sessions/{session}";
        assert!(fits(session, "/p/a/sessions/b"));
        assert!(fits(&format!("{session}:start"), "/p/a/sessions/b:start"));
        for other in [
            "/p/a/sessions/b:start",
            "/p/a/sessions/",
            "/p/a/sessions/b/logs",
        ] {
            assert!(!fits(session, other), "{other}");
        }
        assert!(!fits(&format!("{session}:start"), "/p/a/sessions/b:stop"));
    }
}
