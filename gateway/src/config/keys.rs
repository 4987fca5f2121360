//! Signing keys that somebody else keeps.
use super::read;
use sluicegate_policy::text::{Faults, Node};
use std::path::PathBuf;

/// Where the signing key is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SigningKey {
    /// In a PEM file of mode 0600.
    File(PathBuf),
    /// In an environment variable, as PEM.
    Env(String),
}

/// Keys from elsewhere than the state directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeysConfig {
    /// The one that signs.
    pub signing: SigningKey,
    /// Files of those that signed before and still verify.
    pub verifying: Vec<PathBuf>,
}

impl KeysConfig {
    pub(super) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = node.fields(faults);
        let file = fields.take("signingKeyFile");
        let variable = fields.take("signingKeyEnv");
        let verifying = fields
            .take("verifyingKeyFiles")
            .map(|node| read::list(node, faults, read::path));
        fields.finish(faults);
        let signing = match (file, variable) {
            (Some(node), None) => read::path(node, faults).map(SigningKey::File),
            (None, Some(node)) => variable_name(node, faults).map(SigningKey::Env),
            (None, None) | (Some(_), Some(_)) => {
                faults.error(node.place(), "one of signingKeyFile and signingKeyEnv");
                None
            }
        };
        Some(Self {
            signing: signing?,
            verifying: verifying.unwrap_or_default(),
        })
    }
}

pub(super) fn variable_name(node: &Node, faults: &mut Faults) -> Option<String> {
    let text = node.string(faults)?;
    let named = !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if named {
        return Some(text.into());
    }
    node.expected("the name of an environment variable", faults)
}
