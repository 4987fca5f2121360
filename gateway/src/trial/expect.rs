//! Expectations of a policy, each held against the one decision.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use sluicegate_policy::{
    FirstBytes, Supposed, Target, admit, decide_at,
    text::{Faults, Fields, Node, Place, Position},
};

use super::Policy;
use crate::{egress::Asked, message::overrides};

/// One entry of `tests`.
#[derive(Debug)]
pub(crate) struct Expectation {
    pub(crate) position: Position,
    pub(crate) target: String,
    allow: bool,
    reason: Option<String>,
    rule: Option<String>,
    /// What the name would resolve to, perhaps nothing; absent = not asked.
    addresses: Option<Vec<IpAddr>>,
    /// A plain HTTP request, by all the methods and paths it may be read as; absent = not asked.
    request: Option<Asked>,
    /// What a tunnel would begin with; absent = not asked.
    began: Option<FirstBytes>,
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
    /// The tests of a suite; a suite that tests nothing would pass for ever.
    pub(crate) fn read_all(node: &Node, faults: &mut Faults) -> Vec<Self> {
        let items = node.list(faults);
        if items.is_empty() && faults.is_clean() {
            faults.error(node.place(), "there is no test in it");
        }
        let read = items.iter().filter_map(|item| expectation(item, faults));
        read.collect()
    }

    /// How many decisions it takes: one for its target, one for each address, and one for each other request it may be read as.
    pub(crate) fn decisions(&self) -> usize {
        let addresses = self.addresses.as_ref().map_or(0, Vec::len);
        let readings = self.request.as_ref().map_or(1, |all| all.read_as().count());
        addresses + readings.max(1)
    }

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
    if let Some(began) = &expectation.began
        && let Err(denial) = permit.judge_began(began)
    {
        return permit.refuse(denial, Some(began)).into();
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

/// One expectation, held against a policy.
#[derive(Debug)]
pub(crate) struct Tried<'e> {
    pub(crate) expectation: &'e Expectation,
    found: Found,
    /// What is not as expected, each a sentence.
    pub(crate) differences: Vec<String>,
}

impl<'e> Tried<'e> {
    /// Decide, and compare.
    pub(crate) fn of(policy: &Policy, expectation: &'e Expectation) -> Self {
        let found = find(policy, expectation);
        Self {
            differences: expectation.differences(&found),
            expectation,
            found,
        }
    }

    /// Is it as expected?
    pub(crate) fn is_met(&self) -> bool {
        self.differences.is_empty()
    }

    fn to_json(&self) -> Value {
        json!({
            "position": self.expectation.position,
            "target": self.expectation.target,
            "passed": self.is_met(),
            "differences": self.differences,
            "outcome": self.found.outcome(),
            "reason": self.found.reason,
            "rule": self.found.rule,
        })
    }
}

/// `{passed, failed, tests}`.
pub(crate) fn tried_to_json(tried: &[Tried<'_>]) -> Value {
    let met = tried.iter().filter(|one| one.is_met()).count();
    let tests: Vec<Value> = tried.iter().map(Tried::to_json).collect();
    json!({ "passed": met, "failed": tried.len() - met, "tests": tests })
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
    let readings = readings(&mut fields, node.place(), faults);
    let known = |reason: &String| {
        sluicegate_policy::Denial::ALL
            .iter()
            .any(|denial| denial.reason() == reason)
    };
    let addresses = fields.take("addresses");
    let began = fields.take("began");
    let began = began.and_then(|node| FirstBytes::read(node, faults));
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
    let request = (!readings.is_empty()).then(|| Asked::new(readings.into_iter()));
    Some(Expectation {
        position: node.position(),
        target: target?.to_owned(),
        allow: allow?,
        reason,
        rule,
        addresses: answers,
        request,
        began,
    })
}

/// What `method`, `path` and `fields` say of a plain request: each method and path that a server may read in it, its own first; nothing
/// where none of them is there.
fn readings(fields: &mut Fields<'_>, place: &Place, faults: &mut Faults) -> Vec<(String, String)> {
    let mut word = |key, faults: &mut Faults| {
        let node: Option<&Node> = fields.take(key);
        node.and_then(|node| node.scalar(faults)).map(str::to_owned)
    };
    let (method, path) = (word("method", faults), word("path", faults));
    let said = fields.take("fields");
    let said = said.map(|node| header_fields(node, faults));
    if method.is_none() && path.is_none() && said.is_none() {
        return Vec::new();
    }
    let (method, path) = (
        method.as_deref().unwrap_or("GET"),
        path.as_deref().unwrap_or("/"),
    );
    let said = said.unwrap_or_default();
    let Some(all) = overrides::readings(method, path, &said) else {
        let message = format!("it may be read as more than {} requests", overrides::MOST);
        faults.error(place, message);
        return Vec::new();
    };
    let all = all.into_iter();
    all.map(|(method, path)| (method.into_owned(), path.into_owned()))
        .collect()
}

/// What is supposed of an open beside its target: `addresses`, `began`, and a plain request as the proxy reads it (`method`, `path`, `fields`).
pub(crate) fn supposed(fields: &mut Fields<'_>, faults: &mut Faults) -> Supposed {
    Supposed {
        requests: readings(fields, &Place::default(), faults),
        ..Supposed::take(fields, faults)
    }
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
                    let full = found.try_append(&name, value).is_err();
                    if full {
                        item.expected::<()>("fewer fields", faults);
                        return found;
                    }
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
