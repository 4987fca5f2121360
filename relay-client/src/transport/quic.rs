//! One QUIC connection that carries many relay streams, each a bidirectional stream of its own (ALPN
//! `sluicegate-relay/1`).

use std::{
    future::poll_fn,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use quinn::{ClientConfig, EndpointConfig, crypto::rustls::QuicClientConfig};
use sluicegate_certs::{Channel, ClientKey};
use sluicegate_relay_protocol::{
    ErrorCode, Handshake, Instance,
    message::Message,
    preamble::{Purpose, Request, Response},
    varint,
};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    ConnectError, Endpoint, OpenError,
    batch::DriversLast,
    closing,
    error::{BODY_MAX, CONNECT_TIMEOUT, OPEN_TIMEOUT, ROOM_TIMEOUT, refused},
    hearing::watch,
    life::Life,
    prover::Prover,
    tuning,
};
use crate::flow::{Broken, Early, Flow, QuicFlow, code};

/// Of a gateway's addresses the next is tried when the one before has not answered for this long (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);

/// A connection to the gateway. Cheap to clone; clones open streams on the same connection, which is closed when neither
/// clones nor streams are left.
#[derive(Clone, Debug)]
pub struct Connection {
    shared: Arc<Shared>,
    prover: Prover,
}

#[derive(Debug)]
struct Shared {
    quic: quinn::Connection,
    tasks: TaskTracker,
    life: Life,
    instance: OnceLock<Instance>,
    /// Ends what listens to the control stream.
    control: Mutex<CancellationToken>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        closing::close(&self.quic, code(ErrorCode::Done), b"");
    }
}

