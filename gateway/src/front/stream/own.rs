//! The few resources of our own.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use sluicegate_relay_protocol::{INSTANCE, Instance};

use crate::front::h2::Context;

/// 204: streams would be opened, by this process.
pub(super) fn proved(by: Instance) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = http::StatusCode::NO_CONTENT;
    if let Ok(by) = HeaderValue::try_from(by.to_string()) {
        response.headers_mut().insert(INSTANCE, by);
    }
    response
}

/// `/healthz` and the published keys: all there is for anyone who asks.
pub(super) fn resource<B>(request: &Request<B>, context: &Context) -> Option<Response<Bytes>> {
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
