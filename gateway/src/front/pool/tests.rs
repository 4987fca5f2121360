#![allow(clippy::unwrap_used)]

use std::{
    net::SocketAddr,
    ptr,
    sync::{atomic::Ordering, mpsc},
    thread,
    time::{Duration, Instant},
};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sluicegate_policy::Target;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio_util::task::TaskTracker;

use super::{Adopted, Bounds, Idle, Pool, PoolKey, RECENT, lock};
use crate::{egress::Reached, front::body::RequestBody, session::SessionKey};

type Sender = http1::SendRequest<RequestBody>;

/// A connection, and its far end: it is over where that reads the end.
async fn connection() -> (Sender, DuplexStream) {
    let (near, far) = duplex(64);
    let (sender, connection) = http1::handshake(TokioIo::new(near)).await.unwrap();
    // It ends with its sender.
    drop(TaskTracker::new().spawn(connection));
    (sender, far)
}

async fn is_closed(mut far: DuplexStream) {
    assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
}

fn key(session: &str, number: u16) -> PoolKey {
    PoolKey {
        session: SessionKey {
            namespace: "default".into(),
            provider: "local".into(),
            id: session.into(),
        },
        generation: 1,
        policy: (1, 0),
        target: Target::from_authority(&format!("a.test:{number}")).unwrap(),
    }
}

fn reached(number: u16) -> Reached {
    let address = SocketAddr::from(([192, 0, 2, 1], number));
    Reached { address, by: None }
}

/// As [`Pool::put`], whatever else this process has open.
async fn put(pool: &Pool, session: &str, number: u16) -> DuplexStream {
    keep(pool, session, number, Instant::now()).await
}

/// One that has idled since `since`.
async fn keep(pool: &Pool, session: &str, number: u16, since: Instant) -> DuplexStream {
    let (sender, far) = connection().await;
    let idle = Idle {
        sender,
        reached: reached(number),
        since,
    };
    pool.keep(key(session, number), idle);
    far
}

/// How many it says it has, and how many it has.
fn counts(pool: &Pool) -> (usize, usize) {
    let mut found = 0;
    for shelf in &pool.parts {
        let part = lock(shelf);
        let most = part.sessions.values().map(|own| own.count).max();
        assert_eq!(shelf.most(), most.unwrap_or(0));
        let own = part.sessions.values();
        let of_part: usize = own
            .map(|own| {
                let waiting: usize = own.keys.values().map(|waiting| waiting.len()).sum();
                assert_eq!(own.count, waiting);
                waiting
            })
            .sum();
        assert_eq!(part.count, of_part);
        found += of_part;
    }
    (pool.count.load(Ordering::Relaxed), found)
}

#[tokio::test]
async fn a_session_over_its_bound_gives_what_idled_longest() {
    let pool = Pool::bounded(Bounds {
        of_key: 2,
        of_busy_key: 2,
        of_session: 3,
        all: 100,
    });
    let neighbour = put(&pool, "other", 1).await;
    let first = put(&pool, "one", 1).await;
    let mut kept = Vec::new();
    for number in [2, 3, 4] {
        kept.push(put(&pool, "one", number).await);
    }
    is_closed(first).await;
    assert_eq!(counts(&pool), (4, 4));
    assert!(pool.take(&key("one", 1)).is_none());
    for number in [2, 3, 4] {
        let idle = pool.take(&key("one", number)).unwrap();
        assert_eq!(idle.reached.address, reached(number).address);
    }
    assert!(pool.take(&key("other", 1)).is_some());
    assert_eq!(counts(&pool), (0, 0));
    drop(neighbour);
}

