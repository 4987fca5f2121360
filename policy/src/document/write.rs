//! Documents back to JSON, in one canonical form.

use super::{
    EgressDocument, ExposeDocument, GrantDocument, ServiceDocument,
    model::{RuleDocument, Written},
};
use crate::{Action, EchRule, HttpRule, Mode, ProxyProtocol, TlsRule};
use serde_json::{Map, Value, json};
use std::{fmt::Display, time::Duration};

impl GrantDocument {
    /// The canonical JSON of this document, for storage and display; reading it back gives an equal document.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.to_value().to_string()
    }

    /// The same, as a JSON value.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut out = Object::default();
        out.put("egress", self.egress.to_value(), is_empty_object);
        let services = self.services.iter();
        let services: Map<String, Value> = services
            .map(|(name, service)| (name.to_string(), service.to_value()))
            .collect();
        out.put("services", services.into(), is_empty_object);
        let expose = self.expose.iter();
        let expose: Map<String, Value> = expose
            .map(|(name, listener)| (name.to_string(), listener.to_value()))
            .collect();
        out.put("expose", expose.into(), is_empty_object);
        let limits = self.limits.limits;
        let mut inner = Object::default();
        inner.some("tunnels", limits.tunnels);
        inner.some("tunnelsPerDestination", limits.tunnels_per_destination);
        inner.some("opensPerSecond", limits.opens_per_second);
        inner.some("bytes", limits.bytes);
        inner.some("bandwidth", limits.bandwidth);
        out.put("limits", inner.0.into(), is_empty_object);
        out.0.into()
    }
}

impl EgressDocument {
    /// The block as a JSON value; absent keys stay absent.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut out = Object::default();
        out.some("defaultAction", self.default_action.map(action));
        out.some("allowedHosts", self.allowed_hosts.as_deref().map(shown));
        out.put("deniedHosts", shown(&self.denied_hosts), is_empty_list);
        out.put(
            "allowedAddresses",
            shown(&self.allowed_addresses),
            is_empty_list,
        );
        let rules: Vec<Value> = self
            .rules
            .iter()
            .map(|rule| rule.value.to_value())
            .collect();
        out.put("rules", rules.into(), is_empty_list);
        let hosts = self.hosts.iter().map(|(name, list)| {
            let list: Vec<String> = list.value.iter().map(ToString::to_string).collect();
            (name.to_string(), json!(list))
        });
        out.put(
            "hosts",
            hosts.collect::<Map<_, _>>().into(),
            is_empty_object,
        );
        out.some("mode", self.mode.as_ref().map(|own| mode(own.value)));
        out.0.into()
    }
}

impl RuleDocument {
    fn to_value(&self) -> Value {
        let mut out = Object::default();
        out.some("host", Some(self.host.to_string()));
        out.some("tls", self.tls.map(TlsRule::as_str));
        out.some("ech", self.ech.as_ref().map(ech));
        out.some(
            "http",
            self.http.as_ref().map(|rule| Value::from(http(rule).0)),
        );
        out.0.into()
    }
}

impl ServiceDocument {
    /// The service as a JSON value, in its long form.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut out = Object::default();
        out.some("url", self.url.as_ref().map(ToString::to_string));
        out.some("health", self.health.as_ref().map(ToString::to_string));
        out.some("halfCloseTimeout", self.half_close_timeout.map(duration));
        out.some("idleTimeout", self.idle_timeout.map(duration));
        out.some("peerUid", self.peer_uid);
        out.some(
            "proxyProtocol",
            self.proxy_protocol.map(|ProxyProtocol::V2| "v2"),
        );
        let bounds = self.http.as_ref().map(|own| {
            let mut inner = http(&own.rule);
            let hosts: Vec<String> = own.hosts.iter().map(ToString::to_string).collect();
            inner.put("hosts", json!(hosts), is_empty_list);
            inner.put("origins", json!(own.origins), is_empty_list);
            inner.put("setHeaders", json!(own.set_headers), is_empty_object);
            Value::from(inner.0)
        });
        out.some("http", bounds);
        let prefix = self.grpc_method_prefix.as_ref();
        out.some(
            "grpc",
            prefix.map(|prefix| json!({"methodPrefix": prefix.as_str()})),
        );
        out.0.into()
    }
}

impl ExposeDocument {
    /// The listener as a JSON value, in its long form.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut out = Object::default();
        out.some("dial", Some(self.dial.as_str()));
        out.some("port", self.port);
        out.some("peerUid", self.peer_uid);
        out.some("patience", self.patience.map(duration));
        out.some("halfCloseTimeout", self.half_close_timeout.map(duration));
        out.some("idleTimeout", self.idle_timeout.map(duration));
        out.0.into()
    }
}

/// An object that takes only what is there.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn some(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.0.insert(key.to_owned(), value.into());
        }
    }

    fn put(&mut self, key: &str, value: Value, is_empty: fn(&Value) -> bool) {
        if !is_empty(&value) {
            self.0.insert(key.to_owned(), value);
        }
    }
}

fn is_empty_list(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}

fn is_empty_object(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty)
}

fn shown<T: Display>(list: &[Written<T>]) -> Value {
    list.iter()
        .map(|item| item.value.to_string())
        .collect::<Vec<_>>()
        .into()
}

fn http(rule: &HttpRule) -> Object {
    let mut out = Object::default();
    out.put("methods", json!(rule.methods), is_empty_list);
    out.put("pathPrefixes", json!(rule.path_prefixes), is_empty_list);
    out
}

fn ech(rule: &EchRule) -> Value {
    match rule {
        EchRule::Outer => "outer".into(),
        EchRule::Deny => "deny".into(),
        EchRule::PublicNames(names) => {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            json!({ "publicNames": names })
        }
    }
}

const fn action(action: Action) -> &'static str {
    match action {
        Action::Allow => "allow",
        Action::Deny => "deny",
    }
}

const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Report => "report",
    }
}

fn duration(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}
