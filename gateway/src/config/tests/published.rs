//! What is published about the document (schema, reference, example) and what the reader does are one thing.
use super::*;
use serde_json::Value;
use std::collections::BTreeSet;

/// A step from the root of a document to a mapping in it.
#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Item,
}

/// A JSON document with `leaf` at `steps`.
fn document(steps: &[Step], leaf: Value) -> Value {
    steps.iter().rev().fold(leaf, |inner, step| match step {
        Step::Key(key) => serde_json::json!({ key: inner }),
        Step::Item => serde_json::json!([inner]),
    })
}

/// Every mapping of known keys the schema describes, with the way to it.
fn mappings(schema: &Value, steps: &[Step], found: &mut Vec<(Vec<Step>, BTreeSet<String>)>) {
    let below = |step: Step| [steps, &[step]].concat();
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        assert_eq!(schema["additionalProperties"], false, "{steps:?}");
        found.push((steps.to_vec(), properties.keys().cloned().collect()));
        for (key, value) in properties {
            mappings(value, &below(Step::Key(key.clone())), found);
        }
    } else if let Some(value) = schema
        .get("additionalProperties")
        .filter(|value| value.is_object())
    {
        mappings(value, &below(Step::Key("name".to_owned())), found);
    }
    if let Some(items) = schema.get("items") {
        mappings(items, &below(Step::Item), found);
    }
    for choice in schema
        .get("anyOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        mappings(choice, steps, found);
    }
}

/// Keys the reader knows and this build does not serve; they are not offered.
const NOT_BUILT: [&str; 2] = ["intercept", "inject"];

/// The reader is asked itself: a key nobody could know makes it tell which it knows there.
#[test]
fn the_schema_has_the_readers_keys_and_no_others() {
    let mut found = Vec::new();
    mappings(&schema(), &[], &mut found);
    assert!(found.len() > 20, "the walk found too little");
    for (steps, published) in found {
        let text = document(
            &steps,
            serde_json::json!({"qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq": 1}),
        )
        .to_string();
        let hint = match Config::parse(&text) {
            Ok(_) => panic!("{text} was accepted"),
            Err(faults) => faults.errors.iter().find_map(|fault| {
                fault
                    .hint
                    .as_deref()
                    .and_then(|hint| hint.strip_prefix("known here: "))
                    .map(str::to_owned)
            }),
        };
        let known = hint.unwrap_or_else(|| panic!("{text}: no unknown key"));
        let known: BTreeSet<String> = known
            .split(", ")
            .filter(|key| !NOT_BUILT.contains(key))
            .map(str::to_owned)
            .collect();
        assert_eq!(published, known, "at {steps:?}");
    }
}

/// Defaults in the schema are what the effective configuration shows where nothing was written.
#[test]
fn the_schemas_defaults_are_the_real_ones() {
    let source = "runtime: {providers: {name: {}}}";
    let effective = good(source).to_json();
    let mut compared = 0;
    let mut found = Vec::new();
    let schema = schema();
    mappings(&schema, &[], &mut found);
    for (steps, keys) in found {
        let mut described = &schema;
        let mut shown = Some(&effective);
        for step in &steps {
            let Step::Key(key) = step else {
                shown = None;
                break;
            };
            let named = described
                .get("properties")
                .and_then(|properties| properties.get(key));
            described = named.unwrap_or(&described["additionalProperties"]);
            shown = shown.and_then(|value| value.get(key));
        }
        let Some(shown) = shown else { continue };
        for key in keys {
            if let (Some(default), Some(value)) = (
                described["properties"][&key].get("default"),
                shown.get(&key),
            ) {
                assert_eq!(default, value, "{steps:?} {key}");
                compared += 1;
            }
        }
    }
    assert!(compared > 20, "only {compared} compared");
}

/// Each key has a line of its own in the reference, under a heading or in a table, as `key`.
#[test]
fn the_reference_names_every_key() {
    let reference = include_str!("../../../../docs/configuration.md");
    let mut found = Vec::new();
    mappings(&schema(), &[], &mut found);
    let keys: BTreeSet<String> = found.into_iter().flat_map(|(_, keys)| keys).collect();
    let missing: Vec<&String> = keys
        .iter()
        .filter(|key| !reference.contains(&format!("`{key}`")))
        .collect();
    assert!(
        missing.is_empty(),
        "not in docs/configuration.md: {missing:?}"
    );
}
