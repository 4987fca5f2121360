//! Changes of a grant, and of single credentials.

use std::{
    sync::{Arc, PoisonError},
    time::SystemTime,
};

use super::{Entry, Issued, Registry, RegistryError, Unsaved, compile};
use crate::{
    auth::{HandleHash, token_ids},
    session::{Authority, Event, PatchRequest, SessionKey, lifecycle::State},
    store::Batch,
};

impl Registry {
    pub(in crate::session) fn patch_at(
        &self,
        key: &SessionKey,
        patch: PatchRequest,
        now: SystemTime,
    ) -> Result<Issued, RegistryError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.entry(key)?;
        if before.record.lease.state == State::Stopped {
            return Err(RegistryError::Ended {
                id: key.id.to_string(),
                state: State::Stopped,
            });
        }
        let etag = before.record.etag();
        if !patch.if_match.is_empty() && !patch.if_match.contains(&etag) {
            return Err(RegistryError::Changed { etag });
        }
        let mut entry = (*before).clone();
        if let Some(asked) = patch.capabilities() {
            let (old, config) = (&before.record.capabilities, self.config());
            let same = |name: &str| old.iter().find(|binding| binding.name == name);
            entry.record.capabilities = asked
                .iter()
                .map(|asked| asked.over(same(&asked.name), &config, now))
                .collect::<Result<_, _>>()?;
        }
        entry.record.document = patch.apply(compile::own(&before.record)?).to_json();
        self.change_grant(&before, entry, None, now)
    }

    /// A changed record, compiled, committed and shown as one policy generation. Under the writer's lock.
    pub(super) fn change_grant(
        &self,
        before: &Entry,
        mut entry: Entry,
        reason: Option<String>,
        now: SystemTime,
    ) -> Result<Issued, RegistryError> {
        let same = entry.record.document == before.record.document
            && entry.record.capabilities == before.record.capabilities;
        if same && before.policy.is_some() {
            return Ok(self.unchanged(before));
        }
        entry.record.policy_generation += 1;
        entry.record.changed_at = now;
        entry.policy = Some(compile::policy(&self.config(), &entry.record)?);
        let event = Event::of(&entry.record, "session.policyChanged", reason, now);
        let _told = self.commit(Batch::default(), &[&entry.record], &[event])?;
        let entry = self.show_policy(entry);
        Ok(Issued {
            view: self.view(&entry),
            created: false,
            bundle: None,
            stale: Vec::new(),
        })
    }

    /// A new policy generation is durable: live tunnels are judged by it from now on.
    pub(super) fn show_policy(&self, entry: Entry) -> Arc<Entry> {
        if let (Some(session), Some(policy)) = (&entry.session, &entry.policy) {
            let authority = match session.authority() {
                Authority::Live(_) => Authority::Live(policy.clone()),
                Authority::Paused { hold, .. } => Authority::Paused {
                    hold,
                    policy: policy.clone(),
                },
                ended @ Authority::Ended(_) => ended,
            };
            session.publish(authority);
        }
        let entry = Arc::new(entry);
        self.put(entry.clone());
        entry
    }

    pub(in crate::session) fn revoke_credential_at(
        &self,
        credential: &str,
        now: SystemTime,
    ) -> Result<bool, RegistryError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hash) = HandleHash::of(credential) {
            return self.revoke_handle(hash, now);
        }
        let Some((ids, until)) = token_ids(&self.keys, credential, now) else {
            return Ok(false);
        };
        let told = ids.first().map(|id| format!("token {id}"));
        let event = Event::bare("credential.revoked", told, now);
        let batch = Batch {
            revoke: ids.iter().map(|id| (id.clone(), until)).collect(),
            ..Batch::default()
        };
        let done = self.commit(batch.clone(), &[], std::slice::from_ref(&event));
        // Durable or not, it holds from now on.
        let mut revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        revoked.extend(ids.iter().map(|id| (id.clone(), until)));
        drop(revoked);
        for id in ids {
            self.index.revoke(id);
        }
        let _told = done.inspect_err(|_| {
            self.unsaved().push(Unsaved {
                batch,
                event,
                key: None,
            })
        })?;
        Ok(true)
    }

    fn revoke_handle(&self, hash: HandleHash, now: SystemTime) -> Result<bool, RegistryError> {
        let Some(key) = self.session_of_handle(&hash) else {
            return Ok(false);
        };
        let mut entry = (*self.entry(&key)?).clone();
        let text = hash.to_hex();
        entry.record.handles.retain(|handle| *handle != text);
        let told = Some("handle".into());
        let event = Event::of(&entry.record, "credential.revoked", told, now);
        let events = std::slice::from_ref(&event);
        let done = self.commit(Batch::default(), &[&entry.record], events);
        self.index.remove_handle(&hash);
        self.put(Arc::new(entry));
        let _told = done.inspect_err(|_| {
            let batch = Batch::default();
            let key = Some(key);
            self.unsaved().push(Unsaved { batch, event, key });
        })?;
        Ok(true)
    }

    /// Whose handle it is, of a session that does not live right now too.
    pub(super) fn session_of_handle(&self, hash: &HandleHash) -> Option<SessionKey> {
        if let Some(live) = self.index.handle(hash) {
            return Some(live.session.key().clone());
        }
        let text = hash.to_hex();
        let all = self.all();
        let owner = all
            .iter()
            .find(|entry| entry.record.handles.contains(&text));
        owner.map(|entry| entry.record.key())
    }

    /// Revocations that hold and are not durable: once more.
    pub(in crate::session) fn save_revocations(&self) {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = std::mem::take(&mut *self.unsaved());
        for one in waiting {
            let entry = one.key.as_ref().and_then(|key| self.entry(key).ok());
            let records: Vec<_> = entry.iter().map(|entry| &entry.record).collect();
            let events = std::slice::from_ref(&one.event);
            if let Err(error) = self.commit(one.batch.clone(), &records, events) {
                tracing::error!(%error, "a revocation holds, and cannot be recorded yet");
                self.unsaved().push(one);
            }
        }
    }
}
