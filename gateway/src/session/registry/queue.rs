//! The queue of a scope: a start beyond its concurrency waits, and a place that becomes free starts the next in order.
//! The ticket is part of the record, so the order survives restarts.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::{Entry, Issued, Registry, RegistryError};
use crate::{
    session::{
        Event, Record, Scopes, SessionKey, Ticket,
        lifecycle::{Action, State},
        view,
    },
    store::Batch,
};

/// A scope as it is: generations that live, and tickets that wait, without one session's own.
struct Scope {
    bound: Scopes,
    in_use: usize,
    tickets: Vec<u64>,
}

impl Registry {
    /// Begin a generation where the scope has a place, else wait for one. Under the writer's lock.
    pub(super) fn start_or_queue(
        &self,
        entry: &Entry,
        created: Option<Event>,
        now: SystemTime,
    ) -> Result<Issued, RegistryError> {
        let record = &entry.record;
        let scope = match record.lease.state {
            State::Idle => self.scope(record),
            State::Running | State::Paused | State::Stopped => None,
        };
        let Some(scope) = scope else {
            return self.apply(entry, Action::Start, None, created, now);
        };
        let before = |ticket: u64| record.queued.is_none_or(|own| ticket < own.number);
        let waiting = scope.tickets.iter().filter(|t| before(**t)).count();
        if scope.in_use + waiting < scope.bound.concurrency {
            return self.apply(entry, Action::Start, None, created, now);
        }
        if record.queued.is_some() {
            return Ok(self.unchanged(entry));
        }
        if scope.tickets.len() >= scope.bound.queue {
            return Err(RegistryError::QueueFull {
                scope: record.scope.clone().unwrap_or_default(),
                waiting: scope.tickets.len(),
                in_use: scope.in_use,
                limit: scope.bound.concurrency,
            });
        }
        let mut next = entry.clone();
        next.record.queued = Some(Ticket {
            number: scope.tickets.iter().max().map_or(1, |last| last + 1),
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
        let mut waiting: Vec<(Ticket, SessionKey)> = self
            .queued()
            .iter()
            .filter_map(|entry| Some((entry.record.queued?, entry.record.key())))
            .collect();
        waiting.sort_by_key(|(ticket, _)| ticket.number);
        for (_, key) in waiting {
            let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let Ok(entry) = self.entry(&key) else {
                continue;
            };
            if entry.record.queued.is_none() {
                continue;
            }
            match self.start_or_queue(&entry, None, now) {
                // The store mends itself, or an operator it; nobody loses the place over it.
                Ok(_) | Err(RegistryError::Store(_)) => {}
                Err(error) => {
                    let reason = format!("could not be started: {error}");
                    tracing::warn!(session = %entry.record.row_key(), "{reason}");
                    if let Err(error) = self.dequeue(&entry, Some(reason), now) {
                        tracing::error!(session = %entry.record.row_key(), %error, "stays queued");
                    }
                }
            }
        }
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
        if let Some(own) = entry.record.queued {
            let tickets = self.peers(&entry.record, |record| record.queued);
            let ahead = tickets.iter().filter(|t| t.number < own.number).count();
            if let Some(queued) = view.get_mut("queued").and_then(Value::as_object_mut) {
                queued.insert("position".into(), json!(ahead + 1));
            }
        }
        view
    }

    /// `None` where nothing bounds the session's scope.
    fn scope(&self, record: &Record) -> Option<Scope> {
        record.scope.as_ref()?;
        let bound = self.config().providers.get(&record.provider)?.scopes?;
        let lives = |record: &Record| {
            matches!(record.lease.state, State::Running | State::Paused).then_some(())
        };
        let tickets = self.peers(record, |record| record.queued);
        Some(Scope {
            bound,
            in_use: self.peers(record, lives).len(),
            tickets: tickets.iter().map(|ticket| ticket.number).collect(),
        })
    }

    /// What `pick` finds in the other sessions of a session's scope.
    fn peers<T>(&self, of: &Record, pick: impl Fn(&Record) -> Option<T>) -> Vec<T> {
        let others = self.scope_of(of);
        others
            .iter()
            .filter_map(|entry| pick(&entry.record))
            .collect()
    }
}

#[cfg(test)]
mod tests;
