//! The decision about host services.

use super::permit::ServicePermit;
use crate::{Denial, Direction, Grant, MethodPrefix, Refusal, ServiceBound, ServiceName};

/// May the session open this service in this direction, within the token's bound (`None` = the live grant), for this
/// method path (`None` = a raw stream; a bound with a prefix then refuses)?
///
/// A grant holds host services only; a listener of the sandbox ([`Direction::Out`]) is none of them.
pub fn decide_service(
    grant: &Grant,
    bound: Option<&[ServiceBound]>,
    name: &ServiceName,
    direction: Direction,
    method: Option<&str>,
) -> Result<ServicePermit, Refusal> {
    let service = match (direction, grant.services.get(name)) {
        (Direction::In, Some(service)) => service,
        _ => return Err(Denial::ServiceNotAllowed.into()),
    };
    if let Some(bound) = bound {
        let mut named = bound
            .iter()
            .filter(|one| one.name == *name && one.direction == direction)
            .peekable();
        if named.peek().is_none() {
            return Err(Denial::ServiceNotAllowed.into());
        }
        if !named.any(|one| within(one.method_prefix.as_ref(), method)) {
            return Err(Denial::ServiceMethodNotAllowed.into());
        }
    }
    if !within(service.grpc_method_prefix.as_ref(), method) {
        return Err(Denial::ServiceMethodNotAllowed.into());
    }
    Ok(ServicePermit {
        name: name.clone(),
        service: service.clone(),
    })
}

fn within(prefix: Option<&MethodPrefix>, method: Option<&str>) -> bool {
    match (prefix, method) {
        (None, _) => true,
        (Some(prefix), Some(method)) => prefix.covers(method),
        (Some(_), None) => false,
    }
}
