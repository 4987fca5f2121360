//! Whether a sandbox is there for a listener, and with it whether the door of its dial target is open.
//!
//! It is there while one of its accept streams waits, or carries a dial: on every transport that is a client that is connected.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::session::Door;

/// One listener of one generation.
#[derive(Debug, Default)]
pub(super) struct Doorway {
    state: Mutex<State>,
    /// Is anybody here?
    here: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    here: usize,
    door: Option<Arc<Door>>,
}

/// An accept stream that is here. Dropping it says that it has gone.
#[derive(Debug)]
pub(super) struct Here(Arc<Doorway>);

impl Doorway {
    /// An accept stream has come. The door is open before anybody can know of it.
    pub(super) fn enter(self: &Arc<Self>) -> Here {
        let mut state = self.state();
        state.here += 1;
        if state.here == 1 {
            state.open();
            self.here.send_replace(true);
        }
        Here(self.clone())
    }

    /// This door is served from now on.
    pub(super) fn serve(&self, door: &Arc<Door>) {
        let mut state = self.state();
        state.door = Some(door.clone());
        if state.here > 0 {
            state.open();
        }
    }

    /// It is served no more, whoever is here.
    pub(super) fn forget(&self, door: &Arc<Door>) {
        let mut state = self.state();
        if state
            .door
            .as_ref()
            .is_some_and(|served| Arc::ptr_eq(served, door))
        {
            state.door = None;
        }
        door.shut();
    }

    /// Shut it, unless somebody is here again. Before, when nobody can be any more, `left` takes what waited: it is given back.
    pub(super) fn shut<T>(&self, door: &Door, left: impl FnOnce() -> T) -> Option<T> {
        let state = self.state();
        if state.here > 0 {
            return None;
        }
        let left = left();
        door.shut();
        Some(left)
    }

    /// Completes when somebody is here, or nobody.
    pub(super) async fn until(&self, here: bool) {
        // It cannot fail while the sender lives, which is ours.
        let _ = self.here.subscribe().wait_for(|now| *now == here).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn open(&self) {
        let Some(door) = &self.door else { return };
        if let Err(error) = door.open() {
            // Whoever serves it tries again.
            tracing::warn!(%error, "a dial target does not listen yet");
        }
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.here -= 1;
        if state.here == 0 {
            self.0.here.send_replace(false);
        }
    }
}
