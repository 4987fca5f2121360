//! Schemas of bodies and answers. Readers and writers are the authority; tests and the conformance run hold these to
//! what they really take and give.

use serde_json::Value;
use utoipa::openapi::{Ref, RefOr, Schema, Type};

use super::shape::{
    any, any_of, boolean, constant, count, free, integer, list, map, object, or_null, pattern,
    required, strict, text, texts, with, words,
};
use crate::session::Observation;

/// Every schema, by name.
pub(super) fn all() -> impl Iterator<Item = (&'static str, RefOr<Schema>)> {
    answers().into_iter().chain(requests())
}

fn to(name: &str) -> RefOr<Schema> {
    Ref::from_schema_name(name).into()
}

fn nullable(of: impl Into<RefOr<Schema>>) -> RefOr<Schema> {
    any_of([of.into(), super::shape::of(Type::Null)])
}

/// `300` (seconds), `250ms`, `10s`, `5m`, `1h`, `2d`.
fn duration() -> RefOr<Schema> {
    pattern("^(0|[1-9][0-9]{0,5})(ms|s|m|h|d)?$")
}

fn answers() -> Vec<(&'static str, RefOr<Schema>)> {
    let key = object([
        ("kid", text()),
        ("signing", boolean()),
        ("created", or_null(Type::String)),
    ]);
    let hook = object([
        ("name", text()),
        ("url", text()),
        ("cursor", count()),
        ("delivered", count()),
        ("attempts", count()),
        ("error", or_null(Type::String)),
        ("missed", count()),
        ("deadLetters", list(free())),
    ]);
    let file = object([("path", text()), ("pem", text())]);
    let page = object([("sessions", list(to("Session")))]);
    let changed = object([("session", to("Session")), ("stale", boolean())]);
    let changed = with(changed, "env", map(text()));
    let mut answers = vec![
        (
            "Problem",
            object([
                ("type", text()),
                ("title", text()),
                ("status", count()),
                ("detail", text()),
            ]),
        ),
        ("Sessions", with(page, "next", text())),
        ("SessionShown", object([("session", to("Session"))])),
        ("SessionChanged", with(changed, "files", list(file))),
        ("Session", session()),
        (
            "Explanation",
            object([
                ("target", text()),
                ("outcome", words(["allow", "deny"])),
                ("reason", or_null(Type::String)),
                ("rule", or_null(Type::String)),
                ("hint", or_null(Type::String)),
                ("steps", texts()),
            ]),
        ),
        ("Status", status()),
        (
            "Owners",
            with(object([("owners", list(to("Owner")))]), "next", text()),
        ),
        ("OwnerShown", object([("owner", to("Owner"))])),
        (
            "Owner",
            object(quota().chain([("namespace", text()), ("owner", text())])),
        ),
        ("Keys", object([("keys", list(key))])),
        (
            "KeyRotated",
            object([("signing", text()), ("keys", list(any()))]),
        ),
        ("Webhooks", object([("webhooks", list(hook))])),
        ("Revoked", object([("revoked", constant(true))])),
        (
            "Reloaded",
            object([("reloaded", constant(true)), ("detail", text())]),
        ),
        ("StoreVerified", store_verified()),
        ("Draining", object([("draining", constant(true))])),
        ("Capabilities", object([("capabilities", list(free()))])),
        ("Resolved", object([("resolved", any())])),
        ("Log", free()),
        (
            "ProbeLent",
            object([
                ("run", text()),
                ("publicUrl", text()),
                ("quic", boolean()),
                ("certificateSetting", text()),
                ("caPem", or_null(Type::String)),
                ("relayToken", text()),
                ("egressToken", text()),
                ("origin", text()),
                ("canary", or_null(Type::String)),
                ("timeoutMilliseconds", count()),
                ("seconds", count()),
            ]),
        ),
        ("ProbeTaken", object([("taken", count())])),
        ("Appended", object([("last", count())])),
        ("OpenApi", object([("openapi", text()), ("paths", free())])),
    ];
    answers.extend(profiles());
    answers
}

