//! Ten readers that do not read: what the others notice of it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet, time::timeout};

use crate::{
    origin::{FLOOD, FREEZE},
    quantiles,
    stage::{Stage, echo, open},
};

const FROZEN: usize = 10;
/// The p99 of the others beside them, in that of the others alone.
const AIM: f64 = 2.0;
/// Streams that go on, each with one echo after the other, paced.
const HEALTHY: usize = 8;
const ECHOES: usize = 1500;
const PACE: Duration = Duration::from_millis(2);

/// What carries streams; `all` is one after the other.
const TRANSPORTS: [&str; 3] = ["quic", "h2", "h1"];

pub(crate) async fn measure(transport: &str, rounds: usize) -> anyhow::Result<()> {
    let transports: &[&str] = match transport {
        "all" => &TRANSPORTS,
        _ => &[transport],
    };
    println!("| transport | round | frozen readers | echoes | p50 µs | p99 µs |");
    println!("|---|---|---|---|---|---|");
    let mut ratios = Vec::new();
    for transport in transports {
        let (alone, beside) = compare(transport, rounds).await?;
        ratios.push((transport, alone, beside));
    }
    println!();
    println!(
        "| transport | rounds | p99 µs alone | p99 µs beside {FROZEN} frozen readers | ratio (at most {AIM}) |"
    );
    println!("|---|---|---|---|---|");
    for (transport, alone, beside) in ratios {
        let ratio = beside / alone;
        println!("| {transport} | {rounds} | {alone:.0} | {beside:.0} | {ratio:.2} |");
    }
    Ok(())
}

/// The p99 of all rounds, alone and beside frozen readers. The two take turns, and turns at being first: what else the machine does
/// falls on both alike.
async fn compare(transport: &str, rounds: usize) -> anyhow::Result<(f64, f64)> {
    let stage = Stage::set().await?;
    let client = stage.client(transport, stage.public()).await?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let turns = if round % 2 == 1 {
            [0, FROZEN]
        } else {
            [FROZEN, 0]
        };
        for number in turns {
            let mut frozen = Vec::new();
            for place in 0..number {
                frozen.push(freeze(client.entry, place % 2 == 0).await?);
            }
            let mut samples = healthy(client.entry).await?;
            let (middle, slow) = quantiles(&mut samples);
            let count = samples.len();
            println!("| {transport} | {round} | {number} | {count} | {middle:.0} | {slow:.0} |");
            let all = if number == 0 { &mut alone } else { &mut beside };
            all.extend(samples);
        }
    }
    Ok((quantiles(&mut alone).1, quantiles(&mut beside).1))
}

/// A stream that is full and stays so: its program does not read, or its service does not.
async fn freeze(entry: SocketAddr, program: bool) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(entry).await?;
    if program {
        stream.write_all(&[FLOOD]).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        return Ok(stream);
    }
    stream.write_all(&[FREEZE]).await?;
    let block = vec![FREEZE; 64 * 1024];
    // Until nothing more is taken.
    while timeout(Duration::from_millis(300), stream.write_all(&block))
        .await
        .is_ok()
    {}
    Ok(stream)
}

/// Microseconds of each echo of 1 KiB.
async fn healthy(entry: SocketAddr) -> anyhow::Result<Vec<f64>> {
    let mut running = JoinSet::new();
    for _ in 0..HEALTHY {
        running.spawn(async move {
            let mut stream = open(entry).await?;
            let (block, mut back) = ([0x5a; 1024], [0; 1024]);
            let mut samples = Vec::with_capacity(ECHOES);
            let mut tick = tokio::time::interval(PACE);
            for _ in 0..ECHOES {
                tick.tick().await;
                let begun = Instant::now();
                echo(&mut stream, &block, &mut back).await?;
                samples.push(begun.elapsed().as_secs_f64() * 1e6);
            }
            anyhow::Ok(samples)
        });
    }
    let mut all = Vec::new();
    while let Some(samples) = running.join_next().await {
        all.extend(samples??);
    }
    Ok(all)
}
