//! Changes of a grant.

use std::{
    sync::{Arc, PoisonError},
    time::SystemTime,
};

use super::{Behalf, Entry, Issued, Registry, RegistryError, compile};
use crate::{
    session::{Authority, Event, PatchRequest, SessionKey, lifecycle::State},
    store::Batch,
};

impl Registry {
    /// Change a session's grant: one atomic policy generation.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn patch_at(
        &self,
        by: &Behalf,
        key: &SessionKey,
        patch: PatchRequest,
        now: SystemTime,
    ) -> Result<Issued, RegistryError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let _acting = self.acting(by.actor.clone());
        let before = self.entry_of(by, key)?;
        if before.record.lease.state == State::Stopped {
            return Err(RegistryError::Ended {
                id: key.id.to_string(),
                state: State::Stopped,
            });
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
        if patch.names_services() {
            entry.record.bounded_author = by.bounded;
        }
        let kept = compile::own_without(&before.record, &patch.replaces())?;
        entry.record.document = patch.apply(kept).to_json();
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
            && entry.record.bounded_author == before.record.bounded_author
            && entry.record.capabilities == before.record.capabilities;
        if same && before.policy.is_some() {
            return Ok(self.unchanged(before));
        }
        self.check_record(Some(&before.record), &entry.record)?;
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
}
