//! Whole answers on HTTP/2 streams, and the few resources of our own.

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderValue, Method, Request, Response, header};
use sluicegate_relay::flow::Chunk;

use super::Context;
/// 204.
pub(super) fn nothing() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = http::StatusCode::NO_CONTENT;
    response
}

/// `/healthz` and the published keys: all there is for anyone who asks.
pub(super) fn own(request: &Request<RecvStream>, context: &Context) -> Option<Response<Bytes>> {
    if request.method() != Method::GET {
        return None;
    }
    let (content_type, body) = match request.uri().path() {
        "/healthz" => ("text/plain; charset=utf-8", Bytes::from_static(b"ok\n")),
        "/.well-known/jwks.json" => (
            "application/json",
            context.relay.authenticator.jwks().into(),
        ),
        _ => return None,
    };
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Some(response)
}

/// Send a whole answer. A client that is gone has no use for it.
pub(super) fn whole(mut respond: SendResponse<Chunk>, response: Response<Bytes>) {
    let (head, body) = response.into_parts();
    if let Ok(mut send) = respond.send_response(Response::from_parts(head, ()), body.is_empty())
        && !body.is_empty()
    {
        let _ = send.send_data(body.into(), true);
    }
}
