//! Sessions as answers show them: the session itself, its grant and where that comes from, its capabilities and its log.

use serde_json::Value;
use utoipa::openapi::{RefOr, Schema, Type};

use super::{nullable, to};
use crate::{
    admin::openapi::shape::{
        boolean, count, list, map, matching, object, or_null, partial, text, texts, with, words,
    },
    session::{LogLine, Observation, lifecycle::State},
};

/// What a session may be bounded by.
const LIMITS: [&str; 5] = [
    "tunnels",
    "tunnelsPerDestination",
    "opensPerSecond",
    "bytes",
    "bandwidth",
];

/// Every schema of an answer about sessions, by name.
pub(super) fn all() -> Vec<(&'static str, RefOr<Schema>)> {
    let page = object([("sessions", list(to("Session")))]);
    let page_of = |what| object([("capabilities", list(to(what)))]);
    vec![
        ("Sessions", with(page, "next", text())),
        ("SessionShown", object([("session", to("Session"))])),
        ("SessionChanged", changed()),
        ("Session", session()),
        ("Service", service()),
        ("Listener", listener()),
        ("Limits", partial(LIMITS.map(|key| (key, count())))),
        ("Binding", binding()),
        ("Capability", capability()),
        ("Catalogue", page_of("Capability")),
        ("Capabilities", page_of("Binding")),
        ("Resolved", object([("resolved", resolved())])),
        ("LogRecord", log_record()),
        ("Log", log()),
        ("Appended", object([("last", count())])),
    ]
}

pub(super) fn states() -> RefOr<Schema> {
    words(State::ALL.map(State::as_str))
}

/// A duration as every answer writes it.
fn milliseconds() -> RefOr<Schema> {
    matching("^[0-9]+ms$")
}

fn changed() -> RefOr<Schema> {
    let file = object([("path", text()), ("pem", text())]);
    let changed = object([
        ("session", to("Session")),
        ("stale", boolean()),
        ("staleBindings", texts()),
    ]);
    // The first two where credentials are issued, the third where a runtime observes.
    [
        ("env", map(text())),
        ("files", list(file)),
        ("current", boolean()),
    ]
    .into_iter()
    .fold(changed, |changed, (key, schema)| with(changed, key, schema))
}

fn session() -> RefOr<Schema> {
    let word = || or_null(Type::String);
    let seconds = || or_null(Type::Number);
    let queued = object([("since", text()), ("position", count())]);
    let reasons = Observation::REASONS.map(Value::from);
    let observed = object([
        ("state", words(Observation::STATES)),
        ("reason", words(reasons.into_iter().chain([Value::Null]))),
        ("generation", count()),
        ("at", text()),
    ]);
    let usage = object([
        ("open", count()),
        ("bytes", count()),
        ("lastActivity", text()),
    ]);
    let session = object([
        ("namespace", text()),
        ("provider", text()),
        ("id", text()),
        ("generation", count()),
        ("state", states()),
        ("policyGeneration", count()),
        ("etag", text()),
        ("createdAt", text()),
        ("changedAt", text()),
        ("startedAt", word()),
        ("expiresAt", word()),
        ("endsAt", word()),
        ("pausedAt", word()),
        ("ttlSeconds", seconds()),
        ("idleTimeoutSeconds", seconds()),
        ("maxLifetimeSeconds", seconds()),
        ("onExpiry", words(["reset", "pause", "stop"])),
        ("onPause", words(["close", "hold"])),
        ("scope", word()),
        ("owner", word()),
        ("queued", nullable(queued)),
        ("observed", nullable(observed)),
        ("sources", texts()),
        ("clientKey", word()),
        ("capabilities", list(to("Binding"))),
        ("reason", word()),
        ("egress", to("Egress")),
        ("services", map(to("Service"))),
        ("expose", map(to("Listener"))),
        ("limits", to("Limits")),
    ]);
    // The first where its end is not durable yet, the others while a generation lives.
    [
        ("withdrawn", boolean()),
        ("usage", usage),
        ("dialTargets", map(text())),
        ("dialErrors", map(text())),
    ]
    .into_iter()
    .fold(session, |session, (key, schema)| with(session, key, schema))
}

fn service() -> RefOr<Schema> {
    let http = partial([
        ("hosts", texts()),
        ("origins", texts()),
        ("methods", texts()),
        ("pathPrefixes", texts()),
        ("setHeaders", map(text())),
    ]);
    partial([
        ("url", text()),
        ("health", text()),
        ("halfCloseTimeout", milliseconds()),
        ("idleTimeout", milliseconds()),
        ("peerUid", count()),
        ("grpc", object([("methodPrefix", text())])),
        ("proxyProtocol", words(["v2"])),
        ("http", http),
    ])
}

fn listener() -> RefOr<Schema> {
    let listener = object([("dial", words(["unix", "tcp", "tls"]))]);
    [
        ("port", count()),
        ("peerUid", count()),
        ("patience", milliseconds()),
        ("halfCloseTimeout", milliseconds()),
        ("idleTimeout", milliseconds()),
    ]
    .into_iter()
    .fold(listener, |listener, (key, schema)| {
        with(listener, key, schema)
    })
}

fn binding() -> RefOr<Schema> {
    object([
        ("name", text()),
        ("enabled", boolean()),
        ("installedAt", text()),
        ("known", boolean()),
        ("fault", or_null(Type::String)),
        ("description", or_null(Type::String)),
        ("secrets", nullable(texts())),
        ("services", nullable(texts())),
        ("limits", nullable(to("Limits"))),
    ])
}

fn capability() -> RefOr<Schema> {
    object([
        ("name", text()),
        ("description", or_null(Type::String)),
        ("secrets", texts()),
        ("egress", nullable(to("Egress"))),
        ("services", nullable(map(to("Service")))),
        ("expose", nullable(map(to("Listener")))),
        ("limits", nullable(to("Limits"))),
    ])
}

/// What the session and its capabilities come to, and which of them say so.
fn resolved() -> RefOr<Schema> {
    let said = |value| object([("value", value), ("from", texts())]);
    let egress = partial([
        ("defaultAction", said(words(["allow", "deny"]))),
        ("allowedHosts", list(said(text()))),
        ("deniedHosts", list(said(text()))),
        ("allowedAddresses", list(said(text()))),
        ("rules", list(said(to("Rule")))),
        ("hosts", map(said(texts()))),
        ("mode", said(words(["enforce", "report"]))),
    ]);
    let service = object([
        ("value", to("Service")),
        ("from", texts()),
        ("addressFrom", or_null(Type::String)),
    ]);
    let secret = object([("name", text()), ("from", texts())]);
    object([
        ("policyGeneration", count()),
        ("state", states()),
        ("egress", egress),
        ("services", map(service)),
        ("expose", map(said(to("Listener")))),
        ("limits", partial(LIMITS.map(|key| (key, said(count()))))),
        ("secrets", list(secret)),
        ("capabilities", list(to("Binding"))),
        ("fault", or_null(Type::String)),
    ])
}

fn log_record() -> RefOr<Schema> {
    object([
        ("number", count()),
        ("time", text()),
        ("stream", words(LogLine::STREAMS)),
        ("text", text()),
        ("generation", count()),
    ])
}

fn log() -> RefOr<Schema> {
    object([
        ("records", list(to("LogRecord"))),
        ("next", count()),
        ("first", count()),
        ("last", count()),
        ("dropped", count()),
    ])
}
