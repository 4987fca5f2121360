//! The JSON Schema of the document. The reader is the authority; tests hold this to the keys it takes and the defaults
//! it gives, both ways.
use kinds::*;
use policy::{egress, grant, provider, service};
use serde_json::{Value, json};

mod kinds;
mod policy;

/// The schema (JSON Schema 2020-12).
#[must_use]
pub fn schema() -> Value {
    let mut root = object(vec![
        (
            "publicUrl",
            string(
                "The address the outside knows this gateway by: https://HOST[:PORT]. Absent: the first public listener's.",
            ),
        ),
        (
            "listeners",
            json!({"type": "array", "minItems": 1, "items": listener()}),
        ),
        ("tls", tls()),
        ("dns", dns()),
        ("store", store()),
        ("upstreamProxy", upstream_proxy()),
        ("keys", keys()),
        ("quotas", quotas()),
        ("limits", limits()),
        ("egress", egress(None)),
        ("services", by_name(service())),
        (
            "capabilities",
            by_name(object(grant(
                vec![
                    ("description", string("For people.")),
                    (
                        "secrets",
                        strings("Names of secrets a session needs with it; never their values."),
                    ),
                ],
                None,
            ))),
        ),
        ("runtime", object(vec![("providers", by_name(provider()))])),
        ("admin", admin()),
        ("probe", probe()),
        ("telemetry", telemetry()),
        ("compat", object(vec![("gestalt", gestalt())])),
    ]);
    if let Some(map) = root.as_object_mut() {
        map.insert(
            "$schema".to_owned(),
            json!("https://json-schema.org/draft/2020-12/schema"),
        );
        map.insert("title".to_owned(), json!("Sluicegate configuration"));
    }
    root
}

fn key_files() -> Properties {
    vec![
        ("certificate", string("PEM chain, leaf first.")),
        ("key", string("PEM private key.")),
    ]
}

fn listener_tls() -> Properties {
    let mut properties = key_files();
    properties.push((
        "clientCa",
        string("PEM roots that clients' certificates must chain to; absent: none is asked for."),
    ));
    properties
}

fn credential() -> Value {
    let credential = object(vec![
        ("name", string("For logs and answers.")),
        ("tokenFile", string("The file with its token (0600).")),
        (
            "tokenSha256",
            string("Or the token's SHA-256 in hexadecimal."),
        ),
        (
            "scopes",
            json!({"type": "array", "minItems": 1, "items": {"enum": ["read", "operate", "admin"]}}),
        ),
        (
            "namespaces",
            strings("The namespaces it sees. Absent: all; with an owner, default."),
        ),
        (
            "owner",
            string("Whose sessions it may touch. Absent: anybody's."),
        ),
    ]);
    required(credential, &["name", "scopes"])
}

fn gestalt() -> Value {
    let gestalt = object(vec![
        (
            "keyFile",
            string(
                "The file with gestaltd's key (0600): 64 hexadecimal characters as they are, anything else by Argon2id.",
            ),
        ),
        (
            "keyEnv",
            string("Or the environment variable that holds it."),
        ),
        ("ceiling", policy::ceiling()),
        (
            "services",
            strings("The services that tokens may name. Absent: none."),
        ),
        (
            "legacyDefaultAllow",
            boolean(
                false,
                "No hosts and no action in a token allow everything within the ceiling, instead of nothing.",
            ),
        ),
        (
            "verifySessions",
            choice(
                &["registry", "trust-token"],
                Some("registry"),
                "What a token's session is held against: the sessions of this gateway, or nothing.",
            ),
        ),
        (
            "provider",
            string("Whose sessions tokens name. Absent: the default provider's."),
        ),
        (
            "namespace",
            with_default(
                string("The namespace of the sessions that tokens name."),
                Some(json!("default")),
            ),
        ),
    ]);
    required(gestalt, &["ceiling"])
}

fn webhook() -> Value {
    let webhook = object(vec![
        ("name", string("For logs, answers and the store.")),
        ("url", string("Where events are posted.")),
        (
            "secretFile",
            string("The file with the secret that signs (0600)."),
        ),
        (
            "caFile",
            string("PEM roots its certificate may chain to, beside the system's."),
        ),
        (
            "events",
            strings("Types of events, or prefixes with *. Absent: all."),
        ),
        (
            "allowedAddresses",
            strings("Private addresses it may be at. Absent: none."),
        ),
        (
            "attempts",
            number(Some(12), "Attempts before an event is given up."),
        ),
    ]);
    required(webhook, &["name", "url", "secretFile"])
}

