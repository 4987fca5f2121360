#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use super::*;
use crate::{
    MethodPrefix, Mode, ServiceName, ServiceUrl,
    testing::{compile, document},
    text::{self, Faults},
};
use proptest::prelude::*;
use std::time::Duration;

fn read(source: &str) -> (GrantDocument, Faults) {
    let mut faults = Faults::default();
    let node = text::parse(source, &mut faults);
    let document = GrantDocument::read(&node, &mut faults);
    (document, faults)
}

const FULL: &str = r#"
egress:
  defaultAction: deny
  allowedHosts:
    - api.example.com
    - "*.slack.com"
    - "db.example.com:5432"
    - "10.20.0.0/16:5432"
    - "plain.example.com:80"
  deniedHosts: ["*.internal.example.com"]
  allowedAddresses: ["10.20.0.0/16"]
  rules:
    - host: api.example.com
      tls: require
      ech: {publicNames: [cloudflare-ech.com]}
    - {host: "plain.example.com:80", http: {methods: [GET, HEAD], pathPrefixes: ["/v1/"]}}
  hosts: {db.example.com: 10.20.0.7}
  mode: report
services:
  cache: unix:///run/cache.sock
  s3:
    url: tcp://127.0.0.1:9000
    health: /minio/health
    halfCloseTimeout: 30
    idleTimeout: 1h
    proxyProtocol: v2
    http: {hosts: [s3.local], origins: ["https://app.example.com"], methods: [GET], pathPrefixes: [/bucket], setHeaders: {X-Tenant: acme}}
  "grpc:main": {url: "unix:///run/g.sock", peerUid: 1000, grpc: {methodPrefix: /pkg.Service}}
limits: {tunnels: 10, tunnelsPerDestination: 4, opensPerSecond: 5, bytes: 1GiB, bandwidth: 1MiB}
"#;

#[test]
fn a_full_document_compiles() {
    let grant = compile(FULL, "{addresses: [10.0.0.0/8]}").unwrap();
    assert_eq!(grant.mode(), Mode::Report);
    assert_eq!(
        (grant.limits().tunnels, grant.limits().bytes),
        (Some(10), Some(1 << 30))
    );
    let names: Vec<_> = grant
        .services()
        .map(|(name, url)| format!("{name} {url}"))
        .collect();
    assert_eq!(
        names,
        [
            "cache unix:///run/cache.sock",
            "grpc:main unix:///run/g.sock",
            "s3 tcp://127.0.0.1:9000"
        ]
    );
    let s3 = &grant.services[&ServiceName::parse("s3").unwrap()];
    assert_eq!(s3.half_close_timeout, Some(Duration::from_secs(30)));
    assert_eq!(s3.idle_timeout, Some(Duration::from_secs(3600)));
    let http = s3.http.as_ref().unwrap();
    assert_eq!(http.set_headers["x-tenant"], "acme");
    assert_eq!(s3.proxy_protocol, Some(crate::ProxyProtocol::V2));
    let grpc = &grant.services[&ServiceName::parse("grpc:main").unwrap()];
    assert_eq!(
        (
            grpc.peer_uid,
            grpc.grpc_method_prefix.as_ref().map(MethodPrefix::as_str)
        ),
        (Some(1000), Some("/pkg.Service"))
    );
}

#[test]
fn json_reads_back_equal() {
    for source in [
        FULL,
        "{}",
        "egress: {allowedHosts: []}",
        "egress: {defaultAction: allow}",
        "services: [cache]",
    ] {
        let document = document(source);
        let (again, faults) = read(&document.to_json());
        assert!(faults.is_clean(), "{faults}");
        assert_eq!(again, document, "{}", document.to_json());
    }
    assert_eq!(
        document("egress: {allowedHosts: []}").to_json(),
        r#"{"egress":{"allowedHosts":[]}}"#
    );
}

#[test]
fn every_host_is_told_apart_by_what_its_list_does() {
    for (list, hint) in [
        (
            "deniedHosts: ['*']",
            "write allowedHosts: [], which allows nothing",
        ),
        (
            "deniedHosts: ['*:443']",
            "write allowedHosts: [], which allows nothing",
        ),
        (
            "allowedHosts: ['*']",
            "leave allowedHosts out and write defaultAction: allow, if that is meant",
        ),
    ] {
        let (_, faults) = read(&format!("egress: {{{list}}}"));
        let told: Vec<_> = faults
            .errors
            .iter()
            .map(|fault| fault.hint.as_deref())
            .collect();
        assert_eq!(told, [Some(hint)], "{list}");
    }
}

