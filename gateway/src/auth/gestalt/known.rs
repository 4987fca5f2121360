//! The tokens that were accepted: found by every request that brings one, and kept for as long as something may be open by it.
//!
//! In parts, each with a lock of its own: whoever comes by a token that is known waits for nobody who comes by another.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{Ordering, fence},
    },
    time::SystemTime,
};

use sluicegate_policy::Denial;

use super::{Accepted, Known};
use crate::session::Authority;

/// A token's SHA-256.
pub(super) type Hash = [u8; 32];

const PARTS: usize = 16;
/// Tokens in all before those that do nothing are looked through.
const FEW: usize = 8192;
/// Tokens in all, though something is open by every one of them.
const MOST: usize = 65_536;

#[derive(Default)]
struct Part {
    all: HashMap<Hash, Arc<Known>>,
    /// When there are so many it is looked through: twice as many as were left the last time, so that it costs each newcomer little.
    due: usize,
}

/// Only good tokens enter.
pub(super) struct Kept {
    parts: [RwLock<Part>; PARTS],
    /// Of one part.
    few: usize,
    most: usize,
}

impl Default for Kept {
    fn default() -> Self {
        Self::with(FEW / PARTS, MOST / PARTS)
    }
}

impl Part {
    /// End what is over: tokens that are sessions themselves take what is open with them.
    fn sweep(&mut self, now: SystemTime) {
        self.all.retain(|_, known| {
            let expired = known.claims.is_over(now);
            if expired && known.whole.is_none() {
                let over = Authority::Ended(Denial::SessionExpired);
                known.session.publish(over);
            }
            !expired && !matches!(known.session.authority(), Authority::Ended(_))
        });
    }

    /// Forget those that nothing is open by: they can be verified again. Of its session, what is open may have the watch alone.
    fn forget_idle(&mut self) {
        self.all.retain(|_, known| {
            let held = Arc::strong_count(known) > 1 || Arc::strong_count(&known.session) > 1;
            // Whoever has just let go of it had begun to watch before.
            fence(Ordering::Acquire);
            held || known.session.is_watched()
        });
    }
}

impl Kept {
    /// So many in each part.
    pub(super) fn with(few: usize, most: usize) -> Self {
        Self {
            parts: std::array::from_fn(|_| RwLock::default()),
            few,
            most,
        }
    }

    pub(super) fn find(&self, hash: &Hash) -> Option<Arc<Known>> {
        read(self.part(hash)).all.get(hash).cloned()
    }

    /// Keep what was made of a token, if that still `stands`, and `tie` it to what ends it; both under the lock, so that nobody finds
    /// one that is not tied. Where somebody made it at the same time, theirs is everybody's.
    ///
    /// # Errors
    /// `CredentialInvalid` where it stands no more, `ConnectionLimit` where there is no room: one by which something is open
    /// cannot be forgotten, as nobody could end that any more.
    pub(super) fn keep(
        &self,
        hash: Hash,
        known: Arc<Known>,
        now: SystemTime,
        (stands, tie): (impl FnOnce() -> bool, impl FnOnce(&Known)),
    ) -> Result<Arc<Known>, Denial> {
        let mut part = write(self.part(&hash));
        if part.all.len() >= part.due.max(self.few) {
            part.sweep(now);
            part.forget_idle();
            part.due = (2 * part.all.len()).min(self.most);
        }
        if !stands() {
            return Err(Denial::CredentialInvalid);
        }
        if let Some(there) = part.all.get(&hash)
            && there.is_of(&known)
        {
            return Ok(there.clone());
        }
        if part.all.len() >= self.most && !part.all.contains_key(&hash) {
            return Err(Denial::ConnectionLimit);
        }
        part.all.insert(hash, known.clone());
        tie(&known);
        Ok(known)
    }

    /// Forget it, if it is this one still.
    pub(super) fn remove(&self, hash: &Hash, known: &Arc<Known>) {
        let mut part = write(self.part(hash));
        if part
            .all
            .get(hash)
            .is_some_and(|own| Arc::ptr_eq(own, known))
        {
            part.all.remove(hash);
        }
    }

    /// End and forget all that were not accepted on these terms. Some may have been, since these hold.
    pub(super) fn end_others(&self, accepted: Option<&Arc<Accepted>>) {
        for part in &self.parts {
            write(part).all.retain(|_, known| {
                let stays = accepted.is_some_and(|now| Arc::ptr_eq(now, &known.accepted));
                if !stays {
                    let over = Authority::Ended(Denial::SessionRevoked);
                    known.session.publish(over);
                }
                stays
            });
        }
    }

    /// End what is over.
    pub(super) fn sweep(&self, now: SystemTime) {
        for part in &self.parts {
            write(part).sweep(now);
        }
    }

    /// Those that are sessions themselves.
    pub(super) fn own(&self) -> Vec<Arc<Known>> {
        let mut all = Vec::new();
        for part in &self.parts {
            let part = read(part);
            let own = part.all.values().filter(|known| known.whole.is_none());
            all.extend(own.cloned());
        }
        all
    }

    #[cfg(test)]
    pub(super) fn is_locked(&self, hash: &Hash) -> bool {
        self.part(hash).try_write().is_err()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| read(part).all.len()).sum()
    }

    fn part(&self, hash: &Hash) -> &RwLock<Part> {
        // In range: the remainder.
        #[allow(clippy::indexing_slicing)]
        &self.parts[usize::from(hash[0]) % PARTS]
    }
}

fn read(part: &RwLock<Part>) -> RwLockReadGuard<'_, Part> {
    part.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(part: &RwLock<Part>) -> RwLockWriteGuard<'_, Part> {
    part.write().unwrap_or_else(PoisonError::into_inner)
}
