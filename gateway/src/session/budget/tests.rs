#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use tokio::task::JoinSet;

use super::*;
use crate::session::{Authority, Right, testing::generation};

fn budget(limits: Limits) -> Arc<Budget> {
    Arc::new(Budget::new(limits, None))
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)
}

#[test]
fn v120_the_tunnel_after_the_last_is_refused_and_a_closed_one_makes_room() {
    let budget = budget(Limits {
        tunnels: Some(3),
        ..Limits::default()
    });
    let mut slots: Vec<Slot> = (0..3).map(|_| budget.open(now()).unwrap()).collect();
    assert_eq!(budget.open(now()).unwrap_err(), Denial::TooManyTunnels);
    assert_eq!(budget.open_now(), 3);
    slots.pop();
    assert!(budget.open(now()).is_ok());
}

fn target(text: &str) -> Destination {
    Destination::Target(Target::from_authority(text).unwrap())
}

#[test]
fn v120_the_tunnel_after_the_last_to_one_destination_is_refused() {
    let budget = budget(Limits {
        tunnels: Some(5),
        tunnels_per_destination: Some(2),
        opens_per_second: Some(5),
        ..Limits::default()
    });
    let open = |destination| budget.open_to(target(destination), now());
    let first = open("a.test:443").unwrap();
    let second = open("a.test:443").unwrap();
    for _ in 0..10 {
        let refused = open("a.test:443").unwrap_err();
        assert_eq!(refused, Denial::TooManyToDestination);
    }
    assert_eq!(budget.open_now(), 2, "a refused open holds no place");
    let other_port =
        open("a.test:80").expect("another destination, and no opens were spent on refusals");
    drop(first);
    let again = open("a.test:443").unwrap();
    drop((second, again, other_port));
    assert!(
        budget.destinations().is_empty(),
        "nothing is kept of what has closed"
    );
}

#[test]
fn a_place_at_a_destination_is_given_back_when_another_limit_refuses() {
    let budget = budget(Limits {
        tunnels: Some(0),
        tunnels_per_destination: Some(1),
        ..Limits::default()
    });
    let open = || budget.open_to(target("a.test:443"), now()).unwrap_err();
    assert_eq!(
        (open(), open()),
        (Denial::TooManyTunnels, Denial::TooManyTunnels)
    );
    assert!(budget.destinations().is_empty());
}

#[test]
fn a_dial_that_has_ended_makes_room_for_the_next() {
    let (budget, other) = (budget(Limits::default()), budget(Limits::default()));
    let mut dials: Vec<Pending> = (0..2).map(|_| budget.dial(2).unwrap()).collect();
    let refused = budget.dial(2).unwrap_err();
    assert_eq!(refused.denial, Denial::TooManyPending);
    assert_eq!(refused.hint.unwrap().to_string(), "2 of 2 opens under way");
    assert!(other.dial(2).is_ok(), "each session by itself");
    dials.pop();
    assert!(budget.dial(2).is_ok());
}

#[test]
fn a_connection_that_has_ended_makes_room_for_the_next() {
    let (budget, other) = (budget(Limits::default()), budget(Limits::default()));
    let session = generation();
    let right = || Right::of(&session, None);
    let carry = || budget.carry(2, right());
    let mut carriers: Vec<Carrier> = (0..2).map(|_| carry().unwrap()).collect();
    let refused = carry().unwrap_err();
    assert_eq!(refused.denial, Denial::TooManyConnections);
    assert_eq!(refused.hint.unwrap().to_string(), "2 of 2 connections");
    let one = other.carry(2, right()).unwrap();
    assert!(one.is_of(&other) && !one.is_of(&budget) && !one.is_over());
    drop(other);
    assert!(one.is_over(), "a generation that is over is not kept");
    carriers.pop();
    assert!(carry().is_ok());
}

/// Whose streams are open by more credentials than are remembered frees no place by the end of the latest.
#[test]
fn a_connection_of_a_crowd_keeps_its_place() {
    let budget = budget(Limits::default());
    let sessions: Vec<_> = (0..20).map(|_| generation()).collect();
    let rights: Vec<Right> = sessions.iter().map(|one| Right::of(one, None)).collect();
    let carrier = budget.carry(1, rights[0].clone()).unwrap();
    for right in &rights {
        assert!(carrier.goes_on(right));
    }
    for session in &sessions[1..] {
        session.publish(Authority::Ended(Denial::SessionRevoked));
    }
    let other = generation();
    let refused = budget.carry(1, Right::of(&other, None));
    assert!(refused.is_err(), "the first is good");
}

