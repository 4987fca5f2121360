//! `connect-tcp` over HTTP/1.1: `Upgrade: connect-tcp`, then capsules on the connection itself.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::{Body, Incoming};
use sluicegate_certs::Channel;
use sluicegate_policy::Denial;
use sluicegate_relay::flow::{CapsuleFlow, Flow};
use sluicegate_relay_protocol::{CONNECT_TCP, Handshake};

use super::{
    body::ResponseBody,
    connect::Accepted,
    connect_tcp::{self, Asker, Opened},
    context::{Context, Current},
    headers,
};
use crate::{
    egress::Guarded,
    listen::{Downstream, Hangup},
    telemetry::Protocol,
};

/// What an upgrade to `connect-tcp` asks for; `None` where the request is none (its fate is another's). An HTTP/1.0 client
/// cannot upgrade (RFC 9110 §7.8).
pub(super) fn asked(request: &Request<Incoming>) -> Option<Result<Handshake, Denial>> {
    let uri = request.uri();
    let origin_form = uri.scheme().is_none() && uri.authority().is_none();
    let upgrade = headers::upgrade(request.headers())?;
    let named = upgrade
        .to_str()
        .is_ok_and(|all| all.split(',').any(|one| one.trim() == CONNECT_TCP));
    if !named || !origin_form || request.version() != Version::HTTP_11 {
        return None;
    }
    if *request.method() != Method::GET || !request.body().is_end_stream() {
        return Some(Err(Denial::MalformedRequest));
    }
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    Some(connect_tcp::asked(path))
}

/// Decide and open: the 101 with what follows it, or the refusal.
pub(super) async fn open(
    context: &Context,
    handshake: &Handshake,
    request: &Request<Incoming>,
    (peer, channel): (SocketAddr, Option<&Channel>),
    hangup: Option<Hangup>,
) -> Result<(Response<ResponseBody>, Opened), Response<Bytes>> {
    let gone = async {
        match hangup {
            Some(hangup) => hangup.heard().await,
            // Nothing says so here; the dial's own deadline is the bound.
            None => std::future::pending().await,
        }
    };
    let asker = Asker::new(request.headers(), peer, channel, Protocol::Http1);
    let opened = connect_tcp::open(context, handshake, asker, gone);
    match opened.await {
        Accepted::Opened(mut opened) => {
            opened.answered(101);
            if connect_tcp::says_taken(request.headers()) {
                opened.waits_to_be_taken();
            }
            Ok((switching(), opened))
        }
        Accepted::Refused(answer) => Err(answer),
        // Nobody reads it.
        Accepted::Gone => Err(Response::new(Bytes::new())),
    }
}

/// draft-ietf-httpbis-connect-tcp §3.1.
fn switching() -> Response<ResponseBody> {
    let mut answer = Response::new(ResponseBody::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = answer.headers_mut();
    fields.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    fields.insert(header::UPGRADE, HeaderValue::from_static(CONNECT_TCP));
    connect_tcp::accepting(fields);
    answer
}

/// Carry capsules on a connection whose 101 is sent. `early`: what came behind the request before that was judged and
/// was no request, so the client did not wait (it MUST NOT send before the 101): nothing of it is carried.
pub(super) async fn carry(
    mut downstream: Guarded<Downstream>,
    first: Vec<u8>,
    early: Option<Denial>,
    mut opened: Opened,
    peer: SocketAddr,
    current: Arc<Current>,
) {
    if early.is_some() {
        return opened.abandon(early.map(Into::into));
    }
    match downstream.take().and_then(Downstream::into_flow) {
        Some(flow) => {
            let mut capsules = CapsuleFlow::upgraded(flow, first.into());
            if opened.taken(capsules.heard()).await {
                opened.carry(capsules, peer, current).await;
            } else {
                // The dial is somebody else's now.
                capsules.reset();
            }
        }
        None => opened.abandon(None),
    }
}
