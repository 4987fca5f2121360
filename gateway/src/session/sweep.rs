//! Expiry: one owned task that looks at every session's clocks, and at the store's health.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use super::{
    Event, Registry, RegistryError,
    lifecycle::{Action, State},
    registry::{Act, Entry, lacks_dials, missing_dials},
};
use crate::{
    drain::{DrainWatch, Stage},
    store::{Batch, StoreError},
    telemetry::Telemetry,
};

/// The store is probed, and clocks are looked at, at least this often.
const PERIOD: Duration = Duration::from_millis(500);
/// Of so many at most the end is recorded in one commit: whoever waits for the writer has a turn between two.
const TOGETHER: usize = 1024;
/// Of so many at most the records go in one commit and one sweep, with logs of so many bytes.
const REAPED: (usize, u64) = (256, 64 << 20);
/// Bytes spent are saved this often.
const USAGE_PERIOD: Duration = Duration::from_secs(5);

impl Registry {
    /// Sweep until the drain is over. The composition root spawns this into its tracker.
    pub async fn sweep(self: Arc<Self>, telemetry: Telemetry, mut drain: DrainWatch) {
        loop {
            let began = Instant::now();
            let registry = self.clone();
            let next =
                tokio::task::spawn_blocking(move || registry.sweep_at(SystemTime::now())).await;
            self.note_sweep(next.is_ok());
            telemetry.metrics().sessions(self.index().len());
            telemetry
                .metrics()
                .dial_targets_missing(self.dials().missing());
            let wait = match next {
                Ok(Some(at)) => at
                    .duration_since(SystemTime::now())
                    .unwrap_or_default()
                    .min(PERIOD),
                Ok(None) => PERIOD,
                Err(error) => {
                    tracing::error!(%error, "a sweep broke off: new work is refused");
                    PERIOD
                }
            };
            // However often something changes: nine tenths of the time are others'.
            let rest = (began.elapsed() * 9).min(PERIOD);
            let woken = async {
                tokio::time::sleep(rest).await;
                self.changed().await;
            };
            tokio::select! {
                () = tokio::time::sleep(wait.max(rest)) => {}
                () = woken => {}
                () = drain.reached(Stage::Forced) => return,
            }
        }
    }

    /// One sweep by itself, for who measures it. Returns the next deadline.
    pub fn sweep_once(&self, now: SystemTime) -> Option<SystemTime> {
        self.sweep_at(now)
    }

    /// One sweep: expire what is due, reap what is old. Returns the next deadline.
    pub(super) fn sweep_at(&self, now: SystemTime) -> Option<SystemTime> {
        // Whether it can be read or not: what is over ends, and fails closed where that cannot be made durable.
        let readable = self.probe_store(now);
        if readable {
            if !self.writable() {
                self.try_writing();
            }
            self.save_revocations();
            self.forget_expired_revocations(now);
            self.promote(now);
            if self.usage_due(now, USAGE_PERIOD) {
                self.save_usage();
            }
        }
        let retention = self.config().retention.sessions;
        let mut next: Option<SystemTime> = None;
        let (mut over, mut old) = (Vec::new(), Vec::new());
        let mut missing = 0;
        for entry in self.all() {
            if is_old(&entry, retention, now) {
                old.push(entry);
                continue;
            }
            if entry.withdrawn.is_some() {
                if readable {
                    self.settle(&entry, now);
                }
                continue;
            }
            if readable && lacks_dials(&entry) {
                self.retry_dials(&entry);
            }
            missing += missing_dials(&entry);
            let Some((at, _)) = entry.due() else { continue };
            if at <= now {
                // Recorded or not, it is looked at again a period from now.
                over.push(entry);
            } else {
                next = Some(next.map_or(at, |other| other.min(at)));
            }
        }
        self.dials().note_missing(missing);
        for some in over.chunks(TOGETHER) {
            self.expire(some, now);
        }
        // Behind those: nobody's end waits for what was over long ago.
        if readable && !old.is_empty() {
            self.reap(&old, now);
        }
        next
    }

    pub(super) fn probe_store(&self, now: SystemTime) -> bool {
        match self.store().probe(now) {
            // Readable, and still of no use where the clocks cannot be looked at.
            Ok(()) if !self.swept() => true,
            Ok(()) => {
                if !self.index().readable() {
                    tracing::info!("the session store is readable again");
                }
                self.index().set_readable(true);
                true
            }
            Err(error) => {
                self.unreadable(&error);
                false
            }
        }
    }

    /// Nobody is let in from now on, until a probe finds it readable.
    pub(super) fn unreadable(&self, error: &StoreError) {
        if self.index().readable() {
            tracing::error!(%error, "the session store is unreadable: new work is refused");
        }
        self.index().set_readable(false);
    }

    /// Does the store take a row again? An empty commit may find room where no other does.
    fn try_writing(&self) {
        let _writer = self.writer().lock().unwrap_or_else(PoisonError::into_inner);
        let id = "-".to_owned();
        let row = Batch {
            revoke: vec![(id.clone(), 0)],
            ..Batch::default()
        };
        let gone = Batch {
            forget: vec![id],
            ..Batch::default()
        };
        // What fails is noted where it fails; a row that stays is one of the past, and goes with those.
        if self.commit(row, &[], &[]).is_ok() {
            drop(self.commit(gone, &[], &[]));
        }
    }

