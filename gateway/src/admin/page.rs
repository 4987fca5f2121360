//! Lists in pages: `?limit=&after=`, and `next` where there is more.

use std::collections::HashMap;

use axum::response::Response;
use data_encoding::BASE64URL_NOPAD;
use http::StatusCode;
use serde_json::json;

use super::{Problem, State, access, request::json as answer, sessions::key, veil};
use crate::{
    auth::Principal,
    session::{Wanted, is_session_id},
};

/// Entries of a page, unless the request says otherwise and at most.
const MOST: usize = 1000;

/// `{sessions, next?}`.
pub(super) fn of(
    state: &State,
    principal: &Principal,
    query: &HashMap<String, String>,
    provider: Option<&str>,
) -> Result<Response, Problem> {
    let limit = limit(query)?;
    let after = query.get("after").map(|text| read(text)).transpose()?;
    let after = after.map(|[namespace, provider, id]| key(Some(&namespace), &provider, &id));
    let namespace = query.get("namespace").map(String::as_str);
    if let Some(never) = namespace.filter(|name| !is_session_id(name)) {
        // No namespace can be called so: an empty list would hide a slip of the pen.
        return Err(access::unknown_namespace(never));
    }
    let seen = access::seen(principal);
    let wanted = Wanted {
        namespace,
        provider,
        id: query.get("id").map(String::as_str),
    };
    let (mut sessions, next) = state.registry.page(wanted, &seen, after.as_ref(), limit);
    if principal.is_bounded() {
        for session in &mut sessions {
            veil::session(state, session);
        }
    }
    let mut body = json!({ "sessions": sessions });
    if let (Some(next), Some(fields)) = (next, body.as_object_mut()) {
        let next = write(&[&next.namespace, &next.provider, &next.id]);
        fields.insert("next".into(), next.into());
    }
    Ok(answer(StatusCode::OK, &body))
}

/// How many of a list `?limit=` asks for.
pub(super) fn limit(query: &HashMap<String, String>) -> Result<usize, Problem> {
    let Some(text) = query.get("limit") else {
        return Ok(MOST);
    };
    let limit = text.parse().ok();
    limit
        .filter(|limit| (1..=MOST).contains(limit))
        .ok_or_else(|| malformed(format!("limit is a whole number from 1 to {MOST}")))
}

/// A cursor names the last of the page before, opaque to clients. No part holds a slash.
pub(super) fn write(parts: &[&str]) -> String {
    BASE64URL_NOPAD.encode(parts.join("/").as_bytes())
}

pub(super) fn read<const N: usize>(text: &str) -> Result<[String; N], Problem> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok();
    let name = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let parts = name.map(|name| name.split('/').map(str::to_owned).collect::<Vec<_>>());
    parts
        .and_then(|parts| parts.try_into().ok())
        .ok_or_else(|| malformed("after is the cursor `next` of another page".to_owned()))
}

fn malformed(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed-query", detail)
}
