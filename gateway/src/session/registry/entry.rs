//! One session in memory, and what the store does not know of it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::Observation;
use crate::{
    session::{
        Actor, Event, PolicyGeneration, Record, Session, SessionKey,
        lifecycle::{Action, Expiry, next_expiry},
    },
    store::Batch,
};

/// One session in memory.
#[derive(Clone, Debug)]
pub(in crate::session) struct Entry {
    pub(in crate::session) record: Record,
    /// The living generation.
    pub(in crate::session) session: Option<Arc<Session>>,
    /// Its compiled grant; `None` where the configuration no longer allows it, and where it is stopped.
    pub(in crate::session) policy: Option<Arc<PolicyGeneration>>,
    /// Its generation was ended or paused by this, which could not be made durable yet: the record still says that it lives.
    pub(in crate::session) withdrawn: Option<Act>,
    /// What was told of it lately that is no transition.
    pub(in crate::session) sparse: Sparse,
}

/// Keepalives, fresh credentials and what a runtime observes change no state, and may be asked for without end: of each, and of
/// each word of a runtime's, a session has one event a minute, so that nobody's repetition pushes everybody's history out of the store.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::session) struct Sparse {
    extended: Option<SystemTime>,
    issued: Option<SystemTime>,
    /// By word, and of which generation.
    observed: (u64, [Option<SystemTime>; Observation::STATES.len()]),
    /// The last word was held back.
    pub(super) untold: bool,
}

impl Sparse {
    const EVERY: Duration = Duration::from_secs(60);

    /// Is this one to be told?
    pub(in crate::session) fn due(&mut self, extended: bool, now: SystemTime) -> bool {
        let last = if extended {
            &mut self.extended
        } else {
            &mut self.issued
        };
        Self::once(last, now)
    }

    /// Was a word about this generation held back, of which nothing has been told since?
    pub(super) fn owes(&self, generation: u64) -> bool {
        self.untold && self.observed.0 == generation
    }

    /// Is this word of a runtime's to be told?
    pub(super) fn observed_due(&mut self, generation: u64, state: &str, now: SystemTime) -> bool {
        if self.observed.0 != generation {
            self.observed = (generation, Default::default());
        }
        let mut words = Observation::STATES.iter().zip(&mut self.observed.1);
        let own = words.find(|(word, _)| **word == state);
        own.is_none_or(|(_, last)| Self::once(last, now))
    }

    fn once(last: &mut Option<SystemTime>, now: SystemTime) -> bool {
        // A clock that was put back tells too much rather than nothing.
        let lately = last.is_some_and(|last| {
            now.duration_since(last)
                .is_ok_and(|since| since < Self::EVERY)
        });
        if !lately {
            *last = Some(now);
        }
        !lately
    }
}

impl Entry {
    /// The next moment one of its clocks runs out, and which.
    pub(in crate::session) fn due(&self) -> Option<(SystemTime, Expiry)> {
        match &self.session {
            Some(session) => session.due(),
            None => next_expiry(&self.record.lease, self.record.active_at, false),
        }
    }
}

/// A revocation that the store does not know of.
#[derive(Debug)]
pub(in crate::session) struct Unsaved {
    pub(super) batch: Batch,
    pub(super) events: Vec<Event>,
    /// Whose record says so.
    pub(super) key: Option<SessionKey>,
}

impl Unsaved {
    /// Is it of the same ids of tokens, for however long? What names none is of nothing else.
    pub(super) fn is_of(&self, batch: &Batch) -> bool {
        let ids = |batch: &Batch| -> Vec<String> {
            let revoked = batch.revoke.iter();
            revoked.map(|(id, _)| id.clone()).collect()
        };
        !batch.revoke.is_empty() && ids(&self.batch) == ids(batch)
    }
}

/// One action on a session.
#[derive(Clone, Debug)]
pub(in crate::session) struct Act {
    pub(in crate::session) action: Action,
    pub(in crate::session) reason: Option<String>,
    /// When it takes effect.
    pub(in crate::session) at: SystemTime,
    /// Who asked for it.
    pub(in crate::session) by: Option<Actor>,
}

impl Act {
    /// For no reason that would have to be told.
    pub(in crate::session) fn new(action: Action, at: SystemTime) -> Self {
        Self {
            action,
            reason: None,
            at,
            by: None,
        }
    }

    /// For this reason.
    pub(in crate::session) fn because(
        action: Action,
        reason: impl Into<String>,
        at: SystemTime,
    ) -> Self {
        Self {
            reason: Some(reason.into()),
            ..Self::new(action, at)
        }
    }
}
