//! Sessions: create, list, read, patch, act.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::{Path, Query, State as Extract},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::{
    Problem, State,
    access::{self, touches, unknown_namespace},
    page,
    request::{body_text, idempotent, json as answer, read},
    veil,
    wait::Waiting,
};
use crate::{
    auth::Principal,
    session::{
        Actor, Behalf, CreateRequest, Issued, Observation, PatchRequest, RegistryError, SessionKey,
        Wanted, is_session_id, lifecycle::Action, no_secrets,
    },
};

type Parameters = Query<HashMap<String, String>>;

/// What `keepalive` extends by where the request does not say.
const EXTENSION: Duration = Duration::from_secs(300);
/// The longest a request may wait for a place in a scope, in seconds.
const MAX_WAIT: u64 = 60;
/// Bytes of a reason: it is kept with the session and with its event.
const MAX_REASON: usize = 1024;
/// The longest one keepalive may ask for; `maxLifetime` bounds it anyway.
const MAX_EXTENSION: u64 = 366 * 86_400;

pub(super) fn key(namespace: Option<&str>, provider: &str, session: &str) -> SessionKey {
    SessionKey {
        namespace: namespace.unwrap_or("default").into(),
        provider: provider.into(),
        id: session.into(),
    }
}

/// On whose behalf a principal asks.
pub(super) fn behalf(principal: &Principal) -> Behalf {
    Behalf {
        owner: principal.owner.clone(),
        bounded: principal.is_bounded(),
        if_match: Vec::new(),
        actor: Some(Actor {
            credential: principal.name.clone(),
            scope: principal.scope.as_str(),
        }),
    }
}

/// The same, where the session is as `If-Match` says.
pub(super) fn conditional(principal: &Principal, headers: &HeaderMap) -> Behalf {
    Behalf {
        if_match: if_match(headers),
        ..behalf(principal)
    }
}

fn not_found(session: &str) -> Problem {
    let detail = format!("there is no session {session:?}");
    Problem::new(StatusCode::NOT_FOUND, "unknown-session", detail)
}

/// `GET sessions` across providers; `?namespace=` and `?provider=` choose.
pub(super) async fn list(
    Extract(state): Extract<State>,
    Extension(principal): Extension<Arc<Principal>>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    let provider = query.get("provider").map(String::as_str);
    if let Some(provider) = provider {
        listed(&state, &principal, provider)?;
    }
    page::of(&state, &principal, &query, provider)
}

/// `GET …/{provider}/sessions`.
pub(super) async fn list_of_provider(
    Extract(state): Extract<State>,
    Extension(principal): Extension<Arc<Principal>>,
    Path(provider): Path<String>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    listed(&state, &principal, &provider)?;
    page::of(&state, &principal, &query, Some(&provider))
}

/// A provider, or one that a reload has taken away and of which there still are sessions to be seen, and ended.
fn listed(state: &State, principal: &Principal, provider: &str) -> Result<(), Problem> {
    let seen = access::seen(principal);
    let wanted = Wanted {
        provider: Some(provider),
        ..Wanted::default()
    };
    let (left, _) = state.registry.page(wanted, &seen, None, 1);
    match left.is_empty() {
        true => known(state, provider),
        false => Ok(()),
    }
}

pub(super) fn known(state: &State, provider: &str) -> Result<(), Problem> {
    if state.registry.config().providers.contains_key(provider) {
        return Ok(());
    }
    let names: Vec<String> = state.registry.config().providers.keys().cloned().collect();
    let detail = format!("there is no provider {provider:?}");
    Err(Problem::new(StatusCode::NOT_FOUND, "unknown-provider", detail).with("providers", names))
}

