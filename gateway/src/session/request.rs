//! Create and patch requests: text to types, all faults at once.

use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sluicegate_certs::Thumbprint;
use sluicegate_policy::{
    EgressDocument, GrantDocument, canonical_net,
    text::{self, Faults, Fields, Node, Place},
};

use super::{
    AskedGrant, BindingRequest, binding,
    lifecycle::{OnExpiry, OnPause, Times},
};

/// A session id, namespace or scope: `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`.
pub fn is_session_id(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.len() <= 63
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// `secretIds` of whatever starts a session: known, and refused, until there is somewhere to take secrets from.
pub fn no_secrets(fields: &mut Fields<'_>, faults: &mut Faults) {
    if let Some(node) = fields.take("secretIds") {
        let hint = "leave secretIds out, and give the sandbox its secrets by other means";
        faults.error_hint(
            &node.key_place(),
            "this gateway holds no secrets: none can be injected",
            hint,
        );
    }
}

/// Times a request names; the provider's fill the rest. Zero = never.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TimesRequest {
    /// `ttl`.
    pub ttl: Option<Duration>,
    /// `idleTimeout`.
    pub idle_timeout: Option<Duration>,
    /// `maxLifetime`.
    pub max_lifetime: Option<Duration>,
    /// `onExpiry`.
    pub on_expiry: Option<OnExpiry>,
    /// `onPause`.
    pub on_pause: Option<OnPause>,
}

impl TimesRequest {
    /// Lay over a provider's times. A session never outlives the provider's `maxLifetime`.
    pub fn over(self, base: Times) -> Times {
        let pick = |own: Option<Duration>, base: Option<Duration>| match own {
            Some(Duration::ZERO) => None,
            Some(own) => Some(own),
            None => base,
        };
        let max_lifetime = match (
            pick(self.max_lifetime, base.max_lifetime),
            base.max_lifetime,
        ) {
            (Some(own), Some(bound)) => Some(own.min(bound)),
            (own, bound) => own.or(bound),
        };
        Times {
            ttl: pick(self.ttl, base.ttl),
            idle_timeout: pick(self.idle_timeout, base.idle_timeout),
            max_lifetime,
            on_expiry: self.on_expiry.unwrap_or(base.on_expiry),
            on_pause: self.on_pause.unwrap_or(base.on_pause),
            token_ttl: base.token_ttl,
        }
    }

    /// What is asked for and cannot be had. (Zero asks for no bound of its own: the provider's holds.)
    pub fn faults(self, base: Times) -> Faults {
        let mut faults = Faults::default();
        let asked = [
            ("maxLifetime", self.max_lifetime, base.max_lifetime),
            ("ttl", self.ttl, self.over(base).max_lifetime),
        ];
        for (key, own, most) in asked {
            if let (Some(own), Some(most)) = (own, most)
                && own > most
            {
                let place = Place {
                    path: text::Path::default().key(key),
                    ..Place::default()
                };
                let message = format!("is above maxLifetime, which is {most:?}");
                let hint =
                    "ask for less; the provider's session.maxLifetime is the operator's to raise";
                faults.error_hint(&place, message, hint);
            }
        }
        faults
    }

    fn read(fields: &mut Fields<'_>, faults: &mut Faults) -> Self {
        let expiries = [
            ("reset", OnExpiry::Reset),
            ("pause", OnExpiry::Pause),
            ("stop", OnExpiry::Stop),
        ];
        let pauses = [("close", OnPause::Close), ("hold", OnPause::Hold)];
        Self {
            ttl: fields.take("ttl").and_then(|node| node.duration(faults)),
            idle_timeout: fields
                .take("idleTimeout")
                .and_then(|node| node.duration(faults)),
            max_lifetime: fields
                .take("maxLifetime")
                .and_then(|node| node.duration(faults)),
            on_expiry: fields
                .take("onExpiry")
                .and_then(|node| node.choice(&expiries, faults)),
            on_pause: fields
                .take("onPause")
                .and_then(|node| node.choice(&pauses, faults)),
        }
    }
}

