//! Create, act, patch: a step of the table, committed, then shown.

use std::{
    sync::{Arc, PoisonError},
    time::SystemTime,
};

use super::{Entry, Issued, Registry, RegistryError, compile, hashes, live};
use crate::{
    auth::{Handle, HandleHash},
    session::{
        Authority, Bundle, CreateRequest, Event, PolicyGeneration, Record, Session, SessionKey,
        bundle,
        lifecycle::{Action, Change, Effects, Lease, State, step},
        view,
    },
    store::Batch,
};

/// Handles of one generation; with one more, the oldest stops working.
const MAX_HANDLES: usize = 32;

/// A step, prepared: all that can fail before the commit has been done.
struct Prepared {
    entry: Entry,
    handle: Option<Handle>,
    bundle: Option<Bundle>,
    stale: bool,
    /// Handles that stop working.
    gone: Vec<HandleHash>,
}

impl Registry {
    pub(in crate::session) fn create_at(
        &self,
        provider: &str,
        request: CreateRequest,
        now: SystemTime,
    ) -> Result<Issued, RegistryError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let config = self.config();
        let settings = config
            .providers
            .get(provider)
            .ok_or_else(|| RegistryError::UnknownProvider(provider.into()))?;
        let digest = request.digest();
        let id = match &request.id {
            Some(id) => id.clone(),
            None => random_id()?,
        };
        let key = SessionKey {
            namespace: request.namespace.as_str().into(),
            provider: provider.into(),
            id: id.as_str().into(),
        };
        if let Ok(existing) = self.entry(&key) {
            return self.replay(&existing, &digest, now);
        }
        let faults = request.times.faults(settings.times);
        if !faults.is_clean() {
            return Err(RegistryError::Faults(faults));
        }
        self.check_quota(&key.namespace)?;
        let (_, grant) = compile::grant(&config, provider, &request.document)?;
        let record = Record {
            namespace: request.namespace.clone(),
            provider: provider.into(),
            id,
            lease: Lease::new(request.times.over(settings.times)),
            created_at: now,
            changed_at: now,
            policy_generation: 1,
            document: request.document.to_json(),
            request: digest,
            scope: request.scope,
            sources: request.sources,
            handles: Vec::new(),
            bound: Vec::new(),
            active_at: now,
            bytes: 0,
            reason: None,
        };
        let created = Event::of(&record, "session.created", None, now);
        let policy = Arc::new(PolicyGeneration {
            number: 1,
            grant: Arc::new(grant),
        });
        let entry = Entry {
            record,
            session: None,
            policy: Some(policy),
        };
        if request.start {
            return self.apply(&entry, Action::Start, None, Some(created), now);
        }
        let _told = self.commit(Batch::default(), &[&entry.record], &[created])?;
        let view = view::session(&config, &entry);
        self.put(Arc::new(entry));
        Ok(Issued {
            view,
            created: true,
            bundle: None,
            stale: false,
        })
    }

    /// The same request again: a lost answer never loses a session.
    fn replay(
        &self,
        existing: &Arc<Entry>,
        digest: &str,
        now: SystemTime,
    ) -> Result<Issued, RegistryError> {
        let record = &existing.record;
        let state = record.lease.state;
        if record.request != digest || state == State::Stopped {
            return Err(RegistryError::Taken {
                id: record.id.clone(),
                state,
            });
        }
        match state {
            State::Running | State::Paused => self.apply(existing, Action::Start, None, None, now),
            // A session that was reset since is not started by an old request.
            State::Idle | State::Stopped => Ok(self.unchanged(existing)),
        }
    }

    fn check_quota(&self, namespace: &str) -> Result<(), RegistryError> {
        let Some(limit) = self.config().max_sessions else {
            return Ok(());
        };
        let counts = |entry: &&Arc<Entry>| {
            entry.record.namespace == namespace && entry.record.lease.state != State::Stopped
        };
        let in_use = self.all().iter().filter(counts).count();
        if in_use < limit {
            Ok(())
        } else {
            Err(RegistryError::Quota { in_use, limit })
        }
    }

    pub(in crate::session) fn act_at(
        &self,
        key: &SessionKey,
        action: Action,
        reason: Option<String>,
        now: SystemTime,
    ) -> Result<Issued, RegistryError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = self.entry(key)?;
        self.apply(&entry, action, reason, None, now)
    }

    /// One step, under the writer's lock.
    pub(in crate::session) fn apply(
        &self,
        before: &Entry,
        action: Action,
        reason: Option<String>,
        created: Option<Event>,
        now: SystemTime,
    ) -> Result<Issued, RegistryError> {
        let (lease, effects) = step(&before.record.lease, action, now)?;
        if effects == Effects::default() {
            return Ok(self.unchanged(before));
        }
        let mut prepared = self.prepare(before, lease, effects, now)?;
        let record = &mut prepared.entry.record;
        if effects.change.is_some() {
            record.reason.clone_from(&reason);
        }
        let name = effects.event.unwrap_or("session.credentialIssued");
        let was_created = created.is_some();
        let events: Vec<Event> = created
            .into_iter()
            .chain([Event::of(record, name, reason, now)])
            .collect();
        let _told = self
            .commit(Batch::default(), &[record], &events)
            .inspect_err(|_| withdraw(self, before, effects))?;
        let entry = self.show_step(
            prepared.entry,
            effects,
            prepared.handle.as_ref(),
            &prepared.gone,
        );
        let view = view::session(&self.config(), &entry);
        Ok(Issued {
            view,
            created: was_created,
            bundle: prepared.bundle,
            stale: prepared.stale,
        })
    }

    fn prepare(
        &self,
        before: &Entry,
        lease: Lease,
        effects: Effects,
        now: SystemTime,
    ) -> Result<Prepared, RegistryError> {
        let config = self.config();
        let mut entry = before.clone();
        let record = &mut entry.record;
        record.lease = lease;
        record.changed_at = now;
        let mut gone = Vec::new();
        if matches!(effects.change, Some(Change::Begin | Change::End(_))) {
            gone = hashes(record);
            record.handles.clear();
            record.bytes = 0;
        }
        if matches!(effects.change, Some(Change::Begin | Change::Live)) && entry.policy.is_none() {
            entry.policy = Some(compile::policy(&config, record)?);
        }
        let (mut handle, mut bundle, mut stale) = (None, None, false);
        if effects.credential {
            let policy = match &entry.policy {
                Some(policy) => policy.clone(),
                None => compile::policy(&config, record)?,
            };
            let names: Vec<String> = policy
                .grant
                .services()
                .map(|(name, _)| name.to_string())
                .collect();
            stale = effects.change.is_none() && names != record.bound;
            record.bound = names;
            let fresh = Handle::generate()?;
            record.handles.push(fresh.hash.to_hex());
            if record.handles.len() > MAX_HANDLES {
                gone.extend(HandleHash::from_hex(&record.handles.remove(0)));
            }
            bundle = Some(bundle::make(
                &config.bundle,
                &self.keys,
                record,
                &fresh,
                now,
            )?);
            handle = Some(fresh);
        }
        if effects.change == Some(Change::Begin)
            && let Some(policy) = &entry.policy
        {
            let key = record.key();
            let owner = self.owner(&key.namespace);
            let session = Session::new(key, record.lease.generation, policy.clone(), Some(owner));
            session.touch(now);
            entry.session = Some(Arc::new(session));
        }
        Ok(Prepared {
            entry,
            handle,
            bundle,
            stale,
            gone,
        })
    }

    /// The step is durable: show it to the data path and to readers.
    fn show_step(
        &self,
        mut entry: Entry,
        effects: Effects,
        handle: Option<&Handle>,
        gone: &[HandleHash],
    ) -> Arc<Entry> {
        let key = entry.record.key();
        match (effects.change, &entry.session, &entry.policy) {
            (Some(Change::Begin), Some(session), _) => {
                self.index
                    .live(live(session, &entry.record), &hashes(&entry.record));
            }
            (Some(Change::Live), Some(session), Some(policy)) => {
                session.publish(Authority::Live(policy.clone()))
            }
            (Some(Change::Pause { hold }), Some(session), Some(policy)) => {
                session.publish(Authority::Paused {
                    hold,
                    policy: policy.clone(),
                });
            }
            (Some(Change::Live), None, Some(policy)) => {
                // It was taken up paused, with a grant that did not compile then.
                let owner = self.owner(&key.namespace);
                let session = Arc::new(Session::new(
                    key,
                    entry.record.lease.generation,
                    policy.clone(),
                    Some(owner),
                ));
                session
                    .budget()
                    .restore(entry.record.bytes, entry.record.changed_at);
                self.index
                    .live(live(&session, &entry.record), &hashes(&entry.record));
                entry.session = Some(session);
            }
            (Some(Change::End(denial)), session, _) => {
                if let Some(session) = session {
                    session.publish(Authority::Ended(denial));
                }
                self.index.end(&key, gone);
                entry.session = None;
            }
            (None, Some(_), _) => {
                if let Some(handle) = handle {
                    self.index
                        .add_handle(&key, handle.hash, gone.first().copied());
                }
            }
            (Some(_) | None, _, _) => {}
        }
        let entry = Arc::new(entry);
        self.put(entry.clone());
        entry
    }

    pub(super) fn unchanged(&self, entry: &Entry) -> Issued {
        Issued {
            view: view::session(&self.config(), entry),
            created: false,
            bundle: None,
            stale: false,
        }
    }
}

/// A withdrawal that could not be made durable still takes effect here and now: fail closed. The record keeps its
/// state, so that the same action can be taken again.
fn withdraw(registry: &Registry, before: &Entry, effects: Effects) {
    if let (Some(Change::End(denial)), Some(session)) = (effects.change, &before.session) {
        session.publish(Authority::Ended(denial));
        registry.index.end(session.key(), &hashes(&before.record));
    }
}

/// 16 characters of `[a-z2-7]`, with a letter first.
fn random_id() -> Result<String, RegistryError> {
    let mut random = [0; 10];
    getrandom::fill(&mut random)?;
    Ok(format!(
        "s{}",
        data_encoding::BASE32_NOPAD.encode(&random).to_lowercase()
    ))
}
