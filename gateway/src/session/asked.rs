//! What is asked for a session beside what its provider gives: its own document, and capabilities.

use std::time::SystemTime;

use sluicegate_policy::{
    Author, Grant, GrantDocument,
    text::{self, Faults, Fields},
};

use super::{BindingRequest, RegistryConfig, RegistryError, registry, request};

/// The keys of a create that say what the session may reach.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct AskedGrant {
    /// Its own grant.
    pub document: GrantDocument,
    /// Capabilities it is bound to.
    pub capabilities: Vec<BindingRequest>,
}

impl AskedGrant {
    /// Take `egress`, `allow`, `hosts`, `services`, `expose`, `limits` and `capabilities` out of a larger mapping; the
    /// caller finishes it.
    pub fn take(fields: &mut Fields<'_>, faults: &mut Faults) -> Self {
        let patch = request::read_grant(fields, faults);
        let capabilities = patch.capabilities().unwrap_or_default().to_vec();
        Self {
            document: patch.apply(GrantDocument::default()),
            capabilities,
        }
    }

    /// Read a text (JSON or YAML) that holds these keys and no others.
    ///
    /// # Errors
    /// Every fault, with its position.
    pub fn read(source: &str) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let root = text::parse(source, &mut faults);
        let mut fields = root.fields(&mut faults);
        let asked = Self::take(&mut fields, &mut faults);
        fields.finish(&mut faults);
        if faults.is_clean() {
            Ok(asked)
        } else {
            Err(faults)
        }
    }

    /// What a session of `provider` that asks for this may do: the very function by which sessions are admitted.
    ///
    /// # Errors
    /// Unknown provider, or faults.
    pub fn grant(
        &self,
        config: &RegistryConfig,
        provider: &str,
        author: Author,
    ) -> Result<Grant, RegistryError> {
        // When a capability was installed is only for people.
        let now = SystemTime::UNIX_EPOCH;
        registry::grant_asked(config, provider, (self, author), now).map(|(_, grant)| grant)
    }
}
