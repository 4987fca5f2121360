//! The policy a command is about: a file that holds one, or a provider of a configuration file.

use std::{path::Path, sync::Arc};

use serde_json::{Map, Value};
use sluicegate_policy::{
    Admission, Author, Ceiling, EgressDocument, GrantDocument, Origin, OwnAddresses,
    text::{self, Faults, Kind, Node},
};

use super::super::failure::{FAILED, Failure, USAGE};
use crate::{
    app::policy_config,
    config::Config,
    session::{AskedGrant, RegistryError},
    trial::Policy,
};

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

/// What flags ask for.
pub(super) fn asked(document: Map<String, Value>) -> Result<AskedGrant, Failure> {
    AskedGrant::read(&Value::from(document).to_string()).map_err(|faults| by_path(&faults))
}

/// A file of either kind, told apart by its keys; naming a provider makes it a configuration file. The policy is that of a
/// session that asks for `asked`.
pub(super) fn load(
    path: &Path,
    provider: Option<&str>,
    asked: &AskedGrant,
) -> Result<Policy, Failure> {
    let source = read_text(path)?;
    let root = text::parse(&source, &mut Faults::default());
    let has_config_key = match root.kind() {
        Kind::Map(entries) => entries
            .iter()
            .any(|(key, _)| CONFIG_KEYS.contains(&key.as_str())),
        _ => false,
    };
    if provider.is_some() || has_config_key {
        from_config(&source, path, provider, asked)
    } else {
        from_document(&source, path, asked)
    }
}

/// What a session of a provider gets under a configuration when it asks for `asked`.
pub(super) fn from_config(
    source: &str,
    path: &Path,
    provider: Option<&str>,
    asked: &AskedGrant,
) -> Result<Policy, Failure> {
    let name = path.display().to_string();
    let (config, _) = Config::parse(source).map_err(|faults| refused(&faults, source, &name))?;
    let provider = choose(&config, provider, &name)?;
    let grant = asked.grant(&policy_config(&config), provider, Author::Operator);
    // What is asked for is not in this file: no line of it is shown.
    let grant = grant.map_err(|error| match error {
        RegistryError::Faults(faults) => by_path(&faults),
        error => Failure::new(USAGE, error.to_string()),
    })?;
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
    Ok(Policy {
        grant: Arc::new(grant),
        admission: Arc::new(admission),
    })
}

/// A policy that stands alone in its file.
pub(super) fn from_document(
    source: &str,
    path: &Path,
    asked: &AskedGrant,
) -> Result<Policy, Failure> {
    let mut faults = Faults::default();
    let root = text::parse(source, &mut faults);
    let alone = read(&root, &mut faults);
    let name = path.display().to_string();
    if !faults.is_clean() {
        return Err(refused(&faults, source, &name));
    }
    let alone =
        alone.ok_or_else(|| Failure::new(FAILED, format!("{name}: no policy came of it")))?;
    alone.policy(asked)
}

/// A block that stands for a provider's: what sessions begin with, and their bound.
#[derive(Debug)]
pub(super) struct Alone {
    document: GrantDocument,
    ceiling: Ceiling,
}

impl Alone {
    /// Nothing, within the bound of the built-in provider `local`.
    pub(super) fn local() -> Self {
        Self {
            document: GrantDocument::default(),
            ceiling: Ceiling::local(),
        }
    }

    /// The policy of a session that asks for `asked`.
    pub(super) fn policy(&self, asked: &AskedGrant) -> Result<Policy, Failure> {
        if let Some(binding) = asked.capabilities.first() {
            let message = format!(
                "capability {:?}: a block alone has no catalogue; name a configuration file",
                binding.name
            );
            return Err(Failure::new(USAGE, message));
        }
        let mut faults = Faults::default();
        let merged = self.document.clone().lay(&asked.document, Origin::Session);
        let grant = merged.compile(&self.ceiling, &mut faults);
        let grant = grant.ok_or_else(|| by_path(&faults))?;
        Ok(Policy {
            grant: Arc::new(grant),
            admission: Arc::default(),
        })
    }
}

/// An `egress` block, or a mapping that holds one beside services and limits. As in a provider's, a `ceiling` may stand
/// within; without one the bound is that of the built-in provider `local`. `None` where anything is wrong.
pub(super) fn read(node: &Node, faults: &mut Faults) -> Option<Alone> {
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
    let Alone {
        mut document,
        mut ceiling,
    } = Alone::local();
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
    // Its own faults are told with their lines.
    document.compile(&ceiling, faults)?;
    faults.is_clean().then_some(Alone { document, ceiling })
}

fn choose<'a>(config: &'a Config, provider: Option<&str>, name: &str) -> Result<&'a str, Failure> {
    let named = |name| config.providers.get_key_value(name);
    let found = match provider {
        Some(provider) => named(provider).map(|(name, _)| name.as_str()),
        None => config.default_provider().map(|(name, _)| name),
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

/// What is asked for cannot be had. It comes from flags or another file: faults are told by their paths.
pub(super) fn by_path(faults: &Faults) -> Failure {
    let told = faults.errors.iter().map(|fault| {
        let mut line = match fault.path.as_str() {
            "" => fault.message.clone(),
            path => format!("{path}: {}", fault.message),
        };
        if let Some(hint) = &fault.hint {
            line.push_str(&format!(" ({hint})"));
        }
        line
    });
    Failure::new(USAGE, told.collect::<Vec<_>>().join("\n"))
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