fn profiles() -> Vec<(&'static str, RefOr<Schema>)> {
    let access = words(["none", "relay", "direct"]);
    let mode = words(["none", "cidr", "hostname"]);
    let profile = object([
        ("canHostPlugins", boolean()),
        ("hostServiceAccess", access),
        ("egressMode", mode),
    ]);
    let shortfall = object([
        (
            "field",
            words(["canHostPlugins", "hostServiceAccess", "egressMode"]),
        ),
        ("reason", text()),
        ("since", or_null(Type::Integer)),
        ("setting", or_null(Type::String)),
    ]);
    let last = object([
        ("outcome", words(["pass", "fail", "unknown"])),
        ("reason", or_null(Type::String)),
        ("at", count()),
        ("ageSeconds", count()),
        ("milliseconds", count()),
    ]);
    let check = object([
        ("name", text()),
        ("state", words(["works", "fails", "unknown"])),
        ("since", or_null(Type::Integer)),
        ("reason", or_null(Type::String)),
        ("setting", or_null(Type::String)),
        ("last", nullable(last)),
    ]);
    let both = object([
        ("advertised", nullable(to("Profile"))),
        ("effective", nullable(to("Profile"))),
    ]);
    let provider = object([
        ("name", text()),
        ("driver", text()),
        ("default", boolean()),
        ("loaded", boolean()),
        ("sessionCount", count()),
        ("profile", both),
        ("effectiveSince", or_null(Type::Integer)),
        ("shortfalls", list(to("Shortfall"))),
        ("checks", list(to("Check"))),
        ("error", or_null(Type::String)),
    ]);
    let probed = || object([("runs", count()), ("settled", boolean())]);
    let provider = with(provider, "probed", probed());
    let needs = object([
        ("executable", boolean()),
        ("hostServices", boolean()),
        ("hostnameEgress", boolean()),
    ]);
    let reason = words([
        Value::from("cannot host executable providers in a host-reachable session"),
        Value::from("cannot provide host service access required by this provider"),
        Value::from("cannot preserve hostname-based egress required by this provider"),
        Value::Null,
    ]);
    let placement = object([
        ("placeable", boolean()),
        ("reason", reason),
        ("needs", needs),
        ("effective", nullable(to("Profile"))),
    ]);
    let placement = with(placement, "probed", probed());
    vec![
        ("Profile", profile),
        ("Shortfall", shortfall),
        ("Check", check),
        ("Provider", provider),
        ("Providers", list(to("Provider"))),
        ("Placement", placement),
    ]
}

fn status() -> RefOr<Schema> {
    let status = object([
        ("ready", boolean()),
        ("notReady", or_null(Type::String)),
        ("storeReadable", boolean()),
        ("sessions", map(count())),
        ("providers", to("Providers")),
        ("refusalsLastHour", map(count())),
    ]);
    // The gateway as a whole has the first ones, a namespace the others.
    [
        ("accessRecordsDropped", count()),
        (
            "storeVerified",
            nullable(with(store_verified(), "at", text())),
        ),
        ("namespace", text()),
        ("quota", nullable(object(quota()))),
    ]
    .into_iter()
    .fold(status, |status, (key, schema)| with(status, key, schema))
}

fn store_verified() -> RefOr<Schema> {
    object([
        ("whole", constant(true)),
        ("bytes", count()),
        ("sessions", count()),
        ("revocations", count()),
        ("events", count()),
        ("logRecords", count()),
        ("milliseconds", count()),
    ])
}

/// What is in use of a quota, and its bounds.
fn quota() -> impl Iterator<Item = (&'static str, RefOr<Schema>)> {
    let limit = || ("limit", or_null(Type::Integer));
    let used = || object([("inUse", count()), limit()]);
    [
        ("sessions", with(used(), "states", map(count()))),
        ("tunnels", used()),
        ("bytes", used()),
        ("opensPerSecond", object([limit()])),
        ("bandwidth", object([limit()])),
        ("lastActivity", or_null(Type::String)),
    ]
    .into_iter()
}

fn session() -> RefOr<Schema> {
    let states = words(["idle", "running", "paused", "stopped"]);
    let session = object([
        ("namespace", text()),
        ("provider", text()),
        ("id", text()),
        ("generation", count()),
        ("state", states),
        ("policyGeneration", count()),
        ("etag", text()),
        ("createdAt", text()),
        ("changedAt", text()),
        ("startedAt", or_null(Type::String)),
        ("expiresAt", or_null(Type::String)),
        ("egress", free()),
        ("services", free()),
        ("expose", free()),
        ("limits", free()),
    ]);
    let usage = object([
        ("open", count()),
        ("bytes", count()),
        ("lastActivity", text()),
    ]);
    let session = with(session, "dialTargets", map(text()));
    let session = with(session, "withdrawn", boolean());
    with(with(session, "dialErrors", map(text())), "usage", usage)
}

fn egress() -> RefOr<Schema> {
    let ech = any_of([words(["outer", "deny"]), strict([("publicNames", texts())])]);
    let http = strict([("methods", texts()), ("pathPrefixes", texts())]);
    let rule = strict([
        ("host", text()),
        ("tls", words(["require", "auto", "opaque"])),
        ("ech", ech),
        ("http", http),
    ]);
    strict([
        ("defaultAction", words(["allow", "deny"])),
        ("allowedHosts", texts()),
        ("deniedHosts", texts()),
        ("allowedAddresses", texts()),
        ("rules", list(rule)),
        ("hosts", addresses()),
        ("mode", words(["enforce", "report"])),
    ])
}

