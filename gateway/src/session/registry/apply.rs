//! Create, act, patch: a step of the table, committed, then shown.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::SystemTime,
};

use super::{Act, Behalf, Entry, Issued, Registry, RegistryError, Sparse, compile, hashes, live};
use crate::{
    auth::{Handle, HandleHash},
    session::{
        Authority, Bundle, CreateRequest, Event, PolicyGeneration, Record, RegistryConfig, Session,
        SessionKey, bundle,
        lifecycle::{Action, Change, Effects, Lease, State, step},
    },
    store::Batch,
};

/// Handles of one generation; one more takes the place of one that is not in use.
const MAX_HANDLES: usize = 32;

/// A step, prepared: all that can fail before the commit has been done.
struct Prepared {
    entry: Entry,
    handle: Option<Handle>,
    bundle: Option<Bundle>,
    stale: Vec<String>,
    /// Handles that stop working.
    gone: Vec<HandleHash>,
}

/// A step that waits for its commit.
pub(in crate::session) struct Step {
    prepared: Prepared,
    effects: Effects,
    pub(in crate::session) events: Vec<Event>,
    /// What stays to be done if it cannot be made durable.
    withdrawal: Act,
}

impl Step {
    pub(in crate::session) fn record(&self) -> &Record {
        &self.prepared.entry.record
    }
}

