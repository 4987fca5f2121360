//! One call: both bodies at once, trailers, resets with their codes.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use sluicegate_policy::Denial;
use sluicegate_relay::flow::{Chunk, Meter, Side};

use super::status::Status;
use crate::{
    lost::Lost,
    message::{
        headers::{answer_bytes, fields_bytes, request_bytes},
        proxy_status::drop_own,
    },
    outcome::Party,
    relay::{Spending, Ticket, Upstream},
};

/// How a call ended.
pub(super) enum End {
    /// The service answered, to its end, with this `grpc-status` where it gave a readable one.
    Completed(Option<u32>),
    /// One side reset it.
    Reset(Party),
    /// The gateway ended it.
    Cut(Lost),
    /// The service was lost before or while it answered.
    Failed(String),
}

/// Why a direction stopped.
enum Stop {
    /// Its source reset (or vanished: then the code is made up).
    From(Reason),
    /// Its sink reset.
    To(Reason),
    /// What carries its source is gone.
    Lost(String),
    /// The budget is used up.
    Budget,
}

/// Carry one call.
pub(super) async fn carry(
    request: Request<()>,
    body: RecvStream,
    mut respond: SendResponse<Chunk>,
    mut upstream: Upstream,
    ticket: &Ticket,
    meter: &Spending,
) -> End {
    let denied = tokio::select! {
        biased;
        lost = ticket.revoked() => Some(lost),
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return End::Reset(Party::Downstream),
        paid = pay((meter, Side::A), request_bytes(&request)) => paid.err().map(|_| Lost::from(Denial::ByteQuota)),
    };
    if let Some(lost) = denied {
        Status::from(lost.denial).send(&mut respond);
        return End::Cut(lost);
    }
    let (response, mut send) = match upstream
        .requests
        .send_request(request, body.is_end_stream())
    {
        Ok(sent) => sent,
        Err(error) => return unavailable(&mut respond, None, error.to_string()),
    };
    let mut answering = None;
    let stopped = {
        let up = async {
            match copy(body, &mut send, (meter, Side::A)).await {
                // The answer decides how the call ends, not the question. A service that wants no more of it may have
                // answered already (RFC 9113 §8.1, NO_ERROR); if it has not, the answer's own end says so.
                Ok(_) | Err(Stop::To(_)) => std::future::pending().await,
                Err(stop) => stop,
            }
        };
        let down = down(response, &mut respond, &mut answering, meter);
        tokio::select! {
            biased;
            lost = ticket.revoked() => Err(Err(lost)),
            result = down => match result {
                Ok(code) => Ok(code),
                Err(stop) => Err(Ok((stop, Party::Upstream))),
            },
            stop = up => Err(Ok((stop, Party::Downstream))),
        }
    };
    match stopped {
        Ok(code) => End::Completed(code),
        Err(Err(lost)) => cut(lost, &mut respond, answering, &mut send),
        Err(Ok((Stop::Budget, _))) => {
            cut(Denial::ByteQuota.into(), &mut respond, answering, &mut send)
        }
        // A lost service is told; a lost client cannot be. A session's end takes its connections along.
        Err(Ok((Stop::Lost(detail), Party::Upstream))) => match ticket.withdrawn() {
            Some(lost) => cut(lost, &mut respond, answering, &mut send),
            None => unavailable(&mut respond, answering, detail),
        },
        Err(Ok((Stop::Lost(_), _))) => {
            send.send_reset(Reason::CANCEL);
            End::Reset(Party::Downstream)
        }
        Err(Ok((Stop::From(code), from))) => reset(code, from, respond, answering, send),
        // Only the answer's direction stops for its sink.
        Err(Ok((Stop::To(code), _))) => reset(code, Party::Downstream, respond, answering, send),
    }
}

/// The answer: head, messages, trailers.
async fn down(
    response: h2::client::ResponseFuture,
    respond: &mut SendResponse<Chunk>,
    answering: &mut Option<SendStream<Chunk>>,
    meter: &Spending,
) -> Result<Option<u32>, Stop> {
    let response = tokio::select! {
        response = response => response.map_err(|error| stop(&error))?,
        reset = poll_fn(|cx| respond.poll_reset(cx)) => return Err(Stop::To(reset.unwrap_or(Reason::CANCEL))),
    };
    let (mut head, body) = response.into_parts();
    // Connection-specific fields end here, as on the way up.
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
    ] {
        head.headers.remove(name);
    }
    drop_own(&mut head.headers);
    let over = body.is_end_stream();
    // Of an answer without messages the head is the trailers too.
    let code = code(&head.headers);
    let answer = Response::from_parts(head, ());
    tokio::select! {
        paid = pay((meter, Side::B), answer_bytes(&answer)) => paid?,
        reset = poll_fn(|cx| respond.poll_reset(cx)) => return Err(Stop::To(reset.unwrap_or(Reason::CANCEL))),
    }
    let sent = respond.send_response(answer, over);
    let send = answering.insert(sent.map_err(|_| Stop::To(Reason::CANCEL))?);
    if over {
        Ok(code)
    } else {
        copy(body, send, (meter, Side::B)).await
    }
}

