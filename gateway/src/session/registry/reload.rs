//! A new configuration, and every living session judged by it.

use std::{
    sync::{Arc, PoisonError},
    time::SystemTime,
};

use super::{Entry, Registry, RegistryError, compile};
use crate::{
    session::{
        Event, RegistryConfig,
        lifecycle::{Action, State},
    },
    store::Batch,
};

impl Registry {
    pub(in crate::session) fn replace_config_at(
        &self,
        config: RegistryConfig,
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
                Err(error) => broken.push((entry, error)),
            }
        }
        let events: Vec<Event> = changed
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
        let records: Vec<_> = changed.iter().map(|e| &e.record).collect();
        let heard = self.commit(Batch::default(), &records, &events)?;
        self.config.store(Arc::new(config));
        self.limit_owners();
        let mut notes = vec![format!(
            "{} session(s) judged by the new configuration",
            changed.len()
        )];
        for entry in changed {
            self.show_policy(entry);
        }
        drop(heard);
        for (entry, error) in broken {
            let what = match entry.record.lease.state {
                State::Running => "was paused",
                _ => "cannot go on",
            };
            notes.push(format!(
                "session {} {what}: {}",
                entry.record.id,
                told(&error)
            ));
            let without = Entry {
                policy: None,
                ..(*entry).clone()
            };
            if without.record.lease.state == State::Running {
                self.pause_broken(&entry, &error, now)?;
            }
            // It must be compiled again before it goes on.
            if let Ok(paused) = self.entry(&entry.record.key()) {
                self.put(Arc::new(Entry {
                    policy: None,
                    ..(*paused).clone()
                }));
            }
        }
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
        self.apply(
            entry,
            Action::Pause,
            Some(format!("policy: {}", told(error))),
            None,
            now,
        )?;
        Ok(())
    }
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

fn told(error: &RegistryError) -> String {
    match error {
        RegistryError::Faults(faults) => {
            let all: Vec<String> = faults
                .errors
                .iter()
                .map(|fault| fault.message.clone())
                .collect();
            all.join("; ")
        }
        other => other.to_string(),
    }
}
