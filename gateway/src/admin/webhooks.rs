//! Webhooks: how their deliveries go, and what was given up.

use axum::{extract::State as Extract, response::Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::{Problem, State, request::json as answer};

/// `GET webhooks`.
pub(super) async fn list(Extract(state): Extract<State>) -> Result<Response, Problem> {
    let mut all: Vec<Value> = Vec::new();
    for (name, mut shown) in state.webhooks.all() {
        let dead = state.registry.webhook_dead(name).await?;
        if let Some(fields) = shown.as_object_mut() {
            fields.insert("deadLetters".into(), dead.into());
        }
        all.push(shown);
    }
    Ok(answer(StatusCode::OK, &json!({ "webhooks": all })))
}
