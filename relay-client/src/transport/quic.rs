//! One QUIC connection that carries many relay streams, each a bidirectional stream of its own (ALPN
//! `sluicegate-relay/1`).

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, StatusCode};
use quinn::{ClientConfig, EndpointConfig, crypto::rustls::QuicClientConfig};
use sluicegate_relay_protocol::{
    ErrorCode, Handshake,
    message::Message,
    preamble::{Purpose, Request, Response},
};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, timeout},
};
use tokio_util::task::TaskTracker;

use super::{
    ConnectError, Endpoint, OpenError, Transport,
    batch::DriversLast,
    error::{CONNECT_TIMEOUT, OPEN_TIMEOUT, refused},
    life::Life,
    tuning,
};
use crate::flow::{Broken, QuicFlow, code};

/// Of a gateway's addresses the next is tried when the one before has not answered for this long (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);
/// The path is looked at this often …
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// … and takes no new streams when nothing has come back for this long, though the keep-alive asks every two seconds.
const SILENCE: Duration = Duration::from_secs(5);
/// What is said of such a path.
pub(super) const SILENT: &str = "nothing came back over UDP for 5 s";
/// The last packet's way out.
const FLUSH: Duration = Duration::from_secs(1);

/// A connection to the gateway. Cheap to clone; clones open streams on the same connection, which is closed when neither
/// clones nor streams are left.
#[derive(Clone, Debug)]
pub struct Connection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    quic: quinn::Connection,
    tasks: TaskTracker,
    life: Life,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.quic.close(code(ErrorCode::Done), b"");
    }
}

impl Connection {
    /// Connect. The connection's watch runs in `tasks` until it ends.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(
        endpoint: &Endpoint,
        tls: &Arc<rustls::ClientConfig>,
        tasks: &TaskTracker,
    ) -> Result<Self, ConnectError> {
        let connected = async {
            // The system's own resolution is right here: this is the sandbox asking for its gateway, not a target.
            #[allow(clippy::disallowed_methods, reason = "as TcpStream::connect does")]
            let addresses = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port))
                .await
                .map_err(|error| ConnectError::Quic(endpoint.to_string(), error.to_string()))?;
            Self::connect_at(endpoint, addresses, tls, tasks).await
        };
        timeout(CONNECT_TIMEOUT, connected)
            .await
            .map_err(|_| ConnectError::Timeout(endpoint.to_string(), CONNECT_TIMEOUT))?
    }

    /// Connect to these addresses, whatever the endpoint's host resolves to. There is no deadline but the caller's.
    ///
    /// # Errors
    /// [`ConnectError::Quic`].
    pub async fn connect_at(
        endpoint: &Endpoint,
        addresses: impl IntoIterator<Item = SocketAddr>,
        tls: &Arc<rustls::ClientConfig>,
        tasks: &TaskTracker,
    ) -> Result<Self, ConnectError> {
        let failed = |what: String| ConnectError::Quic(endpoint.to_string(), what);
        if !endpoint.tls {
            return Err(failed("there is no QUIC without TLS".into()));
        }
        let crypto = QuicClientConfig::try_from(tls.clone()).map_err(|e| failed(e.to_string()))?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(tuning::client()));
        let mut attempts = JoinSet::new();
        for (place, address) in addresses.into_iter().enumerate() {
            let (config, name) = (config.clone(), endpoint.host.clone());
            attempts.spawn(async move {
                tokio::time::sleep(STAGGER * u32::try_from(place).unwrap_or(u32::MAX)).await;
                dial(address, config, &name).await
            });
        }
        let mut last = "the name has no address".to_owned();
        while let Some(done) = attempts.join_next().await {
            match done {
                Ok(Ok((quic, socket))) => return Ok(Self::keep(quic, socket, tasks)),
                Ok(Err(error)) => last = error,
                Err(error) => last = error.to_string(),
            }
        }
        Err(failed(last))
    }

    fn keep(quic: quinn::Connection, socket: quinn::Endpoint, tasks: &TaskTracker) -> Self {
        let life = Life::default();
        tasks.spawn(watch(quic.clone(), socket, life.clone()));
        let tasks = tasks.clone();
        let shared = Arc::new(Shared { quic, tasks, life });
        Self { shared }
    }

    /// Show the credential on the control stream, which from then on is listened to: the gateway's verdict on it.
    ///
    /// # Errors
    /// [`OpenError::Refused`] where the gateway does not know the credential, or does not serve its session now.
    pub async fn prove(&self, token: &str) -> Result<(), OpenError> {
        let control = self.open_stream(Purpose::Control, token).await?;
        self.shared
            .tasks
            .spawn(listen(control, self.shared.life.clone()));
        Ok(())
    }

    /// Open a relay stream.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(&self, target: &Handshake, token: &str) -> Result<QuicFlow, OpenError> {
        let purpose = match target {
            Handshake::Service { name } => Purpose::Service { name: name.clone() },
            Handshake::Listener { .. } => return Err(OpenError::NotCarried(Transport::Quic)),
            Handshake::Egress { host, port } => Purpose::Egress {
                host: host.clone(),
                port: *port,
            },
        };
        let flow = self.open_stream(purpose, token).await?;
        Ok(flow.holding(self.shared.clone()))
    }

    async fn open_stream(&self, purpose: Purpose, token: &str) -> Result<QuicFlow, OpenError> {
        tokio::select! {
            biased;
            opened = timeout(OPEN_TIMEOUT, self.open_untimed(purpose, token)) => {
                opened.map_err(|_| OpenError::Timeout(OPEN_TIMEOUT))?
            }
            // It never had an answer, and no byte of the program's is on it: another connection may have it.
            () = self.shared.life.ended() => Err(OpenError::Retired),
        }
    }

    async fn open_untimed(&self, purpose: Purpose, token: &str) -> Result<QuicFlow, OpenError> {
        let token = token.to_owned();
        let request = Request { purpose, token }.encode();
        let request = request.map_err(|_| OpenError::Token)?;
        // Waits for a place where the gateway's limit on streams is reached.
        let opened = self.shared.quic.open_bi().await;
        let (send, receive) = opened.map_err(|error| self.lost(&error.to_string()))?;
        let mut flow = QuicFlow::new(send, receive);
        match flow.send_head(request).await {
            // An answer may stand behind a STOP_SENDING.
            Ok(()) | Err(Broken::Reset) => {}
            Err(broken) => return Err(self.broken(broken)),
        }
        match flow.head(Response::decode).await {
            Ok(Response::Accepted) => Ok(flow),
            Ok(Response::Refused { status, body }) => {
                flow.abort(ErrorCode::Cancelled);
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
                Err(OpenError::Refused(refused(
                    status,
                    &HeaderMap::new(),
                    &body,
                )))
            }
            Err(broken) => Err(self.broken(broken)),
        }
    }

    fn broken(&self, broken: Broken) -> OpenError {
        match broken {
            Broken::Lost => self.lost("the connection is lost"),
            broken => OpenError::Broken(broken),
        }
    }

    fn lost(&self, why: &str) -> OpenError {
        self.shared.life.retire(why);
        OpenError::Retired
    }

    pub(super) fn life(&self) -> &Life {
        &self.shared.life
    }
}

