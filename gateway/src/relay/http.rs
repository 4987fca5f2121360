//! Relay streams to HTTP-aware services: HTTP/1 inside the stream, each request read strictly, judged, and written anew.
//!
//! What lives here: one such stream ([`carry`]), one request on it (`exchange`), bodies and metering. What does not: who may
//! open the stream, and the rules themselves (`sluicegate_policy::ServicePermit::judge_http`).

mod body;
mod exchange;
mod heard;

use std::{
    io,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::BytesMut;
use http::Request;
use hyper::{
    body::Incoming, client::conn::http1::SendRequest, service::service_fn, upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use sluicegate_policy::Denial;
use sluicegate_relay::flow::{Flow, FlowIo, Prefixed, Timers};

use self::{
    body::RequestBody,
    exchange::Upgraded,
    heard::{Ear, Heard},
};
use super::{
    Endpoint, Ticket,
    metered::{Metered, Moved, Uncounted},
    stream::join,
};
use crate::{
    drain::{DrainWatch, Stage},
    egress::{Guarded, Timeouts, linger_close},
    listen::Downstream,
    lost::Lost,
    message::{Detail, Judged, Verdict},
    outcome::{Outcome, Party},
    session::Requests,
    telemetry::{Recorder, Speaker, Telemetry},
};

/// What serving HTTP inside a stream needs.
#[derive(Clone, Debug)]
pub struct HttpContext {
    /// Records of the requests.
    pub telemetry: Telemetry,
    /// How much a refusal tells.
    pub detail: Detail,
    /// How long and how large a head may be.
    pub timeouts: Timeouts,
    /// Going down?
    pub drain: DrainWatch,
}

type Io = TokioIo<Judged>;

/// One stream.
struct Stream<'t> {
    endpoint: Endpoint,
    ticket: &'t Ticket,
    requests: Requests,
    speaker: Speaker,
    verdict: Arc<Verdict>,
    upstream: tokio::sync::Mutex<Option<SendRequest<RequestBody>>>,
    /// What it becomes after its last answer.
    after: Mutex<Option<(OnUpgrade, Upgraded)>>,
    /// A refused CONNECT: the library lets go of the stream as if it had become a tunnel.
    refused: Mutex<Option<OnUpgrade>>,
}

/// Serve requests on `downstream` until it ends or the right to it does. `upstream` serves the first of them; where the
/// service closes it, the next is opened for the next request.
pub(super) async fn carry(
    endpoint: &Endpoint,
    downstream: impl Flow + 'static,
    upstream: Box<dyn Flow>,
    ticket: Box<Ticket>,
    recorder: &mut Recorder,
) {
    let ticket = &*ticket;
    let (downstream, ear) = Heard::new(downstream);
    let metered = Metered::new(downstream, ticket.meter(recorder.counters()));
    let moved = metered.moved();
    let verdict = Arc::new(Verdict::default());
    verdict.trust();
    let stream = Arc::new(Stream {
        endpoint: endpoint.clone(),
        ticket,
        requests: Requests::default(),
        speaker: recorder.speaker(),
        verdict: verdict.clone(),
        upstream: tokio::sync::Mutex::new(exchange::handshake(&endpoint.http, upstream).await),
        after: Mutex::default(),
        refused: Mutex::default(),
    });
    let judged = Judged::new(
        Guarded::new(Downstream::stream(metered)),
        BytesMut::new(),
        verdict,
        endpoint.http.timeouts,
    );
    let timers = ticket.timers(endpoint.services.idle_timeout());
    let ended = tokio::select! {
        biased;
        lost = ticket.revoked() => Err(lost),
        served = serve(TokioIo::new(judged), &stream, endpoint.http.drain.clone()) => Ok(served),
        denial = silent(timers, &moved, &ear) => Err(Lost::from(denial)),
    };
    match ended {
        Err(lost) => lost.cut(recorder),
        Ok(Ok(())) => recorder.ended(Outcome::Completed, Party::Downstream),
        Ok(Err(error)) => {
            recorder.detail(error);
            recorder.ended(Outcome::Reset, Party::Downstream);
        }
    }
    let after = stream
        .after
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some((client, upgraded)) = after {
        become_tunnel(client, upgraded, ticket, timers, moved).await;
    }
    let refused = stream
        .refused
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some((mut guarded, _)) = match refused {
        Some(client) => reclaim_guarded(client).await,
        None => None,
    } {
        linger_close(&mut guarded).await;
        guarded.release();
    }
}

async fn serve(io: Io, stream: &Arc<Stream<'_>>, mut drain: DrainWatch) -> hyper::Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        let stream = stream.clone();
        // As in `front/forward.rs`: the library would keep room for it between requests.
        Box::pin(async move { Ok::<_, io::Error>(stream.answer(request).await) })
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .preserve_header_case(true)
        .half_close(true)
        .max_buf_size(128 * 1024)
        .serve_connection(io, service)
        .with_upgrades();
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = drain.reached(Stage::Draining) => {
            serving.as_mut().graceful_shutdown();
            serving.as_mut().await
        }
    };
    match &ended {
        Ok(()) => stream.verdict.release(),
        // The guard inside resets the stream: a cut answer must not look whole.
        Err(_) => stream.verdict.arm(),
    }
    ended
}

