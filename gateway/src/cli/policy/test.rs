//! `policy test`: expectations written in YAML, each held against the one decision.

use std::path::{Path, PathBuf};

use clap::Args;
use sluicegate_policy::text::{self, Faults, Fields, Node};

use super::{
    super::failure::{FAILED, Failure, USAGE},
    output, source,
};
use crate::{
    session::AskedGrant,
    trial::{self, Expectation, Policy, Tried},
};

#[cfg(test)]
mod tests;

/// `policy test`.
#[derive(Debug, Args)]
pub(in crate::cli) struct TestArgs {
    /// `{policy: BLOCK or FILE, or config: FILE and provider: NAME; session: what one asks for beside it; tests: [{target,
    /// expect, reason?, rule?, addresses?, method?, path?, fields?, began?}]}`; files are meant from where this one is.
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn run(args: &TestArgs) -> Result<(), Failure> {
    let name = args.file.display().to_string();
    let source = source::read_text(&args.file)?;
    let suite = read(&source, &args.file)?;
    let tried = suite.expectations.iter();
    let tried: Vec<Tried<'_>> = tried.map(|one| Tried::of(&suite.policy, one)).collect();
    let failed = tried.iter().filter(|one| !one.is_met()).count();
    if args.json {
        say!("{:#}", trial::tried_to_json(&tried));
    } else {
        for one in tried.iter().filter(|one| !one.is_met()) {
            let line = format!(
                "{name}:{}: {}: {}",
                one.expectation.position,
                one.expectation.target,
                one.differences.join("; ")
            );
            say!("{}", output::printable(&line));
        }
        say!("{} passed, {failed} failed", tried.len() - failed);
    }
    if failed > 0 {
        return Err(Failure::new(
            FAILED,
            format!("{name}: {failed} expectation(s) not met"),
        ));
    }
    Ok(())
}

struct Suite {
    policy: Policy,
    expectations: Vec<Expectation>,
}

fn read(source: &str, path: &Path) -> Result<Suite, Failure> {
    let name = path.display().to_string();
    let mut faults = Faults::default();
    let root = text::parse(source, &mut faults);
    let mut fields = root.fields(&mut faults);
    let policy = read_policy(&mut fields, &root, path, &mut faults)?;
    let tests = fields.require("tests", &mut faults);
    fields.finish(&mut faults);
    let expectations = tests.map(|node| Expectation::read_all(node, &mut faults));
    let expectations = expectations.unwrap_or_default();
    if !faults.is_clean() {
        return Err(source::refused(&faults, source, &name));
    }
    let policy =
        policy.ok_or_else(|| Failure::new(USAGE, format!("{name}: no policy came of it")))?;
    Ok(Suite {
        policy,
        expectations,
    })
}

/// What is tested: `policy`, or `config` and perhaps `provider`; and what a `session` asks for beside it. Files are meant
/// from where the suite is.
fn read_policy(
    fields: &mut Fields<'_>,
    root: &Node,
    path: &Path,
    faults: &mut Faults,
) -> Result<Option<Policy>, Failure> {
    let inline = fields.take("policy");
    let config = fields.take("config");
    let provider = fields.take("provider");
    let provider = provider.and_then(|node| node.scalar(faults));
    let asked = fields.take("session").map(|node| {
        let mut fields = node.fields(faults);
        let asked = AskedGrant::take(&mut fields, faults);
        fields.finish(faults);
        asked
    });
    let asked = asked.unwrap_or_default();
    if !faults.is_clean() {
        // Half of what is asked for is no policy to test.
        return Ok(None);
    }
    let beside = |file: &str| path.parent().unwrap_or(Path::new("")).join(file);
    Ok(match (inline, config) {
        (Some(_), Some(node)) => {
            faults.error(&node.key_place(), "either policy or config, not both");
            None
        }
        (Some(node), None) if node.is_map() => source::read(node, faults)
            .map(|alone| alone.policy(&asked))
            .transpose()?,
        (Some(node), None) => match node.string(faults) {
            Some(file) => Some(source::load(&beside(file), provider, &asked)?),
            None => None,
        },
        (None, Some(node)) => match node.string(faults) {
            Some(file) => {
                let file = beside(file);
                let text = source::read_text(&file)?;
                Some(source::from_config(&text, &file, provider, &asked)?)
            }
            None => None,
        },
        (None, None) => {
            if root.is_map() {
                faults.error_hint(
                    root.place(),
                    "no policy to test",
                    "write policy: or config:",
                );
            }
            None
        }
    })
}
