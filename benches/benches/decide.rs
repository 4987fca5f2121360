//! Nanoseconds per decision, by the number of patterns in the grant: the aim is that their number does not matter.
//! Many different targets are asked for in turn, so that the patterns come from where they lie and not from the nearest
//! cache.
//!
//! `cargo bench --package benches --bench decide`. On a machine that is not quiet, `decisions` (`src/bin/`) tells more.

#![allow(
    clippy::panic,
    reason = "a benchmark that measures the wrong thing must stop"
)]

use std::hint::black_box;

use benches::decisions::{QUESTIONS, SIZES, grant};
use criterion::{BenchmarkId, Criterion};
use sluicegate_policy::decide;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("decide");
    for patterns in SIZES {
        let grant = grant(patterns).unwrap_or_else(|error| panic!("{error:#}"));
        for question in QUESTIONS {
            let targets = question
                .targets(&grant, patterns)
                .unwrap_or_else(|error| panic!("{error:#}"));
            let mut turn = targets.iter().cycle();
            group.bench_function(BenchmarkId::new(question.name, patterns), |b| {
                b.iter(|| {
                    turn.next()
                        .map(|target| decide(black_box(&grant), black_box(target)))
                });
            });
        }
    }
    group.finish();
    criterion.final_summary();
}
