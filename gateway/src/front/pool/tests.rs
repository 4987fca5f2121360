#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sluicegate_policy::Target;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio_util::task::TaskTracker;

use super::{Adopted, Bounds, Pool, PoolKey};
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

async fn put(pool: &Pool, session: &str, number: u16) -> DuplexStream {
    let (sender, far) = connection().await;
    pool.put(key(session, number), sender, reached(number));
    far
}

fn counts(pool: &Pool) -> (usize, usize) {
    let held = pool.held.lock().unwrap();
    let keys = held.sessions.values().flat_map(|own| own.keys.values());
    (held.count, keys.map(Vec::len).sum())
}

#[tokio::test]
async fn a_session_over_its_bound_gives_what_idled_longest() {
    let pool = Pool::bounded(Bounds {
        of_key: 2,
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
