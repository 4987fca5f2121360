//! What lives right now, for the data path: no IO, no lock held for longer than a look.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use ipnet::IpNet;
use sluicegate_certs::Thumbprint;
use sluicegate_policy::Denial;

use super::{
    Authority, Credential, Session, SessionKey,
    usage::{Usage, Visit},
};
use crate::auth::HandleHash;

/// A living generation.
#[derive(Debug)]
pub struct Live {
    /// It.
    pub session: Arc<Session>,
    /// Where its credentials may come from; empty = anywhere.
    pub sources: Arc<[IpNet]>,
    /// How long a fresh relay token is good for; `None` = what is usual.
    pub token_ttl: Option<Duration>,
    /// The key its credentials are bound to; `None` = none.
    pub key: Option<Thumbprint>,
    /// What others issued before this moment is not for it.
    pub since: SystemTime,
}

impl Live {
    /// May a credential of this session come from `source`? A mapped address counts as the IPv4 one it is.
    pub fn accepts(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        self.sources.is_empty() || self.sources.iter().any(|range| range.contains(&source))
    }
}

/// A handle that is good.
#[derive(Debug)]
struct Known {
    key: SessionKey,
    usage: Arc<Usage>,
}

#[derive(Debug, Default)]
struct Tables {
    sessions: HashMap<SessionKey, Arc<Live>>,
    handles: HashMap<HandleHash, Known>,
    /// Sessions by each range of their sources.
    sources: HashMap<IpNet, Vec<SessionKey>>,
    revoked: HashSet<String>,
    /// Those that are revoked for one namespace only, by it.
    revoked_in: HashMap<String, HashSet<String>>,
    /// Handles that were withdrawn one by one, of generations that live. (One that made room for newer ones lets nobody in any
    /// more, and cuts nothing.)
    withdrawn: HashMap<HandleHash, SessionKey>,
    /// Signing keys that were taken away.
    retired: HashSet<String>,
    /// What ends with a token, by its id.
    tied: HashMap<String, Weak<Session>>,
    /// When there are so many of them, the dead are looked for: twice as many as lived the last time.
    tied_due: usize,
}

impl Tables {
    fn is_revoked(&self, namespace: &str, id: &str) -> bool {
        let own = self.revoked_in.get(namespace);
        self.revoked.contains(id) || own.is_some_and(|ids| ids.contains(id))
    }

    /// Whatever lives under this key has no sources from now on.
    fn forget_sources(&mut self, key: &SessionKey) {
        let Some(live) = self.sessions.get(key) else {
            return;
        };
        for range in live.sources.iter().map(IpNet::trunc) {
            if let Some(keys) = self.sources.get_mut(&range) {
                keys.retain(|other| other != key);
                if keys.is_empty() {
                    self.sources.remove(&range);
                }
            }
        }
    }
}

/// Fewer in `tied` are not worth a look for the dead.
const TIED: usize = 1024;

/// Between namespace and id of a revocation as it is kept: neither has it.
const WITHIN: char = '\n';

/// A revocation of an id for one namespace, as it is kept.
pub(super) fn within(namespace: &str, id: &str) -> String {
    format!("{namespace}{WITHIN}{id}")
}

/// Ids that are remembered as seen; then all are forgotten.
const SEEN: usize = 65_536;

/// Remembers credentials that were verified, so as not to verify them again.
pub trait Remembers: std::fmt::Debug + Send + Sync {
    /// Forget those that [`Index::is_withdrawn`].
    fn forget_withdrawn(&self, index: &Index);
}

/// Living generations by session, by handle and by source, and token ids that are revoked.
#[derive(Debug, Default)]
pub struct Index {
    /// In one piece: a handle and its session, and a token and its revocation, are seen as they are at one moment.
    tables: RwLock<Tables>,
    /// Locked alone.
    remembering: Mutex<Vec<Weak<dyn Remembers>>>,
    unreadable: AtomicBool,
    /// Ids of tokens that somebody came by since the start, of refreshed ones that of their line, and their namespace.
    seen: Mutex<HashMap<String, Arc<str>>>,
    /// Tokens whose ids are not of our making are accepted.
    foreign: AtomicBool,
}

