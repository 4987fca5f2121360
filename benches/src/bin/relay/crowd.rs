//! Many streams: what an idle one holds, and how many can be opened.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{MissedTickBehavior, timeout},
};

use crate::{
    origin::ECHO,
    quantiles,
    stage::{Client, PATIENCE, Stage, echo, open},
};

/// A connection carries 1,024 streams at once: so many clients it takes.
const PER_CLIENT: usize = 1000;
/// Opened at the same time.
const AT_ONCE: usize = 32;
/// What is freed and trimmed has been by then.
const SETTLED: Duration = Duration::from_secs(3);

/// Memory per idle stream, of gateway and clients.
pub(crate) async fn idle(transport: &str, count: usize, bytes: usize) -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let mut clients = Vec::new();
    for _ in 0..count.div_ceil(PER_CLIENT) {
        clients.push(stage.warm_client(transport, stage.public()).await?);
    }
    tokio::time::sleep(SETTLED).await;
    let before = memory(&stage, &clients)?;
    let begun = Instant::now();
    let mut streams = Vec::with_capacity(count);
    let places: Vec<SocketAddr> = (0..count)
        .filter_map(|number| clients.get(number / PER_CLIENT))
        .map(|client| client.entry)
        .collect();
    for crowd in places.chunks(AT_ONCE) {
        let mut opening = JoinSet::new();
        for entry in crowd {
            let entry = *entry;
            opening.spawn(async move {
                let mut stream = open(entry).await?;
                let block = vec![0x5a; bytes.min(4096)];
                let mut back = block.clone();
                for _ in 0..bytes.div_ceil(block.len()) {
                    echo(&mut stream, &block, &mut back).await?;
                }
                anyhow::Ok(stream)
            });
        }
        while let Some(opened) = opening.join_next().await {
            streams.push(opened??);
        }
    }
    let took = begun.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLED).await;
    let after = memory(&stage, &clients)?;
    let each = |ends: (f64, f64)| (ends.0 / count as f64, ends.1 / count as f64);
    let (gateway, client) = each((after.0 - before.0, after.1 - before.1));
    // All of them still carry.
    for stream in &mut streams {
        echo(stream, b"still there", &mut [0; 11]).await?;
    }
    println!(
        "| transport | idle streams | bytes each way before | gateway, KiB each | client, KiB each | both | opened in s |"
    );
    println!("|---|---|---|---|---|---|---|");
    println!(
        "| {transport} | {count} | {bytes} | {gateway:.1} | {client:.1} | {:.1} | {took:.1} |",
        gateway + client
    );
    Ok(())
}

fn memory(stage: &Stage, clients: &[Client]) -> anyhow::Result<(f64, f64)> {
    let each = clients.iter().map(|client| client.process.memory());
    let clients: Vec<f64> = each.collect::<Result<_, _>>()?;
    Ok((stage.gateway.memory()?, clients.iter().sum()))
}

/// Streams at a steady rate, whatever became of those before.
pub(crate) async fn opens(transport: &str, rate: usize, seconds: usize) -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let client = stage.warm_client(transport, stage.public()).await?;
    let failed = Arc::new(AtomicUsize::new(0));
    let mut running = JoinSet::new();
    let mut samples = Vec::with_capacity(rate * seconds);
    let mut most = 0;
    let mut tick = tokio::time::interval(Duration::from_secs(1) / u32::try_from(rate)?);
    // As many as were asked for, late or not.
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (cpu, begun) = (cpu(&stage, &client)?, Instant::now());
    for _ in 0..rate * seconds {
        tick.tick().await;
        let (entry, failed) = (client.entry, failed.clone());
        running.spawn(async move {
            let asked = timeout(PATIENCE, ask(entry)).await;
            if !matches!(asked, Ok(Ok(_))) {
                failed.fetch_add(1, Ordering::Relaxed);
            }
            asked.ok().and_then(Result::ok)
        });
        most = most.max(running.len());
        while let Some(done) = running.try_join_next() {
            samples.extend(done?);
        }
    }
    while let Some(done) = running.join_next().await {
        samples.extend(done?);
    }
    let took = begun.elapsed().as_secs_f64();
    let per_10k = (self::cpu(&stage, &client)? - cpu) / (rate * seconds) as f64 * 1e4;
    let (middle, slow) = quantiles(&mut samples);
    let failed = failed.load(Ordering::Relaxed);
    println!(
        "| transport | asked for, per s | for s | opened | failed | per s | most at once | open and echo, p50 ms | p99 ms | CPU s per 10,000, both ends |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    println!(
        "| {transport} | {rate} | {seconds} | {} | {failed} | {:.0} | {most} | {middle:.2} | {slow:.2} | {per_10k:.2} |",
        samples.len(),
        samples.len() as f64 / took,
    );
    Ok(())
}

/// A whole short stream; the milliseconds to its echo.
async fn ask(entry: SocketAddr) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(entry).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&[ECHO, b'?']).await?;
    stream.read_exact(&mut [0]).await?;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    stream.shutdown().await?;
    let beyond = stream.read(&mut [0]).await.context("no clean end")?;
    anyhow::ensure!(beyond == 0, "more than was sent");
    Ok(took)
}

fn cpu(stage: &Stage, client: &Client) -> anyhow::Result<f64> {
    Ok(stage.gateway.cpu()? + client.process.cpu()?)
}
