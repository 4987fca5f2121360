//! QUIC on the UDP port of a public listener: socket, handshakes, and the same limit on connections as TCP's.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use quinn::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig, ServerConfig,
    crypto::rustls::{HandshakeData, QuicServerConfig},
};
use sluicegate_relay::{
    flow::code,
    transport::{batch::DriversLast, closing, tuning},
};
use sluicegate_relay_protocol::{ALPN_H3, ErrorCode};
use tokio::time;

use super::{ListenerKind, Places, places::Seated};
use crate::{
    drain::{DrainWatch, Stage},
    telemetry::{Telemetry, TransportLabel},
};

/// A handshake takes at most this long.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// With this many handshakes going on, a client first proves that it has the address it sends from (RFC 9000 §8.1.2).
const UNPROVED: usize = 64;
/// Attempts that wait to be looked at; what comes beyond is refused unseen.
const WAITING: usize = 1024;
/// Bytes of a connection id: random, and nothing in them.
const ID_LENGTH: usize = 8;

/// What stateless resets are signed with (RFC 9000 §10.3). The same after a restart: clients of the process before are
/// told at once that their connection is gone.
pub struct ResetKey(hmac::Key);

impl ResetKey {
    /// Bytes of the secret.
    pub const LENGTH: usize = 32;

    /// From the secret.
    pub fn new(secret: &[u8; Self::LENGTH]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }
}

/// A bound UDP port.
#[derive(Debug)]
pub struct UdpListener {
    /// Where it listens.
    pub address: SocketAddr,
    endpoint: quinn::Endpoint,
}

impl UdpListener {
    /// Bind. `tls` is for QUIC: TLS 1.3 with the ALPN names served.
    ///
    /// # Errors
    /// The address is taken, not ours, or not permitted.
    pub fn bind(
        address: SocketAddr,
        tls: Arc<rustls::ServerConfig>,
        reset: &ResetKey,
        streams: u32,
    ) -> io::Result<Self> {
        let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
        let mut server = ServerConfig::with_crypto(Arc::new(crypto));
        server
            .transport_config(Arc::new(tuning::server(streams)))
            .max_incoming(WAITING)
            // Nothing comes early here: there is no 0-RTT.
            .incoming_buffer_size(64 << 10)
            .incoming_buffer_size_total(8 << 20)
            .migration(true);
        let mut config = tuning::endpoint(EndpointConfig::new(Arc::new(reset.0.clone())));
        config.cid_generator(|| Box::new(RandomIds));
        let endpoint = quinn::Endpoint::new(
            config,
            Some(server),
            tuning::socket(address)?,
            Arc::new(DriversLast),
        )?;
        Ok(Self {
            address: endpoint.local_addr()?,
            endpoint,
        })
    }

    /// The socket, to be asked to let its last packets out.
    pub fn endpoint(&self) -> quinn::Endpoint {
        self.endpoint.clone()
    }
}

/// quinn's own ids carry a signature of this process: what another one signed is dropped, and never answered with a reset.
#[derive(Debug)]
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_LENGTH];
        // Without randomness ids collide, and quinn asks again.
        let _ = getrandom::fill(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// A QUIC connection whose handshake is done.
#[derive(Clone, Debug)]
pub struct Shaken {
    /// The connection. Its own word on where its client is may be anybody's: see `front/path`.
    pub connection: quinn::Connection,
    /// Where its client was in the handshake, and was reached.
    pub from: SocketAddr,
}

/// What a QUIC connection speaks, by its ALPN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spoken {
    /// The relay's own protocol.
    Relay,
    /// HTTP/3.
    Http3,
}

impl Spoken {
    fn of(connection: &quinn::Connection) -> Self {
        let data = connection.handshake_data();
        let data = data.and_then(|data| data.downcast::<HandshakeData>().ok());
        match data.and_then(|data| data.protocol) {
            Some(name) if name == ALPN_H3 => Self::Http3,
            // There is no handshake without one of the two.
            _ => Self::Relay,
        }
    }

    fn label(self) -> TransportLabel {
        match self {
            Self::Relay => TransportLabel::quic,
            Self::Http3 => TransportLabel::h3,
        }
    }
}

/// Accept until the drain reaches [`Stage::Draining`], from then on refuse: silence would only make clients wait. Each
/// connection is served in a task of its own.
pub async fn accept_quic<F, Fut>(
    listener: UdpListener,
    places: Arc<Places>,
    telemetry: Telemetry,
    drain: DrainWatch,
    serve: F,
) where
    F: Fn(Shaken, Spoken) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let kind = ListenerKind::Public.label();
    let endpoint = listener.endpoint;
    // Each handshake holds one.
    let shaking = Arc::new(());
    while let Some(incoming) = endpoint.accept().await {
        if drain.stage() >= Stage::Draining {
            incoming.refuse();
            continue;
        }
        if Arc::strong_count(&shaking) > UNPROVED && !incoming.remote_address_validated() {
            // Fails only where it is validated.
            let _ = incoming.retry();
            continue;
        }
        let place = match places.take(incoming.remote_address().ip()) {
            Ok(place) => place,
            Err(full) => {
                telemetry.metrics().connection_refused(kind, full.label());
                incoming.refuse();
                continue;
            }
        };
        let (serve, shaking, telemetry) = (serve.clone(), shaking.clone(), telemetry.clone());
        drain.spawn(async move {
            // One whose handshake comes to nothing has had a place, and was never counted.
            let Some(shaken) = handshake(incoming, shaking).await else {
                return;
            };
            let spoken = Spoken::of(&shaken.connection);
            let count = telemetry.metrics().connection(kind, spoken.label());
            let seated = Seated::new(place, count);
            let forced = Forced(shaken.connection.clone());
            serve(shaken, spoken).await;
            drop((forced, seated));
        });
    }
}

/// What is still open when its task is dropped: the client is told, whatever is on the way.
struct Forced(quinn::Connection);

impl Drop for Forced {
    fn drop(&mut self) {
        // One that has ended has said why, or heard it.
        if self.0.close_reason().is_none() {
            closing::close(&self.0, code(ErrorCode::Forced), b"");
        }
    }
}

async fn handshake(incoming: quinn::Incoming, shaking: Arc<()>) -> Option<Shaken> {
    // A client may have gone on from elsewhere before anybody asks the connection.
    let from = incoming.remote_address();
    let shake = async { incoming.accept()?.await };
    let shaken = time::timeout(HANDSHAKE, shake).await;
    drop(shaking);
    match shaken {
        Ok(Ok(connection)) => Some(Shaken { connection, from }),
        Ok(Err(error)) => {
            tracing::debug!(%error, "QUIC handshake failed");
            None
        }
        Err(_) => None,
    }
}

/// Close what is left and let the last packets out: peers learn it now, and not by silence.
pub async fn flush(endpoints: &[quinn::Endpoint], within: Duration) {
    let idle = async {
        for endpoint in endpoints {
            endpoint.close(code(ErrorCode::Forced), b"");
            endpoint.wait_idle().await;
        }
    };
    let _ = time::timeout(within, idle).await;
}
