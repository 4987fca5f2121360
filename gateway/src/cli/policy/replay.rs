//! `policy replay`: the targets of an access log, decided again under another policy.

use std::path::PathBuf;

use clap::Args;

use super::{
    super::failure::{FAILED, Failure},
    GrantArgs, log, output, source,
};
use crate::trial::{Change, Changes, Difference, Outcome};

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
    /// Exit with 1 where anything is decided differently, or cannot be decided again.
    #[arg(long)]
    fail_on_change: bool,
    /// What cannot be decided again, as the log does not say enough or a line is no record, is no failure.
    #[arg(long, requires = "fail_on_change")]
    allow_unknown: bool,
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
    difference.passed_over(passed);
    if args.json {
        say!("{:#}", difference.to_json());
    } else {
        say_whole!("{}", told(&difference, args.examples));
        for line in &difference.malformed_lines {
            note!("{}: {}", args.access_log.display(), output::printable(line));
        }
    }
    if !args.fail_on_change {
        return Ok(());
    }
    let undecided = difference.undecided();
    let undecided = undecided.map(|what| output::printable(&what));
    let why = match (difference.outcome(), undecided) {
        (Outcome::Changed, None) => "the policies decide differently".to_owned(),
        (Outcome::Changed, Some(more)) => format!("the policies decide differently; {more}"),
        (Outcome::Unknown, Some(what)) if !args.allow_unknown => format!(
            "whether the policies decide differently is not known; {what} (--allow-unknown lets that pass)"
        ),
        (Outcome::Unknown | Outcome::Same, _) => return Ok(()),
    };
    Err(Failure::new(FAILED, why))
}

/// The difference, for people.
fn told(of: &Difference, examples: usize) -> String {
    let mut out = format!(
        "{} record(s) decided again: {} still allowed, {} still denied\n",
        of.records, of.still_allowed, of.still_denied
    );
    for (label, changes) in [
        ("newly denied", &of.newly_denied),
        ("newly allowed", &of.newly_allowed),
        (
            "unknown, as it depends on what the log does not say",
            &of.unknown,
        ),
    ] {
        if changes.records == 0 && label.starts_with("unknown") {
            continue;
        }
        out.push_str(&told_of(changes, label, examples));
    }
    for (count, what) in [
        (
            of.would_refuse,
            "allowed only because the new policy reports",
        ),
        (
            of.unjudged,
            "record(s) passed over: policy had no say in them",
        ),
        (of.malformed, "malformed line(s) passed over"),
    ] {
        if count > 0 {
            out.push_str(&format!("{count} {what}\n"));
        }
    }
    out
}

fn told_of(of: &Changes, label: &str, examples: usize) -> String {
    let mut out = format!(
        "{label}: {} record(s), {} target(s)\n",
        of.records,
        of.targets.len()
    );
    let mut rows: Vec<(&String, &Change)> = of.targets.iter().collect();
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
