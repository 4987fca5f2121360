//! Webhooks: how their deliveries go, what was given up, and one more attempt at it.

use axum::{body::Body, extract::State as Extract, response::Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    Problem, State,
    request::{body_text, json as answer, read},
};

/// `GET webhooks`.
pub(super) async fn list(Extract(state): Extract<State>) -> Result<Response, Problem> {
    let mut all: Vec<Value> = Vec::new();
    for (name, mut shown) in state.webhooks.all() {
        let dead = state.registry.webhook_dead(name).await?;
        if let Some(fields) = shown.as_object_mut() {
            fields.insert("deadLetters".into(), json!(dead));
        }
        all.push(shown);
    }
    Ok(answer(StatusCode::OK, &json!({ "webhooks": all })))
}

/// `POST webhooks:redeliver` `{name, cursor?}`: one more attempt at one dead letter of a webhook, or at all of them.
pub(super) async fn redeliver(
    Extract(state): Extract<State>,
    body: Body,
) -> Result<Response, Problem> {
    let text = body_text(body).await?;
    let (name, cursor) = read(&text, |fields, faults| {
        let name = fields.require("name", faults);
        let name = name.and_then(|node| node.scalar(faults)).map(str::to_owned);
        let cursor = fields.take("cursor");
        let cursor = cursor.and_then(|node| node.integer(0..=u64::MAX, faults));
        Some((name?, cursor))
    })?;
    if !state.webhooks.has(&name) {
        let detail = format!("there is no webhook {name:?}");
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "unknown-webhook",
            detail,
        ));
    }
    let dead = state.registry.webhook_dead(name.clone()).await?;
    let chosen: Vec<u64> = dead
        .iter()
        .map(|letter| letter.cursor)
        .filter(|kept| cursor.is_none_or(|asked| asked == *kept))
        .collect();
    if let (Some(cursor), true) = (cursor, chosen.is_empty()) {
        let detail = format!("the webhook {name:?} has no dead letter {cursor}");
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "unknown-dead-letter",
            detail,
        ));
    }
    let count = chosen.len();
    if count > 0 {
        state.webhooks.ask(&name, chosen);
    }
    Ok(answer(
        StatusCode::ACCEPTED,
        &json!({ "redelivering": count }),
    ))
}
