//! A client that comes back.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use quinn::crypto::rustls::QuicClientConfig;
use rustls::{
    client::{ClientSessionMemoryCache, ClientSessionStore, Resumption},
    pki_types::ServerName,
};
use sluicegate_certs::Authority;

use crate::relay::testing::{World, within};

/// Until there is a ticket for this server. It is given back.
async fn kept(tickets: &ClientSessionMemoryCache, server: &ServerName<'static>) {
    let ticket = async {
        loop {
            if let Some(ticket) = tickets.take_tls13_ticket(server) {
                return ticket;
            }
            tokio::task::yield_now().await;
        }
    };
    let ticket = within("a ticket", ticket).await;
    tickets.insert_tls13_ticket(server.clone(), ticket);
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
    let tickets = Arc::new(ClientSessionMemoryCache::new(8));
    let returning = config(Resumption::store(tickets.clone()));
    let (first, accepted) = connect(&returning).await;
    let _first = (first.unwrap(), accepted.unwrap());
    kept(&tickets, &ServerName::try_from("127.0.0.1").unwrap()).await;
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
