//! `policy suggest`: an allowlist for what an access log shows.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use clap::Args;
use serde_json::{Value, json};
use sluicegate_policy::{Host, PlainUse, Target, TunnelUse, suggest};

use super::{super::failure::Failure, log, output, yaml};
use crate::trial::{Bytes, Passed, Seen, Verdict};

/// `policy suggest`.
#[derive(Debug, Args)]
pub(in crate::cli) struct SuggestArgs {
    /// The access log of a run in report mode: one JSON record per line; - for standard input.
    access_log: PathBuf,
    /// Only this session's records.
    #[arg(long)]
    session: Option<String>,
    /// Write `*.parent` for several names directly below the same domain, and a directory for several paths in it. Allows more than
    /// was seen.
    #[arg(long)]
    collapse: bool,
    /// How many names or paths that takes.
    #[arg(long, value_name = "N", default_value_t = 3, requires = "collapse")]
    min: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What the log shows.
#[derive(Debug, Default)]
struct Shown {
    reached: BTreeSet<Target>,
    /// Of these, what was asked of them in requests.
    plain: BTreeMap<Target, PlainUse>,
    /// Of these, what tunnels to them began with.
    tunnels: BTreeMap<Target, TunnelUse>,
    /// Of these, those with bytes in tunnels.
    opaque: BTreeSet<Target>,
    /// What names of these resolved to.
    dialled: BTreeSet<IpAddr>,
    /// Names that never led to an address.
    unresolved: BTreeSet<Target>,
    /// Cut each time, for what went on in it.
    misused: BTreeSet<Target>,
    /// Denied by a rule of the session's own, which no allow overrules.
    denied: BTreeSet<Target>,
    refused: usize,
}

impl Shown {
    fn add(&mut self, seen: Seen) {
        match seen.verdict {
            Verdict::Passed { would_refuse } if would_refuse.as_deref() == Some("host_denied") => {
                self.denied.insert(seen.target);
            }
            Verdict::Passed { .. } if seen.misused => {
                self.misused.insert(seen.target);
            }
            Verdict::Passed { .. } if seen.unresolved => {
                self.unresolved.insert(seen.target);
            }
            Verdict::Passed { .. } => {
                if matches!(seen.target.host(), Host::Name(_)) {
                    self.dialled.extend(&seen.answers);
                }
                if let Some(request) = &seen.request {
                    let plain = self.plain.entry(seen.target.clone()).or_default();
                    for (method, path) in request.read_as() {
                        plain.add(method, path);
                    }
                }
                if let Bytes::Began(began) = &seen.bytes {
                    let tunnels = self.tunnels.entry(seen.target.clone()).or_default();
                    tunnels.add(&seen.target, began);
                }
                if seen.opaque {
                    self.opaque.insert(seen.target.clone());
                }
                self.reached.insert(seen.target);
            }
            Verdict::Refused(_) | Verdict::Address(_) => self.refused += 1,
        }
    }

    /// Targets of which nothing was asked but in requests.
    fn plain(&self) -> impl Iterator<Item = (&Target, &PlainUse)> {
        let plain = self.plain.iter();
        plain.filter(move |(target, _)| !self.opaque.contains(*target))
    }

    /// Add the rules that first bytes need which the default of their port does not let pass.
    fn add_rules(&self, egress: &mut Value) {
        let tunnels = self.tunnels.iter();
        let rules: Vec<Value> = tunnels
            .filter_map(|(target, used)| used.rule(target))
            .collect();
        if rules.is_empty() {
            return;
        }
        let block = egress.as_object_mut();
        let list = block.map(|block| block.entry("rules").or_insert_with(|| json!([])));
        if let Some(list) = list.and_then(Value::as_array_mut) {
            list.extend(rules);
        }
    }

