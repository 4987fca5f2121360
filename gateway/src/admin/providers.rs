//! The runtime providers, and what this deployment can really give them.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use axum::{
    Extension,
    extract::{Query, State as Extract},
    response::Response,
};
use http::StatusCode;
use serde_json::{Value, json};

use super::{Problem, State, access, request::json as answer, veil};
use crate::{auth::Principal, clock::unix_seconds, probe::Probed, session::ProviderConfig};

/// `GET runtime/providers?probe=now`. `sessionCount` counts what whoever asks can list.
pub(super) async fn list(
    Extract(state): Extract<State>,
    Extension(principal): Extension<Arc<Principal>>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, Problem> {
    let probed = probe_first(&state, &query).await?;
    let namespace = query.get("namespace").map(String::as_str);
    let mut all = all(&state, &principal, namespace);
    for provider in all.as_array_mut().into_iter().flatten() {
        tell(provider, probed);
    }
    Ok(answer(StatusCode::OK, &all))
}

/// `?probe=now`: what is answered was found just now.
pub(super) async fn probe_first(
    state: &State,
    query: &HashMap<String, String>,
) -> Result<Option<Probed>, Problem> {
    match query.get("probe").map(String::as_str) {
        None => Ok(None),
        Some("now") => Ok(Some(state.prober.now().await)),
        Some(_) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "malformed-query",
            "probe is now, or left out",
        )),
    }
}

/// How many runs the answer rests on, for whoever asked for them.
pub(super) fn tell(answer: &mut Value, probed: Option<Probed>) {
    if let (Some(Probed { runs, settled }), Some(fields)) = (probed, answer.as_object_mut()) {
        let probed = json!({ "runs": runs, "settled": settled });
        fields.insert("probed".into(), probed);
    }
}

pub(super) fn all(state: &State, principal: &Principal, namespace: Option<&str>) -> Value {
    let config = state.registry.config();
    let now = unix_seconds(SystemTime::now());
    let seen = access::seen(principal);
    let provider = |(name, provider): (&String, &ProviderConfig)| {
        let mut shown = one(state, name, provider, now);
        if let Some(fields) = shown.as_object_mut() {
            let count = state.registry.count(name, namespace, &seen);
            fields.insert("default".into(), (*name == config.default_provider).into());
            fields.insert("sessionCount".into(), count.into());
        }
        if principal.is_bounded() {
            veil::provider(&mut shown);
        }
        shown
    };
    config.providers.iter().map(provider).collect()
}

fn one(state: &State, name: &str, provider: &ProviderConfig, now: u64) -> Value {
    let effective = state.prober.effective(name);
    let (profile, shortfalls, since) = match effective {
        Some((profile, shortfalls, since)) => (Some(profile), shortfalls, Some(since)),
        None => (None, Vec::new(), None),
    };
    // Its own settings first: no session can be made of it until they are mended.
    let fault = state.registry.provider_fault(name);
    let loaded = fault.is_none();
    let unreadable = || {
        let words = "the session store cannot be read: no session can be made";
        (!state.registry.index().readable()).then(|| words.to_owned())
    };
    json!({
        "name": name,
        "driver": provider.driver,
        "loaded": loaded,
        "profile": { "advertised": provider.advertised, "effective": profile },
        "effectiveSince": since,
        "shortfalls": shortfalls,
        "checks": state.prober.checks(name, now),
        "error": fault.or_else(unreadable),
    })
}
