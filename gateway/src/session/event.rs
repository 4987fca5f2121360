//! Lifecycle events: one for every transition.

use std::{sync::Arc, time::SystemTime};

use serde::Serialize;

use super::Record;
use crate::clock;

/// What can happen. The list is closed: whoever filters by it is told of a word that is none.
pub const EVENT_TYPES: [&str; 19] = [
    "session.created",
    "session.queued",
    "session.dequeued",
    "session.started",
    "session.paused",
    "session.resumed",
    "session.extended",
    "session.reset",
    "session.stopped",
    "session.expired",
    "session.observed",
    "session.ended",
    "session.policyChanged",
    "session.credentialIssued",
    "session.reaped",
    "session.dialTargetMissing",
    "session.dialTargetFound",
    "credential.revoked",
    "provider.profileChanged",
];

/// What happened to a session.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// RFC 3339.
    pub time: String,
    /// One of [`EVENT_TYPES`].
    pub r#type: &'static str,
    /// Of what is of no session: the namespace it concerns; absent = the gateway as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Whose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<EventSession>,
    /// For `provider.profileChanged`: which provider, its effective profile before (null at first) and after, and since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<serde_json::Value>,
    /// Why, where somebody or something had a reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who asked for it; absent = the gateway itself, by its clocks or its configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor>,
}

/// A credential of the admin API, as it is called. Never what it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Actor {
    /// Its name in the configuration; `admin` = the generated one.
    pub credential: Arc<str>,
    /// What it may do: `read`, `operate`, `admin`.
    pub scope: &'static str,
}

/// The session of an event, as it was after it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventSession {
    namespace: String,
    provider: String,
    id: String,
    generation: u64,
    policy_generation: u64,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
}

impl Event {
    /// An event of a session.
    pub fn of(
        record: &Record,
        r#type: &'static str,
        reason: Option<String>,
        now: SystemTime,
    ) -> Self {
        debug_assert!(EVENT_TYPES.contains(&r#type));
        let session = EventSession {
            namespace: record.namespace.clone(),
            provider: record.provider.clone(),
            id: record.id.clone(),
            generation: record.lease.generation,
            policy_generation: record.policy_generation,
            state: record.lease.state.as_str(),
            owner: record.owner.clone(),
        };
        Self {
            time: clock::rfc3339(now),
            r#type,
            namespace: None,
            session: Some(session),
            provider: None,
            reason,
            by: None,
        }
    }

    /// An event of a provider.
    pub fn of_provider(
        r#type: &'static str,
        provider: serde_json::Value,
        reason: Option<String>,
        now: SystemTime,
    ) -> Self {
        Self {
            provider: Some(provider),
            ..Self::bare(r#type, reason, now)
        }
    }

    /// An event of a namespace, and of no session of it.
    pub fn of_namespace(
        namespace: &str,
        r#type: &'static str,
        reason: Option<String>,
        now: SystemTime,
    ) -> Self {
        Self {
            namespace: Some(namespace.to_owned()),
            ..Self::bare(r#type, reason, now)
        }
    }

    /// An event of no session and no namespace.
    pub fn bare(r#type: &'static str, reason: Option<String>, now: SystemTime) -> Self {
        debug_assert!(EVENT_TYPES.contains(&r#type));
        Self {
            time: clock::rfc3339(now),
            r#type,
            namespace: None,
            session: None,
            provider: None,
            reason,
            by: None,
        }
    }

    /// Whose history it is part of; empty = the gateway's own.
    pub fn namespace(&self) -> &str {
        let session = self.session.as_ref();
        let session = session.map(|session| session.namespace.as_str());
        session.or(self.namespace.as_deref()).unwrap_or_default()
    }

    /// As stored and sent.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
