//! Bodies of requests. `Egress` and its `Rule` are of answers too: what is granted is shown as it may be asked for.

use utoipa::openapi::{RefOr, Schema};

use super::to;
use crate::{
    admin::{
        logs,
        openapi::shape::{
            any, any_of, at_most, boolean, count, free, integer, list, map, pattern, required,
            short, strict, text, text_or_count, texts, with, words,
        },
    },
    session::Observation,
};

/// `300` (seconds), `250ms`, `10s`, `5m`, `1h`, `2d`.
fn duration() -> RefOr<Schema> {
    pattern("^(0|[1-9][0-9]{0,5})(ms|s|m|h|d)?$")
}

fn rule() -> RefOr<Schema> {
    let ech = any_of([words(["outer", "deny"]), strict([("publicNames", texts())])]);
    let http = strict([("methods", texts()), ("pathPrefixes", texts())]);
    strict([
        ("host", text()),
        ("tls", words(["require", "auto", "opaque"])),
        ("ech", ech),
        ("http", http),
    ])
}

fn egress() -> RefOr<Schema> {
    strict([
        ("defaultAction", words(["allow", "deny"])),
        ("allowedHosts", texts()),
        ("deniedHosts", texts()),
        ("allowedAddresses", texts()),
        ("rules", list(to("Rule"))),
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
    let bytes = || text_or_count();
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

/// Whose policy is asked about: a session's, or that of one that would ask for this.
fn about() -> RefOr<Schema> {
    ["provider", "namespace", "session"]
        .into_iter()
        .fold(grant(), |about, key| with(about, key, text()))
}

/// What a tunnel would begin with.
fn began() -> RefOr<Schema> {
    let began = strict([
        ("as", words(["tls", "other"])),
        ("sni", text()),
        ("ech", boolean()),
        ("echDraft", boolean()),
    ]);
    required(began, "as")
}

/// One of a suite's `tests`.
fn expectation() -> RefOr<Schema> {
    let expectation = strict([
        ("target", text()),
        ("expect", words(["allow", "deny"])),
        ("reason", text()),
        ("rule", text()),
        ("addresses", texts()),
        ("method", text()),
        ("path", text()),
        ("fields", map(any_of([text(), texts()]))),
        ("began", began()),
    ]);
    required(required(expectation, "target"), "expect")
}

/// Every schema of a body, by name.
pub(super) fn all() -> Vec<(&'static str, RefOr<Schema>)> {
    let explain = [
        ("addresses", texts()),
        ("method", text()),
        ("path", text()),
        ("fields", map(any_of([text(), texts()]))),
        ("began", began()),
    ]
    .into_iter()
    .fold(with(about(), "target", text()), |explain, (key, schema)| {
        with(explain, key, schema)
    });
    let tests = with(about(), "tests", list(expectation()));
    let records = with(about(), "records", list(free()));
    let states = words(Observation::STATES);
    let reasons = words(Observation::REASONS);
    let observe = strict([
        ("state", states),
        ("reason", reasons),
        ("generation", count()),
    ]);
    let record = strict([
        ("stream", words(["stdout", "stderr", "runtime"])),
        ("text", short(logs::MAX_TEXT)),
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
    let workload = with(grant(), "executable", boolean());
    let workload = with(workload, "hostServices", texts());
    vec![
        ("Rule", rule()),
        ("Egress", egress()),
        ("Bind", free()),
        ("Nothing", strict([])),
        ("Observe", required(observe, "state")),
        (
            "AppendLog",
            required(
                strict([("records", at_most(logs::MAX_LIMIT, record))]),
                "records",
            ),
        ),
        ("CreateSession", create()),
        ("PatchSession", grant()),
        ("Act", strict([("reason", text())])),
        ("Keepalive", keepalive),
        ("Explain", required(explain, "target")),
        ("PolicyTest", required(tests, "tests")),
        ("PolicyReplay", required(records, "records")),
        (
            "Revoke",
            required(strict([("credential", text())]), "credential"),
        ),
        ("RetireKey", required(strict([("kid", text())]), "kid")),
        (
            "Redeliver",
            required(strict([("name", text()), ("cursor", count())]), "name"),
        ),
        ("ProbeReport", report),
        ("Workload", workload),
    ]
}
