//! Bytes of logs: of each session, and together of a namespace and of an owner within it.

use std::{
    collections::HashMap,
    sync::{MutexGuard, PoisonError},
};

use super::{
    Registry, RegistryError,
    quota::{Held, Owner, owners},
};
use crate::session::{Record, SessionKey};

/// As the store has them. Of the start it is what was found there.
#[derive(Debug, Default)]
pub(super) struct Logged {
    of: HashMap<SessionKey, u64>,
    owned: HashMap<Owner, u64>,
}

impl Logged {
    /// A session's log has so many bytes now.
    pub(super) fn set(&mut self, record: &Record, bytes: u64) {
        let key = record.key();
        let before = if bytes == 0 {
            self.of.remove(&key)
        } else {
            self.of.insert(key, bytes)
        };
        for owner in owners(record) {
            let sum = self.owned.entry(owner.clone()).or_default();
            *sum = (*sum + bytes).saturating_sub(before.unwrap_or_default());
            if *sum == 0 {
                self.owned.remove(&owner);
            }
        }
    }

    /// Bytes of one session's log.
    pub(super) fn of(&self, key: &SessionKey) -> u64 {
        self.of.get(key).copied().unwrap_or_default()
    }

    /// Bytes of all logs of an owner, or of a namespace.
    pub(super) fn owned(&self, owner: &Owner) -> u64 {
        self.owned.get(owner).copied().unwrap_or_default()
    }
}

impl Registry {
    pub(super) fn log_bytes(&self) -> MutexGuard<'_, Logged> {
        self.log_bytes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of one session's log.
    pub(in crate::session) fn log_size(&self, key: &SessionKey) -> u64 {
        self.log_bytes().of(key)
    }

    /// How many bytes of its own oldest records a log has to give for so many new ones.
    ///
    /// # Errors
    /// It does not have as many: other logs of its owner or its namespace hold the rest.
    pub(super) fn room_for_log(&self, record: &Record, new: u64) -> Result<u64, RegistryError> {
        if new == 0 {
            // Nothing needs no room, and numbers go on from the last record there is.
            return Ok(0);
        }
        let logged = self.log_bytes();
        let own = logged.of(&record.key());
        let mut room = 0;
        for owner in owners(record) {
            let Some(limit) = self.quota_of(&owner).logs else {
                continue;
            };
            let in_use = logged.owned(&owner);
            let over = in_use.saturating_add(new).saturating_sub(limit);
            if over > own {
                return Err(Held::LogBytes.refused(&owner, in_use, limit));
            }
            room = room.max(over);
        }
        Ok(room)
    }
}
