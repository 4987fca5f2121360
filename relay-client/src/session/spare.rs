//! A second connection, to another replica of the gateway: what is opened while the first one is gone need not wait.

use std::{net::IpAddr, time::Duration};

use tokio::{sync::watch, time::sleep};

use crate::{
    backoff::Backoff,
    transport::{ConnectError, Connection, Racer, Reason, Why, Won},
};

/// A gateway with one address is looked up again after this long: it may have got another.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How long the first connection is left to itself before there is a second.
const AFTER: Duration = Duration::from_millis(500);

/// Keep one, beside what `first` has.
pub(super) async fn keep(
    racer: Racer,
    mut first: watch::Receiver<Option<Connection>>,
    publish: watch::Sender<Option<Connection>>,
) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    loop {
        let Ok(connection) = first.wait_for(Option::is_some).await.map(|c| c.clone()) else {
            return;
        };
        sleep(AFTER).await;
        let Some(connection) = connection.filter(|connection| !connection.is_retired()) else {
            continue;
        };
        let Some(peer) = connection.peer() else {
            // Each of its streams has a connection of its own already.
            sleep(LOOK_AGAIN).await;
            continue;
        };
        match another(&racer, &connection, peer).await {
            None => sleep(LOOK_AGAIN).await,
            Some(Err(error)) => {
                tracing::debug!(gateway = %racer.endpoint, %error, "no second connection");
                sleep(backoff.bound() / 2 + backoff.wait() / 2).await;
            }
            Some(Ok(won)) => {
                backoff.reset();
                let spare = won.connection;
                tracing::info!(gateway = %racer.endpoint, replica = ?spare.peer(), "a second connection");
                publish.send_replace(Some(spare.clone()));
                until_of_no_use(&spare, &mut first).await;
                publish.send_replace(None);
                spare.retire("it was the second connection");
            }
        }
    }
}

/// A connection to another address of the same family: two families are two ways to one replica.
async fn another(
    racer: &Racer,
    first: &Connection,
    peer: IpAddr,
) -> Option<Result<Won, ConnectError>> {
    let addresses = racer.endpoint.addresses().await.ok()?;
    let others: Vec<IpAddr> = addresses
        .iter()
        .map(|address| address.ip())
        .filter(|ip| *ip != peer && ip.is_ipv4() == peer.is_ipv4())
        .collect();
    let chance = getrandom::u32().map_or(0, |r| r as usize);
    let chosen = others.get(chance.checked_rem(others.len())?)?;
    let racer = Racer {
        endpoint: racer.endpoint.at(*chosen),
        ..racer.clone()
    };
    let why = Why::new(Reason::Replica, "to have another replica at hand");
    Some(racer.connect(first.transport(), why).await)
}

/// Until it goes, or the first one is to the same replica.
async fn until_of_no_use(spare: &Connection, first: &mut watch::Receiver<Option<Connection>>) {
    let same = |other: &Option<Connection>| {
        let other = other.as_ref().and_then(Connection::peer);
        other.is_some() && other == spare.peer()
    };
    tokio::select! {
        () = spare.retired() => {}
        // An error is the session's end.
        _ = first.wait_for(same) => {}
    }
}
