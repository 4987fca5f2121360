//! Is a workload placeable with a provider, as this deployment really is?

use std::{collections::HashMap, sync::Arc};

use axum::{
    Extension,
    body::Body,
    extract::{Path, Query, State as Extract},
    response::Response,
};
use http::StatusCode;
use serde_json::json;
use sluicegate_policy::{ServiceDocument, Workload};

use super::{
    Problem, State,
    providers::{probe_first, tell},
    request::{body_text, json as answer, read},
    sessions::{behalf, known},
};
use crate::{auth::Principal, session::AskedGrant};

/// `POST runtime/providers/{provider}/placements:check?probe=now`.
pub(super) async fn check(
    Extract(state): Extract<State>,
    Extension(principal): Extension<Arc<Principal>>,
    Path(provider): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    body: Body,
) -> Result<Response, Problem> {
    known(&state, &provider)?;
    let asked = asked(&body_text(body).await?)?;
    // What `create` would refuse is refused here, and what it would add counts.
    let grant = state
        .registry
        .grant_asked(&behalf(&principal), &provider, &asked.grant)?;
    let workload = Workload {
        executable: asked.executable,
        ..Workload::of(&grant)
    };
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

/// What a workload asks for; the rest is as for a session that does not say.
struct Asked {
    executable: bool,
    grant: AskedGrant,
}

/// `{executable?, hostServices?: [NAME]}` and the keys of a create that say what a session may reach: `hostServices` is
/// `services` with names only.
fn asked(source: &str) -> Result<Asked, Problem> {
    read(source, |fields, faults| {
        let executable = match fields.take("executable") {
            Some(node) => node.boolean(faults)?,
            None => true,
        };
        let names = fields.take("hostServices");
        let names = names.map(|node| ServiceDocument::read_names(node, faults));
        let mut grant = AskedGrant::take(fields, faults);
        for (name, service) in names.unwrap_or_default() {
            // One that is brought with its address may be named too.
            grant.document.services.entry(name).or_insert(service);
        }
        Some(Asked { executable, grant })
    })
}
