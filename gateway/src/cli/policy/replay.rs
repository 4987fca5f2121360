//! `policy replay`: the targets of an access log, decided again under another policy.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use clap::Args;
use serde::Serialize;
use sluicegate_policy::{Denial, Host, admit, decide};

use super::{
    super::failure::{FAILED, Failure},
    GrantArgs,
    log::{self, Seen, Verdict},
    output,
    source::{self, Policy},
};

#[cfg(test)]
mod tests;

/// `policy replay`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ReplayArgs {
    /// The access log: one JSON record per line; - for standard input.
    access_log: PathBuf,
    /// The policy to decide by: an `egress` block, or a configuration file.
    #[arg(long, value_name = "FILE")]
    against: PathBuf,
    /// The provider whose sessions are meant, in a configuration file; the default one where absent.
    #[arg(long)]
    provider: Option<String>,
    #[command(flatten)]
    grant: GrantArgs,
    /// Only this session's records.
    #[arg(long)]
    session: Option<String>,
    /// Targets shown of each kind of change; JSON has them all.
    #[arg(long, default_value_t = 20)]
    examples: usize,
    /// Exit with 1 where anything is decided differently.
    #[arg(long)]
    fail_on_change: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn run(args: &ReplayArgs) -> Result<(), Failure> {
    let asked = source::asked(args.grant.to_document()?)?;
    let policy = source::load(&args.against, args.provider.as_deref(), &asked)?;
    let mut difference = Difference::default();
    let passed = log::read(&args.access_log, args.session.as_deref(), |seen| {
        difference.add(&policy, &seen);
    })?;
    difference.unjudged = passed.unjudged;
    difference.malformed = passed.malformed;
    difference.malformed_lines = passed.named;
    if args.json {
        let told = serde_json::to_value(&difference)
            .map_err(|error| Failure::new(FAILED, error.to_string()))?;
        say!("{told:#}");
    } else {
        say_whole!("{}", difference.told(args.examples));
        for line in &difference.malformed_lines {
            eprintln!("{}: {}", args.access_log.display(), output::printable(line));
        }
    }
    if args.fail_on_change && difference.is_change() {
        return Err(Failure::new(FAILED, "the policies decide differently"));
    }
    Ok(())
}

/// What the new policy says otherwise.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    records: usize,
    still_allowed: usize,
    still_denied: usize,
    newly_denied: Changes,
    newly_allowed: Changes,
    /// Refused before for what the name resolved to, which this log does not say; the new policy allows the name.
    unknown: Changes,
    /// Allowed, because the new policy only reports; counted among the allowed.
    would_refuse: usize,
    unjudged: usize,
    malformed: usize,
    malformed_lines: Vec<String>,
}

/// Changes of one kind, by target.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Changes {
    records: usize,
    targets: BTreeMap<String, Change>,
}

/// Why, and how often.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Change {
    records: usize,
    /// The new refusal's reason; of what is newly allowed, the old one's.
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// What the new policy says of one record.
enum Now {
    Allowed { would_refuse: bool },
    Denied(Change),
}

impl Difference {
    fn add(&mut self, policy: &Policy, seen: &Seen) {
        self.records += 1;
        let now = judge(policy, seen);
        self.would_refuse += usize::from(matches!(now, Now::Allowed { would_refuse: true }));
        let known = matches!(seen.target.host(), Host::Ip(_)) || !seen.answers.is_empty();
        match (&seen.verdict, now) {
            (Verdict::Passed { .. }, Now::Allowed { .. }) => self.still_allowed += 1,
            (Verdict::Passed { .. }, Now::Denied(change)) => self.newly_denied.add(seen, change),
            (Verdict::Refused(_) | Verdict::Address(_), Now::Denied(_)) => self.still_denied += 1,
            // The gateway is no target of its own, whatever a policy says.
            (Verdict::Address(reason), _) if reason == Denial::OwnListener.reason() => {
                self.still_denied += 1;
            }
            (Verdict::Address(reason), Now::Allowed { .. }) if !known => {
                self.unknown.add(seen, Change::because(reason));
            }
            (Verdict::Refused(reason) | Verdict::Address(reason), Now::Allowed { .. }) => {
                self.newly_allowed.add(seen, Change::because(reason));
            }
        }
    }

