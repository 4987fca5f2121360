//! The queue of a scope: a start beyond its concurrency waits, and a place that becomes free starts the next in order.
//! The ticket is part of the record, so the order survives restarts.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::{Act, Entry, Issued, Registry, RegistryError};
use crate::{
    session::{
        Event, Record, Scopes, SessionKey, Ticket,
        lifecycle::{Action, State},
        view,
    },
    store::Batch,
};

impl Registry {
    /// Begin a generation where the scope has a place, else wait for one. Under the writer's lock.
    pub(super) fn start_or_queue(
        &self,
        entry: &Entry,
        created: Option<Event>,
        now: SystemTime,
    ) -> Result<Issued, RegistryError> {
        let record = &entry.record;
        let bound = match record.lease.state {
            State::Idle => self.bound(record),
            State::Running | State::Paused | State::Stopped => None,
        };
        let Some(bound) = bound else {
            return self.apply(entry, Act::new(Action::Start, now), created);
        };
        let scope = self.standing(record);
        if scope.in_use + scope.ahead < bound.concurrency {
            return self.apply(entry, Act::new(Action::Start, now), created);
        }
        if record.queued.is_some() {
            return Ok(self.unchanged(entry));
        }
        if scope.waiting >= bound.queue {
            return Err(RegistryError::QueueFull {
                scope: record.scope.clone().unwrap_or_default(),
                waiting: scope.waiting,
                in_use: scope.in_use,
                limit: bound.concurrency,
            });
        }
        let mut next = entry.clone();
        next.record.queued = Some(Ticket {
            number: scope.last + 1,
            since: now,
        });
        next.record.changed_at = now;
        let was_created = created.is_some();
        let queued = Event::of(&next.record, "session.queued", None, now);
        let events: Vec<Event> = created.into_iter().chain([queued]).collect();
        let _told = self.commit(Batch::default(), &[&next.record], &events)?;
        let next = Arc::new(next);
        self.put(next.clone());
        Ok(Issued {
            created: was_created,
            ..self.unchanged(&next)
        })
    }

    /// A start that waits is withdrawn. Under the writer's lock.
    pub(super) fn dequeue(
        &self,
        entry: &Entry,
        reason: Option<String>,
        now: SystemTime,
    ) -> Result<Issued, RegistryError> {
        let mut next = entry.clone();
        next.record.queued = None;
        next.record.changed_at = now;
        next.record.reason.clone_from(&reason);
        let event = Event::of(&next.record, "session.dequeued", reason, now);
        let _told = self.commit(Batch::default(), &[&next.record], &[event])?;
        let next = Arc::new(next);
        self.put(next.clone());
        Ok(self.unchanged(&next))
    }

    /// Start what waits and has a place now, in order. Called by the sweep, which every change wakes.
    pub(in crate::session) fn promote(&self, now: SystemTime) {
        // A place that its first could not take is the next one's.
        while self.promote_next(now) {}
    }

    /// Returns whether one of those whose turn it was waits no more and was not started.
    fn promote_next(&self, now: SystemTime) -> bool {
        let mut passed = false;
        for key in self.next_in_line() {
            let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let Ok(entry) = self.entry(&key) else {
                continue;
            };
            if entry.record.queued.is_none() || self.second_left(&entry.record, now).is_some() {
                continue;
            }
            match self.start_or_queue(&entry, None, now) {
                // The store mends itself, or an operator it; nobody loses the place over it.
                Ok(_) | Err(RegistryError::Store(_)) => {}
                Err(error) => {
                    let reason = format!("could not be started: {error}");
                    tracing::warn!(session = %entry.record.row_key(), "{reason}");
                    match self.dequeue(&entry, Some(reason), now) {
                        Ok(_) => passed = true,
                        Err(error) => {
                            tracing::error!(session = %entry.record.row_key(), %error, "stays queued")
                        }
                    }
                }
            }
        }
        passed
    }

    /// Wait until a queued session is queued no more; at most so long.
    pub async fn wait_for_place(&self, key: &SessionKey, longest: Duration) {
        let mut events = self.subscribe();
        let queued = || {
            self.entry(key)
                .is_ok_and(|entry| entry.record.queued.is_some())
        };
        let wait = async {
            while queued() {
                match events.recv().await {
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        };
        // Whether it came or not is seen by looking again.
        let _ = tokio::time::timeout(longest, wait).await;
    }

    /// The session as the admin API shows it, with its place in the queue (1 = next).
    pub(super) fn view(&self, entry: &Entry) -> Value {
        let mut view = view::session(&self.config(), entry);
        if entry.record.queued.is_some() {
            let ahead = self.standing(&entry.record).ahead;
            if let Some(queued) = view.get_mut("queued").and_then(Value::as_object_mut) {
                queued.insert("position".into(), json!(ahead + 1));
            }
        }
        view
    }

    /// `None` where nothing bounds the session's scope.
    fn bound(&self, record: &Record) -> Option<Scopes> {
        record.scope.as_ref()?;
        self.config().providers.get(&record.provider)?.scopes
    }
}

#[cfg(test)]
mod tests;