#[test]
fn a_public_suffix_as_a_name_is_looked_at() {
    for (entry, warned) in [
        ("com", true),
        ("co.uk:443", true),
        ("example.com", false),
        ("github.io", false),
        ("intranet", false),
    ] {
        let (_, faults) = read(&format!("egress: {{allowedHosts: ['{entry}']}}"));
        assert!(faults.is_clean(), "{entry}: {faults}");
        let told = |fault: &crate::text::Fault| fault.message.contains("is a public suffix itself");
        assert_eq!(faults.warnings.iter().any(told), warned, "{entry}");
        let (_, faults) = read(&format!("egress: {{deniedHosts: ['{entry}']}}"));
        assert!(faults.warnings.is_empty(), "{entry}");
    }
}

#[test]
fn faults_and_where() {
    for (source, expected) in [
        (
            "egress: {allowedHosts: ['*']}",
            "1:25: egress.allowedHosts[0]: \"*\": matches every host",
        ),
        (
            "egress: {allowedHosts: ['*.com']}",
            "1:25: egress.allowedHosts[0]: \"*.com\" covers a whole public suffix",
        ),
        (
            "egress: {allowedHosts: ['*.co.uk:443']}",
            "1:25: egress.allowedHosts[0]: \"*.co.uk:443\" covers a whole public",
        ),
        (
            "egress: {allowedHosts: ['a*b.*']}",
            "1:25: egress.allowedHosts[0]: \"a*b.*\": has a *",
        ),
        (
            "egress: {allowedHosts: ['']}",
            "1:25: egress.allowedHosts[0]: \"\": an entry is empty",
        ),
        (
            "egress: {allowedHosts: [10.0.0.1/8]}",
            "1:25: egress.allowedHosts[0]: \"10.0.0.1/8\": has bits set",
        ),
        (
            "egress: {allowedHosts: }",
            "1:22: egress.allowedHosts: expected a list, found null",
        ),
        (
            "egress: {allowedHosts: a.test}",
            "1:24: egress.allowedHosts: expected a list, found \"a.test\"",
        ),
        (
            "egress: {allowedHosts: [5]}",
            "1:25: egress.allowedHosts[0]: expected text, found a number",
        ),
        (
            "egress: {alowedHosts: []}",
            "1:10: egress.alowedHosts: unknown key \"alowedHosts\" (did you mean \"allowedHosts\"?)",
        ),
        (
            "egress: {defaultAction: maybe}",
            "1:25: egress.defaultAction: expected one of allow, deny",
        ),
        (
            "egress: {mode: true}",
            "1:16: egress.mode: expected one of enforce, report",
        ),
        (
            "egress: {rules: [{tls: auto}]}",
            "1:18: egress.rules[0]: missing key \"host\"",
        ),
        (
            "egress: {rules: [{host: a.test, intercept: true}]}",
            "1:33: egress.rules[0].intercept: intercept is not built yet",
        ),
        (
            "egress: {rules: [{host: a.test, inject: []}]}",
            "1:33: egress.rules[0].inject: inject is not built yet",
        ),
        (
            "egress: {rules: [{host: a.test, ech: maybe}]}",
            "1:38: egress.rules[0].ech: expected one of outer, deny",
        ),
        (
            "egress: {rules: [{host: a.test, http: {methods: [get]}}]}",
            "expected a method in capitals",
        ),
        (
            "egress: {rules: [{host: a.test, http: {pathPrefixes: [v1]}}]}",
            "expected a path prefix",
        ),
        (
            "egress: {rules: [{host: a.test, http: {methods: []}}]}",
            "an empty list",
        ),
        (
            "egress: {hosts: {a.test: []}}",
            "egress.hosts.a.test: no address",
        ),
        (
            "egress: {hosts: {a.test: 10.0.0.0/8}}",
            "is a range, not an address",
        ),
        (
            "egress: {hosts: {'*.test': 10.0.0.1}}",
            "1:18: egress.hosts.*.test: \"*.test\": character not allowed",
        ),
        ("egress: {allowedAddresses: ['10.0.0.0/8:443']}", "is not"),
        (
            "services: {Cache: 'unix:///x'}",
            "1:12: services.Cache: \"Cache\" is not a service name",
        ),
        (
            "services: {cache: 'http://x'}",
            "1:19: services.cache: scheme \"http\" is not unix, tcp or tls",
        ),
        (
            "services: {c: {url: 'tcp://127.0.0.1:1', peerUid: 0}}",
            "peerUid is known of unix sockets only",
        ),
        (
            "services: {c: {url: 'unix:///x', proxyProtocol: v1}}",
            "expected one of v2",
        ),
        (
            "limits: {tunnels: -1}",
            "1:19: limits.tunnels: expected a whole number",
        ),
        (
            "limits: {bytes: lots}",
            "1:17: limits.bytes: expected a number of bytes",
        ),
    ] {
        let found = read(source).1.to_string();
        assert!(found.contains(expected), "{source}\n{found}");
    }
    let many =
        read("egress: {allowedHosts: ['*.com', ok.test, 'a..b'], mode: x}\nlimits: {a: 1}\n").1;
    assert_eq!(many.errors.len(), 4, "{many}");
}

