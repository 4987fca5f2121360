//! Idle upstream connections of absolute-form requests. Never shared between sessions, generations or policies, nor between
//! configurations of the gateway, each of which has a pool of its own.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::client::conn::http1::SendRequest;
use sluicegate_policy::Target;

use super::body::RequestBody;
use crate::{
    descriptors::{self, For},
    egress::Reached,
    session::SessionKey,
};

/// Whose connection, under which policy, where to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct PoolKey {
    pub(super) session: SessionKey,
    pub(super) generation: u64,
    /// Its number, and which credential narrows it.
    pub(super) policy: (u64, u64),
    pub(super) target: Target,
}

/// A connection waiting for its next request.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) reached: Reached,
    since: Instant,
}

impl Idle {
    fn new(sender: SendRequest<RequestBody>, reached: Reached) -> Self {
        Self {
            sender,
            reached,
            since: Instant::now(),
        }
    }

    fn is_usable(&self) -> bool {
        !self.sender.is_closed() && self.since.elapsed() < LIFE
    }

    fn is_surplus(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= RECENT
    }
}

/// How many connections idle at most.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Kept for [`LIFE`].
    of_key: usize,
    /// With those that have idled for less than [`RECENT`].
    of_busy_key: usize,
    of_session: usize,
    all: usize,
}

/// Idle connections by key.
///
/// In parts, each with a lock of its own, since every request comes by. A session is in one of them, and so its bound is exact. That of
/// all is kept to by whoever put one too many: it is passed for that moment.
///
/// Where it is full, whoever has most gives for each that is kept, in whichever part that is: a session that fills it does so at nobody
/// else's cost. Each part tells how many its session with most has, so that one part alone is locked for it, and the sessions of that
/// one looked through; where several have as many, one of the part in which the new one is gives, which may be the new one.
#[derive(Debug)]
pub struct Pool {
    bounds: Bounds,
    hasher: RandomState,
    parts: [Shelf; PARTS],
    /// Of all parts.
    count: AtomicUsize,
}

/// A part, and what is known of it without its lock.
#[derive(Debug, Default)]
struct Shelf {
    part: Mutex<Part>,
    /// How many whoever has most has. Changed with `part` locked.
    most: AtomicUsize,
}

impl Shelf {
    fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }
}

/// Those of some sessions.
#[derive(Debug, Default)]
struct Part {
    sessions: HashMap<SessionKey, Own>,
    count: usize,
    ranks: Ranks,
    /// Nothing is kept any more.
    closed: bool,
}

/// How many sessions have one, two, and so on, up to as many as whoever has most.
#[derive(Debug, Default)]
struct Ranks(Vec<usize>);

/// Those of one session.
#[derive(Debug, Default)]
struct Own {
    keys: HashMap<PoolKey, Waiting>,
    count: usize,
}

/// Those of one key; the most recently used is the last. It is the one that is taken, so that those in front have idled for as
/// long as fewer were in use at once.
type Waiting = VecDeque<Idle>;

const PARTS: usize = 16;

/// Kept idle for this long.
const LIFE: Duration = Duration::from_secs(30);

/// What idles for less may be one of many in use at once.
const RECENT: Duration = Duration::from_secs(5);

impl Default for Pool {
    fn default() -> Self {
        Self::bounded(Bounds {
            of_key: 16,
            of_busy_key: 64,
            of_session: 256,
            all: 4096,
        })
    }
}

impl Pool {
    fn bounded(bounds: Bounds) -> Self {
        Self {
            bounds,
            hasher: RandomState::new(),
            parts: Default::default(),
            count: AtomicUsize::new(0),
        }
    }

    /// The most recently used live connection.
    pub(super) fn take(&self, key: &PoolKey) -> Option<Idle> {
        self.change(self.shelf(key), |part| part.take(key))
    }

