//! `policy suggest`: an allowlist for what an access log shows.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use clap::Args;
use serde_json::json;
use sluicegate_policy::{Host, Target, suggest};

use super::{
    super::failure::Failure,
    log::{self, Passed, Seen, Verdict},
    output, yaml,
};

/// `policy suggest`.
#[derive(Debug, Args)]
pub(in crate::cli) struct SuggestArgs {
    /// The access log of a run in report mode: one JSON record per line; - for standard input.
    access_log: PathBuf,
    /// Only this session's records.
    #[arg(long)]
    session: Option<String>,
    /// Write `*.parent` for several names directly below the same domain. Allows more than was seen.
    #[arg(long)]
    collapse: bool,
    /// How many names that takes.
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
                self.reached.insert(seen.target);
            }
            Verdict::Refused(_) | Verdict::Address(_) => self.refused += 1,
        }
    }

    /// What was left out, and why.
    fn left_out(&self, passed: &Passed) -> Vec<String> {
        let names = |list: &BTreeSet<Target>| {
            let shown: Vec<String> = list.iter().take(5).map(ToString::to_string).collect();
            let more = if list.len() > shown.len() {
                ", …"
            } else {
                ""
            };
            format!("{}{more}", shown.join(", "))
        };
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

pub(in crate::cli) fn run(args: &SuggestArgs) -> Result<(), Failure> {
    let mut shown = Shown::default();
    let passed = log::read(&args.access_log, args.session.as_deref(), |seen| {
        shown.add(seen)
    })?;
    let collapse = args.collapse.then_some(args.min);
    let egress = suggest(&shown.reached, shown.dialled.iter().copied(), collapse).to_value();
    let mut notes = shown.left_out(&passed);
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
        eprintln!("{}: {note}", args.access_log.display());
    }
    say_whole!("{}", yaml::block(&egress));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{super::log, Shown};

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
        let passed = log::read_lines(text.as_bytes(), None, |seen| shown.add(seen)).unwrap();
        let reached: Vec<String> = shown.reached.iter().map(ToString::to_string).collect();
        assert_eq!(reached, ["both.test:443"]);
        let notes = shown.left_out(&passed);
        assert_eq!(
            notes,
            ["left out, as every tunnel to them was cut for the bytes in it: cut.test:443"]
        );
    }
}