fn addresses() -> RefOr<Schema> {
    map(any_of([text(), texts()]))
}

fn services() -> RefOr<Schema> {
    let http = strict([
        ("hosts", texts()),
        ("origins", texts()),
        ("methods", texts()),
        ("pathPrefixes", texts()),
        ("setHeaders", map(text())),
    ]);
    let service = strict([
        ("url", text()),
        ("health", text()),
        ("halfCloseTimeout", duration()),
        ("idleTimeout", duration()),
        ("peerUid", count()),
        ("grpc", strict([("methodPrefix", text())])),
        ("proxyProtocol", words(["v2"])),
        ("http", http),
    ]);
    any_of([texts(), map(any_of([text(), service]))])
}

fn expose() -> RefOr<Schema> {
    let dial = || words(["unix", "tcp", "tls"]);
    let exposed = strict([
        ("dial", dial()),
        ("port", integer(1, 65_535)),
        ("peerUid", count()),
        ("patience", duration()),
        ("halfCloseTimeout", duration()),
        ("idleTimeout", duration()),
    ]);
    any_of([texts(), map(any_of([dial(), exposed]))])
}

fn limits() -> RefOr<Schema> {
    let bytes = || super::shape::text_or_count();
    strict([
        ("tunnels", count()),
        ("tunnelsPerDestination", count()),
        ("opensPerSecond", count()),
        ("bytes", bytes()),
        ("bandwidth", bytes()),
    ])
}

/// What a session may be given: the keys that creates and patches share.
fn grant() -> RefOr<Schema> {
    strict([
        ("egress", to("Egress")),
        ("allow", texts()),
        ("hosts", addresses()),
        ("services", services()),
        ("expose", expose()),
        ("limits", limits()),
        ("capabilities", list(any())),
    ])
}

fn create() -> RefOr<Schema> {
    let more = [
        ("id", text()),
        ("namespace", text()),
        ("start", boolean()),
        ("ttl", duration()),
        ("idleTimeout", duration()),
        ("maxLifetime", duration()),
        ("onExpiry", words(["reset", "pause", "stop"])),
        ("onPause", words(["close", "hold"])),
        ("scope", text()),
        ("sources", texts()),
        ("clientKey", text()),
        ("owner", text()),
    ];
    more.into_iter()
        .fold(grant(), |create, (key, schema)| with(create, key, schema))
}

fn requests() -> Vec<(&'static str, RefOr<Schema>)> {
    let explain = strict([
        ("provider", text()),
        ("namespace", text()),
        ("session", text()),
        ("target", text()),
        ("egress", to("Egress")),
        ("services", services()),
        ("expose", expose()),
        ("limits", limits()),
    ]);
    let states = words(Observation::STATES);
    let reasons = words(Observation::REASONS);
    let observe = strict([
        ("state", states),
        ("reason", reasons),
        ("generation", count()),
    ]);
    let record = strict([
        ("stream", words(["stdout", "stderr", "runtime"])),
        ("text", text()),
        ("time", text()),
    ]);
    let checks = [
        "reach",
        "certificate",
        "http2",
        "quic",
        "token",
        "proxy.refuses",
        "proxy.judges",
        "proxy.carries",
        "proxy.canary",
    ];
    let finding = strict([
        ("name", words(checks)),
        ("outcome", words(["pass", "fail", "unknown"])),
        ("reason", text()),
        ("setting", text()),
        ("milliseconds", count()),
    ]);
    let finding = ["name", "outcome", "milliseconds"]
        .into_iter()
        .fold(finding, required);
    let report = strict([("run", text()), ("checks", list(finding))]);
    let report = ["run", "checks"].into_iter().fold(report, required);
    let keepalive = strict([
        ("reason", text()),
        ("extendSeconds", integer(1, 31_622_400)),
    ]);
    let workload = strict([
        ("executable", boolean()),
        ("hostServices", texts()),
        ("egress", to("Egress")),
    ]);
    vec![
        ("Egress", egress()),
        ("Bind", free()),
        ("Observe", required(observe, "state")),
        (
            "AppendLog",
            required(strict([("records", list(record))]), "records"),
        ),
        ("CreateSession", create()),
        ("PatchSession", grant()),
        ("Act", strict([("reason", text())])),
        ("Keepalive", keepalive),
        ("Explain", required(explain, "target")),
        (
            "Revoke",
            required(strict([("credential", text())]), "credential"),
        ),
        ("RetireKey", required(strict([("kid", text())]), "kid")),
        ("ProbeReport", report),
        ("Workload", workload),
    ]
}
