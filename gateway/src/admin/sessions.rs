//! Sessions: create, list, read, patch, act.

use std::{collections::HashMap, time::Duration};

use axum::{
    body::Body,
    extract::{Path, Query, State as Extract},
    response::Response,
};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::{
    Problem, State,
    request::{body_text, json as answer, read},
};
use crate::session::{CreateRequest, Issued, PatchRequest, SessionKey, lifecycle::Action};

type Parameters = Query<HashMap<String, String>>;

/// What `keepalive` extends by where the request does not say.
const EXTENSION: Duration = Duration::from_secs(300);
/// The longest one keepalive may ask for; `maxLifetime` bounds it anyway.
const MAX_EXTENSION: u64 = 366 * 86_400;

pub(super) fn key(namespace: Option<&str>, provider: &str, session: &str) -> SessionKey {
    SessionKey {
        namespace: namespace.unwrap_or("default").into(),
        provider: provider.into(),
        id: session.into(),
    }
}

fn not_found(session: &str) -> Problem {
    let detail = format!("there is no session {session:?}");
    Problem::new(StatusCode::NOT_FOUND, "unknown-session", detail)
}

/// `GET sessions` across providers; `?namespace=` and `?provider=` choose.
pub(super) async fn list(Extract(state): Extract<State>, Query(query): Parameters) -> Response {
    let of = |key: &str| query.get(key).map(String::as_str);
    let sessions = state.registry.list(of("namespace"), of("provider"));
    answer(StatusCode::OK, &json!({ "sessions": sessions }))
}

/// `GET …/{provider}/sessions`.
pub(super) async fn list_of_provider(
    Extract(state): Extract<State>,
    Path(provider): Path<String>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    known(&state, &provider)?;
    let sessions = state
        .registry
        .list(query.get("namespace").map(String::as_str), Some(&provider));
    Ok(answer(StatusCode::OK, &json!({ "sessions": sessions })))
}

pub(super) fn known(state: &State, provider: &str) -> Result<(), Problem> {
    if state.registry.config().providers.contains_key(provider) {
        return Ok(());
    }
    let names: Vec<String> = state.registry.config().providers.keys().cloned().collect();
    let detail = format!("there is no provider {provider:?}");
    Err(Problem::new(StatusCode::NOT_FOUND, "unknown-provider", detail).with("providers", names))
}

/// `POST …/{provider}/sessions`: 201, or 200 for the same request again.
pub(super) async fn create(
    Extract(state): Extract<State>,
    Path(provider): Path<String>,
    body: Body,
) -> Result<Response, Problem> {
    known(&state, &provider)?;
    let text = body_text(body).await?;
    let request = CreateRequest::read(&text).map_err(|faults| Problem::faults(&faults))?;
    let issued = state.registry.create(provider.clone(), request).await?;
    let status = if issued.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let id = issued
        .view
        .get("id")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let mut response = answer(status, &shown(issued));
    let location = format!("/admin/api/v1/runtime/providers/{provider}/sessions/{id}");
    if let (StatusCode::CREATED, Ok(value)) = (status, HeaderValue::from_str(&location)) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    Ok(response)
}

/// `GET …/sessions/{session}`.
pub(super) async fn show(
    Extract(state): Extract<State>,
    Path((provider, session)): Path<(String, String)>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    let key = key(
        query.get("namespace").map(String::as_str),
        &provider,
        &session,
    );
    let view = state
        .registry
        .show(&key)
        .ok_or_else(|| not_found(&session))?;
    Ok(answer(StatusCode::OK, &json!({ "session": view })))
}

/// `PATCH …/sessions/{session}`: `egress`, `services`, `limits`, each replaced whole; a new policy generation.
pub(super) async fn patch(
    Extract(state): Extract<State>,
    Path((provider, session)): Path<(String, String)>,
    Query(query): Parameters,
    body: Body,
) -> Result<Response, Problem> {
    let text = body_text(body).await?;
    let patch = PatchRequest::read(&text).map_err(|faults| Problem::faults(&faults))?;
    let key = key(
        query.get("namespace").map(String::as_str),
        &provider,
        &session,
    );
    Ok(answer(
        StatusCode::OK,
        &shown(state.registry.patch(key, patch).await?),
    ))
}

/// `DELETE …/sessions/{session}`: stop.
pub(super) async fn delete(
    Extract(state): Extract<State>,
    Path((provider, session)): Path<(String, String)>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    let key = key(
        query.get("namespace").map(String::as_str),
        &provider,
        &session,
    );
    Ok(answer(
        StatusCode::OK,
        &shown(state.registry.act(key, Action::Stop, None).await?),
    ))
}

/// `POST …/sessions/{session}:{action}`. Ids hold no colon, so the last one parts them.
pub(super) async fn act(
    Extract(state): Extract<State>,
    Path((provider, segment)): Path<(String, String)>,
    Query(query): Parameters,
    body: Body,
) -> Result<Response, Problem> {
    let Some((session, name)) = segment.rsplit_once(':') else {
        let detail = "POST to a session needs an action, e.g. /sessions/ID:pause";
        return Err(Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            detail,
        ));
    };
    let text = body_text(body).await?;
    let (extend, reason) = read(&text, |fields, faults| {
        let extend = match (name, fields.take("extendSeconds")) {
            ("keepalive", Some(node)) => node
                .integer(1..=MAX_EXTENSION, faults)
                .map(Duration::from_secs),
            (_, Some(node)) => node.expected("extendSeconds with keepalive only", faults),
            (_, None) => None,
        };
        let reason = fields
            .take("reason")
            .and_then(|node| node.string(faults))
            .map(str::to_owned);
        Some((extend.unwrap_or(EXTENSION), reason))
    })?;
    let action = match name {
        "start" => Action::Start,
        "pause" => Action::Pause,
        "resume" => Action::Resume,
        "keepalive" => Action::Keepalive(extend),
        "reset" => Action::Reset,
        "stop" => Action::Stop,
        _ => {
            let detail = format!(
                "there is no action {name:?}: start, pause, resume, keepalive, reset, stop"
            );
            return Err(Problem::new(
                StatusCode::NOT_FOUND,
                "unknown-action",
                detail,
            ));
        }
    };
    let key = key(
        query.get("namespace").map(String::as_str),
        &provider,
        session,
    );
    Ok(answer(
        StatusCode::OK,
        &shown(state.registry.act(key, action, reason).await?),
    ))
}

/// `{session, stale, env?, files?}`.
fn shown(issued: Issued) -> Value {
    let mut body = json!({ "session": issued.view, "stale": issued.stale });
    if let (Some(fields), Some(bundle)) = (body.as_object_mut(), issued.bundle) {
        let env: serde_json::Map<String, Value> =
            bundle.env.into_iter().map(|(k, v)| (k, v.into())).collect();
        let files: Vec<Value> = bundle
            .files
            .into_iter()
            .map(|(path, pem)| json!({ "path": path, "pem": pem }))
            .collect();
        fields.insert("env".into(), env.into());
        fields.insert("files".into(), files.into());
    }
    body
}