impl Index {
    /// The living generation of a session.
    pub fn session(&self, key: &SessionKey) -> Option<Arc<Live>> {
        self.read().sessions.get(key).cloned()
    }

    /// The living generation a handle belongs to.
    pub fn handle(&self, hash: &HandleHash) -> Option<Arc<Live>> {
        let tables = self.read();
        tables.sessions.get(&tables.handles.get(hash)?.key).cloned()
    }

    /// Whose handle it is.
    pub(super) fn handle_owner(&self, hash: &HandleHash) -> Option<SessionKey> {
        let tables = self.read();
        tables.handles.get(hash).map(|known| known.key.clone())
    }

    /// Somebody comes by this handle.
    pub(super) fn visit(&self, hash: &HandleHash) -> Option<Arc<Visit>> {
        let tables = self.read();
        tables
            .handles
            .get(hash)
            .map(|known| Visit::of(&known.usage))
    }

    /// Which of these handles, oldest first, makes room: one that nobody ever came by, else the one that was not used for the
    /// longest time; `None` where all are in use.
    pub(super) fn spare(&self, handles: &[HandleHash], now: SystemTime) -> Option<HandleHash> {
        let tables = self.read();
        let idle = handles.iter().filter_map(|hash| {
            let since = match tables.handles.get(hash) {
                Some(known) => known.usage.idle_since(now)?,
                None => 0,
            };
            Some((since, *hash))
        });
        let idle = idle.min_by_key(|(since, _)| *since).map(|(_, hash)| hash);
        // After a restart all of them may be spared, and nobody come by any: the first is the sandbox's, most likely.
        idle.or_else(|| {
            let guessed = |hash: &&HandleHash| {
                let known = tables.handles.get(hash);
                known.is_some_and(|known| known.usage.is_guessed())
            };
            handles.iter().skip(1).find(guessed).copied()
        })
    }

    /// The one living generation, in these namespaces, whose sources have `source` in them. One that has ended by its clocks
    /// makes no other ambiguous.
    ///
    /// # Errors
    /// `SourceUnknown` where there is none, `SourceAmbiguous` where there are several: none of them is preferred.
    pub fn source(
        &self,
        source: IpAddr,
        namespaces: &[Arc<str>],
        now: SystemTime,
    ) -> Result<Arc<Live>, Denial> {
        let source = IpNet::from(source.to_canonical());
        let tables = self.read();
        let ranges = (0..=source.max_prefix_len())
            .filter_map(|length| IpNet::new(source.addr(), length).ok())
            .filter_map(|range| tables.sources.get(&range.trunc()));
        let lives = |key: &&SessionKey| {
            let live = tables.sessions.get(*key);
            live.is_some_and(|live| !live.session.has_ended(now))
        };
        let mut keys = ranges
            .flatten()
            .filter(|key| namespaces.contains(&key.namespace))
            .filter(lives);
        let key = keys.next().ok_or(Denial::SourceUnknown)?;
        if keys.any(|other| other != key) {
            return Err(Denial::SourceAmbiguous);
        }
        let live = tables.sessions.get(key).cloned();
        live.ok_or(Denial::SourceUnknown)
    }

    /// Is this token id of a token of this namespace revoked?
    pub fn is_revoked(&self, namespace: &str, id: &str) -> bool {
        self.read().is_revoked(namespace, id)
    }

    /// How many ids are revoked for this namespace alone.
    pub(super) fn revoked_within(&self, namespace: &str) -> usize {
        let tables = self.read();
        tables.revoked_in.get(namespace).map_or(0, |ids| ids.len())
    }

    /// Somebody came by a token of this id.
    pub fn saw(&self, namespace: &Arc<str>, id: &str) {
        let mut seen = self.seen();
        if seen.len() >= SEEN {
            seen.clear();
        }
        seen.insert(id.to_owned(), namespace.clone());
    }

