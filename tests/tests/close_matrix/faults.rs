//! Random ends on a way that breaks: what carries the streams is cut behind any byte, or falls silent, or its client is
//! frozen and killed. Much is cut then that nobody meant to cut; an end is still only what was sent whole and ended.

use std::time::Duration;

use e2e::{Break, Towards, Weather};
use rustix::process::Signal;
use tokio::task::{JoinSet, LocalSet};

use crate::carrier::Carrier;
use crate::lab::Lab;
use crate::random::{MOST, Plan, Random, judge, number, side};
use crate::stream::{Sockets, Stream};

/// Streams at once.
const CROWD: usize = 32;
/// Crowds of one way.
const ROUNDS: u64 = 5;
/// Of a crowd's connections so many break, where each stream has its own.
const BREAKS: u64 = 8;
/// A path that is silent is given up within 15 s, and two busy cores take longer.
const PATIENCE: Duration = Duration::from_secs(90);

const BAD: Weather = Weather {
    delay: Duration::from_millis(1),
    jitter: Duration::from_millis(1),
    lost: 2,
    cut: 0,
};

/// Datagrams only: QUIC is to notice nothing but the time.
const WORSE: Weather = Weather {
    delay: Duration::from_millis(1),
    jitter: Duration::from_millis(3),
    lost: 20,
    cut: 20,
};

/// What is done and seen on one pair.
type Run = (String, [Plan; 2], (Stream, Stream));

async fn crowd(lab: &Lab, carrier: Carrier, seed: u64) -> Vec<Run> {
    let mut runs = Vec::new();
    for place in 0..CROWD as u64 {
        let seed = seed.wrapping_mul(1_000_003).wrapping_add(place);
        let mut random = Random(seed);
        let (plans, sockets) = (random.plans(), random.sockets(carrier));
        let what = format!("run {seed}: {plans:?} on {sockets:?}");
        runs.push((what, plans, pair(lab, sockets).await));
    }
    runs
}

/// A pair, as soon as the way is there again.
async fn pair(lab: &Lab, sockets: Sockets) -> (Stream, Stream) {
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let tried = async {
        loop {
            tick.tick().await;
            let tried = tokio::time::timeout(Duration::from_secs(5), lab.try_pair(sockets)).await;
            if let Ok(Ok(pair)) = tried {
                return pair;
            }
        }
    };
    let pair = tokio::time::timeout(PATIENCE, tried).await;
    pair.expect("a way that is whole again")
}

/// Carry out the plans of all of them.
fn begin(runs: Vec<Run>, breaks: bool) -> JoinSet<()> {
    let mut set = JoinSet::new();
    for (what, [near_plan, far_plan], (near, far)) in runs {
        set.spawn(async move {
            let both = async { tokio::join!(side(near, &near_plan, 1), side(far, &far_plan, 2)) };
            let seen = tokio::time::timeout(PATIENCE, both).await;
            let (at_near, at_far) = seen.unwrap_or_else(|_| panic!("it never ends: {what}"));
            judge(&near_plan, at_near, at_far, breaks, &what);
            judge(&far_plan, at_far, at_near, breaks, &what);
        });
    }
    set
}

async fn end(mut runs: JoinSet<()>) {
    while let Some(done) = runs.join_next().await {
        done.unwrap();
    }
}

fn seed_of(round: u64) -> u64 {
    number("CLOSE_SEED", 20_261).wrapping_add(round * 7919)
}

/// Connections are cut behind any byte.
async fn broken(carrier: Carrier, tls: bool) {
    let lab = Lab::in_weather(carrier, tls, BAD, seed_of(0)).await;
    let link = lab.link.as_ref().unwrap();
    for round in 0..ROUNDS {
        let runs = crowd(&lab, carrier, seed_of(round)).await;
        let mut random = Random(seed_of(round));
        for _ in 0..if carrier.shares() { 1 } else { BREAKS } {
            let towards = match random.below(2) {
                0 => Towards::Gateway,
                _ => Towards::Client,
            };
            let how = match random.below(2) {
                0 => Break::Fin,
                _ => Break::Reset,
            };
            // Small numbers as often as large ones: much of what is carried is short.
            let bound = 1 << random.below(20);
            link.break_after(towards, random.below(bound).min(2 * MOST), how);
        }
        end(begin(runs, true)).await;
        link.mend();
    }
    assert!(link.broken() >= ROUNDS / 2, "{} breaks", link.broken());
}

/// Datagrams are lost, late and cut short, and a NAT forgets: QUIC sees to it that no stream notices. Then nothing comes any more.
async fn datagrams(carrier: Carrier) {
    let lab = Lab::in_weather(carrier, true, WORSE, seed_of(0)).await;
    let link = lab.link.as_ref().unwrap();
    for round in 0..ROUNDS - 1 {
        let runs = begin(crowd(&lab, carrier, seed_of(round)).await, false);
        link.forget();
        end(runs).await;
    }
    assert!(link.lost() > 0);
    let runs = begin(crowd(&lab, carrier, seed_of(ROUNDS)).await, true);
    link.swallow_udp(true);
    end(runs).await;
}

/// The relay client is frozen with everything under way, and never comes back.
async fn frozen_then_killed(carrier: Carrier) {
    let lab = Lab::start(carrier).await;
    let client = lab.client.as_ref().unwrap();
    let runs = crowd(&lab, carrier, seed_of(1)).await;
    let after = Random(seed_of(2)).below(50);
    let runs = begin(runs, true);
    tokio::time::sleep(Duration::from_millis(after)).await;
    client.process.signal(Signal::STOP);
    tokio::time::sleep(e2e::tasks::QUIET).await;
    client.process.signal(Signal::KILL);
    end(runs).await;
}

/// Most of their time these wait until somebody is given up: all of them at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence() {
    let carriers = crate::table::CARRIERS.iter().copied();
    let all = async {
        let mut all = JoinSet::new();
        for carrier in carriers.filter(|carrier| carrier.has_client()) {
            if carrier.is_quic() {
                all.spawn_local(datagrams(carrier));
            }
            all.spawn_local(frozen_then_killed(carrier));
        }
        end(all).await;
    };
    LocalSet::new().run_until(all).await;
}

macro_rules! ways {
    ($($name:ident $carrier:expr, $tls:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                broken($carrier, $tls).await;
            }
        )*
    };
}

ways! {
    relay_h2 Carrier::Relay("h2"), true;
    relay_h1 Carrier::Relay("h1"), true;
    exposed_h2 Carrier::Exposed("h2"), true;
    exposed_h1 Carrier::Exposed("h1"), true;
    proxy_h2 Carrier::Proxy("h2"), true;
    proxy_h1 Carrier::Proxy("h1"), true;
    connect_tls Carrier::ConnectTls, true;
    relay_h2_capsules Carrier::Relay("h2"), false;
    relay_h1_capsules Carrier::Relay("h1"), false;
    exposed_h2_capsules Carrier::Exposed("h2"), false;
    exposed_h1_capsules Carrier::Exposed("h1"), false;
    proxy_h2_capsules Carrier::Proxy("h2"), false;
    proxy_h1_capsules Carrier::Proxy("h1"), false;
}