#[test]
fn v018_warnings_of_broad_and_converted_entries() {
    let (_, faults) = read(
        "egress: {allowedHosts: ['*.s3.amazonaws.com', '*.internal', 'b\u{fc}cher.example'], deniedHosts: ['*.com']}",
    );
    assert!(faults.is_clean(), "{faults}");
    let found: Vec<_> = faults
        .warnings
        .iter()
        .map(|fault| fault.path.as_str())
        .collect();
    assert_eq!(
        found,
        [
            "egress.allowedHosts[0]",
            "egress.allowedHosts[1]",
            "egress.allowedHosts[2]"
        ]
    );
}

#[test]
fn merging() {
    let merged = |below: &str, over: &str| document(below).merge(&document(over)).to_json();
    for (below, over, expected) in [
        ("{}", "{}", "{}"),
        (
            "{}",
            "egress: {allowedHosts: []}",
            "egress: {allowedHosts: []}",
        ),
        (
            "egress: {allowedHosts: [a.test]}",
            "{}",
            "egress: {allowedHosts: [a.test]}",
        ),
        (
            "egress: {allowedHosts: [a.test, b.test]}",
            "egress: {allowedHosts: [b.test, c.test]}",
            "egress: {allowedHosts: [a.test, b.test, c.test]}",
        ),
        (
            "egress: {deniedHosts: [a.test]}",
            "egress: {allowedHosts: [a.test]}",
            "egress: {allowedHosts: [a.test], deniedHosts: [a.test]}",
        ),
        (
            "egress: {mode: report, defaultAction: allow}",
            "egress: {mode: enforce}",
            "egress: {mode: enforce, defaultAction: allow}",
        ),
        (
            "services: {c: 'unix:///a'}",
            "services: {c: 'unix:///b', d: 'unix:///d'}",
            "services: {c: 'unix:///b', d: 'unix:///d'}",
        ),
        (
            "services: {c: 'unix:///a'}",
            "services: [c]",
            "services: {c: 'unix:///a'}",
        ),
        (
            "limits: {tunnels: 5}",
            "limits: {tunnels: 9, bytes: 1}",
            "limits: {tunnels: 5, bytes: 1}",
        ),
    ] {
        assert_eq!(
            merged(below, over),
            document(expected).to_json(),
            "{below} + {over}"
        );
    }
    let unknown = compile("services: [cache]", "{}").unwrap_err();
    assert_eq!(
        unknown,
        "1:12: services[0]: service \"cache\" has no url, and none is known by that name (write its url)"
    );
    assert!(matches!(
        ServiceUrl::parse("unix:///a"),
        Ok(ServiceUrl::Unix(_))
    ));
}

proptest! {
    #[test]
    fn any_readable_document_survives_json(
        allow in proptest::option::of(proptest::collection::vec("(\\*\\.)?[a-z_]{1,8}(\\.[a-z]{1,5}){1,2}(:[1-9][0-9]{0,3}|:\\*)?", 0..5)),
        nets in proptest::collection::vec((any::<std::net::IpAddr>(), 0_u8..=32), 0..4),
        tunnels in proptest::option::of(any::<u32>()),
        idle in 0_u64..10_000_000,
    ) {
        let quoted = |list: Vec<String>| list.iter().map(|item| format!("{item:?}")).collect::<Vec<_>>().join(",");
        let nets = nets.into_iter().map(|(address, length)| ipnet::IpNet::new(address, length).unwrap().trunc().to_string());
        let allow = allow.map(|list| format!("allowedHosts: [{}],", quoted(list))).unwrap_or_default();
        let tunnels = tunnels.map(|count| format!("tunnels: {count}")).unwrap_or_default();
        let source = format!(
            "{{egress: {{{allow} allowedAddresses: [{}]}}, limits: {{{tunnels}}}, services: {{c: {{url: 'unix:///x', idleTimeout: {idle}ms}}}}}}",
            quoted(nets.collect()),
        );
        let (document, faults) = read(&source);
        prop_assume!(faults.is_clean());
        let (again, faults) = read(&document.to_json());
        prop_assert!(faults.is_clean(), "{}", faults);
        prop_assert_eq!(again, document);
    }

    #[test]
    fn any_text_reads_without_a_panic(source in "\\PC{0,80}") {
        let (document, _) = read(&format!("egress: {{allowedHosts: [{source}], rules: [{source}]}}\n{source}"));
        document.compile(&Ceiling::local(), &mut Faults::default());
    }
}

