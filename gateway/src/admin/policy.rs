//! Explanations by the one function that decides.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Extension,
    body::Body,
    extract::{Query, State as Extract},
    response::Response,
};
use http::StatusCode;
use serde_json::json;
use sluicegate_policy::{Target, text::Place};

use super::{
    Problem, State, access,
    request::{body_text, json as answer, read},
    sessions::{behalf, key},
};
use crate::{auth::Principal, session::AskedGrant};

struct Question {
    provider: Option<String>,
    namespace: Option<String>,
    session: Option<String>,
    asked: AskedGrant,
    target: Target,
}

/// Which namespace is meant: that of the path or the query, of the body, else the principal's own.
fn namespace<'q>(
    query: &'q HashMap<String, String>,
    written: Option<&'q str>,
    principal: &'q Principal,
) -> Result<&'q str, Problem> {
    if let Some(unseen) = written.filter(|written| !principal.sees(written)) {
        return Err(access::unknown_namespace(unseen));
    }
    match (query.get("namespace").map(String::as_str), written) {
        (Some(scoped), Some(written)) if scoped != written => {
            let detail = format!("the path says namespace {scoped:?}, the body {written:?}");
            let status = StatusCode::BAD_REQUEST;
            Err(Problem::new(status, "two-namespaces", detail))
        }
        (Some(named), _) | (None, Some(named)) => Ok(named),
        (None, None) => Ok(principal.home()),
    }
}

/// `POST policy:explain` `{provider?, namespace?, session? | grant of a create, target}`; a target without port means 443.
pub(super) async fn explain(
    Extract(state): Extract<State>,
    Extension(principal): Extension<Arc<Principal>>,
    Query(query): Query<HashMap<String, String>>,
    body: Body,
) -> Result<Response, Problem> {
    let text = body_text(body).await?;
    let question = read(&text, |fields, faults| {
        let mut word = |key, faults: &mut _| {
            fields
                .take(key)
                .and_then(|node: &sluicegate_policy::text::Node| node.scalar(faults))
                .map(str::to_owned)
        };
        let provider = word("provider", faults);
        let namespace = word("namespace", faults);
        let session = word("session", faults);
        let target = fields.require("target", faults).and_then(|node| {
            let text = node.scalar(faults)?;
            match Target::from_uri_authority(text, 443) {
                Ok(target) => Some(target),
                Err(error) => {
                    faults.error_hint(node.place(), error.to_string(), "HOST or HOST:PORT");
                    None
                }
            }
        });
        let asked = AskedGrant::take(fields, faults);
        if session.is_some() && asked != AskedGrant::default() {
            let message =
                "the session has its own grant: either session, or what one would ask for";
            faults.error(&Place::default(), message);
        }
        Some(Question {
            provider,
            namespace,
            session,
            asked,
            target: target?,
        })
    })?;
    let provider = question
        .provider
        .unwrap_or_else(|| state.registry.config().default_provider.clone());
    let explanation = match &question.session {
        Some(session) => {
            let namespace = namespace(&query, question.namespace.as_deref(), &principal)?;
            let key = key(Some(namespace), &provider, session);
            access::touches(&state, &principal, &key)?;
            let admission = (state.admission)();
            state.registry.explain(&key, &question.target, &admission)?
        }
        None => state.registry.explain_asked(
            &behalf(&principal),
            &provider,
            &question.asked,
            &question.target,
            &(state.admission)(),
        )?,
    };
    Ok(answer(StatusCode::OK, &json!(explanation)))
}
