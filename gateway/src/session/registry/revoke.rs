//! Revocation of single credentials: a handle, or a token with the line it was refreshed in.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};

use super::{Behalf, Registry, RegistryError, Unsaved};
use crate::{
    auth::{
        Claims, HandleHash, Named, REFRESHED_LATE, REFRESHED_LIFE, foreign_named, line_of,
        token_named,
    },
    clock::unix_seconds,
    session::{
        Event, Record, SessionKey,
        bundle::LONGEST,
        index::within,
        lifecycle::{Lease, State},
    },
    store::Batch,
};

/// Ids of tokens that are revoked within one namespace at once. Whoever names one need not have it, and it is remembered for long.
const WITHIN_ONE: usize = 10_000;
/// What the clocks of those who verify may differ by, and more; and a token that is over is refreshed for a while.
const GRACE: u64 = 60 + REFRESHED_LATE.as_secs();

/// One revocation of a token.
struct Revocation {
    /// As somebody named it.
    told: String,
    /// What is remembered: the id of the line's first token.
    line: String,
    /// Until when, in seconds.
    until: u64,
    /// Whose it is, where that is known.
    session: Option<SessionKey>,
}

impl Registry {
    pub(in crate::session) fn revoke_credential_at(
        &self,
        credential: &str,
        now: SystemTime,
    ) -> Result<bool, RegistryError> {
        let revoked = self.revoke_within_at(&Behalf::nobody(), credential, None, now)?;
        Ok(revoked.is_some())
    }

