//! Credentials of other systems that are accepted.
use super::{CeilingConfig, admin::name, keys::variable_name, read};
use sluicegate_policy::{
    ServiceName, ServiceUrl,
    text::{Faults, Fields, Node},
};
use std::path::PathBuf;

/// Where gestaltd's key is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GestaltKeyConfig {
    /// In a file of mode 0600.
    File(PathBuf),
    /// In an environment variable.
    Env(String),
}

/// What the session in a token is held against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VerifySessions {
    /// The sessions of this gateway.
    Registry,
    /// Nothing: the token is trusted.
    TrustToken,
}

/// Tokens as gestaltd mints them.
#[derive(Clone, PartialEq, Debug)]
pub struct GestaltConfig {
    /// The key that signs them.
    pub key: GestaltKeyConfig,
    /// What none of them exceeds.
    pub ceiling: CeilingConfig,
    /// The services of the configuration that they may name.
    pub services: Vec<ServiceName>,
    /// An empty list without an action allows everything within the ceiling.
    pub legacy_default_allow: bool,
    /// How their sessions are verified.
    pub verify_sessions: VerifySessions,
    /// Whose sessions they name; `None` = the default provider's.
    pub provider: Option<String>,
    /// In which namespace.
    pub namespace: String,
}

/// What is accepted of others.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct CompatConfig {
    /// Tokens of gestaltd; `None` = none.
    pub gestalt: Option<GestaltConfig>,
}

/// The words for [`VerifySessions`].
pub(super) const VERIFY: [(&str, VerifySessions); 2] = [
    ("registry", VerifySessions::Registry),
    ("trust-token", VerifySessions::TrustToken),
];

impl CompatConfig {
    pub(super) fn read(node: &Node, faults: &mut Faults) -> Self {
        let mut fields = node.fields(faults);
        let gestalt = fields.take("gestalt");
        fields.finish(faults);
        Self {
            gestalt: gestalt.and_then(|node| GestaltConfig::read(node, faults)),
        }
    }
}

impl GestaltConfig {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = node.fields(faults);
        let key = key(node, &mut fields, faults);
        let ceiling = fields.take("ceiling");
        if ceiling.is_none() {
            faults.error_hint(
                node.place(),
                "compat.gestalt has no ceiling",
                "write what no token of gestaltd may exceed: ceiling: {allowedHosts: [...]}; {} leaves names unbounded",
            );
        }
        let ceiling = ceiling.map(|node| CeilingConfig::read(node, faults));
        let services = fields.take("services").map(|node| {
            read::list(node, faults, |node, faults| {
                let text = node.string(faults)?;
                ServiceName::parse(text)
                    .ok()
                    .or_else(|| node.expected("the name of a service", faults))
            })
        });
        let legacy = fields
            .take("legacyDefaultAllow")
            .and_then(|node| node.boolean(faults));
        let verify = fields
            .take("verifySessions")
            .and_then(|node| node.choice(&VERIFY, faults));
        let provider = fields.take("provider").and_then(|node| name(node, faults));
        let namespace = fields.take("namespace").and_then(|node| name(node, faults));
        fields.finish(faults);
        Some(Self {
            key: key?,
            ceiling: ceiling?,
            services: services.unwrap_or_default(),
            legacy_default_allow: legacy.unwrap_or(false),
            verify_sessions: verify.unwrap_or(VerifySessions::Registry),
            provider,
            namespace: namespace.unwrap_or_else(|| "default".to_owned()),
        })
    }

    /// What it names must be there.
    pub(super) fn judge(&self, node: &Node, config: &super::Config, faults: &mut Faults) {
        for name in &self.services {
            if !config.services.contains_key(name) {
                let message = format!("compat.gestalt.services names {name}, which is no service");
                faults.error_hint(node.place(), message, "declare it under services");
            }
            let service = config.services.get(name);
            if let Some(ServiceUrl::Unix(path)) = service.and_then(|service| service.url.as_ref())
                && !self.ceiling.bound.holds_socket(path)
            {
                let path = path.display();
                let message = format!(
                    "compat.gestalt.services names {name}: {path} is outside compat.gestalt.ceiling.sockets"
                );
                let hint = format!("add \"{path}\" to the list, or leave the service out");
                faults.error_hint(node.place(), message, hint);
            }
        }
        match &self.provider {
            Some(name) if !config.providers.contains_key(name) => {
                let message = format!("compat.gestalt.provider names {name:?}, which is none");
                faults.error_hint(node.place(), message, "declare it under runtime.providers");
            }
            None if config.default_provider().is_none() => faults.error_hint(
                node.place(),
                "compat.gestalt names no provider, and none is the default",
                "write provider",
            ),
            Some(_) | None => {}
        }
    }
}

fn key(node: &Node, fields: &mut Fields<'_>, faults: &mut Faults) -> Option<GestaltKeyConfig> {
    match (fields.take("keyFile"), fields.take("keyEnv")) {
        (Some(node), None) => read::path(node, faults).map(GestaltKeyConfig::File),
        (None, Some(node)) => variable_name(node, faults).map(GestaltKeyConfig::Env),
        (None, None) | (Some(_), Some(_)) => {
            faults.error(node.place(), "one of keyFile and keyEnv");
            None
        }
    }
}
