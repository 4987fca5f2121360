//! What the gateway reaches: an origin with and without TLS, a line service, a gRPC service, a name server.
//!
//! Each listens on a loopback port the system chose, and lives as long as the task set it was spawned into.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, RecordType, rdata::A},
};
use http::{Request, Response, header};
use http_body_util::{Either, Full};
use hyper::{
    body::{Body, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    task::JoinSet,
    time::Interval,
};
use tokio_rustls::TlsAcceptor;
use tonic::transport::server::TcpIncoming;

/// What `/ticks` sends, again and again.
pub(super) const TICK: &[u8] = b"tick\n";
/// Between two ticks.
const BEAT: Duration = Duration::from_millis(20);
/// The longest line the line service takes.
const LONGEST_LINE: u64 = 4096;
/// The largest DNS message over UDP without EDNS (RFC 1035 §4.2.1); a query is smaller by far.
const LARGEST_QUERY: usize = 512;
/// After an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

async fn listen() -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Accept for ever, each connection in a task that ends with the loop.
async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> F,
) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(serve(stream));
            }
            // Out of descriptors, mostly: a moment later there may be some.
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

/// The origin, over TLS where there is a configuration. `/ticks` goes on for ever, all else is one line.
/// `silent` counts the connections that ended before a single byte came.
pub(super) async fn origin(
    tasks: &mut JoinSet<()>,
    tls: Option<Arc<rustls::ServerConfig>>,
    silent: watch::Sender<usize>,
) -> std::io::Result<SocketAddr> {
    let (listener, address) = listen().await?;
    tasks.spawn(accept(listener, move |stream| {
        let acceptor = tls.clone().map(TlsAcceptor::from);
        let silent = silent.clone();
        async move {
            if !matches!(stream.peek(&mut [0]).await, Ok(1..)) {
                silent.send_modify(|count| *count += 1);
                return;
            }
            match acceptor {
                None => answer(stream).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        answer(stream).await;
                    }
                }
            }
        }
    }));
    Ok(address)
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let service = service_fn(|request: Request<Incoming>| async move {
        let credential = request.headers().contains_key(header::PROXY_AUTHORIZATION);
        let body = if request.uri().path() == "/ticks" {
            Either::Right(Ticks(tokio::time::interval(BEAT)))
        } else {
            let text = format!(
                "{} {} reached the origin, credential seen: {credential}\n",
                request.method(),
                request.uri()
            );
            Either::Left(Full::new(Bytes::from(text)))
        };
        Ok::<_, Infallible>(Response::new(body))
    });
    // Whatever ends the connection, the client sees it.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// A body that never ends.
struct Ticks(Interval);

impl Body for Ticks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.0.poll_tick(cx));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(TICK)))))
    }
}

/// Answers each line with `echo: ` and the line.
pub(super) async fn line_service(tasks: &mut JoinSet<()>) -> std::io::Result<SocketAddr> {
    let (listener, address) = listen().await?;
    tasks.spawn(accept(listener, |stream| async move {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        let mut line = String::from("echo: ");
        let greeting = line.len();
        while let Ok(1..) = (&mut read).take(LONGEST_LINE).read_line(&mut line).await {
            if write.write_all(line.as_bytes()).await.is_err() {
                return;
            }
            line.truncate(greeting);
        }
    }));
    Ok(address)
}

/// The standard health service (grpc.health.v1).
pub(super) async fn health_service(tasks: &mut JoinSet<()>) -> std::io::Result<SocketAddr> {
    let (listener, address) = listen().await?;
    let (reporter, service) = tonic_health::server::health_reporter();
    tasks.spawn(async move {
        // The statuses live as long as their reporter.
        let _reporter = reporter;
        let server = tonic::transport::Server::builder().add_service(service);
        let _ = server
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
            .await;
    });
    Ok(address)
}

/// A name server that knows one name with one IPv4 address; every other name does not exist.
pub(super) async fn name_server(
    tasks: &mut JoinSet<()>,
    name: &'static str,
    address: Ipv4Addr,
) -> std::io::Result<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let place = socket.local_addr()?;
    tasks.spawn(async move {
        let mut buffer = [0; LARGEST_QUERY];
        loop {
            let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
                continue;
            };
            let query = buffer.get(..length).unwrap_or_default();
            if let Some(reply) = resolve(query, name, address) {
                let _ = socket.send_to(&reply, client).await;
            }
        }
    });
    Ok(place)
}

fn resolve(query: &[u8], name: &str, address: Ipv4Addr) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    for question in query.queries {
        let asked = question.name().to_ascii().to_ascii_lowercase();
        if asked.trim_end_matches('.') != name {
            reply.metadata.response_code = ResponseCode::NXDomain;
        } else if question.query_type() == RecordType::A {
            let data = RData::A(A(address));
            reply.add_answer(Record::from_rdata(question.name().clone(), 60, data));
        }
        reply.add_query(question);
    }
    reply.to_vec().ok()
}
