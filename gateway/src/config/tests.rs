#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
//! The document as an operator meets it: what is read, what is refused, and where the finger points.
use super::*;
use std::{path::Path, time::Duration};

mod effective;
mod faults;
mod policy;
mod published;

/// Parse what must be accepted.
fn good(source: &str) -> Config {
    match Config::parse(source) {
        Ok((config, _)) => config,
        Err(faults) => panic!("{source}\n{faults}"),
    }
}

/// Parse what must be refused; each fault as `line:column: path: message (hint)`.
fn faults_of(source: &str) -> Vec<String> {
    match Config::parse(source) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.errors.iter().map(ToString::to_string).collect(),
    }
}

fn warnings_of(source: &str) -> Vec<String> {
    match Config::parse(source) {
        Ok((_, warnings)) => warnings.iter().map(ToString::to_string).collect(),
        Err(faults) => panic!("{source}\n{faults}"),
    }
}

#[test]
fn nothing_written_is_all_defaults() {
    for empty in ["", "\n", "# only a comment\n", "{}", "---\n"] {
        assert_eq!(good(empty), Config::default(), "{empty:?}");
    }
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = Config::embedded(Path::new("/state"));
    let listeners: Vec<String> = config
        .listeners
        .iter()
        .map(|listener| format!("{} {}", listener.kind.as_str(), listener.address))
        .collect();
    assert_eq!(
        listeners,
        [
            "public 127.0.0.1:8443",
            "plain 127.0.0.1:3128",
            "management 127.0.0.1:9443"
        ]
    );
    assert_eq!(
        config.store.path.as_deref(),
        Some(Path::new("/state/sluicegate.redb"))
    );
    assert_eq!(
        config.admin.token_file.as_deref(),
        Some(Path::new("/state/admin.token"))
    );
    assert_eq!(config.default_provider().unwrap().0, "local");
    assert_eq!(config.limits.response_timeout, None);
    assert_eq!(config.limits.idle_timeout, Some(Duration::from_secs(600)));
    assert!(config.dns.servers.is_none());
}

#[test]
fn every_section_is_read() {
    let config = good(
        r#"
publicUrl: https://Gate.example.com
listeners:
  - {kind: public, address: "0.0.0.0:443"}
  - {kind: plain, address: "10.1.2.3:3128", privateNetwork: true}
  - {kind: plain, address: "[::1]:3129"}
  - {kind: management, address: "192.0.2.1:9443", tls: {certificate: /c.pem, key: /k.pem}}
tls: {certificate: /tls.crt, key: /tls.key}
dns:
  servers: ["127.0.0.1:5353", "9.9.9.9", "tls://1.1.1.1#one.one.one.one", "https://[2606:4700::1]/dns-query#dns.test"]
  hosts: {Db.test: 10.0.0.7, two.test: [10.0.0.8, "fd00::8"]}
  mixedAnswers: filter
  timeout: 1500ms
  cacheSize: 0
  minTtl: 5s
  nat64: ["64:ff9b:1::/48"]
store: {path: /data/store}
quotas: {sessions: 3, bytes: 1GiB}
limits: {idleTimeout: 0, responseTimeout: 2m, connections: 10, maxHeadBytes: 16KiB}
admin: {tokenFile: /run/token, allowedHosts: [Console.test], allowedOrigins: ["https://Console.test:443", "http://a.test:8080"]}
telemetry: {accessLog: /var/log/access.jsonl, refusalDetail: minimal, log: "info,h2=warn"}
"#,
    );
    assert_eq!(
        config.public_url.as_ref().unwrap().to_string(),
        "https://gate.example.com"
    );
    assert!(config.listeners[1].private_network);
    assert_eq!(
        config.listeners[3].tls.as_ref().unwrap().key,
        Path::new("/k.pem")
    );
    assert_eq!(
        config.tls.files.as_ref().unwrap().certificate,
        Path::new("/tls.crt")
    );
    let servers: Vec<String> = config
        .dns
        .servers
        .as_ref()
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        servers,
        [
            "127.0.0.1:5353",
            "9.9.9.9:53",
            "tls://1.1.1.1:853#one.one.one.one",
            "https://[2606:4700::1]:443/dns-query#dns.test",
        ]
    );
    let hosts: Vec<String> = config
        .dns
        .hosts
        .iter()
        .map(|(name, to)| format!("{name} {to:?}"))
        .collect();
    assert_eq!(
        hosts,
        ["db.test [10.0.0.7]", "two.test [10.0.0.8, fd00::8]"]
    );
    assert_eq!(config.dns.timeout, Duration::from_millis(1500));
    assert_eq!(
        (config.dns.cache_size, config.dns.nat64_prefixes().len()),
        (0, 1)
    );
    assert_eq!(
        (
            config.quotas.sessions,
            config.quotas.bytes,
            config.quotas.tunnels
        ),
        (Some(3), Some(1 << 30), None)
    );
    assert_eq!(
        (config.limits.idle_timeout, config.limits.max_head_bytes),
        (None, 16 << 10)
    );
    assert_eq!(
        config.limits.response_timeout,
        Some(Duration::from_secs(120))
    );
    assert_eq!(config.admin.allowed_hosts, ["console.test"]);
    assert_eq!(
        config.admin.allowed_origins,
        ["https://console.test", "http://a.test:8080"]
    );
    assert_eq!(
        config.telemetry.access_log,
        AccessLog::File("/var/log/access.jsonl".into())
    );
    assert_eq!(config.telemetry.refusal_detail, RefusalDetail::Minimal);
}

