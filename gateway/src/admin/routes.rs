//! Every route with what it takes and answers: the router and the OpenAPI document come from this table.

use axum::Router;
use serde_json::Value;
use utoipa::openapi::{RefOr, Schema};

use super::{
    State, capabilities, control, events, logs,
    openapi::{Api, Media, Operation, delete, get, patch, post, shape},
    owners, placement, policy, probe, providers, sessions, webhooks,
};

/// The routes.
pub(super) fn all() -> Router<State> {
    table(Api::served()).routes()
}

fn table(api: Api) -> Api {
    gateway(bindings(sessions_of(providers_of(own(api)))))
}

fn now() -> RefOr<Schema> {
    shape::words(["now"])
}

fn yes_or_no() -> RefOr<Schema> {
    shape::words(["true", "false"])
}

fn page_size() -> RefOr<Schema> {
    shape::integer(1, 1000)
}

fn seconds() -> RefOr<Schema> {
    shape::integer(0, 60)
}

const WAIT: &str = "Seconds to wait for what comes next.";

/// What probes of the process ask, without credential.
fn own(api: Api) -> Api {
    let text = |id, what| Operation::new(id, what).open().answer(200, Media::Text);
    let ready = text("ready", "New work is accepted").answer(503, Media::Text);
    let metrics = Operation::new("metrics", "OpenMetrics");
    let metrics = metrics.open().answer(200, Media::Metrics);
    api.route(
        "/healthz",
        vec![get(
            control::healthz,
            vec![text("healthy", "The process answers")],
        )],
    )
    .route("/readyz", vec![get(control::readyz, vec![ready])])
    .route("/metrics", vec![get(control::metrics, vec![metrics])])
}

fn providers_of(api: Api) -> Api {
    let probe = "`now`: probe before answering.";
    let list = Operation::new("listProviders", "Providers, advertised and effective")
        .query("probe", now, probe)
        .answer(200, Media::Json("Providers"));
    let check = Operation::new(
        "checkPlacement",
        "Is a workload placeable with this provider?",
    )
    .query("probe", now, probe)
    .body("Workload")
    .answer(200, Media::Json("Placement"))
    .problems(&[503]);
    api.route(
        "/admin/api/v1/runtime/providers",
        vec![get(providers::list, vec![list])],
    )
    .route(
        "/admin/api/v1/runtime/providers/{provider}/placements:check",
        vec![post(placement::check, vec![check])],
    )
}

/// The one route that ends in `{session}:{action}`, as the document has it: with what each can be refused for beside what every
/// change of a session can.
const ACTIONS: [(&str, &str, &str, &str, &[u16]); 7] = [
    (
        "startSession",
        "A new generation, or a fresh credential for the running one",
        "Act",
        "/admin/api/v1/runtime/providers/{provider}/sessions/{session}:start",
        &[409, 500],
    ),
    (
        "pauseSession",
        "New opens are refused",
        "Act",
        "/admin/api/v1/runtime/providers/{provider}/sessions/{session}:pause",
        &[409],
    ),
    (
        "resumeSession",
        "The same credentials work again",
        "Act",
        "/admin/api/v1/runtime/providers/{provider}/sessions/{session}:resume",
        &[409],
    ),
    (
        "keepSessionAlive",
        "The window is extended",
        "Keepalive",
        "/admin/api/v1/runtime/providers/{provider}/sessions/{session}:keepalive",
        &[409],
    ),
    (
        "resetSession",
        "The generation is revoked",
        "Act",
        "/admin/api/v1/runtime/providers/{provider}/sessions/{session}:reset",
        &[409],
    ),
    (
        "stopSession",
        "It ends for good",
        "Act",
        "/admin/api/v1/runtime/providers/{provider}/sessions/{session}:stop",
        &[],
    ),
    (
        "observeSession",
        "A runtime tells what became of its sandbox",
        "Observe",
        "/admin/api/v1/runtime/providers/{provider}/sessions/{session}:observe",
        &[],
    ),
];

