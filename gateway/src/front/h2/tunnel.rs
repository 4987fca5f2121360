//! Streams that become tunnels: classic CONNECT and `connect-tcp`.

use std::{future::poll_fn, sync::Arc};

use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts};
use sluicegate_relay::flow::{CapsuleFlow, StreamFlow};
use sluicegate_relay_protocol::Handshake;

use super::{Exchange, answer::whole};
use crate::{
    egress::Guarded,
    front::{
        Context,
        connect::{self, Accepted, Ask, Wanted},
        connect_tcp as mapping, headers,
    },
    listen::Downstream,
    outcome::{Outcome, Party},
};

/// CONNECT (RFC 9113 §8.5): `:authority` is the target, DATA is the tunnel, END_STREAM is FIN and RST_STREAM is RST.
pub(super) async fn classic(exchange: Exchange, context: Arc<Context>) {
    let Exchange {
        request,
        mut respond,
        downstream,
        ..
    } = exchange;
    let (head, body) = request.into_parts();
    let authority = head.uri.authority().map(|a| a.as_str()).unwrap_or_default();
    let ask = Ask {
        wanted: Wanted::Authority {
            authority: authority.as_bytes(),
            host: head.headers.get(header::HOST).map(HeaderValue::as_bytes),
        },
        credentials: head
            .headers
            .get_all(header::PROXY_AUTHORIZATION)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect(),
        html: headers::wants_html(&head.headers),
    };
    let gone = poll_fn(|cx| respond.poll_reset(cx));
    let mut opened = match connect::accept(&context, downstream, ask, gone).await {
        Accepted::Opened(opened) => opened,
        Accepted::Refused(answer) => return whole(respond, answer),
        Accepted::Gone => return,
    };
    let Ok(send) = respond.send_response(Response::new(()), false) else {
        return opened.recorder().ended(Outcome::Reset, Party::Downstream);
    };
    let stream = Guarded::new(Downstream::stream(StreamFlow::new(send, body)));
    connect::carry(stream, Vec::new(), opened, downstream, context).await;
}

/// `connect-tcp`: an extended CONNECT that carries capsules. What the client sends before the answer waits in the stream's
/// window; it reaches nobody where the answer is a refusal.
pub(super) async fn connect_tcp(exchange: Exchange, handshake: &Handshake, context: Arc<Context>) {
    let Exchange {
        request,
        mut respond,
        downstream,
        ..
    } = exchange;
    let (head, body) = request.into_parts();
    if expects_continue(&head) {
        let mut interim = Response::new(());
        *interim.status_mut() = StatusCode::CONTINUE;
        // A client that is gone is noticed below.
        let _ = respond.send_informational(interim);
    }
    let gone = poll_fn(|cx| respond.poll_reset(cx));
    let opened = mapping::open(&context, handshake, &head.headers, downstream, gone).await;
    let mut opened = match opened {
        Accepted::Opened(opened) => opened,
        Accepted::Refused(answer) => return whole(respond, answer),
        Accepted::Gone => return,
    };
    opened.answered(200);
    let mut answer = Response::new(());
    mapping::accepting(answer.headers_mut());
    match respond.send_response(answer, false) {
        Ok(send) => {
            let capsules = CapsuleFlow::new(send, body);
            opened.carry(capsules, downstream, context).await;
        }
        Err(_) => opened.abandon(None),
    }
}

/// RFC 9110 §10.1.1: whoever expects it waits for it.
fn expects_continue(head: &Parts) -> bool {
    let fields: &HeaderMap = &head.headers;
    fields
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