    /// Keep a connection. Over the bounds the one that has idled longest is closed: of the session that has too many, or of
    /// whichever has most. What is idle is the first to go where descriptors run low.
    pub(super) fn put(&self, key: PoolKey, sender: SendRequest<RequestBody>, reached: Reached) {
        if sender.is_closed() {
            return;
        }
        // Under no lock: it may ask the kernel.
        if descriptors::ran_low() {
            self.clear();
            return;
        }
        self.keep(key, Idle::new(sender, reached));
    }

    fn keep(&self, key: PoolKey, idle: Idle) {
        let shelf = self.shelf(&key);
        self.change(shelf, |part| part.keep(key, idle, self.bounds));
        // Another may have closed one for the same reason, or taken what this one found.
        while self.count.load(Ordering::Relaxed) > self.bounds.all {
            self.give(shelf);
        }
    }

    /// Close what is idle, and keep nothing from now on: another configuration is in force.
    pub(super) fn close(&self) {
        for shelf in &self.parts {
            self.change(shelf, |part| {
                part.closed = true;
                part.clear();
            });
        }
    }

    /// Close what has idled too long. Called now and then.
    pub fn reap(&self) {
        if descriptors::are_scarce(For::Idling) {
            self.clear();
            return;
        }
        let now = Instant::now();
        for shelf in &self.parts {
            self.change(shelf, |part| part.reap(now, self.bounds));
        }
    }

    fn clear(&self) {
        for shelf in &self.parts {
            self.change(shelf, Part::clear);
        }
    }

    /// Close one of whoever has most: in `own`, where nobody elsewhere has more.
    fn give(&self, own: &Shelf) {
        let mut found = own;
        for shelf in &self.parts {
            if shelf.most() > found.most() {
                found = shelf;
            }
        }
        self.change(found, Part::give);
    }

    fn shelf(&self, key: &PoolKey) -> &Shelf {
        let hash = self.hasher.hash_one(&key.session.id);
        // In range: the remainder.
        #[allow(clippy::indexing_slicing)]
        &self.parts[hash as usize % PARTS]
    }

    /// Change a part, what is known of it, and the count of all with it.
    fn change<T>(&self, shelf: &Shelf, how: impl FnOnce(&mut Part) -> T) -> T {
        let mut part = lock(shelf);
        let before = part.count;
        let done = how(&mut part);
        shelf.most.store(part.ranks.most(), Ordering::Relaxed);
        // Under the lock, so that none is taken off that was not added yet; where there are fewer, the sum wraps.
        self.count
            .fetch_add(part.count.wrapping_sub(before), Ordering::Relaxed);
        done
    }
}

fn lock(shelf: &Shelf) -> MutexGuard<'_, Part> {
    shelf.part.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Part {
    fn take(&mut self, key: &PoolKey) -> Option<Idle> {
        let own = self.sessions.get_mut(&key.session)?;
        let before = own.count;
        let found = own.take(key);
        let after = own.count;
        if after == 0 {
            self.sessions.remove(&key.session);
        }
        self.counted(before, after);
        found
    }

    fn keep(&mut self, key: PoolKey, idle: Idle, bounds: Bounds) {
        if self.closed {
            return;
        }
        let own = self.sessions.entry(key.session.clone()).or_default();
        let before = own.count;
        own.keep(key, idle, bounds);
        let after = own.count;
        self.counted(before, after);
    }

    /// A session has another number of them.
    fn counted(&mut self, before: usize, after: usize) {
        self.count = self.count - before + after;
        self.ranks.moved(before, after);
    }

    fn reap(&mut self, now: Instant, bounds: Bounds) {
        self.sessions.retain(|_, own| {
            own.keys.retain(|_, waiting| {
                waiting.retain(Idle::is_usable);
                trim(waiting, now, bounds.of_key);
                !waiting.is_empty()
            });
            own.count = own.keys.values().map(VecDeque::len).sum();
            own.count > 0
        });
        (self.count, self.ranks) = (0, Ranks::default());
        for own in self.sessions.values() {
            self.count += own.count;
            self.ranks.moved(0, own.count);
        }
    }

    fn clear(&mut self) {
        self.sessions.clear();
        (self.count, self.ranks) = (0, Ranks::default());
    }

    /// Close one of whoever has most.
    fn give(&mut self) {
        let most = self.ranks.most();
        let mut sessions = self.sessions.iter_mut();
        let Some((session, own)) = sessions.find(|(_, own)| own.count == most) else {
            return;
        };
        own.give();
        let after = own.count;
        if after == 0 {
            let session = session.clone();
            self.sessions.remove(&session);
        }
        self.counted(most, after);
    }
}