    /// Which methods and paths the block leaves open, and why.
    fn left_open(&self, egress: &Value) -> Vec<String> {
        let rules = egress.get("rules").and_then(Value::as_array);
        let bounded: BTreeSet<Target> = rules
            .into_iter()
            .flatten()
            .filter(|rule| {
                rule.pointer("/http/methods").is_some()
                    && rule.pointer("/http/pathPrefixes").is_some()
            })
            .filter_map(|rule| Target::from_authority(rule.get("host")?.as_str()?).ok())
            .collect();
        let open: BTreeSet<Target> = self
            .plain()
            .map(|(target, _)| target)
            .filter(|target| !bounded.contains(*target))
            .cloned()
            .collect();
        let mut notes = Vec::new();
        if !self.opaque.is_empty() {
            notes.push(format!(
                "no http rules, as records of tunnels tell neither methods nor paths: {}",
                names(&self.opaque)
            ));
        }
        if !open.is_empty() {
            notes.push(format!(
                "methods or paths left open, as there were too many or no rule can name them: {}",
                names(&open)
            ));
        }
        notes
    }

    /// What was left out, and why.
    fn left_out(&self, passed: &Passed) -> Vec<String> {
        let mut notes = Vec::new();
        let unresolved = self.unresolved.difference(&self.reached);
        let unresolved: BTreeSet<Target> = unresolved.cloned().collect();
        if !unresolved.is_empty() {
            notes.push(format!(
                "left out, as the names led to no address: {}",
                names(&unresolved)
            ));
        }
        let misused = self.misused.difference(&self.reached);
        let misused: BTreeSet<Target> = misused.cloned().collect();
        if !misused.is_empty() {
            notes.push(format!(
                "left out, as every tunnel to them was cut for the bytes in it: {}",
                names(&misused)
            ));
        }
        if !self.denied.is_empty() {
            notes.push(format!(
                "left out, as deniedHosts covers them: {}",
                names(&self.denied)
            ));
        }
        for (count, what) in [
            (
                self.refused,
                "refused record(s) left out: what was refused was not needed, or must be allowed by hand",
            ),
            (
                passed.unjudged,
                "record(s) passed over: policy had no say in them",
            ),
            (passed.malformed, "malformed line(s) passed over"),
        ] {
            if count > 0 {
                notes.push(format!("{count} {what}"));
            }
        }
        notes.extend(passed.named.iter().map(|line| output::printable(line)));
        notes
    }
}

/// The first few.
fn names(list: &BTreeSet<Target>) -> String {
    let shown: Vec<String> = list.iter().take(5).map(ToString::to_string).collect();
    let more = if list.len() > shown.len() {
        ", …"
    } else {
        ""
    };
    format!("{}{more}", shown.join(", "))
}

pub(in crate::cli) fn run(args: &SuggestArgs) -> Result<(), Failure> {
    let mut shown = Shown::default();
    let passed = log::read(&args.access_log, args.session.as_deref(), |seen| {
        shown.add(seen)
    })?;
    let collapse = args.collapse.then_some(args.min);
    let dialled = shown.dialled.iter().copied();
    let mut egress = suggest(&shown.reached, shown.plain(), dialled, collapse).to_value();
    shown.add_rules(&mut egress);
    let mut notes = shown.left_out(&passed);
    notes.extend(shown.left_open(&egress));
    if egress.get("allowedAddresses").is_some() {
        notes.push(
            "names resolved to special-purpose addresses: allowedAddresses holds them, within the operator's ceiling; \
             where dns.hosts gave them, leave them out"
                .to_owned(),
        );
    }
    if args.json {
        say!(
            "{:#}",
            json!({ "egress": egress, "targets": shown.reached.len(), "notes": notes })
        );
        return Ok(());
    }
    for note in &notes {
        note!("{}: {note}", args.access_log.display());
    }
    say_whole!("{}", yaml::block(&egress));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::{Shown, suggest};
    use crate::trial::read_lines;

    #[test]
    fn requests_have_rules_and_tunnels_a_note() {
        let record = |target: &str, kind: &str, more: serde_json::Value| {
            let mut record =
                serde_json::json!({"target": target, "kind": kind, "outcome": "completed"});
            let record = record.as_object_mut().unwrap();
            record.extend(more.as_object().unwrap().clone());
            serde_json::Value::from(record.clone()).to_string()
        };
        let request =
            |method: &str, path: &str| serde_json::json!({"method": method, "path": path});
        let tunnel = |bytes: u64| serde_json::json!({"bytesUp": bytes, "bytesDown": bytes});
        let text = [
            record("a.test:80", "request", request("GET", "/v1/x?…")),
            record(
                "a.test:80",
                "request",
                serde_json::json!({"method": "POST", "path": "/v1/y", "alsoReadAs": [["DELETE", "/v1/y"]]}),
            ),
            // Of a tunnel of plain HTTP only its requests carry bytes.
            record("a.test:80", "tunnel", tunnel(0)),
            record("b.test:8080", "request", request("GET", "/v1")),
            record("b.test:8080", "tunnel", tunnel(100)),
            record("c.test:80", "request", request("GET", "/")),
            record("d.test:443", "tunnel", tunnel(100)),
        ]
        .join("\n");
        let mut shown = Shown::default();
        read_lines(text.as_bytes(), None, |seen| shown.add(seen)).unwrap();
        let egress = suggest(&shown.reached, shown.plain(), [], None).to_value();
        assert_eq!(
            egress["rules"],
            serde_json::json!([
                {"host": "a.test:80", "http": {"methods": ["DELETE", "GET", "POST"], "pathPrefixes": ["/v1/x", "/v1/y"]}},
                {"host": "c.test:80", "http": {"methods": ["GET"]}},
            ])
        );
        assert_eq!(
            shown.left_open(&egress),
            [
                "no http rules, as records of tunnels tell neither methods nor paths: b.test:8080, d.test:443",
                "methods or paths left open, as there were too many or no rule can name them: c.test:80",
            ]
        );
    }

    #[test]
    fn what_tunnels_began_with_has_rules_by_which_it_passes() {
        let record = |target: &str, began: serde_json::Value| {
            serde_json::json!({
                "target": target, "kind": "tunnel", "outcome": "completed", "bytesUp": 9, "bytesDown": 9, "began": began,
            })
            .to_string()
        };
        let tls = |sni: &str, ech: bool| serde_json::json!({"as": "tls", "sni": sni, "ech": ech});
        let text = [
            record("a.test:443", tls("A.test.", true)),
            record("b.test:443", tls("front.test", true)),
            record("c.test:443", serde_json::json!({"as": "other"})),
            record("d.test:22", serde_json::json!({"as": "other"})),
            record("e.test:22", serde_json::json!({"as": "unseen"})),
            record("f.test:8443", tls("g.test", false)),
        ]
        .join("\n");
        let mut shown = Shown::default();
        read_lines(text.as_bytes(), None, |seen| shown.add(seen)).unwrap();
        let mut egress = suggest(&shown.reached, shown.plain(), [], None).to_value();
        shown.add_rules(&mut egress);
        assert_eq!(
            egress["rules"],
            serde_json::json!([
                {"host": "b.test:443", "ech": {"publicNames": ["front.test"]}},
                {"host": "c.test:443", "tls": "auto"},
                {"host": "e.test:22", "tls": "opaque"},
                {"host": "f.test:8443", "tls": "opaque"},
            ])
        );
        // Each passes by it.
        let policy = serde_json::json!({"egress": egress}).to_string();
        let asked = crate::session::AskedGrant::default();
        let path = std::path::Path::new("p");
        let policy = super::super::source::from_document(&policy, path, &asked).unwrap();
        read_lines(text.as_bytes(), None, |seen| {
            let permit = sluicegate_policy::decide(&policy.grant, &seen.target).unwrap();
            let super::Bytes::Began(began) = &seen.bytes else {
                return;
            };
            let judged = permit.judge_began(began);
            assert_eq!(judged, Ok(()), "{seen:?}");
        })
        .unwrap();
    }

    #[test]
    fn what_was_cut_each_time_is_no_need() {
        let record = |target: &str, outcome: &str, reason: &str| {
            serde_json::json!({"target": target, "outcome": outcome, "reason": reason}).to_string()
        };
        let text = [
            record("cut.test:443", "cut", "sni_mismatch"),
            record("both.test:443", "cut", "sni_mismatch"),
            record("both.test:443", "completed", ""),
        ]
        .join("\n");
        let mut shown = Shown::default();
        let passed = read_lines(text.as_bytes(), None, |seen| shown.add(seen)).unwrap();
        let reached: Vec<String> = shown.reached.iter().map(ToString::to_string).collect();
        assert_eq!(reached, ["both.test:443"]);
        let notes = shown.left_out(&passed);
        assert_eq!(
            notes,
            ["left out, as every tunnel to them was cut for the bytes in it: cut.test:443"]
        );
    }
}
