//! The gRPC relay: calls with a relay token, carried to a host service over HTTP/2, frame by frame.
//!
//! Nothing of gRPC is interpreted but the path and the refusals: messages, metadata, deadlines and trailers pass as they
//! are, resets with their codes. The token does not.

mod choose;
mod exchange;
mod status;

use std::{future::poll_fn, time::SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version, header};
use sluicegate_policy::Denial;

use self::{
    exchange::{End, carry},
    status::Status,
};
use super::h2::{Context, Exchange};
use crate::{
    auth::{Audience, Identity},
    outcome::{Outcome, Party},
    relay::{Ticket, Upstream},
    secret::Secret,
    sniff::is_twin,
    telemetry::{Front, Kind, Protocol, Recorder},
};

/// Carries the relay token.
const TOKEN: HeaderName = HeaderName::from_static("x-gestalt-host-service-relay-token");
/// Picks one of a service's bindings.
const BINDING: HeaderName = HeaderName::from_static("x-gestalt-host-binding");

/// Serve one call.
pub(super) async fn serve(exchange: Exchange, context: &Context) {
    let mut recorder = context
        .telemetry
        .begin(Kind::stream, Front::grpc, exchange.downstream);
    recorder.protocol(Protocol::Http2);
    recorder.http("POST", exchange.request.uri().path());
    let Exchange {
        request,
        mut respond,
        downstream,
        refusing,
        standing,
        ..
    } = exchange;
    let (head, body) = request.into_parts();
    let admitted = if refusing {
        Err(Status::from(Denial::Draining))
    } else {
        admit(&head, downstream.ip(), context, &mut recorder)
    };
    let (ticket, token) = match admitted {
        Ok(admitted) => admitted,
        Err(status) => return status.refuse(&mut respond, &mut recorder),
    };
    standing.trust();
    let speaker = recorder.speaker();
    let upstream = tokio::select! {
        upstream = context.pool.take(&ticket, &speaker) => upstream,
        denial = ticket.revoked() => return Status::from(denial).refuse(&mut respond, &mut recorder),
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return recorder.ended(Outcome::Reset, Party::Downstream),
    };
    let upstream = match upstream {
        Ok(upstream) => upstream,
        Err(failure) => {
            recorder.detail(&failure.detail);
            return Status::from(failure.denial).refuse(&mut respond, &mut recorder);
        }
    };
    let Some(request) = forwarded(head, &upstream, &token) else {
        return Status::from(Denial::MalformedRequest).refuse(&mut respond, &mut recorder);
    };
    recorder.opened();
    let meter = ticket.meter(recorder.counters());
    let end = carry(request, body, respond, upstream, &ticket, &meter).await;
    record(end, &mut recorder);
}

fn record(end: End, recorder: &mut Recorder) {
    recorder.status(200);
    match end {
        End::Completed(code) => {
            recorder.ended(Outcome::Completed, Party::Upstream);
            if let Some(code) = code {
                recorder.grpc_status(code);
            }
        }
        End::Reset(by) => recorder.ended(Outcome::Reset, by),
        End::Cut(denial) => {
            recorder.cut(denial);
            recorder.grpc_status(Status::from(denial).code());
        }
        End::Failed(detail) => {
            recorder.grpc_status(Status::from(Denial::ServiceUnavailable).code());
            recorder.detail(detail);
            recorder.refused(&Denial::ServiceUnavailable.into());
        }
    }
}

fn admit(
    head: &http::request::Parts,
    source: std::net::IpAddr,
    context: &Context,
    recorder: &mut Recorder,
) -> Result<(Ticket, Secret), Status> {
    let token = token(&head.headers)?;
    let identity = identify(&token, source, context)?;
    // The path as sent, query and all: a prefix covers no path with a query.
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    let binding = head
        .headers
        .get(BINDING)
        .map(|binding| binding.to_str().unwrap_or_default());
    let bound = identity.bound.clone();
    let ticket = Ticket::issue(identity, recorder, |grant| {
        let name = choose::service(grant, bound.as_deref(), path, binding);
        let name = name.ok_or(Denial::ServiceNotAllowed)?;
        Ok((name, Some(path.to_owned())))
    });
    Ok((ticket.map_err(Status::from)?, token))
}

/// Exactly one token: two would let two readers disagree about whose call it is.
fn token(headers: &HeaderMap) -> Result<Secret, Status> {
    let mut values = headers.get_all(TOKEN).iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (Some(Ok(token)), None) if !token.is_empty() => Ok(Secret::new(token)),
        (None, _) => Err(Denial::CredentialMissing.into()),
        _ => Err(Denial::CredentialInvalid.into()),
    }
}

fn identify(
    token: &Secret,
    source: std::net::IpAddr,
    context: &Context,
) -> Result<Identity, Status> {
    let authenticator = &context.relay.authenticator;
    let now = SystemTime::now();
    authenticator
        .identify(token, Audience::Relay, source, now)
        .map_err(|denial| {
            let dead =
                denial == Denial::CredentialInvalid && authenticator.dead_generation(token, now);
            if dead {
                Denial::SessionRevoked.into()
            } else {
                denial.into()
            }
        })
}

/// The request as the service sees it: our own scheme and authority, no hop-by-hop field, no credential of ours.
fn forwarded(
    head: http::request::Parts,
    upstream: &Upstream,
    token: &Secret,
) -> Option<Request<()>> {
    let path = head.uri.path_and_query()?.clone();
    let uri = Uri::builder()
        .scheme(upstream.scheme)
        .authority(upstream.authority.as_str())
        .path_and_query(path);
    let mut request = Request::new(());
    *request.method_mut() = head.method;
    *request.uri_mut() = uri.build().ok()?;
    *request.version_mut() = Version::HTTP_2;
    let secret = token.reveal().as_bytes();
    let names_token = |value: &HeaderValue| {
        value
            .as_bytes()
            .windows(secret.len())
            .any(|part| part == secret)
    };
    let mut previous = None;
    for (name, value) in head.headers {
        previous = name.or(previous);
        if let Some(name) = &previous
            && passes(name, &value)
            && !names_token(&value)
        {
            request.headers_mut().append(name.clone(), value);
        }
    }
    Some(request)
}

/// RFC 9113 §8.2.2: connection-specific fields end here; `te: trailers` alone passes, and gRPC asks for it.
fn passes(name: &HeaderName, value: &HeaderValue) -> bool {
    // A service that reads `_` as `-` would take a twin for the gateway's word.
    let twin = is_twin(name.as_str().as_bytes());
    let ours = *name == TOKEN || *name == BINDING || name.as_str().starts_with("proxy-") || twin;
    let hop = [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::HOST,
    ]
    .contains(name)
        || matches!(
            name.as_str(),
            "keep-alive" | "forwarded" | "x-forwarded-host"
        );
    let te = *name == header::TE && value != "trailers";
    !(ours || hop || te)
}

#[cfg(test)]
mod tests;
