//! Which host service a call is for: told by the gRPC service in its path, among what the session has. Pure.
//!
//! Choosing never permits: what is chosen is decided like any other service.

use sluicegate_policy::{Direction, Grant, ServiceBound, ServiceName, decide_service};

/// The host service for `path`, in this order: the one whose method prefix covers it; the one whose token bound does; the
/// one named like the gRPC service's last component (`/gestalt.provider.v1.Cache/Get` is `cache`); the only one there is.
/// With a binding, only services of that binding come into question.
pub(super) fn service(
    grant: &Grant,
    bound: Option<&[ServiceBound]>,
    path: &str,
    binding: Option<&str>,
) -> Option<ServiceName> {
    let in_bound = |name: &ServiceName| {
        bound.is_none_or(|bound| {
            bound
                .iter()
                .any(|one| one.name == *name && one.direction == Direction::In)
        })
    };
    let has_binding =
        |name: &ServiceName| binding.is_none_or(|binding| name.binding() == Some(binding));
    let names: Vec<_> = grant
        .services()
        .map(|(name, _)| name)
        .filter(|n| in_bound(n) && has_binding(n))
        .collect();
    let one = |wanted: &dyn Fn(&ServiceName) -> bool| {
        let mut found = names.iter().copied().filter(|name| wanted(name));
        // Two that fit are no choice.
        found.next().filter(|_| found.next().is_none())
    };
    let covered_by_service = |name: &ServiceName| {
        let permit = decide_service(grant, bound, name, Direction::In, Some(path));
        permit.is_ok_and(|permit| permit.service().grpc_method_prefix.is_some())
    };
    let covered_by_bound = |name: &ServiceName| {
        let covers = |one: &ServiceBound| {
            one.method_prefix
                .as_ref()
                .is_some_and(|prefix| prefix.covers(path))
        };
        bound.is_some_and(|bound| bound.iter().any(|one| one.name == *name && covers(one)))
    };
    let wanted = last_component(path);
    let named = |name: &ServiceName| Some(name.base()) == wanted.as_deref();
    let named_without_binding = |name: &ServiceName| named(name) && name.binding().is_none();
    one(&covered_by_service)
        .or_else(|| one(&covered_by_bound))
        .or_else(|| one(&named_without_binding))
        .or_else(|| one(&named))
        .or_else(|| one(&|_| true))
        .cloned()
}

/// `/pkg.v1.Cache/Get` to `cache`.
fn last_component(path: &str) -> Option<String> {
    let (service, _method) = path.strip_prefix('/')?.split_once('/')?;
    service.rsplit('.').next().map(str::to_ascii_lowercase)
}

#[cfg(test)]
mod tests;
