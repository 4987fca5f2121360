//! What sessions may reach: egress, services, capabilities, providers.
use super::kinds::*;
use serde_json::{Value, json};

fn advertised() -> Properties {
    vec![
        (
            "canHostPlugins",
            boolean(false, "The runtime can host plugins."),
        ),
        (
            "hostServiceAccess",
            choice(
                &["none", "relay", "direct"],
                Some("none"),
                "How its sandboxes reach host services.",
            ),
        ),
        (
            "egressMode",
            choice(
                &["none", "cidr", "hostname"],
                Some("none"),
                "What its own egress rules can tell apart.",
            ),
        ),
    ]
}

pub(super) fn provider() -> Value {
    let mut own = vec![
        (
            "driver",
            string("The runtime's driver, for people and control planes."),
        ),
        (
            "default",
            boolean(false, "The provider of sessions that name none."),
        ),
        ("advertised", object(advertised())),
        (
            "hostnameEgress",
            choice(
                &["proxy", "runtime"],
                Some("proxy"),
                "Who keeps egress to host names.",
            ),
        ),
        (
            "confinement",
            choice(
                &["none", "gateway-only"],
                Some("none"),
                "What its sandboxes can reach around the gateway.",
            ),
        ),
        ("session", session()),
    ];
    own.extend(advertised());
    object(grant(own, Some(ceiling())))
}

fn session() -> Value {
    object(vec![
        (
            "ttl",
            duration(
                None,
                "Life of one generation unless kept alive. Absent: maxLifetime.",
            ),
        ),
        (
            "idleTimeout",
            duration(
                Some("10m"),
                "A generation without tunnel or request for this long expires; 0 = never.",
            ),
        ),
        (
            "maxLifetime",
            duration(Some("1d"), "No generation lives longer."),
        ),
        (
            "tokenTtl",
            duration(
                None,
                "Life of SLUICEGATE_RELAY_TOKEN, which sluicegate-relay exchanges in time. Absent: as long as the generation.",
            ),
        ),
        (
            "onExpiry",
            choice(
                &["reset", "pause", "stop"],
                Some("reset"),
                "What expiry does.",
            ),
        ),
        (
            "onPause",
            choice(
                &["close", "hold"],
                Some("close"),
                "What pausing does to open tunnels.",
            ),
        ),
        ("scopes", required(scopes(), &["concurrency"])),
    ])
}

fn scopes() -> Value {
    object(vec![
        (
            "concurrency",
            number(
                None,
                "Sessions of one scope that live at once; further starts wait.",
            ),
        ),
        ("queue", number(Some(100), "Starts that wait at most.")),
    ])
}

pub(super) fn grant(mut own: Properties, ceiling: Option<Value>) -> Properties {
    own.push(("egress", egress(ceiling)));
    own.push(("services", by_name(service())));
    own.push((
        "expose",
        json!({"anyOf": [strings("Names, dialled by unix sockets."), by_name(expose())]}),
    ));
    own.push(("limits", session_limits()));
    own
}

fn session_limits() -> Value {
    object(vec![
        (
            "tunnels",
            number(None, "Tunnels and streams of one session open at once."),
        ),
        (
            "tunnelsPerDestination",
            number(
                None,
                "Tunnels and streams of one session open at once to one host and port, or one host service.",
            ),
        ),
        (
            "opensPerSecond",
            number(None, "Opens per second of one session."),
        ),
        (
            "bytes",
            bytes(None, "Bytes both ways together of one generation."),
        ),
        (
            "bandwidth",
            bytes(None, "Bytes per second each way of one session."),
        ),
    ])
}

pub(super) fn ceiling() -> Value {
    object(vec![
        (
            "allowedHosts",
            strings("Names a session may ask for at most. Absent: any."),
        ),
        ("deniedHosts", strings("Names no session may reach.")),
        (
            "addresses",
            strings(
                "Special-purpose addresses and ranges a session may ask for at most. Absent: none.",
            ),
        ),
        (
            "sockets",
            strings(
                "Unix sockets that services may be at: paths, or directories with a slash at their end. Absent: any for the operator, none for bounded credentials.",
            ),
        ),
    ])
}