#[test]
fn opens_are_a_bucket_that_refills() {
    let budget = budget(Limits {
        opens_per_second: Some(4),
        ..Limits::default()
    });
    for _ in 0..4 {
        budget.open(now()).unwrap();
    }
    assert_eq!(budget.open(now()).unwrap_err(), Denial::TooManyOpens);
    assert_eq!(budget.open_now(), 0, "a refused open holds no place");
    let later = now() + Duration::from_millis(250);
    assert!(budget.open(later).is_ok());
    assert_eq!(budget.open(later).unwrap_err(), Denial::TooManyOpens);
    assert_eq!(
        budget.open(now()).unwrap_err(),
        Denial::TooManyOpens,
        "the clock going back refills nothing"
    );
    let much_later = now() + Duration::from_secs(3600);
    assert_eq!(
        (0..9).filter(|_| budget.open(much_later).is_ok()).count(),
        4,
        "one second's worth at most"
    );
}

#[test]
fn v119_refusals_above_the_rate_are_too_many_opens_and_take_no_open() {
    let owner = budget(Limits {
        opens_per_second: Some(6),
        ..Limits::default()
    });
    let of = |rate| {
        let limits = Limits {
            opens_per_second: rate,
            ..Limits::default()
        };
        Arc::new(Budget::new(limits, Some(owner.clone())))
    };
    let (bounded, free) = (of(Some(4)), of(None));
    let refused = |budget: &Budget, at| {
        let refusal = Denial::HostNotAllowed.into();
        (0..10)
            .filter(|_| {
                budget.refused(Refusal::clone(&refusal), at).denial == Denial::HostNotAllowed
            })
            .count()
    };
    assert_eq!(refused(&bounded, now()), 4);
    assert_eq!(refused(&free, now()), 2, "the owner's six are one");
    let told = bounded.refused(Denial::HostNotAllowed.into(), now());
    assert_eq!(told.denial, Denial::TooManyOpens);
    let opened = (0..10).filter(|_| bounded.open(now()).is_ok()).count();
    assert_eq!(opened, 4, "what is allowed is not spent by what is not");
    assert_eq!(refused(&bounded, now() + Duration::from_millis(500)), 2);
    assert_eq!(refused(&budget(Limits::default()), now()), 10, "no limit");
}

#[test]
fn bytes_end_at_the_edge() {
    let budget = budget(Limits {
        bytes: Some(100),
        ..Limits::default()
    });
    let _slot = budget.open(now()).unwrap();
    assert_eq!(budget.spend(100), Ok(()));
    assert_eq!(budget.spend(1), Err(Denial::ByteQuota));
    assert_eq!(budget.open(now()).unwrap_err(), Denial::ByteQuota);
    budget.set_limits(Limits {
        bytes: Some(1000),
        ..Limits::default()
    });
    assert!(budget.open(now()).is_ok());
}

#[test]
fn bytes_are_the_sessions_and_not_a_generations() {
    let limits = |bytes| Limits {
        bytes: Some(bytes),
        ..Limits::default()
    };
    let owner = budget(Limits::default());
    let second = Arc::new(Budget::new(limits(100), Some(owner.clone())));
    second.go_on_from(60, limits(100));
    assert_eq!(second.spend(40), Ok(()));
    assert_eq!(second.spend(1), Err(Denial::ByteQuota));
    assert_eq!((second.spent(), second.bytes()), (100, 40));
    assert_eq!(
        owner.bytes(),
        40,
        "the owner counted the others when they were spent"
    );
    let hint = second.refusal(Denial::ByteQuota).hint.unwrap().to_string();
    assert_eq!(hint, "100 of 100 bytes spent");
    second.set_limits(limits(50));
    assert_eq!(second.open(now()).unwrap_err(), Denial::ByteQuota);
    second.set_limits(limits(101));
    assert_eq!(
        (second.spend(1), second.spend(1)),
        (Ok(()), Err(Denial::ByteQuota))
    );
}

#[test]
fn limits_may_be_absent() {
    let budget = budget(Limits::default());
    let slots: Vec<_> = (0..10_000).map(|_| budget.open(now()).unwrap()).collect();
    assert_eq!(budget.spend(usize::MAX / 2), Ok(()));
    assert_eq!(slots.len(), 10_000);
}

#[test]
fn activity_only_moves_forward() {
    let budget = budget(Limits::default());
    budget.touch(now());
    budget.touch(now() - Duration::from_secs(5));
    assert_eq!(budget.last_activity(), now());
}