    fn is_change(&self) -> bool {
        self.newly_denied.records + self.newly_allowed.records > 0
    }

    fn told(&self, examples: usize) -> String {
        let mut out = format!(
            "{} record(s) decided again: {} still allowed, {} still denied\n",
            self.records, self.still_allowed, self.still_denied
        );
        for (label, changes) in [
            ("newly denied", &self.newly_denied),
            ("newly allowed", &self.newly_allowed),
            (
                "unknown, as it depends on what the name resolves to",
                &self.unknown,
            ),
        ] {
            if changes.records == 0 && label.starts_with("unknown") {
                continue;
            }
            out.push_str(&changes.told(label, examples));
        }
        for (count, what) in [
            (
                self.would_refuse,
                "allowed only because the new policy reports",
            ),
            (
                self.unjudged,
                "record(s) passed over: policy had no say in them",
            ),
            (self.malformed, "malformed line(s) passed over"),
        ] {
            if count > 0 {
                out.push_str(&format!("{count} {what}\n"));
            }
        }
        out
    }
}

impl Changes {
    fn add(&mut self, seen: &Seen, change: Change) {
        self.records += 1;
        let entry = self
            .targets
            .entry(seen.target.to_string())
            .or_insert(change);
        entry.records += 1;
    }

    fn told(&self, label: &str, examples: usize) -> String {
        let mut out = format!(
            "{label}: {} record(s), {} target(s)\n",
            self.records,
            self.targets.len()
        );
        let mut rows: Vec<(&String, &Change)> = self.targets.iter().collect();
        rows.sort_by_key(|(_, change)| std::cmp::Reverse(change.records));
        for (target, change) in rows.iter().take(examples) {
            out.push_str(&format!(
                "  {target}  {}×  {}",
                change.records, change.reason
            ));
            for more in change.rule.iter().chain(&change.hint) {
                out.push_str(&format!("; {more}"));
            }
            out.push('\n');
        }
        if let Some(more) = rows.len().checked_sub(examples).filter(|more| *more > 0) {
            out.push_str(&format!("  … and {more} more\n"));
        }
        // The reason was read from a file.
        out.split_inclusive('\n')
            .map(|line| format!("{}\n", output::printable(line.trim_end_matches('\n'))))
            .collect()
    }
}

impl Change {
    fn because(reason: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            ..Self::default()
        }
    }
}

impl From<sluicegate_policy::Refusal> for Change {
    fn from(refusal: sluicegate_policy::Refusal) -> Self {
        Self {
            records: 0,
            reason: refusal.denial.reason().to_owned(),
            rule: refusal.rule.map(|rule| rule.to_string()),
            hint: refusal.hint.map(|hint| hint.to_string()),
        }
    }
}

/// The decision, then what is known of the request and of the address.
fn judge(policy: &Policy, seen: &Seen) -> Now {
    let permit = match decide(&policy.grant, &seen.target) {
        Ok(permit) => permit,
        Err(refusal) => return Now::Denied(refusal.into()),
    };
    let mut reported = permit.reported().is_some();
    if let Some(request) = &seen.request {
        match request.judge(&permit) {
            Ok(also) => reported |= also.is_some(),
            Err(refusal) => return Now::Denied(refusal.into()),
        }
    }
    let known = permit.known_answers(&policy.admission);
    let fixed: Option<Vec<IpAddr>> = known.map(<[IpAddr]>::to_vec);
    let then = || Some(seen.answers.clone()).filter(|answers| !answers.is_empty());
    if let Some(answers) = fixed.or_else(then)
        && let Err(refusal) = admit(&policy.grant, &permit, &answers, &policy.admission)
    {
        return Now::Denied(refusal.into());
    }
    Now::Allowed {
        would_refuse: reported,
    }
}