impl Registry {
    /// Create a session, and begin its first generation unless the request says otherwise. The same request with the
    /// same id gives the same session and an equivalent fresh credential.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn create_at(
        &self,
        by: &Behalf,
        provider: &str,
        request: CreateRequest,
        now: SystemTime,
    ) -> Result<Issued, RegistryError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let _acting = self.acting(by.actor.clone());
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
            namespace: request.namespace().into(),
            provider: provider.into(),
            id: id.as_str().into(),
        };
        if self.entry(&key).is_ok() {
            let existing = self.settled(self.entry_of(by, &key)?, now)?;
            return self.replay(&existing, &digest, now);
        }
        let faults = request.times.faults(settings.times);
        if !faults.is_clean() {
            return Err(RegistryError::Faults(faults));
        }
        self.check_quota(&key.namespace, request.owner.as_deref())?;
        let asked = (&request.grant, by.author());
        let (capabilities, grant) = compile::asked(&config, provider, asked, now)?;
        let record = Record {
            namespace: request.namespace().to_owned(),
            provider: provider.into(),
            id,
            lease: Lease::new(request.times.over(settings.times)),
            created_at: now,
            ended_at: None,
            changed_at: now,
            policy_generation: 1,
            document: request.grant.document.to_json(),
            bounded_author: by.bounded,
            request: digest,
            scope: request.scope,
            owner: request.owner,
            queued: None,
            observed: None,
            sources: request.sources,
            client_key: request.client_key.map(|key| key.to_string()),
            handles: Vec::new(),
            bound: Vec::new(),
            bound_capabilities: Vec::new(),
            capabilities,
            active_at: now,
            bytes: 0,
            earlier_bytes: 0,
            dial_ports: BTreeMap::new(),
            reason: None,
        };
        self.check_record(None, &record)?;
        let created = Event::of(&record, "session.created", None, now);
        let policy = Arc::new(PolicyGeneration {
            number: 1,
            narrowed: 0,
            grant: Arc::new(grant),
        });
        let entry = Entry {
            record,
            session: None,
            policy: Some(policy),
            withdrawn: None,
            sparse: Sparse::default(),
        };
        if request.start {
            return self.start_or_queue(&entry, Some(created), now);
        }
        let _told = self.commit(Batch::default(), &[&entry.record], &[created])?;
        let view = self.view(&entry);
        self.put(Arc::new(entry));
        Ok(Issued {
            view,
            created: true,
            bundle: None,
            stale: Vec::new(),
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
            State::Running | State::Paused => {
                self.apply(existing, Act::new(Action::Start, now), None)
            }
            // A session that was reset since is not started by an old request; one that waits goes on waiting.
            State::Idle | State::Stopped => Ok(self.unchanged(existing)),
        }
    }

    /// Take an action on a session.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn act_at(
        &self,
        by: &Behalf,
        key: &SessionKey,
        action: Action,
        reason: Option<String>,
        now: SystemTime,
    ) -> Result<Issued, RegistryError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let _acting = self.acting(by.actor.clone());
        let entry = self.entry_of(by, key)?;
        let entry = match action {
            // It is this that was asked for, or more of it; what was withdrawn for good is no reset away from a start.
            Action::Stop => entry,
            Action::Reset | Action::Gone if !ends_for_good(&entry) => entry,
            _ => {
                self.settled(entry, now)?;
                // By what it is now: what was asked for on a condition is asked of that.
                self.entry_of(by, key)?
            }
        };
        match action {
            // Asked of what it is now: the generation before may have been found to be over just above.
            Action::Start => match self.second_left(&entry.record, now) {
                Some(left) => Err(RegistryError::TooSoon(left)),
                None => self.start_or_queue(&entry, None, now),
            },
            Action::Reset if entry.record.queued.is_some() => self.dequeue(&entry, reason, now),
            _ => {
                let act = Act {
                    reason,
                    ..Act::new(action, now)
                };
                self.apply(&entry, act, None)
            }
        }
    }

    /// The entry, once an end of its generation that was not durable is; by its clocks, too. Under the writer's lock.
    ///
    /// # Errors
    /// It still cannot be made so: what follows from it cannot be either.
    pub(in crate::session) fn settled(
        &self,
        entry: Arc<Entry>,
        now: SystemTime,
    ) -> Result<Arc<Entry>, RegistryError> {
        let over = entry.due().filter(|(at, _)| *at <= now);
        // Not on behalf of whoever happens to come by.
        let asked = entry.withdrawn.as_ref().and_then(|asked| asked.by.clone());
        let _acting = self.acting(asked);
        match (entry.withdrawn.clone(), over) {
            // It was over then, not now: paused time since burns nothing.
            (Some(act), _) => {
                let at = act.at.min(now);
                self.apply(&entry, Act { at, ..act }, None)?
            }
            // The sweep has not come by yet, and would find the same.
            (None, Some((_, which))) => {
                let act = Act::because(Action::Expire(which), which.as_str(), now);
                self.apply(&entry, act, None)?
            }
            (None, None) => return Ok(entry),
        };
        self.entry(&entry.record.key())
    }

    /// One step, under the writer's lock.
    pub(in crate::session) fn apply(
        &self,
        before: &Entry,
        act: Act,
        created: Option<Event>,
    ) -> Result<Issued, RegistryError> {
        let was_created = created.is_some();
        let Some(step) = self.plan(before, act, created)? else {
            return Ok(self.unchanged(before));
        };
        self.withdraw(before, &step);
        let _told = self.commit(Batch::default(), &[step.record()], &step.events)?;
        let (entry, bundle, stale) = self.show_step(step);
        Ok(Issued {
            view: self.view(&entry),
            created: was_created,
            bundle,
            stale,
        })
    }

    /// A step and what follows from it; `None` where nothing does.
    pub(in crate::session) fn plan(
        &self,
        before: &Entry,
        act: Act,
        created: Option<Event>,
    ) -> Result<Option<Step>, RegistryError> {
        let (action, now) = (act.action, act.at);
        let (lease, effects) = step(&before.record.lease, action, now)?;
        if effects == Effects::default() {
            return Ok(None);
        }
        let asked_for = matches!(
            action,
            Action::Start | Action::Resume | Action::Keepalive(_)
        );
        if let (true, Some(session)) = (asked_for, &before.session) {
            // Whoever asks for it means to use it: the idle clock begins anew.
            session.touch(now);
        }
        let mut prepared = self.prepare(before, lease, effects, now)?;
        let record = &mut prepared.entry.record;
        if effects.change.is_some() {
            record.reason.clone_from(&act.reason);
        }
        let told =
            effects.change.is_some() || prepared.entry.sparse.due(effects.event.is_some(), now);
        let record = &prepared.entry.record;
        let name = effects.event.unwrap_or("session.credentialIssued");
        let event = told.then(|| Event::of(record, name, act.reason.clone(), now));
        Ok(Some(Step {
            prepared,
            effects,
            events: created.into_iter().chain(event).collect(),
            withdrawal: Act {
                by: self.actor().clone(),
                ..act
            },
        }))
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
        if record.lease.state != State::Idle {
            record.queued = None;
        }
        if let Some(session) = &before.session {
            record.bytes = session.budget().bytes();
            record.active_at = session.budget().last_activity();
        }
        let mut gone = Vec::new();
        if matches!(effects.change, Some(Change::Begin | Change::End(_))) {
            gone = hashes(record);
            record.handles.clear();
            if let Some(Change::End(_)) = effects.change {
                record.ended_at = Some(now);
            }
            record.earlier_bytes = record.earlier_bytes.saturating_add(record.bytes);
            record.bytes = 0;
            record.dial_ports.clear();
        }
        if matches!(effects.change, Some(Change::Begin | Change::Live)) && entry.policy.is_none() {
            entry.policy = Some(compile::policy(&config, record)?);
        }
        let (mut handle, mut bundle, mut stale) = (None, None, Vec::new());
        if effects.credential {
            let policy = match &entry.policy {
                Some(policy) => Some(policy.clone()),
                None => match compile::policy(&config, record) {
                    Ok(policy) => Some(policy),
                    // The generation goes on as it was, paused: its credential opens nothing before it is resumed.
                    Err(_) if effects.change.is_none() => None,
                    Err(error) => return Err(error),
                },
            };
            let names: Vec<String> = match &policy {
                Some(policy) => {
                    let services = policy.grant.services();
                    services.map(|(name, _)| name.to_string()).collect()
                }
                None => record.bound.clone(),
            };
            let enabled = record.capabilities.iter().filter(|binding| binding.enabled);
            let capabilities: Vec<String> = enabled.map(|binding| binding.name.clone()).collect();
            if effects.change.is_none() {
                stale = differing("service", &record.bound, &names);
                stale.extend(differing(
                    "capability",
                    &record.bound_capabilities,
                    &capabilities,
                ));
                stale.extend(faulty(&config, record, &stale));
            } else {
                // What the sandbox was begun with: a lost answer must not make it forget what it has not.
                record.bound.clone_from(&names);
                record.bound_capabilities = capabilities;
            }
            let fresh = Handle::generate()?;
            if record.handles.len() >= MAX_HANDLES {
                let spare = self.index.spare(&hashes(record), now);
                let spare = spare.ok_or(RegistryError::HandlesInUse { limit: MAX_HANDLES })?;
                let text = spare.to_hex();
                record.handles.retain(|handle| *handle != text);
                gone.push(spare);
            }
            record.handles.push(fresh.hash.to_hex());
            bundle = Some(bundle::make(
                &config.bundle,
                &self.keys,
                record,
                &names,
                &fresh,
                now,
            )?);
            handle = Some(fresh);
        }
        if effects.change == Some(Change::Begin)
            && let Some(policy) = &entry.policy
        {
            let (key, owner) = (record.key(), self.owner(record));
            let session = Session::new(key, record.lease.generation, policy.clone(), Some(owner));
            let session = session.owned_by(record.owner.as_deref());
            let session = session.after(record.earlier_bytes);
            let session = session.born_at(record.born());
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
    pub(in crate::session) fn show_step(
        &self,
        step: Step,
    ) -> (Arc<Entry>, Option<Bundle>, Vec<String>) {
        let Step {
            prepared, effects, ..
        } = step;
        let (mut entry, handle, gone) = (prepared.entry, prepared.handle, prepared.gone);
        let key = entry.record.key();
        if let Some(session) = &entry.session {
            session.set_times(&entry.record.lease);
        }
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
            (Some(Change::End(denial)), session, _) => {
                if let Some(session) = session {
                    session.publish(Authority::Ended(denial));
                }
                self.index.end(&key, &gone);
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
        if effects.change.is_some() {
            entry.withdrawn = None;
        }
        if entry.record.lease.state == State::Stopped {
            // It never goes on: who asks what it was granted has that made anew.
            entry.policy = None;
        }
        let entry = Arc::new(entry);
        self.put(entry.clone());
        (entry, prepared.bundle, prepared.stale)
    }

    /// An end takes effect here and now, before the store is asked, and stays so where it cannot be made durable: fail closed.
    /// So does the pause of a session whose time is over. The record keeps its state until that is settled: by the commit that
    /// follows, by the same action once more, or by the sweep.
    pub(in crate::session) fn withdraw(&self, before: &Entry, step: &Step) {
        let mut session = before.session.clone();
        match (step.effects.change, step.withdrawal.action, &before.session) {
            (Some(Change::End(denial)), _, living) => {
                if let Some(session) = living {
                    session.publish(Authority::Ended(denial));
                    self.index.end(session.key(), &hashes(&before.record));
                }
                session = None;
            }
            (Some(Change::Pause { hold }), Action::Expire(_), Some(living)) => {
                if let Authority::Live(policy) = living.authority() {
                    living.publish(Authority::Paused { hold, policy });
                }
            }
            // Whoever asked for it is told that it did not come to be.
            (Some(_) | None, _, _) => return,
        }
        self.put_quietly(Arc::new(Entry {
            session,
            withdrawn: Some(step.withdrawal.clone()),
            ..before.clone()
        }));
    }

    pub(super) fn unchanged(&self, entry: &Entry) -> Issued {
        Issued {
            view: self.view(entry),
            created: false,
            bundle: None,
            stale: Vec::new(),
        }
    }
}

/// Capabilities that the configuration no longer has as the session is bound to them.
fn faulty(config: &RegistryConfig, record: &Record, told: &[String]) -> Vec<String> {
    let enabled = record.capabilities.iter().filter(|binding| binding.enabled);
    let faulty = enabled.filter(|binding| binding.layer(config).is_err());
    let named = faulty.map(|binding| format!("capability:{}", binding.name));
    named.filter(|name| !told.contains(name)).collect()
}

/// What stands in one list and not in the other.
fn differing(kind: &str, before: &[String], after: &[String]) -> Vec<String> {
    let missing = |list: &[String], name: &String| !list.contains(name);
    let gone = before.iter().filter(|name| missing(after, name));
    let new = after.iter().filter(|name| missing(before, name));
    gone.chain(new)
        .map(|name| format!("{kind}:{name}"))
        .collect()
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

/// Did it end by a stop, or by its clocks, that the store does not know of yet?
fn ends_for_good(entry: &Entry) -> bool {
    let act = entry.withdrawn.as_ref().map(|act| act.action);
    matches!(act, Some(Action::Stop | Action::Expire(_)))
}
