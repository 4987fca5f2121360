//! The runtime providers and what they can do.

use axum::{extract::State as Extract, response::Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::{State, request::json as answer};

/// `GET runtime/providers`.
pub(super) async fn list(Extract(state): Extract<State>) -> Response {
    answer(StatusCode::OK, &all(&state))
}

pub(super) fn all(state: &State) -> Value {
    let config = state.registry.config();
    let provider = |(name, provider): (&String, &crate::session::ProviderConfig)| {
        json!({
            "name": name,
            "driver": provider.driver,
            "default": *name == config.default_provider,
            "loaded": true,
            "sessionCount": state.registry.count(name),
            "profile": { "advertised": provider.advertised, "effective": provider.effective },
            "checks": [],
            "error": Value::Null,
        })
    };
    config.providers.iter().map(provider).collect()
}
