//! A session that floods the gateway with CONNECTs it is refused, and what a neighbour notices.

use std::time::Duration;

use anyhow::ensure;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use crate::work::{Answer, Door, SHORT};

/// CONNECTs of the flood per second: what one of two CPUs does beside everything else. Bounded, so that what is compared
/// is the gateway and not how much generator there is.
const FLOOD: u32 = 2_000;
/// Tunnels of the neighbour per second, each with one short request.
const NEIGHBOUR: u32 = 100;

/// What the flood asks for.
#[derive(Clone, Copy)]
pub(crate) enum Flood<'a> {
    /// There is none.
    None,
    /// As many connections to this door.
    At(&'a Door),
}

/// What the neighbour saw, in microseconds from dialling to the last byte, and what became of the flood.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) p50: u128,
    pub(crate) p99: u128,
    pub(crate) opened: usize,
    pub(crate) refused: usize,
}

/// The neighbour at its pace for a while, beside the flood.
pub(crate) async fn beside(
    neighbour: &Door,
    flood: Flood<'_>,
    lasts: Duration,
) -> anyhow::Result<Seen> {
    let until = Instant::now() + lasts;
    let mut crowd = JoinSet::new();
    if let Flood::At(door) = flood {
        let door = door.clone();
        crowd.spawn(async move { pour(&door, until).await });
    }
    let mut took = at_pace(neighbour, until).await?;
    let (mut opened, mut refused) = (0, 0);
    while let Some(poured) = crowd.join_next().await {
        let (more_opened, more_refused) = poured??;
        opened += more_opened;
        refused += more_refused;
    }
    took.sort_unstable();
    let at = |share: usize| {
        took.get(took.len() * share / 100)
            .copied()
            .unwrap_or_default()
    };
    ensure!(!took.is_empty(), "the neighbour did nothing");
    Ok(Seen {
        p50: at(50).as_micros(),
        p99: at(99).as_micros(),
        opened,
        refused,
    })
}

/// Each is timed from when it was due, so that a stall is seen by everything it holds up.
async fn at_pace(door: &Door, until: Instant) -> anyhow::Result<Vec<Duration>> {
    let mut asked = JoinSet::new();
    let mut due = Instant::now();
    while due < until {
        sleep_until(due).await;
        let (door, start) = (door.clone(), due);
        asked.spawn(async move {
            let mut buffer = [0; 512];
            door.fetch(SHORT, &mut buffer).await?;
            anyhow::Ok(start.elapsed())
        });
        due += Duration::from_secs(1) / NEIGHBOUR;
    }
    let mut took = Vec::new();
    while let Some(one) = asked.join_next().await {
        took.push(one??);
    }
    Ok(took)
}

/// How many were opened and how many refused.
async fn pour(door: &Door, until: Instant) -> anyhow::Result<(usize, usize)> {
    let mut tick = interval(Duration::from_secs(1) / FLOOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut asked = JoinSet::new();
    let (mut opened, mut refused) = (0, 0);
    let mut count = |answer| match answer {
        Answer::Open => opened += 1,
        Answer::TooMany => refused += 1,
    };
    while Instant::now() < until {
        tick.tick().await;
        let door = door.clone();
        asked.spawn(async move { door.knock().await });
        // Never more at once than a client has ports for.
        while asked.len() >= 512 {
            if let Some(answer) = asked.join_next().await {
                count(answer??);
            }
        }
        while let Some(answer) = asked.try_join_next() {
            count(answer??);
        }
    }
    while let Some(answer) = asked.join_next().await {
        count(answer??);
    }
    Ok((opened, refused))
}
