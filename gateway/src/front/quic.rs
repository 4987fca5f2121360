//! The relay's own protocol over QUIC (ALPN `sluicegate-relay/1`): one connection, each of its streams judged by itself.

mod control;
mod stream;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::header;
use quinn::{RecvStream, SendStream};
use sluicegate_certs::Channel;
use sluicegate_relay::{
    flow::{Flow, QuicFlow, code},
    transport::{closing, tuning::Room},
};
use sluicegate_relay_protocol::{
    ErrorCode,
    preamble::{Purpose, Request, Response},
    varint,
};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use super::{Context, Current, path::Path, standing::Standing};
use crate::{
    drain::{DrainWatch, Stage},
    listen::{Carrying, Shaken},
    secret::Secret,
    telemetry::{Front, Kind, Recorder},
};

/// What the streams of one connection share.
#[derive(Clone)]
struct Shared {
    current: Arc<Current>,
    drain: DrainWatch,
    connection: quinn::Connection,
    /// Where its client was in the handshake.
    from: SocketAddr,
    channel: Option<Channel>,
    /// The client is to open its streams elsewhere.
    leaving: CancellationToken,
    standing: Arc<Standing>,
}

/// Serve a connection until it ends or is drained. Streams run in the drain's tasks.
pub async fn serve(shaken: Shaken, current: Arc<Current>, mut drain: DrainWatch) {
    let Shaken { connection, from } = shaken;
    let path = Path::of(connection.clone(), current.now().authenticator.clone());
    let shared = Shared {
        current,
        drain: drain.clone(),
        channel: quic_channel(&connection),
        connection: connection.clone(),
        from,
        leaving: CancellationToken::new(),
        standing: Arc::new(Standing::on(path)),
    };
    let (limits, standing) = (shared.context().h2.limits, shared.standing.clone());
    let mut room = Room::new(&connection, limits.streams);
    // Each stream's task holds one, a control stream's too; ours is one more.
    let places = Arc::new(());
    // Control streams are not work: a connection with nothing else is idle.
    let work = TaskTracker::new();
    let mut asked = Instant::now();
    let mut idle = std::pin::pin!(sleep_until(standing.until(asked, &limits)));
    let mut left = std::pin::pin!(standing.left());
    // Streams come in the order of their numbers.
    let mut taken = 0;
    loop {
        let leaving = shared.leaving.is_cancelled();
        tokio::select! {
            accepted = connection.accept_bi() => match accepted {
                Ok((send, receive)) => {
                    taken += 1;
                    let (shared, token, place) = (shared.clone(), work.token(), places.clone());
                    room.taken(Arc::strong_count(&places) - 1);
                    let opening = Box::pin(begin(send, receive, shared, token));
                    drain.spawn(async move {
                        let (token, carrying) = opening.await;
                        if let Some(carrying) = carrying {
                            carrying.await;
                        }
                        drop((token, place));
                    });
                    asked = Instant::now();
                }
                Err(error) => {
                    return tracing::debug!(downstream = %from, %error, "connection ended");
                }
            },
            // Nothing of this protocol is unidirectional; HTTP/3, on the same port, must be allowed such streams.
            Ok(_) = connection.accept_uni() => {
                return closing::close(&connection, code(ErrorCode::Protocol), b"unidirectional stream");
            }
            () = drain.reached(Stage::Draining), if !leaving => leave(&shared, &work),
            () = &mut idle, if !leaving => {
                let (now, until) = (Instant::now(), standing.until(asked, &limits));
                // A place held for nothing; a relay client that is still there connects again.
                if until <= now && work.is_empty() {
                    leave(&shared, &work);
                }
                idle.as_mut().reset(if until > now { until } else { standing.until(now, &limits) });
            }
            // A session's credentials may not be used from where its client is now: a connection from there would be refused.
            () = &mut left => {
                return closing::close(&connection, code(ErrorCode::Forced), b"source");
            }
            () = work.wait(), if leaving => return finish(&connection, taken).await,
        }
    }
}

fn leave(shared: &Shared, work: &TaskTracker) {
    shared.leaving.cancel();
    work.close();
}

