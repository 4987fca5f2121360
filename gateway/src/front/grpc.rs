//! gRPC calls on a listener, with a relay token each: who asks, and for which host service. What becomes of them is
//! `relay::grpc`'s.

mod choose;

use std::time::SystemTime;

use http::{HeaderMap, HeaderValue};
use sluicegate_policy::Denial;

use super::{
    h2::{Context, Exchange},
    standing::Standing,
};
use crate::{
    auth::{Audience, Identity},
    relay::{
        Ticket,
        grpc::{BINDING, Call, Status, TOKEN},
    },
    secret::Secret,
    telemetry::{Front, Kind, Recorder},
};

/// Serve one call.
pub(super) async fn serve(exchange: Exchange, context: &Context) {
    let mut recorder = context
        .telemetry
        .begin(Kind::stream, Front::grpc, exchange.downstream);
    let Exchange {
        request,
        respond,
        downstream,
        refusing,
        standing,
        ..
    } = exchange;
    let call = Call::new(request, respond);
    call.told(&mut recorder);
    let admitted = if refusing {
        Err(Status::from(Denial::Draining))
    } else {
        admit(&call, downstream.ip(), context, &standing, &mut recorder)
    };
    if admitted.is_ok() {
        standing.trust();
    }
    let pool = &context.relay.pool;
    call.serve(admitted, pool, &mut recorder).await;
}

fn admit(
    call: &Call,
    source: std::net::IpAddr,
    context: &Context,
    standing: &Standing,
    recorder: &mut Recorder,
) -> Result<Ticket, Status> {
    let token = token(call.headers())?;
    let identity = identify(&token, source, context)?;
    let path = call.path();
    let binding = call
        .headers()
        .get(BINDING)
        .map(|binding| binding.to_str().unwrap_or_default());
    let bound = identity.bound.clone();
    let ticket = Ticket::issue(identity, recorder, |grant| {
        let name = choose::service(grant, bound.as_deref(), path, binding);
        let name = name.ok_or(Denial::ServiceNotAllowed)?;
        Ok((name, Some(path.to_owned())))
    });
    let ticket = ticket?;
    let (budget, right) = (ticket.identity.session.budget(), ticket.identity.right());
    standing.carry_asked(budget, right, &context.limits)?;
    Ok(ticket)
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

#[cfg(test)]
mod tests;