/// `POST …/{provider}/sessions`: 201, or 200 for the same request again; 202 where its start waits for a place.
pub(super) async fn create(
    Extract(state): Extract<State>,
    Extension(principal): Extension<Arc<Principal>>,
    Path(provider): Path<String>,
    Query(query): Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    known(&state, &provider)?;
    let text = body_text(body).await?;
    let mut request = CreateRequest::read(&text).map_err(|faults| Problem::faults(&faults))?;
    if request.id.is_none() {
        request.id = idempotent(&headers, &principal)?.map(|key| format!("k-{key}"));
    }
    place(&principal, &query, &mut request)?;
    if let Some(id) = &request.id {
        touches(
            &state,
            &principal,
            &key(Some(request.namespace()), &provider, id),
        )?;
    }
    let longest = wait(&query)?;
    let namespace = request.namespace().to_owned();
    let (by, of) = (behalf(&principal), provider.clone());
    let created = state.registry.change(&by, move |all, by, now| {
        all.create_at(by, &of, request, now)
    });
    let issued = created.await?;
    let own = key(Some(&namespace), &provider, &text_of(&issued.view, "id"));
    let waiting = Waiting::begin(&state, longest);
    let issued = placed(&state, &principal, own, issued, longest).await?;
    let status = match (is_queued(&issued), issued.created) {
        (true, _) => StatusCode::ACCEPTED,
        (false, true) => StatusCode::CREATED,
        (false, false) => StatusCode::OK,
    };
    let id = text_of(&issued.view, "id");
    let mut response = tagged(status, &shown(&state, &by, issued));
    let scope = match namespace.as_str() {
        "default" => String::new(),
        other => format!("namespaces/{other}/"),
    };
    let location = format!("/admin/api/v1/{scope}runtime/providers/{provider}/sessions/{id}");
    if let (StatusCode::CREATED | StatusCode::ACCEPTED, Ok(value)) =
        (status, HeaderValue::from_str(&location))
    {
        response.headers_mut().insert(header::LOCATION, value);
    }
    Ok(waiting.answer(response))
}

/// Namespace and owner of a new session: what the request says, within what the principal may say.
fn place(
    principal: &Principal,
    query: &HashMap<String, String>,
    request: &mut CreateRequest,
) -> Result<(), Problem> {
    let written = request.namespace.take();
    if let Some(unseen) = written.as_deref().filter(|own| !principal.sees(own)) {
        return Err(unknown_namespace(unseen));
    }
    let namespace = match (query.get("namespace"), written) {
        (Some(scoped), Some(written)) if *scoped != written => {
            let detail = format!("the path says namespace {scoped:?}, the body {written:?}");
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "two-namespaces",
                detail,
            ));
        }
        (_, Some(written)) => written,
        (Some(scoped), None) => scoped.clone(),
        (None, None) => principal.home().to_owned(),
    };
    if !is_session_id(&namespace) || !principal.sees(&namespace) {
        return Err(unknown_namespace(&namespace));
    }
    if request.owner.is_none() {
        request.owner = principal.owner.as_deref().map(str::to_owned);
    } else if !principal.owns(request.owner.as_deref()) {
        let detail = format!("the credential {:?} is another owner's", principal.name);
        return Err(Problem::new(StatusCode::FORBIDDEN, "not-the-owner", detail));
    }
    request.namespace = Some(namespace);
    Ok(())
}

