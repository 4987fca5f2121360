//! The registry: every session, over the store, with what lives of it in memory.
//!
//! A change is committed before it shows, but for what takes something away: that holds before the store is asked, whatever
//! becomes of it there. One writer at a time, so that memory and store never differ in order.

mod apart;
mod apply;
mod behalf;
mod capability;
mod compile;
mod dial;
mod entry;
mod error;
mod granted;
mod history;
mod log;
mod logged;
mod look;
mod observe;
mod owners;
mod patch;
mod queue;
mod quota;
mod reload;
mod resolved;
mod revoke;
mod tally;
mod verify;
mod webhooks;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use sluicegate_policy::GrantDocument;
use tokio::sync::{Notify, broadcast, watch};

use super::{
    Actor, Authority, Budget, Bundle, Dials, Index, Live, Record, RegistryConfig, Session,
    SessionKey, lifecycle::State,
};
pub use behalf::Behalf;
pub use capability::Bind;
pub(super) use compile::asked as grant_asked;
pub(super) use dial::{lacks_dials, missing_dials};
pub(super) use entry::{Act, Entry};
use entry::{Sparse, Unsaved};
pub use error::RegistryError;
pub use granted::{Granted, HostService};
use history::Told;
pub use log::{LogLine, LogRecord};
pub use look::Wanted;
pub use observe::Observation;
pub use owners::{OwnerKey, OwnerUse};
pub use webhooks::DeadLetter;

use crate::{
    auth::{Authenticator, HandleHash, KeyError, KeyInfo, Keys},
    store::{Store, Verified},
};

/// What an action led to.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The session as the admin API shows it.
    pub view: serde_json::Value,
    /// It did not exist before.
    pub created: bool,
    /// Fresh credentials, where there are any. Shown once.
    pub bundle: Option<Bundle>,
    /// Services and capabilities that changed since the generation's first bundle: `service:NAME`, `capability:NAME`.
    pub stale: Vec<String>,
}

/// All sessions.
#[derive(Debug)]
pub struct Registry {
    store: Arc<dyn Store>,
    keys: Arc<Keys>,
    index: Arc<Index>,
    config: ArcSwap<RegistryConfig>,
    entries: RwLock<BTreeMap<SessionKey, Arc<Entry>>>,
    /// Locked within `entries`, or alone.
    tally: Mutex<tally::Tally>,
    /// Held over every change, commit included.
    writer: Mutex<()>,
    /// On whose behalf whoever holds the writer writes.
    actor: Mutex<Option<Actor>>,
    revoked: Mutex<BTreeMap<String, u64>>,
    unsaved: Mutex<Vec<Unsaved>>,
    /// Was the last commit durable?
    writable: AtomicBool,
    /// Did the last sweep come to its end?
    swept: AtomicBool,
    events: broadcast::Sender<(u64, Arc<str>)>,
    /// The last event that listeners were told.
    newest: AtomicU64,
    changed: Notify,
    usage_saved: Mutex<SystemTime>,
    /// Counts what is appended to logs, whosever they are.
    logged: watch::Sender<u64>,
    /// How much logs hold. Locked alone.
    log_bytes: Mutex<logged::Logged>,
    /// One budget for all sessions of a namespace, and of an owner in it.
    owners: Mutex<BTreeMap<quota::Owner, Arc<Budget>>>,
    /// When the store was last found whole, and what was found.
    verified: Mutex<Option<(SystemTime, Verified)>>,
    /// Where hosts dial what sandboxes expose.
    dials: Dials,
    /// The effective profile last found of each provider.
    profiles: Mutex<BTreeMap<String, serde_json::Value>>,
}

