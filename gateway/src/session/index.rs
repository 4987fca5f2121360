//! What lives right now, for the data path: no IO, and no lock. Whoever looks sees one moment in one piece (`tables.rs`), waits for
//! nobody, and writes to nothing that another one who looks reads; whoever changes something shows the next moment.

mod pieces;
mod tables;
mod tied;
mod whose;

use std::{
    collections::HashMap,
    net::IpAddr,
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering, fence},
    },
    time::{Duration, SystemTime},
};

use arc_swap::{ArcSwap, Guard};
use ipnet::IpNet;
use sluicegate_certs::Thumbprint;
use sluicegate_policy::Denial;

use super::{Authority, Credential, Session, SessionKey, usage::Visit};
use crate::auth::HandleHash;
use tables::{Known, Tables};
pub(super) use tied::Tie;
use tied::Tied;

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

/// Between namespace and id of a revocation as it is kept: neither has it.
const WITHIN: char = '\n';

/// A revocation of an id for one namespace, as it is kept.
pub(super) fn within(namespace: &str, id: &str) -> String {
    format!("{namespace}{WITHIN}{id}")
}

/// The namespace, where it is for one, and the id.
fn parted(id: &str) -> (Option<&str>, &str) {
    match id.split_once(WITHIN) {
        Some((namespace, id)) => (Some(namespace), id),
        None => (None, id),
    }
}

/// Ids that are remembered as seen; then all are forgotten.
const SEEN: usize = 65_536;

/// Remembers credentials that were verified, so as not to verify them again.
pub trait Remembers: std::fmt::Debug + Send + Sync {
    /// Forget those that [`Index::is_withdrawn`].
    fn forget_withdrawn(&self, index: &Index);
}

/// Withdrawn handles by their session, with which they are forgotten.
type Withdrawn = HashMap<SessionKey, Vec<HandleHash>>;

