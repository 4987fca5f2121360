//! What is refused in the sandbox itself, where no gateway hears of it: on record all the same, beside the gateway's own
//! refusals, and bound as they are (the log keeps room for what passed, and counts what it drops).

use std::sync::Arc;

use serde_json::Value;
use sluicegate_policy::{Denial, Refusal};
use sluicegate_relay::proxy::{Notice, Noticed, Why};

use crate::telemetry::{Caller, Front, Kind, Protocol, SessionLabel, Telemetry};

/// Record as this session's, which is as the admin API has told of it. `None`: it has told of none.
pub(super) fn notice(telemetry: Telemetry, reply: &Value) -> Option<Notice> {
    let (label, policy) = label(reply)?;
    Some(Notice::to(move |noticed| {
        record(&telemetry, &label, policy, noticed);
    }))
}

/// Whose it is, and the number of its policy.
fn label(reply: &Value) -> Option<(SessionLabel, u64)> {
    let session = reply.get("session")?;
    let text = |key: &str| {
        session
            .get(key)
            .and_then(Value::as_str)
            .map(Arc::<str>::from)
    };
    let number = |key: &str| session.get(key).and_then(Value::as_u64);
    let label = SessionLabel {
        namespace: text("namespace")?,
        provider: text("provider")?,
        id: text("id")?,
        generation: number("generation")?,
        owner: text("owner"),
    };
    Some((label, number("policyGeneration")?))
}

fn record(telemetry: &Telemetry, label: &SessionLabel, policy: u64, noticed: Noticed) {
    let (kind, front, denial) = match noticed.why {
        Why::Malformed => (Kind::request, Front::origin, Denial::MalformedRequest),
        Why::Target => (Kind::request, Front::origin, Denial::MalformedTarget),
        Why::Mismatch => (Kind::request, Front::origin, Denial::HostMismatch),
        Why::TooLarge => (Kind::request, Front::origin, Denial::HeaderTooLarge),
        Why::NoRoom => (Kind::tunnel, Front::transparent, Denial::ConnectionLimit),
        Why::Datagrams => (
            Kind::tunnel,
            Front::transparent,
            Denial::UnsupportedProtocol,
        ),
    };
    // One that has gone already was this user's all the same.
    let user = || Caller::User(rustix::process::geteuid().as_raw());
    let from = noticed.from.map_or_else(user, Caller::Address);
    let mut recorder = telemetry.begin(kind, front, from);
    recorder.session(label.clone(), policy);
    recorder.target(noticed.asked);
    recorder.refused(&Refusal::from(denial));
    if kind == Kind::request {
        recorder.protocol(Protocol::Http1);
        recorder.status(denial.status());
    }
}
