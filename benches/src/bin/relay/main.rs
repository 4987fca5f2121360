//! The relay under load and faults, in figures: idle streams, opens, frozen readers, bulk, failover. Prints Markdown tables.
//!
//! `cargo build --release -p sluicegate -p sluicegate-relay -p benches`, then `target/release/relay WHAT TRANSPORT …`:
//!
//! - `idle TRANSPORT [STREAMS] [BYTES]`: memory of each end, per stream that has carried BYTES each way and is idle now
//! - `opens TRANSPORT [PER_SECOND] [SECONDS]`: streams opened, used for one echo and closed, at a steady rate
//! - `frozen TRANSPORT|all [ROUNDS]`: echoes on healthy streams, without and with ten frozen readers, in turn; the ratio of their p99
//! - `bulk h2|quic [ROUNDS] [SECONDS]`: 1 and 8 downloads by one connection and by all that the client makes, in turn, and an echo beside
//! - `quiet TRANSPORT [ROUNDS]`: an open and its first echo over a path of 20 ms each way, after a pause
//! - `failover [ROUNDS]`: a gateway that is killed, a UDP path that is swallowed, a NAT that forgets
//!
//! The gateway, the clients (one per 1,000 streams) and the service behind are processes of their own; the binaries are those
//! beside this one.

mod bulk;
mod crowd;
mod failover;
mod frozen;
mod origin;
mod path;
mod quiet;
mod stage;

use anyhow::{Context, bail, ensure};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(&arguments))
}

async fn run(arguments: &[String]) -> anyhow::Result<()> {
    let word = |place: usize| arguments.get(place).map(String::as_str);
    let number = |place: usize, default: usize| match word(place) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .with_context(|| format!("{text:?} is no number")),
    };
    let transport = || match word(1) {
        Some(transport) => Ok(transport),
        None => bail!("which transport? quic, h2, h1"),
    };
    match word(0) {
        Some("origin") => origin::serve().await,
        Some("idle") => {
            let (streams, bytes) = (number(2, 10_000)?, number(3, 1024)?);
            ensure!(streams > 0 && bytes > 0, "all numbers are at least 1");
            crowd::idle(transport()?, streams, bytes).await
        }
        Some("opens") => {
            let (rate, seconds) = (number(2, 1000)?, number(3, 60)?);
            ensure!(rate > 0 && seconds > 0, "all numbers are at least 1");
            crowd::opens(transport()?, rate, seconds).await
        }
        Some("frozen") => {
            let rounds = number(2, 4)?;
            ensure!(rounds > 0, "all numbers are at least 1");
            frozen::measure(transport()?, rounds).await
        }
        Some("bulk") => {
            let (rounds, seconds) = (number(2, 4)?, number(3, 5)?);
            ensure!(rounds > 0 && seconds > 0, "all numbers are at least 1");
            bulk::measure(transport()?, rounds, seconds).await
        }
        Some("quiet") => {
            let rounds = number(2, 30)?;
            ensure!(rounds > 0, "all numbers are at least 1");
            quiet::measure(transport()?, rounds).await
        }
        Some("failover") => failover::measure(number(1, 3)?).await,
        _ => bail!("usage: relay idle|opens|frozen|bulk|quiet TRANSPORT …, or relay failover"),
    }
}

/// The middle, and the value that 99 of 100 do not exceed, in the unit they come in.
fn quantiles(samples: &mut [f64]) -> (f64, f64) {
    samples.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let place = (samples.len().saturating_sub(1)) as f64 * part;
        samples.get(place as usize).copied().unwrap_or(f64::NAN)
    };
    (at(0.5), at(0.99))
}