/// What a create request asks for.
#[derive(Clone, Debug)]
pub struct CreateRequest {
    /// The client's own id; makes the request repeatable.
    pub id: Option<String>,
    /// Namespace; absent = `default`, unless whoever asks has another.
    pub namespace: Option<String>,
    /// Begin a generation at once.
    pub start: bool,
    /// Times.
    pub times: TimesRequest,
    /// Label.
    pub scope: Option<String>,
    /// Whose it is, within its namespace.
    pub owner: Option<String>,
    /// Where its credentials may come from.
    pub sources: Vec<IpNet>,
    /// The key its credentials are bound to.
    pub client_key: Option<Thumbprint>,
    /// Its own grant, and the capabilities it is bound to from the start.
    pub grant: AskedGrant,
}

/// What a patch changes: each block named is replaced whole.
#[derive(Clone, Debug, Default)]
pub struct PatchRequest {
    egress: bool,
    services: bool,
    expose: bool,
    limits: bool,
    document: GrantDocument,
    capabilities: Option<Vec<BindingRequest>>,
}

impl CreateRequest {
    /// Read a request's body (JSON or YAML).
    ///
    /// # Errors
    /// Every fault, with its position.
    pub fn read(source: &str) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let root = text::parse(
            if source.trim().is_empty() {
                "{}"
            } else {
                source
            },
            &mut faults,
        );
        let mut fields = root.fields(&mut faults);
        let id = fields.take("id").and_then(|node| name(node, &mut faults));
        let namespace = fields
            .take("namespace")
            .and_then(|node| name(node, &mut faults));
        let start = fields
            .take("start")
            .and_then(|node| node.boolean(&mut faults));
        let times = TimesRequest::read(&mut fields, &mut faults);
        let scope = fields
            .take("scope")
            .and_then(|node| name(node, &mut faults));
        let owner = fields
            .take("owner")
            .and_then(|node| name(node, &mut faults));
        let sources = fields
            .take("sources")
            .map(|node| ranges(node, &mut faults))
            .unwrap_or_default();
        let client_key = fields
            .take("clientKey")
            .and_then(|node| thumbprint(node, &mut faults));
        no_secrets(&mut fields, &mut faults);
        let grant = AskedGrant::take(&mut fields, &mut faults);
        fields.finish(&mut faults);
        let request = Self {
            id,
            namespace,
            start: start.unwrap_or(true),
            times,
            scope,
            owner,
            sources,
            client_key,
            grant,
        };
        if faults.is_clean() {
            Ok(request)
        } else {
            Err(faults)
        }
    }

    /// The namespace it is for.
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }

    /// What makes two requests the same, whatever their spelling and order of keys.
    pub(super) fn digest(&self) -> String {
        let mut text = format!(
            "{:?} {:?} {:?} {:?} {}",
            self.start,
            self.times,
            self.scope,
            self.sources,
            self.grant.document.to_json()
        );
        if let Some(owner) = &self.owner {
            text.push_str(&format!(" owner {owner}"));
        }
        if let Some(key) = &self.client_key {
            text.push_str(&format!(" key {key}"));
        }
        let capabilities = &self.grant.capabilities;
        if !capabilities.is_empty() {
            text.push_str(&format!(" {capabilities:?}"));
        }
        data_encoding::HEXLOWER.encode(&Sha256::digest(text))
    }
}

impl PatchRequest {
    /// Read a patch's body.
    ///
    /// # Errors
    /// Every fault, with its position.
    pub fn read(source: &str) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let root = text::parse(source, &mut faults);
        let mut fields = root.fields(&mut faults);
        let patch = read_grant(&mut fields, &mut faults);
        fields.finish(&mut faults);
        if faults.is_clean() {
            Ok(patch)
        } else {
            Err(faults)
        }
    }

    /// The capabilities named, where any list is.
    pub(super) fn capabilities(&self) -> Option<&[BindingRequest]> {
        self.capabilities.as_deref()
    }

    /// Are services among what it names?
    pub(super) const fn names_services(&self) -> bool {
        self.services
    }

    /// What it replaces, by the keys of a session's document.
    pub(super) fn replaces(&self) -> Vec<&'static str> {
        let keys = [
            ("egress", self.egress),
            ("services", self.services),
            ("expose", self.expose),
            ("limits", self.limits),
        ];
        let named = keys.into_iter().filter(|(_, named)| *named);
        named.map(|(key, _)| key).collect()
    }

    /// Replace what is named.
    pub(super) fn apply(self, mut document: GrantDocument) -> GrantDocument {
        if self.egress {
            document.egress = self.document.egress;
        }
        if self.services {
            document.services = self.document.services;
        }
        if self.expose {
            document.expose = self.document.expose;
        }
        if self.limits {
            document.limits = self.document.limits;
        }
        document
    }
}

