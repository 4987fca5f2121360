//! `policy test`: expectations written in YAML, each held against the one decision.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use sluicegate_policy::{
    Target, admit, decide_at,
    text::{self, Faults, Fields, Node, Position},
};

use super::{
    super::failure::{FAILED, Failure, USAGE},
    output,
    source::{self, Policy},
};
use crate::{egress::Asked, message::overrides, session::AskedGrant};

#[cfg(test)]
mod tests;

/// `policy test`.
#[derive(Debug, Args)]
pub(in crate::cli) struct TestArgs {
    /// `{policy: BLOCK or FILE, or config: FILE and provider: NAME; session: what one asks for beside it; tests: [{target,
    /// expect, reason?, rule?, addresses?, method?, path?, fields?}]}`; files are meant from where this one is.
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn run(args: &TestArgs) -> Result<(), Failure> {
    let name = args.file.display().to_string();
    let source = source::read_text(&args.file)?;
    let suite = read(&source, &args.file)?;
    let results: Vec<(&Expectation, Found)> = suite
        .expectations
        .iter()
        .map(|expectation| (expectation, find(&suite.policy, expectation)))
        .collect();
    let mut failed = 0_usize;
    let mut told = Vec::new();
    for (expectation, found) in &results {
        let differences = expectation.differences(found);
        failed += usize::from(!differences.is_empty());
        if args.json {
            told.push(json!({
                "position": expectation.position,
                "target": expectation.target,
                "passed": differences.is_empty(),
                "differences": differences,
                "outcome": found.outcome(),
                "reason": found.reason,
                "rule": found.rule,
            }));
        } else if !differences.is_empty() {
            let line = format!(
                "{name}:{}: {}: {}",
                expectation.position,
                expectation.target,
                differences.join("; ")
            );
            say!("{}", output::printable(&line));
        }
    }
    let passed = results.len() - failed;
    if args.json {
        say!(
            "{:#}",
            json!({ "passed": passed, "failed": failed, "tests": told })
        );
    } else {
        say!("{passed} passed, {failed} failed");
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

/// One entry of `tests`.
#[derive(Debug)]
struct Expectation {
    position: Position,
    target: String,
    allow: bool,
    reason: Option<String>,
    rule: Option<String>,
    /// What the name would resolve to, perhaps nothing; absent = not asked.
    addresses: Option<Vec<IpAddr>>,
    /// A plain HTTP request, by all the methods and paths it may be read as; absent = not asked.
    request: Option<Asked>,
}

/// What the policy says.
#[derive(Debug, Default, PartialEq)]
struct Found {
    allow: bool,
    reason: Option<String>,
    rule: Option<String>,
    hint: Option<String>,
}

impl Found {
    fn outcome(&self) -> &'static str {
        word(self.allow)
    }
}

impl From<sluicegate_policy::Refusal> for Found {
    fn from(refusal: sluicegate_policy::Refusal) -> Self {
        Self {
            allow: false,
            reason: Some(refusal.denial.reason().to_owned()),
            rule: refusal.rule.map(|rule| rule.to_string()),
            hint: refusal.hint.map(|hint| hint.to_string()),
        }
    }
}

fn word(allow: bool) -> &'static str {
    if allow { "allow" } else { "deny" }
}

impl Expectation {
    /// What is not as expected, each a sentence.
    fn differences(&self, found: &Found) -> Vec<String> {
        let mut out = Vec::new();
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
        if self.allow != found.allow {
            let mut line = format!("expected {}, found {}", word(self.allow), found.outcome());
            for (label, value) in [
                ("reason", &found.reason),
                ("rule", &found.rule),
                ("hint", &found.hint),
            ] {
                if let Some(value) = value {
                    line.push_str(&format!(", {label}: {value}"));
                }
            }
            out.push(line);
        }
        if self.reason.is_some() && self.reason != found.reason {
            out.push(format!(
                "expected reason {}, found {}",
                shown(&self.reason),
                shown(&found.reason)
            ));
        }
        if let Some(rule) = &self.rule
            && !found
                .rule
                .as_deref()
                .is_some_and(|found| is_rule(rule, found))
        {
            out.push(format!(
                "expected rule {rule}, found {}",
                shown(&found.rule)
            ));
        }
        out
    }
}

/// A rule is named whole (`allowedHosts[0] "a.test"`), by its place (`allowedHosts[0]`) or by its entry (`a.test`).
fn is_rule(wanted: &str, found: &str) -> bool {
    let (place, entry) = found.split_once(' ').unwrap_or((found, ""));
    wanted == found || wanted == place || (!entry.is_empty() && wanted == entry.trim_matches('"'))
}

fn find(policy: &Policy, expectation: &Expectation) -> Found {
    let Ok(target) = Target::from_uri_authority(&expectation.target, 443) else {
        return sluicegate_policy::Refusal::from(sluicegate_policy::Denial::MalformedTarget).into();
    };
    let permit = match decide_at(&policy.grant, &target, &policy.admission) {
        Ok(permit) => permit,
        Err(refusal) => return refusal.into(),
    };
    let mut reported = permit.reported().cloned();
    if let Some(request) = &expectation.request {
        match request.judge(&permit) {
            Ok(also) => reported = reported.or(also),
            Err(refusal) => return refusal.into(),
        }
    }
    // A literal and a static answer are known; what else a name resolves to, the expectation has to say.
    let known = permit.known_answers(&policy.admission);
    let answers = known.or(expectation.addresses.as_deref());
    if let Some(answers) = answers
        && let Err(refusal) = admit(&policy.grant, &permit, answers, &policy.admission)
    {
        return refusal.into();
    }
    Found {
        allow: true,
        reason: reported
            .as_ref()
            .map(|refusal| refusal.denial.reason().to_owned()),
        rule: Some(permit.rule().to_string()),
        hint: reported
            .as_ref()
            .and_then(|refusal| Some(refusal.hint.as_ref()?.to_string())),
    }
}

fn read(source: &str, path: &Path) -> Result<Suite, Failure> {
    let name = path.display().to_string();
    let mut faults = Faults::default();
    let root = text::parse(source, &mut faults);
    let mut fields = root.fields(&mut faults);
    let policy = read_policy(&mut fields, &root, path, &mut faults)?;
    let tests = fields.require("tests", &mut faults);
    fields.finish(&mut faults);
    let items = tests.map(|node| node.list(&mut faults)).unwrap_or_default();
    if let (Some(node), true) = (tests, items.is_empty() && faults.is_clean()) {
        // A suite that tests nothing passes for ever.
        faults.error(node.place(), "there is no test in it");
    }
    let expectations = items
        .iter()
        .filter_map(|item| expectation(item, &mut faults))
        .collect();
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

fn expectation(node: &Node, faults: &mut Faults) -> Option<Expectation> {
    let mut fields = node.fields(faults);
    let target = fields
        .require("target", faults)
        .and_then(|node| node.scalar(faults));
    let allow = fields
        .require("expect", faults)
        .and_then(|node| node.choice(&[("allow", true), ("deny", false)], faults));
    let mut word = |key, faults: &mut Faults| {
        let node: Option<&Node> = fields.take(key);
        node.and_then(|node| node.scalar(faults)).map(str::to_owned)
    };
    let (reason, rule) = (word("reason", faults), word("rule", faults));
    let (method, path) = (word("method", faults), word("path", faults));
    let said = fields.take("fields");
    let said = said.map(|node| header_fields(node, faults));
    let known = |reason: &String| {
        sluicegate_policy::Denial::ALL
            .iter()
            .any(|denial| denial.reason() == reason)
    };
    let addresses = fields.take("addresses");
    if let Some(unknown) = reason.as_ref().filter(|reason| !known(reason)) {
        faults.error(node.place(), format!("there is no reason {unknown:?}"));
    }
    fields.finish(faults);
    let items = addresses.map(|node| node.list(faults));
    let mut address = |item: &Node| match item.scalar(faults)?.parse() {
        Ok(address) => Some(address),
        Err(_) => item.expected("an IP address", faults),
    };
    let answers = items.map(|items| items.iter().filter_map(&mut address).collect());
    let asked = method.is_some() || path.is_some() || said.is_some();
    let request = asked.then(|| {
        let method = method.as_deref().unwrap_or("GET");
        let path = path.as_deref().unwrap_or("/");
        Asked::new(overrides::read_as(method, path, &said.unwrap_or_default()))
    });
    Some(Expectation {
        position: node.position(),
        target: target?.to_owned(),
        allow: allow?,
        reason,
        rule,
        addresses: answers,
        request,
    })
}

/// `{NAME: VALUE or [VALUE, …]}`: fields of a request.
fn header_fields(node: &Node, faults: &mut Faults) -> HeaderMap {
    let mut found = HeaderMap::new();
    for (name, value) in node.entries(faults) {
        let Ok(name) = name.parse::<HeaderName>() else {
            faults.error(&value.key_place(), format!("{name:?} is no field name"));
            continue;
        };
        let items = if value.is_list() {
            value.list(faults)
        } else {
            std::slice::from_ref(value)
        };
        for item in items {
            match item.scalar(faults).map(HeaderValue::from_str) {
                Some(Ok(value)) => {
                    found.append(&name, value);
                }
                Some(Err(_)) => {
                    item.expected::<()>("a field value", faults);
                }
                None => {}
            }
        }
    }
    found
}
