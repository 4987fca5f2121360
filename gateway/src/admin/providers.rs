//! The runtime providers, and what this deployment can really give them.

use axum::{
    extract::{RawQuery, State as Extract},
    response::Response,
};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    Problem, State,
    request::{json as answer, query},
};
use crate::session::ProviderConfig;

/// `GET runtime/providers?probe=now`.
pub(super) async fn list(
    Extract(state): Extract<State>,
    RawQuery(raw): RawQuery,
) -> Result<Response, Problem> {
    probe_first(&state, raw.as_deref()).await?;
    Ok(answer(StatusCode::OK, &all(&state)))
}

/// `?probe=now`: what is answered was found just now.
pub(super) async fn probe_first(state: &State, raw: Option<&str>) -> Result<(), Problem> {
    let asked = query(raw, &["probe"])?;
    match asked.get("probe").map(String::as_str) {
        None => Ok(()),
        Some("now") => {
            state.prober.now().await;
            Ok(())
        }
        Some(_) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "malformed-query",
            "probe is now, or left out",
        )),
    }
}

pub(super) fn all(state: &State) -> Value {
    let config = state.registry.config();
    let checks = state.prober.checks();
    let provider = |(name, provider): (&String, &ProviderConfig)| {
        let default = *name == config.default_provider;
        one(state, name, provider, default, &checks)
    };
    config.providers.iter().map(provider).collect()
}

fn one(
    state: &State,
    name: &str,
    provider: &ProviderConfig,
    default: bool,
    checks: &[Value],
) -> Value {
    let effective = state.prober.effective(name);
    let (profile, shortfalls, since) = match effective {
        Some((profile, shortfalls, since)) => (Some(profile), shortfalls, Some(since)),
        None => (None, Vec::new(), None),
    };
    json!({
        "name": name,
        "driver": provider.driver,
        "default": default,
        "loaded": true,
        "sessionCount": state.registry.count(name),
        "profile": { "advertised": provider.advertised, "effective": profile },
        "effectiveSince": since,
        "shortfalls": shortfalls,
        "checks": checks,
        "error": Value::Null,
    })
}
