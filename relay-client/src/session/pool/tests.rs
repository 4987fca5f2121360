#![allow(clippy::unwrap_used)]

use std::{
    pin::pin,
    task::{Context, Waker},
};

use sluicegate_certs::TrustBundle;
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Duration, advance, pause, timeout},
};
use tokio_util::task::TaskTracker;

use super::{Connection, Instant, KEPT, LOOK_EVERY, PATIENCE, Pool, REST, SETTLED};
use crate::transport::{Endpoint, Tls, Transport};

/// To somebody who takes connections and says nothing. HTTP/1.1 needs no more to be one.
struct Mute {
    _listener: TcpListener,
    endpoint: Endpoint,
    tls: Tls,
    tasks: TaskTracker,
}

impl Mute {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        Self {
            _listener: listener,
            endpoint: Endpoint::parse(&endpoint).unwrap(),
            tls: Tls::new(&TrustBundle::empty()).unwrap(),
            tasks: TaskTracker::new(),
        }
    }

    async fn connection(&self) -> Connection {
        let connecting = Connection::connect(Transport::H1, &self.endpoint, &self.tls, &self.tasks);
        connecting.await.unwrap()
    }
}

/// What is asked beside bulk is short: it is seldom there when somebody looks.
#[tokio::test]
async fn what_is_used_between_looks_is_not_let_go_of() {
    let mute = Mute::new().await;
    let (pool, one) = (Pool::default(), mute.connection().await);
    pool.add(one.clone());
    pause();
    let looks = KEPT.as_secs() / LOOK_EVERY.as_secs() + 1;
    for _ in 0..looks {
        drop(one.place().unwrap());
        advance(LOOK_EVERY).await;
        pool.let_go();
    }
    assert_eq!(pool.count(), 1);
    for _ in 0..looks {
        advance(LOOK_EVERY).await;
        pool.let_go();
    }
    assert_eq!(pool.count(), 0);
}

/// Its place went with the token by which its streams came, and somebody else has it.
#[tokio::test]
async fn a_connection_without_a_place_is_done_without_where_there_is_another() {
    let mute = Mute::new().await;
    let (pool, first) = (Pool::default(), mute.connection().await);
    assert!(!pool.spares(&first, Some(&first)) && !pool.spares(&first, None));
    let further = mute.connection().await;
    pool.add(further.clone());
    // It is all there is.
    assert!(!pool.spares(&further, None) && !further.is_retired());
    // And all that has room: the other is full.
    let full: Vec<_> = std::iter::from_fn(|| first.place()).collect();
    assert!(!pool.spares(&further, Some(&first)) && !further.is_retired());
    drop(full);
    assert!(pool.spares(&further, Some(&first)));
    assert!(further.is_retired() && !first.is_retired());
    assert!(pool.room(&first).unwrap().0.is(&first));
    assert!(!pool.spares(&first, Some(&first)), "it is all that is left");
    // The first is no better: a further one is promoted.
    let another = mute.connection().await;
    pool.add(another.clone());
    assert!(pool.spares(&first, Some(&first)) && first.is_retired());
    assert!(pool.promote().unwrap().is(&another));
}

/// Between here and there is something that lets a client have one connection, and cuts those that come after it.
#[tokio::test]
async fn what_goes_as_soon_as_it_is_there_is_not_made_again_at_once() {
    let end = |one: &Connection| one.retire("it was cut");
    type Case = (fn(&Connection), Duration, bool);
    let cases: [Case; 3] = [
        // It comes back.
        (Connection::leave, Duration::ZERO, false),
        (end, Duration::ZERO, true),
        (end, SETTLED, false),
    ];
    let mute = Mute::new().await;
    let mut connections = Vec::new();
    for _ in &cases {
        connections.push(mute.connection().await);
    }
    pause();
    for ((end, lived, futile), one) in cases.into_iter().zip(connections) {
        let pool = Pool::default();
        pool.add(one.clone());
        advance(lived).await;
        end(&one);
        assert_eq!(pool.let_go(), futile, "{lived:?}");
        assert_eq!((pool.count(), pool.let_go()), (0, false));
        let now = Instant::now();
        assert_eq!(pool.is_resting(now), futile, "{lived:?}");
        assert!(!pool.is_resting(now + REST));
    }
}

/// Both happen before who waits for room has its turn.
#[tokio::test]
async fn one_that_comes_as_another_goes_is_heard_of() {
    let mute = Mute::new().await;
    let (pool, first) = (Pool::default(), mute.connection().await);
    let (goes, comes) = (mute.connection().await, mute.connection().await);
    pool.add(goes.clone());
    let (before, freed) = (pool.count(), pool.freed());
    let heard = freed.notified();
    let (_leads, lead) = watch::channel(Some(first.clone()));
    let mut changed = pin!(pool.changed(&first, before, lead));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(changed.as_mut().poll(&mut cx).is_pending());
    goes.leave();
    pool.let_go();
    pool.add(comes);
    assert!(changed.as_mut().poll(&mut cx).is_pending(), "as many");
    timeout(PATIENCE, heard).await.unwrap();
}

/// While there was none, a further one stood in for it, and is full.
#[tokio::test]
async fn a_first_connection_that_comes_is_heard_of() {
    let mute = Mute::new().await;
    let (pool, stands_in) = (Pool::default(), mute.connection().await);
    pool.add(stands_in.clone());
    let (leads, lead) = watch::channel(None);
    let mut changed = pin!(pool.changed(&stands_in, 1, lead));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(changed.as_mut().poll(&mut cx).is_pending());
    leads.send_replace(Some(stands_in.clone()));
    assert!(changed.as_mut().poll(&mut cx).is_pending(), "the same");
    leads.send_replace(Some(mute.connection().await));
    timeout(PATIENCE, changed).await.unwrap();
}

/// Whoever makes one for bulk looks whether another place is left, and streams do not wait for that.
#[tokio::test]
async fn streams_that_run_short_are_heard_of() {
    let mute = Mute::new().await;
    let (pool, first) = (Pool::default(), mute.connection().await);
    let mut short = pin!(pool.runs_short(&first));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(short.as_mut().poll(&mut cx).is_pending());
    pool.0.wanted.notify_one();
    assert!(short.as_mut().poll(&mut cx).is_pending(), "there is room");
    let all: Vec<_> = std::iter::from_fn(|| pool.room(&first)).collect();
    assert!(!all.is_empty());
    timeout(PATIENCE, short).await.unwrap();
    timeout(PATIENCE, pool.runs_short(&first)).await.unwrap();
}