    /// The same, of the tokens of these namespaces only, where an id alone does not say whose it is. Returns whether anybody is
    /// known to have had it; `None` where it is no credential.
    pub(in crate::session) fn revoke_within_at(
        &self,
        by: &Behalf,
        credential: &str,
        namespaces: Option<&[String]>,
        now: SystemTime,
    ) -> Result<Option<bool>, RegistryError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let _acting = self.acting(by.actor.clone());
        if let Some(hash) = HandleHash::of(credential) {
            let own = namespaces.is_none() && self.revoke_handle(hash, now)?;
            return Ok(own.then_some(true));
        }
        let foreign = || {
            let may = self.index.has_foreign();
            may.then(|| foreign_named(credential)).flatten()
        };
        let Some(named) = token_named(&self.keys, credential).or_else(foreign) else {
            return Ok(None);
        };
        if namespaces.is_some() && matches!(named, Named::Own(_)) {
            return Ok(None);
        }
        let Revocation {
            told,
            line,
            until,
            session,
        } = self.revocation(named, now);
        let (known, lines) = match namespaces {
            None => {
                let seen = session.is_some() || self.index.has_seen(None, &line);
                (seen, vec![line])
            }
            Some(namespaces) => {
                self.hold_bound(namespaces, &line)?;
                let mut all = namespaces.iter();
                let seen = all.any(|own| self.index.has_seen(Some(own.as_str()), &line));
                let lines = namespaces.iter().map(|own| within(own, &line));
                (seen, lines.collect())
            }
        };
        // One that holds already is not cut short by being said again.
        let until = |line: String| {
            let held = self.revoked_until(&line);
            (line, held.map_or(until, |held| held.max(until)))
        };
        let revoke: Vec<(String, u64)> = lines.into_iter().map(until).collect();
        let told = Some(format!("token {told}"));
        let entry = session.as_ref().and_then(|key| self.entry(key).ok());
        let kind = "credential.revoked";
        let events = match (&entry, namespaces) {
            (Some(entry), _) => vec![Event::of(&entry.record, kind, told, now)],
            (None, None) => vec![Event::bare(kind, told, now)],
            // Part of the history of each: whoever repeats it pushes out their own.
            (None, Some(namespaces)) => namespaces
                .iter()
                .map(|own| Event::of_namespace(own, kind, told.clone(), now))
                .collect(),
        };
        let batch = Batch {
            revoke: revoke.clone(),
            ..Batch::default()
        };
        // Durable or not, it holds from now on.
        let mut revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        revoked.extend(revoke.iter().cloned());
        drop(revoked);
        for (line, _) in revoke {
            self.index.revoke(line, session.as_ref());
        }
        self.save_at_once(batch, &[], events, None)?;
        Ok(Some(known))
    }

    /// Is there room for one more id in each of these namespaces, where it is not revoked there already?
    fn hold_bound(&self, namespaces: &[String], line: &str) -> Result<(), RegistryError> {
        let full = |own: &&String| {
            self.revoked_until(&within(own, line)).is_none()
                && self.index.revoked_within(own) >= WITHIN_ONE
        };
        match namespaces.iter().find(full) {
            None => Ok(()),
            Some(full) => Err(RegistryError::RevocationsFull {
                namespace: full.clone(),
                limit: WITHIN_ONE,
            }),
        }
    }

    fn revocation(&self, named: Named, now: SystemTime) -> Revocation {
        match named {
            Named::Own(claims) => Revocation {
                line: claims.line().to_owned(),
                until: self.end_of_line(&claims, now),
                session: Some(claims.session()),
                told: claims.jti,
            },
            // Whoever wrote it may have written any end: it is only a way to say an id.
            Named::Gestalt { id, expires } => Revocation {
                told: id.clone(),
                line: id,
                until: expires
                    .min(unix_seconds(now + LONGEST))
                    .max(unix_seconds(now + self.config().retention.revocations)),
                session: None,
            },
            Named::Foreign(id) => Revocation {
                line: id.clone(),
                told: id,
                until: unix_seconds(now + self.config().retention.revocations),
                session: None,
            },
            Named::Id(id) => Revocation {
                line: line_of(&id).to_owned(),
                told: id,
                until: unix_seconds(now + self.config().retention.revocations),
                session: None,
            },
        }
    }

    /// When the last token of this one's line is over, pauses to come aside. Of a generation that is dead it is over already.
    fn end_of_line(&self, claims: &Claims, now: SystemTime) -> u64 {
        let Ok(entry) = self.entry(&claims.session()) else {
            return claims.exp;
        };
        let lease = &entry.record.lease;
        if lease.generation != claims.r#gen || !lives(lease) {
            return claims.exp;
        }
        // Nobody refreshes one of them from now on; those that were are good for so long at most.
        let refreshed = now + lease.times.token_ttl.unwrap_or(REFRESHED_LIFE);
        let first_is_known = claims.fam.is_none() || lease.times.token_ttl.is_some();
        let last = match lease.ends_at {
            Some(end) => end + present_pause(lease, now),
            None if first_is_known => refreshed,
            None => now + LONGEST,
        };
        unix_seconds(last).max(claims.exp)
    }

    /// Revocations of tokens that are over.
    pub(in crate::session) fn expired_revocations(&self, now: SystemTime) -> Vec<String> {
        let due = self.revocations_before(unix_seconds(now).saturating_sub(GRACE));
        if due.is_empty() {
            return due;
        }
        // A token lives as much longer as its generation is paused, and what is remembered does not say whose it is.
        let pauses = self
            .all()
            .into_iter()
            .filter(|one| lives(&one.record.lease));
        let longest = pauses.map(|one| {
            let lease = &one.record.lease;
            lease.paused_total + present_pause(lease, now)
        });
        let longest = longest.max().unwrap_or_default().as_secs();
        self.revocations_before(unix_seconds(now).saturating_sub(GRACE + longest))
    }

    fn revoke_handle(&self, hash: HandleHash, now: SystemTime) -> Result<bool, RegistryError> {
        let Some(key) = self.index.handle_owner(&hash) else {
            return Ok(false);
        };
        let mut entry = (*self.entry(&key)?).clone();
        let text = hash.to_hex();
        entry.record.handles.retain(|handle| *handle != text);
        let told = Some("handle".into());
        let event = Event::of(&entry.record, "credential.revoked", told, now);
        let entry = Arc::new(entry);
        self.index.remove_handle(&hash);
        self.put(entry.clone());
        self.save_at_once(Batch::default(), &[&entry.record], vec![event], Some(key))?;
        Ok(true)
    }

    /// A revocation that holds is made durable. It waits for its turn until it is, however that fails. Under the writer's lock.
    fn save_at_once(
        &self,
        batch: Batch,
        records: &[&Record],
        mut events: Vec<Event>,
        key: Option<SessionKey>,
    ) -> Result<(), RegistryError> {
        // Whoever saves it later asks for nothing.
        for event in &mut events {
            event.by = self.actor().clone();
        }
        let at = {
            let mut unsaved = self.unsaved();
            let again = unsaved.iter().position(|one| one.is_of(&batch));
            let one = Unsaved {
                batch: batch.clone(),
                events: events.clone(),
                key,
            };
            match again.and_then(|at| unsaved.get_mut(at)) {
                // It waits already: who says it again and again, while the store takes nothing, does not fill memory by that.
                Some(waiting) => *waiting = one,
                None => unsaved.push(one),
            }
            again.unwrap_or(unsaved.len() - 1)
        };
        let _told = self.commit(batch, records, &events)?;
        // Nobody else changes the list meanwhile: it is where it was.
        drop(self.unsaved().remove(at));
        Ok(())
    }

    /// Revocations that hold and are not durable: once more.
    pub(in crate::session) fn save_revocations(&self) {
        // Twice a second, and there hardly ever is one.
        if self.unsaved().is_empty() {
            return;
        }
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // Each stays on the list until it is recorded: a store that breaks off loses none of them.
        let (mut at, waiting) = (0, self.unsaved().len());
        for _ in 0..waiting {
            let one = self.unsaved().get(at).map(|one| {
                let key = one.key.as_ref();
                (one.batch.clone(), one.events.clone(), key.cloned())
            });
            let Some((batch, events, key)) = one else {
                return;
            };
            let entry = key.and_then(|key| self.entry(&key).ok());
            let records: Vec<_> = entry.iter().map(|entry| &entry.record).collect();
            match self.commit(batch, &records, &events) {
                Ok(_told) => drop(self.unsaved().remove(at)),
                Err(error) => {
                    tracing::error!(%error, "a revocation holds, and cannot be recorded yet");
                    at += 1;
                }
            }
        }
    }
}

fn lives(lease: &Lease) -> bool {
    matches!(lease.state, State::Running | State::Paused)
}

fn present_pause(lease: &Lease, now: SystemTime) -> Duration {
    let since = lease.paused_at;
    let present = since.and_then(|since| now.duration_since(since).ok());
    present.unwrap_or_default()
}

#[cfg(test)]
mod tests;
