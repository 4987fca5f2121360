//! Calls on a relay stream: HTTP/2 inside the stream, with prior knowledge, and each of its calls judged by itself.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime},
};

use h2::{Reason, RecvStream, server::SendResponse};
use http::Request;
use sluicegate_policy::{CallsPermit, Denial};
use sluicegate_relay::{
    flow::{Chunk, Flow, FlowIo},
    transport::{batch::Aside, windows},
};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use super::{call::Call, lent::Lent, status::Status};
use crate::{
    drain::Stage,
    http2::{self, Calm, Limits},
    lost::Lost,
    message::{Asks, Manner, headers, reject},
    outcome::{Outcome, Party},
    relay::{
        Endpoint, Ticket,
        metered::{Counted, Moved},
    },
    telemetry::{Caller, Counters, Front, Kind, Protocol, Recorder},
};

/// Calls open at once on one stream; RFC 9113 §6.5.2 asks for no fewer.
const CALLS: u32 = 100;
/// Calls open at once on all streams of a session, for each connection that may carry streams of it.
const OF_CONNECTION: u64 = 256;
/// Bytes that one call may have unread, of those of the whole stream: some that stand still leave room for the others.
const WINDOW: u32 = windows::STREAM / 4;
/// Bytes buffered for sending, per call.
const SEND_BUFFER: usize = 64 * 1024;
/// As [`windows::SMALL_FRAMES`]: a call that stands still may fill its window with frames of sixteen bytes.
const SMALL_FRAMES: usize = windows::SMALL_FRAMES / 4;
/// A client that is told that it is over has this long to hear it, and as long to go.
const LAST_WORD: Duration = Duration::from_millis(300);
/// One that has asked for nothing may be calling at this moment, from far away.
const PARTING: Duration = Duration::from_secs(1);
/// So many times as long, at most, the calls have for their own last words: on a busy machine their turn may come late.
const TURNS: u32 = 10;
/// Where calls may be awaited for ever, the timer only has to be far away.
const FAR: Duration = Duration::from_secs(86_400);

/// One stream. Each of its calls holds it while it lives.
struct Stream {
    endpoint: Endpoint,
    ticket: Ticket<CallsPermit>,
    downstream: Caller,
    /// Its own record's.
    counters: Arc<Counters>,
}

/// How it ended.
enum End {
    /// In order: its client went, there was no call for long, or the gateway goes down.
    Completed,
    /// The right to it has ended, and its calls were told so.
    Over(Lost),
    /// It broke.
    Broken(h2::Error),
    /// The gateway ended it where it was, for a reason, and in other words.
    Cut(Denial, String),
}

/// Serve calls on `downstream` until it ends or the right to it does.
pub(in crate::relay) async fn carry(
    endpoint: &Endpoint,
    downstream: impl Flow + 'static,
    ticket: Ticket<CallsPermit>,
    recorder: &mut Recorder,
) {
    let counted = Counted::new(downstream, recorder.counters().clone());
    let moved = counted.moved();
    let (io, lender) = Lent::new(FlowIo::new(counted));
    let idle = ticket.permit.idle_timeout();
    let idle = idle.or(endpoint.services.idle_timeout());
    let stream = Arc::new(Stream {
        endpoint: endpoint.clone(),
        ticket,
        downstream: recorder.caller(),
        counters: recorder.counters().clone(),
    });
    let end = tokio::select! {
        biased;
        end = serve(io, &stream) => end,
        () = silent(idle, &moved) => End::Cut(Denial::IdleTimeout, "nothing moved".into()),
    };
    match end {
        End::Completed => recorder.ended(Outcome::Completed, Party::Downstream),
        End::Over(lost) => lost.cut(recorder),
        End::Broken(error) => {
            recorder.detail(error);
            return recorder.ended(Outcome::Reset, Party::Downstream);
        }
        End::Cut(denial, why) => {
            recorder.detail(why);
            return recorder.cut(denial);
        }
    }
    lender.close(LAST_WORD).await;
}

/// Completes when nothing has moved for so long.
async fn silent(idle: Option<Duration>, moved: &Moved) {
    match idle {
        Some(idle) => moved.silent(idle).await,
        None => std::future::pending().await,
    }
}

