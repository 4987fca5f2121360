//! One relay stream on QUIC.

use std::future::poll_fn;

use sluicegate_policy::{Denial, Refusal};
use sluicegate_relay::flow::{Broken, Flow, QuicFlow};
use sluicegate_relay_protocol::preamble::Response;

use super::{Shared, refuse};
use crate::{
    outcome::{Outcome, Party},
    secret::Secret,
    telemetry::{Kind, Recorder},
};

/// A stream to the service of this name (as sent).
pub(super) async fn service(mut flow: QuicFlow, token: Secret, name: String, shared: &Shared) {
    let mut recorder = shared.begin(Kind::stream);
    recorder.service(&name);
    let relay = &shared.context.relay;
    let downstream = shared.connection.remote_address();
    let admitted = if shared.drain.refusing() {
        Err(Denial::Draining.into())
    } else {
        relay.admit_credential(&token, &name, downstream, &mut recorder)
    };
    // Not for as long as the stream lives.
    drop((token, name));
    let ticket = match admitted {
        Ok(ticket) => ticket,
        Err(refusal) => return refused(flow, &refusal, shared, &mut recorder).await,
    };
    // A client that gives up while the service is dialled ends the dial. What it sends meanwhile waits in its window.
    let opened = tokio::select! {
        opened = Box::pin(relay.open(&ticket, &mut recorder)) => Some(opened),
        _ = poll_fn(|cx| flow.poll_broken(cx)) => None,
    };
    let upstream = match opened {
        None => return recorder.ended(Outcome::Reset, Party::Downstream),
        Some(Err(refusal)) => return refused(flow, &refusal, shared, &mut recorder).await,
        Some(Ok(upstream)) => upstream,
    };
    recorder.status(200);
    let accepted = Response::Accepted.encode();
    let sent = match accepted {
        Ok(head) => flow.send_head(head).await,
        Err(_) => Err(Broken::Malformed),
    };
    if sent.is_err() {
        return recorder.ended(Outcome::Reset, Party::Downstream);
    }
    relay.carry(flow, upstream, ticket, &mut recorder).await;
}

/// A stream to an egress target.
pub(super) async fn egress(flow: QuicFlow, host: &str, port: u16, shared: &Shared) {
    let mut recorder = shared.begin(Kind::tunnel);
    recorder.target(format_args!("{host}:{port}"));
    let refusal = Denial::UnsupportedProtocol.into();
    refused(flow, &refusal, shared, &mut recorder).await;
}

/// A stream that did not say in time what it is, or said what cannot be read.
pub(super) async fn no_head(flow: QuicFlow, broken: Option<Broken>, shared: &Shared) {
    let denial = match broken {
        None => Denial::HeadTimeout,
        Some(Broken::Malformed) => Denial::MalformedRequest,
        // It is gone: nobody is there to be told.
        Some(_) => return,
    };
    let mut recorder = shared.begin(Kind::stream);
    refused(flow, &denial.into(), shared, &mut recorder).await;
}

async fn refused(flow: QuicFlow, refusal: &Refusal, shared: &Shared, recorder: &mut Recorder) {
    refuse(flow, refusal, shared.context.detail, recorder).await;
}
