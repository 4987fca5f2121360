//! A new configuration, and every living session judged by it.

use std::{
    sync::{Arc, PoisonError},
    time::SystemTime,
};

use super::{Act, Entry, Registry, RegistryError, compile};
use crate::{
    session::{
        Authority, Event, PolicyGeneration, RegistryConfig,
        lifecycle::{Action, OnPause, State, step},
    },
    store::Batch,
};

impl Registry {
    pub(in crate::session) fn replace_config_at(
        &self,
        config: RegistryConfig,
        switch: impl FnOnce(),
        now: SystemTime,
    ) -> Result<Vec<String>, RegistryError> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.config();
        let (mut changed, mut broken) = (Vec::new(), Vec::new());
        for entry in self.all() {
            // What was withdrawn is not given back by being judged anew.
            let entry = self.settled(entry, now)?;
            if entry.record.lease.state == State::Stopped || !affects(&old, &config, &entry) {
                continue;
            }
            let mut next = (*entry).clone();
            next.record.policy_generation += 1;
            match compile::policy(&config, &next.record) {
                Ok(policy) => {
                    next.policy = Some(policy);
                    next.record.changed_at = now;
                    changed.push(next);
                }
                Err(error) => broken.push((withheld(next, &error, now)?, error)),
            }
        }
        // One commit: what the new configuration forbids and what it only changes hold together, or neither does.
        let mut events: Vec<Event> = changed
            .iter()
            .map(|e| {
                Event::of(
                    &e.record,
                    "session.policyChanged",
                    Some("reload".into()),
                    now,
                )
            })
            .collect();
        events.extend(broken.iter().filter_map(|(one, _)| one.event.clone()));
        let records = changed.iter().map(|entry| &entry.record);
        let records = records.chain(broken.iter().map(|(one, _)| &one.entry.record));
        let records: Vec<_> = records.collect();
        let heard = self.commit(Batch::default(), &records, &events)?;
        self.config.store(Arc::new(config));
        switch();
        self.limit_owners();
        let mut notes = vec![format!(
            "{} session(s) have another policy by it",
            changed.len()
        )];
        for entry in changed {
            self.show_policy(entry);
        }
        for (one, error) in broken {
            let id = &one.entry.record.id;
            let what = if one.event.is_some() {
                tracing::warn!(session = %one.entry.record.row_key(), "paused: the configuration no longer allows its grant");
                "was paused"
            } else {
                "cannot go on"
            };
            notes.push(format!("session {id} {what}: {}", error.told()));
            if let Some(session) = &one.entry.session {
                session.set_times(&one.entry.record.lease);
                let (hold, policy) = (one.hold, one.nothing);
                session.publish(Authority::Paused { hold, policy });
            }
            self.put(Arc::new(one.entry));
        }
        drop(heard);
        Ok(notes)
    }

    /// The configuration no longer allows what this session was given: it is paused, loudly, and not narrowed
    /// silently. `resume` says what is wrong until either side changes.
    pub(super) fn pause_broken(
        &self,
        entry: &Entry,
        error: &RegistryError,
        now: SystemTime,
    ) -> Result<(), RegistryError> {
        tracing::warn!(session = %entry.record.row_key(), "paused: the configuration no longer allows its grant");
        let act = Act::because(Action::Pause, format!("policy: {}", error.told()), now);
        self.apply(entry, act, None)?;
        Ok(())
    }
}

/// A session whose grant the new configuration does not allow, before that is durable.
struct Withheld {
    /// It must be compiled again before it goes on.
    entry: Entry,
    /// Where it was running.
    event: Option<Event>,
    /// Does its pause hold what is open? Not what is forbidden now: nothing is allowed meanwhile.
    hold: bool,
    nothing: Arc<PolicyGeneration>,
}

fn withheld(
    mut entry: Entry,
    error: &RegistryError,
    now: SystemTime,
) -> Result<Withheld, RegistryError> {
    entry.policy = None;
    let record = &mut entry.record;
    let mut event = None;
    if record.lease.state == State::Running {
        let (lease, effects) = step(&record.lease, Action::Pause, now)?;
        let reason = Some(format!("policy: {}", error.told()));
        record.lease = lease;
        record.changed_at = now;
        record.reason.clone_from(&reason);
        if let Some(session) = &entry.session {
            record.bytes = session.budget().bytes();
            record.active_at = session.budget().last_activity();
        }
        event = effects
            .event
            .map(|name| Event::of(record, name, reason, now));
    }
    Ok(Withheld {
        hold: record.lease.times.on_pause == OnPause::Hold,
        nothing: compile::nothing(record)?,
        event,
        entry,
    })
}

/// Can the change of configuration change this session's grant?
fn affects(old: &RegistryConfig, new: &RegistryConfig, entry: &Entry) -> bool {
    let provider = &entry.record.provider;
    let bound = entry.record.capabilities.iter();
    let capabilities = bound
        .filter(|binding| binding.enabled)
        .all(|binding| old.capabilities.get(&binding.name) == new.capabilities.get(&binding.name));
    let same = entry.policy.is_some()
        && old.providers.get(provider) == new.providers.get(provider)
        && capabilities
        && old.catalogue == new.catalogue
        && old.own_listeners == new.own_listeners
        && old.own_sockets == new.own_sockets;
    !same
}