/// A moment for what was written last to go out, unless the client closes first. What came after so many streams was never
/// seen, and the client is told so, as by GOAWAY.
async fn finish(connection: &quinn::Connection, taken: u64) {
    let _ = timeout(last_words(connection), connection.closed()).await;
    let taken: Vec<u8> = varint::encode(taken).collect();
    closing::close(connection, code(ErrorCode::Done), &taken);
}

/// How long a client that was told may take to close by itself: three round trips, within these bounds.
const LAST_WORDS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(3));

/// So long for this one.
pub(super) fn last_words(connection: &quinn::Connection) -> Duration {
    patience(connection.rtt())
}

/// A client makes its round trip as long as it likes: beyond the bounds it is not believed.
fn patience(trip: Duration) -> Duration {
    let (least, most) = LAST_WORDS;
    trip.saturating_mul(3).clamp(least, most)
}

/// The head of a stream says what it is. What may live long is left to be awaited; `work` comes back where it is work.
async fn begin(
    send: SendStream,
    receive: RecvStream,
    shared: Shared,
    work: TaskTrackerToken,
) -> (Option<TaskTrackerToken>, Option<Carrying>) {
    let mut flow = QuicFlow::new(send, receive);
    let read = timeout(shared.patience(), flow.head(Request::decode));
    let request = match read.await {
        Ok(Ok(request)) => request,
        failed => {
            stream::no_head(flow, failed.ok().and_then(Result::err), &shared).await;
            return (Some(work), None);
        }
    };
    let token = Secret::new(request.token);
    let carrying = match request.purpose {
        Purpose::Control => {
            let serving = async move { control::serve(flow, &token, shared).await };
            return (None, Some(Box::pin(serving)));
        }
        Purpose::Open(handshake) => {
            let terms = (request.once, request.says_taken);
            stream::open(flow, token, handshake, terms, &shared).await
        }
        Purpose::Refresh => {
            stream::refresh(flow, &token, &shared).await;
            None
        }
        Purpose::Name { name } => {
            stream::name(flow, &token, name, &shared).await;
            None
        }
    };
    (Some(work), carrying)
}

impl Shared {
    /// What serves what is asked for now, whatever the connection has carried before.
    fn context(&self) -> Arc<Context> {
        self.current.now()
    }

    /// How long a head may take, the client's or the one that answers it.
    fn patience(&self) -> Duration {
        self.context().h2.limits.head_timeout
    }

    fn begin(&self, kind: Kind) -> Recorder {
        self.context().telemetry.begin(kind, Front::quic, self.from)
    }
}

/// What the two ends of a connection share; QUIC has TLS 1.3 (RFC 9001 §4.2).
pub(super) fn quic_channel(connection: &quinn::Connection) -> Option<Channel> {
    let mut bytes = [0; 32];
    let exported = connection.export_keying_material(&mut bytes, Channel::LABEL, b"");
    exported.is_ok().then(|| Channel::exported(bytes))
}

/// Fields of a refusal that mean something to the program that is told of it.
const TOLD: [http::HeaderName; 4] = [
    header::CONTENT_TYPE,
    header::CACHE_CONTROL,
    header::RETRY_AFTER,
    http::HeaderName::from_static("proxy-status"),
];

/// Answer with a refusal: the same status, reason, body and fields as over HTTP.
async fn refuse(mut flow: QuicFlow, answer: http::Response<Bytes>) {
    let mut said = Vec::new();
    for name in &TOLD {
        if let Some(value) = answer.headers().get(name) {
            said.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
    }
    let status = answer.status().as_u16();
    let body = answer.into_body().to_vec();
    match (Response::Refused { status, body, said }).encode() {
        // Who does not take the answer has no use for it.
        Ok(head) => match flow.send_head(head).await {
            Ok(()) => flow.decline(),
            Err(_) => flow.reset(),
        },
        Err(_) => flow.abort(ErrorCode::Refused),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::patience;

    #[test]
    fn who_is_far_away_is_heard_out() {
        let of = |millis| patience(Duration::from_millis(millis)).as_millis();
        assert_eq!([0, 20, 600, 60_000].map(of), [500, 500, 1800, 3000]);
    }
}
