//! HTTP/2 on a listener: one connection, each of its streams served by itself.
//!
//! On raw `h2`: the streams here need resets that mean resets, and room given back only as bytes move on.

mod respond;

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use h2::{PingPong, Reason, server::SendResponse};
use sluicegate_certs::Channel;
use sluicegate_relay::{
    flow::Chunk,
    transport::{
        batch::{Aside, Gathered},
        inbound::{Heard, Inbound},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until, timeout_at},
};

use super::{Current, Detail, grpc, standing::Standing, stream};
use crate::{
    drain::Stage,
    http2::{self, Calm, Limits},
    listen::Carrying,
    relay::Endpoint,
    telemetry::Telemetry,
};

/// A peer that is sent away has this long to take the reason.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What the streams of a listener need.
#[derive(Clone, Debug)]
pub struct Context {
    /// Relay streams.
    pub relay: Endpoint,
    /// Records.
    pub telemetry: Telemetry,
    /// How much a refusal tells.
    pub detail: Detail,
    /// Bounds.
    pub limits: Limits,
}

/// Who is at the other end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// What both ends of its TLS share.
    pub channel: Option<Channel>,
    /// It came under TLS.
    pub secure: bool,
    /// Since when its first request is awaited.
    pub since: Instant,
}

/// One request with the means to answer it.
pub(super) type Exchange = stream::Exchange<SendResponse<Chunk>>;

/// Serve a connection until it ends or is drained. Streams run in the drain's tasks.
pub async fn serve<IO>(io: IO, peer: Peer, current: Arc<Current>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Peer {
        address: downstream,
        channel,
        secure,
        since,
    } = peer;
    let (mut drain, limits) = {
        let context = current.now();
        (context.drain.clone(), context.h2.limits)
    };
    let (io, inbound) = Heard::new(io);
    let (io, enough) = Calm::new(Gathered::new(io));
    let handshake = timeout_at(
        since + limits.head_timeout,
        http2::builder(&limits)
            .enable_connect_protocol()
            .handshake::<_, Chunk>(io),
    );
    let mut connection = match handshake.await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%downstream, %error, "no HTTP/2 connection"),
        Err(_) => return tracing::debug!(%downstream, "no HTTP/2 preface in time"),
    };
    let ping = connection.ping_pong();
    let mut alive = std::pin::pin!(keep_alive(ping, inbound, limits.keep_alive));
    let (mut told, mut left) = (false, false);
    let mut over = std::pin::pin!(None::<tokio::time::Sleep>);
    // Each stream's task holds one: alone, ours means that there is none.
    let standing = Arc::new(Standing::default());
    // What says nothing is held to the deadline of a first head.
    let mut asked = since;
    let mut idle = std::pin::pin!(sleep_until(standing.until(asked, &limits)));
    let mut aside = Aside::new();
    loop {
        tokio::select! {
            accepted = poll_fn(|cx| aside.poll(cx, |cx| connection.poll_accept(cx))) => match accepted {
                Some(Ok((request, respond))) => {
                    let refusing = drain.refusing();
                    let held = standing.clone();
                    let standing = held.clone();
                    let exchange =
                        Exchange { request, respond, downstream, channel, secure, refusing, standing };
                    let opening = Box::pin(open(exchange, current.clone()));
                    drain.spawn(async move {
                        if let Some(carrying) = opening.await {
                            carrying.await;
                        }
                        drop(held);
                    });
                    asked = Instant::now();
                }
                Some(Err(error)) => {
                    // Once it was told so, it is counted.
                    if over.is_none() && http2::is_flood(&error) {
                        current.now().h2.telemetry.metrics().h2_flood();
                    }
                    return tracing::debug!(%downstream, %error, "connection failed");
                }
                None => return,
            },
            () = drain.reached(Stage::Draining), if !told => {
                // RFC 9113 §6.8: GOAWAY, and what is open goes on to its end.
                connection.graceful_shutdown();
                told = true;
            }
            () = &mut idle, if !told || left => {
                let (now, until) = (Instant::now(), standing.until(asked, &limits));
                let alone = Arc::strong_count(&standing) == 1;
                let next = if left && alone {
                    return tracing::debug!(%downstream, "asked to end, it says nothing");
                } else if left || (alone && until <= now) {
                    // A place held for nothing; a relay client that is still there connects again.
                    if !left {
                        connection.graceful_shutdown();
                        (told, left) = (true, true);
                    }
                    now + LAST_WORD
                } else if until > now {
                    until
                } else {
                    standing.until(now, &limits)
                };
                idle.as_mut().reset(next);
            }
            () = enough.notified() => {
                current.now().telemetry.metrics().h2_flood();
                tracing::debug!(%downstream, "too many frames that carry nothing");
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                told = true;
                over.set(Some(tokio::time::sleep(LAST_WORD)));
            }
            () = poll_fn(|cx| over.as_mut().as_pin_mut().map_or(Poll::Pending, |over| over.poll(cx))) => return,
            // Dropping the connection fails what it carried: nothing half-open stays behind.
            () = &mut alive => return tracing::debug!(%downstream, "the peer does not answer"),
        }
    }
}

/// Serve a stream until it is known what it carries.
async fn open(exchange: Exchange, current: Arc<Current>) -> Option<Carrying> {
    if !stream::is_call(&exchange.request, exchange.secure) {
        return stream::dispatch(exchange, current).await;
    }
    Some(Box::pin(async move {
        // Of the rest of a configuration nothing is kept while the call lives.
        let context = current.now().h2.clone();
        drop(current);
        grpc::serve(exchange, &context).await;
    }))
}

/// Completes when the peer is gone. One of which anything comes is not.
async fn keep_alive(ping: Option<PingPong>, inbound: Inbound, every: Duration) {
    let Some(mut ping) = ping else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(every).await;
        if !matches!(inbound.answered(&mut ping, every).await, Some(Ok(_))) {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