/// Living generations by session, by handle and by source, and token ids that are revoked.
#[derive(Debug, Default)]
pub struct Index {
    /// In one piece: a handle and its session, a source and all whose it is, are seen as they are at one moment.
    tables: ArcSwap<Tables>,
    /// One changes them at a time.
    writer: Mutex<Withdrawn>,
    tied: Arc<Tied>,
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
        let known = tables.handles.get(hash)?;
        tables.sessions.get(&*known.key).cloned()
    }

    /// Whose handle it is.
    pub(super) fn handle_owner(&self, hash: &HandleHash) -> Option<SessionKey> {
        let tables = self.read();
        let known = tables.handles.get(hash)?;
        Some(SessionKey::clone(&known.key))
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
        let lives = |key: &&Arc<SessionKey>| {
            let live = tables.sessions.get(&***key);
            live.is_some_and(|live| !live.session.has_ended(now))
        };
        let mut keys = tables
            .sources_of(source)
            .filter(|key| namespaces.contains(&key.namespace))
            .filter(lives);
        let key = keys.next().ok_or(Denial::SourceUnknown)?;
        if keys.any(|other| other != key) {
            return Err(Denial::SourceAmbiguous);
        }
        let live = tables.sessions.get(&**key).cloned();
        live.ok_or(Denial::SourceUnknown)
    }

    /// Is this token id of a token of this namespace revoked?
    pub fn is_revoked(&self, namespace: &str, id: &str) -> bool {
        self.read().is_revoked(namespace, id)
    }

    /// How many ids are revoked for this namespace alone.
    pub(super) fn revoked_within(&self, namespace: &str) -> usize {
        self.read().revoked_within(namespace)
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
            Credential::Handle(hash) => tables.withdrawn.contains(hash),
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
        let own = tables.sessions.contains(&super::own::own_key());
        tables.sessions.len() - usize::from(own)
    }

    /// No generation lives.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn set_readable(&self, readable: bool) {
        self.unreadable.store(!readable, Ordering::Release);
    }

    /// What lives at the start, and the ids that were revoked before: in one go, and nothing is open yet that would have to look.
    pub(super) fn begin<'a>(
        &self,
        revoked: impl IntoIterator<Item = &'a str>,
        living: impl IntoIterator<Item = (Live, Vec<HandleHash>)>,
    ) {
        let mut tables = self.write();
        for id in revoked {
            let (namespace, id) = parted(id);
            tables.revoke(namespace, id);
        }
        for (live, handles) in living {
            tables.live(live, &handles);
        }
    }

    /// A generation lives, with these handles.
    pub(super) fn live(&self, live: Live, handles: &[HandleHash]) {
        self.write().live(live, handles);
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
            key: Arc::new(key.clone()),
            usage: Arc::default(),
        };
        tables.handles.insert(hash, known.into());
    }

    /// A handle is good no more; what is open by it ends.
    pub(super) fn remove_handle(&self, hash: &HandleHash) {
        let mut tables = self.write();
        let Some(known) = tables.handles.remove(hash) else {
            return;
        };
        let live = tables.sessions.get(&*known.key).cloned();
        tables.withdrawn.insert(*hash, ());
        let key = SessionKey::clone(&known.key);
        tables.of_sessions.entry(key).or_default().push(*hash);
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
        for hash in tables.of_sessions.remove(key).into_iter().flatten() {
            tables.withdrawn.remove(&hash);
        }
        for hash in handles {
            tables.handles.remove(hash);
        }
    }

    /// A token is good no more, and none that descends from it; what is open by them ends. `id` may be one [`within`] a namespace.
    /// `whose` is the session that has them, where that is known: an id alone does not say.
    pub(crate) fn revoke(&self, id: String, whose: Option<&SessionKey>) {
        let (namespace, id) = parted(&id);
        let mut tables = self.write();
        tables.revoke(namespace, id);
        let owner = whose.and_then(|key| tables.sessions.get(key).cloned());
        drop(tables);
        self.withdrawn_is_forgotten();
        match whose {
            Some(_) => owner.iter().for_each(|live| live.session.look_again()),
            None => self.all_look_again(namespace),
        }
        for session in self.tied.to(namespace, id) {
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
        let lost = !gone.is_empty();
        let retired = Arc::make_mut(&mut tables.retired);
        retired.retain(|key| !there.contains(key));
        retired.extend(gone);
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
        // Not before it shows: they look into the tables.
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
        self.tied.tie(id, session);
        // Afterwards: whoever revokes it says so first, and looks for what is tied then.
        if self.is_revoked(&session.key().namespace, id) {
            session.publish(Authority::Ended(Denial::SessionRevoked));
        }
    }

    pub(super) fn forget(&self, ids: &[String]) {
        let mut tables = self.write();
        for id in ids {
            let (namespace, id) = parted(id);
            tables.forget(namespace, id);
        }
    }

    fn read(&self) -> Guard<Arc<Tables>> {
        // With the fence of who changes them: either this sees the change, or whoever made it sees what was done before this (somebody
        // watches, and is told to look again).
        fence(Ordering::SeqCst);
        self.tables.load()
    }

    fn write(&self) -> Writing<'_> {
        let of_sessions = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        Writing {
            shown: &self.tables,
            tables: self.tables.load_full(),
            of_sessions,
        }
    }
}

/// The next moment, which shows when this is dropped.
struct Writing<'a> {
    shown: &'a ArcSwap<Tables>,
    tables: Arc<Tables>,
    of_sessions: MutexGuard<'a, Withdrawn>,
}

impl Deref for Writing<'_> {
    type Target = Tables;

    fn deref(&self) -> &Tables {
        &self.tables
    }
}

impl DerefMut for Writing<'_> {
    fn deref_mut(&mut self) -> &mut Tables {
        Arc::make_mut(&mut self.tables)
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        // The lock is let go of afterwards.
        self.shown.store(self.tables.clone());
        fence(Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
