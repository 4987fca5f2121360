//! Lists in pages: `?limit=&after=`, and `next` where there is more.

use std::collections::HashMap;

use axum::response::Response;
use data_encoding::BASE64URL_NOPAD;
use http::StatusCode;
use serde_json::json;

use super::{Problem, State, request::json as answer, sessions::key};
use crate::{auth::Principal, session::SessionKey};

/// Sessions of a page, unless the request says otherwise and at most.
const MOST: usize = 1000;

/// `{sessions, next?}`.
pub(super) fn of(
    state: &State,
    principal: &Principal,
    query: &HashMap<String, String>,
    provider: Option<&str>,
) -> Result<Response, Problem> {
    let limit = match query.get("limit") {
        None => MOST,
        Some(text) => limit(text)?,
    };
    let after = query.get("after").map(|text| read(text)).transpose()?;
    let namespace = query.get("namespace").map(String::as_str);
    let seen =
        |namespace: &str, owner: Option<&str>| principal.sees(namespace) && principal.owns(owner);
    let (sessions, next) = state
        .registry
        .page(namespace, provider, &seen, after.as_ref(), limit);
    let mut body = json!({ "sessions": sessions });
    if let (Some(next), Some(fields)) = (next, body.as_object_mut()) {
        fields.insert("next".into(), write(&next).into());
    }
    Ok(answer(StatusCode::OK, &body))
}

fn limit(text: &str) -> Result<usize, Problem> {
    let limit = text.parse().ok();
    limit
        .filter(|limit| (1..=MOST).contains(limit))
        .ok_or_else(|| malformed(format!("limit is a whole number from 1 to {MOST}")))
}

/// A cursor is the last session of the page before, opaque to clients.
fn write(key: &SessionKey) -> String {
    BASE64URL_NOPAD.encode(format!("{}/{}/{}", key.namespace, key.provider, key.id).as_bytes())
}

fn read(text: &str) -> Result<SessionKey, Problem> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok();
    let name = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let parts: Option<Vec<&str>> = name.as_deref().map(|name| name.split('/').collect());
    match parts.as_deref() {
        Some([namespace, provider, id]) => Ok(key(Some(namespace), provider, id)),
        Some(_) | None => Err(malformed(
            "after is the cursor `next` of another page".to_owned(),
        )),
    }
}

fn malformed(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed-query", detail)
}
