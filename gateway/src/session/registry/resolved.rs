//! The merged grant, and for each entry of it where it came from.

use serde_json::{Map, Value, json};
use sluicegate_policy::GrantDocument;

use super::{Registry, RegistryError, compile};
use crate::session::{Binding, Record, RegistryConfig, SessionKey};

/// A part of the grant as JSON, and whose it is.
struct Layer {
    from: String,
    grant: Value,
}

impl Registry {
    /// The merged grant of a session; each entry names the layers that say so: `configuration`, `provider`,
    /// `capability:NAME`, `session`; for a service also `catalogue`, where its address was looked up. Of a listener the last of
    /// them is the one that holds. Where the configuration no longer allows it, `fault` says why; a capability that cannot be laid
    /// over the others any more has its own, and gives nothing.
    ///
    /// # Errors
    /// Unknown session or provider.
    pub fn resolved(&self, key: &SessionKey) -> Result<Value, RegistryError> {
        let entry = self.entry(key)?;
        let (config, record) = (self.config(), &entry.record);
        let bindings = record.capabilities.iter();
        let sound: Vec<Binding> = bindings
            .clone()
            .filter(|binding| !binding.enabled || binding.layer(&config).is_ok())
            .cloned()
            .collect();
        let own = compile::own(record)?;
        let merged = compile::merged(&config, &record.provider, &sound, &own)?.to_value();
        let layers = layers(&config, record, &sound)?;
        let fault = compile::policy(&config, record).err();
        let mut secrets: Map<String, Value> = Map::new();
        for binding in sound.iter().filter(|binding| binding.enabled) {
            let capability = config.capabilities.get(&binding.name);
            for secret in capability.iter().flat_map(|capability| &capability.secrets) {
                let from = secrets.entry(secret.clone()).or_insert_with(|| json!([]));
                if let Some(list) = from.as_array_mut() {
                    list.push(format!("capability:{}", binding.name).into());
                }
            }
        }
        let secrets: Vec<Value> = secrets
            .into_iter()
            .map(|(name, from)| json!({ "name": name, "from": from }))
            .collect();
        Ok(json!({
            "policyGeneration": record.policy_generation,
            "state": record.lease.state,
            "egress": part(&merged, &layers, "egress"),
            "services": services(&merged, &layers),
            "expose": listeners(&merged, &layers),
            "limits": part(&merged, &layers, "limits"),
            "secrets": secrets,
            "capabilities": bindings.map(|binding| binding.to_value(&config)).collect::<Vec<_>>(),
            "fault": fault.map(|error| error.told()),
        }))
    }
}

fn layers(
    config: &RegistryConfig,
    record: &Record,
    bindings: &[Binding],
) -> Result<Vec<Layer>, RegistryError> {
    let layer = |from: String, grant: &GrantDocument| Layer {
        from,
        grant: grant.to_value(),
    };
    let mut layers = vec![layer("configuration".into(), &config.base)];
    if let Some(provider) = config.providers.get(&record.provider) {
        layers.push(layer("provider".into(), &provider.defaults));
    }
    for binding in bindings.iter().filter(|binding| binding.enabled) {
        let from = format!("capability:{}", binding.name);
        layers.push(layer(from, &binding.layer(config)?));
    }
    layers.push(layer("session".into(), &compile::own(record)?));
    let known = GrantDocument {
        services: config.catalogue.clone(),
        ..GrantDocument::default()
    };
    layers.push(layer("catalogue".into(), &known));
    Ok(layers)
}

/// Who says `wanted` of a value at `path`? A provider's defaults hold the configuration's own, which is told once.
fn said(layers: &[Layer], path: &[&str], wanted: impl Fn(&Value) -> bool) -> Vec<String> {
    let mut from: Vec<String> = Vec::new();
    for layer in layers.iter().filter(|layer| layer.from != "catalogue") {
        let mut value = Some(&layer.grant);
        for key in path {
            value = value.and_then(|value| value.get(key));
        }
        let again = layer.from == "provider" && from.iter().any(|other| other == "configuration");
        if value.is_some_and(&wanted) && !again {
            from.push(layer.from.clone());
        }
    }
    from
}

/// `egress` or `limits`: each list entry by itself, each other key as a whole.
fn part(merged: &Value, layers: &[Layer], key: &str) -> Value {
    let mut out = Map::new();
    let fields = merged.get(key).and_then(Value::as_object);
    for (name, value) in fields.into_iter().flatten() {
        let path = [key, name.as_str()];
        let shown = match value {
            Value::Array(items) => items
                .iter()
                .map(|item| {
                    let holds = |list: &Value| list.as_array().is_some_and(|l| l.contains(item));
                    json!({ "value": item, "from": said(layers, &path, holds) })
                })
                .collect(),
            Value::Object(entries) => {
                let one = |(name, value): (&String, &Value)| {
                    let holds = |map: &Value| map.get(name) == Some(value);
                    (
                        name.clone(),
                        json!({ "value": value, "from": said(layers, &path, holds) }),
                    )
                };
                Value::Object(entries.iter().map(one).collect())
            }
            single => json!({ "value": single, "from": said(layers, &path, |v| v == single) }),
        };
        out.insert(name.clone(), shown);
    }
    out.into()
}

/// Services by name: who grants each, and who knows its address.
fn services(merged: &Value, layers: &[Layer]) -> Value {
    let mut out = Map::new();
    let fields = merged.get("services").and_then(Value::as_object);
    for (name, value) in fields.into_iter().flatten() {
        let url = value.get("url");
        // The last layer that has an address is the one that holds.
        let granting = layers.iter().filter(|layer| layer.from != "catalogue");
        let has_url = |layer: &&Layer| {
            url.is_some()
                && layer
                    .grant
                    .pointer(&pointer(name))
                    .and_then(|s| s.get("url"))
                    == url
        };
        let address = granting
            .rev()
            .find(has_url)
            .or_else(|| layers.iter().find(has_url))
            .map(|layer| layer.from.clone());
        let from = said(layers, &["services", name], |_| true);
        out.insert(
            name.clone(),
            json!({ "value": value, "from": from, "addressFrom": address }),
        );
    }
    out.into()
}

/// Listeners of the sandbox by name: who names each, the last of them as it holds.
fn listeners(merged: &Value, layers: &[Layer]) -> Value {
    let fields = merged.get("expose").and_then(Value::as_object);
    let one = |(name, value): (&String, &Value)| {
        let from = said(layers, &["expose", name], |_| true);
        (name.clone(), json!({ "value": value, "from": from }))
    };
    let out: Map<String, Value> = fields.into_iter().flatten().map(one).collect();
    out.into()
}

/// RFC 6901; a service's name holds neither `~` nor `/`.
fn pointer(service: &str) -> String {
    format!("/services/{service}")
}
