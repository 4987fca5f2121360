//! Many streams at once: frozen ones, idle ones, new ones, and a gateway that dies under them.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use e2e::relay::TRANSPORTS;
use e2e::{Tasks, until, within};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::lab::{Lab, Near, there_and_back};

/// One after the other, on each of the healthy streams.
const ROUND_TRIPS: usize = 50;

/// So many small questions on one stream, each asked when the one before has been answered.
async fn echoes(mut near: Near, count: usize) {
    for number in 0..count {
        let question = number.to_be_bytes();
        near.stream.write_all(&question).await.unwrap();
        let mut answer = [0; size_of::<usize>()];
        near.stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, question);
    }
}

/// All of them beside each other, to the end of the last.
async fn at_once<F: Future<Output = ()>>(mut work: Vec<Pin<Box<F>>>) {
    poll_fn(|cx| {
        work.retain_mut(|one| one.as_mut().poll(cx).is_pending());
        match work.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}

/// Ten readers that do not read, half of them programs and half of them services, and nobody else notices.
#[tokio::test]
async fn frozen_readers_hold_nobody_else_up() {
    for transport in TRANSPORTS {
        let lab = Lab::near(transport).await;
        let mut frozen = Vec::new();
        for _ in 0..5 {
            // Nobody reads what comes back.
            frozen.push(lab.flooding().await);
            let mut full = lab.frozen().await;
            let block = vec![7; 256 * 1024];
            let patience = Duration::from_millis(500);
            // Until nothing more is taken.
            while let Ok(written) =
                tokio::time::timeout(patience, full.stream.write_all(&block)).await
            {
                written.unwrap();
            }
            frozen.push(full);
        }
        let healthy = (0..8).map(|seed| {
            let lab = &lab;
            async move { there_and_back(lab.echoing().await, 500_000, seed).await }
        });
        let all = at_once(healthy.map(Box::pin).collect());
        within("eight streams beside ten frozen ones", all).await;
        // Small questions, each after the answer to the one before. (How long each takes: benches, `relay frozen`.)
        let asking = (0..8).map(|_| {
            let lab = &lab;
            async move { echoes(lab.echoing().await, ROUND_TRIPS).await }
        });
        let all = at_once(asking.map(Box::pin).collect());
        within("their round trips", all).await;
        for number in 0..20 {
            lab.asks(&format!("open {number}")).await.unwrap();
        }
    }
}

/// SIGKILL and a restart under load: what is in flight is lost, as a reset, and nothing that is opened later.
#[tokio::test]
async fn a_restart_under_load_loses_only_what_is_in_flight() {
    for transport in TRANSPORTS {
        let mut lab = Lab::near(transport).await;
        let (killed, over) = (Arc::new(AtomicBool::new(false)), AtomicBool::new(false));
        let (before, lost, after) = (
            AtomicUsize::new(0),
            AtomicUsize::new(0),
            AtomicUsize::new(0),
        );
        let entry = lab.client.entry("told");
        let worker = async |worker: usize| {
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                number += 1;
                let begun_after = killed.load(Ordering::SeqCst);
                let asked = Lab::asks_at(entry, &format!("{worker}.{number}")).await;
                match asked {
                    Ok(()) if begun_after => after.fetch_add(1, Ordering::Relaxed),
                    Ok(()) => before.fetch_add(1, Ordering::Relaxed),
                    Err(what) => {
                        assert!(!begun_after, "{transport}: a later open was lost: {what}");
                        lost.fetch_add(1, Ordering::Relaxed)
                    }
                };
            }
        };
        let fate = async {
            until("some streams", || {
                (before.load(Ordering::Relaxed) > 50).then_some(())
            })
            .await;
            lab.world.gateway.process.signal(Signal::KILL);
            until("the gateway's end", || lab.world.gateway.process.ended()).await;
            killed.store(true, Ordering::SeqCst);
            lab.world.gateway.restart().await;
            until("streams after it", || {
                (after.load(Ordering::Relaxed) > 50).then_some(())
            })
            .await;
            over.store(true, Ordering::Relaxed);
        };
        tokio::join!(worker(0), worker(1), worker(2), worker(3), fate);
        let lost = lost.load(Ordering::Relaxed);
        // A process that is killed closes its sockets one by one: who has lost one stream may have begun another on one that is still open.
        assert!(lost <= 8, "{transport}: {lost} streams of 4 workers");
        assert_eq!(lab.repeated(), [""; 0], "{transport}: said twice");
    }
}

/// A few hundred idle streams, a hundred opens a second beside them: nobody is forgotten. (Thousands: `full`.)
#[tokio::test]
async fn idle_streams_and_many_opens_get_along() {
    for transport in TRANSPORTS {
        let lab = Arc::new(Lab::near(transport).await);
        let mut idle = Vec::new();
        for _ in 0..200 {
            idle.push(lab.echoing().await);
        }
        let opens = Tasks::default();
        let whole = Arc::new(AtomicUsize::new(0));
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        let begun = Instant::now();
        for number in 0..300 {
            tick.tick().await;
            let (lab, whole) = (lab.clone(), whole.clone());
            opens.spawn(async move {
                lab.asks(&format!("open {number}")).await.unwrap();
                whole.fetch_add(1, Ordering::Relaxed);
            });
        }
        opens.finish().await;
        assert_eq!(whole.load(Ordering::Relaxed), 300, "{transport}");
        assert!(begun.elapsed() >= Duration::from_secs(2), "they were paced");
        for (seed, stream) in idle.into_iter().enumerate() {
            there_and_back(stream, 64, seed as u64).await;
        }
    }
}

/// SIGTERM and a restart under load. The client is told before the gateway goes, moves over when there is one again, and
/// what is opened meanwhile waits: nothing is lost, not even what is open when the drain begins.
#[tokio::test]
async fn a_drain_and_a_restart_under_load_lose_nothing() {
    for transport in TRANSPORTS {
        let mut lab = Lab::near(transport).await;
        let (over, whole) = (AtomicBool::new(false), AtomicUsize::new(0));
        let open = lab.echoing().await;
        let entry = lab.client.entry("told");
        let worker = async |worker: usize| {
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                number += 1;
                let asked = Lab::asks_at(entry, &format!("{worker}.{number}")).await;
                asked.unwrap_or_else(|what| panic!("{transport}: an open was lost: {what}"));
                whole.fetch_add(1, Ordering::Relaxed);
            }
        };
        let more = async |what: &str| {
            let begun = whole.load(Ordering::Relaxed);
            let enough = || (whole.load(Ordering::Relaxed) > begun + 50).then_some(());
            until(what, enough).await;
        };
        let fate = async {
            more("some streams").await;
            lab.world.gateway.terminate();
            // What was open goes on while the gateway goes down, and ends as it should.
            there_and_back(open, 200_000, 1).await;
            until("the gateway's end", || lab.world.gateway.process.ended()).await;
            lab.world.gateway.restart().await;
            more("streams after it").await;
            over.store(true, Ordering::Relaxed);
        };
        tokio::join!(worker(0), worker(1), worker(2), worker(3), fate);
    }
}
