//! What sessions may reach, as the operator writes it: capabilities, known services, and the grant inside a provider.
//! The grammar is `sluicegate_policy`'s; this is where its documents stand in ours.
use super::read;
use serde_json::{Map, Value};
use sluicegate_policy::{
    Ceiling, EgressDocument, GrantDocument, Mode, ServiceDocument, ServiceName,
    text::{Fault, Faults, Fields, Kind, Node},
};
use std::collections::BTreeMap;

/// A named bundle of rules and services that sessions can be bound to.
#[derive(Clone, PartialEq, Debug)]
pub struct CapabilityConfig {
    /// For people.
    pub description: Option<String>,
    /// What it adds to a session.
    pub grant: GrantDocument,
    /// Names of secrets a session needs with it; never their values.
    pub secrets: Vec<String>,
}

impl CapabilityConfig {
    pub(super) fn read(node: &Node, faults: &mut Faults) -> Self {
        let mut fields = node.fields(faults);
        let description = fields
            .take("description")
            .and_then(|node| node.string(faults))
            .map(str::to_owned);
        let secrets = fields
            .take("secrets")
            .map(|node| read::list(node, faults, secret_name))
            .unwrap_or_default();
        let grant = GrantDocument::take(&mut fields, faults);
        fields.finish(faults);
        if grant.egress.mode() == Mode::Report {
            // It would lift the rules of whoever is bound to it, all of them.
            faults.error_hint(
                node.place(),
                "a capability adds to a session, and mode: report would take its rules away",
                "write mode: report in the session's own egress, or in its provider's",
            );
        }
        Self {
            description,
            grant,
            secrets,
        }
    }
}

/// A name, so that nobody writes the secret itself here.
fn secret_name(node: &Node, faults: &mut Faults) -> Option<String> {
    let text = node.string(faults)?;
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let named = text.len() <= 63
        && text.bytes().next().is_some_and(letter)
        && text
            .bytes()
            .all(|b| letter(b) || matches!(b, b'.' | b'_' | b'-'));
    if named {
        return Some(text.into());
    }
    node.expected(
        "a secret's name: lower-case letters, digits, '.', '_' and '-', at most 63",
        faults,
    )
}

/// What no session of a provider may exceed, and how it was written.
#[derive(Clone, PartialEq, Debug)]
pub struct CeilingConfig {
    /// The bound itself.
    pub bound: Ceiling,
    pub(super) written: Value,
}

impl Default for CeilingConfig {
    /// No bound on names, nothing special-purpose.
    fn default() -> Self {
        Self {
            bound: Ceiling::default(),
            written: Value::Object(Map::new()),
        }
    }
}

impl CeilingConfig {
    /// Loopback and nothing else that is special-purpose: the built-in provider `local`.
    pub(super) fn local() -> Self {
        let written = serde_json::json!({"addresses": ["127.0.0.0/8", "::1/128"]});
        Self {
            bound: Ceiling::local(),
            written,
        }
    }

    pub(super) fn read(node: &Node, faults: &mut Faults) -> Self {
        Self {
            bound: Ceiling::read(node, faults),
            written: plain_value(node),
        }
    }
}

/// Read `egress` with the `ceiling` inside it, `services`, `expose` and `limits` of the provider at `node`.
pub(super) fn read_bounded_grant(
    node: &Node,
    fields: &mut Fields<'_>,
    faults: &mut Faults,
) -> (GrantDocument, CeilingConfig) {
    let egress_node = fields.take("egress");
    // Known here, read below.
    fields.take("services");
    fields.take("expose");
    fields.take("limits");
    let (mut egress, mut ceiling) = (EgressDocument::default(), CeilingConfig::default());
    if let Some(node) = egress_node {
        let mut below = node.fields(faults);
        egress = EgressDocument::take(&mut below, faults);
        if let Some(node) = below.take("ceiling") {
            ceiling = CeilingConfig::read(node, faults);
        }
        below.finish(faults);
    }
    // A whole grant is read for its services, listeners and limits; of `egress` everything was told above.
    let mut told = Faults::default();
    let mut all = node.fields(&mut Faults::default());
    let mut grant = GrantDocument::take(&mut all, &mut told);
    if let Some(egress_node) = egress_node {
        let path = egress_node.path();
        let elsewhere =
            |fault: &Fault| fault.path != path && !fault.path.starts_with(&format!("{path}."));
        told.errors.retain(elsewhere);
        told.warnings.retain(elsewhere);
    }
    faults.append(told);
    grant.egress = egress;
    (grant, ceiling)
}

/// Read services by name, each with its address.
pub(super) fn read_services(
    node: &Node,
    faults: &mut Faults,
) -> BTreeMap<ServiceName, ServiceDocument> {
    let mut services = BTreeMap::new();
    for (key, node) in node.entries(faults) {
        let before = faults.errors.len();
        let service = ServiceDocument::read(node, faults);
        if service.url.is_none() && faults.errors.len() == before {
            faults.error(node.place(), "a known service needs its url");
        }
        match ServiceName::parse(key) {
            Ok(name) => {
                services.insert(name, service);
            }
            Err(_) => faults.error_hint(
                &node.key_place(),
                format!("{key:?} is not a service name"),
                "lower-case letters, digits, '.', '_' and '-'; one :binding at most",
            ),
        }
    }
    services
}

/// A value as written; scalars as text, which is all a ceiling has.
fn plain_value(node: &Node) -> Value {
    match node.kind() {
        Kind::Null | Kind::Broken => Value::Null,
        Kind::Scalar { text, .. } => Value::from(text.as_str()),
        Kind::List(items) => items.iter().map(plain_value).collect(),
        Kind::Map(entries) => Value::Object(
            entries
                .iter()
                .map(|(key, node)| (key.clone(), plain_value(node)))
                .collect(),
        ),
    }
}
