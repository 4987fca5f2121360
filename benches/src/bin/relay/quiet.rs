//! What the first open after a pause costs, in round trips.

use std::time::{Duration, Instant};

use crate::{
    path::Path,
    quantiles,
    stage::{Stage, open},
};

/// One way.
const LATE: Duration = Duration::from_millis(20);

pub(crate) async fn measure(transport: &str, rounds: usize) -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let path = Path::lay(stage.public(), LATE).await?;
    let client = stage.warm_client(transport, path.address).await?;
    println!(
        "| transport | silence before the open, ms | opens | open and first echo, p50 ms | p99 ms | round trips, p50 |"
    );
    println!("|---|---|---|---|---|---|");
    for silence in [0, 50, 1000] {
        let mut took = Vec::new();
        for _ in 0..rounds {
            tokio::time::sleep(Duration::from_millis(silence)).await;
            let begun = Instant::now();
            drop(open(client.entry).await?);
            took.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        let (middle, most) = quantiles(&mut took);
        let trips = middle / (2.0 * LATE.as_secs_f64() * 1e3);
        println!("| {transport} | {silence} | {rounds} | {middle:.1} | {most:.1} | {trips:.2} |");
    }
    Ok(())
}
