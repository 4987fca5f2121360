//! Health, status, reload, drain, keys, revocation of single credentials.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Extension,
    body::Body,
    extract::{Query, State as Extract},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;

use super::{
    Problem, State, access,
    request::{body_text, idempotent, json as answer, read},
    sessions::behalf,
};
use crate::{
    auth::{KeyError, Principal},
    clock::rfc3339,
};

/// The process answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// New work is accepted.
pub(super) async fn readyz(Extract(state): Extract<State>) -> Response {
    let ready = match (state.ready)() {
        Ok(()) if !state.registry.index().readable() => {
            Err("the session store is unreadable".to_owned())
        }
        Ok(()) if !state.registry.writable() => {
            Err("the session store cannot be written".to_owned())
        }
        other => other,
    };
    match ready {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

/// OpenMetrics text.
pub(super) async fn metrics(Extract(state): Extract<State>) -> Response {
    let mut response = state.telemetry.render().into_response();
    let kind =
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// One screen: the composition root's part, sessions by state, and the store. Of a namespace, or for whoever sees a part, what is
/// theirs: no listeners, no counts of others.
pub(super) async fn status(
    Extract(state): Extract<State>,
    Extension(principal): Extension<Arc<Principal>>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let namespace = query.get("namespace").map(String::as_str);
    let partial = namespace.is_some() || principal.is_bounded();
    let whole = (state.status)();
    let mut fields = whole.as_object().cloned().unwrap_or_default();
    if partial {
        fields.retain(|key, _| key == "version");
    }
    let ready = (state.ready)();
    fields.insert("ready".into(), ready.is_ok().into());
    fields.insert("notReady".into(), ready.err().into());
    fields.insert(
        "storeReadable".into(),
        state.registry.index().readable().into(),
    );
    let seen = access::seen(&principal);
    fields.insert(
        "sessions".into(),
        json!(state.registry.states(namespace, &seen)),
    );
    fields.insert(
        "providers".into(),
        super::providers::all(&state, &principal, namespace),
    );
    let refusals = if partial {
        let asked =
            |of: &str, by: Option<&str>| namespace.is_none_or(|asked| asked == of) && seen(of, by);
        state.telemetry.refusals_of(&asked)
    } else {
        let dropped = state.telemetry.access().dropped();
        fields.insert("accessRecordsDropped".into(), dropped.into());
        let verified = state.registry.verified().map(|(at, found)| {
            let mut shown = found.to_json();
            if let Some(fields) = shown.as_object_mut() {
                fields.insert("at".into(), rfc3339(at).into());
            }
            shown
        });
        fields.insert("storeVerified".into(), verified.into());
        state.telemetry.refusals()
    };
    fields.insert("refusalsLastHour".into(), json!(refusals));
    let since = rfc3339(state.telemetry.refusals_since());
    fields.insert("refusalsSince".into(), since.into());
    if let Some(namespace) = namespace {
        fields.insert("namespace".into(), namespace.into());
        // Its quota is of all owners together.
        if principal.owner.is_none() {
            let used = state.registry.use_of(namespace, None);
            let used = used.as_ref().map(super::owners::quota);
            fields.insert("quota".into(), used.into());
        }
    }
    answer(StatusCode::OK, &fields.into())
}

/// Apply the configuration again, or keep the old one and say why.
pub(super) async fn reload(Extract(state): Extract<State>) -> Result<Response, Problem> {
    match (state.reload)().await {
        Ok(done) => Ok(answer(
            StatusCode::OK,
            &json!({ "reloaded": true, "detail": done }),
        )),
        Err(why) => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "not-reloaded",
            why,
        )),
    }
}

/// Begin to go down.
pub(super) async fn drain(Extract(state): Extract<State>) -> Response {
    (state.drain)();
    answer(StatusCode::ACCEPTED, &json!({ "draining": true }))
}

/// Every page of the store against its checksum.
pub(super) async fn verify_store(Extract(state): Extract<State>) -> Result<Response, Problem> {
    let verified = state.registry.verify_store(&state.telemetry).await?;
    Ok(answer(StatusCode::OK, &verified.to_json()))
}

/// The signing keys, without secrets.
pub(super) async fn keys(Extract(state): Extract<State>) -> Response {
    answer(
        StatusCode::OK,
        &json!({ "keys": state.registry.keys().list() }),
    )
}

/// A new key signs; the old ones go on verifying. The same `Idempotency-Key` again makes no other one.
pub(super) async fn rotate_keys(
    Extract(state): Extract<State>,
    Extension(principal): Extension<Arc<Principal>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let request = idempotent(&headers, &principal)?;
    let keys = state.registry.keys().clone();
    let rotated = tokio::task::spawn_blocking(move || keys.rotate_for(request.as_deref())).await;
    let failed =
        |detail: String| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "not-rotated", detail);
    let kid = rotated
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| match error {
            KeyError::External => {
                Problem::new(StatusCode::CONFLICT, "external-keys", error.to_string())
            }
            other => failed(other.to_string()),
        })?;
    Ok(answer(
        StatusCode::OK,
        &json!({ "signing": kid, "keys": state.registry.keys().list() }),
    ))
}

