//! What a credential may do with a request: the scope its route needs, the namespaces it sees, whose sessions are its own.

use std::collections::HashMap;

use axum::extract::{Query, Request};
use http::{Method, StatusCode, Uri, uri::PathAndQuery};

use super::{Problem, State};
use crate::{
    auth::{Principal, Scope},
    session::SessionKey,
};

const API: &str = "/admin/api/v1/";
/// Says nothing that is anybody's.
const DOCUMENT: &str = "/admin/openapi.json";

/// What a namespace has of a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Share {
    /// What is its own.
    Part,
    /// Nothing: it is of the gateway as a whole, and says so.
    Nothing,
}

/// The same route scoped, and what its namespace has of it.
pub(super) fn scoped(path: &str) -> Option<(String, Share)> {
    let rest = path.strip_prefix(API)?;
    let share = match (is_partial(rest), is_whole(rest)) {
        (true, _) => Share::Part,
        (false, true) => Share::Nothing,
        (false, false) => return None,
    };
    Some((format!("{API}namespaces/{{namespace}}/{rest}"), share))
}

/// `/admin/api/v1/namespaces/{ns}/REST` is `/admin/api/v1/REST?namespace={ns}`: every route is there scoped, and one of which a
/// namespace has no part says so. Two namespaces that differ are `None`, and so is what is no route.
pub(super) fn unscoped(uri: &Uri) -> Option<Uri> {
    let Some(rest) = uri
        .path()
        .strip_prefix(API)
        .and_then(|rest| rest.strip_prefix("namespaces/"))
    else {
        return Some(uri.clone());
    };
    let (namespace, rest) = rest.split_once('/')?;
    if !crate::session::is_session_id(namespace) || !(is_partial(rest) || is_whole(rest)) {
        return None;
    }
    match parameter(uri, "namespace") {
        Some(other) if other != namespace => None,
        Some(_) => with_query(
            uri,
            &format!("{API}{rest}"),
            uri.query().unwrap_or_default(),
        ),
        None => {
            let own = format!("namespace={namespace}");
            let query = match uri.query() {
                Some(query) if !query.is_empty() => format!("{query}&{own}"),
                Some(_) | None => own,
            };
            with_query(uri, &format!("{API}{rest}"), &query)
        }
    }
}

fn with_query(uri: &Uri, path: &str, query: &str) -> Option<Uri> {
    let text = if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(text.parse::<PathAndQuery>().ok()?);
    Uri::from_parts(parts).ok()
}

/// The parameter as the routes will read it: decoded, and the last where it stands twice.
fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let query = Query::<HashMap<String, String>>::try_from_uri(uri).ok()?;
    query.0.get(name).cloned()
}

