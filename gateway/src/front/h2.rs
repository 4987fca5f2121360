//! HTTP/2 on a listener: one connection, each stream dispatched by its request alone.
//!
//! On raw `h2`: the streams here need resets that mean resets, and room given back only as bytes move on.

mod answer;
mod forward;
mod tunnel;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use h2::{PingPong, RecvStream, ext::Protocol, server::SendResponse};
use http::{HeaderMap, Method, Request, header};
use sluicegate_policy::{Denial, Refusal};
use sluicegate_relay::{flow::Chunk, transport::windows};
use sluicegate_relay_protocol::{CONNECT_TCP, Handshake, PROOF_PATH};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{Detail, connect_tcp, grpc, token};
use crate::{
    drain::Stage,
    relay::{Endpoint, Pool},
    telemetry::{Front, Kind, Telemetry},
};

/// Bounds of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Streams open at once.
    pub streams: u32,
    /// Bytes of a request's head, as HTTP/2 counts them (RFC 9113 §6.5.2).
    pub head_bytes: u32,
    /// Until the connection preface is in.
    pub head_timeout: Duration,
    /// A connection without a stream for this long is asked to end; zero = never.
    pub idle: Duration,
    /// A peer that answers no PING for this long, after as long a silence, is gone.
    pub keep_alive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 1024,
            head_bytes: 32 * 1024,
            head_timeout: Duration::from_secs(10),
            idle: Duration::from_secs(600),
            keep_alive: Duration::from_secs(10),
        }
    }
}

/// What the streams of a listener need.
#[derive(Clone, Debug)]
pub struct Context {
    /// Relay streams.
    pub relay: Endpoint,
    /// Connections to gRPC services.
    pub pool: Pool,
    /// Records.
    pub telemetry: Telemetry,
    /// How much a refusal tells.
    pub detail: Detail,
    /// Bounds.
    pub limits: Limits,
}

/// One request with the means to answer it.
pub(super) struct Exchange {
    pub(super) request: Request<RecvStream>,
    pub(super) respond: SendResponse<Chunk>,
    pub(super) downstream: SocketAddr,
    pub(super) secure: bool,
    pub(super) refusing: bool,
}

/// Serve a connection until it ends or is drained. Streams run in the drain's tasks.
/// `secure`: under TLS.
pub async fn serve<IO>(io: IO, downstream: SocketAddr, secure: bool, context: Arc<super::Context>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut drain = context.drain.clone();
    let limits = context.h2.limits;
    let handshake = timeout(
        limits.head_timeout,
        builder(&limits).handshake::<_, Chunk>(io),
    );
    let mut connection = match handshake.await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%downstream, %error, "no HTTP/2 connection"),
        Err(_) => return tracing::debug!(%downstream, "no HTTP/2 preface in time"),
    };
    let limit = limits.idle;
    let mut alive = std::pin::pin!(keep_alive(connection.ping_pong(), limits.keep_alive));
    let mut told = false;
    // Each stream's task holds one: alone, ours means that there is none.
    let streams = Arc::new(());
    let mut idle = std::pin::pin!(tokio::time::sleep(limit));
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    let refusing = drain.refusing();
                    let exchange = Exchange { request, respond, downstream, secure, refusing };
                    let (context, stream) = (context.clone(), streams.clone());
                    drain.spawn(async move {
                        dispatch(exchange, context).await;
                        drop(stream);
                    });
                    idle.as_mut().reset(tokio::time::Instant::now() + limit);
                }
                Some(Err(error)) => return tracing::debug!(%downstream, %error, "connection failed"),
                None => return,
            },
            () = drain.reached(Stage::Draining), if !told => {
                // RFC 9113 §6.8: GOAWAY, and what is open goes on to its end.
                connection.graceful_shutdown();
                told = true;
            }
            () = &mut idle, if !told && !limit.is_zero() => {
                // A place held for nothing; a relay client that is still there connects again.
                if Arc::strong_count(&streams) == 1 {
                    connection.graceful_shutdown();
                    told = true;
                }
                idle.as_mut().reset(tokio::time::Instant::now() + limit);
            }
            // Dropping the connection fails what it carried: nothing half-open stays behind.
            () = &mut alive => return tracing::debug!(%downstream, "the peer does not answer"),
        }
    }
}

