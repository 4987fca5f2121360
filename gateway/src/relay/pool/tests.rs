#![allow(clippy::unwrap_used)]

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use sluicegate_certs::{TrustBundle, tls};
use sluicegate_policy::ServiceUrl;
use sluicegate_relay::flow::Chunk;

use super::{super::ServicesConfig, Key, Pool, Services, Upstream};
use crate::{drain::Drain, session::SessionKey};

fn pool() -> Pool {
    let tls = tls::client(&TrustBundle::empty(), &[], None).unwrap();
    let services = Services::new(ServicesConfig {
        connect_timeout: Duration::from_secs(5),
        own: Arc::default(),
        resolve: Arc::new(|_| Box::pin(async { Ok(Vec::new()) })),
        tls: tls.clone(),
        tls_h2: tls,
        idle_timeout: None,
    });
    Pool::new(services, Drain::default().watch())
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
        _busy: Arc::new(()),
    }
}

#[tokio::test]
async fn of_two_made_at_once_one_is_kept_and_neither_is_idle_under_its_call() {
    let (pool, key) = (pool(), key());
    let (first, second) = (connection().await, connection().await);
    let (call, other) = (first.clone(), second.clone());
    pool.keep(key.clone(), &call);
    pool.keep(key.clone(), &other);
    let kept = |one: &Upstream| pool.lock().get(&key).is_some_and(|kept| kept.is(one));
    assert!(kept(&first), "what calls may use already stays");
    assert!(!pool.give_up(&key, &first) && !pool.give_up(&key, &second));
    drop(other);
    assert!(pool.give_up(&key, &second));
    assert!(kept(&first), "another's place is left alone");
    drop(call);
    assert!(pool.give_up(&key, &first) && !kept(&first));
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
    assert!(pool.lock().get(&key).is_some_and(|kept| kept.is(&next)));
}