#[test]
fn a_provider_is_read_with_advertised_keys_in_either_place() {
    let nested = "{canHostPlugins: true, hostServiceAccess: relay, egressMode: cidr}";
    let direct = nested.trim_matches(['{', '}']);
    let rest = "confinement: gateway-only, session: {ttl: 5m, idleTimeout: 0, onExpiry: pause, onPause: hold}";
    let one = good(&format!(
        "runtime: {{providers: {{p: {{advertised: {nested}, {rest}}}}}}}"
    ));
    let two = good(&format!(
        "runtime: {{providers: {{p: {{{direct}, {rest}}}}}}}"
    ));
    assert_eq!(one, two);
    let provider = &one.providers["p"];
    assert!(provider.advertised.can_host_plugins);
    assert_eq!(
        provider.confinement,
        sluicegate_policy::Confinement::GatewayOnly
    );
    assert_eq!(provider.session.ttl, Some(Duration::from_secs(300)));
    assert_eq!(provider.session.idle_timeout, None);
    assert_eq!(
        (provider.session.on_expiry, provider.session.on_pause),
        (OnExpiry::Pause, OnPause::Hold)
    );
    assert_eq!(
        one.providers.len(),
        1,
        "a configured provider replaces the built-in one"
    );
}

#[test]
fn the_default_provider_is_the_marked_or_the_only_one() {
    let name = |source| {
        good(source)
            .default_provider()
            .map(|(name, _)| name.to_owned())
    };
    assert_eq!(name("runtime: {providers: {a: {}}}").as_deref(), Some("a"));
    assert_eq!(
        name("runtime: {providers: {a: {}, b: {default: true}}}").as_deref(),
        Some("b")
    );
    assert_eq!(name("runtime: {providers: {a: {}, b: {}}}"), None);
    assert_eq!(name("runtime: {}").as_deref(), Some("local"));
}

#[test]
fn what_is_accepted_with_a_warning() {
    let only_public = "listeners: [{kind: public, address: \"127.0.0.1:1\"}]";
    assert!(warnings_of(only_public)[0].starts_with("1:12: listeners: no management listener"));
    let names = "tls: {certificate: c.pem, key: k.pem, names: [a.test]}";
    assert!(warnings_of(names)[0].contains("names has no effect"));
    assert!(warnings_of("tls: {names: [a.test, \"*.b.test\", \"::1\"]}").is_empty());
}

/// A quota is an owner's within a namespace: who is bounded to an owner invents none.
#[test]
fn an_owners_credential_is_of_the_default_namespace_unless_others_are_listed() {
    let of = |fields: &str| {
        let source = format!(
            "admin: {{credentials: [{{name: c, scopes: [operate], tokenFile: t{fields}}}]}}"
        );
        let config = good(&source);
        config.admin.credentials[0].namespaces.clone()
    };
    let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(of(""), None);
    assert_eq!(of(", owner: ann"), names(&["default"]));
    assert_eq!(of(", owner: ann, namespaces: [a, b]"), names(&["a", "b"]));
    assert_eq!(of(", namespaces: [a]"), names(&["a"]));
}

#[test]
fn a_public_url_follows_the_listener_where_none_is_written() {
    for (bound, url) in [
        ("127.0.0.1:8443", "https://127.0.0.1:8443"),
        ("0.0.0.0:443", "https://127.0.0.1"),
        ("[::]:8443", "https://[::1]:8443"),
    ] {
        assert_eq!(
            PublicUrl::of_listener(bound.parse().unwrap())
                .unwrap()
                .to_string(),
            url
        );
    }
}