/// `egress`, `services`, `expose`, `limits`, `capabilities`, and `allow` and `hosts`, which are keys of `egress` written one
/// level up.
pub(super) fn read_grant(fields: &mut Fields<'_>, faults: &mut Faults) -> PatchRequest {
    let mut named = |key| fields.take(key).is_some();
    let (egress, services) = (named("egress"), named("services"));
    let (expose, limits) = (named("expose"), named("limits"));
    let mut document = GrantDocument::take(fields, faults);
    let allow = fields
        .take("allow")
        .map(|node| (node, allowed(node, faults)));
    let hosts = fields
        .take("hosts")
        .map(|node| (node, answers(node, faults)));
    let joined = allow.as_ref().filter(|_| egress).map(|(node, _)| *node);
    let egress = egress || allow.is_some() || hosts.is_some();
    for (node, block) in [allow, hosts].into_iter().flatten() {
        document.egress = document.egress.merge(&read_block(node, &block, faults));
    }
    if let Some(node) = joined {
        document.egress.bound_joined(node.place(), faults);
    }
    let capabilities = fields
        .take("capabilities")
        .map(|node| binding::read_list(node, faults));
    PatchRequest {
        egress,
        services,
        expose,
        limits,
        document,
        capabilities,
    }
}

fn allowed(node: &Node, faults: &mut Faults) -> Value {
    let names: Vec<&str> = node
        .list(faults)
        .iter()
        .filter_map(|item| item.string(faults))
        .collect();
    json!({ "allowedHosts": names })
}

fn answers(node: &Node, faults: &mut Faults) -> Value {
    let mut answers = serde_json::Map::new();
    for (name, value) in node.entries(faults) {
        let items = if value.is_list() {
            value.list(faults)
        } else {
            std::slice::from_ref(value)
        };
        let addresses: Vec<&str> = items
            .iter()
            .filter_map(|item| item.string(faults))
            .collect();
        answers.insert(name.clone(), addresses.into());
    }
    json!({ "hosts": answers })
}

/// Read an egress block made from a short form; its faults are reported where the short form stands.
fn read_block(node: &Node, block: &Value, faults: &mut Faults) -> EgressDocument {
    let mut own = Faults::default();
    let root = text::parse(&block.to_string(), &mut own);
    let document = EgressDocument::read(&root, &mut own);
    for fault in own.errors {
        match fault.hint {
            Some(hint) => faults.error_hint(node.place(), fault.message, hint),
            None => faults.error(node.place(), fault.message),
        }
    }
    for fault in own.warnings {
        faults.warn(node.place(), fault.message, fault.hint);
    }
    document
}

pub(super) fn name(node: &Node, faults: &mut Faults) -> Option<String> {
    let text = node.string(faults)?;
    if is_session_id(text) {
        return Some(text.into());
    }
    node.expected(
        "a letter or digit, then letters, digits, '.', '_' or '-', at most 63 in all",
        faults,
    )
}

fn thumbprint(node: &Node, faults: &mut Faults) -> Option<Thumbprint> {
    let text = node.string(faults)?;
    if let Ok(key) = text.parse() {
        return Some(key);
    }
    node.expected(
        "the thumbprint of a client's key, as `sluicegate-relay key` prints it",
        faults,
    )
}

fn ranges(node: &Node, faults: &mut Faults) -> Vec<IpNet> {
    let mut found = Vec::new();
    for item in node.list(faults) {
        let Some(text) = item.string(faults) else {
            continue;
        };
        let range = text
            .parse::<IpNet>()
            .ok()
            .or_else(|| text.parse().ok().map(|ip: std::net::IpAddr| ip.into()));
        // A source is known by its canonical address.
        match range.map(|range| range.trunc()).and_then(canonical_net) {
            Some(range) => found.push(range),
            None => {
                item.expected::<()>("an address or a range such as 10.0.0.0/8", faults);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
