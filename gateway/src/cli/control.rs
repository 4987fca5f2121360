//! `status`, `reload`, `drain`.

use clap::Args;
use http::Method;
use serde_json::Value;

use super::{
    client::{Client, ClientArgs},
    failure::{Failure, USAGE},
    output::{printable, text},
    provider::summary,
};
use crate::session::is_session_id;

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Of this namespace only: its sessions, its quota, its refusals.
    #[arg(long)]
    namespace: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) async fn status(args: &StatusArgs) -> Result<(), Failure> {
    let query = match &args.namespace {
        None => String::new(),
        Some(name) if is_session_id(name) => format!("?namespace={name}"),
        Some(name) => {
            return Err(Failure::new(
                USAGE,
                format!("{name:?} is no name of a namespace"),
            ));
        }
    };
    let body = Client::new(&args.client)?
        .call(Method::GET, &format!("/admin/api/v1/status{query}"), None)
        .await?
        .body;
    if args.client.json {
        say!("{body:#}");
        return Ok(());
    }
    say_whole!("{}", screen(&body));
    Ok(())
}

/// One screen: what is up, what is proved, what lives, what was refused.
fn screen(body: &Value) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    let ready = match body.get("notReady").and_then(Value::as_str) {
        None => "ready".to_owned(),
        Some(why) => format!("not ready: {}", printable(why)),
    };
    // A part of the gateway has no beginning of its own.
    let up = match body.get("uptimeSeconds").and_then(Value::as_u64) {
        Some(seconds) => format!(", up {seconds}s"),
        None => String::new(),
    };
    line(format!("sluicegate {}: {ready}{up}", text(body, "version")));
    if let Some(namespace) = body.get("namespace").and_then(Value::as_str) {
        line(format!("namespace: {}", printable(namespace)));
    }
    let readable = body.get("storeReadable").and_then(Value::as_bool);
    let verified = body.get("storeVerified").and_then(|last| last.get("at"));
    line(match readable {
        Some(true) => match verified.and_then(Value::as_str) {
            Some(at) => format!("store: readable, found whole at {}", printable(at)),
            None => "store: readable".into(),
        },
        Some(false) | None => "store: UNREADABLE, new work is refused".into(),
    });
    let listeners = body.get("listeners").and_then(Value::as_array);
    for listener in listeners.into_iter().flatten() {
        let transports = listener.get("transports").and_then(Value::as_array);
        let transports: Vec<&str> = transports
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        line(format!(
            "listener: {} {} ({})",
            text(listener, "kind"),
            text(listener, "address"),
            transports.join(", ")
        ));
    }
    line(format!("sessions: {}", counts(body, "sessions")));
    if let Some(quota) = body.get("quota").filter(|quota| !quota.is_null()) {
        let used = |(key, what): (&str, &str)| {
            let part = quota.get(key).cloned().unwrap_or_default();
            format!(
                "{} of {} {what}",
                text(&part, "inUse"),
                text(&part, "limit")
            )
        };
        let used = [
            ("sessions", "sessions"),
            ("records", "records"),
            ("logs", "bytes of logs"),
            ("tunnels", "tunnels"),
            ("bytes", "bytes"),
        ]
        .map(used);
        line(format!("in use: {}", used.join(", ")));
    }
    // What was before a restart is not known.
    let since = match body.get("refusalsSince").and_then(Value::as_str) {
        Some(since) => format!(", counted since {}", printable(since)),
        None => String::new(),
    };
    line(format!(
        "refusals of the last hour{since}: {}",
        counts(body, "refusalsLastHour")
    ));
    match body.get("accessRecordsDropped").and_then(Value::as_u64) {
        None | Some(0) => {}
        Some(dropped) => line(format!("access records dropped: {dropped}")),
    }
    let providers = body.get("providers").and_then(Value::as_array);
    out.push_str(&summary(providers.map(Vec::as_slice).unwrap_or_default()));
    out
}

