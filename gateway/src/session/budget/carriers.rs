//! How many connections carry a session's streams: each may hold a window of unread bytes.
//!
//! A place is its connection's for as long as one of the credentials is good by which streams came on it. What is open by one that was
//! withdrawn is cut at that moment, and a client that leaves its connection standing all the same keeps nobody out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use sluicegate_policy::{Denial, Hint, Refusal};

use super::Budget;
use crate::session::Right;

/// Credentials that are remembered of one connection: those of one sandbox, and not of a crowd, whose connection keeps its place to its
/// end.
const RIGHTS: usize = 8;

/// A connection that carries streams of a session's generation; dropping it frees the place. It keeps nothing of a generation that
/// is over.
#[derive(Debug)]
pub struct Carrier {
    budget: Weak<Budget>,
    place: Arc<Place>,
}

/// What the budget counts.
#[derive(Debug)]
pub(super) struct Place(Mutex<State>);

#[derive(Debug)]
struct State {
    /// By what streams came.
    rights: Vec<Right>,
    /// There were more than are remembered, and some of those may be good.
    crowded: bool,
    /// It is nobody's any more, and counts no more.
    given_up: bool,
}

impl Budget {
    /// One more connection begins to carry relay streams, of so many at once, by this right.
    ///
    /// # Errors
    /// `TooManyConnections`.
    pub fn carry(self: &Arc<Self>, most: u64, right: Right) -> Result<Carrier, Refusal> {
        self.take_place(&self.carriers, most, right)
    }

    /// The same for tunnels, requests and calls on a connection that may carry many of them.
    ///
    /// # Errors
    /// `TooManyConnections`.
    pub fn carry_asked(self: &Arc<Self>, most: u64, right: Right) -> Result<Carrier, Refusal> {
        self.take_place(&self.askers, most, right)
    }

    fn take_place(
        self: &Arc<Self>,
        places: &Mutex<Vec<Weak<Place>>>,
        most: u64,
        right: Right,
    ) -> Result<Carrier, Refusal> {
        let mut places = places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() as u64 >= most {
            places.retain(|place| place.upgrade().is_some_and(|place| place.stands()));
        }
        let used = places.len() as u64;
        if used >= most {
            return Err(Refusal {
                denial: Denial::TooManyConnections,
                rule: None,
                hint: Some(Hint::InUse {
                    used,
                    most,
                    what: "connections",
                }),
            });
        }
        let place = Arc::new(Place::of(right));
        places.push(Arc::downgrade(&place));
        Ok(Carrier {
            budget: Arc::downgrade(self),
            place,
        })
    }
}

impl Carrier {
    /// Is it one of this generation's?
    pub fn is_of(&self, budget: &Arc<Budget>) -> bool {
        std::ptr::eq(self.budget.as_ptr(), Arc::as_ptr(budget))
    }

    /// Is the generation gone?
    pub fn is_over(&self) -> bool {
        self.budget.strong_count() == 0
    }

    /// Its streams come by this right as well. `false`: the place was given up meanwhile, and another one has to be taken.
    pub fn goes_on(&self, right: &Right) -> bool {
        self.place.goes_on(right)
    }
}

impl Place {
    fn of(right: Right) -> Self {
        Self(Mutex::new(State {
            rights: vec![right],
            crowded: false,
            given_up: false,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is one of its credentials good still? Where none is it is given up, for good.
    fn stands(&self) -> bool {
        let mut state = self.state();
        let over = !state.crowded && state.rights.iter().all(Right::is_withdrawn);
        state.given_up |= over;
        !state.given_up
    }

    fn goes_on(&self, right: &Right) -> bool {
        let mut state = self.state();
        if state.given_up {
            return false;
        }
        if state.crowded || state.rights.iter().any(|known| known.is_of(right)) {
            return true;
        }
        // What it was refreshed from is as good as it is.
        let other = |known: &Right| !known.is_of_line(right) && !known.is_withdrawn();
        state.rights.retain(other);
        if state.rights.len() >= RIGHTS {
            state.crowded = true;
            state.rights.clear();
        } else {
            state.rights.push(right.clone());
        }
        true
    }
}
