//! Targets of access records, decided again under another policy.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Serialize;
use serde_json::{Value, json};
use sluicegate_policy::{Denial, FirstBytes, Host, TargetPermit, TlsRule, admit, decide};

use super::{
    Policy,
    records::{Bytes, Passed, Seen, Verdict},
};

/// What the new policy says otherwise.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Difference {
    pub(crate) records: usize,
    pub(crate) still_allowed: usize,
    pub(crate) still_denied: usize,
    pub(crate) newly_denied: Changes,
    pub(crate) newly_allowed: Changes,
    /// What the new policy decides by, the log does not say: what a name resolved to that was refused for it, or a tunnel's first
    /// bytes.
    pub(crate) unknown: Changes,
    /// Allowed, because the new policy only reports; counted among the allowed.
    pub(crate) would_refuse: usize,
    pub(crate) unjudged: usize,
    pub(crate) malformed: usize,
    pub(crate) malformed_lines: Vec<String>,
}

/// What comes of a whole log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// All that policy had a say in was decided again, and as before.
    Same,
    /// Something is decided otherwise.
    Changed,
    /// Nothing that could be decided again is decided otherwise. Something could not.
    Unknown,
}

/// Changes of one kind, by target.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct Changes {
    pub(crate) records: usize,
    /// Records of each reason.
    pub(crate) reasons: BTreeMap<String, usize>,
    pub(crate) targets: BTreeMap<String, Change>,
}

/// Why, and how often.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct Change {
    pub(crate) records: usize,
    /// The new refusal's reason; of what is newly allowed, the old one's.
    pub(crate) reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

/// What the new policy says of one record.
enum Now {
    Allowed {
        would_refuse: bool,
    },
    Denied(Change),
    /// It depends on what the log does not say.
    Unknown(&'static str),
}

impl Difference {
    /// What held no judged target.
    pub(crate) fn passed_over(&mut self, passed: Passed) {
        self.unjudged = passed.unjudged;
        self.malformed = passed.malformed;
        self.malformed_lines = passed.named;
    }

    /// Decide one more record.
    pub(crate) fn add(&mut self, policy: &Policy, seen: &Seen) {
        self.records += 1;
        let now = judge(policy, seen);
        self.would_refuse += usize::from(matches!(now, Now::Allowed { would_refuse: true }));
        let known = matches!(seen.target.host(), Host::Ip(_)) || !seen.answers.is_empty();
        // What was cut for its first bytes was let through as a target, and no further.
        let before = match seen.cut {
            Some(denial) => Verdict::Refused(denial.reason().to_owned()),
            None => seen.verdict.clone(),
        };
        match (&before, now) {
            (_, Now::Unknown(why)) => self.unknown.add(seen, Change::because(why)),
            (Verdict::Passed { .. }, Now::Allowed { .. }) => self.still_allowed += 1,
            (Verdict::Passed { .. }, Now::Denied(change)) => self.newly_denied.add(seen, change),
            (Verdict::Refused(_) | Verdict::Address(_), Now::Denied(_)) => self.still_denied += 1,
            // The gateway is no target of its own, whatever a policy says.
            (Verdict::Address(reason), _) if reason == Denial::OwnListener.reason() => {
                self.still_denied += 1;
            }
            (Verdict::Address(reason), Now::Allowed { .. }) if !known => {
                let why = format!("{reason}, for answers which the record does not tell");
                self.unknown.add(seen, Change::because(&why));
            }
            (Verdict::Refused(reason) | Verdict::Address(reason), Now::Allowed { .. }) => {
                self.newly_allowed.add(seen, Change::because(reason));
            }
        }
    }

    /// What it comes to. A line that is no record might be of anything.
    pub(crate) fn outcome(&self) -> Outcome {
        if self.newly_denied.records + self.newly_allowed.records > 0 {
            Outcome::Changed
        } else if self.unknown.records + self.malformed > 0 {
            Outcome::Unknown
        } else {
            Outcome::Same
        }
    }

    /// What could not be decided again, and why, in one sentence; `None` where there is nothing.
    pub(crate) fn undecided(&self) -> Option<String> {
        let reasons = self.unknown.reasons.iter();
        let mut parts: Vec<String> = reasons
            .map(|(reason, records)| format!("{records}× {reason}"))
            .collect();
        if self.malformed > 0 {
            parts.push(format!("{}× no record", self.malformed));
        }
        let count = self.unknown.records + self.malformed;
        (count > 0).then(|| format!("{count} not decided again: {}", parts.join("; ")))
    }

    /// With what it comes to.
    pub(crate) fn to_json(&self) -> Value {
        #[derive(Serialize)]
        struct Told<'d> {
            outcome: Outcome,
            #[serde(flatten)]
            difference: &'d Difference,
        }
        json!(Told {
            outcome: self.outcome(),
            difference: self,
        })
    }
}

impl Changes {
    fn add(&mut self, seen: &Seen, change: Change) {
        self.records += 1;
        *self.reasons.entry(change.reason.clone()).or_default() += 1;
        let entry = self
            .targets
            .entry(seen.target.to_string())
            .or_insert(change);
        entry.records += 1;
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
    if let Some(other) = judge_bytes(&permit, &seen.bytes) {
        return other;
    }
    Now::Allowed {
        would_refuse: reported,
    }
}

/// What becomes of a tunnel that began so; `None` where it passes.
fn judge_bytes(permit: &TargetPermit, bytes: &Bytes) -> Option<Now> {
    const UNKNOWN: &str = "first bytes, which the record does not tell";
    if permit.tls() == TlsRule::Opaque {
        return None;
    }
    let (denial, seen) = match bytes {
        Bytes::None => return None,
        Bytes::Unknown | Bytes::Began(FirstBytes::Unseen) => return Some(Now::Unknown(UNKNOWN)),
        // Silence is waited out where the server may speak first.
        Bytes::Unreadable(Denial::FirstBytesTimeout) if permit.tls() == TlsRule::Auto => {
            return Some(Now::Unknown(UNKNOWN));
        }
        Bytes::Unreadable(denial) => (*denial, None),
        Bytes::Began(began) => (permit.judge_began(began).err()?, Some(began)),
    };
    Some(Now::Denied(permit.refuse(denial, seen).into()))
}
