//! A client that comes back.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use quinn::crypto::rustls::QuicClientConfig;
use rustls::{
    NamedGroup,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
        Tls13ClientSessionValue,
    },
    pki_types::ServerName,
};
use sluicegate_certs::Authority;
use tokio::sync::Notify;

use crate::relay::testing::{World, within};

/// Keeps what any client would, and says when there is a ticket.
#[derive(Debug)]
struct Tickets {
    kept: ClientSessionMemoryCache,
    given: Notify,
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.kept.set_kx_hint(name, group);
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept.kx_hint(name)
    }

    fn set_tls12_session(&self, name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.kept.set_tls12_session(name, value);
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.kept.tls12_session(name)
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.kept.remove_tls12_session(name);
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.kept.insert_tls13_ticket(name, value);
        self.given.notify_one();
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept.take_tls13_ticket(name)
    }
}

#[tokio::test]
async fn the_next_connection_resumes_by_the_ticket_of_the_first() {
    let world = World::new().await;
    let (gateway, shown) = world.unserved_quic_showing();
    let (address, socket) = (
        gateway.local_addr().unwrap(),
        quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap(),
    );
    let config = |resumption| {
        let mut tls = (*world.quic_tls()).clone();
        tls.resumption = resumption;
        let crypto = QuicClientConfig::try_from(Arc::new(tls)).unwrap();
        quinn::ClientConfig::new(Arc::new(crypto))
    };
    let connect = async |config: &quinn::ClientConfig| {
        let connecting = socket.connect_with(config.clone(), address, "127.0.0.1");
        let connecting = connecting.unwrap();
        let accepting = async { gateway.accept().await.unwrap().await };
        let both = async { tokio::join!(connecting, accepting) };
        within("a handshake", both).await
    };
    let tickets = Arc::new(Tickets {
        kept: ClientSessionMemoryCache::new(8),
        given: Notify::new(),
    });
    let returning = config(Resumption::store(tickets.clone()));
    let (first, accepted) = connect(&returning).await;
    let _first = (first.unwrap(), accepted.unwrap());
    within("a ticket", tickets.given.notified()).await;
    // A certificate that no client trusts: whoever resumes is not shown it.
    let (names, now) = (["127.0.0.1".to_owned()], SystemTime::now());
    let stranger = Authority::create("stranger", now).unwrap();
    let stranger = stranger.issue_server(&names, Duration::from_secs(3600), now);
    shown.replace(stranger.unwrap());
    let (again, accepted) = connect(&returning).await;
    let _again = (again.unwrap(), accepted.unwrap());
    let (full, _refused) = connect(&config(Resumption::default())).await;
    assert!(full.is_err(), "the certificate was trusted");
}
