//! Capabilities of a session: install, enable, disable, update, uninstall. Each change of the grant is one policy
//! generation; a capability stays bound over pause, resume, reset and new generations.

use std::{sync::PoisonError, time::SystemTime};

use serde_json::{Value, json};

use super::{Behalf, Entry, Issued, Registry, RegistryError};
use crate::session::{Binding, BindingRequest, RegistryConfig, SessionKey, lifecycle::State};

/// What is done with a binding.
#[derive(Clone, PartialEq, Debug)]
pub enum Bind {
    /// Bind it, or change how it is bound.
    Install(BindingRequest),
    /// Change a binding that exists.
    Update(BindingRequest),
    /// Let it count, or not.
    Enable(bool),
    /// Take it away.
    Uninstall,
}

impl Bind {
    const fn done(&self) -> &'static str {
        match self {
            Self::Install(_) => "installed",
            Self::Update(_) => "updated",
            Self::Enable(true) => "enabled",
            Self::Enable(false) => "disabled",
            Self::Uninstall => "uninstalled",
        }
    }
}

impl Registry {
    /// Change one capability of a session. Installing what is installed, and uninstalling from a session that never
    /// had it, tell apart by the answer.
    ///
    /// # Errors
    /// [`RegistryError`]: unknown session or binding, a session that is over, or a grant that cannot be had.
    pub fn bind_at(
        &self,
        by: &Behalf,
        key: &SessionKey,
        name: &str,
        how: Bind,
        now: SystemTime,
    ) -> Result<Issued, RegistryError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let _acting = self.acting(by.actor.clone());
        let before = self.entry_of(by, key)?;
        if before.record.lease.state == State::Stopped {
            return Err(RegistryError::Ended {
                id: key.id.to_string(),
                state: State::Stopped,
            });
        }
        let mut entry: Entry = (*before).clone();
        let reason = format!("capability {name} {}", how.done());
        let created = change(
            &mut entry.record.capabilities,
            name,
            how,
            &self.config(),
            now,
        )?;
        let issued = self.change_grant(&before, entry, Some(reason), now)?;
        Ok(Issued { created, ..issued })
    }

    /// The capabilities a session is bound to, in the order they are laid over each other.
    ///
    /// # Errors
    /// Unknown session.
    pub fn bindings(&self, key: &SessionKey) -> Result<Vec<Value>, RegistryError> {
        let (entry, config) = (self.entry(key)?, self.config());
        let bindings = entry.record.capabilities.iter();
        Ok(bindings.map(|binding| binding.to_value(&config)).collect())
    }

    /// The catalogue of capabilities.
    pub fn capabilities(&self) -> Vec<Value> {
        let config = self.config();
        let shown = |(name, capability): (&String, &crate::session::Capability)| {
            let grant = capability.grant.to_value();
            json!({
                "name": name,
                "description": capability.description,
                "secrets": capability.secrets,
                "egress": grant.get("egress"),
                "services": grant.get("services"),
                "expose": grant.get("expose"),
                "limits": grant.get("limits"),
            })
        };
        config.capabilities.iter().map(shown).collect()
    }
}

/// Returns whether the binding is new.
fn change(
    bindings: &mut Vec<Binding>,
    name: &str,
    how: Bind,
    config: &RegistryConfig,
    now: SystemTime,
) -> Result<bool, RegistryError> {
    let found = bindings.iter().position(|binding| binding.name == name);
    match (how, found.and_then(|at| bindings.get_mut(at))) {
        (Bind::Install(asked), None) => {
            bindings.push(asked.over(None, config, now)?);
            return Ok(true);
        }
        (Bind::Install(asked) | Bind::Update(asked), Some(binding)) => {
            *binding = asked.over(Some(binding), config, now)?;
        }
        (Bind::Enable(enabled), Some(binding)) => binding.enabled = enabled,
        (Bind::Uninstall, Some(_)) => bindings.retain(|binding| binding.name != name),
        (Bind::Update(_) | Bind::Enable(_) | Bind::Uninstall, None) => {
            return Err(RegistryError::UnknownBinding(name.into()));
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests;
