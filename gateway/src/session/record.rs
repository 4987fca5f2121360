//! The durable record of a session: what a restart needs to know.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use sluicegate_certs::Thumbprint;
use sluicegate_policy::Author;

use super::{Binding, SessionKey, lifecycle::Lease};

/// By how much clocks of others may be behind.
const LATE: Duration = Duration::from_secs(5);

/// Bytes of what a session asks for that are one record.
const ONE: usize = 16 * 1024;
/// Bytes of one of its sources, at most.
const SOURCE: usize = 48;

/// One row of the store, as JSON. Credentials stand in it only as hashes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Namespace.
    pub namespace: String,
    /// Provider.
    pub provider: String,
    /// Session id.
    pub id: String,
    /// State, generation, times.
    pub lease: Lease,
    /// When it was created.
    pub created_at: SystemTime,
    /// When its last generation ended: what was issued for one before is not for the next.
    #[serde(default)]
    pub ended_at: Option<SystemTime>,
    /// When it last changed.
    pub changed_at: SystemTime,
    /// Rises with every change of its grant.
    pub policy_generation: u64,
    /// Its own grant (without the provider's defaults) as canonical JSON.
    pub document: String,
    /// The services in it were named by somebody with a say in a part of the gateway only. Rows of before this was written down do
    /// not say, and are taken for such.
    #[serde(default = "unknown_author")]
    pub bounded_author: bool,
    /// SHA-256 of the create request, to tell a replay from another request.
    pub request: String,
    /// Label for a concurrency limit of its own.
    pub scope: Option<String>,
    /// Source ranges its credentials may come from; empty = any.
    pub sources: Vec<ipnet::IpNet>,
    /// Thumbprint of the key its credentials are bound to.
    #[serde(default)]
    pub client_key: Option<String>,
    /// Hashes of the living generation's handles, oldest first.
    pub handles: Vec<String>,
    /// Services the generation's first env bundle was made for.
    pub bound: Vec<String>,
    /// Capabilities that counted when the generation's first env bundle was made.
    #[serde(default)]
    pub bound_capabilities: Vec<String>,
    /// Whose session it is, below its namespace; for quotas and who may act on it.
    #[serde(default)]
    pub owner: Option<String>,
    /// It waits for a place in its scope.
    #[serde(default)]
    pub queued: Option<Ticket>,
    /// What the runtime last said of its sandbox.
    #[serde(default)]
    pub observed: Option<Observed>,
    /// Capabilities bound to the session, in the order they are laid over each other.
    #[serde(default)]
    pub capabilities: Vec<Binding>,
    /// Last activity, written now and then.
    pub active_at: SystemTime,
    /// Bytes this generation has spent, written now and then.
    pub bytes: u64,
    /// Bytes that earlier generations spent: the quota is the session's, whatever generation spends it.
    #[serde(default)]
    pub earlier_bytes: u64,
    /// Ports chosen for what the living generation exposes, by name: they are its own until it ends.
    #[serde(default)]
    pub dial_ports: BTreeMap<String, u16>,
    /// Why the last generation ended, or why it is paused.
    pub reason: Option<String>,
}

/// A place in the queue of a scope.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ticket {
    /// Rises within the scope: the lowest is the next.
    pub number: u64,
    /// Since when it waits.
    pub since: SystemTime,
}

/// What a runtime said of the sandbox behind a generation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Observed {
    /// `starting`, `running`, `stopping`, `stopped`, `destroyed`.
    pub state: String,
    /// `completed`, `stopped`, `idle_timeout`, `failed`, `oom`, `start_failed`, `max_lifetime`.
    pub reason: Option<String>,
    /// Of which generation.
    pub generation: u64,
    /// When it was said.
    pub at: SystemTime,
}

const fn unknown_author() -> bool {
    true
}

impl Record {
    /// Who named the services of its own grant.
    pub fn author(&self) -> Author {
        if self.bounded_author {
            Author::Bounded
        } else {
            Author::Operator
        }
    }

    /// As how many records it counts: one, and one more for each 16 KiB of what it asks for.
    pub fn weight(&self) -> usize {
        let capabilities = self.capabilities.iter();
        let capabilities = capabilities.map(|one| one.name.len() + one.narrowed.len());
        let asked = self.document.len() + self.sources.len() * SOURCE;
        1 + (asked + capabilities.sum::<usize>()) / ONE
    }

    /// Whose it is.
    pub fn key(&self) -> SessionKey {
        SessionKey {
            namespace: self.namespace.as_str().into(),
            provider: self.provider.as_str().into(),
            id: self.id.as_str().into(),
        }
    }

    /// The key its credentials are bound to.
    pub fn key_of_client(&self) -> Option<Thumbprint> {
        self.client_key.as_ref()?.parse().ok()
    }

    /// When it came to be, in microseconds of Unix time.
    pub fn born(&self) -> u64 {
        let since = self.created_at.duration_since(SystemTime::UNIX_EPOCH);
        u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or_default()
    }

    /// What others issued before this moment is not for what lives of it now. Their clocks may be late by a few seconds when it
    /// comes to be; what ended is over to the second.
    pub fn since(&self) -> SystemTime {
        let created = self.created_at.checked_sub(LATE);
        let created = created.unwrap_or(SystemTime::UNIX_EPOCH);
        self.ended_at.map_or(created, |ended| ended.max(created))
    }

    /// The entity tag of its representation (RFC 9110 §8.8.3), without quotes: another one after every change.
    pub fn etag(&self) -> String {
        let changed = self
            .changed_at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        format!(
            "{}.{}.{}.{:x}",
            self.lease.generation,
            self.policy_generation,
            self.lease.state.as_str(),
            changed.as_micros()
        )
    }

    /// The row's key. No part holds a slash.
    pub fn row_key(&self) -> String {
        format!("{}/{}/{}", self.namespace, self.provider, self.id)
    }
}