/// Is this request within what the principal may? A bounded one is given its namespace where it names none.
pub(super) fn admit(
    state: &State,
    principal: &Principal,
    request: &mut Request,
) -> Result<(), Problem> {
    let rest = request.uri().path().strip_prefix(API);
    let rest = rest.unwrap_or_default().to_owned();
    let needed = needed(request.method(), &rest);
    if principal.scope < needed {
        let detail = format!(
            "this needs scope {}, the credential {:?} has {}",
            needed.as_str(),
            principal.name,
            principal.scope.as_str()
        );
        return Err(Problem::new(StatusCode::FORBIDDEN, "scope", detail)
            .with("needed", needed.as_str())
            .with("scope", principal.scope.as_str()));
    }
    if is_whole(&rest) && parameter(request.uri(), "namespace").is_some() {
        let detail = format!(
            "{rest:?} is of the gateway as a whole, and no namespace has a part of it: ask without a namespace"
        );
        return Err(Problem::new(StatusCode::FORBIDDEN, "whole-gateway", detail));
    }
    if !principal.is_bounded() || request.uri().path() == DOCUMENT {
        return Ok(());
    }
    if !is_partial(&rest) {
        let detail = format!(
            "{rest:?} is of the gateway as a whole: the credential {:?} is bounded to a part of it, and has no say in it whatever its scope",
            principal.name
        );
        return Err(Problem::new(StatusCode::FORBIDDEN, "bounded", detail));
    }
    let path = request.uri().path().to_owned();
    if path.contains('%') {
        // No name of ours needs an escape, and what is judged here must be what the route reads.
        let detail = "names in paths are written without escapes";
        return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", detail));
    }
    let namespace = match parameter(request.uri(), "namespace") {
        Some(asked) => asked,
        // Lists of whoever sees several show them all, each filtered; a single session stands at home.
        None if principal
            .namespaces
            .as_ref()
            .is_some_and(|all| all.len() == 1) =>
        {
            let query = request.uri().query().unwrap_or_default();
            let own = format!("namespace={}", principal.home());
            let query = if query.is_empty() {
                own
            } else {
                format!("{query}&{own}")
            };
            if let Some(uri) = with_query(request.uri(), &path, &query) {
                *request.uri_mut() = uri;
            }
            principal.home().to_owned()
        }
        None => "default".to_owned(),
    };
    let named = session_of(&rest);
    let asked = parameter(request.uri(), "namespace").is_some() || named.is_some();
    if asked && !principal.sees(&namespace) {
        return Err(unknown_namespace(&namespace));
    }
    if let Some((provider, session)) = named {
        let key = SessionKey {
            namespace: namespace.as_str().into(),
            provider: provider.into(),
            id: session.into(),
        };
        touches(state, principal, &key)?;
    }
    Ok(())
}

/// What of sessions the principal sees, by namespace and owner.
pub(super) fn seen(principal: &Principal) -> impl Fn(&str, Option<&str>) -> bool {
    |namespace, owner| principal.sees(namespace) && principal.owns(owner)
}

/// What somebody does not see is not there.
pub(super) fn unknown_namespace(namespace: &str) -> Problem {
    let detail = format!("there is no namespace {namespace:?}");
    Problem::new(StatusCode::NOT_FOUND, "unknown-namespace", detail)
}

/// May the principal touch this session? One that does not exist is the route's own matter.
pub(super) fn touches(
    state: &State,
    principal: &Principal,
    key: &SessionKey,
) -> Result<(), Problem> {
    if !principal.sees(&key.namespace) {
        return Err(unknown_namespace(&key.namespace));
    }
    match state.registry.owner_of(key) {
        Some(owner) if !principal.owns(owner.as_deref()) => Err(not_owner(&key.id)),
        Some(_) | None => Ok(()),
    }
}

pub(super) fn not_owner(session: &str) -> Problem {
    let detail = format!("session {session:?} is another owner's");
    Problem::new(StatusCode::FORBIDDEN, "not-the-owner", detail)
}

/// The scope a route needs: what is not known to need less needs all.
fn needed(method: &Method, rest: &str) -> Scope {
    if matches!(*method, Method::GET | Method::HEAD) {
        return Scope::Read;
    }
    let questions = [
        "policy:explain",
        "policy:test",
        "policy:replay",
        "placements:check",
    ];
    if questions.iter().any(|question| rest.ends_with(question)) {
        return Scope::Read;
    }
    let of_agents = ["probe:begin", "probe:report"].contains(&rest);
    if is_of_sessions(rest) || rest == "credentials:revoke" || of_agents {
        return Scope::Operate;
    }
    Scope::Admin
}

fn is_of_sessions(rest: &str) -> bool {
    let mut parts = rest.split('/');
    rest == "sessions"
        || (parts.next(), parts.next()) == (Some("runtime"), Some("providers"))
            && parts.nth(1) == Some("sessions")
}

/// Routes that show or do only what the principal may see: the others are for whoever sees all.
fn is_partial(rest: &str) -> bool {
    const OTHERS: [&str; 9] = [
        "events",
        "capabilities",
        "policy:explain",
        "policy:test",
        "policy:replay",
        "credentials:revoke",
        "runtime/providers",
        "status",
        "owners",
    ];
    is_of_sessions(rest)
        || OTHERS.contains(&rest)
        || rest.ends_with("/placements:check")
        || owner_of(rest).is_some()
}