fn sessions_of(api: Api) -> Api {
    let changed = Media::Tagged("SessionChanged");
    let page = |operation: Operation| {
        operation
            .query(
                "limit",
                page_size,
                "Sessions of one page, 1000 by default and at most.",
            )
            .query(
                "after",
                shape::text,
                "The cursor `next` of the page before.",
            )
            .query("namespace", shape::text, "Sessions of one namespace.")
            .query("id", shape::text, "Sessions that are called so.")
            .answer(200, Media::Json("Sessions"))
    };
    let one = |operation: Operation| {
        operation.query(
            "namespace",
            shape::text,
            "The session's namespace; `default` where absent.",
        )
    };
    let provider = "/admin/api/v1/runtime/providers/{provider}/sessions";
    let create = Operation::new("createSession", "Create, and start unless `start` is false")
        .header(
            "Idempotency-Key",
            "The same key again gives the same session; ignored where the body has an id.",
        )
        .query("wait", seconds, WAIT)
        .body("CreateSession")
        .answer(201, changed)
        .answer(200, changed)
        .answer(202, changed)
        .located(&[201, 202])
        .problems(&[409, 500, 503]);
    let patched = one(Operation::new("patchSession", "One new policy generation"))
        .if_match()
        .body("PatchSession")
        .answer(200, changed)
        .problems(&[409, 503]);
    let acts = ACTIONS.map(|(id, what, body, path, refusals)| {
        let act = one(Operation::new(id, what))
            .at(path)
            .body(body)
            .answer(200, changed)
            .problems(&[503])
            .problems(refusals)
            .if_match();
        match id {
            // The one that may have to wait for a place.
            "startSession" => act.query("wait", seconds, WAIT).answer(202, changed),
            _ => act,
        }
    });
    let show = one(Operation::new("showSession", "One session"))
        .answer(200, Media::Tagged("SessionShown"));
    let delete_one = one(Operation::new("deleteSession", "As stop"))
        .answer(200, changed)
        .problems(&[503])
        .if_match();
    let of_provider = page(Operation::new(
        "listSessionsOfProvider",
        "Sessions of a provider",
    ));
    api.route(
        provider,
        vec![
            get(sessions::list_of_provider, vec![of_provider]),
            post(sessions::create, vec![create]),
        ],
    )
    .route(
        "/admin/api/v1/runtime/providers/{provider}/sessions/{session}",
        vec![
            get(sessions::show, vec![show]),
            patch(sessions::patch, vec![patched]),
            delete(sessions::delete, vec![delete_one]),
            post(sessions::act, acts.to_vec()),
        ],
    )
    .route(
        "/admin/api/v1/sessions",
        vec![get(
            sessions::list,
            vec![
                page(Operation::new("listSessions", "Sessions of every provider")).query(
                    "provider",
                    shape::text,
                    "Sessions of one provider.",
                ),
            ],
        )],
    )
}

/// Capabilities of a session, and its log.
fn bindings(api: Api) -> Api {
    let changed = Media::Tagged("SessionChanged");
    let catalogue = Operation::new("listCatalogue", "The catalogue of capabilities")
        .answer(200, Media::Json("Catalogue"));
    let list = Operation::new("listCapabilities", "Capabilities the session is bound to")
        .answer(200, Media::Json("Capabilities"));
    let resolved = Operation::new(
        "resolveSession",
        "The merged grant, each entry with its origin",
    )
    .answer(200, Media::Json("Resolved"))
    .problems(&[422]);
    let read = Operation::new("readLog", "What its runtime logged")
        .query("after", shape::digits, "Begin after this record.")
        .query("limit", page_size, "Records at most; 200 by default.")
        .query("wait", seconds, WAIT)
        .answer(200, Media::Json("Log"))
        .problems(&[503]);
    let append = Operation::new("appendLog", "Runtimes append")
        .body("AppendLog")
        .answer(200, Media::Json("Appended"))
        .problems(&[503]);
    let bind = |id, what| {
        Operation::new(id, what)
            .answer(200, changed)
            .problems(&[409, 503])
            .if_match()
    };
    let acts = vec![
        bind("installCapability", "Bind the session to a capability")
            .body("Bind")
            .answer(201, changed),
        bind("enableCapability", "Its rules and services count again")
            .body("Nothing")
            .at("/admin/api/v1/runtime/providers/{provider}/sessions/{session}/capabilities/{capability}:enable"),
        bind("disableCapability", "It stays bound, and gives nothing")
            .body("Nothing")
            .at("/admin/api/v1/runtime/providers/{provider}/sessions/{session}/capabilities/{capability}:disable"),
        bind("updateCapability", "Take it anew from the catalogue")
            .body("Bind")
            .at("/admin/api/v1/runtime/providers/{provider}/sessions/{session}/capabilities/{capability}:update"),
    ];
    let uninstall = bind("uninstallCapability", "Unbind it").problems(&[422]);
    let session = "/admin/api/v1/runtime/providers/{provider}/sessions/{session}";
    api.route(
        "/admin/api/v1/capabilities",
        vec![get(capabilities::catalogue, vec![catalogue])],
    )
    .route(
        &format!("{session}/resolved"),
        vec![get(capabilities::resolved, vec![resolved])],
    )
    .route(
        &format!("{session}/logs"),
        vec![
            get(logs::list, vec![read]),
            post(logs::append, vec![append]),
        ],
    )
    .route(
        &format!("{session}/capabilities"),
        vec![get(capabilities::list, vec![list])],
    )
    .route(
        &format!("{session}/capabilities/{{capability}}"),
        vec![
            post(capabilities::act, acts),
            delete(capabilities::uninstall, vec![uninstall]),
        ],
    )
}