    /// Did anybody, where this namespace's tokens count, or all?
    pub(super) fn has_seen(&self, namespace: Option<&str>, id: &str) -> bool {
        let seen = self.seen();
        let own = seen.get(id);
        own.is_some_and(|own| namespace.is_none_or(|asked| *asked == **own))
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<String, Arc<str>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Are there tokens whose ids can be anything?
    pub fn takes_foreign(&self, takes: bool) {
        self.foreign.store(takes, Ordering::Release);
    }

    pub(super) fn has_foreign(&self) -> bool {
        self.foreign.load(Ordering::Acquire)
    }

    /// Was this credential withdrawn, or has it made room for newer ones?
    pub fn is_withdrawn(&self, credential: &Credential) -> bool {
        let tables = self.read();
        match credential {
            Credential::Handle(hash) => tables.withdrawn.contains_key(hash),
            Credential::Token {
                namespace,
                id,
                family,
                key,
            } => {
                let mut ids = std::iter::once(id).chain(family);
                ids.any(|id| tables.is_revoked(namespace, id)) || tables.retired.contains(&**key)
            }
        }
    }

    /// Could the store be read a moment ago?
    pub fn readable(&self) -> bool {
        !self.unreadable.load(Ordering::Acquire)
    }

    /// How many generations live, the gateway's own aside.
    pub fn len(&self) -> usize {
        let tables = self.read();
        let own = tables.sessions.contains_key(&super::own::own_key());
        tables.sessions.len() - usize::from(own)
    }

    /// No generation lives.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn set_readable(&self, readable: bool) {
        self.unreadable.store(!readable, Ordering::Release);
    }

    /// A generation lives, with these handles.
    pub(super) fn live(&self, live: Live, handles: &[HandleHash]) {
        let key = live.session.key().clone();
        let mut tables = self.write();
        let known = |hash: &HandleHash| {
            let (key, usage) = (key.clone(), Usage::fresh());
            (*hash, Known { key, usage })
        };
        tables.handles.extend(handles.iter().map(known));
        tables.forget_sources(&key);
        for range in live.sources.iter() {
            let keys = tables.sources.entry(range.trunc()).or_default();
            if !keys.contains(&key) {
                keys.push(key.clone());
            }
        }
        tables.sessions.insert(key, Arc::new(live));
    }

    /// One more handle, and one less where there are too many.
    pub(super) fn add_handle(
        &self,
        key: &SessionKey,
        hash: HandleHash,
        evicted: Option<HandleHash>,
    ) {
        let mut tables = self.write();
        if let Some(evicted) = evicted {
            tables.handles.remove(&evicted);
        }
        let known = Known {
            key: key.clone(),
            usage: Arc::default(),
        };
        tables.handles.insert(hash, known);
    }

    /// A handle is good no more; what is open by it ends.
    pub(super) fn remove_handle(&self, hash: &HandleHash) {
        let mut tables = self.write();
        let key = tables.handles.remove(hash).map(|known| known.key);
        let live = key
            .as_ref()
            .and_then(|key| tables.sessions.get(key).cloned());
        tables.withdrawn.extend(key.map(|key| (*hash, key)));
        drop(tables);
        if let Some(live) = live {
            live.session.look_again();
        }
    }

    /// No generation of this session lives.
    pub(super) fn end(&self, key: &SessionKey, handles: &[HandleHash]) {
        let mut tables = self.write();
        tables.forget_sources(key);
        tables.sessions.remove(key);
        tables.withdrawn.retain(|_, owner| owner != key);
        for hash in handles {
            tables.handles.remove(hash);
        }
    }

    /// A token is good no more, and none that descends from it; what is open by them ends. `id` may be one [`within`] a namespace.
    /// `whose` is the session that has them, where that is known: an id alone does not say.
    pub(crate) fn revoke(&self, id: String, whose: Option<&SessionKey>) {
        let mut tables = self.write();
        let namespace = id
            .split_once(WITHIN)
            .map(|(namespace, _)| namespace.to_owned());
        let tied = match id.split_once(WITHIN) {
            Some((namespace, id)) => {
                let own = tables.revoked_in.entry(namespace.to_owned());
                own.or_default().insert(id.to_owned());
                let tied = tables.tied.get(id).cloned();
                tied.filter(|session| {
                    let session = session.upgrade();
                    session.is_some_and(|session| *session.key().namespace == *namespace)
                })
            }
            None => {
                let tied = tables.tied.remove(&id);
                tables.revoked.insert(id);
                tied
            }
        };
        let owner = whose.and_then(|key| tables.sessions.get(key).cloned());
        drop(tables);
        self.withdrawn_is_forgotten();
        match whose {
            Some(_) => owner.iter().for_each(|live| live.session.look_again()),
            None => self.all_look_again(namespace.as_deref()),
        }
        if let Some(session) = tied.and_then(|session| session.upgrade()) {
            session.publish(Authority::Ended(Denial::SessionRevoked));
        }
    }