/// Completes when nothing has moved for so long: for another time once the client has ended its half, as in a pump.
async fn silent<F: Flow>(timers: Timers, moved: &Moved, ear: &Ear<F>) -> Denial {
    let half_closed = async {
        match (timers.half_close, timers.shortest()) {
            (Some(_), Some(limit)) => {
                ear.fin().await;
                moved.now();
                limit
            }
            _ => std::future::pending().await,
        }
    };
    let idle = async {
        match timers.idle {
            Some(idle) => moved.silent(idle).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        limit = half_closed => moved.silent(limit).await,
        () = idle => {}
    }
    Denial::IdleTimeout
}

/// After a 101: bytes both ways, under the same right.
async fn become_tunnel(
    client: OnUpgrade,
    upgraded: Upgraded,
    ticket: &Ticket,
    timers: Timers,
    stream: Moved,
) {
    let Upgraded {
        upstream,
        mut recorder,
    } = upgraded;
    let (Some(mut down), Some(mut up)) = (reclaim(client).await, upstream) else {
        return recorder.ended(Outcome::Reset, Party::Downstream);
    };
    // The stream's own meter is inside `down`.
    let meter = Uncounted::new(recorder.counters().clone(), stream);
    let lost = pin!(ticket.revoked());
    join(&mut down, &mut up, lost, timers, &meter, &mut recorder).await;
}

/// The stream behind an upgrade, and what was read of it.
async fn reclaim(client: OnUpgrade) -> Option<Prefixed<Prefixed<Box<dyn Flow>>>> {
    let (mut guarded, first) = reclaim_guarded(client).await?;
    let Some(Downstream::Stream(io)) = guarded.take() else {
        return None;
    };
    Some(Prefixed::new(first.freeze(), io.into_flow().await.ok()?))
}

async fn reclaim_guarded(client: OnUpgrade) -> Option<(Guarded<Downstream>, BytesMut)> {
    let parts = client.await.ok()?.downcast::<Io>().ok()?;
    let (guarded, unread) = parts.io.into_inner().into_parts()?;
    let mut first = BytesMut::from(&parts.read_buf[..]);
    first.extend_from_slice(&unread);
    Some((guarded, first))
}

/// The service's end behind an upgrade.
async fn reclaim_upstream(
    upgraded: hyper::upgrade::Upgraded,
) -> Option<Prefixed<Prefixed<Box<dyn Flow>>>> {
    let parts = upgraded.downcast::<TokioIo<FlowIo>>().ok()?;
    let flow = parts.io.into_inner().into_flow().await.ok()?;
    Some(Prefixed::new(parts.read_buf, flow))
}

#[cfg(test)]
mod tests;