/// `3 running, 1 idle`, most first.
fn counts(body: &Value, key: &str) -> String {
    let counts = body.get(key).and_then(Value::as_object);
    let mut counts: Vec<(u64, String)> = counts
        .into_iter()
        .flatten()
        .map(|(name, count)| (count.as_u64().unwrap_or_default(), printable(name)))
        .collect();
    counts.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    if counts.is_empty() {
        return "none".into();
    }
    let words: Vec<String> = counts
        .iter()
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    words.join(", ")
}

pub(super) async fn reload(args: &ClientArgs) -> Result<(), Failure> {
    let body = Client::new(args)?
        .call(Method::POST, "/admin/api/v1/reload", None)
        .await?
        .body;
    if args.json {
        say!("{body:#}");
    } else {
        let detail = body
            .get("detail")
            .and_then(Value::as_str)
            .unwrap_or_default();
        for line in detail.lines() {
            say!("reloaded: {}", printable(line));
        }
    }
    Ok(())
}

pub(super) async fn drain(args: &ClientArgs) -> Result<(), Failure> {
    let body = Client::new(args)?
        .call(Method::POST, "/admin/api/v1/drain", None)
        .await?
        .body;
    if args.json {
        say!("{body:#}");
    } else {
        say!("draining: new work is refused, tunnels have until the drain timeout");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_on_one_screen() {
        let body = serde_json::json!({
            "version": "1.0", "uptimeSeconds": 61, "notReady": null, "storeReadable": true,
            "storeVerified": {"at": "2026-11-20T21:04:05.000Z", "bytes": 9},
            "listeners": [{"kind": "public", "address": "127.0.0.1:8443", "transports": ["TLS h2", "TLS http/1.1"]}],
            "sessions": {"idle": 1, "running": 3}, "refusalsLastHour": {"host_not_allowed": 7, "dns_failed": 9},
            "refusalsSince": "2026-11-20T20:06:00.000Z", "accessRecordsDropped": 0,
            "providers": [{
                "name": "local", "default": true, "sessionCount": 4,
                "profile": {"advertised": {"canHostPlugins": true, "hostServiceAccess": "relay", "egressMode": "hostname"},
                            "effective": {"canHostPlugins": true, "hostServiceAccess": "relay", "egressMode": "none"}},
                "shortfalls": [{"field": "egressMode", "reason": "it leaks", "since": null, "setting": "publicUrl"}],
            }],
        });
        assert_eq!(
            screen(&body),
            "sluicegate 1.0: ready, up 61s\n\
             store: readable, found whole at 2026-11-20T21:04:05.000Z\n\
             listener: public 127.0.0.1:8443 (TLS h2, TLS http/1.1)\n\
             sessions: 3 running, 1 idle\n\
             refusals of the last hour, counted since 2026-11-20T20:06:00.000Z: 9 dns_failed, 7 host_not_allowed\n\
             PROVIDER  DEFAULT  SESSIONS  PLUGINS      HOST SERVICES  EGRESS\n\
             local     true     4         true → true  relay → relay  hostname → none\n\
             local: egressMode: it leaks; see publicUrl\n"
        );
    }

    #[test]
    fn a_namespace_has_a_smaller_one() {
        let body = serde_json::json!({
            "version": "1.0", "namespace": "team", "notReady": null, "storeReadable": true,
            "sessions": {"running": 1}, "refusalsLastHour": {}, "providers": [],
            "quota": {"sessions": {"inUse": 1, "limit": 3}, "records": {"inUse": 4, "limit": 9},
                      "logs": {"inUse": 80, "limit": null}, "tunnels": {"inUse": 0, "limit": null},
                      "bytes": {"inUse": 70, "limit": null}},
        });
        let screen = screen(&body);
        let expected = "sluicegate 1.0: ready\nnamespace: team\nstore: readable\nsessions: 1 running\n\
                        in use: 1 of 3 sessions, 4 of 9 records, 80 of - bytes of logs, 0 of - tunnels, 70 of - bytes\n\
                        refusals of the last hour: none\n";
        assert!(screen.starts_with(expected), "{screen}");
    }
}
