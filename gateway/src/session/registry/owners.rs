//! What owners use of what they may.

use std::{collections::BTreeMap, ops::Bound, sync::PoisonError, time::SystemTime};

use super::Registry;
use crate::session::{Quota, lifecycle::State};

/// Namespace, and owner within it.
pub type OwnerKey = (String, String);

/// What is in use of one quota.
#[derive(Clone, Debug)]
pub struct OwnerUse {
    /// The bounds.
    pub quota: Quota,
    /// Sessions by state; those that are stopped do not count against the quota.
    pub states: States,
    /// Sessions that count against the quota.
    pub sessions: usize,
    /// Sessions that there is a record of, each by what it asks for.
    pub records: usize,
    /// Bytes of their logs.
    pub logs: u64,
    /// Tunnels and streams open now.
    pub open: u64,
    /// Bytes spent by every session there is a record of.
    pub bytes: u64,
    /// When something last moved; `None` where nothing has since the gateway started.
    pub active_at: Option<SystemTime>,
}

/// Sessions by state.
type States = BTreeMap<&'static str, usize>;

impl Registry {
    /// What each owner uses that a session's record names: in order, after `after`, of one namespace or all; those that `seen`
    /// lets through.
    pub fn owners(
        &self,
        namespace: Option<&str>,
        seen: &dyn Fn(&str, Option<&str>) -> bool,
        after: Option<&OwnerKey>,
        limit: usize,
    ) -> Vec<(OwnerKey, OwnerUse)> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let mut found: BTreeMap<(&str, &str), States> = BTreeMap::new();
        for (key, entry) in entries.iter() {
            let Some(owner) = entry.record.owner.as_deref() else {
                continue;
            };
            if namespace.is_none_or(|asked| *key.namespace == *asked)
                && seen(&key.namespace, Some(owner))
            {
                let states = found.entry((&key.namespace, owner)).or_default();
                *states.entry(entry.record.lease.state.as_str()).or_default() += 1;
            }
        }
        let start = after.map(|(namespace, owner)| (namespace.as_str(), owner.as_str()));
        let start = start.map_or(Bound::Unbounded, Bound::Excluded);
        let page = found.range::<(&str, &str), _>((start, Bound::Unbounded));
        page.take(limit)
            .map(|((namespace, owner), states)| {
                let key = ((*namespace).to_owned(), (*owner).to_owned());
                (key, self.used(namespace, Some(owner), states.clone()))
            })
            .collect()
    }

    /// What an owner uses, or a namespace as a whole; `None` where no session's record names them.
    pub fn use_of(&self, namespace: &str, owner: Option<&str>) -> Option<OwnerUse> {
        let theirs = |_: &str, by: Option<&str>| owner.is_none() || by == owner;
        let states = self.states(Some(namespace), &theirs);
        (!states.is_empty()).then(|| self.used(namespace, owner, states))
    }

    fn used(&self, namespace: &str, owner: Option<&str>, states: States) -> OwnerUse {
        let budget = self.budget_of(namespace, owner);
        let stopped = states.get(State::Stopped.as_str()).copied();
        let active = budget.last_activity();
        let key = (namespace.into(), owner.map(Into::into));
        let all = states.values().sum::<usize>();
        OwnerUse {
            quota: self.quota_of(&key),
            sessions: all - stopped.unwrap_or_default(),
            records: self.held(&key).records,
            logs: self.log_bytes().owned(&key),
            states,
            open: budget.open_now(),
            bytes: budget.bytes(),
            active_at: (active > SystemTime::UNIX_EPOCH).then_some(active),
        }
    }
}
