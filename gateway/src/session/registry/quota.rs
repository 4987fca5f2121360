//! What many sessions may do together: those of a namespace, and those of an owner within one.

use std::sync::{Arc, PoisonError};

use super::{Registry, RegistryError};
use crate::session::{Budget, Quota, Record};

/// Namespace, and the owner within it.
pub(super) type Owner = (Arc<str>, Option<Arc<str>>);

/// Whose a session is: its namespace's, and its owner's where it has one.
pub(super) fn owners(record: &Record) -> impl Iterator<Item = Owner> + use<> {
    let namespace: Arc<str> = record.namespace.as_str().into();
    let own = record.owner.as_deref().map(Arc::from);
    let own = own.map(|owner| (namespace.clone(), Some(owner)));
    [Some((namespace, None)), own].into_iter().flatten()
}

/// What of sessions is held for long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Held {
    /// Those that are not stopped.
    Sessions,
    /// Those that there is a record of, each by what it asks for.
    Records,
    /// Bytes of their logs.
    LogBytes,
}

impl Held {
    const fn what(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Records => {
                "records of sessions (one more for each 16 KiB of what one asks for), stopped ones among them, which go after store.retention.sessions"
            }
            Self::LogBytes => {
                "bytes in logs of sessions, which go with the records of those that are stopped, after store.retention.sessions"
            }
        }
    }

    /// There is no more of it.
    pub(super) fn refused(self, owner: &Owner, in_use: u64, limit: u64) -> RegistryError {
        let whose = match owner {
            (namespace, None) => format!("namespace {namespace:?}"),
            (_, Some(owner)) => format!("owner {owner:?}"),
        };
        RegistryError::Quota {
            whose,
            in_use,
            limit,
            what: self.what(),
        }
    }
}

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

    /// The bounds of an owner, or of a namespace as a whole.
    pub(super) fn quota_of(&self, (_, owner): &Owner) -> Quota {
        let config = self.config();
        match owner {
            None => config.namespace_quota,
            Some(_) => config.owner_quota,
        }
    }

    /// May one more session be created?
    pub(super) fn check_quota(
        &self,
        namespace: &str,
        owner: Option<&str>,
    ) -> Result<(), RegistryError> {
        let namespace: Arc<str> = namespace.into();
        let all = (namespace.clone(), None);
        let own = owner.map(|owner| (namespace, Some(owner.into())));
        for owner in [Some(all), own].into_iter().flatten() {
            let (quota, held) = (self.quota_of(&owner), self.held(&owner));
            for (what, limit, in_use) in [
                (Held::Sessions, quota.sessions, held.sessions),
                (Held::Records, quota.records, held.records),
            ] {
                if let Some(limit) = limit.filter(|limit| in_use >= *limit) {
                    return Err(what.refused(&owner, in_use as u64, limit as u64));
                }
            }
        }
        Ok(())
    }

    /// May a record be this one, where it counts for more than what it was before?
    pub(super) fn check_record(
        &self,
        before: Option<&Record>,
        record: &Record,
    ) -> Result<(), RegistryError> {
        let before = before.map_or(0, Record::weight);
        let more = record.weight().saturating_sub(before);
        if more == 0 {
            return Ok(());
        }
        for owner in owners(record) {
            let in_use = self.held(&owner).records;
            let limit = self.quota_of(&owner).records;
            if let Some(limit) = limit.filter(|limit| in_use + more > *limit) {
                return Err(Held::Records.refused(&owner, in_use as u64, limit as u64));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
