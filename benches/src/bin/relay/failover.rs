//! How long it takes until streams are carried again.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, time::timeout};

use crate::{
    path::Path,
    stage::{PATIENCE, Stage, echo, open},
};

pub(crate) async fn measure(rounds: usize) -> anyhow::Result<()> {
    println!("| what happened | transport | round | ms until a stream was carried |");
    println!("|---|---|---|---|");
    for transport in ["quic", "h2"] {
        let mut stage = Stage::set().await?;
        let client = stage.warm_client(transport, stage.public()).await?;
        for round in 1..=rounds {
            let back = stage.restart().await?;
            let took = carried(client.entry, back).await?;
            println!("| gateway killed; from its return on | {transport} | {round} | {took:.0} |");
        }
    }
    for round in 1..=rounds {
        let stage = Stage::set().await?;
        let path = Path::lay(stage.public(), Duration::ZERO).await?;
        let client = stage.client("auto", path.address).await?;
        let mut stream = open(client.entry).await?;
        let gap = longest_gap(&mut stream, &path).await?;
        println!("| NAT forgets; longest gap in an open stream | quic | {round} | {gap:.0} |");
        path.swallow_udp();
        let took = carried(client.entry, Instant::now()).await?;
        println!("| UDP swallowed | quic, then h2 | {round} | {took:.0} |");
    }
    Ok(())
}

/// Milliseconds since `since` until a stream is carried, asked for again and again.
async fn carried(entry: SocketAddr, since: Instant) -> anyhow::Result<f64> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if open(entry).await.is_ok() {
            return Ok(since.elapsed().as_secs_f64() * 1e3);
        }
        anyhow::ensure!(Instant::now() < deadline, "never again");
    }
}

/// Echoes one after the other for two seconds, with a NAT that forgets in the middle; the milliseconds of the slowest.
async fn longest_gap(stream: &mut TcpStream, path: &Path) -> anyhow::Result<f64> {
    let mut worst = Duration::ZERO;
    let echoes = async {
        for number in 0..400 {
            if number == 200 {
                path.forget();
            }
            let begun = Instant::now();
            echo(stream, &[7; 64], &mut [0; 64]).await?;
            worst = worst.max(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, echoes).await??;
    Ok(worst.as_secs_f64() * 1e3)
}