fn text_of(view: &Value, key: &str) -> String {
    let text = view.get(key).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

/// The tags of `If-Match` (RFC 9110 §13.1.1); none where any will do. Weak ones never match.
fn if_match(headers: &HeaderMap) -> Vec<String> {
    let tags = headers
        .get_all(header::IF_MATCH)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .map(|tag| tag.trim().to_owned());
    let mut tags: Vec<String> = tags.collect();
    if tags.iter().any(|tag| tag == "*") {
        tags.clear();
    }
    tags.iter()
        .map(|tag| {
            let bare = tag.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
            bare.unwrap_or_default().to_owned()
        })
        .collect()
}

/// A session's answer with its entity tag.
pub(super) fn tagged(status: StatusCode, body: &Value) -> Response {
    let mut response = answer(status, body);
    let tag = body.get("session").and_then(|session| session.get("etag"));
    let tag = tag.and_then(Value::as_str).unwrap_or_default();
    if let Ok(value) = HeaderValue::from_str(&format!("\"{tag}\"")) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
}

/// `GET …/sessions/{session}`.
pub(super) async fn show(
    Extract(state): Extract<State>,
    Extension(principal): Extension<Arc<Principal>>,
    Path((provider, session)): Path<(String, String)>,
    Query(query): Parameters,
) -> Result<Response, Problem> {
    let key = key(
        query.get("namespace").map(String::as_str),
        &provider,
        &session,
    );
    let mut view = state
        .registry
        .show(&key)
        .ok_or_else(|| not_found(&session))?;
    if principal.is_bounded() {
        veil::session(&state, &mut view);
    }
    Ok(tagged(StatusCode::OK, &json!({ "session": view })))
}

/// `PATCH …/sessions/{session}`: `egress`, `services`, `limits`, each replaced whole; a new policy generation.
pub(super) async fn patch(
    Extract(state): Extract<State>,
    Extension(principal): Extension<Arc<Principal>>,
    Path((provider, session)): Path<(String, String)>,
    Query(query): Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let text = body_text(body).await?;
    let patch = PatchRequest::read(&text).map_err(|faults| Problem::faults(&faults))?;
    let key = key(
        query.get("namespace").map(String::as_str),
        &provider,
        &session,
    );
    let by = conditional(&principal, &headers);
    let patched = state
        .registry
        .change(&by, move |all, by, now| all.patch_at(by, &key, patch, now));
    Ok(tagged(StatusCode::OK, &shown(&state, &by, patched.await?)))
}

/// `DELETE …/sessions/{session}`: stop.
pub(super) async fn delete(
    Extract(state): Extract<State>,
    Extension(principal): Extension<Arc<Principal>>,
    Path((provider, session)): Path<(String, String)>,
    Query(query): Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let key = key(
        query.get("namespace").map(String::as_str),
        &provider,
        &session,
    );
    let by = conditional(&principal, &headers);
    let stopped = act_on(&state, &by, key, Action::Stop, None).await?;
    Ok(tagged(StatusCode::OK, &shown(&state, &by, stopped)))
}

/// `POST …/sessions/{session}:{action}`. Ids hold no colon, so the last one parts them.
pub(super) async fn act(
    Extract(state): Extract<State>,
    Extension(principal): Extension<Arc<Principal>>,
    Path((provider, segment)): Path<(String, String)>,
    Query(query): Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Some((session, name)) = segment.rsplit_once(':') else {
        let detail = "POST to a session needs an action, e.g. /sessions/ID:pause";
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let problem = Problem::new(status, "method-not-allowed", detail);
        let mut response = problem.into_response();
        // RFC 9110 §15.5.6: it must say what is allowed.
        let allowed = HeaderValue::from_static("GET, HEAD, PATCH, DELETE");
        response.headers_mut().insert(header::ALLOW, allowed);
        return Ok(response);
    };
    let text = body_text(body).await?;
    let key = key(
        query.get("namespace").map(String::as_str),
        &provider,
        session,
    );
    if name == "observe" {
        return observe(&state, &conditional(&principal, &headers), key, &text).await;
    }
    let (extend, reason) = read(&text, |fields, faults| {
        let extend = match (name, fields.take("extendSeconds")) {
            ("keepalive", Some(node)) => node
                .integer(1..=MAX_EXTENSION, faults)
                .map(Duration::from_secs),
            (_, Some(node)) => node.expected("extendSeconds with keepalive only", faults),
            (_, None) => None,
        };
        no_secrets(fields, faults);
        let reason = fields.take("reason").and_then(|node| {
            let text = node.string(faults)?;
            if text.len() > MAX_REASON {
                return node.expected("at most 1 KiB of text", faults);
            }
            Some(text.to_owned())
        });
        Some((extend.unwrap_or(EXTENSION), reason))
    })?;
    let action = match name {
        "start" => Action::Start,
        "pause" => Action::Pause,
        "resume" => Action::Resume,
        "keepalive" => Action::Keepalive(extend),
        "reset" => Action::Reset,
        "stop" => Action::Stop,
        _ => {
            let detail = format!(
                "there is no action {name:?}: start, pause, resume, keepalive, reset, stop, observe"
            );
            return Err(Problem::new(
                StatusCode::NOT_FOUND,
                "unknown-action",
                detail,
            ));
        }
    };
    let longest = wait(&query)?;
    let by = conditional(&principal, &headers);
    let issued = act_on(&state, &by, key.clone(), action, reason).await?;
    let waiting = Waiting::begin(&state, longest);
    let issued = placed(&state, &principal, key, issued, longest).await?;
    let status = if is_queued(&issued) {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    Ok(waiting.answer(tagged(status, &shown(&state, &by, issued))))
}

async fn act_on(
    state: &State,
    by: &Behalf,
    key: SessionKey,
    action: Action,
    reason: Option<String>,
) -> Result<Issued, Problem> {
    loop {
        let (key, reason) = (key.clone(), reason.clone());
        let acted = state.registry.change(by, move |all, by, now| {
            all.act_at(by, &key, action, reason, now)
        });
        match acted.await {
            Err(RegistryError::TooSoon(left)) => tokio::time::sleep(left).await,
            acted => return Ok(acted?),
        }
    }
}

/// `?wait=SECONDS`: how long a start may wait for a place in its scope before it is answered 202.
fn wait(query: &HashMap<String, String>) -> Result<Duration, Problem> {
    let seconds = match query.get("wait") {
        None => Some(0),
        Some(text) => text.parse().ok().filter(|seconds| *seconds <= MAX_WAIT),
    };
    seconds.map(Duration::from_secs).ok_or_else(|| {
        let detail = format!("wait is a number of seconds, at most {MAX_WAIT}");
        Problem::new(StatusCode::BAD_REQUEST, "malformed-query", detail)
    })
}

fn is_queued(issued: &Issued) -> bool {
    issued
        .view
        .get("queued")
        .is_some_and(|queued| !queued.is_null())
}

/// A queued start, once more when its place came in time: the credential is shown to whoever waited.
async fn placed(
    state: &State,
    principal: &Principal,
    key: SessionKey,
    issued: Issued,
    longest: Duration,
) -> Result<Issued, Problem> {
    if longest.is_zero() || !is_queued(&issued) {
        return Ok(issued);
    }
    // Whether it came or not is seen by looking again.
    Waiting::or_drain(state, state.registry.wait_for_place(&key, longest)).await;
    let now = state.registry.show_to(&behalf(principal), &key)?;
    if now.get("state").and_then(Value::as_str) != Some("running") {
        return Ok(Issued {
            view: now,
            ..issued
        });
    }
    let started = act_on(state, &behalf(principal), key, Action::Start, None).await?;
    Ok(Issued {
        created: issued.created,
        ..started
    })
}

/// `:observe` `{state, reason?, generation?}`: a runtime tells what became of its sandbox.
async fn observe(
    state: &State,
    by: &Behalf,
    key: SessionKey,
    text: &str,
) -> Result<Response, Problem> {
    let observation = read(text, |fields, faults| {
        let said = |list: &[&'static str]| list.iter().map(|s| (*s, *s)).collect::<Vec<_>>();
        let states = said(&Observation::STATES);
        let reasons = said(&Observation::REASONS);
        let state = fields
            .require("state", faults)
            .and_then(|node| node.choice(&states, faults));
        let reason = fields
            .take("reason")
            .and_then(|node| node.choice(&reasons, faults));
        let generation = fields
            .take("generation")
            .and_then(|node| node.integer(0..=u64::MAX, faults));
        Some(Observation {
            state: state?,
            reason,
            generation,
        })
    })?;
    let observed = state.registry.change(by, move |all, by, now| {
        all.observe_at(by, &key, &observation, now)
    });
    let (issued, current) = observed.await?;
    let mut body = shown(state, by, issued);
    if let Some(fields) = body.as_object_mut() {
        fields.insert("current".into(), current.into());
    }
    Ok(tagged(StatusCode::OK, &body))
}

/// `{session, stale, staleBindings, env?, files?}`.
pub(super) fn shown(state: &State, by: &Behalf, mut issued: Issued) -> Value {
    if by.bounded {
        veil::session(state, &mut issued.view);
    }
    let mut body = json!({
        "session": issued.view,
        "stale": !issued.stale.is_empty(),
        "staleBindings": issued.stale,
    });
    if let (Some(fields), Some(bundle)) = (body.as_object_mut(), issued.bundle) {
        let env: serde_json::Map<String, Value> =
            bundle.env.into_iter().map(|(k, v)| (k, v.into())).collect();
        let files: Vec<Value> = bundle
            .files
            .into_iter()
            .map(|(path, pem)| json!({ "path": path, "pem": pem }))
            .collect();
        fields.insert("env".into(), env.into());
        fields.insert("files".into(), files.into());
    }
    body
}