impl Registry {
    /// Take up the sessions of the store under this configuration.
    ///
    /// A living session whose grant the configuration no longer allows is paused, with an event. Blocks: call it
    /// before the runtime serves.
    ///
    /// # Errors
    /// The store cannot be read or written, or a row cannot be understood.
    pub fn open(
        store: Arc<dyn Store>,
        keys: Arc<Keys>,
        config: RegistryConfig,
        now: SystemTime,
    ) -> Result<Arc<Self>, RegistryError> {
        let loaded = store.load()?;
        let registry = Self {
            store,
            keys,
            index: Arc::default(),
            dials: Dials::new(config.dial.clone()),
            profiles: Mutex::new(profiles(&loaded.profiles)),
            unsaved: Mutex::default(),
            writable: AtomicBool::new(true),
            swept: AtomicBool::new(true),
            verified: Mutex::default(),
            config: ArcSwap::from_pointee(config),
            entries: RwLock::default(),
            tally: Mutex::default(),
            writer: Mutex::default(),
            actor: Mutex::default(),
            revoked: Mutex::new(loaded.revoked.into_iter().collect()),
            events: broadcast::channel(1024).0,
            newest: AtomicU64::new(loaded.newest),
            changed: Notify::new(),
            usage_saved: Mutex::new(now),
            logged: watch::Sender::new(0),
            log_bytes: Mutex::default(),
            owners: Mutex::default(),
        };
        let read = |(key, row): (String, Vec<u8>)| {
            serde_json::from_slice(&row).map_err(|source| RegistryError::Row { key, source })
        };
        let records = loaded.sessions.into_iter().map(read);
        let mut records: Vec<Record> = records.collect::<Result<_, _>>()?;
        // Who has ports takes them first: no port that is chosen now may be one of theirs.
        records.sort_by_key(|record| record.dial_ports.is_empty());
        let logs: HashMap<String, u64> = loaded.logs.into_iter().collect();
        for record in records {
            let bytes = logs.get(&record.row_key()).copied().unwrap_or_default();
            registry.log_bytes().set(&record, bytes);
            registry.take_up(record, now)?;
        }
        registry.show_all();
        Ok(Arc::new(registry))
    }

    /// What was taken up is there for the data path.
    fn show_all(&self) {
        let entries = self.all();
        let living = entries.iter().filter_map(|entry| {
            let session = entry.session.as_ref()?;
            Some((live(session, &entry.record), hashes(&entry.record)))
        });
        let revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        self.index.begin(revoked.keys().map(String::as_str), living);
    }