fn listener() -> Value {
    let listener = object(vec![
        (
            "kind",
            choice(
                &[
                    "public",
                    "plain",
                    "management",
                    "private",
                    "socks",
                    "transparent",
                    "sni",
                ],
                None,
                "What it serves.",
            ),
        ),
        (
            "address",
            string("IP:PORT or [IPv6]:PORT; port 0 lets the system choose."),
        ),
        (
            "privateNetwork",
            boolean(
                false,
                "kinds plain and socks: the private address stands in a network nobody else reaches.",
            ),
        ),
        (
            "quic",
            boolean(
                true,
                "kind public: QUIC on the UDP port of the same number.",
            ),
        ),
        (
            "tls",
            required(object(listener_tls()), &["certificate", "key"]),
        ),
        (
            "clientCa",
            string("kind private: PEM of who signs the certificates of hosts."),
        ),
        (
            "domain",
            string("kind private: what dial targets' names end in. Absent: listeners.sluicegate."),
        ),
        (
            "proxyProtocol",
            required(
                object(vec![(
                    "trusted",
                    strings("Addresses and ranges of the peers that send a PROXY header, always."),
                )]),
                &["trusted"],
            ),
        ),
        (
            "capture",
            choice(
                &["redirect", "tproxy"],
                Some("redirect"),
                "kind transparent: how the network brings connections here.",
            ),
        ),
        (
            "targetPort",
            number(Some(443), "kind sni: the port that targets have."),
        ),
        (
            "identify",
            choice(
                &["source", "header"],
                None,
                "kinds transparent and sni: how the session of a connection is known.",
            ),
        ),
        (
            "namespaces",
            strings(
                "With identify source: where sessions with that source are looked for. Absent: default.",
            ),
        ),
    ]);
    required(listener, &["kind", "address"])
}

fn tls() -> Value {
    let mut properties = key_files();
    properties.push((
        "names",
        strings("Further names or addresses of the leaf the private authority issues."),
    ));
    object(properties)
}

