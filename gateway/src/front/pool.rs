//! Idle upstream connections of absolute-form requests. Never shared between sessions, generations or policies, nor between
//! configurations of the gateway, each of which has a pool of its own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
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
}

/// How many connections idle at most.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    of_key: usize,
    of_session: usize,
    all: usize,
}

/// Idle connections by key.
#[derive(Debug)]
pub struct Pool {
    bounds: Bounds,
    held: Mutex<Held>,
}

/// Those of all sessions.
#[derive(Debug, Default)]
struct Held {
    sessions: HashMap<SessionKey, Own>,
    count: usize,
    /// Nothing is kept any more.
    closed: bool,
}

/// Those of one session; the most recently used of a key is its last.
#[derive(Debug, Default)]
struct Own {
    keys: HashMap<PoolKey, Vec<Idle>>,
    count: usize,
}

/// Kept idle for this long.
const LIFE: Duration = Duration::from_secs(30);

impl Default for Pool {
    fn default() -> Self {
        Self::bounded(Bounds {
            of_key: 16,
            of_session: 256,
            all: 4096,
        })
    }
}

impl Pool {
    fn bounded(bounds: Bounds) -> Self {
        Self {
            bounds,
            held: Mutex::default(),
        }
    }

    /// The most recently used live connection.
    pub(super) fn take(&self, key: &PoolKey) -> Option<Idle> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let own = held.sessions.get_mut(&key.session)?;
        let before = own.count;
        let found = own.take(key);
        let (taken, is_empty) = (before - own.count, own.count == 0);
        if is_empty {
            held.sessions.remove(&key.session);
        }
        held.count -= taken;
        found
    }

    /// Keep a connection. Over the bounds the one that has idled longest is closed: of the session that has too many, or of
    /// whichever has most. What is idle is the first to go where descriptors run low.
    pub(super) fn put(&self, key: PoolKey, sender: SendRequest<RequestBody>, reached: Reached) {
        if sender.is_closed() {
            return;
        }
        // Before the lock: it may ask the kernel.
        let scarce = descriptors::ran_low();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let held = &mut *held;
        if held.closed {
            return;
        }
        if scarce {
            held.clear();
            return;
        }
        let own = held.sessions.entry(key.session.clone()).or_default();
        let waiting = own.keys.entry(key).or_default();
        if waiting.len() >= self.bounds.of_key {
            return;
        }
        waiting.push(Idle::new(sender, reached));
        own.count += 1;
        held.count += 1;
        if own.count > self.bounds.of_session {
            own.give();
            held.count -= 1;
        } else if held.count > self.bounds.all {
            held.give();
        }
    }

    /// Close what is idle, and keep nothing from now on: another configuration is in force.
    pub(super) fn close(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.closed = true;
        held.clear();
    }

    /// Close what has idled too long. Called now and then.
    pub fn reap(&self) {
        let scarce = descriptors::are_scarce(For::Idling);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if scarce {
            held.clear();
            return;
        }
        held.sessions.retain(|_, own| {
            own.keys.retain(|_, waiting| {
                waiting.retain(Idle::is_usable);
                !waiting.is_empty()
            });
            own.count = own.keys.values().map(Vec::len).sum();
            own.count > 0
        });
        held.count = held.sessions.values().map(|own| own.count).sum();
    }
}

impl Held {
    fn clear(&mut self) {
        self.sessions.clear();
        self.count = 0;
    }

    /// Close one of whoever has most.
    fn give(&mut self) {
        let most = self.sessions.iter_mut().max_by_key(|(_, own)| own.count);
        let Some((session, own)) = most else { return };
        own.give();
        self.count -= 1;
        if own.count == 0 {
            let session = session.clone();
            self.sessions.remove(&session);
        }
    }
}

impl Own {
    fn take(&mut self, key: &PoolKey) -> Option<Idle> {
        let waiting = self.keys.get_mut(key)?;
        let mut found = None;
        while let Some(idle) = waiting.pop() {
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

    /// Close what has idled longest.
    fn give(&mut self) {
        let longest = self.keys.iter().filter_map(|(key, waiting)| {
            let first = waiting.first()?;
            Some((first.since, key))
        });
        let Some(key) = longest
            .min_by_key(|(since, _)| *since)
            .map(|(_, key)| key.clone())
        else {
            return;
        };
        if let Some(waiting) = self.keys.get_mut(&key) {
            waiting.remove(0);
            self.count -= 1;
            if waiting.is_empty() {
                self.keys.remove(&key);
            }
        }
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
