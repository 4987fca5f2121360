//! Schemas of bodies and answers. Readers and writers are the authority; tests and the conformance run hold these to
//! what they really take and give.

use serde_json::Value;
use utoipa::openapi::{Ref, RefOr, Schema, Type};

use super::shape::{
    any_of, boolean, constant, count, free, list, map, object, or_null, text, texts, with, words,
};

mod requests;
mod session;

/// Every schema, by name.
pub(super) fn all() -> impl Iterator<Item = (&'static str, RefOr<Schema>)> {
    let answers = answers().into_iter().chain(session::all());
    answers.chain(profiles()).chain(requests::all())
}

fn to(name: &str) -> RefOr<Schema> {
    Ref::from_schema_name(name).into()
}

fn nullable(of: impl Into<RefOr<Schema>>) -> RefOr<Schema> {
    any_of([of.into(), super::shape::of(Type::Null)])
}

fn answers() -> Vec<(&'static str, RefOr<Schema>)> {
    let key = object([
        ("kid", text()),
        ("signing", boolean()),
        ("created", or_null(Type::String)),
    ]);
    let letter = object([
        ("cursor", count()),
        ("event", to("Event")),
        ("error", or_null(Type::String)),
        ("attempts", count()),
    ]);
    let hook = object([
        ("name", text()),
        ("url", text()),
        ("cursor", count()),
        ("delivered", count()),
        ("attempts", count()),
        ("error", or_null(Type::String)),
        ("missed", count()),
        ("redelivering", count()),
        ("deadLetters", list(letter)),
    ]);
    vec![
        ("Problem", problem()),
        (
            "Explanation",
            object([
                ("target", text()),
                ("outcome", words(["allow", "deny"])),
                ("reason", or_null(Type::String)),
                ("rule", or_null(Type::String)),
                ("origin", or_null(Type::String)),
                ("hint", or_null(Type::String)),
                ("hintFor", or_null(Type::String)),
                ("steps", texts()),
            ]),
        ),
        ("PolicyTested", tested()),
        ("PolicyReplayed", replayed()),
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
        ("Key", key),
        ("Keys", object([("keys", list(to("Key")))])),
        (
            "KeyRotated",
            object([("signing", text()), ("keys", list(to("Key")))]),
        ),
        ("Event", event()),
        ("Webhooks", object([("webhooks", list(hook))])),
        ("Redelivering", object([("redelivering", count())])),
        (
            "Revoked",
            object([("revoked", constant(true)), ("known", boolean())]),
        ),
        (
            "Reloaded",
            object([("reloaded", constant(true)), ("detail", text())]),
        ),
        ("StoreVerified", store_verified()),
        ("Draining", object([("draining", constant(true))])),
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
        (
            "OpenApi",
            object([
                ("openapi", text()),
                ("info", free()),
                ("paths", free()),
                ("components", free()),
            ]),
        ),
    ]
}

fn tested() -> RefOr<Schema> {
    let position = object([("line", count()), ("column", count())]);
    let test = object([
        ("position", position),
        ("target", text()),
        ("passed", boolean()),
        ("differences", texts()),
        ("outcome", words(["allow", "deny"])),
        ("reason", or_null(Type::String)),
        ("rule", or_null(Type::String)),
    ]);
    object([
        ("passed", count()),
        ("failed", count()),
        ("tests", list(test)),
    ])
}

fn replayed() -> RefOr<Schema> {
    let changes = || {
        let change = object([("records", count()), ("reason", text())]);
        let change = with(with(change, "rule", text()), "hint", text());
        object([
            ("records", count()),
            ("reasons", map(count())),
            ("targets", map(change)),
        ])
    };
    object([
        ("outcome", words(["same", "changed", "unknown"])),
        ("records", count()),
        ("stillAllowed", count()),
        ("stillDenied", count()),
        ("newlyDenied", changes()),
        ("newlyAllowed", changes()),
        ("unknown", changes()),
        ("wouldRefuse", count()),
        ("unjudged", count()),
        ("malformed", count()),
        ("malformedLines", texts()),
    ])
}

fn problem() -> RefOr<Schema> {
    let problem = object([
        ("type", text()),
        ("title", text()),
        ("status", count()),
        ("detail", text()),
    ]);
    let fault = object([
        ("line", count()),
        ("column", count()),
        ("path", text()),
        ("message", text()),
        ("hint", or_null(Type::String)),
    ]);
    let scope = || words(["read", "operate", "admin"]);
    // Each problem has its own of these (RFC 9457 §3.2).
    [
        ("errors", list(fault)),
        ("state", session::states()),
        ("action", text()),
        ("etag", text()),
        ("waiting", count()),
        ("inUse", count()),
        ("limit", count()),
        ("providers", texts()),
        ("needed", scope()),
        ("scope", scope()),
    ]
    .into_iter()
    .fold(problem, |problem, (key, schema)| with(problem, key, schema))
}

/// Of a session, of a namespace or of a provider; or of none.
fn event() -> RefOr<Schema> {
    let session = object([
        ("namespace", text()),
        ("provider", text()),
        ("id", text()),
        ("generation", count()),
        ("policyGeneration", count()),
        ("state", session::states()),
    ]);
    let provider = object([
        ("name", text()),
        ("before", nullable(to("Profile"))),
        ("after", to("Profile")),
        ("shortfalls", list(to("Shortfall"))),
    ]);
    let provider = ["since", "missed"]
        .into_iter()
        .fold(provider, |provider, key| with(provider, key, count()));
    let event = object([("time", text()), ("type", text())]);
    [
        ("namespace", text()),
        ("session", with(session, "owner", text())),
        ("provider", provider),
        ("reason", text()),
        ("by", object([("credential", text()), ("scope", text())])),
    ]
    .into_iter()
    .fold(event, |event, (key, schema)| with(event, key, schema))
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
    let listener = object([
        ("kind", text()),
        ("address", text()),
        ("transports", texts()),
    ]);
    let status = object([
        ("version", text()),
        ("ready", boolean()),
        ("notReady", or_null(Type::String)),
        ("storeReadable", boolean()),
        ("sessions", map(count())),
        ("providers", to("Providers")),
        ("refusalsLastHour", map(count())),
        ("refusalsSince", text()),
    ]);
    // The gateway as a whole has the first ones, a namespace the others.
    [
        ("uptimeSeconds", count()),
        ("listeners", list(listener)),
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
    let states = ("states", map(count()));
    [
        ("sessions", object([("inUse", count()), limit(), states])),
        ("records", used()),
        ("logs", used()),
        ("tunnels", used()),
        ("bytes", used()),
        ("opensPerSecond", object([limit()])),
        ("bandwidth", object([limit()])),
        ("lastActivity", or_null(Type::String)),
    ]
    .into_iter()
}
