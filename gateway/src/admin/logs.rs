//! A session's log: runtimes append, operators read.

use std::{collections::HashMap, ops::RangeInclusive, sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::{Path, Query, State as Extract},
    response::Response,
};
use http::StatusCode;
use serde_json::json;
use sluicegate_policy::text::{Faults, Node};

use super::{
    Problem, State,
    request::{body_text, json as answer, read},
    sessions::{behalf, key},
    wait::Waiting,
};
use crate::{auth::Principal, session::LogLine};

type Parameters = Query<HashMap<String, String>>;

/// Records of one answer where the request does not say.
const LIMIT: usize = 200;
/// Records of one answer, or of one request, at most.
pub(super) const MAX_LIMIT: usize = 1000;
/// Bytes of one record's text.
pub(super) const MAX_TEXT: usize = 16 * 1024;
/// The longest a reader may wait for the next record, in seconds.
const MAX_WAIT: u64 = 60;

/// `POST …/sessions/{session}/logs`: `{records: [{stream, text, time?}]}`.
pub(super) async fn append(
    Extract(state): Extract<State>,
    Extension(principal): Extension<Arc<Principal>>,
    Path((provider, session)): Path<(String, String)>,
    Query(query): Parameters,
    body: Body,
) -> Result<Response, Problem> {
    let text = body_text(body).await?;
    let lines = read(&text, |fields, faults| {
        let node = fields.require("records", faults)?;
        let items = node.list(faults);
        if items.len() > MAX_LIMIT {
            faults.error(node.place(), format!("at most {MAX_LIMIT} records at once"));
        }
        Some(
            items
                .iter()
                .filter_map(|node| line(node, faults))
                .collect::<Vec<_>>(),
        )
    })?;
    let namespace = query.get("namespace").map(String::as_str);
    let key = key(namespace, &provider, &session);
    let by = behalf(&principal);
    let appended = state.registry.change(&by, move |all, by, now| {
        all.append_log_at(by, &key, lines, now)
    });
    let last = appended.await?;
    Ok(answer(StatusCode::OK, &json!({ "last": last })))
}

fn line(node: &Node, faults: &mut Faults) -> Option<LogLine> {
    let mut fields = node.fields(faults);
    let streams = LogLine::STREAMS.map(|stream| (stream, stream));
    let stream = fields
        .require("stream", faults)
        .and_then(|node| node.choice(&streams, faults));
    let text = fields.require("text", faults).and_then(|node| {
        let text = node.scalar(faults)?;
        if text.len() > MAX_TEXT {
            return node.expected("at most 16 KiB", faults);
        }
        Some(text.to_owned())
    });
    let time = fields.take("time").and_then(|node| {
        let text = node.scalar(faults)?;
        if crate::clock::is_rfc3339(text) {
            return Some(text.to_owned());
        }
        node.expected("a time such as 2026-11-20T21:04:05Z", faults)
    });
    fields.finish(faults);
    Some(LogLine {
        time,
        stream: stream?,
        text: text?,
    })
}

/// `GET …/sessions/{session}/logs?after=&limit=&wait=`.
pub(super) async fn list(
    Extract(state): Extract<State>,
    Extension(principal): Extension<Arc<Principal>>,
    Path((provider, session)): Path<(String, String)>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    let number = |name: &str, absent: u64, bounds: RangeInclusive<u64>| match query.get(name) {
        None => Ok(absent),
        Some(text) => {
            let number = text.parse().ok().filter(|n| bounds.contains(n));
            number.ok_or_else(|| {
                let (least, most) = (bounds.start(), bounds.end());
                let detail = format!("{name} is a whole number from {least} to {most}");
                Problem::new(StatusCode::BAD_REQUEST, "malformed-query", detail)
            })
        }
    };
    let after = number("after", 0, 0..=u64::MAX)?;
    let limit = number("limit", LIMIT as u64, 1..=MAX_LIMIT as u64)?;
    let wait = Duration::from_secs(number("wait", 0, 0..=MAX_WAIT)?);
    let namespace = query.get("namespace").map(String::as_str);
    let key = key(namespace, &provider, &session);
    let limit = usize::try_from(limit).unwrap_or(LIMIT);
    let by = behalf(&principal);
    let waiting = Waiting::begin(&state, wait);
    let next = state.registry.log(&by, key.clone(), after, limit, wait);
    let page = match Waiting::or_drain(&state, next).await {
        Some(page) => page?,
        None => {
            let there = state.registry.log(&by, key, after, limit, Duration::ZERO);
            there.await?
        }
    };
    Ok(waiting.answer(answer(StatusCode::OK, &page)))
}
