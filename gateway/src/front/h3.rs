//! HTTP/3 on the UDP port of a public listener (ALPN `h3`): one connection, each of its request streams served by itself.
//!
//! On quinn's streams and our own framing (`http3`): a tunnel's FIN, RESET_STREAM and STOP_SENDING have to mean what TCP's
//! ends mean, and `connect-tcp` has to be known.

mod body;
mod reading;
mod respond;
mod tunnel;
mod unidirectional;
mod waste;

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use quinn::{RecvStream, SendStream, VarInt};
use sluicegate_policy::{Denial, Refusal};
use sluicegate_relay::{
    flow::{Broken, QuicReceive, QuicSend},
    transport::{closing, tuning::Room},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::task::TaskTracker;

pub(super) use body::Body;

use self::{
    reading::Reading,
    respond::Respond,
    unidirectional::{Seen, serve as serve_unidirectional},
    waste::Waste,
};
use super::path::Path;
use super::quic::{last_words, quic_channel};
use super::standing::Standing;
use super::{
    Current,
    stream::{self, Answer, Exchange},
};
use crate::{
    drain::{DrainWatch, Stage},
    http2::Limits,
    http3::{self, Asked, Code, Piece, Unasked},
    listen::Shaken,
    message::Asks,
    telemetry::{Front, Kind, Protocol},
};

/// Unidirectional streams of a client: three have a meaning, a few more are there to keep servers honest (RFC 9114 §6.2.3).
const UNIDIRECTIONAL: u32 = 64;

/// What the streams of one connection share.
struct Shared {
    connection: quinn::Connection,
    /// Where its client was in the handshake.
    from: SocketAddr,
    current: Arc<Current>,
    drain: DrainWatch,
    waste: Mutex<Waste>,
    standing: Arc<Standing>,
}

/// Serve a connection until it ends or is drained. Request streams run in the drain's tasks.
pub async fn serve(shaken: Shaken, current: Arc<Current>, mut drain: DrainWatch) {
    let Shaken { connection, from } = shaken;
    let path = Path::of(connection.clone(), current.now().authenticator.clone());
    let limits = current.now().h2.limits;
    // A page may ask for more at once than a relay client ever does.
    Room::new(&connection, limits.streams).make();
    // What says nothing is held to the deadline of a first head.
    let mut asked = Instant::now();
    let shared = Arc::new(Shared {
        connection: connection.clone(),
        from,
        current,
        drain: drain.clone(),
        waste: Mutex::new(Waste::new(asked)),
        standing: Arc::new(Standing::on(path)),
    });
    let Some(mut control) = open_control(&connection, limits).await else {
        return close(&connection, Code::StreamCreation);
    };
    let work = TaskTracker::new();
    let (mut beside, seen, mut opened) = (JoinSet::new(), Arc::<Seen>::default(), 0);
    // Request streams from here on have not been looked at.
    let mut next = 0;
    let mut told = false;
    let standing = shared.standing.clone();
    let mut idle = std::pin::pin!(sleep_until(standing.until(asked, &limits)));
    let mut left = std::pin::pin!(standing.left());
    loop {
        let leave = tokio::select! {
            accepted = connection.accept_bi() => match accepted {
                Ok((send, receive)) if told => {
                    reject(send, receive);
                    false
                }
                Ok((send, receive)) => {
                    next = u64::from(VarInt::from(receive.id())) + 4;
                    let (shared, token) = (shared.clone(), work.token());
                    drain.spawn(async move {
                        begin(send, receive, shared).await;
                        drop(token);
                    });
                    asked = Instant::now();
                    false
                }
                Err(error) => {
                    return tracing::debug!(downstream = %from, %error, "connection ended");
                }
            },
            Ok(receive) = connection.accept_uni() => {
                opened += 1;
                if opened > UNIDIRECTIONAL {
                    return close(&connection, Code::ExcessiveLoad);
                }
                beside.spawn(serve_unidirectional(receive, seen.clone(), connection.clone()));
                false
            }
            Some(_) = beside.join_next() => false,
            () = drain.reached(Stage::Draining), if !told => true,
            () = &mut idle, if !told => {
                let (now, until) = (Instant::now(), standing.until(asked, &limits));
                idle.as_mut().reset(if until > now { until } else { standing.until(now, &limits) });
                // A place held for nothing.
                until <= now && work.is_empty()
            }
            // A session's credentials may not be used from where its client is now.
            () = &mut left => return close(&connection, Code::RequestCancelled),
            // What comes after this was never looked at, and the client knows it.
            () = work.wait(), if told => {
                let _ = timeout(last_words(&connection), connection.closed()).await;
                return close(&connection, Code::NoError);
            }
        };
        if leave {
            told = true;
            work.close();
            // A client that has no room for it finds its new streams rejected.
            let _ = timeout(last_words(&connection), control.write(http3::goaway(next))).await;
        }
    }
}

/// Our control stream. Every client has room for it (RFC 9114 §6.2), or is none.
async fn open_control(connection: &quinn::Connection, limits: Limits) -> Option<QuicSend> {
    let open = async {
        let mut control = QuicSend::new(connection.open_uni().await.ok()?);
        let settings = http3::opening(limits.head_bytes);
        control.write(settings).await.ok().map(|()| control)
    };
    timeout(limits.head_timeout, open).await.ok().flatten()
}

fn close(connection: &quinn::Connection, code: Code) {
    closing::close(connection, number(code), b"");
}

/// The number as quinn has it.
fn number(code: Code) -> VarInt {
    VarInt::from_u32(code.number())
}

/// The client was told, or will be: it may send this elsewhere.
fn reject(mut send: SendStream, mut receive: RecvStream) {
    // Either fails only where that direction is over already.
    let _ = send.reset(number(Code::RequestRejected));
    let _ = receive.stop(number(Code::RequestRejected));
}

/// Read a request and serve it.
async fn begin(send: SendStream, receive: RecvStream, shared: Arc<Shared>) {
    let limits = shared.current.now().h2.limits;
    let limit = limits.head_bytes as usize;
    let connection = shared.connection.clone();
    let mut reading = Reading::new(QuicReceive::new(receive), limit, connection);
    let send = QuicSend::new(send);
    let (respond, worth) = Respond::new(send, &shared.connection, limits.head_timeout);
    let head = timeout(limits.head_timeout, head(&mut reading, limit));
    match head
        .await
        .unwrap_or(Err(Headless::Refused(Denial::HeadTimeout)))
    {
        Ok(Asked { head, length }) => {
            let exchange = Exchange {
                request: head.map(|()| Body::new(reading, length)),
                respond,
                downstream: shared.from,
                channel: quic_channel(&shared.connection),
                secure: true,
                refusing: shared.drain.refusing(),
                standing: shared.standing.clone(),
            };
            // What opening takes is gone before a tunnel begins to live.
            let opening = Box::pin(stream::dispatch(exchange, shared.current.clone()));
            if let Some(carrying) = opening.await {
                carrying.await;
            }
        }
        Err(Headless::Refused(denial)) => refuse(denial, respond, &shared).await,
        Err(Headless::Gone) => drop(respond),
    }
    shared.count(worth.get());
}

/// Why a stream has no request.
enum Headless {
    /// The client has given it up, or the connection is over.
    Gone,
    Refused(Denial),
}

async fn head(reading: &mut Reading, limit: usize) -> Result<Asked, Headless> {
    let piece = poll_fn(|cx| reading.poll_piece(cx)).await;
    let section = match piece {
        Ok(Some(Piece::Headers(section))) => section,
        Ok(Some(Piece::TooLarge)) => return Err(Headless::Refused(Denial::HeaderTooLarge)),
        Ok(Some(Piece::Data(_) | Piece::Other(..))) => {
            reading.fail(Code::FrameUnexpected);
            return Err(Headless::Gone);
        }
        // It ended before it began.
        Ok(None) => return Err(Headless::Refused(Denial::MalformedRequest)),
        Err(_) => return Err(Headless::Gone),
    };
    match http3::request(&section, limit) {
        Ok(asked) => {
            if asked.head.method() != http::Method::CONNECT {
                reading.look_ahead().await;
                // RFC 9114 §4.1.2: nobody would ask for a body that is known to be none, and find it short.
                if reading.is_over() && asked.length.unwrap_or_default() > 0 {
                    return Err(Headless::Refused(Denial::MalformedRequest));
                }
            }
            Ok(asked)
        }
        Err(Unasked::TooLarge) => Err(Headless::Refused(Denial::HeaderTooLarge)),
        Err(Unasked::Malformed) => Err(Headless::Refused(Denial::MalformedRequest)),
        Err(Unasked::Coding) => {
            reading.fail(Code::DecompressionFailed);
            Err(Headless::Gone)
        }
    }
}

/// A request that is none has an answer all the same.
async fn refuse(denial: Denial, respond: Respond, shared: &Shared) {
    let downstream = shared.from;
    let context = shared.current.now();
    let mut recorder = context
        .telemetry
        .begin(Kind::request, Front::origin, downstream);
    recorder.protocol(Protocol::Http3);
    let refusal = Refusal::from(denial);
    let answer = context.reject(Asks::Origin, &refusal, None, &mut recorder, false);
    respond.whole(answer).await;
}

impl Shared {
    /// A stream is over.
    fn count(&self, of_use: bool) {
        let mut waste = self.waste.lock().unwrap_or_else(PoisonError::into_inner);
        if !waste.count(of_use, Instant::now()) {
            close(&self.connection, Code::ExcessiveLoad);
        }
    }
}

/// It broke the protocol: nothing more of it can be understood.
fn broke(connection: &quinn::Connection, code: Code) -> Broken {
    close(connection, code);
    Broken::Malformed
}
