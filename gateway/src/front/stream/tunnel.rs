//! Streams that become tunnels: classic CONNECT and `connect-tcp`.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Response, header, request::Parts};
use sluicegate_relay_protocol::Handshake;

use super::{Answer, Exchange};
use crate::{
    egress::Guarded,
    front::{
        Context, Current,
        connect::{self, Accepted, Ask, Wanted},
        connect_tcp::{self as mapping, Asker},
        context::is_somebodys,
        headers,
    },
    listen::{Carrying, Downstream},
    outcome::{Outcome, Party},
    telemetry::Front,
};

/// CONNECT (RFC 9113 §8.5, RFC 9114 §4.4): `:authority` is the target, DATA is the tunnel, the stream's end is FIN and its
/// reset RST.
pub(super) async fn classic<A: Answer>(
    exchange: Exchange<A>,
    context: Arc<Context>,
    current: Arc<Current>,
) -> Option<Carrying> {
    let Exchange {
        request,
        mut respond,
        downstream,
        standing,
        ..
    } = exchange;
    let (head, body) = request.into_parts();
    // RFC 9110 §7.2, §9.3.6: one Host at most, and no content.
    let malformed = head.headers.get_all(header::HOST).iter().count() > 1
        || head
            .headers
            .get_all(header::CONTENT_LENGTH)
            .iter()
            .any(|length| length != "0");
    let authority = head.uri.authority().map(|a| a.as_str()).unwrap_or_default();
    let ask = Ask {
        front: Front::connect,
        wanted: Wanted::Authority {
            authority: if malformed { b"" } else { authority.as_bytes() },
            host: head.headers.get(header::HOST).map(HeaderValue::as_bytes),
        },
        credentials: head
            .headers
            .get_all(header::PROXY_AUTHORIZATION)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect(),
        channel: None,
        html: headers::wants_html(&head.headers),
        protocol: Some(A::PROTOCOL),
        carrier: Some(standing.as_ref()),
    };
    let gone = respond.gone();
    let mut opened = match connect::accept(&context, downstream, ask, gone).await {
        Accepted::Opened(opened) => opened,
        Accepted::Refused(answer) => {
            if is_somebodys(&answer) {
                standing.trust();
            }
            respond.whole(answer).await;
            return None;
        }
        Accepted::Gone => return None,
    };
    standing.trust();
    // A client may take its time to make room for the answer.
    let answered = tokio::select! {
        biased;
        tunnel = respond.tunnel(Response::new(()), body) => tunnel.map_err(|_| None),
        lost = opened.revoked() => Err(Some(lost)),
    };
    let tunnel = match answered {
        Ok(tunnel) => tunnel,
        Err(Some(lost)) => {
            lost.cut(opened.recorder());
            return None;
        }
        Err(None) => {
            opened.recorder().ended(Outcome::Reset, Party::Downstream);
            return None;
        }
    };
    let stream = Guarded::new(Downstream::stream(tunnel));
    let carrying = connect::carry(stream, Vec::new(), opened, downstream, current);
    Some(Box::pin(carrying))
}

/// `connect-tcp`: an extended CONNECT that carries capsules. What the client sends before the answer waits in the stream's
/// window; it reaches nobody where the answer is a refusal.
pub(super) async fn connect_tcp<A: Answer>(
    exchange: Exchange<A>,
    handshake: &Handshake,
    context: Arc<Context>,
    current: Arc<Current>,
) -> Option<Carrying> {
    let Exchange {
        request,
        mut respond,
        downstream,
        channel,
        standing,
        ..
    } = exchange;
    let (head, body) = request.into_parts();
    if expects_continue(&head) {
        respond.carry_on().await;
    }
    let gone = respond.gone();
    let asker =
        Asker::new(&head.headers, downstream, channel.as_ref(), A::PROTOCOL).carried_by(&standing);
    let mut opened = match mapping::open(&context, handshake, asker, gone).await {
        Accepted::Opened(opened) => opened,
        Accepted::Refused(answer) => {
            if is_somebodys(&answer) {
                standing.trust();
            }
            respond.whole(answer).await;
            return None;
        }
        Accepted::Gone => return None,
    };
    standing.trust();
    opened.answered(200);
    if mapping::says_taken(&head.headers) {
        opened.waits_to_be_taken();
    }
    let mut answer = Response::new(());
    mapping::accepting(answer.headers_mut());
    let answered = tokio::select! {
        biased;
        capsules = respond.capsules(answer, body) => capsules.map_err(|_| None),
        lost = opened.revoked() => Err(Some(lost)),
    };
    match answered {
        Ok(mut capsules) => {
            // Dropped, it is reset: the dial is somebody else's now.
            let taken = opened.taken(mapping::or_reset(capsules.heard())).await;
            taken.then(|| opened.carry(capsules, downstream, current))
        }
        Err(lost) => {
            opened.abandon(lost);
            None
        }
    }
}

/// RFC 9110 §10.1.1: whoever expects it waits for it.
fn expects_continue(head: &Parts) -> bool {
    let fields: &HeaderMap = &head.headers;
    fields
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
