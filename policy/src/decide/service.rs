//! The decisions about relay streams: host services, and listeners of the sandbox.

use super::{
    judge::narrowed,
    permit::{CallsPermit, ListenerPermit, ServicePermit, StreamPermit},
};
use crate::{Denial, Direction, Grant, Hint, MethodPrefix, Refusal, ServiceBound, ServiceName};

/// May the session open this service in this direction, within the token's bound (`None` = the live grant), for this
/// method path (`None` = bytes whatever they are; a prefix then refuses)?
///
/// A listener of the sandbox ([`Direction::Out`]) is none of them: [`decide_listener`] judges those.
pub fn decide_service(
    grant: &Grant,
    bound: Option<&[ServiceBound]>,
    name: &ServiceName,
    direction: Direction,
    method: Option<&str>,
) -> Result<ServicePermit, Refusal> {
    let service = match (direction, grant.services.get(name)) {
        (Direction::In, Some(service)) => service,
        _ => {
            let hint = Hint::session("name it in the session's services");
            return Err(refused(Denial::ServiceNotAllowed, hint));
        }
    };
    hold_bound(bound, name, direction, method, Denial::ServiceNotAllowed)?;
    // What its `http` bounds is judged on streams of HTTP/1, request by request; a gRPC call would pass by it.
    let by_grpc = service.http.is_some() && method.is_some();
    if by_grpc || !within(service.grpc_method_prefix.as_ref(), method) {
        let hint = if by_grpc {
            Hint::client("the service is bounded by http: open it as a stream of HTTP/1")
        } else {
            // It may stand in the configuration or in the grant.
            Hint::Fixed {
                told: "widen the service's grpc prefix, and call a method within it",
                whose: None,
            }
        };
        return Err(refused(Denial::ServiceMethodNotAllowed, hint));
    }
    Ok(ServicePermit {
        name: name.clone(),
        service: service.clone(),
    })
}

/// May the session open a stream to this service, within the token's bound (`None` = the live grant), and what may pass on it?
/// Where only some methods are allowed, the stream itself says which: it carries gRPC calls, each of which is decided by
/// itself ([`decide_service`], with its method).
///
/// # Errors
/// `ServiceNotAllowed`; `ServiceMethodNotAllowed` where the bound has a method prefix and the service `http`: no stream then
/// carries what both allow.
pub fn decide_stream(
    grant: &Grant,
    bound: Option<&[ServiceBound]>,
    name: &ServiceName,
) -> Result<StreamPermit, Refusal> {
    let refusal = match decide_service(grant, bound, name, Direction::In, None) {
        Ok(permit) => return Ok(StreamPermit::Bytes(Box::new(permit))),
        Err(refusal) => refusal,
    };
    match grant.services.get(name) {
        Some(service)
            if refusal.denial == Denial::ServiceMethodNotAllowed && service.http.is_none() =>
        {
            Ok(StreamPermit::Calls(CallsPermit {
                name: name.clone(),
                idle_timeout: service.idle_timeout,
            }))
        }
        _ => Err(refusal),
    }
}

/// May the sandbox expose this listener, within the token's bound? `None` is the host's own question, on the live grant.
///
/// # Errors
/// `ListenerNotAllowed`; `ServiceMethodNotAllowed` where the bound has a method prefix, which no raw stream is within.
pub fn decide_listener(
    grant: &Grant,
    bound: Option<&[ServiceBound]>,
    name: &ServiceName,
) -> Result<ListenerPermit, Refusal> {
    let listener = grant.expose.get(name).ok_or_else(|| {
        let hint = Hint::session("name it in the session's expose");
        refused(Denial::ListenerNotAllowed, hint)
    })?;
    hold_bound(
        bound,
        name,
        Direction::Out,
        None,
        Denial::ListenerNotAllowed,
    )?;
    Ok(ListenerPermit {
        name: name.clone(),
        listener: listener.clone(),
    })
}

/// The token's own bound: some entry of this name and direction, and one of them with the method.
fn hold_bound(
    bound: Option<&[ServiceBound]>,
    name: &ServiceName,
    direction: Direction,
    method: Option<&str>,
    unnamed: Denial,
) -> Result<(), Refusal> {
    let Some(bound) = bound else { return Ok(()) };
    let mut named = bound
        .iter()
        .filter(|one| one.name == *name && one.direction == direction)
        .peekable();
    if named.peek().is_none() {
        return Err(narrowed(unnamed.into()));
    }
    if named.any(|one| within(one.method_prefix.as_ref(), method)) {
        Ok(())
    } else {
        Err(narrowed(Denial::ServiceMethodNotAllowed.into()))
    }
}

fn refused(denial: Denial, hint: Hint) -> Refusal {
    Refusal {
        denial,
        rule: None,
        hint: Some(hint),
    }
}

fn within(prefix: Option<&MethodPrefix>, method: Option<&str>) -> bool {
    match (prefix, method) {
        (None, _) => true,
        (Some(prefix), Some(method)) => prefix.covers(method),
        (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests;
