//! Requests for other hosts: what absolute-form is in HTTP/1.1. A client of an `https://` proxy that chose h2 or h3 sends
//! its plain requests so.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, header, uri::Scheme};
use http_body::Body;
use sluicegate_policy::{Denial, Refusal};

use super::{Answer, Exchange};
use crate::{
    front::{
        Context,
        client_body::ClientBody,
        context::is_somebodys,
        exchange::{self, Answered},
        forward::Scope,
        headers,
    },
    message::Asks,
    outcome::{Outcome, Party},
    telemetry::{Front, Kind},
};

/// Is this for another host? Under TLS a request of ours has the scheme `https`, and `http` is somebody else's. Without
/// TLS both look alike, and the proxy's credential tells.
pub(super) fn is_foreign<B>(request: &Request<B>, secure: bool) -> bool {
    request.uri().scheme() == Some(&Scheme::HTTP)
        && (secure || request.headers().contains_key(header::PROXY_AUTHORIZATION))
}

/// Decide, send, and stream the answer back.
pub(super) async fn serve<A: Answer>(exchange: Exchange<A>, context: Arc<Context>) {
    let Exchange {
        request,
        mut respond,
        downstream,
        standing,
        ..
    } = exchange;
    let html = headers::wants_html(request.headers());
    let mut recorder = context
        .telemetry
        .begin(Kind::request, Front::forward, downstream);
    recorder.protocol(A::PROTOCOL);
    let mut target = None;
    let answered = tokio::select! {
        answered = exchange::run(
            &context,
            &Scope::Proxy,
            (downstream, Some(standing.as_ref())),
            as_http1(request.map(Into::into)),
            &mut target,
            &mut recorder,
        ) => answered,
        () = respond.gone() => {
            return recorder.ended(Outcome::Reset, Party::Downstream);
        }
    };
    if answered.is_ok() {
        standing.trust();
    }
    let refusal = match answered {
        Ok(Answered::Streaming(pending)) => {
            return respond.stream(pending.into_response(recorder)).await;
        }
        Ok(Answered::Own(answer)) => return respond.stream(answer).await,
        // Nothing asked for an upgrade: there is none (RFC 9113 §8.6, RFC 9114 §4.5).
        Ok(Answered::Upgraded(_)) => Refusal::from(Denial::UpstreamProtocol),
        Err(refusal) => refusal,
    };
    let answer = context.reject(Asks::Proxy, &refusal, target.as_ref(), &mut recorder, html);
    if is_somebodys(&answer) {
        standing.trust();
    }
    respond.whole(answer).await;
}

/// The request as HTTP/1.1 has it (RFC 9113 §8.2.3, §8.3.1; RFC 9114 §4.2.1, §4.3.1): Host, one Cookie, and a length or a coding.
fn as_http1(request: Request<ClientBody>) -> Request<ClientBody> {
    let (mut head, body) = request.into_parts();
    let fields = &mut head.headers;
    if let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        fields.insert(header::HOST, host);
    }
    join_cookies(fields);
    if !body.is_end_stream() && !fields.contains_key(header::CONTENT_LENGTH) {
        let chunked = HeaderValue::from_static("chunked");
        fields.insert(header::TRANSFER_ENCODING, chunked);
    }
    Request::from_parts(head, body)
}

/// HTTP/2 and HTTP/3 may split Cookie into crumbs; HTTP/1.1 has one field.
fn join_cookies(fields: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = fields
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if crumbs.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        fields.insert(header::COOKIE, joined);
    }
}
