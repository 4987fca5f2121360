//! Is a workload placeable with a provider, as this deployment really is?

use std::collections::HashMap;

use axum::{
    body::Body,
    extract::{Path, Query, State as Extract},
    response::Response,
};
use http::StatusCode;
use serde_json::json;
use sluicegate_policy::{
    ServiceName, Workload,
    text::{Faults, Node},
};

use super::{
    Problem, State,
    providers::{probe_first, tell},
    request::{body_text, json as answer, read},
    sessions::known,
};

/// `POST runtime/providers/{provider}/placements:check?probe=now`.
pub(super) async fn check(
    Extract(state): Extract<State>,
    Path(provider): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    body: Body,
) -> Result<Response, Problem> {
    known(&state, &provider)?;
    let workload = workload(&body_text(body).await?)?;
    let probed = probe_first(&state, &query).await?;
    let config = state.registry.config();
    let settings = config
        .providers
        .get(&provider)
        .ok_or_else(|| unknown_yet(&provider))?;
    let placed = state.prober.placement(settings, &provider, &workload);
    let placed = placed.ok_or_else(|| unknown_yet(&provider))?;
    let needs = json!({
        "executable": workload.executable,
        "hostServices": workload.host_services,
        "hostnameEgress": workload.hostname_egress,
    });
    let mut body = json!({
        "placeable": placed.is_ok(),
        "reason": placed.err().map(|why| why.to_string()),
        "needs": needs,
        "effective": state.prober.effective(&provider).map(|(profile, ..)| profile),
    });
    tell(&mut body, probed);
    Ok(answer(StatusCode::OK, &body))
}

/// Not an answer about the workload: nobody knows yet.
fn unknown_yet(provider: &str) -> Problem {
    let detail = format!(
        "the effective profile of {provider} is not known yet: probes of this gateway have not settled; ask again, or with ?probe=now"
    );
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "profile-unknown", detail)
}

/// `{executable?, hostServices?: [NAME], egress?: {allowedHosts?, defaultAction?}}`, names as in a session.
fn workload(source: &str) -> Result<Workload, Problem> {
    read(source, |fields, faults| {
        let executable = match fields.take("executable") {
            Some(node) => node.boolean(faults)?,
            None => true,
        };
        let host_services = fields
            .take("hostServices")
            .is_some_and(|node| names_any(node, faults));
        let egress = fields.take("egress");
        let hostname_egress = egress.is_some_and(|node| bounds_names(node, faults));
        Some(Workload {
            executable,
            host_services,
            hostname_egress,
        })
    })
}

fn names_any(node: &Node, faults: &mut Faults) -> bool {
    let names = node.list(faults);
    for item in names {
        if let Some(text) = item.string(faults)
            && ServiceName::parse(text).is_err()
        {
            item.expected::<()>("the name of a host service", faults);
        }
    }
    !names.is_empty()
}

/// Is `allowedHosts` non-empty, or the default deny? The default is deny, as in a session's egress.
fn bounds_names(node: &Node, faults: &mut Faults) -> bool {
    sluicegate_policy::EgressDocument::read(node, faults).needs_hostname_egress()
}
