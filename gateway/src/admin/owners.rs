//! What owners use, and what they may.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Extension,
    extract::{Path, Query, State as Extract},
    response::Response,
};
use http::StatusCode;
use serde_json::{Value, json};

use super::{Problem, State, access, page, request::json as answer};
use crate::{
    auth::Principal,
    clock::rfc3339,
    session::{OwnerKey, OwnerUse},
};

type Parameters = Query<HashMap<String, String>>;

/// `GET owners`: those that a session's record names.
pub(super) async fn list(
    Extract(state): Extract<State>,
    Extension(principal): Extension<Arc<Principal>>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    let limit = page::limit(&query)?;
    let after = query
        .get("after")
        .map(|text| page::read(text))
        .transpose()?;
    let after: Option<OwnerKey> = after.map(|[namespace, owner]| (namespace, owner));
    let namespace = query.get("namespace").map(String::as_str);
    let mut found = state.registry.owners(
        namespace,
        &access::seen(&principal),
        after.as_ref(),
        limit.saturating_add(1),
    );
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more);
    let next = next.map(|((namespace, owner), _)| page::write(&[namespace, owner]));
    let owners: Vec<Value> = found
        .iter()
        .map(|((namespace, owner), used)| shown(namespace, owner, used))
        .collect();
    let mut body = json!({ "owners": owners });
    if let (Some(next), Some(fields)) = (next, body.as_object_mut()) {
        fields.insert("next".into(), next.into());
    }
    Ok(answer(StatusCode::OK, &body))
}

/// `GET owners/{owner}`.
pub(super) async fn show(
    Extract(state): Extract<State>,
    Extension(principal): Extension<Arc<Principal>>,
    Path(owner): Path<String>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    let namespace = query.get("namespace").map(String::as_str);
    let namespace = namespace.unwrap_or_else(|| principal.home());
    if !principal.sees(namespace) {
        return Err(access::unknown_namespace(namespace));
    }
    if !principal.owns(Some(&owner)) {
        let detail = format!("the credential {:?} is another owner's", principal.name);
        return Err(Problem::new(StatusCode::FORBIDDEN, "not-the-owner", detail));
    }
    let used = state.registry.use_of(namespace, Some(&owner));
    let used = used.ok_or_else(|| {
        let detail = format!("no session in namespace {namespace:?} is of owner {owner:?}");
        Problem::new(StatusCode::NOT_FOUND, "unknown-owner", detail)
    })?;
    let body = json!({ "owner": shown(namespace, &owner, &used) });
    Ok(answer(StatusCode::OK, &body))
}

fn shown(namespace: &str, owner: &str, used: &OwnerUse) -> Value {
    let mut shown = quota(used);
    if let Some(fields) = shown.as_object_mut() {
        fields.insert("namespace".into(), namespace.into());
        fields.insert("owner".into(), owner.into());
    }
    shown
}

/// What is in use of a quota; `limit` is null where there is none.
pub(super) fn quota(used: &OwnerUse) -> Value {
    let limits = used.quota.limits;
    json!({
        "sessions": { "inUse": used.sessions, "limit": used.quota.sessions, "states": used.states },
        "records": { "inUse": used.records, "limit": used.quota.records },
        "logs": { "inUse": used.logs, "limit": used.quota.logs },
        "tunnels": { "inUse": used.open, "limit": limits.tunnels },
        "bytes": { "inUse": used.bytes, "limit": limits.bytes },
        "opensPerSecond": { "limit": limits.opens_per_second },
        "bandwidth": { "limit": limits.bandwidth },
        "lastActivity": used.active_at.map(rfc3339),
    })
}