#[tokio::test]
async fn of_a_full_pool_whoever_has_most_gives() {
    let pool = Pool::bounded(Bounds {
        of_key: 16,
        of_busy_key: 16,
        of_session: 16,
        all: 4,
    });
    let mut far = Vec::new();
    for number in 1..=4 {
        far.push(put(&pool, "greedy", number).await);
    }
    let neighbour = put(&pool, "other", 1).await;
    is_closed(far.remove(0)).await;
    assert_eq!(counts(&pool), (4, 4));
    assert!(pool.take(&key("other", 1)).is_some());
    assert!(pool.take(&key("greedy", 1)).is_none());
    for number in 2..=4 {
        assert!(pool.take(&key("greedy", number)).is_some(), "{number}");
    }
    assert_eq!(counts(&pool), (0, 0));
    drop(neighbour);
}

#[tokio::test]
async fn a_key_has_a_bound_and_what_has_ended_is_not_given_out() {
    let pool = Pool::bounded(Bounds {
        of_key: 2,
        of_busy_key: 2,
        of_session: 16,
        all: 16,
    });
    let (one, two) = (put(&pool, "one", 1).await, put(&pool, "one", 1).await);
    is_closed(put(&pool, "one", 1).await).await;
    assert_eq!(counts(&pool), (2, 2));
    drop(one);
    let (idle, far) = connection().await;
    drop(far);
    while !idle.is_closed() {
        tokio::task::yield_now().await;
    }
    pool.put(key("one", 2), idle, reached(2));
    assert_eq!(counts(&pool), (2, 2));
    pool.reap();
    drop(two);
    let (held, counted) = counts(&pool);
    assert_eq!(held, counted);
}

/// What it holds beyond its usual number goes when fewer are in use at once than were.
#[tokio::test]
async fn a_busy_key_keeps_what_was_in_use_at_once() {
    let pool = Pool::bounded(Bounds {
        of_key: 2,
        of_busy_key: 4,
        of_session: 16,
        all: 16,
    });
    let began = Instant::now();
    let mut far = Vec::new();
    for _ in 0..4 {
        far.push(keep(&pool, "one", 1, began).await);
    }
    is_closed(keep(&pool, "one", 1, began).await).await;
    assert_eq!(counts(&pool), (4, 4), "all that are recent, and no more");
    // The one in front has not been used for long, those behind it have.
    let later = began + RECENT;
    let just_before = later - Duration::from_millis(1);
    for _ in 0..3 {
        assert!(pool.take(&key("one", 1)).is_some());
    }
    for _ in 0..3 {
        far.push(keep(&pool, "one", 1, just_before).await);
    }
    assert_eq!(counts(&pool), (4, 4));
    far.push(keep(&pool, "one", 1, later).await);
    is_closed(far.remove(0)).await;
    assert_eq!(counts(&pool), (4, 4), "three in use of late, and this one");
    // Nor does it take a request to close them; its usual number stays.
    let quiet = later + RECENT;
    for part in &pool.parts {
        pool.change(part, |part| part.reap(quiet, pool.bounds));
    }
    assert_eq!(counts(&pool), (2, 2));
    far.push(keep(&pool, "one", 1, quiet).await);
    assert_eq!(counts(&pool), (2, 2), "the older of them made room");
    drop(far);
}

#[tokio::test]
async fn the_bound_of_all_is_that_of_all_parts() {
    let pool = Pool::bounded(Bounds {
        of_key: 2,
        of_busy_key: 2,
        of_session: 4,
        all: 8,
    });
    let mut far = Vec::new();
    for number in 1..=4 {
        far.push(put(&pool, "greedy", number).await);
    }
    for number in 0..4 {
        far.push(put(&pool, &format!("other{number}"), 1).await);
    }
    assert_eq!(counts(&pool), (8, 8));
    // Whichever parts they are in, who has most gives, down to as many as the others have.
    for number in 4..7 {
        far.push(put(&pool, &format!("other{number}"), 1).await);
        is_closed(far.remove(0)).await;
        assert_eq!(counts(&pool), (8, 8));
    }
    for number in 1..=3 {
        assert!(pool.take(&key("greedy", number)).is_none(), "{number}");
    }
    assert!(pool.take(&key("greedy", 4)).is_some());
    pool.close();
    assert_eq!(counts(&pool), (0, 0));
    is_closed(put(&pool, "one", 1).await).await;
    assert_eq!(counts(&pool), (0, 0), "it is closed");
    drop(far);
}

