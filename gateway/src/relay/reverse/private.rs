//! Dial targets by TLS name, on a private listener: the client's certificate says that it is a host, the name which
//! listener of which session it wants.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use sluicegate_policy::Denial;
use sluicegate_relay::flow::{Ahead, Flow, Shared, TlsFlow};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_rustls::TlsAcceptor;

use super::{Dial, EXHAUSTED, Reverse, caller};
use crate::{
    drain::Stage,
    session::Registry,
    telemetry::{Front, Kind, TransportLabel},
};

/// A TLS handshake takes at most this long.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections of hosts open at once.
const CONNECTIONS: usize = 4096;

/// A private listener, bound.
#[derive(Debug)]
pub struct PrivateListener {
    /// The socket.
    pub socket: TcpListener,
    /// Asks for a client certificate.
    pub tls: Arc<ServerConfig>,
    /// Knows whose each name is.
    pub registry: Arc<Registry>,
}

impl Reverse {
    /// Serve a private listener until the gateway goes down.
    pub async fn serve_private(self, listener: PrivateListener) {
        let mut drain = self.inner.drain.clone();
        let listener = Arc::new(listener);
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                biased;
                () = drain.reached(Stage::Draining) => return,
                accepted = listener.socket.accept() => accepted,
            };
            let Ok((tcp, peer)) = accepted else {
                tokio::time::sleep(EXHAUSTED).await;
                continue;
            };
            let metrics = self.telemetry().metrics();
            let Ok(permit) = permits.clone().try_acquire_owned() else {
                metrics.connection_refused("private", "gateway");
                let _ = tcp.set_zero_linger();
                continue;
            };
            let counted = metrics.connection("private", TransportLabel::tcp);
            let (reverse, listener) = (self.clone(), listener.clone());
            self.inner.drain.spawn(async move {
                reverse.private(tcp.into(), peer, &listener).await;
                drop((counted, permit));
            });
        }
    }

    async fn private(self, tcp: Shared, peer: SocketAddr, listener: &PrivateListener) {
        let accepting = TlsAcceptor::from(listener.tls.clone()).accept(Ahead::from(tcp));
        let stream = match timeout(HANDSHAKE, accepting).await {
            Ok(Ok(stream)) => stream,
            // No certificate, or not one of ours: rustls has said so in an alert.
            Ok(Err(error)) => {
                return tracing::debug!(%peer, %error, "a host's TLS handshake failed");
            }
            Err(_) => return tracing::debug!(%peer, "a host's TLS handshake took too long"),
        };
        let name = stream.get_ref().1.server_name().map(str::to_owned);
        let mut flow: Box<dyn Flow> = Box::new(TlsFlow::new(stream));
        let found = name
            .as_deref()
            .and_then(|name| listener.registry.dials().named(name));
        match found {
            Some((session, name)) => {
                Dial::begin(&self, session, name, flow, caller(peer))
                    .run()
                    .await;
            }
            None => {
                let mut recorder =
                    self.telemetry()
                        .begin(Kind::stream, Front::listener, caller(peer));
                recorder.target(name.as_deref().unwrap_or("no name"));
                recorder.refused(&Denial::ListenerNotAllowed.into());
                flow.reset();
            }
        }
    }
}
