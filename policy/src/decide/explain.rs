//! The decision, told.

use super::{
    Admission, Supposed, TargetPermit, admit, decide_at,
    judge::{Stage, Verdict, judge},
};
use crate::{Action, Grant, HintFor, Mode, Refusal, Target, TlsRule, hint::entry};
use std::sync::Arc;

/// Everything `decide` looked at, for people.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// `host:port`
    pub target: String,
    /// `allow` or `deny`
    pub outcome: &'static str,
    /// The reason token of a refusal (in report mode: of what would be refused).
    pub reason: Option<&'static str>,
    /// The entry that decided.
    pub rule: Option<String>,
    /// Whose document it stands in: `operator`, `capability` or `session`. Of a policy that stands alone it is the operator's.
    pub origin: Option<&'static str>,
    /// What would change it.
    pub hint: Option<String>,
    /// Who can do that: `operator`, `session` or `client`; nothing where nobody can, or where it is not known.
    pub hint_for: Option<&'static str>,
    /// Steps, in order, each a sentence.
    pub steps: Vec<String>,
}

/// `decide`, told, and `admit` where no resolver needs to be asked: the target is an address itself, or has static answers.
/// Never differs from them.
#[must_use]
pub fn explain(grant: &Arc<Grant>, target: &Target, admission: &Admission) -> Explanation {
    explain_supposing(grant, target, admission, &Supposed::default())
}

/// The same, and what becomes of what is supposed: by the functions that judge it where it happens.
#[must_use]
pub fn explain_supposing(
    grant: &Arc<Grant>,
    target: &Target,
    admission: &Admission,
    supposed: &Supposed,
) -> Explanation {
    let mut steps = steps(grant, target);
    let decided = decide_at(grant, target, admission).and_then(|permit| {
        let also = judge_supposed(grant, &permit, admission, supposed, &mut steps)?;
        Ok((permit, also))
    });
    match decided {
        Ok((permit, also)) => {
            let reported = permit.reported().or(also.as_ref());
            if reported.is_some() {
                steps.push("mode is report: it passes and is recorded.".to_owned());
            }
            let tls = match permit.tls() {
                TlsRule::Require => "must be TLS naming the target",
                TlsRule::Auto => "must name the target if they are TLS or HTTP",
                TlsRule::Opaque => "may be anything",
            };
            steps.push(format!("The first bytes {tls}."));
            for http in permit.http() {
                let any = |list: &[String]| {
                    if list.is_empty() {
                        "any".to_owned()
                    } else {
                        list.join(", ")
                    }
                };
                let (methods, paths) = (any(&http.methods), any(&http.path_prefixes));
                steps.push(format!("HTTP methods: {methods}; path prefixes: {paths}."));
            }
            let rule = permit.rule();
            Explanation {
                target: target.to_string(),
                outcome: "allow",
                reason: reported.map(|refusal| refusal.denial.reason()),
                origin: Some(rule.origin().as_str()),
                rule: Some(rule.to_string()),
                hint: match reported {
                    Some(refusal) => refusal.hint.as_ref().map(ToString::to_string),
                    None => Some(format!(
                        "add \"{}\" to egress.deniedHosts to refuse it",
                        entry(target.host(), target.port())
                    )),
                },
                hint_for: match reported {
                    Some(refusal) => hint_for(refusal),
                    None => Some(HintFor::Session.as_str()),
                },
                steps,
            }
        }
        Err(refusal) => Explanation {
            target: target.to_string(),
            outcome: "deny",
            reason: Some(refusal.denial.reason()),
            origin: refusal.rule.as_ref().map(|rule| rule.origin().as_str()),
            hint_for: hint_for(&refusal),
            rule: refusal.rule.map(|rule| rule.to_string()),
            hint: refusal.hint.map(|hint| hint.to_string()),
            steps,
        },
    }
}

fn hint_for(refusal: &Refusal) -> Option<&'static str> {
    let hint = refusal.hint.as_ref()?;
    hint.whose().map(HintFor::as_str)
}

/// What comes behind the decision, in the order in which it comes: the request, the addresses, the first bytes. The answer is what
/// report mode lets pass.
fn judge_supposed(
    grant: &Grant,
    permit: &TargetPermit,
    admission: &Admission,
    supposed: &Supposed,
    steps: &mut Vec<String>,
) -> Result<Option<Refusal>, Refusal> {
    let mut reported = None;
    for (place, (method, path)) in supposed.requests.iter().enumerate() {
        let judged = permit.judge_http(method, path).inspect_err(|refusal| {
            if place > 0 {
                steps.push(format!("A server may read it as {method} {path}."));
            }
            steps.push(refusal.denial.describe().to_owned());
        })?;
        reported = reported.or(judged);
    }
    let known = permit.known_answers(admission);
    match known.or(supposed.addresses.as_deref()) {
        Some(answers) => {
            admit(grant, permit, answers, admission).inspect_err(|refusal| {
                let reason = refusal.denial.describe();
                steps.push(format!(
                    "The address is judged like an answer of DNS. {reason}"
                ));
            })?;
        }
        None => steps.push("What the name resolves to is judged too, when it is asked.".to_owned()),
    }
    if let Some(began) = &supposed.began
        && let Err(denial) = permit.judge_began(began)
    {
        steps.push(denial.describe().to_owned());
        return Err(permit.refuse(denial, Some(began)));
    }
    Ok(reported)
}

/// One sentence per step that was taken, up to the one that decided.
fn steps(grant: &Grant, target: &Target) -> Vec<String> {
    let egress = &grant.egress;
    let (stage, rule) = match judge(grant, target) {
        Verdict::Allowed(_) if egress.allow.is_some() => (None, None),
        Verdict::Allowed(_) => (Some(Stage::Default), None),
        Verdict::Refused { stage, refusal } => (Some(stage), refusal.rule),
    };
    let rule = rule.map(|rule| rule.to_string()).unwrap_or_default();
    let host = target.host();
    let mut steps = Vec::new();
    if stage == Some(Stage::Metadata) {
        steps.push(format!(
            "{host} is a metadata service, and the operator's ceiling does not name it."
        ));
        return steps;
    }
    if stage == Some(Stage::BoundDeny) {
        steps.push(format!("The operator's ceiling denies it: {rule}."));
        return steps;
    }
    if stage == Some(Stage::BoundAllow) {
        steps.push("The operator's ceiling does not hold it.".to_owned());
        return steps;
    }
    steps.push("The operator's ceiling holds it.".to_owned());
    if stage == Some(Stage::Held) {
        steps.push(format!(
            "Denied by {rule}, which mode: report of a document below does not lift."
        ));
        return steps;
    }
    if stage == Some(Stage::Deny) {
        steps.push(format!("Denied by {rule}; denies always win."));
        return steps;
    }
    steps.push("No entry of deniedHosts covers it.".to_owned());
    steps.push(match (&egress.allow, stage) {
        (Some(_), None) => "An entry of allowedHosts covers host and port.".to_owned(),
        (Some(_), _) if rule.is_empty() => "No entry of allowedHosts covers the host.".to_owned(),
        (Some(_), _) => format!("{rule} covers the host, on other ports."),
        (None, _) => match egress.default {
            Action::Allow => "allowedHosts is absent and the default is allow.".to_owned(),
            Action::Deny => "allowedHosts is absent and the default is deny.".to_owned(),
        },
    });
    if grant.mode == Mode::Enforce && stage.is_some() && egress.allow.is_some() {
        steps.push("Nothing else can allow it.".to_owned());
    }
    steps
}