impl Ranks {
    /// A session that had `before` has `after`; none is ranked with nothing.
    fn moved(&mut self, before: usize, after: usize) {
        if let Some(sessions) = self.of(before) {
            *sessions -= 1;
        }
        self.0.resize(self.0.len().max(after), 0);
        if let Some(sessions) = self.of(after) {
            *sessions += 1;
        }
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn of(&mut self, count: usize) -> Option<&mut usize> {
        self.0.get_mut(count.checked_sub(1)?)
    }

    /// How many whoever has most has.
    fn most(&self) -> usize {
        self.0.len()
    }
}

impl Own {
    fn take(&mut self, key: &PoolKey) -> Option<Idle> {
        let waiting = self.keys.get_mut(key)?;
        let mut found = None;
        while let Some(idle) = waiting.pop_back() {
            self.count -= 1;
            if idle.is_usable() {
                found = Some(idle);
                break;
            }
        }
        if waiting.is_empty() {
            self.keys.remove(key);
        }
        found
    }

    /// Keep one, where its key has room.
    fn keep(&mut self, key: PoolKey, idle: Idle, bounds: Bounds) {
        let waiting = self.keys.entry(key).or_default();
        self.count -= waiting.len();
        // One less, so that there is room for this one.
        trim(waiting, idle.since, bounds.of_key.saturating_sub(1));
        if waiting.len() < bounds.of_busy_key {
            waiting.push_back(idle);
        }
        self.count += waiting.len();
        if self.count > bounds.of_session {
            self.give();
        }
    }

    /// Close what has idled longest.
    fn give(&mut self) {
        let longest = self.keys.iter().filter_map(|(key, waiting)| {
            let first = waiting.front()?;
            Some((first.since, key))
        });
        let Some(key) = longest
            .min_by_key(|(since, _)| *since)
            .map(|(_, key)| key.clone())
        else {
            return;
        };
        if let Some(waiting) = self.keys.get_mut(&key) {
            waiting.pop_front();
            self.count -= 1;
            if waiting.is_empty() {
                self.keys.remove(&key);
            }
        }
    }
}

/// Close those beyond `most` that are not used any more: fewer are in use at once than were.
fn trim(waiting: &mut Waiting, now: Instant, most: usize) {
    while waiting.len() > most && waiting.front().is_some_and(|idle| idle.is_surplus(now)) {
        waiting.pop_front();
    }
}

/// The connection of a CONNECT that turned out to carry plain HTTP, until the first request in it goes up. It takes no place
/// in the pool, so that no neighbour's connections cost an open another resolution and dial. It lives no longer for that: it is closed
/// where its session's authority or the configuration changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Adopted(Arc<Mutex<Option<(PoolKey, Idle)>>>);

impl Adopted {
    /// For requests of this key.
    pub(super) fn new(key: PoolKey, sender: SendRequest<RequestBody>, reached: Reached) -> Self {
        let idle = Idle::new(sender, reached);
        Self(Arc::new(Mutex::new(Some((key, idle)))))
    }

    /// The connection, once, where it is of this key; one of another key is closed.
    pub(super) fn take(&self, key: &PoolKey) -> Option<Idle> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (own, idle) = held.take()?;
        (own == *key && idle.is_usable()).then_some(idle)
    }

    /// Close it, where it has served nothing yet.
    pub(super) fn close(&self) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *held = None;
    }
}

#[cfg(test)]
mod tests;
