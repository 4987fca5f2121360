//! The relay's own checks: HTTP/2 with extended CONNECT, and a token's way to the echo service and back.

use std::{
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use rustls::ClientConfig;
use sluicegate_relay::{
    flow::{Early, Flow},
    transport::{ConnectError, Endpoint, H2Connection, OpenError, QuicConnection},
};
use sluicegate_relay_protocol::Handshake;
use tokio_util::task::TaskTracker;

use super::{check::Finding, inside::ECHO, plan::Road, road::Io, run::QUIC_SETTING};
use crate::secret::Secret;

/// HTTP/2 over a connection that is there, up to the peer's SETTINGS.
pub(super) async fn http2(
    road: &Road,
    io: Box<dyn Io>,
    tasks: &TaskTracker,
) -> Result<H2Connection, Finding> {
    let endpoint = Endpoint::parse(&road.url())
        .map_err(|error| Finding::fail(error.to_string(), "publicUrl"))?;
    H2Connection::over(io, &endpoint, tasks)
        .await
        .map_err(|error: ConnectError| Finding::fail(error.to_string(), "publicUrl"))
}

/// Open a stream to the echo service with a fresh token, and see the same bytes come back, then the end.
pub(super) async fn round_trip(connection: &H2Connection, token: &Secret) -> Result<(), Finding> {
    let nonce = nonce()?;
    let echo = Handshake::Service { name: ECHO.into() };
    let flow = connection
        .open(&echo, token.reveal(), &mut Early::nothing())
        .await
        .map_err(|error| refused(&error))?;
    there_and_back(flow, nonce).await
}

/// The same over a QUIC connection of its own.
pub(super) async fn over_quic(
    road: &Road,
    addresses: &[IpAddr],
    tls: &Arc<ClientConfig>,
    token: &Secret,
    tasks: &TaskTracker,
) -> Result<(), Finding> {
    let endpoint = Endpoint::parse(&road.url())
        .map_err(|error| Finding::fail(error.to_string(), "publicUrl"))?;
    let at = addresses
        .iter()
        .map(|ip| SocketAddr::new(*ip, road.target.port()));
    let connection = QuicConnection::connect_at(&endpoint, at, tls, tasks)
        .await
        .map_err(|error| Finding::fail(error.to_string(), QUIC_SETTING))?;
    let nonce = nonce()?;
    let echo = Handshake::Service { name: ECHO.into() };
    let flow = connection
        .open(&echo, token.reveal(), &mut Early::nothing())
        .await
        .map_err(|error| refused(&error))?;
    there_and_back(flow, nonce).await
}

fn nonce() -> Result<[u8; 16], Finding> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce)
        .map_err(|_| Finding::Unknown("the system gives no randomness".to_owned()))?;
    Ok(nonce)
}

async fn there_and_back(mut flow: impl Flow, nonce: [u8; 16]) -> Result<(), Finding> {
    let broken = |error: &dyn std::fmt::Display| {
        Finding::fail(
            format!("a relay stream to the gateway's own service broke: {error}"),
            "publicUrl",
        )
    };
    let mut chunk = Bytes::copy_from_slice(&nonce);
    while !chunk.is_empty() {
        poll_fn(|cx| flow.poll_write(cx, &mut chunk))
            .await
            .map_err(|error| broken(&error))?;
    }
    poll_fn(|cx| flow.poll_finish(cx))
        .await
        .map_err(|error| broken(&error))?;
    let mut back = Vec::new();
    while let Some(bytes) = poll_fn(|cx| flow.poll_read(cx))
        .await
        .map_err(|error| broken(&error))?
    {
        back.extend_from_slice(&bytes);
        if back.len() > nonce.len() {
            break;
        }
    }
    if back == nonce {
        Ok(())
    } else {
        Err(broken(&"other bytes came back than were sent"))
    }
}

/// A refusal says whether it is ours.
fn refused(error: &OpenError) -> Finding {
    let setting = match error {
        OpenError::Refused(refused) if refused.reason == "store_unavailable" => "store",
        OpenError::Refused(refused) if refused.reason == "draining" => {
            return Finding::Unknown("the gateway is draining".to_owned());
        }
        _ => "publicUrl",
    };
    Finding::fail(
        format!("a token minted now opens no relay stream: {error}"),
        setting,
    )
}
