//! Records and events made durable together, and told once memory shows them; and the history of events.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::broadcast;

use super::{Registry, RegistryError};
use crate::{
    session::{Event, Record},
    store::{Batch, Dropped, NewEvent, StoreError, StoredEvent},
};

impl Registry {
    /// Lifecycle events after a cursor, oldest first.
    ///
    /// # Errors
    /// The store.
    pub async fn events_after(
        self: &Arc<Self>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, RegistryError> {
        self.blocking(move |registry, _| Ok(registry.store.events(after, limit)?))
            .await
    }

    /// What a namespace has lost of its history.
    ///
    /// # Errors
    /// The store.
    pub async fn events_dropped(self: &Arc<Self>, of: String) -> Result<Dropped, RegistryError> {
        self.blocking(move |registry, _| Ok(registry.store.dropped(&of)?))
            .await
    }

    /// Lifecycle events as they are committed: cursor and JSON.
    pub fn subscribe(&self) -> broadcast::Receiver<(u64, Arc<str>)> {
        self.events.subscribe()
    }

    /// The cursor of the last event that listeners were told; 0 = there was none yet.
    pub fn newest_event(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// Make records and events durable. Listeners are told when what is returned is dropped: once memory shows it.
    pub(in crate::session) fn commit(
        &self,
        mut batch: Batch,
        records: &[&Record],
        events: &[Event],
    ) -> Result<Told<'_>, RegistryError> {
        for record in records {
            let row = serde_json::to_vec(record).map_err(|source| RegistryError::Row {
                key: record.row_key(),
                source,
            })?;
            batch.put.push((record.row_key(), row));
        }
        let actor = self.actor().clone();
        let told = |event: &Event| {
            let by = event.by.clone().or_else(|| actor.clone());
            let event = Event {
                by,
                ..event.clone()
            };
            event.to_json().into()
        };
        let texts: Vec<Arc<str>> = events.iter().map(told).collect();
        let stored = events.iter().zip(&texts).map(|(event, text)| NewEvent {
            of: event.namespace().to_owned(),
            body: text.as_bytes().to_vec(),
        });
        batch.events = stored.collect();
        batch.keep_events = Some(self.config().retention.events);
        let done = self.store.commit(&batch);
        self.writable.store(done.is_ok(), Ordering::Release);
        if let Err(error @ StoreError::Damaged { .. }) = &done {
            self.unreadable(error);
        }
        let last = done?;
        let first = last.saturating_sub(texts.len() as u64);
        Ok(Told {
            events: &self.events,
            newest: &self.newest,
            texts: (first + 1..).zip(texts).collect(),
        })
    }
}

/// Events that are durable and not yet told: somebody who hears of one and looks must see it.
#[must_use = "dropping it tells the listeners: hold it until memory shows the change"]
pub(in crate::session) struct Told<'a> {
    events: &'a broadcast::Sender<(u64, Arc<str>)>,
    newest: &'a AtomicU64,
    texts: Vec<(u64, Arc<str>)>,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        for (cursor, text) in self.texts.drain(..) {
            tracing::info!(target: "sluicegate::session", event = %text);
            // Before it is told: who listens from now on, and was too late for this one, begins behind it.
            self.newest.fetch_max(cursor, Ordering::AcqRel);
            // Nobody listening is not an error.
            let _ = self.events.send((cursor, text));
        }
    }
}
