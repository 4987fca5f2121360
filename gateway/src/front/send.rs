//! One request on its way up, over an idle connection or a new one, until its answer's head has come.

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode, header};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use sluicegate_policy::{Denial, Refusal, Target};
use tokio::time::timeout;

use super::{
    asked::{Way, key},
    body::{Continue, RequestBody, UploadEnd},
    client_body::ClientBody,
    context::Context,
    guard::Guard,
    headers,
    pool::Adopted,
};
use crate::{
    auth::Identity,
    egress::{Reached, Upstream},
    session::PolicyGeneration,
    telemetry::Recorder,
};

pub(super) struct Sent {
    pub(super) answer: Response<Incoming>,
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) reached: Reached,
    pub(super) guard: Guard,
    pub(super) upload: UploadEnd,
}

/// Send over an idle connection of this session or a new one. A connection that closed while it idled costs another
/// try, but only if nothing of the request was sent.
pub(super) async fn send(
    context: &Context,
    way: &Way,
    request: Request<ClientBody>,
    recorder: &mut Recorder,
    mut guard: Guard,
) -> Result<Sent, Refusal> {
    let budget = way.identity.session.budget().clone();
    let word = Arc::new(Continue::default());
    let expects = request.headers().contains_key(header::EXPECT);
    let counters = recorder.counters().clone();
    let mut request = request.map(|body| {
        let body = RequestBody::new(Some(body), counters, budget);
        if expects {
            body.wait_for(word.clone())
        } else {
            body
        }
    });
    let upload = request.body().end();
    if expects {
        hyper::ext::on_informational(&mut request, move |informational| {
            if informational.status() == StatusCode::CONTINUE {
                word.say();
            }
        });
    }
    let spare = spare(&request);
    loop {
        let adopted = way.adopted.as_ref();
        let idle = adopted.and_then(|adopted| adopted.take(&way.key));
        let idle = idle.or_else(|| context.pool.take(&way.key));
        // Where what opened it would not do so now, it is closed and the next one serves, or a new one.
        if idle
            .as_ref()
            .is_some_and(|idle| !guard.may_use(&idle.reached))
        {
            continue;
        }
        let reused = idle.is_some();
        let (mut sender, reached) = match idle {
            Some(idle) => {
                recorder.address(idle.reached.address);
                (idle.sender, idle.reached)
            }
            None => {
                let budget = way.identity.session.budget();
                let dial = budget.dial(context.egress.timeouts.pending_opens)?;
                let counted = context.telemetry.metrics().pending();
                // In a box: a request over an idle connection needs no room for it.
                let opened = tokio::select! {
                    biased;
                    lost = std::future::poll_fn(|cx| guard.poll(cx)) => return Err(lost.told(recorder).into()),
                    opened = Box::pin(context.ways.open(&way.policy, &way.permit, recorder)) => opened?,
                };
                drop((dial, counted));
                (handshake(context, opened.stream).await?, opened.reached)
            }
        };
        guard.reached(reached.clone());
        // A change meanwhile was judged without the address, which was admitted by the policy before it.
        if let Some(lost) = guard.verdict() {
            return Err(lost.told(recorder).into());
        }
        let ready = tokio::select! {
            biased;
            lost = std::future::poll_fn(|cx| guard.poll(cx)) => return Err(lost.told(recorder).into()),
            ready = sender.ready() => ready,
        };
        if ready.is_err() {
            if reused {
                continue;
            }
            return Err(Denial::UpstreamReset.into());
        }
        let answering = sender.try_send_request(request);
        tokio::pin!(answering);
        let limit = context.egress.timeouts.response;
        let answered = async {
            if limit.is_zero() {
                Ok(answering.as_mut().await)
            } else {
                timeout(limit, answering.as_mut()).await
            }
        };
        let answered = tokio::select! {
            biased;
            lost = std::future::poll_fn(|cx| guard.poll(cx)) => return Err(lost.told(recorder).into()),
            answered = answered => answered.map_err(|_| Denial::UpstreamTimeout)?,
        };
        match answered {
            Ok(answer) => {
                if !headers::framed_one_way(answer.headers()) {
                    return Err(Denial::UpstreamProtocol.into());
                }
                return Ok(Sent {
                    answer,
                    sender,
                    reached,
                    guard,
                    upload,
                });
            }
            Err(mut failed) => match failed.take_message() {
                Some(unsent) if reused => request = unsent,
                _ => {
                    let error = failed.into_error();
                    // RFC 9112 §9.3.1: the idle connection may have been closed as we used it.
                    let malformed =
                        error.is_parse() || error.is_parse_too_large() || error.is_parse_status();
                    if reused
                        && !malformed
                        && let Some(spare) = &spare
                    {
                        request = spare.clone().map(|()| {
                            let budget = way.identity.session.budget().clone();
                            RequestBody::new(None, recorder.counters().clone(), budget)
                        });
                        continue;
                    }
                    recorder.detail(&error);
                    let denial = if error.is_user() && upload.is_over_quota() {
                        return Err(way.identity.session.budget().refusal(Denial::ByteQuota));
                    } else if error.is_user() {
                        // Its body broke off, or was none: that is nobody's fault up there.
                        Denial::MalformedRequest
                    } else if malformed {
                        Denial::UpstreamProtocol
                    } else {
                        Denial::UpstreamReset
                    };
                    return Err(denial.into());
                }
            },
        }
    }
}

/// A second copy of a request that may be sent twice: idempotent (RFC 9110 §9.2.2) and without a body.
fn spare(request: &Request<RequestBody>) -> Option<Request<()>> {
    let safe = [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE];
    if !safe.contains(request.method()) || !hyper::body::Body::is_end_stream(request.body()) {
        return None;
    }
    let mut spare = Request::new(());
    *spare.method_mut() = request.method().clone();
    *spare.uri_mut() = request.uri().clone();
    *spare.headers_mut() = request.headers().clone();
    Some(spare)
}

async fn handshake(
    context: &Context,
    stream: Upstream,
) -> Result<SendRequest<RequestBody>, Refusal> {
    let (sender, connection) = http1::Builder::new()
        .preserve_header_case(true)
        .max_buf_size(256 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Denial::UpstreamReset)?;
    // The drain waits for exchanges, not for connections that idle in the pool.
    context.drain.spawn_service(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "upstream connection ended early");
        }
    });
    Ok(sender)
}

/// Let a dialled connection of a CONNECT serve the plain HTTP that turned up in it. It stays under the policy that
/// admitted its address: requests judged by a later one dial anew.
pub(super) async fn adopt(
    context: &Context,
    identity: &Identity,
    policy: &PolicyGeneration,
    target: &Target,
    stream: Upstream,
    reached: Reached,
) -> Adopted {
    match handshake(context, stream).await {
        Ok(sender) => Adopted::new(key(identity, policy, target), sender, reached),
        // The first request dials.
        Err(_) => Adopted::default(),
    }
}
