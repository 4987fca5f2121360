//! What a runtime says of the sandbox behind a session.

use std::{
    sync::{Arc, PoisonError},
    time::SystemTime,
};

use super::{Act, Behalf, Entry, Issued, Registry, RegistryError};
use crate::{
    session::{
        Event, Observed, Record, SessionKey,
        lifecycle::{Action, State},
    },
    store::Batch,
};

/// One report of a runtime.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observation {
    /// One of [`Observation::STATES`].
    pub state: &'static str,
    /// One of [`Observation::REASONS`].
    pub reason: Option<&'static str>,
    /// The generation it speaks of; `None` = the present one. A late word of an earlier one changes nothing, nor does one of a
    /// sandbox that has ended.
    pub generation: Option<u64>,
}

impl Observation {
    /// What a sandbox can be.
    pub const STATES: [&'static str; 5] =
        ["starting", "running", "stopping", "stopped", "destroyed"];
    /// Why it can be that.
    pub const REASONS: [&'static str; 7] = [
        "completed",
        "stopped",
        "idle_timeout",
        "failed",
        "oom",
        "start_failed",
        "max_lifetime",
    ];

    fn is_over(&self) -> bool {
        Self::end(self.state) > 0
    }

    /// How far a sandbox is gone by this word.
    fn end(state: &str) -> u8 {
        match state {
            "stopped" => 1,
            "destroyed" => 2,
            _ => 0,
        }
    }

    /// Does it come too late for a sandbox that has ended? How it ended stays as it was said first; that it is destroyed, too, is
    /// news.
    fn is_late(&self, before: &Observed) -> bool {
        let (was, is) = (Self::end(&before.state), Self::end(self.state));
        let other = self.reason.is_some() && self.reason != before.reason.as_deref();
        is < was || (is == was && was > 0 && before.reason.is_some() && other)
    }
}

impl Registry {
    /// Take a runtime's word: `stopped` and `destroyed` end the generation, the others are noted. Returns whether it
    /// spoke of the present generation.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn observe_at(
        &self,
        by: &Behalf,
        key: &SessionKey,
        observation: &Observation,
        now: SystemTime,
    ) -> Result<(Issued, bool), RegistryError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let _acting = self.acting(by.actor.clone());
        self.settled(self.entry_of(by, key)?, now)?;
        let entry = self.entry_of(by, key)?;
        let generation = entry.record.lease.generation;
        if observation
            .generation
            .is_some_and(|said| said != generation)
        {
            return Ok((self.unchanged(&entry), false));
        }
        let before = entry.record.observed.as_ref();
        let before = before.filter(|before| before.generation == generation);
        if before.is_some_and(|before| observation.is_late(before)) {
            return Ok((self.unchanged(&entry), false));
        }
        // Whoever says it again need not say why.
        let ended = before.filter(|before| Observation::end(&before.state) > 0);
        let why = ended.and_then(|ended| ended.reason.clone());
        let mut next: Entry = (*entry).clone();
        next.record.observed = Some(Observed {
            state: observation.state.into(),
            reason: why.or_else(|| observation.reason.map(str::to_owned)),
            generation,
            at: now,
        });
        let reason = match observation.reason {
            Some(reason) => format!("runtime: {}, {reason}", observation.state),
            None => format!("runtime: {}", observation.state),
        };
        let lives = matches!(next.record.lease.state, State::Running | State::Paused);
        if observation.is_over() && lives {
            let act = Act::because(Action::Gone, reason, now);
            let ended = self.apply(&next, act, None)?;
            return Ok((ended, true));
        }
        // A runtime may say the same every second: that is when it was last said, and no news.
        let word = |record: &Record| {
            let said = record.observed.clone()?;
            Some((said.state, said.reason, said.generation))
        };
        let news = word(&next.record) != word(&entry.record);
        if news {
            next.record.changed_at = now;
        }
        // What was held back is told with the next word, though that says nothing new.
        let owed = next.sparse.owes(generation) || news;
        let due = owed && next.sparse.observed_due(generation, observation.state, now);
        next.sparse.untold = owed && !due;
        let events = if due {
            let event = Event::of(&next.record, "session.observed", Some(reason), now);
            vec![event]
        } else {
            Vec::new()
        };
        let _told = self.commit(Batch::default(), &[&next.record], &events)?;
        let next = Arc::new(next);
        self.put(next.clone());
        Ok((self.unchanged(&next), true))
    }
}

#[cfg(test)]
mod tests;
