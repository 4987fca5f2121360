//! The policy a command is about: a file that holds one, or a provider of a configuration file.

use std::{path::Path, sync::Arc};

use sluicegate_policy::{
    Admission, Ceiling, EgressDocument, Grant, GrantDocument, OwnAddresses,
    text::{self, Faults, Kind, Node},
};

use super::super::failure::{FAILED, Failure, USAGE};
use crate::config::{Config, ProviderConfig};

/// A policy to decide by, and the settings addresses are admitted by.
pub(super) struct Policy {
    pub(super) grant: Arc<Grant>,
    pub(super) admission: Admission,
}

/// Keys that only a configuration file has at its top.
const CONFIG_KEYS: &[&str] = &[
    "publicUrl",
    "listeners",
    "tls",
    "dns",
    "store",
    "keys",
    "quotas",
    "capabilities",
    "runtime",
    "admin",
    "telemetry",
    "compat",
];

/// The text of a file, or of standard input for `-`.
pub(super) fn read_text(path: &Path) -> Result<String, Failure> {
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    text.map_err(|error| Failure::new(USAGE, format!("cannot read {}: {error}", path.display())))
}

/// A file of either kind, told apart by its keys; naming a provider makes it a configuration file.
pub(super) fn load(path: &Path, provider: Option<&str>) -> Result<Policy, Failure> {
    let source = read_text(path)?;
    let root = text::parse(&source, &mut Faults::default());
    let has_config_key = match root.kind() {
        Kind::Map(entries) => entries
            .iter()
            .any(|(key, _)| CONFIG_KEYS.contains(&key.as_str())),
        _ => false,
    };
    if provider.is_some() || has_config_key {
        from_config(&source, path, provider, &GrantDocument::default())
    } else {
        from_document(&source, path)
    }
}

/// What sessions of a provider begin with under a configuration, with `over` laid on top.
pub(super) fn from_config(
    source: &str,
    path: &Path,
    provider: Option<&str>,
    over: &GrantDocument,
) -> Result<Policy, Failure> {
    let name = path.display().to_string();
    let (config, _) = Config::parse(source).map_err(|faults| refused(&faults, source, &name))?;
    let provider = choose(&config, provider, &name)?;
    let document = config
        .base_grant(provider)
        .merge(&config.with_known_services(over));
    let mut faults = Faults::default();
    let grant = document.compile(&provider.ceiling.bound, &mut faults);
    // Interfaces, and ports that the system chooses, are the running gateway's to know.
    let listeners = config.listeners.iter().map(|listener| listener.address);
    let own = OwnAddresses {
        listeners: listeners.filter(|address| address.port() != 0).collect(),
        ..OwnAddresses::default()
    };
    let admission = Admission {
        own: Arc::new(own),
        nat64: config.dns.nat64_prefixes().into(),
        mixed: config.dns.mixed_answers,
        hosts: Arc::new(config.dns.hosts.clone()),
    };
    finish(grant, admission, &faults, source, &name)
}

/// A policy that stands alone in its file.
pub(super) fn from_document(source: &str, path: &Path) -> Result<Policy, Failure> {
    let mut faults = Faults::default();
    let root = text::parse(source, &mut faults);
    let grant = read(&root, &mut faults);
    finish(
        grant,
        Admission::default(),
        &faults,
        source,
        &path.display().to_string(),
    )
}

/// An `egress` block, or a mapping that holds one beside services and limits. As in a provider's, a `ceiling` may stand
/// within; without one the bound is that of the built-in provider `local`. `None` where anything is wrong.
pub(super) fn read(node: &Node, faults: &mut Faults) -> Option<Grant> {
    let mut fields = node.fields(faults);
    if !node.is_map() {
        return None;
    }
    let is_whole = ["egress", "services", "limits"]
        .into_iter()
        .any(|key| fields.take(key).is_some());
    let block = if is_whole {
        fields.take("egress")
    } else {
        Some(node)
    };
    let mut document = GrantDocument::default();
    let mut ceiling = Ceiling::local();
    if let Some(block) = block {
        let mut inner = block.fields(faults);
        document.egress = EgressDocument::take(&mut inner, faults);
        if let Some(node) = inner.take("ceiling") {
            ceiling = Ceiling::read(node, faults);
        }
        inner.finish(faults);
    }
    if is_whole {
        fields.finish(faults);
    }
    let grant = document.compile(&ceiling, faults)?;
    faults.is_clean().then_some(grant)
}

fn choose<'a>(
    config: &'a Config,
    provider: Option<&str>,
    name: &str,
) -> Result<&'a ProviderConfig, Failure> {
    let found = match provider {
        Some(provider) => config.providers.get(provider),
        None => config.default_provider().map(|(_, provider)| provider),
    };
    found.ok_or_else(|| {
        let known: Vec<&str> = config.providers.keys().map(String::as_str).collect();
        let why = match provider {
            Some(provider) => format!("has no provider {provider:?}"),
            None => "has several providers and no default".to_owned(),
        };
        Failure::new(
            USAGE,
            format!("{name} {why}: choose with --provider: {}", known.join(", ")),
        )
    })
}

fn finish(
    grant: Option<Grant>,
    admission: Admission,
    faults: &Faults,
    source: &str,
    name: &str,
) -> Result<Policy, Failure> {
    if !faults.is_clean() {
        return Err(refused(faults, source, name));
    }
    let grant =
        grant.ok_or_else(|| Failure::new(FAILED, format!("{name}: no policy came of it")))?;
    Ok(Policy {
        grant: Arc::new(grant),
        admission,
    })
}

/// A document that cannot be used: every error with its line. The lines are shown without what looks like secrets.
pub(super) fn refused(faults: &Faults, source: &str, name: &str) -> Failure {
    let masked = sluicegate_policy::lint_source(source).masked;
    let errors = Faults {
        errors: faults.errors.clone(),
        ..Faults::default()
    };
    let told = errors.render(&masked, name);
    Failure::new(
        USAGE,
        format!("{name}: {} fault(s)\n{told}", faults.errors.len()),
    )
}
