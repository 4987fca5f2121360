//! Who is told of lifecycle events.
use super::read::{self, keep};
use crate::session::EVENT_TYPES;
use sluicegate_policy::{
    Ceiling, Grant, GrantDocument, Target,
    text::{self, Faults, Node},
};
use std::path::PathBuf;

/// Attempts before an event is given up, where the document does not say.
pub(super) const ATTEMPTS: u32 = 12;

/// One webhook.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebhookConfig {
    /// For logs, answers and the store.
    pub name: String,
    /// As written: it is part of what is signed.
    pub url: String,
    /// Host and port of it.
    pub target: Target,
    /// `https`.
    pub tls: bool,
    /// Path and query of it.
    pub path: String,
    /// The file with the secret that signs (0600).
    pub secret_file: PathBuf,
    /// PEM roots its certificate may chain to, beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Types of events, or prefixes of them with `*`; empty = all.
    pub events: Vec<String>,
    /// Private addresses it may be at.
    pub allowed_addresses: Vec<String>,
    /// Attempts before an event is given up.
    pub attempts: u32,
}

impl WebhookConfig {
    pub(super) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = node.fields(faults);
        let name = fields
            .require("name", faults)
            .and_then(|node| super::admin::name(node, faults));
        let url_node = fields.require("url", faults);
        let url = url_node.and_then(|node| url(node, faults));
        let secret_file = fields
            .require("secretFile", faults)
            .and_then(|node| read::path(node, faults));
        let ca_file = fields
            .take("caFile")
            .and_then(|node| read::path(node, faults));
        let events = fields
            .take("events")
            .map(|node| read::list(node, faults, event));
        let addresses = fields.take("allowedAddresses").map(|node| {
            read::list(node, faults, |node, faults| {
                node.string(faults).map(str::to_owned)
            })
        });
        let mut attempts = ATTEMPTS;
        keep(
            &mut attempts,
            fields
                .take("attempts")
                .and_then(|node| read::count(node, 1, faults)),
        );
        fields.finish(faults);
        let (text, target, tls, path) = url?;
        let hook = Self {
            name: name?,
            url: text,
            target,
            tls,
            path,
            secret_file: secret_file?,
            ca_file,
            events: events.unwrap_or_default(),
            allowed_addresses: addresses.unwrap_or_default(),
            attempts,
        };
        // What it may connect to is judged now, so that a private address stops the start and not every delivery.
        let mut found = Faults::default();
        hook.grant(&mut found);
        for fault in found.errors {
            faults.error_hint(
                url_node.map_or(node.place(), Node::place),
                fault.message,
                "add the address to the webhook's allowedAddresses",
            );
        }
        Some(hook)
    }

    /// What it may connect to: its own target, at a public address or an excepted one.
    pub fn grant(&self, faults: &mut Faults) -> Option<Grant> {
        let ceiling = serde_json::json!({ "addresses": self.allowed_addresses });
        let ceiling = match self.allowed_addresses.is_empty() {
            true => Ceiling::default(),
            false => Ceiling::read(&text::parse(&ceiling.to_string(), faults), faults),
        };
        let mut egress = serde_json::json!({ "allowedHosts": [self.target.to_string()] });
        if let (Some(fields), false) = (egress.as_object_mut(), self.allowed_addresses.is_empty()) {
            fields.insert(
                "allowedAddresses".into(),
                self.allowed_addresses.clone().into(),
            );
        }
        let document = serde_json::json!({ "egress": egress }).to_string();
        let document = GrantDocument::read(&text::parse(&document, faults), faults);
        document.compile(&ceiling, faults)
    }
}

fn url(node: &Node, faults: &mut Faults) -> Option<(String, Target, bool, String)> {
    let text = node.string(faults)?;
    let parsed = text.parse::<http::Uri>().ok().and_then(|uri| {
        let (tls, port) = match uri.scheme_str()? {
            "https" => (true, 443),
            "http" => (false, 80),
            _ => return None,
        };
        let authority = uri.authority()?.as_str();
        let target = Target::from_uri_authority(authority, port).ok()?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        (!authority.contains('@')).then(|| (text.to_owned(), target, tls, path.to_owned()))
    });
    match parsed {
        Some(parsed) => Some(parsed),
        None => node.expected("a URL such as https://hooks.example.com/sluicegate", faults),
    }
}

fn event(node: &Node, faults: &mut Faults) -> Option<String> {
    let text = node.string(faults)?;
    let exists = match text.strip_suffix('*') {
        Some(prefix) => EVENT_TYPES.iter().any(|kind| kind.starts_with(prefix)),
        None => EVENT_TYPES.contains(&text),
    };
    if exists {
        return Some(text.into());
    }
    // One that matches nothing would be silent for ever, and look like a webhook that works.
    node.expected(
        "a type of event such as session.started, or session.*",
        faults,
    )
}
