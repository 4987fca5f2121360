//! What is counted over all sessions, kept as they change: a create or a start looks at what it needs, not at everything.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, PoisonError},
};

use super::{Entry, Registry, quota::Owner};
use crate::session::{Record, SessionKey, lifecycle::State};

/// Namespace, provider, label.
type Scope = (String, String, String);

/// Changed where an entry is put or removed, and nowhere else.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Sessions that are not stopped: of a namespace, and of an owner within it.
    owned: HashMap<Owner, usize>,
    scopes: HashMap<Scope, BTreeSet<Arc<str>>>,
    queued: BTreeSet<SessionKey>,
}

impl Tally {
    /// One entry in the place of another.
    pub(super) fn replace(&mut self, old: Option<&Record>, new: Option<&Record>) {
        if let Some(old) = old {
            self.take(old);
        }
        if let Some(new) = new {
            self.add(new);
        }
    }

    fn add(&mut self, record: &Record) {
        for owner in owners(record) {
            *self.owned.entry(owner).or_default() += 1;
        }
        if let Some(scope) = scope(record) {
            let id = record.id.as_str().into();
            self.scopes.entry(scope).or_default().insert(id);
        }
        if record.queued.is_some() {
            self.queued.insert(record.key());
        }
    }

    fn take(&mut self, record: &Record) {
        for owner in owners(record) {
            if let Some(count) = self.owned.get_mut(&owner) {
                *count -= 1;
                if *count == 0 {
                    self.owned.remove(&owner);
                }
            }
        }
        if let Some(scope) = scope(record)
            && let Some(ids) = self.scopes.get_mut(&scope)
        {
            ids.remove(record.id.as_str());
            if ids.is_empty() {
                self.scopes.remove(&scope);
            }
        }
        if record.queued.is_some() {
            self.queued.remove(&record.key());
        }
    }
}

fn owners(record: &Record) -> impl Iterator<Item = Owner> {
    let counts = record.lease.state != State::Stopped;
    let namespace: Arc<str> = record.namespace.as_str().into();
    let own = record.owner.as_deref().map(Arc::from);
    let own = own.map(|owner| (namespace.clone(), Some(owner)));
    [Some((namespace, None)), own]
        .into_iter()
        .flatten()
        .filter(move |_| counts)
}

fn scope(record: &Record) -> Option<Scope> {
    let label = record.scope.clone()?;
    Some((record.namespace.clone(), record.provider.clone(), label))
}

impl Registry {
    /// Sessions that are not stopped, of a namespace or of an owner within it.
    pub(super) fn owned(&self, namespace: &str, owner: Option<&str>) -> usize {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = (Arc::from(namespace), owner.map(Arc::from));
        tally.owned.get(&owner).copied().unwrap_or_default()
    }

    /// Sessions whose start waits.
    pub(super) fn queued(&self) -> Vec<Arc<Entry>> {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<SessionKey> = tally.queued.iter().cloned().collect();
        drop(tally);
        keys.iter().filter_map(|key| self.entry(key).ok()).collect()
    }

    /// The other sessions of a session's scope.
    pub(super) fn scope_of(&self, record: &Record) -> Vec<Arc<Entry>> {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = scope(record).and_then(|scope| tally.scopes.get(&scope).cloned());
        drop(tally);
        let others = ids.into_iter().flatten().filter(|id| **id != *record.id);
        let key = |id| SessionKey { id, ..record.key() };
        others.filter_map(|id| self.entry(&key(id)).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::time::SystemTime;

    use proptest::prelude::*;

    use crate::session::{
        lifecycle::Action,
        testing::{Fixture, request},
    };

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        /// Whatever happens to sessions: what is counted along is what counting them all gives.
        #[test]
        fn it_counts_what_is_there(steps in prop::collection::vec((0_u8..6, 0_u8..7), 1..24)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let f = Fixture::new();
                for (which, what) in steps {
                    let (id, owner) = (format!("s{which}"), if which % 2 == 0 { "ann" } else { "bob" });
                    let scoped = if which < 3 { ", scope: chat" } else { "" };
                    let action = match what {
                        0 | 1 => {
                            let asked = format!("{{id: {id}, owner: {owner}, start: false{scoped}}}");
                            let _ = f.registry.create("local".into(), request(&asked)).await;
                            continue;
                        }
                        2 => Action::Start,
                        3 => Action::Pause,
                        4 => Action::Reset,
                        5 => Action::Stop,
                        _ => {
                            f.sweep(SystemTime::now() + std::time::Duration::from_secs(200_000));
                            continue;
                        }
                    };
                    let _ = f.registry.act(f.key(&id), action, None).await;
                }
                let all = f.registry.list(None, None);
                let lives = |owner: Option<&str>| {
                    all.iter()
                        .filter(|one| one["state"] != "stopped")
                        .filter(|one| owner.is_none() || one["owner"].as_str() == owner)
                        .count()
                };
                for owner in [None, Some("ann"), Some("bob")] {
                    assert_eq!(f.registry.owned("default", owner), lives(owner), "{owner:?}");
                }
                let one = f.registry.all().into_iter().find(|e| e.record.scope.is_some());
                if let Some(one) = one {
                    let same = all.iter().filter(|one| one["scope"] == "chat").count();
                    assert_eq!(f.registry.scope_of(&one.record).len() + 1, same);
                }
            });
        }
    }
}
