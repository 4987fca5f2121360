//! What is counted over all sessions, kept as they change: a create or a start looks at what it needs, not at everything.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, PoisonError},
};

use super::{
    Registry,
    quota::{Owner, owners},
};
use crate::session::{Record, SessionKey, lifecycle::State};

/// Namespace, provider, owner where there is one, label: no owner takes the places of another's label.
type Scope = (String, String, Option<String>, String);

/// Changed where an entry is put or removed, and nowhere else.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Sessions of a namespace, and of an owner within it.
    owned: HashMap<Owner, Count>,
    /// Scopes in which something lives or waits.
    scopes: HashMap<Scope, Line>,
}

/// How many sessions somebody has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Count {
    /// Those that are not stopped.
    pub(super) sessions: usize,
    /// Those that there is a record of, each by what it asks for.
    pub(super) records: usize,
}

/// What lives in a scope, and what waits for a place in it.
#[derive(Debug, Default)]
struct Line {
    in_use: usize,
    /// Number of the ticket and id, the lowest number first.
    waiting: VecDeque<(u64, Arc<str>)>,
}

/// A scope, as one of its sessions finds it that does not live.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Standing {
    /// Generations that live.
    pub(super) in_use: usize,
    /// Starts that wait.
    pub(super) waiting: usize,
    /// Those of them that are served before this one.
    pub(super) ahead: usize,
    /// The number of the last ticket; 0 where none waits.
    pub(super) last: u64,
}

impl Line {
    /// How many tickets are below this one: the place at which it stands.
    fn below(&self, number: u64) -> usize {
        self.waiting.partition_point(|(other, _)| *other < number)
    }

    fn is_empty(&self) -> bool {
        self.in_use == 0 && self.waiting.is_empty()
    }
}

impl Tally {
    /// One entry in the place of another.
    pub(super) fn replace(&mut self, old: Option<&Record>, new: Option<&Record>) {
        if let Some(old) = old {
            self.take(old);
        }
        if let Some(new) = new {
            self.add(new);
        }
    }

    fn add(&mut self, record: &Record) {
        for owner in owners(record) {
            let count = self.owned.entry(owner).or_default();
            count.records += record.weight();
            count.sessions += usize::from(!is_stopped(record));
        }
        let Some(scope) = scope(record).filter(|_| counts(record)) else {
            return;
        };
        let line = self.scopes.entry(scope).or_default();
        if lives(record) {
            line.in_use += 1;
        }
        if let Some(ticket) = record.queued {
            let at = line.below(ticket.number);
            let one = (ticket.number, record.id.as_str().into());
            line.waiting.insert(at, one);
        }
    }

    fn take(&mut self, record: &Record) {
        for owner in owners(record) {
            if let Some(count) = self.owned.get_mut(&owner) {
                count.records -= record.weight();
                count.sessions -= usize::from(!is_stopped(record));
                if *count == Count::default() {
                    self.owned.remove(&owner);
                }
            }
        }
        let Some(scope) = scope(record).filter(|_| counts(record)) else {
            return;
        };
        let Some(line) = self.scopes.get_mut(&scope) else {
            return;
        };
        if lives(record) {
            line.in_use -= 1;
        }
        if let Some(ticket) = record.queued {
            let from = line.below(ticket.number);
            let same = line
                .waiting
                .range(from..)
                .position(|(_, id)| **id == *record.id);
            if let Some(after) = same {
                line.waiting.remove(from + after);
            }
        }
        if line.is_empty() {
            self.scopes.remove(&scope);
        }
    }

    /// The session's scope as it is.
    fn standing(&self, record: &Record) -> Standing {
        let Some(line) = scope(record).and_then(|scope| self.scopes.get(&scope)) else {
            return Standing::default();
        };
        let waiting = line.waiting.len();
        let own = record.queued.map(|ticket| line.below(ticket.number));
        Standing {
            in_use: line.in_use,
            waiting,
            ahead: own.unwrap_or(waiting),
            last: line.waiting.back().map_or(0, |(number, _)| *number),
        }
    }