impl Connection {
    /// Connect, with windows of its own. The connection's watch runs in `tasks` until it ends.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(
        endpoint: &Endpoint,
        tls: &Arc<rustls::ClientConfig>,
        tasks: &TaskTracker,
        tuned: tuning::Client,
    ) -> Result<Self, ConnectError> {
        let connected = async {
            let addresses = endpoint
                .addresses()
                .await
                .map_err(|error| ConnectError::Quic(endpoint.to_string(), error.to_string()))?;
            Self::dial_all(endpoint, addresses, tls, tasks, tuned).await
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
        Self::dial_all(endpoint, addresses, tls, tasks, tuning::client()).await
    }

    async fn dial_all(
        endpoint: &Endpoint,
        addresses: impl IntoIterator<Item = SocketAddr>,
        tls: &Arc<rustls::ClientConfig>,
        tasks: &TaskTracker,
        tuned: tuning::Client,
    ) -> Result<Self, ConnectError> {
        let failed = |what: String| ConnectError::Quic(endpoint.to_string(), what);
        if !endpoint.tls {
            return Err(failed("there is no QUIC without TLS".into()));
        }
        let crypto = QuicClientConfig::try_from(tls.clone()).map_err(|e| failed(e.to_string()))?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(tuned.config));
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
                Ok(Ok((quic, socket))) => return Ok(Self::keep(quic, socket, tuned.window, tasks)),
                Ok(Err(error)) => last = error,
                Err(error) => last = error.to_string(),
            }
        }
        Err(failed(last))
    }

    fn keep(
        quic: quinn::Connection,
        socket: quinn::Endpoint,
        window: u32,
        tasks: &TaskTracker,
    ) -> Self {
        let life = Life::default();
        tasks.spawn(watch(quic.clone(), socket, window, life.clone()));
        let tasks = tasks.clone();
        let shared = Arc::new(Shared {
            quic,
            tasks,
            life,
            instance: OnceLock::new(),
            control: Mutex::default(),
        });
        Self {
            shared,
            prover: Prover::default(),
        }
    }

    /// Prove with this key what credentials are bound to it.
    pub(super) fn with_key(self, key: Option<Arc<ClientKey>>) -> Self {
        let mut bytes = [0; 32];
        let quic = &self.shared.quic;
        // QUIC has TLS 1.3 (RFC 9001 §4.2).
        let exported = quic.export_keying_material(&mut bytes, Channel::LABEL, b"");
        let channel = exported.is_ok().then(|| Channel::exported(bytes));
        let prover = Prover::new(key, channel);
        Self { prover, ..self }
    }

    /// Show the credential on the control stream, which from then on is listened to: the gateway's verdict on it.
    ///
    /// # Errors
    /// [`OpenError::Refused`] where the gateway does not know the credential, or does not serve its session now.
    pub async fn prove(&self, token: &str) -> Result<(), OpenError> {
        let control = self
            .open_stream(Purpose::Control, token, &mut Early::nothing())
            .await?;
        let listening = CancellationToken::new();
        let heard = listen(control, self.shared.life.clone());
        let mut before = self
            .shared
            .control
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // One of them is enough, and the newest is open by now.
        std::mem::replace(&mut *before, listening.clone()).cancel();
        drop(before);
        self.shared
            .tasks
            .spawn(listening.run_until_cancelled_owned(heard));
        Ok(())
    }

    /// Open a stream.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(
        &self,
        target: &Handshake,
        token: &str,
        early: &mut Early<'_>,
    ) -> Result<QuicFlow, OpenError> {
        let flow = self
            .open_stream(Purpose::Open(target.clone()), token, early)
            .await?;
        Ok(flow.holding(self.shared.clone()))
    }

    /// Open an accept stream: it is answered only once there is a dial, however long that takes.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn accept(&self, target: &Handshake, token: &str) -> Result<QuicFlow, OpenError> {
        let mut nothing = Early::nothing();
        let flow = tokio::select! {
            biased;
            opened = self.open_untimed(Purpose::Open(target.clone()), token, &mut nothing) => opened?,
            () = self.shared.life.ended() => return Err(OpenError::Retired),
        };
        Ok(flow.holding(self.shared.clone()))
    }

    /// A fresh token for this one, as JSON.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn refresh(&self, token: &str) -> Result<Bytes, OpenError> {
        let mut flow = self
            .open_stream(Purpose::Refresh, token, &mut Early::nothing())
            .await?;
        let mut body = BytesMut::new();
        let whole = async {
            while let Some(chunk) = poll_fn(|cx| flow.poll_read(cx)).await? {
                if body.len() + chunk.len() > BODY_MAX {
                    return Err(Broken::Malformed);
                }
                body.extend_from_slice(&chunk);
            }
            poll_fn(|cx| flow.poll_finish(cx)).await
        };
        timeout(OPEN_TIMEOUT, whole)
            .await
            .map_err(|_| OpenError::Timeout(OPEN_TIMEOUT))?
            .map_err(|broken| self.broken(broken))?;
        Ok(body.freeze())
    }

    /// May the session whose credential for the way out this is reach `name`, on any port?
    ///
    /// # Errors
    /// [`OpenError::Refused`] where it may not.
    pub async fn may_reach(&self, name: &str, token: &str) -> Result<(), OpenError> {
        let name = name.to_owned();
        let purpose = Purpose::Name { name };
        let flow = self
            .open_stream(purpose, token, &mut Early::nothing())
            .await?;
        flow.decline();
        Ok(())
    }

    async fn open_stream(
        &self,
        purpose: Purpose,
        token: &str,
        early: &mut Early<'_>,
    ) -> Result<QuicFlow, OpenError> {
        tokio::select! {
            biased;
            opened = timeout(OPEN_TIMEOUT, self.open_untimed(purpose, token, early)) => {
                opened.map_err(|_| OpenError::Timeout(OPEN_TIMEOUT))?
            }
            // It never had an answer.
            () = self.shared.life.ended() => Err(OpenError::Retired),
        }
    }

    async fn open_untimed(
        &self,
        purpose: Purpose,
        token: &str,
        early: &mut Early<'_>,
    ) -> Result<QuicFlow, OpenError> {
        let token = self.prover.present(token).into_owned();
        let request = Request {
            once: early.again(self.instance()),
            says_taken: matches!(purpose, Purpose::Open(Handshake::Listener { .. })),
            ..Request::new(purpose, token)
        };
        let request = request.encode();
        let request = request.map_err(|_| OpenError::Token)?;
        // Waits for a place where the gateway's limit on streams is reached.
        let opened = timeout(ROOM_TIMEOUT, self.shared.quic.open_bi()).await;
        let opened = opened.map_err(|_| OpenError::Full(ROOM_TIMEOUT))?;
        let (send, receive) = opened.map_err(|error| self.lost(&error.to_string()))?;
        let place = send.id().index();
        let mut flow = QuicFlow::new(send, receive);
        match flow.send_head(request).await {
            // An answer may stand behind a STOP_SENDING.
            Ok(()) | Err(Broken::Reset | Broken::Refused) => {}
            Err(broken) => return Err(self.broken(broken)),
        }
        match flow.answer(Response::decode, early).await {
            Ok(Response::Accepted {
                instance,
                say_taken,
            }) => {
                if let Some(instance) = instance {
                    // It does not change; it is said with each proof.
                    let _ = self.shared.instance.set(instance);
                }
                if say_taken {
                    // Until then nothing of the dial's comes, and somebody else may be asked.
                    let said = flow.send_head(Message::Taken.encode()).await;
                    said.map_err(|broken| self.broken(broken))?;
                }
                Ok(flow)
            }
            Ok(Response::Refused { status, body, said }) => {
                flow.abort(ErrorCode::Cancelled);
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
                Err(OpenError::Refused(refused(status, &fields(&said), &body)))
            }
            // Without an answer: not processed, as in HTTP/3 (RFC 9114 §8.1, H3_REQUEST_REJECTED).
            Err(Broken::Refused) => {
                early.unseen();
                Err(self.lost("the gateway refused a stream unread"))
            }
            Err(broken) => {
                if self.never_taken(place) {
                    early.unseen();
                }
                Err(self.broken(broken))
            }
        }
    }

    /// Has the gateway closed the connection, saying that it took fewer streams than would bring it to this one?
    fn never_taken(&self, place: u64) -> bool {
        match self.shared.quic.close_reason() {
            Some(quinn::ConnectionError::ApplicationClosed(close))
                if close.error_code == code(ErrorCode::Done) =>
            {
                varint::decode(&close.reason).is_some_and(|(taken, _)| place >= taken)
            }
            _ => false,
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

    pub(super) fn instance(&self) -> Option<Instance> {
        self.shared.instance.get().copied()
    }

    pub(super) fn peer(&self) -> IpAddr {
        self.shared.quic.remote_address().ip().to_canonical()
    }

    pub(super) fn life(&self) -> &Life {
        &self.shared.life
    }
}

/// The fields of a refusal; what is none is passed over.
fn fields(said: &[u8]) -> HeaderMap {
    let text = String::from_utf8_lossy(said);
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    let field = |(name, value): (&str, &str)| {
        let name = HeaderName::try_from(name).ok()?;
        Some((name, HeaderValue::from_str(value).ok()?))
    };
    lines.filter_map(field).collect()
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

/// Hears what the gateway says, until the connection or the stream ends.
async fn listen(mut control: QuicFlow, life: Life) {
    loop {
        match control.head(Message::decode).await {
            Ok(Message::Drain) => life.leave(),
            // The second is no word of a gateway's.
            Ok(Message::Unknown(_) | Message::Taken) => {}
            Err(_) => return,
        }
    }
}
