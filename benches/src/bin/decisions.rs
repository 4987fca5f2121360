//! What one decision costs: CPU time by the thread's own clock, which other programs on the machine do not move (what
//! they do to the caches stays in it), or just the work, for a profiler to count.
//!
//! `cargo build --release -p benches --bin decisions`, then `target/release/decisions [ROUNDS]` for a Markdown table, or
//! `valgrind --tool=callgrind target/release/decisions count PATTERNS QUESTION TIMES` with QUESTION from 0: instructions
//! per decision are the difference of two runs with different TIMES, over the difference of TIMES.

use std::{hint::black_box, sync::Arc};

use anyhow::{Context, bail};
use benches::decisions::{QUESTIONS, Question, SIZES, grant};
use rustix::time::{ClockId, clock_gettime};
use sluicegate_policy::{Grant, Target, decide};

/// Decisions of one round.
const TIMES: usize = 500_000;
/// Rounds of each measurement.
const ROUNDS: usize = 9;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments.as_slice() {
        [] => table(ROUNDS),
        ["count", patterns, question, times] => {
            let question = QUESTIONS
                .get(question.parse::<usize>()?)
                .context("no such question")?;
            count(*question, patterns.parse()?, times.parse()?)
        }
        [rounds] => table(rounds.parse().context("ROUNDS is no number")?),
        _ => bail!("usage: decisions [ROUNDS] | decisions count PATTERNS QUESTION TIMES"),
    }
}

/// Nanoseconds of CPU per decision: the least and the median of the rounds, for one target again and again and for many.
fn table(rounds: usize) -> anyhow::Result<()> {
    println!(
        "| asked for | patterns | one target: least | median | many targets: least | median |"
    );
    println!("|---|---|---|---|---|---|");
    for patterns in SIZES {
        let grant = grant(patterns)?;
        for question in QUESTIONS {
            let targets = question.targets(&grant, patterns)?;
            let one = targets.get(..1).unwrap_or_default();
            let (one_least, one_median) = measure(&grant, one, rounds);
            let (least, median) = measure(&grant, &targets, rounds);
            println!(
                "| {} | {patterns} | {one_least:.0} | {one_median:.0} | {least:.0} | {median:.0} |",
                question.name
            );
        }
    }
    Ok(())
}

fn measure(grant: &Arc<Grant>, targets: &[Target], rounds: usize) -> (f64, f64) {
    let mut costs: Vec<f64> = (0..rounds.max(1))
        .map(|_| {
            let start = cpu_nanoseconds();
            ask(grant, targets, TIMES);
            (cpu_nanoseconds() - start) / TIMES as f64
        })
        .collect();
    costs.sort_by(f64::total_cmp);
    let median = costs.get(costs.len() / 2).copied().unwrap_or_default();
    (costs.first().copied().unwrap_or_default(), median)
}

fn ask(grant: &Arc<Grant>, targets: &[Target], times: usize) {
    for target in targets.iter().cycle().take(times) {
        let _ = black_box(decide(black_box(grant), black_box(target)));
    }
}

fn cpu_nanoseconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn count(question: Question, patterns: usize, times: usize) -> anyhow::Result<()> {
    let grant = grant(patterns)?;
    let targets = question.targets(&grant, patterns)?;
    ask(&grant, &targets, times);
    Ok(())
}
