//! Capabilities: the catalogue, and those of a session.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Extension,
    body::Body,
    extract::{Path, Query, State as Extract},
    response::Response,
};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::{
    Problem, State,
    request::{body_text, json as answer, read},
    sessions::{conditional, key, shown, tagged},
    veil,
};
use crate::{
    auth::Principal,
    session::{Behalf, Bind, BindingRequest, Issued, SessionKey},
};

type Parameters = Query<HashMap<String, String>>;

fn namespace(query: &HashMap<String, String>) -> Option<&str> {
    query.get("namespace").map(String::as_str)
}

/// `GET capabilities`: the catalogue.
pub(super) async fn catalogue(
    Extract(state): Extract<State>,
    Extension(principal): Extension<Arc<Principal>>,
) -> Response {
    let mut capabilities = state.registry.capabilities();
    if principal.is_bounded() {
        capabilities.iter_mut().for_each(veil::capability);
    }
    answer(StatusCode::OK, &json!({ "capabilities": capabilities }))
}

/// `GET …/sessions/{session}/capabilities`.
pub(super) async fn list(
    Extract(state): Extract<State>,
    Path((provider, session)): Path<(String, String)>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    let key = key(namespace(&query), &provider, &session);
    let bindings = state.registry.bindings(&key)?;
    Ok(answer(StatusCode::OK, &json!({ "capabilities": bindings })))
}

/// `GET …/sessions/{session}/resolved`: the merged grant, each entry with where it comes from.
pub(super) async fn resolved(
    Extract(state): Extract<State>,
    Extension(principal): Extension<Arc<Principal>>,
    Path((provider, session)): Path<(String, String)>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    let key = key(namespace(&query), &provider, &session);
    let mut resolved = state.registry.resolved(&key)?;
    if principal.is_bounded() {
        veil::resolved(&mut resolved);
    }
    Ok(answer(StatusCode::OK, &json!({ "resolved": resolved })))
}

/// `POST …/capabilities/{name}` installs (201, or 200 where it was); `{name}:{action}` enables, disables, updates.
/// Names of capabilities hold no colon.
pub(super) async fn act(
    Extract(state): Extract<State>,
    Extension(principal): Extension<Arc<Principal>>,
    Path((provider, session, segment)): Path<(String, String, String)>,
    Query(query): Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let text = body_text(body).await?;
    let (name, action) = match segment.rsplit_once(':') {
        Some((name, action)) => (name, Some(action)),
        None => (segment.as_str(), None),
    };
    let asked = || BindingRequest::read(name, &text).map_err(|faults| Problem::faults(&faults));
    let how = match action {
        None => Bind::Install(asked()?),
        Some("update") => Bind::Update(asked()?),
        Some(action @ ("enable" | "disable")) => {
            read(&text, |_, _| Some(()))?;
            Bind::Enable(action == "enable")
        }
        Some(other) => {
            let detail = format!("there is no action {other:?}: enable, disable, update");
            return Err(Problem::new(
                StatusCode::NOT_FOUND,
                "unknown-action",
                detail,
            ));
        }
    };
    let key = key(namespace(&query), &provider, &session);
    let by = conditional(&principal, &headers);
    let issued = bind(&state, &by, key, name.to_owned(), how).await?;
    let status = if issued.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(tagged(status, &shown(&state, &by, issued)))
}

/// `DELETE …/capabilities/{name}`: uninstall.
pub(super) async fn uninstall(
    Extract(state): Extract<State>,
    Extension(principal): Extension<Arc<Principal>>,
    Path((provider, session, name)): Path<(String, String, String)>,
    Query(query): Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let key = key(namespace(&query), &provider, &session);
    let by = conditional(&principal, &headers);
    let issued = bind(&state, &by, key, name, Bind::Uninstall).await?;
    Ok(tagged(StatusCode::OK, &shown(&state, &by, issued)))
}

async fn bind(
    state: &State,
    by: &Behalf,
    key: SessionKey,
    name: String,
    how: Bind,
) -> Result<Issued, Problem> {
    let bound = state.registry.change(by, move |all, by, now| {
        all.bind_at(by, &key, &name, how, now)
    });
    Ok(bound.await?)
}
