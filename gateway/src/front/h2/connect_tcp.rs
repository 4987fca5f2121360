//! `connect-tcp` to a host service: an extended CONNECT that becomes a relay stream.

use std::future::poll_fn;

use http::{HeaderName, HeaderValue, Response};
use sluicegate_relay::flow::CapsuleFlow;
use sluicegate_relay_protocol::{CAPSULE_PROTOCOL, CAPSULE_PROTOCOL_TRUE};

use super::{Context, Exchange, refuse};
use crate::{
    outcome::{Outcome, Party},
    telemetry::{Front, Kind},
};

/// Serve one stream to the service of this name (as sent, percent-decoded).
pub(super) async fn serve(exchange: Exchange, service: &str, context: &Context) {
    let Exchange {
        request,
        mut respond,
        downstream,
        ..
    } = exchange;
    let mut recorder = context
        .telemetry
        .begin(Kind::stream, Front::connect_tcp, downstream);
    recorder.service(service);
    let (head, body) = request.into_parts();
    let ticket = match context
        .relay
        .admit(&head.headers, service, downstream, &mut recorder)
    {
        Ok(ticket) => ticket,
        Err(refusal) => return refuse(respond, &refusal, context.detail, &mut recorder),
    };
    // A client that gives up while the service is dialled ends the dial.
    let opened = tokio::select! {
        opened = context.relay.open(&ticket, &mut recorder) => Some(opened),
        _ = poll_fn(|cx| respond.poll_reset(cx)) => None,
    };
    let upstream = match opened {
        None => return recorder.ended(Outcome::Reset, Party::Downstream),
        Some(Err(refusal)) => return refuse(respond, &refusal, context.detail, &mut recorder),
        Some(Ok(upstream)) => upstream,
    };
    recorder.status(200);
    let Ok(send) = respond.send_response(accepted(), false) else {
        return recorder.ended(Outcome::Reset, Party::Downstream);
    };
    context
        .relay
        .carry(
            CapsuleFlow::new(send, body),
            upstream,
            ticket,
            &mut recorder,
        )
        .await;
}

/// 200, carrying capsules. Proxy-Status says who answered (RFC 9209 §2).
fn accepted() -> Response<()> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert(
        CAPSULE_PROTOCOL,
        HeaderValue::from_static(CAPSULE_PROTOCOL_TRUE),
    );
    headers.insert(
        HeaderName::from_static("proxy-status"),
        HeaderValue::from_static("sluicegate"),
    );
    response
}
