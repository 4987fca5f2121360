//! Real sockets and a real HTTP/2 connection for the tests of this folder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    task::JoinSet,
};

use super::{
    Broken, CapsuleFlow, Chunk, Ending, Flow, QuicFlow, Shared, SocketFlow, StreamFlow, Timers,
    pump,
};

/// Gives these chunks and nothing else, takes all there is, and keeps a handle of each chunk that it took.
#[derive(Default)]
pub(super) struct Watched {
    pub(super) gives: VecDeque<Bytes>,
    pub(super) taken: Arc<Mutex<Vec<Bytes>>>,
}

impl Flow for Watched {
    fn poll_read(&mut self, _: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        match self.gives.pop_front() {
            Some(chunk) => Poll::Ready(Ok(Some(chunk))),
            None => Poll::Pending,
        }
    }

    fn poll_write(&mut self, _: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Broken>> {
        self.taken.lock().unwrap().push(chunk.clone());
        chunk.advance(chunk.len());
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn poll_broken(&mut self, _: &mut Context<'_>) -> Poll<Broken> {
        Poll::Pending
    }

    fn reset(&mut self) {}
}

/// Two ends of a loopback connection.
pub(super) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (near, (far, _)) = (near.unwrap(), far.unwrap());
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    (near, far)
}

/// A socket at each end of the whole way, program to service.
pub(super) enum Carrier {
    /// Two TCP connections, one pump.
    Tcp,
    /// Two unix connections, one pump.
    Unix,
    /// TCP, capsules on HTTP/2, TCP: two pumps.
    Capsules,
    /// TCP, capsules on an upgraded connection, TCP: two pumps.
    Upgraded,
    /// TCP, an HTTP/2 stream without capsules, TCP: two pumps.
    Stream,
    /// TCP, a QUIC stream, TCP: two pumps.
    Quic,
}

/// A program's end and a service's end, with everything between them running.
pub(super) struct Joined {
    pub(super) program: Shared,
    pub(super) service: Shared,
    pub(super) pumps: JoinSet<Ending>,
    /// The HTTP/2 connection's drivers; dropping them is the path's death.
    pub(super) drivers: JoinSet<()>,
}

pub(super) async fn pair(unix: bool) -> (Shared, Shared) {
    if unix {
        let (near, far) = UnixStream::pair().unwrap();
        (near.into(), far.into())
    } else {
        let (near, far) = tcp_pair().await;
        (near.into(), far.into())
    }
}

async fn run(mut a: impl Flow, mut b: impl Flow) -> Ending {
    pump(&mut a, &mut b, Timers::default(), &()).await
}

pub(super) async fn join(carrier: &Carrier) -> Joined {
    let unix = matches!(carrier, Carrier::Unix);
    let (program, near) = pair(unix).await;
    let (far, service) = pair(unix).await;
    let mut pumps = JoinSet::new();
    let mut drivers = JoinSet::new();
    match carrier {
        Carrier::Tcp | Carrier::Unix => {
            pumps.spawn(run(SocketFlow::new(near), SocketFlow::new(far)));
        }
        Carrier::Capsules => {
            let (client, server) = capsule_pair(&mut drivers).await;
            pumps.spawn(run(
                SocketFlow::new(near),
                CapsuleFlow::new(client.0, client.1),
            ));
            pumps.spawn(run(
                CapsuleFlow::new(server.0, server.1),
                SocketFlow::new(far),
            ));
        }
        Carrier::Upgraded => {
            let (client, server) = tcp_pair().await;
            let capsules = |tcp| CapsuleFlow::upgraded(SocketFlow::new(tcp), Bytes::new());
            pumps.spawn(run(SocketFlow::new(near), capsules(client)));
            pumps.spawn(run(capsules(server), SocketFlow::new(far)));
        }
        Carrier::Stream => {
            let (client, server) = capsule_pair(&mut drivers).await;
            pumps.spawn(run(
                SocketFlow::new(near),
                StreamFlow::new(client.0, client.1),
            ));
            pumps.spawn(run(
                StreamFlow::new(server.0, server.1),
                SocketFlow::new(far),
            ));
        }
        Carrier::Quic => {
            let (client, server) = quic_pair(&mut drivers).await;
            pumps.spawn(run(SocketFlow::new(near), client));
            pumps.spawn(run(server, SocketFlow::new(far)));
        }
    }
    Joined {
        program,
        service,
        pumps,
        drivers,
    }
}

fn server() -> h2::server::Builder {
    use crate::transport::windows;
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(windows::STREAM)
        .max_frame_size(windows::FRAME)
        .initial_connection_window_size(windows::CONNECTION)
        .data_frame_budget(windows::SMALL_FRAMES);
    builder
}

type Halves = (SendStream<Chunk>, RecvStream);

/// Both ends of one stream of a real HTTP/2 connection over loopback TCP.
pub(super) async fn capsule_pair(drivers: &mut JoinSet<()>) -> (Halves, Halves) {
    let (near, far) = tcp_pair().await;
    let serving = async {
        let mut connection = server().handshake::<_, Chunk>(far).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let send = respond
            .send_response(http::Response::new(()), false)
            .unwrap();
        ((send, request.into_body()), connection)
    };
    let asking = async {
        let (requests, driver) = h2::client::Builder::new()
            .handshake::<_, Chunk>(near)
            .await
            .unwrap();
        // Kept for as long as the driver: a client that closes early resets what is still in flight.
        let kept = requests.clone();
        let mut driver = Box::pin(driver);
        let opening = async {
            let request = http::Request::post("http://relay.test/").body(()).unwrap();
            let (response, send) = requests
                .ready()
                .await
                .unwrap()
                .send_request(request, false)
                .unwrap();
            (send, response.await.unwrap().into_body())
        };
        tokio::select! {
            halves = opening => (halves, (driver, kept)),
            _ = &mut driver => panic!("the connection ended"),
        }
    };
    // The server's connection has to be polled while the client waits for its answer.
    let (give, taken) = tokio::sync::oneshot::channel();
    drivers.spawn(async move {
        let (halves, mut connection) = serving.await;
        give.send(halves).ok().unwrap();
        while let Some(Ok(_)) = connection.accept().await {}
    });
    let (client, (driver, kept)) = asking.await;
    drivers.spawn(async move {
        let _kept = kept;
        let _ = driver.await;
    });
    let server = taken.await.unwrap();
    (client, server)
}

/// Both ends of one stream of a real QUIC connection over loopback UDP.
pub(super) async fn quic_pair(drivers: &mut JoinSet<()>) -> (QuicFlow, QuicFlow) {
    let (client, server) = quic_connection(drivers).await;
    let (send, receive) = client.open_bi().await.unwrap();
    let mut near = QuicFlow::new(send, receive);
    // A stream shows at the other end with its first byte.
    near.send_head(vec![0]).await.unwrap();
    let (send, receive) = server.accept_bi().await.unwrap();
    let mut far = QuicFlow::new(send, receive);
    let head = far.head(|bytes| Ok::<_, ()>((!bytes.is_empty()).then_some(((), 1))));
    head.await.unwrap();
    (near, far)
}

/// Both ends of a connection, tuned as everywhere. It is closed when `drivers` are dropped.
pub(super) async fn quic_connection(
    drivers: &mut JoinSet<()>,
) -> (quinn::Connection, quinn::Connection) {
    quic_connection_by(drivers, async |server| server).await
}

/// The same with other windows at the client's end.
pub(super) async fn quic_connection_tuned(
    drivers: &mut JoinSet<()>,
    client: quinn::TransportConfig,
) -> (quinn::Connection, quinn::Connection) {
    quic_connection_of(drivers, async |server| server, client).await
}

/// The same by an address that leads to the server's.
pub(super) async fn quic_connection_by(
    drivers: &mut JoinSet<()>,
    way: impl AsyncFnOnce(SocketAddr) -> SocketAddr,
) -> (quinn::Connection, quinn::Connection) {
    let client = crate::transport::tuning::client().config;
    quic_connection_of(drivers, way, client).await
}

async fn quic_connection_of(
    drivers: &mut JoinSet<()>,
    way: impl AsyncFnOnce(SocketAddr) -> SocketAddr,
    tuned: quinn::TransportConfig,
) -> (quinn::Connection, quinn::Connection) {
    use crate::transport::tuning;

    let (server, mut client) = quic_configs();
    client.transport_config(Arc::new(tuned));
    let endpoint = |server| {
        let socket = tuning::socket("127.0.0.1:0".parse().unwrap()).unwrap();
        let runtime = Arc::new(quinn::TokioRuntime);
        quinn::Endpoint::new(quinn::EndpointConfig::default(), server, socket, runtime).unwrap()
    };
    let far = endpoint(Some(server));
    let near = endpoint(None);
    let address = way(far.local_addr().unwrap()).await;
    let connecting = near.connect_with(client, address, "127.0.0.1").unwrap();
    let accepting = async { far.accept().await.unwrap().await.unwrap() };
    let (client, server) = tokio::join!(connecting, accepting);
    let client = client.unwrap();
    let path = Path(client.clone(), server.clone());
    drivers.spawn(async move {
        let _held = (path, near, far);
        std::future::pending().await
    });
    (client, server)
}

/// What both ends of a connection are made with, tuned as everywhere; the server is `127.0.0.1`.
pub(crate) fn quic_configs() -> (quinn::ServerConfig, quinn::ClientConfig) {
    use std::time::{Duration, SystemTime};

    use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
    use sluicegate_certs::{Authority, ServerIdentity, TrustBundle, tls};

    use crate::transport::tuning;

    let now = SystemTime::now();
    let authority = Authority::create("test", now).unwrap();
    let names = ["127.0.0.1".to_owned()];
    let identity = authority.issue_server(&names, Duration::from_secs(3600), now);
    let identity = ServerIdentity::new(identity.unwrap());
    let trust = TrustBundle::empty().with_pem(authority.certificate_pem().as_bytes());
    let (serving, asking) = (
        tls::quic_server(&identity, &[b"t"]).unwrap(),
        tls::quic_client(&trust.unwrap(), &[b"t"]).unwrap(),
    );
    let crypto = QuicServerConfig::try_from(serving).unwrap();
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(Arc::new(tuning::server(8)));
    let crypto = QuicClientConfig::try_from(asking).unwrap();
    let mut client = quinn::ClientConfig::new(Arc::new(crypto));
    client.transport_config(Arc::new(tuning::client().config));
    (server, client)
}

/// Streams would keep the connection: this ends it for all of them.
struct Path(quinn::Connection, quinn::Connection);

impl Drop for Path {
    fn drop(&mut self) {
        self.0.close(0u32.into(), b"");
        self.1.close(0u32.into(), b"");
    }
}

/// Everything until the end, and how it ended.
pub(super) async fn read_all(socket: &Shared) -> (Vec<u8>, io::Result<()>) {
    let mut socket = socket.clone();
    let mut bytes = Vec::new();
    let end = socket.read_to_end(&mut bytes).await.map(|_| ());
    (bytes, end)
}

pub(super) async fn write(socket: &Shared, bytes: &[u8]) {
    socket.clone().write_all(bytes).await.unwrap();
}

pub(super) async fn read_exactly(socket: &Shared, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    socket.clone().read_exact(&mut bytes).await.unwrap();
    bytes
}

/// What a program sees that reads a reset.
pub(super) fn assert_reset(end: io::Result<()>, what: &str) {
    let error = end.expect_err(what);
    assert_eq!(
        error.kind(),
        io::ErrorKind::ConnectionReset,
        "{what}: {error}"
    );
}

/// Close so that the peer is reset.
pub(super) fn abort(socket: Shared) {
    socket.close_resets();
    drop(socket);
}

pub(super) fn noise(count: usize, seed: u32) -> Bytes {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(count).collect()
}