/// The gateway as a whole.
fn gateway(api: Api) -> Api {
    let json = |id, what, schema| Operation::new(id, what).answer(200, Media::Json(schema));
    let explain = json(
        "explainPolicy",
        "What a policy says of a target, and why",
        "Explanation",
    )
    .body("Explain")
    .problems(&[503]);
    let test = json(
        "testPolicy",
        "Expectations held against a policy",
        "PolicyTested",
    )
    .body("PolicyTest")
    .problems(&[503]);
    let replay = json(
        "replayPolicy",
        "Access records decided again by a policy: what it changes",
        "PolicyReplayed",
    )
    .body("PolicyReplay")
    .problems(&[503]);
    let events = Operation::new(
        "followEvents",
        "Lifecycle events, and access records as they happen",
    )
    .query(
        "follow",
        yes_or_no,
        "`false`: what is stored, then the end.",
    )
    .query("after", shape::digits, "Begin after this cursor.")
    .header("Last-Event-ID", "As `after`; wins over it.")
    .answer(200, Media::Events)
    .problems(&[503]);
    let revoke = json(
        "revokeCredential",
        "One handle, token or token id",
        "Revoked",
    )
    .body("Revoke")
    .problems(&[404, 429, 503]);
    let drain = Operation::new("drain", "Begin to go down").answer(202, Media::Json("Draining"));
    let reload = json("reload", "Apply the configuration file again", "Reloaded").problems(&[422]);
    let rotate = json("rotateKeys", "A new key signs from now on", "KeyRotated")
        .header(
            "Idempotency-Key",
            "The same key again makes no other one, and is answered with what signs now.",
        )
        .problems(&[409, 500]);
    let retire = json("retireKey", "What a key signed is good no more", "Keys")
        .body("RetireKey")
        .problems(&[404, 409, 500]);
    let verify = json(
        "verifyStore",
        "Every page of the store against its checksum",
        "StoreVerified",
    )
    .problems(&[503]);
    let keys = json("listKeys", "The signing keys, without secrets", "Keys");
    let status = json(
        "status",
        "One screen; of a namespace, what is its own",
        "Status",
    );
    let owners = json("listOwners", "What each owner uses", "Owners")
        .query(
            "limit",
            page_size,
            "Owners of one page, 1000 by default and at most.",
        )
        .query(
            "after",
            shape::text,
            "The cursor `next` of the page before.",
        );
    let owner = json("showOwner", "What an owner uses of its quota", "OwnerShown");
    let hooks = json(
        "listWebhooks",
        "How deliveries go, and what was given up",
        "Webhooks",
    )
    .problems(&[503]);
    let redeliver = Operation::new("redeliverWebhook", "One more attempt at what was given up")
        .answer(202, Media::Json("Redelivering"))
        .body("Redeliver")
        .problems(&[404, 503]);
    let begin = json(
        "beginProbe",
        "What an agent elsewhere needs for one run of checks",
        "ProbeLent",
    )
    .problems(&[409, 503]);
    let report = json("reportProbe", "What the agent found", "ProbeTaken")
        .body("ProbeReport")
        .problems(&[409]);
    let document = json("openapi", "This document", "OpenApi");
    api.route(
        "/admin/api/v1/policy:explain",
        vec![post(policy::explain, vec![explain])],
    )
    .route(
        "/admin/api/v1/policy:test",
        vec![post(policy::test, vec![test])],
    )
    .route(
        "/admin/api/v1/policy:replay",
        vec![post(policy::replay, vec![replay])],
    )
    .route(
        "/admin/api/v1/events",
        vec![get(events::stream, vec![events])],
    )
    .route(
        "/admin/api/v1/status",
        vec![get(control::status, vec![status])],
    )
    .route(
        "/admin/api/v1/owners",
        vec![get(owners::list, vec![owners])],
    )
    .route(
        "/admin/api/v1/owners/{owner}",
        vec![get(owners::show, vec![owner])],
    )
    .route(
        "/admin/api/v1/reload",
        vec![post(control::reload, vec![reload])],
    )
    .route(
        "/admin/api/v1/drain",
        vec![post(control::drain, vec![drain])],
    )
    .route(
        "/admin/api/v1/webhooks",
        vec![get(webhooks::list, vec![hooks])],
    )
    .route(
        "/admin/api/v1/webhooks:redeliver",
        vec![post(webhooks::redeliver, vec![redeliver])],
    )
    .route(
        "/admin/api/v1/store:verify",
        vec![post(control::verify_store, vec![verify])],
    )
    .route("/admin/api/v1/keys", vec![get(control::keys, vec![keys])])
    .route(
        "/admin/api/v1/keys:rotate",
        vec![post(control::rotate_keys, vec![rotate])],
    )
    .route(
        "/admin/api/v1/keys:retire",
        vec![post(control::retire_key, vec![retire])],
    )
    .route(
        "/admin/api/v1/credentials:revoke",
        vec![post(control::revoke_credential, vec![revoke])],
    )
    .route(
        "/admin/api/v1/probe:begin",
        vec![post(probe::begin, vec![begin])],
    )
    .route(
        "/admin/api/v1/probe:report",
        vec![post(probe::report, vec![report])],
    )
    .route(
        "/admin/openapi.json",
        vec![get(document_of, vec![document])],
    )
}

/// `GET /admin/openapi.json`.
async fn document_of() -> axum::response::Response {
    super::request::json(http::StatusCode::OK, document())
}

/// The document, made once, for the first who asks.
pub(super) fn document() -> &'static Value {
    static DOCUMENT: std::sync::LazyLock<Value> =
        std::sync::LazyLock::new(|| table(Api::documented()).document());
    &DOCUMENT
}
