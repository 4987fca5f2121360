//! What many sessions may do together: those of a namespace, and those of an owner within one.

use std::sync::{Arc, PoisonError};

use super::{Registry, RegistryError};
use crate::session::{Budget, Record};

/// Namespace, and the owner within it.
pub(super) type Owner = (Arc<str>, Option<Arc<str>>);

impl Registry {
    /// The budget the session counts along in: its owner's, which counts along in the namespace's.
    pub(in crate::session) fn owner(&self, record: &Record) -> Arc<Budget> {
        self.budget_of(&record.namespace, record.owner.as_deref())
    }

    /// The budget of an owner, or of a namespace as a whole.
    pub fn budget_of(&self, namespace: &str, owner: Option<&str>) -> Arc<Budget> {
        let config = self.config();
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let namespace: Arc<str> = namespace.into();
        let all = owners
            .entry((namespace.clone(), None))
            .or_insert_with(|| Arc::new(Budget::new(config.namespace_quota.limits, None)))
            .clone();
        match owner {
            None => all,
            Some(owner) => owners
                .entry((namespace, Some(owner.into())))
                .or_insert_with(|| Arc::new(Budget::new(config.owner_quota.limits, Some(all))))
                .clone(),
        }
    }

    /// What a session spent counts as long as there is a record of it; an owner of whom nothing is left is forgotten.
    pub(super) fn forget_use(&self, record: &Record) {
        let spent = record.earlier_bytes.saturating_add(record.bytes);
        self.owner(record).forget(spent);
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        // Owners first: each holds on to its namespace's.
        for whole in [false, true] {
            owners.retain(|(_, owner), budget| {
                owner.is_none() != whole || Arc::strong_count(budget) > 1 || budget.bytes() > 0
            });
        }
    }

    /// New limits for every namespace and owner.
    pub(super) fn limit_owners(&self) {
        let config = self.config();
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        for ((_, owner), budget) in owners.iter() {
            budget.set_limits(match owner {
                None => config.namespace_quota.limits,
                Some(_) => config.owner_quota.limits,
            });
        }
    }

    /// May one more session be created?
    pub(super) fn check_quota(
        &self,
        namespace: &str,
        owner: Option<&str>,
    ) -> Result<(), RegistryError> {
        let config = self.config();
        let bounds = [
            (config.namespace_quota.sessions, None),
            (
                config.owner_quota.sessions.filter(|_| owner.is_some()),
                owner,
            ),
        ];
        for (limit, owner) in bounds {
            let Some(limit) = limit else { continue };
            let in_use = self.owned(namespace, owner);
            if in_use >= limit {
                let whose = owner.map_or_else(
                    || format!("namespace {namespace:?}"),
                    |owner| format!("owner {owner:?}"),
                );
                return Err(RegistryError::Quota {
                    whose,
                    in_use,
                    limit,
                });
            }
        }
        Ok(())
    }
}