    /// Whose turn it is, in order of the tickets: of each scope as many as it has places. `concurrency` is a provider's;
    /// `None` = no bound.
    fn next(&self, concurrency: impl Fn(&str) -> Option<usize>) -> Vec<SessionKey> {
        let mut next: Vec<(u64, SessionKey)> = Vec::new();
        for ((namespace, provider, ..), line) in &self.scopes {
            if line.waiting.is_empty() {
                continue;
            }
            let free = concurrency(provider).map(|most| most.saturating_sub(line.in_use));
            let first = line.waiting.iter().take(free.unwrap_or(usize::MAX));
            next.extend(first.map(|(number, id)| {
                let key = SessionKey {
                    namespace: namespace.as_str().into(),
                    provider: provider.as_str().into(),
                    id: id.clone(),
                };
                (*number, key)
            }));
        }
        next.sort();
        next.into_iter().map(|(_, key)| key).collect()
    }
}

fn is_stopped(record: &Record) -> bool {
    record.lease.state == State::Stopped
}

fn scope(record: &Record) -> Option<Scope> {
    let label = record.scope.clone()?;
    let (namespace, provider) = (record.namespace.clone(), record.provider.clone());
    Some((namespace, provider, record.owner.clone(), label))
}

fn lives(record: &Record) -> bool {
    matches!(record.lease.state, State::Running | State::Paused)
}

/// Has it a place in its scope, or waits for one?
fn counts(record: &Record) -> bool {
    lives(record) || record.queued.is_some()
}

impl Registry {
    /// How many sessions a namespace has, or an owner within it.
    pub(super) fn held(&self, owner: &Owner) -> Count {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.owned.get(owner).copied().unwrap_or_default()
    }

    /// The session's scope as it is.
    pub(super) fn standing(&self, record: &Record) -> Standing {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.standing(record)
    }

