//! One finding.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How a step went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// As it should.
    Ok,
    /// It works, but not as well as it could.
    Warning,
    /// It does not work.
    Failed,
    /// Not tried.
    Skipped,
}

impl Outcome {
    /// The word for it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// What was found, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How it went.
    pub outcome: Outcome,
    /// What was seen.
    pub detail: String,
    /// What to change; where something is to be changed.
    pub advice: Option<String>,
}

impl Finding {
    pub(super) fn ok(detail: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Ok,
            detail: detail.into(),
            advice: None,
        }
    }

    pub(super) fn skipped(detail: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Skipped,
            detail: detail.into(),
            advice: None,
        }
    }

    pub(super) fn failed(detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Failed,
            detail: detail.into(),
            advice: Some(advice.into()),
        }
    }
}

/// One step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// Which.
    pub name: String,
    /// What was found.
    pub finding: Finding,
    /// How long it took.
    pub took: Duration,
}

impl Check {
    pub(super) async fn of(name: impl Into<String>, work: impl Future<Output = Finding>) -> Self {
        let begun = Instant::now();
        let finding = work.await;
        Self {
            name: name.into(),
            finding,
            took: begun.elapsed(),
        }
    }

    pub(super) fn skipped(name: &str, why: &str) -> Self {
        Self {
            name: name.to_owned(),
            finding: Finding::skipped(why),
            took: Duration::ZERO,
        }
    }

    /// It is no failure of the whole.
    pub(super) fn soften(&mut self) {
        if self.finding.outcome == Outcome::Failed {
            self.finding.outcome = Outcome::Warning;
        }
    }

    /// Did it fail?
    pub fn is_failed(&self) -> bool {
        self.finding.outcome == Outcome::Failed
    }

    /// For machines.
    pub fn json(&self) -> Value {
        json!({
            "check": self.name,
            "outcome": self.finding.outcome.label(),
            "detail": self.finding.detail,
            "advice": self.finding.advice,
            "milliseconds": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Finding {
            outcome,
            detail,
            advice,
        } = &self.finding;
        write!(f, "{:8} {:14} {detail}", outcome.label(), self.name)?;
        match advice {
            Some(advice) => write!(f, "\n{:24}→ {advice}", ""),
            None => Ok(()),
        }
    }
}
