//! Reading: views and explanations.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, PoisonError},
};

use sluicegate_policy::{Author, Grant, GrantDocument};

use super::{Behalf, Entry, Registry, RegistryError, compile};
use crate::{
    auth::HandleHash,
    session::{AskedGrant, SessionKey, lifecycle::State},
};

/// Which sessions a list is of: all, but for what is named.
#[derive(Clone, Copy, Default, Debug)]
pub struct Wanted<'a> {
    /// Of this namespace.
    pub namespace: Option<&'a str>,
    /// Of this provider.
    pub provider: Option<&'a str>,
    /// Called so: one in each namespace and provider at most.
    pub id: Option<&'a str>,
}

impl Wanted<'_> {
    fn holds(&self, key: &SessionKey) -> bool {
        self.namespace.is_none_or(|n| *key.namespace == *n)
            && self.provider.is_none_or(|p| *key.provider == *p)
            && self.id.is_none_or(|id| *key.id == *id)
    }
}

impl Registry {
    /// One session, as the admin API shows it.
    pub fn show(&self, key: &SessionKey) -> Option<serde_json::Value> {
        self.entry(key).ok().map(|entry| self.view(&entry))
    }

    /// The services that the session's own document has, as written there; nothing where there is no such session.
    pub fn services_brought(&self, key: &SessionKey) -> serde_json::Value {
        let own = self
            .entry(key)
            .and_then(|entry| compile::own(&entry.record));
        let own = own.map(|document| document.to_value()).unwrap_or_default();
        own.get("services").cloned().unwrap_or_default()
    }

    /// Why no session can be made of this provider, not even one that asks for nothing: what its own settings give is not
    /// allowed by themselves.
    pub fn provider_fault(&self, name: &str) -> Option<String> {
        let asked = GrantDocument::default();
        let made = compile::grant(&self.config(), name, &[], (&asked, Author::Operator));
        made.err().map(|error| error.told())
    }

    /// Whose session it is: `None` where there is none, `Some(None)` where nobody in particular owns it.
    pub fn owner_of(&self, key: &SessionKey) -> Option<Option<String>> {
        Some(self.entry(key).ok()?.record.owner.clone())
    }

    /// Whose credential this is: a handle or signed token of a session that lives.
    pub fn session_of(&self, credential: &str) -> Option<SessionKey> {
        if let Some(hash) = HandleHash::of(credential) {
            return self.index.handle_owner(&hash);
        }
        crate::auth::token_session(&self.keys, credential)
    }

    /// One page of what `seen` (namespace, owner) lets see, in order of namespace, provider and id, and the cursor of the next where there are more.
    pub fn page(
        &self,
        wanted: Wanted<'_>,
        seen: &dyn Fn(&str, Option<&str>) -> bool,
        after: Option<&SessionKey>,
        limit: usize,
    ) -> (Vec<serde_json::Value>, Option<SessionKey>) {
        let mut chosen = self.chosen(wanted, seen, after, limit.saturating_add(1));
        let more = chosen.len() > limit;
        chosen.truncate(limit);
        let next = chosen.last().filter(|_| more).map(|e| e.record.key());
        let views = chosen.iter().map(|entry| self.view(entry));
        (views.collect(), next)
    }

    fn chosen(
        &self,
        wanted: Wanted<'_>,
        seen: &dyn Fn(&str, Option<&str>) -> bool,
        after: Option<&SessionKey>,
        limit: usize,
    ) -> Vec<Arc<Entry>> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries
            .range::<SessionKey, _>((start, Bound::Unbounded))
            .filter(|(key, entry)| {
                wanted.holds(key) && seen(&key.namespace, entry.record.owner.as_deref())
            })
            .take(limit)
            .map(|(_, entry)| entry.clone())
            .collect()
    }

    /// How many sessions are in each state, of one namespace or all, among those that `seen` lets through.
    pub fn states(
        &self,
        namespace: Option<&str>,
        seen: &dyn Fn(&str, Option<&str>) -> bool,
    ) -> BTreeMap<&'static str, usize> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let mut states = BTreeMap::new();
        for (key, entry) in entries.iter() {
            let record = &entry.record;
            if namespace.is_none_or(|asked| *key.namespace == *asked)
                && seen(&key.namespace, record.owner.as_deref())
            {
                *states.entry(record.lease.state.as_str()).or_default() += 1;
            }
        }
        states
    }

    /// Sessions in order of namespace, provider and id, as the admin API shows them.
    pub fn list(&self, namespace: Option<&str>, provider: Option<&str>) -> Vec<serde_json::Value> {
        let chosen = |key: &SessionKey| {
            namespace.is_none_or(|n| *key.namespace == *n)
                && provider.is_none_or(|p| *key.provider == *p)
        };
        let entries = self.all();
        entries
            .iter()
            .filter(|entry| chosen(&entry.record.key()))
            .map(|entry| self.view(entry))
            .collect()
    }

    /// How many sessions of a provider are not stopped, among those that `seen` lets through.
    pub fn count(
        &self,
        provider: &str,
        namespace: Option<&str>,
        seen: &dyn Fn(&str, Option<&str>) -> bool,
    ) -> usize {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let counts = |(key, entry): &(&SessionKey, &Arc<Entry>)| {
            *key.provider == *provider
                && namespace.is_none_or(|asked| *key.namespace == *asked)
                && entry.record.lease.state != State::Stopped
                && seen(&key.namespace, entry.record.owner.as_deref())
        };
        entries.iter().filter(counts).count()
    }

    /// Nobody is let in while the store cannot be read: no answer may say that somebody would be.
    ///
    /// # Errors
    /// It could not be read a moment ago.
    pub fn check_readable(&self) -> Result<(), RegistryError> {
        if self.index.readable() {
            Ok(())
        } else {
            Err(RegistryError::Unreadable)
        }
    }

    /// What the session may do.
    ///
    /// # Errors
    /// Unknown session, one whose grant the configuration no longer allows, or a store that cannot be read.
    pub fn grant_in_force(&self, key: &SessionKey) -> Result<Arc<Grant>, RegistryError> {
        self.check_readable()?;
        let entry = self.entry(key)?;
        let policy = match &entry.policy {
            Some(policy) => policy.clone(),
            None => compile::policy(&self.config(), &entry.record)?,
        };
        Ok(policy.grant.clone())
    }

    /// What a session that does not exist yet, and would be asked for by somebody, would be granted.
    ///
    /// # Errors
    /// Unknown provider, faults, or a store that cannot be read.
    pub fn grant_asked(
        &self,
        by: &Behalf,
        provider: &str,
        asked: &AskedGrant,
    ) -> Result<Arc<Grant>, RegistryError> {
        self.check_readable()?;
        let grant = asked.grant(&self.config(), provider, by.author())?;
        Ok(Arc::new(grant))
    }
}
