//! What a command was refused, and which flag would have allowed it: from the access records, as they are written.

use std::{
    collections::BTreeMap,
    fmt::Write,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Value, json};
use sluicegate_policy::{AddressClass, classify};
use tokio::sync::broadcast::{
    Receiver,
    error::{RecvError, TryRecvError},
};
use tokio_util::sync::CancellationToken;

/// Different refusals that are kept; the rest is counted.
const KEPT: usize = 100;
/// Of these, how many a person is shown.
const SHOWN: usize = 20;

/// Refusals by target and reason.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    found: BTreeMap<(String, String), usize>,
    others: usize,
}

/// Gather until nobody records any more, or until all that was recorded when it is `over` is gathered.
pub(super) async fn gather(
    mut records: Receiver<Arc<str>>,
    into: Arc<Mutex<Refusals>>,
    over: CancellationToken,
) {
    let add = |record: &str| {
        let mut into = into.lock().unwrap_or_else(PoisonError::into_inner);
        into.add(record);
    };
    while let Some(received) = over.run_until_cancelled(records.recv()).await {
        match received {
            Ok(record) => add(&record),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
    loop {
        match records.try_recv() {
            Ok(record) => add(&record),
            Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => return,
        }
    }
}

impl Refusals {
    /// Note a record, if it is a refusal's.
    pub(super) fn add(&mut self, record: &str) {
        let record: Value = serde_json::from_str(record).unwrap_or_default();
        let text = |key: &str| record.get(key).and_then(Value::as_str);
        if !matches!(text("outcome"), Some("refused" | "cut")) {
            return;
        }
        let target = text("target").or(text("service")).unwrap_or("?");
        let reason = text("reason").unwrap_or_default();
        self.note(target.to_owned(), reason.to_owned());
    }

    fn note(&mut self, target: String, reason: String) {
        let key = (target, reason);
        let room = self.found.len() < KEPT;
        match self.found.get_mut(&key) {
            Some(count) => *count += 1,
            None if room => {
                self.found.insert(key, 1);
            }
            None => self.others += 1,
        }
    }

    /// For a person; empty where nothing was refused.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if self.found.is_empty() {
            return text;
        }
        let wide = |text: &String| text.chars().count();
        let shown = || self.found.iter().take(SHOWN);
        let target = shown().map(|((target, _), _)| wide(target)).max();
        let reason = shown().map(|((_, reason), _)| wide(reason)).max();
        let (target, reason) = (target.unwrap_or_default(), reason.unwrap_or_default());
        let times = |count: usize| match count {
            1 => String::new(),
            count => format!("{count}×"),
        };
        let wide_times = shown().map(|(_, count)| wide(&times(*count))).max();
        let wide_times = wide_times.unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "sluicegate: refused:");
        for ((asked, why), count) in shown() {
            let line = format!(
                "  {asked:target$}  {why:reason$}  {:>wide_times$}  {}",
                times(*count),
                flag(asked, why).unwrap_or_default()
            );
            let _ = writeln!(text, "{}", line.trim_end());
        }
        let more = self.found.len().saturating_sub(SHOWN) + self.others;
        if more > 0 {
            let _ = writeln!(text, "  and {more} more (--json has all that were kept)");
        }
        text
    }

    /// For a program.
    pub(super) fn json(&self, code: u8) -> Value {
        let refusals = self.found.iter().map(|((target, reason), count)| {
            json!({"target": target, "reason": reason, "count": count, "flag": flag(target, reason)})
        });
        json!({
            "exitCode": code,
            "refusals": refusals.collect::<Vec<_>>(),
            "others": self.others,
        })
    }
}

/// What would have allowed it, where a flag can.
fn flag(target: &str, reason: &str) -> Option<String> {
    match reason {
        "address_not_allowed" if is_metadata(target) => {
            Some("a metadata service, which is never allowed here".to_owned())
        }
        "host_not_allowed" | "port_not_allowed" | "address_not_allowed" => {
            // The two ports an entry has anyway.
            let bare = target
                .strip_suffix(":443")
                .or_else(|| target.strip_suffix(":80"));
            Some(format!("--allow {}", bare.unwrap_or(target)))
        }
        "host_denied" => Some("denied by --deny, which always wins".to_owned()),
        "special_address" => {
            Some("--allow-address RANGE, for the private addresses it resolves to".to_owned())
        }
        // Bytes that might have become a request, or silence where TLS is required.
        "first_bytes_timeout" => Some(
            "no flag: a session whose rule has tls: opaque, and sluicegate-relay run".to_owned(),
        ),
        "service_not_allowed" => Some(format!("--service {target}=URL")),
        _ => None,
    }
}

fn is_metadata(target: &str) -> bool {
    let address = target.parse::<SocketAddr>();
    address.is_ok_and(|at| classify(at.ip(), &[]) == AddressClass::Metadata)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::{KEPT, Refusals};

    #[test]
    fn refusals_are_told_with_the_flag_that_would_allow_them() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.text(), "");
        for record in [
            r#"{"target":"a.test:443","outcome":"refused","reason":"host_not_allowed"}"#,
            r#"{"target":"a.test:443","outcome":"refused","reason":"host_not_allowed"}"#,
            r#"{"target":"b.test:22","outcome":"refused","reason":"port_not_allowed"}"#,
            r#"{"target":"c.test:443","outcome":"cut","reason":"sni_mismatch"}"#,
            r#"{"target":"d.test:443","outcome":"completed"}"#,
            r#"{"target":"e.test:9","outcome":"cut","reason":"first_bytes_timeout"}"#,
            r#"{"target":"169.254.169.254:80","outcome":"refused","reason":"address_not_allowed"}"#,
            r#"{"service":"db","outcome":"refused","reason":"service_not_allowed"}"#,
            "nonsense",
        ] {
            refusals.add(record);
        }
        let text = refusals.text();
        let has = |line: &str| {
            text.lines()
                .any(|found| found.split_whitespace().eq(line.split(' ')))
        };
        assert!(
            has("a.test:443 host_not_allowed 2× --allow a.test"),
            "{text}"
        );
        assert!(
            has("b.test:22 port_not_allowed --allow b.test:22"),
            "{text}"
        );
        assert!(has("c.test:443 sni_mismatch"), "{text}");
        assert!(
            has(
                "e.test:9 first_bytes_timeout no flag: a session whose rule has tls: opaque, and sluicegate-relay run"
            ),
            "{text}"
        );
        assert!(!text.contains("--allow 169.254"), "{text}");
        assert!(!text.contains("d.test"), "{text}");
        let json = refusals.json(7);
        assert_eq!(json["exitCode"], 7);
        assert_eq!(json["refusals"][1]["count"], 2);
        for n in 0..2 * KEPT {
            refusals.add(&format!(
                r#"{{"target":"{n}.test:443","outcome":"refused","reason":"host_not_allowed"}}"#
            ));
        }
        assert!(refusals.text().contains("more"), "{}", refusals.text());
        assert!(refusals.found.len() == KEPT);
    }
}
