//! One HTTP/2 connection that carries many relay streams, each an extended CONNECT (RFC 8441).

use std::{
    future::poll_fn,
    net::IpAddr,
    sync::{Arc, OnceLock, Weak},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use h2::{PingPong, RecvStream, SendStream, client::SendRequest, ext::Protocol};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, header};
use rustls::{ClientConfig, pki_types::ServerName};
use sluicegate_certs::{Channel, ClientKey};
use sluicegate_relay_protocol::{
    ALPN_H2, CAPSULE_PROTOCOL, CAPSULE_PROTOCOL_TRUE, CONNECT_TCP, Handshake, INSTANCE, Instance,
    ONCE, Once, PROOF_PATH, TAKEN, TOKEN_PATH, capsule::DATA,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;

use super::{
    ConnectError, Endpoint, OpenError,
    batch::{Gathered, Last},
    error::{CONNECT_TIMEOUT, OPEN_TIMEOUT, ROOM_TIMEOUT, read_some, refused},
    inbound::{Heard, Inbound},
    life::{EndOnDrop, Life},
    prover::Prover,
    seats::{Seat, Seats, Telling},
    windows,
};
use crate::flow::{Ahead, CapsuleFlow, Chunk, Early, Held, Shared, poll_early};

/// A dead path is noticed after one of these …
const PING_EVERY: Duration = Duration::from_secs(3);
/// … and one of these, since it was asked and since anything came last.
const PONG_WITHIN: Duration = Duration::from_secs(5);

/// A connection to the gateway. Cheap to clone; clones open streams on the same connection.
#[derive(Clone)]
pub struct Connection {
    /// Shared so that the keep-alive can see when nobody opens streams here any more.
    requests: Arc<SendRequest<Chunk>>,
    endpoint: Arc<Endpoint>,
    peer: Option<IpAddr>,
    channel: Option<Channel>,
    prover: Prover,
    instance: Arc<OnceLock<Instance>>,
    life: Life,
    seats: Arc<Seats>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Connect. The driver runs in `tasks` until the connection ends.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(
        endpoint: &Endpoint,
        tls: &Arc<ClientConfig>,
        tasks: &TaskTracker,
    ) -> Result<Self, ConnectError> {
        timeout(CONNECT_TIMEOUT, Self::connect_untimed(endpoint, tls, tasks))
            .await
            .map_err(|_| ConnectError::Timeout(endpoint.to_string(), CONNECT_TIMEOUT))?
    }

    async fn connect_untimed(
        endpoint: &Endpoint,
        tls: &Arc<ClientConfig>,
        tasks: &TaskTracker,
    ) -> Result<Self, ConnectError> {
        let name = || endpoint.to_string();
        let tcp = endpoint
            .tcp()
            .await
            .map_err(|e| ConnectError::Tcp(name(), e))?;
        let peer = tcp.peer_addr().ok().map(|peer| peer.ip().to_canonical());
        let tcp = Shared::from(tcp);
        tcp.no_delay();
        if !endpoint.tls {
            let connection = Self::by(tcp.clone(), Some(tcp), endpoint, tasks).await?;
            return Ok(Self { peer, ..connection });
        }
        let server = ServerName::try_from(endpoint.host.clone())
            .map_err(|_| ConnectError::Name(endpoint.host.clone()))?;
        let stream = TlsConnector::from(tls.clone())
            .connect(server, Ahead::from(tcp.clone()))
            .await
            .map_err(|e| ConnectError::of_handshake(name(), e))?;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
            return Err(ConnectError::Alpn(name()));
        }
        let channel = Channel::of(stream.get_ref().1);
        let connection = Self::by(stream, Some(tcp), endpoint, tasks).await?;
        Ok(Self {
            peer,
            channel,
            ..connection
        })
    }

    /// HTTP/2 over a stream that is connected already.
    ///
    /// # Errors
    /// [`ConnectError::Http`], [`ConnectError::NotAGateway`].
    pub async fn over<IO>(
        io: IO,
        endpoint: &Endpoint,
        tasks: &TaskTracker,
    ) -> Result<Self, ConnectError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Self::by(io, None, endpoint, tasks).await
    }

    async fn by<IO>(
        io: IO,
        socket: Option<Shared>,
        endpoint: &Endpoint,
        tasks: &TaskTracker,
    ) -> Result<Self, ConnectError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let failed = |error| ConnectError::Http(endpoint.to_string(), error);
        let (io, inbound) = Heard::new(io);
        let (requests, mut driver) = h2::client::Builder::new()
            .initial_window_size(windows::STREAM)
            .initial_connection_window_size(windows::LARGE_CONNECTION)
            .max_frame_size(windows::FRAME)
            .max_send_buffer_size(windows::SEND_BUFFER)
            .data_frame_budget(windows::SMALL_FRAMES)
            .max_concurrent_reset_streams(windows::RESETS_KNOWN)
            .reset_stream_duration(windows::RESET_KNOWN)
            .max_concurrent_streams(0)
            .enable_push(false)
            .handshake::<_, Chunk>(Gathered::new(io))
            .await
            .map_err(failed)?;
        let ping = driver.ping_pong();
        let seats = Seats::new();
        let driver = Last::new(Telling::new(driver, seats.clone()));
        let life = Life::default();
        let (settled, settings) = tokio::sync::oneshot::channel();
        let requests = Arc::new(requests);
        let watched = Arc::downgrade(&requests);
        let gone = EndOnDrop(life.clone());
        let rounds = seats.clone();
        tasks.spawn(async move {
            tokio::select! {
                _ = driver => {}
                () = keep_alive((ping, inbound), watched, settled, gone.0.clone(), &rounds) => {
                    // What the kernel still has to send must not arrive after all, when it has been asked again elsewhere.
                    socket.iter().for_each(Shared::close_resets);
                }
            }
            drop(gone);
        });
        let connection = Self {
            requests,
            endpoint: Arc::new(endpoint.clone()),
            peer: None,
            channel: None,
            prover: Prover::default(),
            instance: Arc::default(),
            life,
            seats,
        };
        // The first PING comes back after the peer's SETTINGS: only then is it known what it takes (RFC 8441 §3).
        let _ = settings.await;
        if connection.life.has_ended() {
            return Err(failed(h2::Reason::CONNECT_ERROR.into()));
        }
        if !connection.requests.is_extended_connect_protocol_enabled() {
            return Err(ConnectError::NotAGateway(endpoint.to_string()));
        }
        Ok(connection)
    }

    /// Prove with this key what credentials are bound to it.
    pub(super) fn with_key(self, key: Option<Arc<ClientKey>>) -> Self {
        let prover = Prover::new(key, self.channel);
        Self { prover, ..self }
    }

    /// Show the credential on a request of its own: the gateway's verdict on it.
    ///
    /// # Errors
    /// [`OpenError::Refused`] where the gateway does not know the credential, or does not serve its session now.
    pub async fn prove(&self, token: &str) -> Result<(), OpenError> {
        let fields = self.fields(PROOF_PATH, token).await?;
        let said = fields.get(INSTANCE).map(HeaderValue::as_bytes);
        if let Some(instance) = said.and_then(Instance::parse) {
            // It does not change; it is said with each proof.
            let _ = self.instance.set(instance);
        }
        Ok(())
    }

    /// GET a path of the gateway's: a good answer, or the refusal. What a good answer holds is not read.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn get(&self, path: &str, token: &str) -> Result<(), OpenError> {
        self.fields(path, token).await.map(drop)
    }

    async fn fields(&self, path: &str, token: &str) -> Result<HeaderMap, OpenError> {
        let request = self.builder(Method::GET, path, token)?.body(());
        let request = request.map_err(|_| OpenError::Token)?;
        let mut nothing = Early::nothing();
        let asked = timeout(OPEN_TIMEOUT, self.ask_early(request, true, &mut nothing));
        let (_send, answer) = asked
            .await
            .map_err(|_| OpenError::Timeout(OPEN_TIMEOUT))??;
        Ok(answer.into_parts().0.headers)
    }

    /// A fresh token for this one, as JSON.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn refresh(&self, token: &str) -> Result<Bytes, OpenError> {
        let request = self.builder(Method::POST, TOKEN_PATH, token)?.body(());
        let request = request.map_err(|_| OpenError::Token)?;
        let asked = async {
            let (_send, body) = self.ask(request, true).await?;
            Ok(read_some(body).await)
        };
        timeout(OPEN_TIMEOUT, asked)
            .await
            .map_err(|_| OpenError::Timeout(OPEN_TIMEOUT))?
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
    ) -> Result<Held<CapsuleFlow, Seat>, OpenError> {
        let mut request = self.connect_tcp(target, token)?;
        if let Some(once) = early.again(self.instance()) {
            request.headers_mut().insert(ONCE, field(&once)?);
        }
        let asked = async {
            let seat = self.seats.take().await;
            let (send, answer) = self.ask_early(request, false, early).await?;
            let flow = CapsuleFlow::tallied(send, answer.into_body(), self.seats.tally());
            Ok(Held::new(flow, seat))
        };
        timeout(OPEN_TIMEOUT, asked)
            .await
            .map_err(|_| OpenError::Timeout(OPEN_TIMEOUT))?
    }

    /// Open an accept stream: it is answered only once there is a dial, however long that takes.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn accept(
        &self,
        target: &Handshake,
        token: &str,
    ) -> Result<Held<CapsuleFlow, Seat>, OpenError> {
        let mut request = self.connect_tcp(target, token)?;
        let says = HeaderValue::from_static(CAPSULE_PROTOCOL_TRUE);
        request.headers_mut().insert(TAKEN, says);
        let seat = self.seats.take().await;
        let (mut send, receive) = self.ask(request, false).await?;
        // That the dial is here: the gateway waits for it before it passes on what the host says, and asks somebody else where it does
        // not come. A capsule without data; h2 queues the few bytes of its head where the window has no room.
        send.send_data(Chunk::capsule(DATA, Bytes::new()), false)
            .map_err(OpenError::Stream)?;
        let flow = CapsuleFlow::tallied(send, receive, self.seats.tally());
        Ok(Held::new(flow, seat))
    }

    fn connect_tcp(&self, target: &Handshake, token: &str) -> Result<Request<()>, OpenError> {
        let request = self
            .builder(Method::CONNECT, &target.path(), token)?
            .extension(Protocol::from_static(CONNECT_TCP))
            .header(CAPSULE_PROTOCOL, CAPSULE_PROTOCOL_TRUE)
            .body(());
        request.map_err(|_| OpenError::Token)
    }

    /// Both halves of the stream, once the answer is a good one.
    async fn ask(
        &self,
        request: Request<()>,
        end: bool,
    ) -> Result<(SendStream<Chunk>, RecvStream), OpenError> {
        let mut nothing = Early::nothing();
        let asked = self.ask_early(request, end, &mut nothing).await;
        asked.map(|(send, answer)| (send, answer.into_body()))
    }

    /// The same, sending meanwhile what does not wait for it (draft-ietf-httpbis-connect-tcp §4.1: "optimistic" data).
    async fn ask_early(
        &self,
        request: Request<()>,
        end: bool,
        early: &mut Early<'_>,
    ) -> Result<(SendStream<Chunk>, Response<RecvStream>), OpenError> {
        // Waits for a place where the gateway's limit on streams is reached.
        let ready = timeout(ROOM_TIMEOUT, SendRequest::clone(&self.requests).ready()).await;
        let mut requests = ready
            .map_err(|_| OpenError::Full(ROOM_TIMEOUT))?
            .map_err(|error| self.retire(&error))?;
        let (response, mut send) = requests
            .send_request(request, end)
            .map_err(|error| self.retire(&error))?;
        let response = tokio::select! {
            biased;
            response = response => response,
            broken = poll_fn(|cx| poll_early(&mut send, early, cx)) => {
                return Err(OpenError::Broken(broken));
            }
        };
        let response = match response {
            Ok(response) => response,
            // RFC 9113 §8.7, §6.8: a stream that is refused, or behind the last one of a GOAWAY, was not processed.
            Err(error)
                if error.reason() == Some(h2::Reason::REFUSED_STREAM)
                    || (error.is_go_away() && error.is_remote()) =>
            {
                early.unseen();
                return Err(self.retire(&error));
            }
            Err(error) if error.is_reset() => return Err(OpenError::Stream(error)),
            // The connection ended, and there was no answer.
            Err(error) => return Err(self.retire(&error)),
        };
        if response.status().is_success() {
            return Ok((send, response));
        }
        let (head, body) = response.into_parts();
        let body = read_some(body).await;
        Err(OpenError::Refused(refused(
            head.status,
            &head.headers,
            &body,
        )))
    }

    fn builder(
        &self,
        method: Method,
        path: &str,
        token: &str,
    ) -> Result<http::request::Builder, OpenError> {
        let uri = Uri::builder()
            .scheme(self.endpoint.scheme())
            .authority(self.endpoint.authority())
            .path_and_query(path);
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", self.prover.present(token)))
            .map_err(|_| OpenError::Token)?;
        bearer.set_sensitive(true);
        Ok(Request::builder()
            .method(method)
            .version(Version::HTTP_2)
            .uri(uri.build().map_err(|_| OpenError::Token)?)
            .header(header::AUTHORIZATION, bearer))
    }

    fn retire(&self, why: &h2::Error) -> OpenError {
        if why.is_go_away() && why.is_remote() && why.reason() == Some(h2::Reason::NO_ERROR) {
            self.life.leave();
        } else {
            self.life.retire(why.to_string());
        }
        OpenError::Retired
    }

    /// How many streams at once the peer takes, by its SETTINGS.
    pub(super) fn most_streams(&self) -> usize {
        self.requests.current_max_send_streams()
    }

    /// Bytes that one stream may have unread now.
    pub(super) fn window(&self) -> u32 {
        self.seats.window()
    }

    pub(super) fn instance(&self) -> Option<Instance> {
        self.instance.get().copied()
    }

    pub(super) fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    pub(super) fn life(&self) -> &Life {
        &self.life
    }
}

