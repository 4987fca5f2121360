//! The kinds of value a schema is made of.
use serde_json::{Map, Value, json};

/// Keys and what may stand under each.
pub(super) type Properties = Vec<(&'static str, Value)>;

/// A mapping of known keys and no others.
pub(super) fn object(properties: Properties) -> Value {
    let properties: Map<_, _> = properties
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}

/// The same, some of them required.
pub(super) fn required(mut schema: Value, keys: &[&str]) -> Value {
    if let Some(map) = schema.as_object_mut() {
        map.insert("required".to_owned(), json!(keys));
    }
    schema
}

/// A mapping whose keys are names the operator gives.
pub(super) fn by_name(value: Value) -> Value {
    json!({"type": "object", "additionalProperties": value})
}

pub(super) fn string(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

pub(super) fn strings(description: &str) -> Value {
    json!({"type": "array", "items": {"type": "string"}, "description": description})
}

pub(super) fn boolean(default: bool, description: &str) -> Value {
    json!({"type": "boolean", "default": default, "description": description})
}

pub(super) fn number(default: Option<u32>, description: &str) -> Value {
    with_default(
        json!({"type": "integer", "minimum": 0, "description": description}),
        default.map(Value::from),
    )
}

pub(super) fn choice(words: &[&str], default: Option<&str>, description: &str) -> Value {
    with_default(
        json!({"enum": words, "description": description}),
        default.map(Value::from),
    )
}

/// `300` (seconds), `250ms`, `10s`, `5m`, `1h`, `2d`.
pub(super) fn duration(default: Option<&str>, description: &str) -> Value {
    let schema = json!({
        "type": ["string", "integer"], "minimum": 0, "pattern": "^(0|[1-9][0-9]*)(ms|s|m|h|d)?$", "description": description,
    });
    with_default(schema, default.map(Value::from))
}

/// `4096`, `64KiB`, `1MiB`.
pub(super) fn bytes(default: Option<u32>, description: &str) -> Value {
    let schema = json!({
        "type": ["string", "integer"], "minimum": 0, "pattern": "^(0|[1-9][0-9]*)([KMGT]iB)?$", "description": description,
    });
    with_default(schema, default.map(Value::from))
}

pub(super) fn with_default(mut schema: Value, default: Option<Value>) -> Value {
    if let (Some(map), Some(default)) = (schema.as_object_mut(), default) {
        map.insert("default".to_owned(), default);
    }
    schema
}
