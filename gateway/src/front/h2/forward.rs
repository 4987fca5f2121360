//! Requests for other hosts over HTTP/2: what absolute-form is in HTTP/1.1. A client of an `https://` proxy that chose h2
//! sends its plain requests so.

use std::{future::poll_fn, io, pin::Pin, sync::Arc};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Request, Response, header, uri::Scheme};
use http_body::{Body, Frame};
use sluicegate_policy::{Denial, Refusal};
use sluicegate_relay::flow::Chunk;

use super::{Exchange, answer::whole};
use crate::{
    front::{
        Context,
        body::ResponseBody,
        client_body::ClientBody,
        exchange::{self, Answered},
        forward::Scope,
        headers,
    },
    outcome::{Outcome, Party},
    telemetry::{Front, Kind},
};

/// Is this for another host? Under TLS a request of ours has the scheme `https`, and `http` is somebody else's. Without
/// TLS both look alike, and the proxy's credential tells.
pub(super) fn is_foreign(request: &Request<RecvStream>, secure: bool) -> bool {
    request.uri().scheme() == Some(&Scheme::HTTP)
        && (secure || request.headers().contains_key(header::PROXY_AUTHORIZATION))
}

/// Decide, send, and stream the answer back.
pub(super) async fn serve(exchange: Exchange, context: Arc<Context>) {
    let Exchange {
        request,
        mut respond,
        downstream,
        ..
    } = exchange;
    let html = headers::wants_html(request.headers());
    let mut recorder = context
        .telemetry
        .begin(Kind::request, Front::forward, downstream);
    let mut target = None;
    let answered = tokio::select! {
        answered = exchange::run(
            &context,
            &Scope::Proxy,
            downstream,
            as_http1(request),
            &mut target,
            &mut recorder,
        ) => answered,
        _ = poll_fn(|cx| respond.poll_reset(cx)) => {
            return recorder.ended(Outcome::Reset, Party::Downstream);
        }
    };
    let refusal = match answered {
        Ok(Answered::Streaming(pending)) => {
            return stream(respond, pending.into_response(recorder)).await;
        }
        Ok(Answered::Own(answer)) => return stream(respond, answer).await,
        // Nothing asked for an upgrade: there is none in HTTP/2 (RFC 9113 §8.6).
        Ok(Answered::Upgraded(_)) => Refusal::from(Denial::UpstreamProtocol),
        Err(refusal) => refusal,
    };
    let answer = context.reject(&refusal, target.as_ref(), &mut recorder, html);
    whole(respond, answer);
}

/// The request as HTTP/1.1 has it (RFC 9113 §8.2.3, §8.3.1): Host, one Cookie, and a length or a coding.
fn as_http1(request: Request<RecvStream>) -> Request<ClientBody> {
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
    Request::from_parts(head, ClientBody::Http2(body))
}

/// HTTP/2 may split Cookie into crumbs; HTTP/1.1 has one field.
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

/// The answer, as the client takes it. What ends before its end is reset.
async fn stream(mut respond: SendResponse<Chunk>, answer: Response<ResponseBody>) {
    let (head, mut body) = answer.into_parts();
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    let end = body.is_end_stream();
    let Ok(mut send) = respond.send_response(response, end) else {
        return;
    };
    if end {
        return;
    }
    loop {
        let frame = tokio::select! {
            frame = next(&mut body) => frame,
            _ = poll_fn(|cx| send.poll_reset(cx)) => return,
        };
        let sent = match frame {
            None => {
                // Refused only where the client is gone.
                let _ = send.send_data(Chunk::default(), true);
                return;
            }
            // Cut: no client may take what came for all there is.
            Some(Err(_)) => return send.send_reset(Reason::INTERNAL_ERROR),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => send_all(&mut send, data).await,
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => {
                        let _ = send.send_trailers(trailers);
                        return;
                    }
                    Err(_) => true,
                },
            },
        };
        if !sent {
            return;
        }
    }
}

async fn next(body: &mut ResponseBody) -> Option<io::Result<Frame<Bytes>>> {
    poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

/// Send as the window allows. `false`: the client is gone.
async fn send_all(send: &mut SendStream<Chunk>, mut data: Bytes) -> bool {
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        if send.capacity() == 0 {
            match poll_fn(|cx| send.poll_capacity(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return false,
            }
        }
        let part = data.split_to(data.len().min(send.capacity()));
        if !part.is_empty() && send.send_data(part.into(), false).is_err() {
            return false;
        }
    }
    true
}