/// Ends when the path is dead. On the way it notices GOAWAY, tells when the peer's first SETTINGS are in, and measures what streams
/// take in a round trip.
async fn keep_alive(
    (ping, inbound): (Option<PingPong>, Inbound),
    requests: Weak<SendRequest<Chunk>>,
    settled: tokio::sync::oneshot::Sender<()>,
    life: Life,
    seats: &Seats,
) {
    let Some(mut ping) = ping else { return };
    let mut settled = Some(settled);
    loop {
        let asked = Instant::now();
        seats.begin_round();
        match inbound.answered(&mut ping, PONG_WITHIN).await {
            Some(Ok(_)) => {}
            // The driver ends it.
            Some(Err(_)) => return std::future::pending().await,
            None => return,
        }
        let round = asked.elapsed();
        seats.end_round(round);
        settled.take().map(|settled| settled.send(()));
        // With nobody left to open streams, the connection ends by itself after the last one: sent to the end, with GOAWAY.
        let Some(mut requests) = requests.upgrade().map(|requests| (*requests).clone()) else {
            return std::future::pending().await;
        };
        if poll_fn(|cx| Poll::Ready(matches!(requests.poll_ready(cx), Poll::Ready(Err(_))))).await {
            life.leave();
        }
        // Asleep it must not be who keeps the connection open.
        drop(requests);
        tokio::select! {
            () = sleep(PING_EVERY) => {}
            () = seats.worth_a_round(round) => {}
        }
    }
}

/// Which open it is. No two are the same: indexed (RFC 7541 §2.3.2) it would only take the room of what is said again, at both ends.
fn field(once: &Once) -> Result<HeaderValue, OpenError> {
    let mut field = HeaderValue::try_from(once.to_string()).map_err(|_| OpenError::Token)?;
    field.set_sensitive(true);
    Ok(field)
}

#[cfg(test)]
mod tests;