fn dns() -> Value {
    let addresses = json!({"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]});
    object(vec![
        (
            "servers",
            strings(
                "ADDRESS[:PORT], tls://ADDRESS[:PORT][#NAME] or https://ADDRESS[:PORT]/PATH[#NAME]. Absent: the system's.",
            ),
        ),
        (
            "caFile",
            string(
                "PEM file of who signs the certificates of tls:// and https:// servers. Absent: the system's roots.",
            ),
        ),
        ("hosts", by_name(addresses)),
        (
            "mixedAnswers",
            choice(
                &["refuse", "filter"],
                Some("refuse"),
                "What becomes of answers of which some are refused.",
            ),
        ),
        (
            "timeout",
            duration(Some("5s"), "One resolution, all its queries together."),
        ),
        ("cacheSize", number(Some(4096), "Names kept; 0 = no cache.")),
        (
            "minTtl",
            duration(Some("0s"), "Answers are kept at least this long."),
        ),
        (
            "maxTtl",
            duration(Some("1h"), "Answers are kept at most this long."),
        ),
        (
            "negativeTtl",
            duration(Some("30s"), "\"No such name\" is kept at most this long."),
        ),
        (
            "nat64",
            strings("NAT64 prefixes of this network, of length 32, 40, 48, 56, 64 or 96."),
        ),
    ])
}

fn upstream_proxy() -> Value {
    let proxy = object(vec![
        (
            "url",
            string("http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT."),
        ),
        (
            "credentialFile",
            string("The file with user:password (0600)."),
        ),
        (
            "caFile",
            string("PEM roots an https proxy's certificate may chain to, beside the system's."),
        ),
        (
            "ask",
            choice(
                &["address", "name"],
                Some("address"),
                "What the proxy is asked for: the address judged here, or the name.",
            ),
        ),
        (
            "bypass",
            strings(
                "Targets and addresses that are dialled from here, as in allowedHosts. Absent: loopback.",
            ),
        ),
    ]);
    required(proxy, &["url"])
}

fn keys() -> Value {
    object(vec![
        (
            "signingKeyFile",
            string("The Ed25519 key that signs, PKCS#8 in PEM (0600)."),
        ),
        (
            "signingKeyEnv",
            string("Or the environment variable that holds it."),
        ),
        (
            "verifyingKeyFiles",
            strings("Keys that signed before and still verify."),
        ),
    ])
}

fn quotas() -> Value {
    let mut properties = quota_bounds();
    properties.push(("owner", object(quota_bounds())));
    object(properties)
}

fn quota_bounds() -> Properties {
    vec![
        ("sessions", number(None, "Sessions that are not stopped.")),
        (
            "records",
            number(
                None,
                "Sessions that there is a record of, stopped ones too, one more for each 16 KiB of what one asks for; 10,000 more than sessions where that is set.",
            ),
        ),
        (
            "logs",
            bytes(
                None,
                "Bytes of their logs; 64MiB for each of sessions, and of 16 at least, where that is set.",
            ),
        ),
        ("tunnels", number(None, "Tunnels and streams open at once.")),
        ("opensPerSecond", number(None, "Opens per second.")),
        ("bytes", bytes(None, "Bytes both ways together.")),
        ("bandwidth", bytes(None, "Bytes per second each way.")),
    ]
}

fn limits() -> Value {
    object(vec![
        (
            "headTimeout",
            duration(Some("10s"), "A request's head must have arrived by then."),
        ),
        (
            "firstBytesTimeout",
            duration(
                Some("10s"),
                "A tunnel's first bytes must have arrived by then.",
            ),
        ),
        (
            "dialTimeout",
            duration(Some("10s"), "The upstream must have accepted by then."),
        ),
        (
            "idleTimeout",
            duration(
                Some("10m"),
                "A tunnel in which nothing moves is cut; 0 = never.",
            ),
        ),
        (
            "responseTimeout",
            duration(
                Some("0s"),
                "The head of the upstream's response must have arrived by then; 0 = never.",
            ),
        ),
        (
            "connections",
            number(Some(8192), "Downstream connections open at once."),
        ),
        (
            "connectionsPerSource",
            number(
                Some(0),
                "Of these, of one source: an IPv4 address, an IPv6 /64; 0 = no bound.",
            ),
        ),
        (
            "pendingOpens",
            number(Some(1024), "Opens of one session whose dial has not ended."),
        ),
        (
            "relayConnections",
            number(
                Some(16),
                "Connections at once that carry relay streams of one session; each may hold 64 MiB unread.",
            ),
        ),
        (
            "drainTimeout",
            duration(
                Some("30s"),
                "Open tunnels have this long after the signal to end.",
            ),
        ),
        (
            "maxHeadBytes",
            bytes(Some(64 << 10), "Largest head of a request: 1KiB to 1MiB."),
        ),
    ])
}

fn store() -> Value {
    let events = with_default(
        json!({
            "type": "integer", "minimum": 100, "maximum": 10_000_000,
            "description": "Events kept; what is too much goes of the namespace that holds most.",
        }),
        Some(json!(10_000)),
    );
    object(vec![
        (
            "path",
            string("The store's file. Absent: sluicegate.redb in the state directory."),
        ),
        (
            "verifyEvery",
            duration(
                Some("1h"),
                "The whole file is verified so often, beside every start; 1m to 3660d, 0 = at starts only.",
            ),
        ),
        (
            "retention",
            object(vec![
                (
                    "sessions",
                    duration(
                        Some("1d"),
                        "The record of a stopped session, with its log: 1m to 3660d.",
                    ),
                ),
                ("events", events),
                (
                    "revocations",
                    duration(
                        Some("366d"),
                        "The revocation of a token's id alone, of which nobody knows when it ends: 1h to 3660d.",
                    ),
                ),
            ]),
        ),
    ])
}

fn admin() -> Value {
    object(vec![
        (
            "tokenFile",
            string("The file with the admin token. Absent: admin.token in the state directory."),
        ),
        (
            "connections",
            number(Some(256), "Connections to management listeners at once."),
        ),
        (
            "requestsPerCredential",
            number(
                Some(64),
                "Requests under way at once of each credential that is bounded to a part.",
            ),
        ),
        (
            "allowedHosts",
            strings("Names and addresses a Host field may carry, beside the listener's own."),
        ),
        (
            "allowedOrigins",
            strings("Origins a browser may come from, beside the listener's own."),
        ),
        (
            "webhooks",
            json!({"type": "array", "minItems": 1, "items": webhook()}),
        ),
        (
            "credentials",
            json!({"type": "array", "minItems": 1, "items": credential()}),
        ),
    ])
}

fn probe() -> Value {
    let addresses = json!({"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]});
    object(vec![
        (
            "from",
            choice(
                &["self", "agent"],
                Some("self"),
                "Who makes the checks of the way in: the gateway itself, or agents elsewhere (`probe agent`).",
            ),
        ),
        (
            "interval",
            duration(
                Some("30s"),
                "Between two runs, give or take a tenth; 0 = never.",
            ),
        ),
        ("timeout", duration(Some("5s"), "Deadline of each check.")),
        ("resolve", addresses),
        (
            "canary",
            string("HOST[:PORT] that the proxy must let pass, beside the gateway's own canary."),
        ),
        (
            "name",
            string("A name that must resolve. Absent: the canary's."),
        ),
    ])
}

fn telemetry() -> Value {
    let log = with_default(
        string("Level of the diagnostic log, or directives."),
        Some(json!("info")),
    );
    let access = with_default(
        string("stdout, stderr, none, or a file."),
        Some(json!("stdout")),
    );
    object(vec![
        ("accessLog", access),
        (
            "refusalDetail",
            choice(
                &["full", "minimal"],
                Some("full"),
                "What a sandbox learns about a refusal.",
            ),
        ),
        ("log", log),
    ])
}
