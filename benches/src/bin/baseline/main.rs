//! A baseline of the gateway as a process: what a new tunnel costs, and what a gibibyte through one costs, beside the same
//! work on a direct connection; and what a session notices while its neighbour is refused in masses. Prints Markdown tables.
//!
//! `cargo build --release -p sluicegate -p benches`, then `target/release/baseline [TUNNELS] [MEBIBYTES] [ROUNDS]`.
//! It starts the `sluicegate` binary that stands beside it. CPU time is the kernel's account of the gateway's process.

mod flood;
mod gateway;
mod origin;
mod work;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use flood::{Flood, beside};
use gateway::Gateway;
use work::{Door, bulk, tunnels};

/// CONNECTs with one request each, per round.
const TUNNELS: usize = 10_000;
/// Bulk bytes per stream and round, in MiB.
const MEBIBYTES: usize = 1024;
/// Each measurement is made this often; all are printed.
const ROUNDS: usize = 3;
/// Tunnels opened at once, and streams of a bulk transfer at once.
const AT_ONCE: usize = 8;
/// How long a flood lasts.
const FLOOD: Duration = Duration::from_secs(10);

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| match arguments.next() {
        None => Ok(default),
        Some(text) => text.parse().with_context(|| {
            format!("{text:?} is no number; usage: baseline [TUNNELS] [MEBIBYTES] [ROUNDS]")
        }),
    };
    let (count, mebibytes, rounds) = (number(TUNNELS)?, number(MEBIBYTES)?, number(ROUNDS)?);
    ensure!(
        count > 0 && mebibytes > 0 && rounds > 0,
        "all numbers are at least 1"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(count, mebibytes, rounds))
}

async fn measure(count: usize, mebibytes: usize, rounds: usize) -> anyhow::Result<()> {
    let origin = origin::start().await?;
    let gateway = Gateway::start(origin.address).await?;
    let doors = [
        ("direct", Door::direct(origin.address)),
        ("CONNECT", gateway.door(origin.address)),
    ];
    println!(
        "### A new connection and one request of a few bytes ({count} of them, {AT_ONCE} at once)\n"
    );
    println!("| way | round | per second | gateway CPU s per 10,000 |");
    println!("|---|---|---|---|");
    for round in 1..=rounds {
        for (name, door) in &doors {
            let (start, cpu) = (Instant::now(), gateway.cpu()?);
            tunnels(door, count, AT_ONCE).await?;
            let rate = count as f64 / start.elapsed().as_secs_f64();
            let cost = (gateway.cpu()? - cpu) / count as f64 * 1e4;
            println!("| {name} | {round} | {rate:.0} | {} |", cost_of(name, cost));
        }
    }
    println!("\n### Bulk download, {mebibytes} MiB in each stream\n");
    println!("| way | streams | round | GiB/s, all streams together | gateway CPU s per GiB |");
    println!("|---|---|---|---|---|");
    for streams in [1, AT_ONCE] {
        for round in 1..=rounds {
            for (name, door) in &doors {
                let (start, cpu) = (Instant::now(), gateway.cpu()?);
                let bytes = bulk(door, mebibytes, streams).await?;
                let gib = bytes as f64 / f64::from(1 << 30);
                let rate = gib / start.elapsed().as_secs_f64();
                let cost = (gateway.cpu()? - cpu) / gib;
                println!(
                    "| {name} | {streams} | {round} | {rate:.2} | {} |",
                    cost_of(name, cost)
                );
            }
        }
    }
    let direct = Door::direct(origin.address);
    let (neighbour, bounded) = (
        gateway.door(origin.address),
        gateway.bounded_door(origin.address),
    );
    let floods = [
        ("nobody", Flood::None),
        ("as many connections to the origin", Flood::At(&direct)),
        ("a flood of CONNECTs over its limit", Flood::At(&bounded)),
    ];
    println!(
        "\n### A neighbour's new tunnels with one request each, for {} s beside a flood\n",
        FLOOD.as_secs()
    );
    println!("| beside | round | p50 µs | p99 µs | of the flood: opened | refused with 429 |");
    println!("|---|---|---|---|---|---|");
    for round in 1..=rounds {
        for (name, flood) in floods {
            let seen = beside(&neighbour, flood, FLOOD).await?;
            println!(
                "| {name} | {round} | {} | {} | {} | {} |",
                seen.p50, seen.p99, seen.opened, seen.refused
            );
        }
    }
    gateway.stop().await
}

/// A direct connection costs the gateway nothing: what little shows is its housekeeping.
fn cost_of(way: &str, cost: f64) -> String {
    if way == "direct" {
        "-".to_owned()
    } else {
        format!("{cost:.3}")
    }
}
