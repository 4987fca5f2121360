//! What ends with a token, by the token's id. Locked alone, and only where a token is new or revoked, or what was made of it ends.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use crate::session::Session;

/// Several may be of one id, where whoever makes the tokens says an id twice.
type Sessions = HashMap<Arc<str>, Vec<Weak<Session>>>;

/// All that is tied. No session may be let go of while it is locked: one that is tied locks it then.
#[derive(Debug, Default)]
pub(super) struct Tied(Mutex<Sessions>);

/// What is known of a session that is tied leaves with it.
#[derive(Debug)]
pub(in crate::session) struct Tie {
    all: Arc<Tied>,
    id: Arc<str>,
}

impl Drop for Tie {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        let Some(sessions) = all.get_mut(&self.id) else {
            return;
        };
        sessions.retain(|session| session.strong_count() > 0);
        if sessions.is_empty() {
            all.remove(&self.id);
        }
    }
}

impl Tied {
    /// From now on whoever revokes the token finds it. Whether somebody has meanwhile is to be asked afterwards.
    pub(super) fn tie(self: &Arc<Self>, id: &str, session: &Arc<Session>) {
        let (id, one): (Arc<str>, _) = (id.into(), Arc::downgrade(session));
        let mut tied = self.lock();
        let sessions = tied.entry(id.clone()).or_default();
        if sessions.iter().any(|other| other.ptr_eq(&one)) {
            return;
        }
        sessions.push(one);
        drop(tied);
        let all = self.clone();
        session.hold(Tie { all, id });
    }

    /// What ends with the token of this id, which was revoked before this is asked: in one namespace, or in all.
    pub(super) fn to(&self, namespace: Option<&str>, id: &str) -> Vec<Arc<Session>> {
        let sessions = self.lock().get(id).cloned().unwrap_or_default();
        let living = sessions.iter().filter_map(Weak::upgrade);
        living
            .filter(|session| namespace.is_none_or(|own| *session.key().namespace == *own))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::testing::generation;

    #[test]
    fn what_is_tied_leaves_with_its_session() {
        let tied = Arc::<Tied>::default();
        let [one, other, next] = std::array::from_fn(|_| generation());
        tied.tie("one", &one);
        tied.tie("other", &other);
        drop(one);
        assert_eq!(tied.lock().len(), 1);
        // Of two of one id each is found for as long as it lives.
        tied.tie("other", &next);
        assert_eq!(tied.to(None, "other").len(), 2);
        drop(other);
        let left = tied.to(None, "other");
        assert!(left.iter().all(|one| Arc::ptr_eq(one, &next)) && left.len() == 1);
        assert_eq!(tied.to(Some("default"), "other").len(), 1);
        assert!(tied.to(Some("elsewhere"), "other").is_empty());
        drop((left, next));
        assert!(tied.lock().is_empty());
    }

    #[test]
    fn a_session_may_be_tied_to_several() {
        let tied = Arc::<Tied>::default();
        let session = generation();
        for id in ["one", "other", "one"] {
            tied.tie(id, &session);
        }
        assert_eq!(tied.lock().len(), 2);
        assert_eq!(tied.to(None, "one").len(), 1);
        drop(session);
        assert!(tied.lock().is_empty());
    }
}