#[test]
fn what_each_decision_goes_through_is_bounded() {
    type Case = (&'static str, fn(usize) -> String, &'static str, usize);
    let cases: [Case; 8] = [
        (
            "egress: {deniedHosts: [",
            |n| format!("'a.test:{}'", n + 1),
            "]}",
            1000,
        ),
        (
            "egress: {rules: [{host: 'a.test:80', http: {methods: [",
            |n| format!("M{n}"),
            "]}}]}",
            1000,
        ),
        (
            "egress: {rules: [{host: 'a.test:80', http: {pathPrefixes: [",
            |n| format!("/{n}"),
            "]}}]}",
            1000,
        ),
        (
            "egress: {rules: [{host: a.test, ech: {publicNames: [",
            |n| format!("n{n}.test"),
            "]}}]}",
            1000,
        ),
        (
            "egress: {allowedAddresses: [",
            |n| format!("10.{}.{}.0/24", n / 256, n % 256),
            "]}",
            1000,
        ),
        (
            "egress: {hosts: {a.test: [",
            |n| format!("10.0.0.{n}"),
            "]}}",
            64,
        ),
        (
            "services: {s: {url: 'unix:///s', http: {hosts: [",
            |n| format!("n{n}.test"),
            "]}}}",
            1000,
        ),
        (
            "services: {s: {url: 'unix:///s', http: {origins: [",
            |n| format!("'https://n{n}.test'"),
            "]}}}",
            1000,
        ),
    ];
    for (before, one, after, most) in cases {
        let source = |count| {
            let items: Vec<String> = (0..count).map(one).collect();
            format!("{before}{}{after}", items.join(", "))
        };
        let (_, faults) = read(&source(most));
        assert!(faults.is_clean(), "{before}: {faults}");
        let (_, faults) = read(&source(most + 1));
        let told = faults.to_string();
        assert!(
            told.contains(&format!("more than {most} ")),
            "{before}: {told}"
        );
    }
}

#[test]
fn ech_is_refused_where_nobody_looks() {
    let faults = |rules: &str| {
        let source = format!("egress: {{allowedHosts: ['*.a.test:8080'], rules: [{rules}]}}");
        crate::testing::compile(&source, "{}")
            .err()
            .unwrap_or_default()
    };
    for rules in [
        "{host: '*.a.test', tls: opaque, ech: deny}",
        "{host: '*.a.test', tls: opaque}, {host: x.a.test, ech: deny}",
        "{host: 'x.a.test:8080', tls: opaque}, {host: 'x.a.test:8080', ech: {publicNames: [b.test]}}",
        "{host: '*.a.test', ech: deny}, {host: x.a.test, tls: opaque}",
        "{host: x.a.test, ech: deny}, {host: 'x.a.test:8080', tls: opaque}",
        "{host: '*.a.test', ech: {publicNames: [b.test]}}, {host: x.a.test, tls: opaque}",
    ] {
        assert!(
            faults(rules).contains("ech cannot be enforced"),
            "{rules}: {}",
            faults(rules)
        );
    }
    for rules in [
        // Who means any bytes says so of encrypted hellos too.
        "{host: '*.a.test', ech: deny}, {host: x.a.test, tls: opaque, ech: outer}",
        "{host: '*.a.test', ech: {publicNames: [b.test]}}, {host: x.a.test, tls: opaque, ech: outer}",
        "{host: '*.a.test', tls: opaque}, {host: x.a.test, tls: auto, ech: deny}",
        // Where nothing is allowed, nothing is lost.
        "{host: x.a.test, ech: deny}, {host: '*.a.test', tls: opaque}, {host: 'x.a.test:8080', tls: auto}",
        "{host: '*.a.test', tls: opaque, ech: outer}",
    ] {
        assert_eq!(faults(rules), "", "{rules}");
    }
}