/// One attempt, from a socket of its own.
async fn dial(
    address: SocketAddr,
    config: ClientConfig,
    name: &str,
) -> Result<(quinn::Connection, quinn::Endpoint), String> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = tuning::socket(any).map_err(|error| error.to_string())?;
    let endpoint = quinn::Endpoint::new(
        tuning::endpoint(EndpointConfig::default()),
        None,
        socket,
        Arc::new(DriversLast),
    );
    let endpoint = endpoint.map_err(|error| error.to_string())?;
    let connecting = endpoint.connect_with(config, address, name);
    let connecting = connecting.map_err(|error| error.to_string())?;
    let quic = connecting.await.map_err(|error| error.to_string())?;
    Ok((quic, endpoint))
}

/// Retires the connection when it ends or falls silent; lets its last packet out.
async fn watch(quic: quinn::Connection, socket: quinn::Endpoint, life: Life) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    // A process that was held up itself must not take that for the path's silence.
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut heard, mut silent) = (0, 0);
    let ended = loop {
        tokio::select! {
            ended = quic.closed() => break ended,
            _ = look.tick(), if !life.has_ended() => {
                let now = quic.stats().udp_rx.datagrams;
                silent = if now == heard { silent + 1 } else { 0 };
                heard = now;
                if LOOK_EVERY * silent >= SILENCE {
                    life.end(SILENT);
                }
            }
        }
    };
    life.end(ended.to_string());
    drop(quic);
    let _ = timeout(FLUSH, socket.wait_idle()).await;
}

/// Hears what the gateway says, until the connection or the stream ends.
async fn listen(mut control: QuicFlow, life: Life) {
    loop {
        match control.head(Message::decode).await {
            Ok(Message::Drain) => life.retire("the gateway goes down"),
            Ok(Message::Unknown(_)) => {}
            Err(_) => return,
        }
    }
}