async fn serve(io: Lent, stream: &Arc<Stream>) -> End {
    let limits = Limits {
        streams: CALLS,
        ..stream.endpoint.limits
    };
    let mut drain = stream.endpoint.http.drain.clone();
    let mut lost = pin!(stream.ticket.revoked());
    let (io, enough) = Calm::new(io);
    let begun = tokio::select! {
        biased;
        lost = &mut lost => return End::Over(lost),
        begun = timeout(limits.head_timeout, builder(&limits).handshake::<_, Chunk>(io)) => begun,
    };
    let mut connection = match begun {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) if error.is_io() => return End::Broken(error),
        // Methods could not be seen in what is none of HTTP/2's.
        Ok(Err(_)) => return End::Cut(Denial::ServiceMethodNotAllowed, "it is not HTTP/2".into()),
        Err(_) => return End::Cut(Denial::HeadTimeout, "no HTTP/2 preface in time".into()),
    };
    let idle = if limits.idle.is_zero() {
        FAR
    } else {
        limits.idle
    };
    let mut asked = Instant::now();
    let mut unasked = pin!(sleep_until(asked + idle));
    let (mut told, mut over) = (false, None);
    let mut last = pin!(None::<Sleep>);
    let mut turns = 0;
    let mut aside = Aside::new();
    loop {
        tokio::select! {
            accepted = poll_fn(|cx| aside.poll(cx, |cx| connection.poll_accept(cx))) => match (accepted, over) {
                (Some(Ok((request, respond))), _) => {
                    let stream = stream.clone();
                    drain.spawn(async move { stream.call(request, respond).await });
                    asked = Instant::now();
                }
                (_, Some(lost)) => return End::Over(lost),
                // What it says is no HTTP/2, or too much of it: it was ended here.
                (Some(Err(error)), None) if error.is_library() => {
                    if http2::is_flood(&error) {
                        stream.endpoint.http.telemetry.metrics().h2_flood();
                    }
                    return End::Cut(Denial::MalformedRequest, error.to_string());
                }
                (Some(Err(error)), None) => return End::Broken(error),
                (None, None) => return End::Completed,
            },
            lost = &mut lost, if over.is_none() => {
                // Its calls are told by themselves, and no more may come.
                connection.graceful_shutdown();
                (told, over) = (true, Some(lost));
                last.set(Some(sleep(LAST_WORD)));
            }
            () = drain.reached(Stage::Draining), if !told => {
                // RFC 9113 §6.8: GOAWAY, and what is open goes on to its end.
                connection.graceful_shutdown();
                told = true;
            }
            () = &mut unasked, if !told => {
                let (now, until) = (Instant::now(), asked + idle);
                if Arc::strong_count(stream) > 1 {
                    // There are calls, which hold it.
                    unasked.as_mut().reset(now + idle);
                } else if until > now {
                    unasked.as_mut().reset(until);
                } else {
                    // A place held for nothing. Who calls again connects again.
                    connection.graceful_shutdown();
                    told = true;
                    last.set(Some(sleep(PARTING)));
                }
            }
            () = enough.notified() => {
                stream.endpoint.http.telemetry.metrics().h2_flood();
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                let _ = timeout(LAST_WORD, poll_fn(|cx| connection.poll_closed(cx))).await;
                let why = "too many frames that carry nothing";
                return End::Cut(Denial::MalformedRequest, why.into());
            }
            () = poll_fn(|cx| last.as_mut().as_pin_mut().map_or(Poll::Pending, |last| last.poll(cx))) => {
                // Where there is no end to the right to it, calls that came meanwhile go on to theirs.
                if Arc::strong_count(stream) > 1 && turns < TURNS {
                    turns += u32::from(over.is_some());
                    last.set(Some(sleep(LAST_WORD)));
                } else {
                    // What was said last is at least on its way.
                    let _ = timeout(LAST_WORD, poll_fn(|cx| connection.poll_closed(cx))).await;
                    return over.map_or(End::Completed, End::Over);
                }
            }
        }
    }
}

/// All calls together may have as much unread as the stream that carries them.
fn builder(limits: &Limits) -> h2::server::Builder {
    let mut builder = http2::builder(limits);
    builder
        .initial_window_size(WINDOW)
        .initial_connection_window_size(windows::STREAM)
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(SMALL_FRAMES);
    builder
}

impl Stream {
    /// Serve one call.
    async fn call(&self, request: Request<RecvStream>, respond: SendResponse<Chunk>) {
        let telemetry = &self.endpoint.http.telemetry;
        let mut recorder = telemetry.begin(Kind::request, Front::grpc, self.downstream);
        let session = &self.ticket.identity.session;
        recorder.session(session.label(), self.ticket.policy_number());
        recorder.service(self.ticket.permit.name());
        if !Call::is_one(&request) {
            return self.refuse(&request, respond, &mut recorder);
        }
        let call = Call::new(request, respond);
        call.told(&mut recorder);
        let path = call.path();
        let admitted = if call.is_of_two() {
            Err(session.refused(Denial::CredentialInvalid.into(), SystemTime::now()))
        } else {
            let most = OF_CONNECTION * u64::from(self.endpoint.limits.of_session);
            Ticket::issue_within(&self.ticket, path, most, &self.counters, &mut recorder)
        };
        let admitted = admitted.map_err(Status::from);
        let pool = &self.endpoint.pool;
        call.serve(admitted, pool, &mut recorder).await;
    }

    /// Whatever else HTTP/2 has room for is answered as everywhere.
    fn refuse(
        &self,
        request: &Request<RecvStream>,
        respond: SendResponse<Chunk>,
        recorder: &mut Recorder,
    ) {
        recorder.protocol(Protocol::Http2);
        recorder.http(request.method().as_str(), request.uri().path());
        let session = &self.ticket.identity.session;
        let refusal = session.refused(Denial::UnsupportedProtocol.into(), SystemTime::now());
        let manner = Manner {
            detail: self.endpoint.http.detail,
            asks: Asks::Origin,
            html: headers::wants_html(request.headers()),
        };
        let answer = reject(&refusal, None, recorder, manner);
        http2::answer(respond, answer);
    }
}