    /// A stored session comes to memory; its generation goes on living.
    fn take_up(&self, record: Record, now: SystemTime) -> Result<(), RegistryError> {
        let config = self.config.load_full();
        let mut entry = Entry {
            record,
            session: None,
            policy: None,
            withdrawn: None,
            sparse: Sparse::default(),
        };
        // What is over is kept to be read, and is not judged.
        let over = entry.record.lease.state == State::Stopped;
        let broken = match (!over).then(|| compile::policy(&config, &entry.record)) {
            Some(Ok(policy)) => {
                entry.policy = Some(policy);
                None
            }
            Some(Err(error)) => Some(error),
            None => None,
        };
        let owner = self.owner(&entry.record);
        owner.count_along(entry.record.earlier_bytes);
        if matches!(entry.record.lease.state, State::Running | State::Paused) {
            // What does not compile lives too, paused: its credentials are not those of nobody.
            let policy = match &entry.policy {
                Some(policy) => policy.clone(),
                None => compile::nothing(&entry.record)?,
            };
            let (key, generation) = (entry.record.key(), entry.record.lease.generation);
            let session = Session::new(key, generation, policy.clone(), Some(owner));
            let session = session.owned_by(entry.record.owner.as_deref());
            let session = session.after(entry.record.earlier_bytes);
            let session = Arc::new(session.born_at(entry.record.born()));
            let active = active_again(&entry.record, now);
            session.budget().restore(entry.record.bytes, active);
            session.set_times(&entry.record.lease);
            if entry.record.lease.state == State::Paused || broken.is_some() {
                let hold = entry.record.lease.times.on_pause == super::lifecycle::OnPause::Hold;
                session.publish(Authority::Paused { hold, policy });
            }
            entry.session = Some(session);
        } else {
            owner.count_along(entry.record.bytes);
        }
        let entry = Arc::new(entry);
        self.put(entry.clone());
        match broken {
            Some(error) if entry.record.lease.state == State::Running => {
                self.pause_broken(&entry, &error, now)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What the data path asks.
    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// Verifies credentials against this registry.
    pub fn authenticator(&self) -> Authenticator {
        Authenticator::new(self.index.clone(), self.keys.clone())
    }

    /// Where hosts dial what sandboxes expose.
    pub fn dials(&self) -> &Dials {
        &self.dials
    }

    /// The signing keys.
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<RegistryConfig> {
        self.config.load_full()
    }

    /// Revoke one credential: a handle or signed token as presented, or a token's id. Returns whether it was known.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn revoke_credential(
        self: &Arc<Self>,
        credential: String,
    ) -> Result<bool, RegistryError> {
        self.blocking(move |registry, now| registry.revoke_credential_at(&credential, now))
            .await
    }

    /// The same; where it is not known whose it is, of the tokens of these namespaces only (`None` = all). Returns whether anybody
    /// is known to have had it; `None` where it is no credential.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn revoke_within(
        self: &Arc<Self>,
        credential: String,
        namespaces: Option<Vec<String>>,
        by: &Behalf,
    ) -> Result<Option<bool>, RegistryError> {
        self.change(by, move |registry, by, now| {
            registry.revoke_within_at(by, &credential, namespaces.as_deref(), now)
        })
        .await
    }

    /// Take a signing key away: its tokens are good no more, and what is open by them ends. Blocks.
    ///
    /// # Errors
    /// As [`Keys::retire`].
    pub fn retire_key(&self, kid: &str) -> Result<(), KeyError> {
        let before = self.keys.list();
        self.keys.retire(kid)?;
        self.keys_changed(before);
        Ok(())
    }

    /// Keys were read again: what is open by tokens of those that are gone ends.
    pub fn keys_changed(&self, before: Vec<KeyInfo>) {
        fn kids(keys: Vec<KeyInfo>) -> Vec<String> {
            keys.into_iter().map(|key| key.kid).collect()
        }
        let there = || kids(self.keys.list());
        self.index.keys_changed(kids(before), there);
    }

    /// Take over a new configuration; every living session is judged by it, in one commit. Returns what somebody
    /// should know.
    ///
    /// # Errors
    /// The store; the old configuration then stays.
    pub async fn replace_config(
        self: &Arc<Self>,
        config: RegistryConfig,
    ) -> Result<Vec<String>, RegistryError> {
        self.replace_config_and(config, || {}).await
    }

    /// The same, and `switch` between the commit and the first session that is shown its new policy: whoever is judged again by
    /// that is judged by what `switch` puts in force too.
    ///
    /// # Errors
    /// As [`Registry::replace_config`]; `switch` is then not called.
    pub async fn replace_config_and(
        self: &Arc<Self>,
        config: RegistryConfig,
        switch: impl FnOnce() + Send + 'static,
    ) -> Result<Vec<String>, RegistryError> {
        self.blocking(move |registry, now| registry.replace_config_at(config, switch, now))
            .await
    }

    pub(super) fn entry(&self, key: &SessionKey) -> Result<Arc<Entry>, RegistryError> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries
            .get(key)
            .cloned()
            .ok_or_else(|| RegistryError::UnknownSession(key.id.to_string()))
    }

    /// The same for whoever may touch only what is an owner's, or only what it has seen last.
    pub(super) fn entry_of(
        &self,
        by: &Behalf,
        key: &SessionKey,
    ) -> Result<Arc<Entry>, RegistryError> {
        let entry = self.entry(key)?;
        let owner = by.owner.as_deref();
        if owner.is_some() && entry.record.owner.as_deref() != owner {
            return Err(RegistryError::NotOwner(key.id.to_string()));
        }
        let etag = entry.record.etag();
        if !by.if_match.is_empty() && !by.if_match.contains(&etag) {
            return Err(RegistryError::Changed { etag });
        }
        Ok(entry)
    }

    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        self.entries
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    pub(super) fn put(&self, entry: Arc<Entry>) {
        self.put_quietly(entry);
        self.changed.notify_one();
    }

    /// Nothing that a deadline depends on has changed.
    pub(super) fn put_quietly(&self, entry: Arc<Entry>) {
        // Every change of a session comes by here, after it is durable: what it exposes follows it.
        let (entry, _told) = self.settle_dials(entry);
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let old = entries.insert(entry.record.key(), entry.clone());
        self.tally_up(old.as_deref(), Some(&entry));
    }

