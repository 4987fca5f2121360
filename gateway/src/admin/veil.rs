//! What a credential that sees a part of the gateway is not shown: where the operator's host services are. Names are for
//! everybody, addresses are the gateway's; what a session brought itself is no secret to who may see the session.

use serde_json::{Map, Value};

use super::{State, sessions::key};

/// Said in place of why a host service is not well.
const UNWELL: &str = "a host service of this deployment is not well";

/// A session's view, without addresses that its own document does not have.
pub(super) fn session(state: &State, view: &mut Value) {
    let text = |key: &str| view.get(key).and_then(Value::as_str).unwrap_or_default();
    let key = key(Some(text("namespace")), text("provider"), text("id"));
    let brought = state.registry.services_brought(&key);
    let own = |name: &str| brought.get(name).and_then(|service| service.get("url"));
    for (name, service) in services(view) {
        let theirs = service.get("url") == own(name);
        if let (false, Some(fields)) = (theirs, service.as_object_mut()) {
            fields.remove("url");
        }
    }
}

/// A merged grant, each entry with its origin.
pub(super) fn resolved(resolved: &mut Value) {
    for (_, entry) in services(resolved) {
        let own = entry.get("addressFrom").and_then(Value::as_str) == Some("session");
        let value = entry.get_mut("value").and_then(Value::as_object_mut);
        if let (false, Some(fields)) = (own, value) {
            fields.remove("url");
        }
    }
}

/// A capability of the catalogue: all of it is the operator's.
pub(super) fn capability(capability: &mut Value) {
    for (_, service) in services(capability) {
        if let Some(fields) = service.as_object_mut() {
            fields.remove("url");
        }
    }
}

/// A provider with its checks and shortfalls: that a service is not well is told, and not what was found where.
pub(super) fn provider(provider: &mut Value) {
    let mut checks = taken(provider, "checks");
    for check in checks.as_array_mut().into_iter().flatten() {
        let name = check.get("name").and_then(Value::as_str);
        if !name.is_some_and(|name| name.starts_with("service:")) {
            continue;
        }
        blank(check.as_object_mut());
        blank(check.get_mut("last").and_then(Value::as_object_mut));
    }
    let mut shortfalls = taken(provider, "shortfalls");
    for shortfall in shortfalls.as_array_mut().into_iter().flatten() {
        let setting = shortfall.get("setting").and_then(Value::as_str);
        // Where the reason is a service, the setting is that service's.
        if !setting.is_some_and(|setting| setting.contains("services.")) {
            continue;
        }
        if let Some(fields) = shortfall.as_object_mut() {
            fields.insert("reason".into(), UNWELL.into());
            fields.insert("setting".into(), Value::Null);
        }
    }
    if let Some(fields) = provider.as_object_mut() {
        fields.insert("checks".into(), checks);
        fields.insert("shortfalls".into(), shortfalls);
    }
}

fn taken(of: &mut Value, key: &str) -> Value {
    of.get_mut(key).map(Value::take).unwrap_or_default()
}

fn blank(fields: Option<&mut Map<String, Value>>) {
    let Some(fields) = fields else { return };
    for key in ["reason", "setting"] {
        if let Some(value) = fields.get_mut(key) {
            *value = Value::Null;
        }
    }
}

fn services(of: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    let services = of.get_mut("services").and_then(Value::as_object_mut);
    services.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn addresses_of_the_operators_services_are_left_out() {
        let mut resolved = json!({ "services": {
            "cache": { "value": { "url": "tcp://127.0.0.1:1", "health": "redis" }, "addressFrom": "catalogue" },
            "own": { "value": { "url": "tcp://127.0.0.1:2" }, "addressFrom": "session" },
        }});
        super::resolved(&mut resolved);
        let left = json!({ "services": {
            "cache": { "value": { "health": "redis" }, "addressFrom": "catalogue" },
            "own": { "value": { "url": "tcp://127.0.0.1:2" }, "addressFrom": "session" },
        }});
        assert_eq!(resolved, left);
        let mut capability = json!({ "services": { "db": { "url": "tcp://127.0.0.1:3" } } });
        super::capability(&mut capability);
        assert_eq!(capability, json!({ "services": { "db": {} } }));
    }

    #[test]
    fn that_a_service_is_not_well_is_told_and_not_why() {
        let mut provider = json!({
            "checks": [
                { "name": "reach", "state": "fails", "reason": "r", "setting": "publicUrl", "last": { "reason": "r" } },
                { "name": "service:web", "state": "fails", "reason": "at 127.0.0.1:4", "setting": "services.web.url",
                  "last": { "outcome": "fail", "reason": "at 127.0.0.1:4" } },
            ],
            "shortfalls": [
                { "field": "hostServiceAccess", "reason": "at 127.0.0.1:4", "setting": "services.web.url" },
                { "field": "egressMode", "reason": "r", "setting": "publicUrl" },
            ],
        });
        super::provider(&mut provider);
        let left = json!({
            "checks": [
                { "name": "reach", "state": "fails", "reason": "r", "setting": "publicUrl", "last": { "reason": "r" } },
                { "name": "service:web", "state": "fails", "reason": null, "setting": null,
                  "last": { "outcome": "fail", "reason": null } },
            ],
            "shortfalls": [
                { "field": "hostServiceAccess", "reason": super::UNWELL, "setting": null },
                { "field": "egressMode", "reason": "r", "setting": "publicUrl" },
            ],
        });
        assert_eq!(provider, left);
    }
}