/// Take a key away: `{kid}`. What it signed is good no more.
pub(super) async fn retire_key(
    Extract(state): Extract<State>,
    body: Body,
) -> Result<Response, Problem> {
    let text = body_text(body).await?;
    let kid = read(&text, |fields, faults| {
        let kid = fields.require("kid", faults);
        kid.and_then(|node| node.scalar(faults)).map(str::to_owned)
    })?;
    let registry = state.registry.clone();
    let retired = tokio::task::spawn_blocking(move || registry.retire_key(&kid)).await;
    let failed =
        |detail: String| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "not-retired", detail);
    retired
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| match error {
            KeyError::External => {
                Problem::new(StatusCode::CONFLICT, "external-keys", error.to_string())
            }
            KeyError::Signing(_) => {
                Problem::new(StatusCode::CONFLICT, "signing-key", error.to_string())
            }
            KeyError::Unknown(_) => {
                Problem::new(StatusCode::NOT_FOUND, "unknown-key", error.to_string())
            }
            other => failed(other.to_string()),
        })?;
    Ok(answer(
        StatusCode::OK,
        &json!({ "keys": state.registry.keys().list() }),
    ))
}

/// Revoke one credential: `{credential}`, a handle, a signed token or a token's id.
pub(super) async fn revoke_credential(
    Extract(state): Extract<State>,
    Extension(principal): Extension<Arc<Principal>>,
    Query(query): Query<HashMap<String, String>>,
    body: Body,
) -> Result<Response, Problem> {
    let text = body_text(body).await?;
    let credential = read(&text, |fields, faults| {
        fields
            .require("credential", faults)
            .and_then(|node| node.scalar(faults))
            .map(str::to_owned)
    })?;
    // Whoever sees a part revokes what is seen to be of that part. An id alone does not say whose it is: of whom it may be.
    let scope = query.get("namespace");
    let (own, within) = match state.registry.session_of(&credential) {
        Some(key) => {
            let own = scope.is_none_or(|scope| **scope == *key.namespace)
                && access::touches(&state, &principal, &key).is_ok();
            (own, None)
        }
        None => {
            let asked = scope.map(|scope| vec![scope.clone()]);
            let within = asked.or_else(|| principal.namespaces.as_ref().map(|own| own.to_vec()));
            // Owners share a namespace, and an id says nothing of them.
            (principal.owner.is_none(), within)
        }
    };
    let by = behalf(&principal);
    let revoked = state.registry.revoke_within(credential, within, &by);
    if own && let Some(known) = revoked.await? {
        let told = json!({ "revoked": true, "known": known });
        return Ok(answer(StatusCode::OK, &told));
    }
    Err(Problem::new(
        StatusCode::NOT_FOUND,
        "unknown-credential",
        "no living credential of ours looks like that",
    ))
}
