#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use sluicegate_certs::{TrustBundle, tls};
use sluicegate_policy::{ServiceUrl, Within};
use sluicegate_relay::flow::Chunk;
use tokio::task::JoinSet;

use super::{super::ServicesConfig, Key, Place, Pool, Services, Upstream};
use crate::{drain::Drain, session::SessionKey};

fn config(idle_timeout: Option<Duration>) -> ServicesConfig {
    let tls = tls::client(&TrustBundle::empty(), &[], None).unwrap();
    ServicesConfig {
        connect_timeout: Duration::from_secs(5),
        own: Arc::default(),
        resolve: Arc::new(|_| Box::pin(async { Ok(Vec::new()) })),
        tls: tls.clone(),
        tls_h2: tls,
        idle_timeout,
    }
}

fn pool() -> Pool {
    Pool::new(Services::new(config(None)), Drain::default().watch())
}

fn key() -> Key {
    Key {
        session: SessionKey {
            namespace: "default".into(),
            provider: "test".into(),
            id: "one".into(),
        },
        generation: 1,
        url: ServiceUrl::Tcp(Ipv4Addr::LOCALHOST.into(), 1),
        service: "grpc".into(),
        source: None,
        peer_uid: None,
        within: Within::default(),
        proxy_protocol: None,
        settings: 0,
    }
}

/// What a connection's own task holds.
async fn connection() -> Upstream {
    let (near, _far) = tokio::io::duplex(1024);
    let handshake = h2::client::Builder::new().handshake::<_, Chunk>(near);
    Upstream {
        requests: handshake.await.unwrap().0,
        scheme: "http",
        authority: "service".into(),
        address: None,
        place: Place::new(Arc::default()),
    }
}

/// One to a service that allows so many calls on it.
async fn limited(calls: u32) -> (Upstream, JoinSet<()>) {
    let (near, far) = tokio::io::duplex(1024);
    let mut server = h2::server::Builder::new();
    server.max_concurrent_streams(calls);
    let client = h2::client::Builder::new().handshake::<_, Chunk>(near);
    let (server, client) = tokio::join!(server.handshake::<_, bytes::Bytes>(far), client);
    let (mut server, (requests, driver)) = (server.unwrap(), client.unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { while server.accept().await.is_some() {} });
    tasks.spawn(async move { driver.await.unwrap() });
    while requests.current_max_send_streams() != calls as usize {
        tokio::task::yield_now().await;
    }
    let upstream = Upstream {
        requests,
        ..connection().await
    };
    (upstream, tasks)
}

#[tokio::test]
async fn none_is_idle_under_its_call_and_each_goes_by_itself() {
    let (pool, key) = (pool(), key());
    let (first, second) = (connection().await, connection().await);
    let (call, other) = (first.clone(), second.clone());
    pool.keep(key.clone(), &call);
    pool.keep(key.clone(), &other);
    assert_eq!(pool.count(&key), 2);
    assert!(!pool.give_up(&key, &first) && !pool.give_up(&key, &second));
    drop(other);
    assert!(pool.give_up(&key, &second));
    assert_eq!(pool.count(&key), 1, "another's place is left alone");
    drop(call);
    assert!(pool.give_up(&key, &first));
    assert!(pool.lock().is_empty(), "nothing is left of them");
}

#[tokio::test]
async fn told_to_go_away_it_lives_as_long_as_its_calls() {
    let (pool, key) = (pool(), key());
    let first = connection().await;
    let call = first.clone();
    pool.keep(key.clone(), &call);
    pool.forget(&key, &first);
    assert!(!pool.give_up(&key, &first), "a call is on it");
    let next = connection().await;
    pool.keep(key.clone(), &next);
    drop(call);
    assert!(pool.give_up(&key, &first));
    assert_eq!(pool.count(&key), 1);
}

#[tokio::test]
async fn a_connection_takes_as_many_calls_as_its_service_allows() {
    let (pool, key) = (pool(), key());
    let ((first, _one), (second, _other)) = (limited(3).await, limited(3).await);
    let allowed = first.requests.current_max_send_streams();
    assert_eq!(allowed, 3);
    pool.keep(key.clone(), &first);
    let mut calls: Vec<_> = (0..allowed).map(|_| pool.free(&key).unwrap()).collect();
    assert!(pool.free(&key).is_none(), "it is full");
    pool.keep(key.clone(), &second);
    assert!(pool.free(&key).unwrap().is(&second));
    let queue = pool.queue(&key);
    calls[0].place.freed = queue.freed.clone();
    let mut heard = std::pin::pin!(queue.freed.notified());
    heard.as_mut().enable();
    drop(calls.swap_remove(0));
    heard.await;
    assert!(pool.free(&key).unwrap().is(&first));
}

#[tokio::test]
async fn a_place_that_comes_free_wakes_one_who_waits_for_it() {
    let (pool, key) = (pool(), key());
    let other = Key {
        service: "other".into(),
        ..key.clone()
    };
    let (here, there) = (pool.queue(&key), pool.queue(&other));
    let mut first = std::pin::pin!(here.freed.notified());
    let mut second = std::pin::pin!(here.freed.notified());
    let mut third = std::pin::pin!(there.freed.notified());
    assert!(!first.as_mut().enable() && !second.as_mut().enable() && !third.as_mut().enable());
    drop(Place::new(here.freed.clone()));
    assert!(first.as_mut().enable() && !second.as_mut().enable());
    assert!(!third.as_mut().enable());
    // One more connection is room for many.
    pool.keep(key, &connection().await);
    assert!(second.as_mut().enable() && !third.as_mut().enable());
}

#[tokio::test]
async fn a_service_that_was_never_reached_leaves_nothing() {
    let (pool, key) = (pool(), key());
    let (one, two) = (pool.queue(&key), pool.queue(&key));
    let turn = one.opening.lock().await;
    drop(two);
    assert_eq!(pool.lock().len(), 1);
    drop(turn);
    drop(one);
    assert!(pool.lock().is_empty());
}

/// A stream that carries calls outlives a reload, and each of its calls is opened by what is in force then.
#[test]
fn services_of_before_open_by_the_settings_of_now() {
    let hour = Some(Duration::from_secs(3600));
    let before = Services::new(config(None));
    let after = before.after(config(hour));
    let first = before.in_force();
    assert_eq!((before.idle_timeout(), after.in_force()), (None, first));
    after.put_in_force();
    assert_eq!((before.idle_timeout(), after.idle_timeout()), (hour, hour));
    assert_eq!(before.in_force(), after.in_force());
    assert_ne!(
        before.in_force(),
        first,
        "connections from before are let be"
    );
}