    /// Bytes spent and last activity, now and then and at the end: a byte quota and an idle clock survive a crash but for the
    /// last few seconds.
    pub fn save_usage(&self) {
        let _writer = self.writer().lock().unwrap_or_else(PoisonError::into_inner);
        let mut moved = Vec::new();
        for entry in self.all() {
            let Some(session) = &entry.session else {
                continue;
            };
            let (bytes, active) = (session.budget().bytes(), session.budget().last_activity());
            if bytes != entry.record.bytes || active > entry.record.active_at {
                let mut next = (*entry).clone();
                next.record.bytes = bytes;
                next.record.active_at = active;
                moved.push(next);
            }
        }
        if moved.is_empty() {
            return;
        }
        let records: Vec<_> = moved.iter().map(|entry| &entry.record).collect();
        match self.commit(Batch::default(), &records, &[]) {
            Ok(_told) => moved
                .into_iter()
                .for_each(|entry| self.put_quietly(Arc::new(entry))),
            Err(error) => {
                tracing::warn!(%error, "bytes spent and last activity could not be saved")
            }
        }
    }

    /// An end that could not be made durable is tried again.
    fn settle(&self, seen: &Entry, now: SystemTime) {
        let key = seen.record.key();
        let _writer = self.writer().lock().unwrap_or_else(PoisonError::into_inner);
        let settled = self.entry(&key).and_then(|entry| self.settled(entry, now));
        if let Err(error) = settled {
            tracing::error!(session = %seen.record.row_key(), %error, "it was withdrawn, and that cannot be recorded yet");
        }
    }

    /// What ran out by its clocks ends: all of it in one commit, and shown whether that succeeds or not.
    fn expire(&self, seen: &[Arc<Entry>], now: SystemTime) {
        let _writer = self.writer().lock().unwrap_or_else(PoisonError::into_inner);
        let mut steps = Vec::new();
        for entry in seen {
            // Somebody may have kept it alive since it was seen.
            let Ok(entry) = self.entry(&entry.record.key()) else {
                continue;
            };
            let over = entry.due().filter(|(at, _)| *at <= now);
            let (Some((_, which)), None) = (over, &entry.withdrawn) else {
                continue;
            };
            let act = Act::because(Action::Expire(which), which.as_str(), now);
            match self.plan(&entry, act, None) {
                Ok(step) => steps.extend(step.map(|step| (entry, step))),
                Err(error) => {
                    tracing::error!(session = %entry.record.row_key(), %error, "expiry could not be recorded");
                }
            }
        }
        if steps.is_empty() {
            return;
        }
        let records: Vec<_> = steps.iter().map(|(_, step)| step.record()).collect();
        let events: Vec<_> = steps
            .iter()
            .flat_map(|(_, step)| step.events.clone())
            .collect();
        // What is over is over, whatever becomes of it in the store.
        for (before, step) in &steps {
            self.withdraw(before, step);
        }
        match self.commit(Batch::default(), &records, &events) {
            Ok(_told) => {
                for (_, step) in steps {
                    self.show_step(step);
                }
            }
            Err(error) => {
                tracing::error!(sessions = steps.len(), %error, "expiry could not be recorded");
            }
        }
    }

    /// Records that have stayed for long enough go, those that ended first before the others: as many as one commit is to hold,
    /// and the rest with the sweeps that follow.
    fn reap(&self, seen: &[Arc<Entry>], now: SystemTime) {
        let _writer = self.writer().lock().unwrap_or_else(PoisonError::into_inner);
        let retention = self.config().retention.sessions;
        // A runtime may have had a last word since it was seen.
        let present = seen.iter().filter_map(|one| {
            let entry = self.entry(&one.record.key()).ok()?;
            is_old(&entry, retention, now).then_some(entry)
        });
        let mut old: Vec<Arc<Entry>> = present.collect();
        old.sort_by_key(|entry| entry.record.changed_at);
        let logs = old.iter().map(|entry| self.log_size(&entry.record.key()));
        let fit = reaped_together(logs);
        old.truncate(fit);
        if old.is_empty() {
            return;
        }
        let batch = Batch {
            remove: old.iter().map(|entry| entry.record.row_key()).collect(),
            ..Batch::default()
        };
        let reaped = |entry: &Arc<Entry>| Event::of(&entry.record, "session.reaped", None, now);
        let events: Vec<Event> = old.iter().map(reaped).collect();
        match self.commit(batch, &[], &events) {
            Ok(_told) => old
                .iter()
                .for_each(|entry| self.remove(&entry.record.key())),
            Err(error) => {
                tracing::error!(sessions = old.len(), %error, "stopped sessions could not be reaped");
            }
        }
    }

    fn forget_expired_revocations(&self, now: SystemTime) {
        if self.expired_revocations(now).is_empty() {
            return;
        }
        let _writer = self.writer().lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have revoked one again, for longer.
        let expired = self.expired_revocations(now);
        let batch = Batch {
            forget: expired.clone(),
            ..Batch::default()
        };
        match self.commit(batch, &[], &[]) {
            Ok(_told) => self.forget_revocations(&expired),
            Err(RegistryError::Store(error)) => {
                tracing::warn!(%error, "expired revocations stay a while")
            }
            Err(_) => {}
        }
    }
}

/// Has it been over for as long as its record stays?
fn is_old(entry: &Entry, retention: Duration, now: SystemTime) -> bool {
    let record = &entry.record;
    record.lease.state == State::Stopped && record.changed_at + retention <= now
}

/// How many of those with these logs (bytes) go in one commit; one at least, whatever its log.
fn reaped_together(logs: impl Iterator<Item = u64>) -> usize {
    let (most, room) = REAPED;
    let mut before = 0_u64;
    let fits = logs.take(most).take_while(|bytes| {
        let fits = before == 0 || before.saturating_add(*bytes) <= room;
        before = before.saturating_add(*bytes);
        fits
    });
    fits.count()
}

#[cfg(test)]
mod tests;
