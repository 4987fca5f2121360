//! A session as the admin API shows it. No credential, no hash.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{RegistryConfig, registry::Entry, registry::merged_document};
use crate::clock::rfc3339;

/// The session's JSON.
pub(super) fn session(config: &RegistryConfig, entry: &Entry) -> Value {
    let record = &entry.record;
    let lease = &record.lease;
    let time = |at: Option<SystemTime>| at.map(rfc3339);
    let span = |d: Option<Duration>| d.map(|d| d.as_secs_f64());
    let mut view = json!({
        "namespace": record.namespace,
        "provider": record.provider,
        "id": record.id,
        "generation": lease.generation,
        "state": lease.state,
        "policyGeneration": record.policy_generation,
        "etag": record.etag(),
        "createdAt": rfc3339(record.created_at),
        "changedAt": rfc3339(record.changed_at),
        "startedAt": time(lease.started_at),
        "expiresAt": time(lease.expires_at.or(lease.ends_at)),
        "endsAt": time(lease.ends_at),
        "pausedAt": time(lease.paused_at),
        "ttlSeconds": span(lease.times.ttl),
        "idleTimeoutSeconds": span(lease.times.idle_timeout),
        "maxLifetimeSeconds": span(lease.times.max_lifetime),
        "onExpiry": lease.times.on_expiry,
        "onPause": lease.times.on_pause,
        "scope": record.scope,
        "owner": record.owner,
        "queued": record.queued.map(|ticket| json!({ "since": rfc3339(ticket.since) })),
        "observed": record.observed.as_ref().map(|observed| json!({
            "state": observed.state,
            "reason": observed.reason,
            "generation": observed.generation,
            "at": rfc3339(observed.at),
        })),
        "sources": record.sources,
        "clientKey": record.client_key,
        "capabilities": record
            .capabilities
            .iter()
            .map(|binding| binding.to_value(config))
            .collect::<Vec<_>>(),
        "reason": record.reason,
    });
    if let Some(fields) = view.as_object_mut() {
        // Absent is not null in a grant: its own JSON says which.
        let document = merged_document(config, record)
            .map(|d| d.to_value())
            .unwrap_or_default();
        let part = |key: &str| document.get(key).cloned().unwrap_or_else(|| json!({}));
        for key in ["egress", "services", "expose", "limits"] {
            fields.insert(key.into(), part(key));
        }
        if entry.withdrawn.is_some() {
            // Whatever the record says: nothing works any more, and the state follows once it is durable.
            fields.insert("withdrawn".into(), true.into());
        }
        if let Some(session) = &entry.session {
            let budget = session.budget();
            let usage = json!({
                "open": budget.open_now(),
                "bytes": budget.spent(),
                "lastActivity": rfc3339(budget.last_activity()),
            });
            fields.insert("usage".into(), usage);
            let dials = session.dials();
            fields.insert("dialTargets".into(), json!(dials.targets));
            if !dials.errors.is_empty() {
                fields.insert("dialErrors".into(), json!(dials.errors));
            }
        }
    }
    view
}