pub(super) fn egress(ceiling: Option<Value>) -> Value {
    let addresses =
        json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]});
    let mut properties = vec![
        (
            "defaultAction",
            choice(
                &["allow", "deny"],
                None,
                "Used only where allowedHosts is absent.",
            ),
        ),
        (
            "allowedHosts",
            strings(
                "Exact names, \"*.\" patterns, ranges, each with \":port\" or \":*\". Empty: nothing.",
            ),
        ),
        ("deniedHosts", strings("Always win.")),
        (
            "allowedAddresses",
            strings("Exceptions from the private-address ban for names that resolve there."),
        ),
        ("hosts", by_name(addresses)),
        ("rules", json!({"type": "array", "items": rule()})),
        (
            "mode",
            choice(
                &["enforce", "report"],
                None,
                "report: allow, and record what would be denied.",
            ),
        ),
    ];
    if let Some(ceiling) = ceiling {
        properties.push(("ceiling", ceiling));
    }
    object(properties)
}

fn rule() -> Value {
    let public_names = object(vec![(
        "publicNames",
        strings("Outer names accepted beside the target."),
    )]);
    let rule = object(vec![
        ("host", string("An entry of allowedHosts.")),
        (
            "tls",
            choice(
                &["require", "auto", "opaque"],
                None,
                "Absent: require on 443, auto elsewhere.",
            ),
        ),
        (
            "ech",
            json!({"anyOf": [{"enum": ["outer", "deny"]}, public_names]}),
        ),
        (
            "http",
            object(vec![
                ("methods", strings("Methods allowed. Absent: any.")),
                (
                    "pathPrefixes",
                    strings("Path prefixes allowed, whole segments. Absent: any."),
                ),
            ]),
        ),
    ]);
    required(rule, &["host"])
}

fn expose() -> Value {
    let dials = &["unix", "tcp", "tls"];
    let long = object(vec![
        (
            "dial",
            choice(dials, Some("unix"), "Where the host dials it."),
        ),
        (
            "port",
            number(
                None,
                "dial tcp: the loopback port. Absent: the system chooses.",
            ),
        ),
        (
            "peerUid",
            number(
                None,
                "dial unix: a uid that may dial beside the gateway's own.",
            ),
        ),
        (
            "patience",
            duration(Some("1s"), "How long a dial waits for the sandbox."),
        ),
        (
            "halfCloseTimeout",
            duration(
                None,
                "How long a stream may be silent once one half has closed.",
            ),
        ),
        (
            "idleTimeout",
            duration(None, "A stream in which nothing moves is cut."),
        ),
    ]);
    json!({"anyOf": [{"enum": dials}, long]})
}

pub(super) fn service() -> Value {
    let long = object(vec![
        (
            "url",
            string("unix:///PATH, tcp://ADDRESS:PORT or tls://HOST:PORT."),
        ),
        (
            "health",
            string(
                "How its health is asked for: connect (default), none, grpc, grpc:SERVICE, redis, postgres, or the path of an HTTP GET.",
            ),
        ),
        (
            "halfCloseTimeout",
            duration(
                None,
                "How long a stream may be silent once one half has closed.",
            ),
        ),
        (
            "idleTimeout",
            duration(None, "A stream in which nothing moves is cut."),
        ),
        (
            "peerUid",
            number(
                None,
                "The uid that must own the other end of a unix socket.",
            ),
        ),
        (
            "proxyProtocol",
            choice(&["v2"], None, "Send a PROXY protocol header."),
        ),
        (
            "http",
            object(vec![
                ("hosts", strings("Host fields accepted.")),
                ("origins", strings("Origins accepted.")),
                ("methods", strings("Methods accepted.")),
                ("pathPrefixes", strings("Path prefixes accepted.")),
                (
                    "setHeaders",
                    by_name(string("The field's value, whatever the client sent.")),
                ),
            ]),
        ),
        (
            "grpc",
            object(vec![(
                "methodPrefix",
                string("The prefix every method must have."),
            )]),
        ),
    ]);
    json!({"anyOf": [{"type": "string"}, long]})
}