    /// Other keys verify than `before`: what is open by tokens of those that are gone ends, and one that is there again is as good as it
    /// was. Which are `there` is asked under the lock: of two who change them at once, the one that knew less is not the last to say so.
    pub(crate) fn keys_changed(&self, before: Vec<String>, there: impl FnOnce() -> Vec<String>) {
        let mut tables = self.write();
        let there = there();
        let gone = before.into_iter().filter(|key| !there.contains(key));
        let gone: Vec<_> = gone.collect();
        tables.retired.retain(|key| !there.contains(key));
        let lost = !gone.is_empty();
        tables.retired.extend(gone);
        drop(tables);
        if lost {
            self.withdrawn_is_forgotten();
            self.all_look_again(None);
        }
    }

    /// From now on whoever remembers credentials is told when some are withdrawn, for as long as it lives.
    pub fn remembered_by(&self, by: Weak<dyn Remembers>) {
        let mut all = self.remembering();
        all.retain(|other| other.strong_count() > 0);
        all.push(by);
    }

    fn remembering(&self) -> MutexGuard<'_, Vec<Weak<dyn Remembers>>> {
        self.remembering
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn withdrawn_is_forgotten(&self) {
        // Not under the lock: they look into the tables.
        let all: Vec<_> = self
            .remembering()
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for one in all {
            one.forget_withdrawn(self);
        }
    }

    /// How many places are taken by what is open now, of each session that has such.
    pub fn open_now(&self) -> Vec<u64> {
        let tables = self.read();
        let sessions = tables.sessions.values();
        let open = sessions.map(|live| live.session.budget().open_now());
        open.filter(|open| *open > 0).collect()
    }

    /// Whatever is open looks again whether it still may be: what it was judged by, beside its session's policy, has changed.
    pub fn everything_looks_again(&self) {
        self.all_look_again(None);
    }

    /// Whatever has something open looks again, whoever's it is, or of this namespace.
    fn all_look_again(&self, within: Option<&str>) {
        // Not under the lock: those who look want to read.
        let tables = self.read();
        let watched = tables.sessions.values();
        let watched = watched.filter(|live| {
            within.is_none_or(|own| *live.session.key().namespace == *own)
                && live.session.is_watched()
        });
        let watched: Vec<_> = watched.cloned().collect();
        drop(tables);
        for live in watched {
            live.session.look_again();
        }
    }

    /// This session ends when the token of this id is revoked; at once, where it is.
    pub fn tie(&self, id: &str, session: &Arc<Session>) {
        let mut tables = self.write();
        if tables.is_revoked(&session.key().namespace, id) {
            drop(tables);
            session.publish(Authority::Ended(Denial::SessionRevoked));
            return;
        }
        if tables.tied.len() >= tables.tied_due.max(TIED) {
            tables.tied.retain(|_, session| session.strong_count() > 0);
            tables.tied_due = 2 * tables.tied.len();
        }
        tables.tied.insert(id.to_owned(), Arc::downgrade(session));
    }

    pub(super) fn forget(&self, ids: &[String]) {
        let mut tables = self.write();
        for id in ids {
            let Some((namespace, own)) = id.split_once(WITHIN) else {
                tables.revoked.remove(id);
                continue;
            };
            if let Some(all) = tables.revoked_in.get_mut(namespace) {
                all.remove(own);
                if all.is_empty() {
                    tables.revoked_in.remove(namespace);
                }
            }
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