    /// Under the lock of `entries`.
    fn tally_up(&self, old: Option<&Entry>, new: Option<&Entry>) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.replace(old.map(|old| &old.record), new.map(|new| &new.record));
    }

    /// Is it time to save what sessions used? True once every `period`.
    pub(super) fn usage_due(&self, now: SystemTime, period: std::time::Duration) -> bool {
        let mut saved = self
            .usage_saved
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // A clock that went back must not stop it.
        let due = now
            .duration_since(*saved)
            .map_or(true, |since| since >= period);
        if due {
            *saved = now;
        }
        due
    }

    pub(super) fn remove(&self, key: &SessionKey) {
        self.dials.settle(key, None);
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let old = entries.remove(key);
        self.tally_up(old.as_deref(), None);
        drop(entries);
        if let Some(old) = old {
            self.log_bytes().set(&old.record, 0);
            self.forget_use(&old.record);
        }
    }

    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub(super) fn unsaved(&self) -> MutexGuard<'_, Vec<Unsaved>> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Can changes be made durable, by what is known? A disk that is full can still be read.
    pub fn writable(&self) -> bool {
        self.writable.load(Ordering::Acquire)
    }

    /// What came of a sweep. One that broke off has looked at nobody's clocks: nobody is let in before one has again.
    pub fn note_sweep(&self, done: bool) {
        self.swept.store(done, Ordering::Release);
        if !done {
            self.index.set_readable(false);
        }
    }

    pub(super) fn swept(&self) -> bool {
        self.swept.load(Ordering::Acquire)
    }

    pub(super) fn profiles(&self) -> MutexGuard<'_, BTreeMap<String, serde_json::Value>> {
        self.profiles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn actor(&self) -> MutexGuard<'_, Option<Actor>> {
        self.actor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn writer(&self) -> &Mutex<()> {
        &self.writer
    }

    pub(super) fn revocations_before(&self, seconds: u64) -> Vec<String> {
        let revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        revoked
            .iter()
            .filter(|(_, until)| **until < seconds)
            .map(|(id, _)| id.clone())
            .collect()
    }

    pub(super) fn revoked_until(&self, id: &str) -> Option<u64> {
        let revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        revoked.get(id).copied()
    }

    pub(super) fn forget_revocations(&self, ids: &[String]) {
        self.index.forget(ids);
        let mut revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            revoked.remove(id);
        }
    }

    /// Something changed that may bring the next deadline nearer.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Work that commits runs to its end on a thread of its own, even if whoever asked goes away: a change that is
    /// durable must also show.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self, SystemTime) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let registry = self.clone();
        let task = tokio::task::spawn_blocking(move || work(&registry, SystemTime::now()));
        task.await.map_err(|_| RegistryError::Interrupted)?
    }
}

/// What the store has of providers. What cannot be read is like what is not known.
fn profiles(rows: &[(String, Vec<u8>)]) -> BTreeMap<String, serde_json::Value> {
    let read =
        |(name, row): &(String, Vec<u8>)| Some((name.clone(), serde_json::from_slice(row).ok()?));
    rows.iter().filter_map(read).collect()
}

/// What clients of a gateway that was away are given to come back, before its idle clocks go on.
const RETURN: Duration = Duration::from_secs(60);

/// The last activity of a session that is taken up. Nothing could move while the gateway was down, and its clients need a
/// moment to come back; beyond that a restart is no activity.
fn active_again(record: &Record, now: SystemTime) -> SystemTime {
    let Some(idle) = record.lease.times.idle_timeout else {
        return record.active_at;
    };
    let grace = now.checked_sub(idle.saturating_sub(RETURN));
    grace.map_or(record.active_at, |grace| grace.max(record.active_at))
}

pub(super) fn live(session: &Arc<Session>, record: &Record) -> Live {
    Live {
        session: session.clone(),
        sources: record.sources.as_slice().into(),
        token_ttl: record.lease.times.token_ttl,
        key: record.key_of_client(),
        since: record.since(),
    }
}

pub(super) fn hashes(record: &Record) -> Vec<HandleHash> {
    record
        .handles
        .iter()
        .filter_map(|text| HandleHash::from_hex(text))
        .collect()
}

/// Provider defaults, capabilities, catalogue and the session's own document.
pub(super) fn merged_document(
    config: &RegistryConfig,
    record: &Record,
) -> Result<GrantDocument, RegistryError> {
    compile::merged(
        config,
        &record.provider,
        &record.capabilities,
        &compile::own(record)?,
    )
}

#[cfg(test)]
mod tests;
