//! Dial targets of sessions: what was chosen for them is durable before anybody is told of it.

use std::{
    sync::{Arc, PoisonError},
    time::SystemTime,
};

use super::{Entry, Registry, Told};
use crate::{
    session::{Event, dials::Living},
    store::Batch,
};

impl Registry {
    /// The entry with the ports of its listeners, which are stored by then, and whoever is to hear of them.
    pub(super) fn settle_dials(&self, entry: Arc<Entry>) -> (Arc<Entry>, Option<Told<'_>>) {
        let key = entry.record.key();
        let ports = &entry.record.dial_ports;
        let said = entry.session.as_ref().map(|session| session.dials());
        let settled = match (&entry.session, &entry.policy) {
            // Paused until its grant holds again: its places stay its own, and nobody is admitted there. After a restart they are its ports.
            (Some(session), None) => Some(self.dials.keep(session, ports)),
            (session, policy) => {
                let living = session.as_ref().zip(policy.as_ref());
                let living = living.map(|(session, policy)| Living {
                    session,
                    grant: &policy.grant,
                    ports,
                });
                self.dials.settle(&key, living)
            }
        };
        let Some(settled) = settled else {
            return (entry, None);
        };
        let quiet = settled.missing.is_empty() && settled.found.is_empty();
        if quiet && settled.ports == entry.record.dial_ports {
            return (entry, None);
        }
        for listener in &settled.found {
            tracing::info!(session = %key.id, %listener, "an exposed listener has the place of its dial target again");
        }
        let mut next = (*entry).clone();
        next.record.dial_ports = settled.ports;
        let now = SystemTime::now();
        let event = |kind, reason| Event::of(&next.record, kind, Some(reason), now);
        let missing = settled
            .missing
            .into_iter()
            .map(|(name, error)| event("session.dialTargetMissing", format!("{name}: {error}")));
        let found = settled.found.into_iter();
        let found = found.map(|name| event("session.dialTargetFound", name));
        let events: Vec<Event> = missing.chain(found).collect();
        match self.commit(Batch::default(), &[&next.record], &events) {
            Ok(told) => (Arc::new(next), Some(told)),
            Err(error) => {
                let why = format!("its port could not be stored: {error}");
                self.dials.give_up(&key, &entry.record.dial_ports, &why);
                let before = said.unwrap_or_default();
                if !before.errors.values().any(|said| *said == why) {
                    tracing::error!(session = %key.id, %error, "what became of dial targets could not be stored");
                }
                (entry, None)
            }
        }
    }

    /// Places that could not be had are asked for again.
    pub(in crate::session) fn retry_dials(&self, seen: &Entry) {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have ended, or been settled, since it was seen.
        if let Ok(entry) = self.entry(&seen.record.key())
            && lacks_dials(&entry)
        {
            self.put_quietly(entry);
        }
    }
}

/// Is there a listener that should have a dial target and has none?
pub(in crate::session) fn lacks_dials(entry: &Entry) -> bool {
    missing_dials(entry) > 0
}

/// How many of those there are.
pub(in crate::session) fn missing_dials(entry: &Entry) -> usize {
    let session = entry.session.as_ref();
    session.map_or(0, |session| session.dials().errors.len())
}
