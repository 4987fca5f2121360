//! What is told: each check with its age, each provider with its effective profile.

use serde_json::{Value, json};
use sluicegate_policy::{Profile, Shortfall};

use super::{
    check::{Check, Finding},
    track::{Last, State, Track},
};

/// Relay clients of other machines, among the checks.
const CLIENTS: &str = "clients";

/// A provider's effective profile as published.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Published {
    pub(super) profile: Profile,
    pub(super) shortfalls: Vec<Shortfall>,
    /// Since when the profile is this one, in seconds of Unix time.
    pub(super) since: u64,
}

/// These checks, in the order in which one depends on another; and relay clients, where they may stand for one.
pub(super) fn checks<'a>(
    tracks: impl Iterator<Item = (&'a Check, &'a Track)>,
    clients: Option<&Track>,
    now: u64,
) -> Vec<Value> {
    let clients = clients.map(|track| one(CLIENTS, track, now));
    tracks
        .map(|(check, track)| one(&check.to_string(), track, now))
        .chain(clients)
        .collect()
}

fn one(name: &str, track: &Track, now: u64) -> Value {
    let mut value = json!({
        "name": name,
        "state": "unknown",
        "since": Value::Null,
        "reason": Value::Null,
        "setting": Value::Null,
        "last": track.last().map(|last| self::last(last, now)),
    });
    let Some((state, since)) = track.state() else {
        return value;
    };
    let (word, reason, setting) = match state {
        State::Works => ("works", None, None),
        State::Fails { reason, setting } => ("fails", Some(reason), Some(setting)),
    };
    if let Some(fields) = value.as_object_mut() {
        fields.insert("state".into(), word.into());
        fields.insert("since".into(), (*since).into());
        fields.insert("reason".into(), json!(reason));
        fields.insert("setting".into(), json!(setting));
    }
    value
}

fn last(last: &Last, now: u64) -> Value {
    let (outcome, reason) = match &last.finding {
        Finding::Pass => ("pass", None),
        Finding::Fail { reason, .. } => ("fail", Some(reason)),
        Finding::Unknown(why) => ("unknown", Some(why)),
    };
    json!({
        "outcome": outcome,
        "reason": reason,
        "at": last.at,
        "ageSeconds": now.saturating_sub(last.at),
        "milliseconds": last.took,
    })
}

/// The label of a finding in metrics.
pub(super) const fn outcome(finding: &Finding) -> &'static str {
    match finding {
        Finding::Pass => "pass",
        Finding::Fail { .. } => "fail",
        Finding::Unknown(_) => "unknown",
    }
}
