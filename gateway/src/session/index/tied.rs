//! What ends with a token, by the token's id. Locked alone, and only where a token is new or revoked, or what was made of it ends.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use crate::session::Session;

type Sessions = HashMap<Arc<str>, Weak<Session>>;

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
        // By now another one may be tied to the id, that lives.
        if all
            .get(&self.id)
            .is_some_and(|session| session.strong_count() == 0)
        {
            all.remove(&self.id);
        }
    }
}

impl Tied {
    /// From now on whoever revokes the token finds it. Whether somebody has meanwhile is to be asked afterwards.
    pub(super) fn tie(self: &Arc<Self>, id: &str, session: &Arc<Session>) {
        let id: Arc<str> = id.into();
        self.lock().insert(id.clone(), Arc::downgrade(session));
        let all = self.clone();
        session.hold(Tie { all, id });
    }

    /// What ends with the token of this id, which was revoked before this is asked: in one namespace, or in all.
    pub(super) fn to(&self, namespace: Option<&str>, id: &str) -> Option<Arc<Session>> {
        let session = self.lock().get(id).cloned();
        let session = session?.upgrade()?;
        namespace
            .is_none_or(|own| *session.key().namespace == *own)
            .then_some(session)
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
        // What is made anew of a token takes the place of what was before, and keeps it.
        tied.tie("other", &next);
        drop(other);
        assert!(
            tied.to(None, "other")
                .is_some_and(|one| Arc::ptr_eq(&one, &next))
        );
        assert!(tied.to(Some("default"), "other").is_some());
        assert!(tied.to(Some("elsewhere"), "other").is_none());
        drop(next);
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
        drop(session);
        assert!(tied.lock().is_empty());
    }
}
