//! Whether a sandbox is there for a listener, and with it whether the door of its dial target is open.
//!
//! It is there while one of its accept streams waits, or carries a dial: on every transport that is a client that is connected.

use std::{
    ptr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

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
    /// Somebody accepts what comes, and shuts the door in time.
    attended: bool,
    /// Served no more, and not to be opened again.
    forgotten: Weak<Door>,
}

/// An accept stream that is here. Dropping it says that it has gone.
#[derive(Debug)]
pub(super) struct Here(Arc<Doorway>);

impl Doorway {
    /// An accept stream has come, of a listener with this door. It is open before anybody can know of it, whether it is served yet or
    /// not: what dials meanwhile waits in the kernel's queue.
    pub(super) fn enter(self: &Arc<Self>, door: Option<Arc<Door>>) -> Here {
        let mut state = self.state();
        let first = state.adopt(door);
        state.here += 1;
        if state.here == 1 || first {
            state.open();
        }
        if state.here == 1 {
            self.here.send_replace(true);
        }
        Here(self.clone())
    }

    /// This door is served from now on, and no other.
    pub(super) fn serve(&self, door: &Arc<Door>) {
        let mut state = self.state();
        state.door = Some(door.clone());
        // Whoever accepts does so at the door before.
        state.attended = false;
        if state.here > 0 {
            state.open();
        }
    }

    /// What comes to this door is accepted from now on, if anybody is here still.
    pub(super) fn attend(&self, door: &Door) -> bool {
        let mut state = self.state();
        state.attends(door, true);
        state.here > 0
    }

    /// Nothing is accepted for a while.
    pub(super) fn neglect(&self, door: &Door) {
        let mut state = self.state();
        state.attends(door, false);
        if state.here == 0 {
            door.shut();
        }
    }

    /// It is served no more, whoever is here.
    pub(super) fn forget(&self, door: &Arc<Door>) {
        let mut state = self.state();
        if state.serves(door) {
            state.door = None;
            state.attended = false;
        }
        state.forgotten = Arc::downgrade(door);
        door.shut();
    }

    /// Shut it, unless somebody is here again. Before, when nobody can be any more, `left` takes what waited: it is given back.
    pub(super) fn shut<T>(&self, door: &Door, left: impl FnOnce() -> T) -> Option<T> {
        let mut state = self.state();
        if state.here > 0 {
            return None;
        }
        let left = left();
        door.shut();
        state.attends(door, false);
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
    fn serves(&self, door: &Door) -> bool {
        self.door.as_deref().is_some_and(|own| ptr::eq(own, door))
    }

    /// Somebody accepts at this door, or nobody. Of one that is served no more that is nothing to another.
    fn attends(&mut self, door: &Door, attended: bool) {
        if self.serves(door) {
            self.attended = attended && self.here > 0;
        }
    }

    /// Before it is served. Is it new here?
    fn adopt(&mut self, door: Option<Arc<Door>>) -> bool {
        let door = door.filter(|door| !Weak::ptr_eq(&self.forgotten, &Arc::downgrade(door)));
        let first = self.door.is_none() && door.is_some();
        if first {
            self.door = door;
        }
        first
    }

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
            // Whoever accepts waits whether somebody comes back; where nobody does, what dialled would wait for ever.
            if !state.attended
                && let Some(door) = &state.door
            {
                door.shut();
            }
        }
    }
}