/// Messages and trailers from one stream to another, no faster than they are taken.
async fn copy(
    mut from: RecvStream,
    to: &mut SendStream<Chunk>,
    (meter, side): (&Spending, Side),
) -> Result<Option<u32>, Stop> {
    if from.is_end_stream() {
        return Ok(None);
    }
    loop {
        let data = tokio::select! {
            data = poll_fn(|cx| from.poll_data(cx)) => data,
            reset = poll_fn(|cx| to.poll_reset(cx)) => return Err(Stop::To(reset.unwrap_or(Reason::CANCEL))),
        };
        match data {
            Some(Ok(mut data)) => {
                let count = data.len();
                if !meter.moved(side, count) {
                    return Err(Stop::Budget);
                }
                while let Some(turn) = meter.pace(side, data.len()).filter(|_| !data.is_empty()) {
                    let waits = meter.wait();
                    let may = tokio::select! {
                        may = turn => may,
                        reset = poll_fn(|cx| to.poll_reset(cx)) => return Err(Stop::To(reset.unwrap_or(Reason::CANCEL))),
                    };
                    drop(waits);
                    push(data.split_to(may.min(data.len())), to).await?;
                }
                push(data, to).await?;
                // Refused only for a stream that is over, whose room h2 has given back itself.
                let _ = from.flow_control().release_capacity(count);
            }
            Some(Err(error)) => return Err(stop(&error)),
            None => break,
        }
    }
    let trailers = poll_fn(|cx| from.poll_trailers(cx))
        .await
        .map_err(|error| stop(&error))?;
    // Requests of gRPC have none, and nobody has judged what is in these; they may be left out (RFC 9110 §6.5.1).
    let trailers = trailers.filter(|_| side == Side::B);
    let code = trailers.as_ref().and_then(code);
    tokio::select! {
        paid = pay((meter, side), trailers.as_ref().map_or(0, fields_bytes)) => paid?,
        reset = poll_fn(|cx| to.poll_reset(cx)) => return Err(Stop::To(reset.unwrap_or(Reason::CANCEL))),
    }
    let ended = match trailers {
        Some(mut trailers) => {
            drop_own(&mut trailers);
            to.send_trailers(trailers)
        }
        None => to.send_data(Bytes::new().into(), true),
    };
    ended.map_err(|_| Stop::To(Reason::CANCEL))?;
    Ok(code)
}

/// Count a head or trailers that are about to go on, and wait as their bandwidth asks.
async fn pay((meter, side): (&Spending, Side), bytes: usize) -> Result<(), Stop> {
    if !meter.moved(side, bytes) {
        return Err(Stop::Budget);
    }
    let mut left = bytes;
    while left > 0
        && let Some(turn) = meter.pace(side, left)
    {
        let _waits = meter.wait();
        left = left.saturating_sub(turn.await);
    }
    Ok(())
}

/// The `grpc-status` of trailers (gRPC over HTTP/2, "Responses").
fn code(trailers: &HeaderMap) -> Option<u32> {
    trailers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

async fn push(mut data: Bytes, to: &mut SendStream<Chunk>) -> Result<(), Stop> {
    while !data.is_empty() {
        to.reserve_capacity(data.len());
        let room = poll_fn(|cx| poll_room(to, cx)).await?;
        let part = data.split_to(data.len().min(room));
        to.send_data(part.into(), false)
            .map_err(|_| Stop::To(Reason::CANCEL))?;
    }
    Ok(())
}

fn poll_room(to: &mut SendStream<Chunk>, cx: &mut Context<'_>) -> Poll<Result<usize, Stop>> {
    if to.capacity() > 0 {
        return Poll::Ready(Ok(to.capacity()));
    }
    loop {
        match std::task::ready!(to.poll_capacity(cx)) {
            Some(Ok(0)) => {}
            Some(Ok(room)) => return Poll::Ready(Ok(room)),
            Some(Err(error)) => {
                return Poll::Ready(Err(Stop::To(error.reason().unwrap_or(Reason::CANCEL))));
            }
            None => {
                let code = match to.poll_reset(cx) {
                    Poll::Ready(Ok(code)) => code,
                    _ => Reason::CANCEL,
                };
                return Poll::Ready(Err(Stop::To(code)));
            }
        }
    }
}

fn stop(error: &h2::Error) -> Stop {
    match error.reason() {
        Some(code) if error.is_reset() => Stop::From(code),
        _ => Stop::Lost(error.to_string()),
    }
}

/// A reset of one side becomes the same reset of the other.
fn reset(
    code: Reason,
    from: Party,
    mut respond: SendResponse<Chunk>,
    answering: Option<SendStream<Chunk>>,
    mut send: SendStream<Chunk>,
) -> End {
    match (from, answering) {
        (Party::Downstream, _) => send.send_reset(code),
        (_, Some(mut answering)) => answering.send_reset(code),
        (_, None) => respond.send_reset(code),
    }
    End::Reset(from)
}

/// The gateway's own end: the service sees a cancellation, the client a status.
fn cut(
    lost: Lost,
    respond: &mut SendResponse<Chunk>,
    answering: Option<SendStream<Chunk>>,
    send: &mut SendStream<Chunk>,
) -> End {
    send.send_reset(Reason::CANCEL);
    finish(&Status::from(lost.denial), respond, answering);
    End::Cut(lost)
}

fn unavailable(
    respond: &mut SendResponse<Chunk>,
    answering: Option<SendStream<Chunk>>,
    detail: String,
) -> End {
    finish(
        &Status::from(Denial::ServiceUnavailable),
        respond,
        answering,
    );
    End::Failed(detail)
}

fn finish(
    status: &Status,
    respond: &mut SendResponse<Chunk>,
    answering: Option<SendStream<Chunk>>,
) {
    match answering {
        None => status.send(respond),
        Some(mut answering) => {
            if answering.send_trailers(status.trailers()).is_err() {
                answering.send_reset(Reason::CANCEL);
            }
        }
    }
}
