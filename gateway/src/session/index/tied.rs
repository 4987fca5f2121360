//! What ends with a token, by the token's id. Locked alone, and only where a token is new or is revoked.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use crate::session::Session;

/// Fewer are not worth a look for the dead.
const FEW: usize = 1024;

#[derive(Debug, Default)]
struct Sessions {
    by_id: HashMap<String, Weak<Session>>,
    /// When there are so many of them, the dead are looked for: twice as many as lived the last time.
    due: usize,
}

#[derive(Debug, Default)]
pub(super) struct Tied(Mutex<Sessions>);

impl Tied {
    /// Tie it, unless the token `is_revoked` meanwhile, which is asked under the lock: whoever revokes it afterwards finds what is tied.
    /// Returns whether it is tied.
    pub(super) fn tie(
        &self,
        id: &str,
        session: &Arc<Session>,
        is_revoked: impl FnOnce() -> bool,
    ) -> bool {
        let mut all = self.lock();
        if is_revoked() {
            return false;
        }
        if all.by_id.len() >= all.due.max(FEW) {
            all.by_id.retain(|_, session| session.strong_count() > 0);
            all.due = 2 * all.by_id.len();
        }
        all.by_id.insert(id.to_owned(), Arc::downgrade(session));
        true
    }

    /// What ends with the token of this id, which was revoked before this is asked: in one namespace, or in all.
    pub(super) fn to(&self, namespace: Option<&str>, id: &str) -> Option<Arc<Session>> {
        let mut all = self.lock();
        let session = match namespace {
            Some(_) => all.by_id.get(id).cloned(),
            None => all.by_id.remove(id),
        };
        drop(all);
        let session = session?.upgrade()?;
        namespace
            .is_none_or(|own| *session.key().namespace == *own)
            .then_some(session)
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
