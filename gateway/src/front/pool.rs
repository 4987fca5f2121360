//! Idle upstream connections of absolute-form requests. Never shared between sessions, generations or policies, nor between
//! configurations of the gateway, each of which has a pool of its own.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
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

/// Idle connections by key.
#[derive(Debug, Default)]
pub struct Pool {
    idle: Mutex<HashMap<PoolKey, Vec<Idle>>>,
    /// Read and set under that lock.
    closed: AtomicBool,
}

/// Kept idle for this long.
const LIFE: Duration = Duration::from_secs(30);
/// Kept for one session and target.
const PER_KEY: usize = 16;
/// Keys kept at all.
const KEYS: usize = 1024;

impl Pool {
    /// The most recently used live connection.
    pub(super) fn take(&self, key: &PoolKey) -> Option<Idle> {
        let mut all = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = all.get_mut(key)?;
        while let Some(idle) = waiting.pop() {
            if !idle.sender.is_closed() && idle.since.elapsed() < LIFE {
                return Some(idle);
            }
        }
        all.remove(key);
        None
    }

    /// Keep a connection; over the limits it is closed instead. What is idle is the first to go where nobody can be let in
    /// any more.
    pub(super) fn put(&self, key: PoolKey, sender: SendRequest<RequestBody>, reached: Reached) {
        if sender.is_closed() {
            return;
        }
        let mut all = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Relaxed) {
            return;
        }
        if descriptors::are_scarce(For::Arriving) {
            return all.clear();
        }
        if all.len() >= KEYS && !all.contains_key(&key) {
            return;
        }
        let waiting = all.entry(key).or_default();
        if waiting.len() < PER_KEY {
            waiting.push(Idle {
                sender,
                reached,
                since: Instant::now(),
            });
        }
    }

    /// Close what is idle, and keep nothing from now on: another configuration is in force.
    pub(super) fn close(&self) {
        let mut all = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        self.closed.store(true, Ordering::Relaxed);
        all.clear();
    }

    /// Close what has idled too long. Called now and then.
    pub fn reap(&self) {
        let scarce = descriptors::are_scarce(For::Arriving);
        let mut all = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, waiting| {
            waiting.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < LIFE);
            !scarce && !waiting.is_empty()
        });
    }
}