    /// Sessions whose start waits and has a place now, in order.
    pub(super) fn next_in_line(&self) -> Vec<SessionKey> {
        let config = self.config();
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.next(|provider| Some(config.providers.get(provider)?.scopes?.concurrency))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::time::SystemTime;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::session::{
        Scopes, Ticket,
        lifecycle::{Action, Lease, Times},
        testing::{Fixture, config, request},
    };

    fn record(id: &str, scope: &str, state: State, ticket: Option<u64>) -> Record {
        let epoch = SystemTime::UNIX_EPOCH;
        Record {
            namespace: "default".into(),
            provider: "local".into(),
            id: id.into(),
            lease: Lease {
                state,
                ..Lease::new(Times::default())
            },
            created_at: epoch,
            ended_at: None,
            changed_at: epoch,
            policy_generation: 1,
            document: "{}".into(),
            bounded_author: false,
            request: String::new(),
            scope: Some(scope.into()),
            sources: Vec::new(),
            client_key: None,
            handles: Vec::new(),
            bound: Vec::new(),
            bound_capabilities: Vec::new(),
            owner: None,
            queued: ticket.map(|number| Ticket {
                number,
                since: epoch,
            }),
            observed: None,
            capabilities: Vec::new(),
            active_at: epoch,
            bytes: 0,
            earlier_bytes: 0,
            dial_ports: std::collections::BTreeMap::new(),
            reason: None,
        }
    }

    #[test]
    fn of_hundreds_that_wait_those_with_a_place_are_looked_at() {
        let mut tally = Tally::default();
        // The last to be put has the first ticket.
        for ticket in (1..=500).rev() {
            for scope in ["a", "b"] {
                let waits = record(
                    &format!("{scope}{ticket}"),
                    scope,
                    State::Idle,
                    Some(ticket),
                );
                tally.replace(None, Some(&waits));
            }
        }
        let lives = record("lives", "a", State::Running, None);
        tally.replace(None, Some(&lives));
        let next = |tally: &Tally, places: usize| -> Vec<String> {
            let keys = tally.next(|_| Some(places));
            keys.iter().map(|key| key.id.to_string()).collect()
        };
        assert_eq!(next(&tally, 1), ["b1"]);
        assert_eq!(next(&tally, 2), ["a1", "b1", "b2"]);
        tally.replace(Some(&lives), None);
        assert_eq!(next(&tally, 1), ["a1", "b1"]);
        assert_eq!(tally.next(|_| None).len(), 1000, "nothing bounds them");

        let middle = record("a250", "a", State::Idle, Some(250));
        let new = record("new", "a", State::Idle, None);
        let stands = |ahead| Standing {
            in_use: 0,
            waiting: 500,
            ahead,
            last: 500,
        };
        assert_eq!(tally.standing(&middle), stands(249));
        assert_eq!(tally.standing(&new), stands(500));
        tally.replace(Some(&middle), None);
        assert_eq!(tally.standing(&new).ahead, 499);
        for ticket in (1..=500).filter(|ticket| *ticket != 250) {
            let waits = record(&format!("a{ticket}"), "a", State::Idle, Some(ticket));
            tally.replace(Some(&waits), None);
        }
        assert_eq!(tally.standing(&new), Standing::default());
        assert_eq!(tally.scopes.len(), 1, "an empty one is forgotten");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        /// Whatever happens to sessions: what is counted along is what counting them all gives.
        #[test]
        fn it_counts_what_is_there(steps in prop::collection::vec((0_u8..6, 0_u8..7), 1..24)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut config = config();
                let provider = config.providers.get_mut("local").unwrap();
                provider.scopes = Some(Scopes { concurrency: 1, queue: 1 });
                let f = Fixture::with(config);
                for (which, what) in steps {
                    let (id, owner) = (format!("s{which}"), if which % 2 == 0 { "ann" } else { "bob" });
                    let scoped = if which < 3 { ", scope: chat" } else { "" };
                    let action = match what {
                        0 | 1 => {
                            let asked = format!("{{id: {id}, owner: {owner}, start: false{scoped}}}");
                            let _ = f.registry.create("local".into(), request(&asked)).await;
                            continue;
                        }
                        2 => Action::Start,
                        3 => Action::Pause,
                        4 => Action::Reset,
                        5 => Action::Stop,
                        _ => {
                            f.sweep(SystemTime::now() + std::time::Duration::from_secs(200_000));
                            continue;
                        }
                    };
                    let _ = f.registry.act(f.key(&id), action, None).await;
                }
                let all = f.registry.list(None, None);
                let count = |owner: Option<&str>| {
                    let own = |one: &&Value| owner.is_none() || one["owner"].as_str() == owner;
                    let stopped = |one: &&Value| one["state"] == "stopped";
                    let records = all.iter().filter(own).count();
                    let stopped = all.iter().filter(own).filter(stopped).count();
                    Count { sessions: records - stopped, records }
                };
                for owner in [None, Some("ann"), Some("bob")] {
                    let key = ("default".into(), owner.map(Arc::from));
                    assert_eq!(f.registry.held(&key), count(owner), "{owner:?}");
                }
                for entry in f.registry.all() {
                    let whose = |one: &Value| (one["scope"].clone(), one["owner"].clone());
                    let own = (json!(entry.record.scope), json!(entry.record.owner));
                    let of = |one: &&Value| whose(one) == own;
                    let same: Vec<&Value> = all.iter().filter(of).collect();
                    let count = |is: fn(&Value) -> bool| same.iter().filter(|one| is(one)).count();
                    let living = count(|one| one["state"] == "running" || one["state"] == "paused");
                    let waiting = count(|one| !one["queued"].is_null());
                    let expected = entry.record.scope.as_ref().map_or((0, 0), |_| (living, waiting));
                    let found = f.registry.standing(&entry.record);
                    assert_eq!((found.in_use, found.waiting), expected);
                }
            });
        }
    }
}