/// What is taken out of a full pool and put back would else wait for all that goes on in it.
#[tokio::test]
async fn a_full_pool_locks_the_part_of_whoever_has_most_and_no_other() {
    let pool = Pool::bounded(Bounds {
        of_key: 16,
        of_busy_key: 16,
        of_session: 16,
        all: 4,
    });
    let pool = &pool;
    let mut far = Vec::new();
    for number in 1..=4 {
        far.push(put(pool, "greedy", number).await);
    }
    let greedy = pool.shelf(&key("greedy", 1));
    let elsewhere = |name: &String| !ptr::eq(pool.shelf(&key(name, 1)), greedy);
    let mut names = (0..).map(|number| format!("other{number}"));
    let other = names.find(elsewhere).unwrap();
    let own = pool.shelf(&key(&other, 1));
    let (sender, end) = connection().await;
    let idle = Idle::new(sender, reached(1));
    let (tell, told) = mpsc::channel();
    let others = pool.parts.iter();
    let others = others.filter(|shelf| !ptr::eq(*shelf, greedy) && !ptr::eq(*shelf, own));
    let held: Vec<_> = others.map(lock).collect();
    let kept = thread::scope(|scope| {
        let key = key(&other, 1);
        scope.spawn(move || {
            pool.keep(key, idle);
            tell.send(())
        });
        let kept = told.recv_timeout(Duration::from_secs(60));
        // It is let go on, if it waits for these.
        drop(held);
        kept
    });
    kept.unwrap();
    is_closed(far.remove(0)).await;
    assert_eq!(counts(pool), (4, 4));
    assert!(pool.take(&key(&other, 1)).is_some());
    drop((far, end));
}

#[tokio::test]
async fn many_at_once_leave_it_within_its_bounds() {
    let pool = Pool::bounded(Bounds {
        of_key: 4,
        of_busy_key: 8,
        of_session: 8,
        all: 12,
    });
    let mut far = Vec::new();
    let mut shares: Vec<Vec<Idle>> = Vec::new();
    for _ in 0..4 {
        let mut share = Vec::new();
        for number in 0..64 {
            let (sender, end) = connection().await;
            share.push(Idle::new(sender, reached(number)));
            far.push(end);
        }
        shares.push(share);
    }
    let pool = &pool;
    thread::scope(|scope| {
        for share in shares {
            scope.spawn(move || {
                for (turn, idle) in share.into_iter().enumerate() {
                    let session = format!("session{}", turn % 7);
                    pool.keep(key(&session, 1), idle);
                    if turn % 3 == 0 {
                        drop(pool.take(&key(&session, 1)));
                    }
                }
            });
        }
    });
    let (said, found) = counts(pool);
    assert_eq!(said, found);
    assert!(said <= 12, "{said}");
    drop(far);
}

#[tokio::test]
async fn what_was_adopted_serves_once_and_only_what_it_was_opened_for() {
    let (sender, far) = connection().await;
    let adopted = Adopted::new(key("one", 1), sender, reached(1));
    let again = adopted.clone();
    assert_eq!(
        adopted.take(&key("one", 1)).unwrap().reached.address,
        reached(1).address
    );
    assert!(again.take(&key("one", 1)).is_none());
    is_closed(far).await;
    let (sender, far) = connection().await;
    let adopted = Adopted::new(key("one", 1), sender, reached(1));
    let changed = PoolKey {
        policy: (2, 0),
        ..key("one", 1)
    };
    assert!(adopted.take(&changed).is_none());
    is_closed(far).await;
    let (sender, far) = connection().await;
    let adopted = Adopted::new(key("one", 1), sender, reached(1));
    let held = adopted.clone();
    adopted.close();
    is_closed(far).await;
    assert!(held.take(&key("one", 1)).is_none());
}
