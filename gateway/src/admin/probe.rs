//! Agents that probe from elsewhere: a run is begun, and reported.

use axum::{body::Body, extract::State as Extract, response::Response};
use http::StatusCode;
use serde_json::json;
use sluicegate_policy::text::{Faults, Node};

use super::{
    Problem, State,
    request::{body_text, json as answer, read},
};
use crate::probe::{AgentError, Reported, reported};

/// A reason or setting is a line, not a page.
const MAX_TEXT: usize = 1024;

/// `POST …/probe:begin`: what an agent needs for one run.
pub(super) async fn begin(Extract(state): Extract<State>) -> Result<Response, Problem> {
    let lent = state.prober.begin().map_err(refused)?;
    Ok(answer(StatusCode::OK, &lent))
}

/// `POST …/probe:report`: `{run, checks: [{name, outcome, reason?, setting?, milliseconds}]}`.
pub(super) async fn report(
    Extract(state): Extract<State>,
    body: Body,
) -> Result<Response, Problem> {
    let text = body_text(body).await?;
    let (run, found) = read(&text, |fields, faults| {
        let run = fields.require("run", faults)?.string(faults)?.to_owned();
        let checks = fields.require("checks", faults)?;
        let found: Vec<Reported> = checks
            .list(faults)
            .iter()
            .filter_map(|node| one(node, faults))
            .collect();
        Some((run, found))
    })?;
    let taken = found.len();
    state.prober.report(&run, found).await.map_err(refused)?;
    Ok(answer(StatusCode::OK, &json!({ "taken": taken })))
}

fn one(node: &Node, faults: &mut Faults) -> Option<Reported> {
    let mut fields = node.fields(faults);
    let name = fields
        .require("name", faults)
        .and_then(|node| node.string(faults));
    let outcome = fields
        .require("outcome", faults)
        .and_then(|node| node.string(faults));
    let mut line = |key: &'static str, faults: &mut Faults| {
        let text = fields.take(key)?.string(faults)?;
        // On one line, and printable: it goes into events, answers and terminals.
        let clean = text.chars().filter(|c| !c.is_control()).take(MAX_TEXT);
        Some(clean.collect::<String>())
    };
    let (reason, setting) = (line("reason", faults), line("setting", faults));
    let took = fields.require("milliseconds", faults);
    let took = took.and_then(|node| node.integer(0..=u64::MAX, faults));
    fields.finish(faults);
    let why = (reason.unwrap_or_default(), setting.unwrap_or_default());
    match reported(name?, outcome?, why, took?) {
        Ok(found) => Some(found),
        Err(fault) => {
            faults.error(node.place(), fault);
            None
        }
    }
}

fn refused(error: AgentError) -> Problem {
    let (status, kind) = match error {
        AgentError::NotAsked => (StatusCode::CONFLICT, "probe-from-self"),
        AgentError::NoRoad => (StatusCode::CONFLICT, "no-public-listener"),
        AgentError::Busy => (StatusCode::CONFLICT, "another-agent"),
        AgentError::NoTurn => (StatusCode::CONFLICT, "no-such-run"),
        AgentError::Mint => (StatusCode::SERVICE_UNAVAILABLE, "no-token"),
    };
    Problem::new(status, kind, error.to_string())
}