/// Routes of which no namespace has a part.
fn is_whole(rest: &str) -> bool {
    const ALL: [&str; 10] = [
        "reload",
        "drain",
        "keys",
        "keys:rotate",
        "keys:retire",
        "webhooks",
        "webhooks:redeliver",
        "probe:begin",
        "probe:report",
        "store:verify",
    ];
    ALL.contains(&rest)
}

/// The owner whose use a path names.
fn owner_of(rest: &str) -> Option<&str> {
    let owner = rest.strip_prefix("owners/")?;
    (!owner.is_empty() && !owner.contains('/')).then_some(owner)
}

/// Provider and session a path names.
fn session_of(rest: &str) -> Option<(&str, &str)> {
    if !is_of_sessions(rest) {
        return None;
    }
    let mut parts = rest.split('/').skip(2);
    let provider = parts.next()?;
    let segment = parts.nth(1).filter(|segment| !segment.is_empty())?;
    let session = segment.split_once(':').map_or(segment, |(id, _)| id);
    Some((provider, session))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )]
    use super::*;

    #[test]
    fn the_scoped_form_of_a_path_is_the_plain_one_with_its_namespace() {
        let plain = |text: &str| unscoped(&text.parse().unwrap()).map(|uri| uri.to_string());
        for (scoped, expected) in [
            ("/admin/api/v1/sessions", Some("/admin/api/v1/sessions")),
            (
                "/admin/api/v1/namespaces/a/sessions?provider=p",
                Some("/admin/api/v1/sessions?provider=p&namespace=a"),
            ),
            (
                "/admin/api/v1/namespaces/a/runtime/providers/p/sessions/s:start",
                Some("/admin/api/v1/runtime/providers/p/sessions/s:start?namespace=a"),
            ),
            (
                "/admin/api/v1/namespaces/a/sessions?namespace=a",
                Some("/admin/api/v1/sessions?namespace=a"),
            ),
            ("/admin/api/v1/namespaces/a/sessions?namespace=b", None),
            ("/admin/api/v1/namespaces/a%2F../sessions", None),
            ("/admin/api/v1/namespaces/a", None),
            (
                "/admin/api/v1/namespaces/a/drain",
                Some("/admin/api/v1/drain?namespace=a"),
            ),
            (
                "/admin/api/v1/namespaces/a/owners/ann",
                Some("/admin/api/v1/owners/ann?namespace=a"),
            ),
            ("/admin/api/v1/namespaces/a/whatever", None),
            ("/admin/api/v1/namespaces/a/owners/ann/x", None),
            ("/healthz", Some("/healthz")),
        ] {
            assert_eq!(plain(scoped).as_deref(), expected, "{scoped}");
        }
    }

    #[test]
    fn each_route_needs_its_scope() {
        let of = |method: Method, rest: &str| needed(&method, rest);
        let sessions = "runtime/providers/p/sessions";
        for rest in ["sessions", "keys", "status", sessions] {
            assert_eq!(of(Method::GET, rest), Scope::Read, "{rest}");
        }
        for rest in ["policy:explain", "policy:test", "policy:replay"] {
            assert_eq!(of(Method::POST, rest), Scope::Read, "{rest}");
        }
        for rest in [
            sessions.to_owned(),
            format!("{sessions}/s:start"),
            format!("{sessions}/s/capabilities/c"),
            "credentials:revoke".into(),
        ] {
            assert_eq!(of(Method::POST, &rest), Scope::Operate, "{rest}");
        }
        for rest in [
            "reload",
            "drain",
            "keys:rotate",
            "store:verify",
            "whatever",
            "runtime/providers/p",
        ] {
            assert_eq!(of(Method::POST, rest), Scope::Admin, "{rest}");
        }
    }

    #[test]
    fn a_path_names_its_session() {
        let sessions = "runtime/providers/p/sessions";
        assert_eq!(session_of(sessions), None);
        for rest in ["s", "s:start", "s/logs", "s/capabilities/c:enable"] {
            let rest = format!("{sessions}/{rest}");
            assert_eq!(session_of(&rest), Some(("p", "s")), "{rest}");
        }
    }
}
