//! Nanoseconds per decision, by the number of patterns in the grant: the aim is that their number does not matter.
//!
//! `cargo bench --package benches --bench decide`

#![allow(
    clippy::panic,
    clippy::expect_used,
    reason = "a benchmark that measures the wrong thing must stop"
)]

use std::{fmt::Write as _, hint::black_box, sync::Arc};

use criterion::{BenchmarkId, Criterion};
use sluicegate_policy::{Ceiling, Grant, GrantDocument, Target, decide, text};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("decide");
    for patterns in [10, 1_000, 100_000] {
        let grant = grant(patterns);
        for (name, authority, allowed) in cases(patterns) {
            let target = Target::from_authority(&authority)
                .unwrap_or_else(|error| panic!("{authority}: {error}"));
            assert_eq!(
                decide(&grant, &target).is_ok(),
                allowed,
                "{name}: {authority}"
            );
            group.bench_with_input(BenchmarkId::new(name, patterns), &target, |b, target| {
                b.iter(|| decide(black_box(&grant), black_box(target)));
            });
        }
    }
    group.finish();
    criterion.final_summary();
}

/// What is asked of each grant: a hit of every kind of pattern, and a miss that shares all labels but one with a hit.
fn cases(patterns: usize) -> [(&'static str, String, bool); 5] {
    let middle = patterns / 8 * 4;
    [
        ("exact", format!("h{middle}.exact.example.com:443"), true),
        (
            "wildcard",
            format!("a.b.h{}.wild.example.com:443", middle + 1),
            true,
        ),
        (
            "port",
            format!("h{}.port.example.com:5432", middle + 2),
            true,
        ),
        (
            "denied",
            format!("a.h{}.denied.example.com:443", middle + 3),
            false,
        ),
        ("miss", "h.exact.example.com:443".to_owned(), false),
    ]
}

/// A grant of so many patterns: exact names, wildcards, names with a port, and denied wildcards, in equal shares.
fn grant(patterns: usize) -> Arc<Grant> {
    let (mut allowed, mut denied) = (String::new(), String::new());
    for n in 0..patterns {
        match n % 4 {
            0 => writeln!(allowed, "    - h{n}.exact.example.com"),
            1 => writeln!(allowed, "    - \"*.h{n}.wild.example.com\""),
            2 => writeln!(allowed, "    - \"h{n}.port.example.com:5432\""),
            _ => writeln!(denied, "    - \"*.h{n}.denied.example.com\""),
        }
        .expect("writing to a string");
    }
    let source = format!("egress:\n  allowedHosts:\n{allowed}  deniedHosts:\n{denied}");
    let mut faults = text::Faults::default();
    let document = GrantDocument::read(&text::parse(&source, &mut faults), &mut faults);
    let grant = document.compile(&Ceiling::local(), &mut faults);
    assert!(faults.is_clean(), "{:?}", faults.errors);
    Arc::new(grant.expect("no faults, so a grant"))
}
