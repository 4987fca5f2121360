//! The workload of the decision benchmarks: a grant of many patterns, and the targets it is asked for.

use std::{fmt::Write as _, sync::Arc};

use anyhow::{Context, ensure};
use sluicegate_policy::{Ceiling, Grant, GrantDocument, Target, decide, text};

/// Sizes of grant, in patterns.
pub const SIZES: [usize; 3] = [10, 1_000, 100_000];
/// Targets of one question at most: more than the caches next to the processor hold the patterns of.
const MOST_TARGETS: usize = 16_384;

/// A kind of question.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Its name in tables.
    pub name: &'static str,
    /// What is put for pattern `n` of the kind, as `host:port`.
    authority: fn(usize) -> String,
    /// Which of the four kinds of pattern it is about.
    kind: usize,
    /// The answer.
    allowed: bool,
}

/// A hit of every kind of pattern, and misses that share all labels but one with a hit.
pub const QUESTIONS: [Question; 7] = [
    Question {
        name: "an exact name",
        authority: |n| format!("h{n}.exact.example.com:443"),
        kind: 0,
        allowed: true,
    },
    Question {
        name: "a name under a wildcard",
        authority: |n| format!("a.b.h{n}.wild.example.com:443"),
        kind: 1,
        allowed: true,
    },
    Question {
        name: "the same, ten labels deep",
        authority: |n| format!("a.b.c.d.e.f.h{n}.wild.example.com:443"),
        kind: 1,
        allowed: true,
    },
    Question {
        name: "a name with a port",
        authority: |n| format!("h{n}.port.example.com:5432"),
        kind: 2,
        allowed: true,
    },
    Question {
        name: "a denied name",
        authority: |n| format!("a.h{n}.denied.example.com:443"),
        kind: 3,
        allowed: false,
    },
    Question {
        name: "another port of an allowed name",
        authority: |n| format!("h{n}.port.example.com:443"),
        kind: 2,
        allowed: false,
    },
    Question {
        name: "a name nothing covers",
        authority: |n| format!("m{n}.exact.example.com:443"),
        kind: 0,
        allowed: false,
    },
];

/// A grant of so many patterns: exact names, wildcards, names with a port, and denied wildcards, in equal shares.
///
/// # Errors
/// A document that does not compile.
pub fn grant(patterns: usize) -> anyhow::Result<Arc<Grant>> {
    let (mut allowed, mut denied) = (String::new(), String::new());
    for n in 0..patterns {
        match n % 4 {
            0 => writeln!(allowed, "    - h{n}.exact.example.com"),
            1 => writeln!(allowed, "    - \"*.h{n}.wild.example.com\""),
            2 => writeln!(allowed, "    - \"h{n}.port.example.com:5432\""),
            _ => writeln!(denied, "    - \"*.h{n}.denied.example.com\""),
        }?;
    }
    let source = format!("egress:\n  allowedHosts:\n{allowed}  deniedHosts:\n{denied}");
    let mut faults = text::Faults::default();
    let document = GrantDocument::read(&text::parse(&source, &mut faults), &mut faults);
    let grant = document.compile(&Ceiling::local(), &mut faults);
    ensure!(faults.is_clean(), "{:?}", faults.errors);
    Ok(Arc::new(grant.context("no faults, so a grant")?))
}

impl Question {
    /// Targets of this kind, each another one, spread over all the grant's patterns in no order of theirs. Each has been
    /// asked once, and its answer is the right one.
    ///
    /// # Errors
    /// An answer that is not the right one.
    pub fn targets(self, grant: &Arc<Grant>, patterns: usize) -> anyhow::Result<Vec<Target>> {
        let of_kind = (patterns - self.kind).div_ceil(4);
        let count = of_kind.min(MOST_TARGETS);
        // A stride that shares no factor with any of the counts visits every place once.
        const STRIDE: usize = 7_919;
        (0..count)
            .map(|at| {
                let n = at * STRIDE % of_kind * 4 + self.kind;
                let authority = (self.authority)(n);
                let target =
                    Target::from_authority(&authority).with_context(|| authority.clone())?;
                let allowed = decide(grant, &target).is_ok();
                ensure!(allowed == self.allowed, "{}: {authority}", self.name);
                Ok(target)
            })
            .collect()
    }
}
