//! Bulk by one connection and by as many as the client makes for it, and a question beside it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::sleep,
};

use crate::{
    origin::FLOOD,
    quantiles,
    stage::{Stage, echo, open},
};

/// Downloads at once.
const STREAMS: [usize; 2] = [1, 8];
/// Connections that the gateway takes of the session. Where that is one, the client's streams share it as if they went around nothing:
/// it asks for a second one once a minute, and is refused.
const TAKEN: [u32; 2] = [1, 16];
/// From one download's begin to the next one's: by then it is bulk, and a further connection, if there is one, has been made.
const APART: Duration = Duration::from_millis(500);
/// Before anything is measured.
const WARM: Duration = Duration::from_secs(2);
/// From one echo to the next.
const PACE: Duration = Duration::from_millis(2);
const GIB: f64 = (1u64 << 30) as f64;

/// One way of carrying, and what its rounds came to.
struct Case {
    streams: usize,
    taken: u32,
    rounds: Vec<Figures>,
}

struct Figures {
    connections: u64,
    gib_per_s: f64,
    /// CPU seconds per GiB.
    gateway: f64,
    client: f64,
    /// Microseconds of each.
    echoes: Vec<f64>,
}

const COLUMNS: &str = "downloads | gateway takes | connections | GiB/s | gateway, CPU s/GiB | client, CPU s/GiB | echoes | p50 µs | p99 µs |\n|---|---|---|---|---|---|---|---|---|---|---|";

pub(crate) async fn measure(transport: &str, rounds: usize, seconds: usize) -> anyhow::Result<()> {
    ensure!(
        ["quic", "h2"].contains(&transport),
        "quic or h2: where else would streams share a connection?"
    );
    let span = Duration::from_secs(u64::try_from(seconds)?);
    let mut cases: Vec<Case> = Vec::new();
    for streams in STREAMS {
        cases.extend(TAKEN.map(|taken| Case {
            streams,
            taken,
            rounds: Vec::new(),
        }));
    }
    println!("| transport | round | {COLUMNS}");
    for round in 1..=rounds {
        let mut turns: Vec<&mut Case> = cases.iter_mut().collect();
        // Turns at being first, too.
        if round % 2 == 0 {
            turns.reverse();
        }
        for case in turns {
            let mut figures = carry(transport, case, span).await?;
            let (middle, slow) = quantiles(&mut figures.echoes);
            println!(
                "| {transport} | {round} | {} | {} | {} | {:.3} | {:.2} | {:.2} | {} | {middle:.0} | {slow:.0} |",
                case.streams,
                case.taken,
                figures.connections,
                figures.gib_per_s,
                figures.gateway,
                figures.client,
                figures.echoes.len()
            );
            case.rounds.push(figures);
        }
    }
    println!();
    println!("| transport | rounds | {COLUMNS}");
    for case in &cases {
        let middle = |of: fn(&Figures) -> f64| {
            let mut each: Vec<f64> = case.rounds.iter().map(of).collect();
            quantiles(&mut each).0
        };
        let each = case.rounds.iter();
        let mut echoes: Vec<f64> = each.flat_map(|one| one.echoes.iter().copied()).collect();
        let (median, slow) = quantiles(&mut echoes);
        println!(
            "| {transport} | {rounds} | {} | {} | {:.0} | {:.3} | {:.2} | {:.2} | {} | {median:.0} | {slow:.0} |",
            case.streams,
            case.taken,
            middle(|one| one.connections as f64),
            middle(|one| one.gib_per_s),
            middle(|one| one.gateway),
            middle(|one| one.client),
            echoes.len()
        );
    }
    Ok(())
}

/// All processes are new ones: the client would keep a connection for half a minute, and the gateway that of a client that was killed.
async fn carry(transport: &str, case: &Case, span: Duration) -> anyhow::Result<Figures> {
    let stage = Stage::taking(case.taken).await?;
    let client = stage.warm_client(transport, stage.public()).await?;
    let moved = Arc::new(AtomicU64::new(0));
    let mut downloads = JoinSet::new();
    for _ in 0..case.streams {
        downloads.spawn(download(client.entry, moved.clone()));
        sleep(APART).await;
    }
    sleep(WARM).await;
    let (gateway, own) = (stage.gateway.cpu()?, client.process.cpu()?);
    let (before, begun) = (moved.load(Ordering::Relaxed), Instant::now());
    sleep(span).await;
    let (bytes, took) = (moved.load(Ordering::Relaxed) - before, begun.elapsed());
    let (gateway, own) = (stage.gateway.cpu()? - gateway, client.process.cpu()? - own);
    ensure!(bytes > 0, "nothing was carried");
    let gib = bytes as f64 / GIB;
    // This one shows that all connections carry bulk; the next one goes to what was made for it.
    drop(open(client.entry).await?);
    sleep(APART).await;
    let echoes = echoes(client.entry, span).await?;
    let connections = client.connections().await?;
    if let Some(ended) = downloads.try_join_next() {
        bail!("a download ended: {ended:?}");
    }
    Ok(Figures {
        connections,
        gib_per_s: gib / took.as_secs_f64(),
        gateway: gateway / gib,
        client: own / gib,
        echoes,
    })
}

/// Until it is aborted.
async fn download(entry: SocketAddr, moved: Arc<AtomicU64>) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(entry).await?;
    stream.write_all(&[FLOOD]).await?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let count = stream.read(&mut buffer).await?;
        ensure!(count > 0, "its bytes came to an end");
        moved.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Microseconds of each echo of 1 KiB on one stream, for so long.
async fn echoes(entry: SocketAddr, span: Duration) -> anyhow::Result<Vec<f64>> {
    let mut stream = open(entry).await?;
    let (block, mut back) = ([0x5a; 1024], [0; 1024]);
    let mut samples = Vec::new();
    let mut tick = tokio::time::interval(PACE);
    let until = Instant::now() + span;
    while Instant::now() < until {
        tick.tick().await;
        let begun = Instant::now();
        echo(&mut stream, &block, &mut back).await?;
        samples.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(samples)
}