#[test]
fn threads_never_share_a_place() {
    let budget = budget(Limits {
        tunnels: Some(50),
        ..Limits::default()
    });
    let kept: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let budget = budget.clone();
                scope.spawn(move || {
                    (0..100)
                        .filter_map(|_| budget.open(now()).ok())
                        .map(std::mem::forget)
                        .count()
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(kept, 50);
}

#[test]
fn an_owners_limits_bind_all_its_sessions_together() {
    let owner = budget(Limits {
        tunnels: Some(3),
        bytes: Some(100),
        ..Limits::default()
    });
    let of = || Arc::new(Budget::new(Limits::default(), Some(owner.clone())));
    let (one, two) = (of(), of());
    let mut slots = vec![
        one.open(now()).unwrap(),
        one.open(now()).unwrap(),
        two.open(now()).unwrap(),
    ];
    assert_eq!(two.open(now()).unwrap_err(), Denial::TooManyTunnels);
    assert_eq!(two.open_now(), 1, "a refused open holds no place in either");
    slots.remove(0);
    assert_eq!(owner.open_now(), 2);
    assert!(two.open(now()).is_ok());
    assert_eq!(one.spend(60), Ok(()));
    assert_eq!(two.spend(41), Err(Denial::ByteQuota));
}

/// Moves all of it, a piece at a time.
async fn go(budget: &Arc<Budget>, way: Way, bytes: usize) {
    let mut left = bytes;
    while left > 0 {
        match budget.pace(way, left) {
            Some(pacing) => left -= pacing.await,
            None => return,
        }
    }
}

async fn timed(work: impl Future<Output = ()>) -> Duration {
    let start = tokio::time::Instant::now();
    work.await;
    start.elapsed()
}

/// Timers have a millisecond's grain.
fn about(took: Duration, millis: u64) {
    let expected = Duration::from_millis(millis);
    let differs = took.abs_diff(expected);
    assert!(
        differs <= Duration::from_millis(5),
        "{took:?}, not {expected:?}"
    );
}

fn paced(bandwidth: u64, owner: Option<Arc<Budget>>) -> Arc<Budget> {
    let limits = Limits {
        bandwidth: Some(bandwidth),
        ..Limits::default()
    };
    Arc::new(Budget::new(limits, owner))
}

#[tokio::test(start_paused = true)]
async fn bandwidth_is_kept_each_way_and_paid_before_more_goes_on() {
    let budget = paced(1000, None);
    assert_eq!(budget.piece(), Some(1000));
    about(timed(go(&budget, Way::Up, 100)).await, 0);
    about(timed(go(&budget, Way::Up, 1000)).await, 0);
    about(timed(go(&budget, Way::Up, 1)).await, 1000);
    about(timed(go(&budget, Way::Down, 1000)).await, 0);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    // An hour of silence buys a tenth of a second.
    about(timed(go(&budget, Way::Up, 3100)).await, 2900);
    budget.set_limits(Limits::default());
    assert!(budget.pace(Way::Up, 10).is_none(), "no limit, no timer");
}

#[tokio::test(start_paused = true)]
async fn a_debt_is_never_forgiven() {
    let budget = paced(100, None);
    assert_eq!(budget.piece(), Some(100));
    about(timed(go(&budget, Way::Down, 10_010)).await, 99_900);
    about(timed(go(&budget, Way::Down, 1)).await, 100);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_rises_is_noticed_by_who_waits() {
    let budget = paced(1000, None);
    go(&budget, Way::Up, 1000).await;
    budget.set_limits(Limits {
        bandwidth: Some(1),
        ..Limits::default()
    });
    let pacing = budget.pace(Way::Up, 100).unwrap();
    let rise = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        budget.set_limits(Limits::default());
    };
    let waited = timed(async {
        assert_eq!(tokio::join!(pacing, rise).0, 1);
    });
    assert!(waited.await <= LOOK_MOST);
}

const LOOK_MOST: Duration = Duration::from_millis(1_010);

#[tokio::test(start_paused = true)]
async fn who_asks_first_goes_first_and_who_leaves_costs_nothing() {
    let budget = paced(1000, None);
    go(&budget, Way::Up, 1000).await;
    let mut leaving = JoinSet::new();
    let gone = leaving.spawn(budget.pace(Way::Up, 1000).unwrap());
    let mut staying = JoinSet::new();
    for _ in 0..2 {
        let budget = budget.clone();
        staying.spawn(async move { timed(go(&budget, Way::Up, 500)).await });
    }
    tokio::task::yield_now().await;
    assert!(!gone.is_finished());
    gone.abort();
    about(staying.join_next().await.unwrap().unwrap(), 900);
    about(staying.join_next().await.unwrap().unwrap(), 1400);
}

#[tokio::test(start_paused = true)]
async fn the_slower_of_session_and_owner_sets_the_pace_and_sessions_take_turns() {
    let owner = paced(100, None);
    let session = paced(1000, Some(owner.clone()));
    about(timed(go(&session, Way::Down, 1010)).await, 9_900);
    // Ten of one session wait, and the neighbour's one is next but one all the same.
    tokio::time::sleep(Duration::from_secs(60)).await;
    go(&session, Way::Down, 110).await;
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let session = session.clone();
        crowd.spawn(async move { go(&session, Way::Down, 100).await });
    }
    tokio::task::yield_now().await;
    let neighbour = paced(1000, Some(owner));
    about(timed(go(&neighbour, Way::Down, 100)).await, 1_100);
}