fn builder(limits: &Limits) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .enable_connect_protocol()
        .initial_window_size(windows::STREAM)
        .initial_connection_window_size(windows::CONNECTION)
        .max_frame_size(windows::FRAME)
        .max_send_buffer_size(windows::SEND_BUFFER)
        .data_frame_budget(windows::SMALL_FRAMES)
        .max_header_list_size(limits.head_bytes)
        .max_concurrent_streams(limits.streams);
    builder
}

/// Completes when the peer is gone.
async fn keep_alive(ping: Option<PingPong>, every: Duration) {
    let Some(mut ping) = ping else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(every).await;
        if !matches!(
            timeout(every, ping.ping(h2::Ping::opaque())).await,
            Ok(Ok(_))
        ) {
            return;
        }
    }
}

/// The request alone says what it is.
async fn dispatch(exchange: Exchange, context: Arc<super::Context>) {
    let head = &exchange.request;
    if is_grpc(head) {
        return grpc::serve(exchange, &context.h2).await;
    }
    let classic = head.method() == Method::CONNECT && head.extensions().get::<Protocol>().is_none();
    let refused: Refusal = if classic {
        return tunnel::classic(exchange, context).await;
    } else if exchange.refusing {
        Denial::Draining.into()
    } else if host_differs(head) {
        Denial::HostMismatch.into()
    } else if head.method() == Method::CONNECT {
        match extended(head) {
            Ok(handshake) => return tunnel::connect_tcp(exchange, &handshake, context).await,
            Err(denial) => denial.into(),
        }
    } else if head.method() == Method::GET && head.uri().path() == PROOF_PATH {
        let proved = context
            .h2
            .relay
            .prove_by(head.headers(), exchange.downstream);
        match proved {
            Ok(()) => return answer::whole(exchange.respond, answer::nothing()),
            Err(refusal) => refusal,
        }
    } else if forward::is_foreign(head, exchange.secure) {
        return forward::serve(exchange, context).await;
    } else if token::is_refresh(head.method(), head.uri().path()) {
        let response = token::answer(
            &context.authenticator,
            head.headers(),
            exchange.downstream,
            context.detail,
            &context.telemetry,
        );
        return answer::whole(exchange.respond, response);
    } else {
        match answer::own(head, &context.h2) {
            Some(response) => return answer::whole(exchange.respond, response),
            None => Denial::NotFound.into(),
        }
    };
    let mut recorder = context
        .telemetry
        .begin(Kind::request, Front::origin, exchange.downstream);
    recorder.http(head.method().as_str(), head.uri().path());
    let answer = context.challenge(&refused, None, &mut recorder, false);
    answer::whole(exchange.respond, answer);
}

/// POST with `application/grpc*`.
fn is_grpc(request: &Request<RecvStream>) -> bool {
    let content_type = request
        .headers()
        .get(header::CONTENT_TYPE)
        .map(http::HeaderValue::as_bytes);
    request.method() == Method::POST
        && content_type.is_some_and(|t| t.starts_with(b"application/grpc"))
}

/// RFC 9113 §8.3.1: a Host field must not differ from `:authority`, which every client of ours sends.
fn host_differs(request: &Request<RecvStream>) -> bool {
    let authority = request.uri().authority().map(|a| a.as_str().as_bytes());
    let headers: &HeaderMap = request.headers();
    let mut hosts = headers.get_all(header::HOST).iter();
    authority.is_none() || hosts.any(|host| Some(host.as_bytes()) != authority)
}

/// What an extended CONNECT (RFC 8441 §4) asks for.
fn extended(request: &Request<RecvStream>) -> Result<Handshake, Denial> {
    match request.extensions().get::<Protocol>() {
        Some(protocol) if protocol.as_str() == CONNECT_TCP => {}
        _ => return Err(Denial::UnsupportedProtocol),
    }
    let path = request
        .uri()
        .path_and_query()
        .map_or("", |path| path.as_str());
    connect_tcp::asked(path)
}

#[cfg(test)]
mod tests;
