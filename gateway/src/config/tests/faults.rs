//! Name-keyed tables of what is refused: each fault with its place, told all at once.
use super::*;

/// One fault each: the whole line, as an operator reads it.
const SINGLE: &[(&str, &str, &str)] = &[
    (
        "unknown section",
        "listners: []\n",
        "1:1: listners: unknown key \"listners\" (did you mean \"listeners\"?)",
    ),
    (
        "unknown key below",
        "dns:\n  minTTL: 5s\n",
        "2:3: dns.minTTL: unknown key \"minTTL\" (did you mean \"minTtl\"?)",
    ),
    (
        "null is not absent",
        "limits:\n",
        "1:7: limits: expected a mapping, found null (leave the key out, or give it a value)",
    ),
    (
        "root is a list",
        "- a\n",
        "1:1: expected a mapping, found a list",
    ),
    (
        "gestaltd's tokens for a socket outside their list",
        "services: {db: \"unix:///run/db\"}\ncompat: {gestalt: {keyFile: /k, ceiling: {sockets: []}, services: [db]}}\n",
        "2:9: compat: compat.gestalt.services names db: /run/db is outside compat.gestalt.ceiling.sockets (add \"/run/db\" to the list, or leave the service out)",
    ),
    (
        "gestaltd's tokens without a ceiling",
        "compat: {gestalt: {keyFile: /k}}\n",
        "1:19: compat.gestalt: compat.gestalt has no ceiling (write what no token of gestaltd may exceed: ceiling: {allowedHosts: [...]}; {} leaves names unbounded)",
    ),
    (
        "gestaltd's tokens with two keys",
        "compat: {gestalt: {keyFile: /k, keyEnv: K, ceiling: {}}}\n",
        "1:19: compat.gestalt: one of keyFile and keyEnv",
    ),
    (
        "gestaltd's tokens for a service that is none",
        "compat: {gestalt: {keyFile: /k, ceiling: {}, services: [cache]}}\n",
        "1:9: compat: compat.gestalt.services names cache, which is no service (declare it under services)",
    ),
    (
        "gestaltd's tokens for a provider that is none",
        "compat: {gestalt: {keyFile: /k, ceiling: {}, provider: elsewhere}}\n",
        "1:9: compat: compat.gestalt.provider names \"elsewhere\", which is none (declare it under runtime.providers)",
    ),
    (
        "keys without one",
        "keys: {}\n",
        "1:7: keys: one of signingKeyFile and signingKeyEnv",
    ),
    (
        "public URL without scheme",
        "publicUrl: gate.test\n",
        "1:12: publicUrl: \"gate.test\" does not begin with https:// (write https://HOST or https://HOST:PORT)",
    ),
    (
        "public URL with a path",
        "publicUrl: https://gate.test/x\n",
        "1:12: publicUrl: a path, query or fragment has no place here (write https://HOST or https://HOST:PORT)",
    ),
    (
        "public URL in the clear",
        "publicUrl: http://gate.test\n",
        "1:12: publicUrl: http:// is for loopback and private addresses only (write https://HOST or https://HOST:PORT)",
    ),
    (
        "a credential in the proxy's URL",
        "upstreamProxy: {url: \"http://u:p@proxy.test:3128\"}\n",
        "1:22: upstreamProxy.url: a credential does not stand in a URL (put user:password into credentialFile)",
    ),
    (
        "a proxy of another kind",
        "upstreamProxy: {url: \"socks4://proxy.test\"}\n",
        "1:22: upstreamProxy.url: expected http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT, found \"socks4://proxy.test\"",
    ),
    (
        "trust in a proxy without TLS",
        "upstreamProxy: {url: \"http://proxy.test\", caFile: x}\n",
        "1:43: upstreamProxy.caFile: only an https proxy shows a certificate",
    ),
    (
        "no listeners at all",
        "listeners: []\n",
        "1:12: listeners: an empty list (leave the key out for its default)",
    ),
    (
        "listener kind unknown",
        "listeners: [{kind: publik, address: \"127.0.0.1:1\"}]\n",
        "1:20: listeners[0].kind: expected one of public, plain, management, private, socks, transparent, sni, found \"publik\"",
    ),
    (
        "listener without address",
        "listeners: [{kind: public}]\n",
        "1:13: listeners[0]: missing key \"address\"",
    ),
    (
        "listener by name",
        "listeners: [{kind: public, address: \"localhost:1\"}]\n",
        "1:37: listeners[0].address: expected an IP address and port such as 127.0.0.1:8443 or [::1]:8443, found \"localhost:1\"",
    ),
    (
        "plain in public",
        "listeners: [{kind: plain, address: \"192.0.2.1:1\", privateNetwork: true}]\n",
        "1:36: listeners[0].address: 192.0.2.1 is neither loopback nor one private address, and a plain listener has no TLS (use kind public, or a loopback or private address)",
    ),
    (
        "socks in public",
        "listeners: [{kind: socks, address: \"192.0.2.1:1\", privateNetwork: true}]\n",
        "1:36: listeners[0].address: 192.0.2.1 is neither loopback nor one private address, and a socks listener has no TLS (add tls: {certificate: FILE, key: FILE}, or use a loopback or private address)",
    ),
    (
        "socks in an undeclared network",
        "listeners: [{kind: socks, address: \"10.0.0.1:1\"}]\n",
        "1:36: listeners[0].address: 10.0.0.1 is not loopback, and a socks listener has no TLS (add privateNetwork: true if nobody else can reach that network)",
    ),
    (
        "captured connections of nobody",
        "listeners: [{kind: transparent, address: \"0.0.0.0:15001\"}]\n",
        "1:13: listeners[0]: a transparent listener needs identify (source: by the sources of sessions; header: by a trusted peer's PROXY header)",
    ),
    (
        "a header from nobody",
        "listeners: [{kind: sni, address: \"0.0.0.0:443\", identify: header}]\n",
        "1:59: listeners[0].identify: no peer is trusted to send a header (add proxyProtocol: {trusted: [ADDRESS]})",
    ),
    (
        "capture where nothing is captured",
        "listeners: [{kind: plain, address: \"127.0.0.1:1\", capture: tproxy}]\n",
        "1:51: listeners[0].capture: only a transparent listener has this",
    ),
    (
        "a port captured connections have",
        "listeners: [{kind: transparent, address: \"0.0.0.0:443\", capture: tproxy, identify: source}]\n",
        "1:42: listeners[0].address: connections meant for port 443 could not be told from those meant for the gateway (choose a port no target has, such as 15001)",
    ),
    (
        "trust with host bits",
        "listeners: [{kind: plain, address: \"127.0.0.1:1\", proxyProtocol: {trusted: [10.0.0.1/8]}}]\n",
        "1:77: listeners[0].proxyProtocol.trusted[0]: expected an address or a range such as 10.0.0.0/8, found \"10.0.0.1/8\"",
    ),
    (
        "operators do not come by a balancer",
        "listeners: [{kind: management, address: \"127.0.0.1:1\", proxyProtocol: {trusted: [10.0.0.1]}}]\n",
        "1:56: listeners[0].proxyProtocol: no proxyProtocol on a management listener",
    ),
    (
        "plain everywhere",
        "listeners: [{kind: plain, address: \"0.0.0.0:1\", privateNetwork: true}]\n",
        "1:36: listeners[0].address: 0.0.0.0 is neither loopback nor one private address, and a plain listener has no TLS (use kind public, or a loopback or private address)",
    ),
    (
        "plain in an undeclared network",
        "listeners: [{kind: plain, address: \"[fd00::1]:1\"}]\n",
        "1:36: listeners[0].address: fd00::1 is not loopback, and a plain listener has no TLS (add privateNetwork: true if nobody else can reach that network)",
    ),
    (
        "management off loopback",
        "listeners: [{kind: management, address: \"10.0.0.1:1\"}]\n",
        "1:41: listeners[0].address: 10.0.0.1 is not loopback, and the management listener has no TLS (add tls: {certificate: FILE, key: FILE}, or use 127.0.0.1)",
    ),
    (
        "management key missing",
        "listeners: [{kind: management, address: \"10.0.0.1:1\", tls: {certificate: c}}]\n",
        "1:60: listeners[0].tls: missing key \"key\"",
    ),
    (
        "tls on plain",
        "listeners: [{kind: plain, address: \"127.0.0.1:1\", tls: {certificate: c, key: k}}]\n",
        "1:51: listeners[0].tls: no tls on a plain listener (a listener with TLS is of kind public)",
    ),
    (
        "quic without TLS",
        "listeners: [{kind: plain, address: \"127.0.0.1:1\", quic: true}]\n",
        "1:51: listeners[0].quic: only a public listener has quic",
    ),
    (
        "private public",
        "listeners: [{kind: public, address: \"127.0.0.1:1\", privateNetwork: true}]\n",
        "1:52: listeners[0].privateNetwork: only a plain or socks listener has privateNetwork",
    ),
    (
        "one place twice",
        "listeners:\n  - {kind: public, address: \"0.0.0.0:1\"}\n  - {kind: plain, address: \"127.0.0.1:1\"}\n",
        "3:5: listeners[1]: 127.0.0.1:1 is taken by the listener at 0.0.0.0:1",
    ),
    (
        "certificate alone",
        "tls: {certificate: c.pem}\n",
        "1:7: tls.certificate: certificate without its key",
    ),
    (
        "key alone",
        "tls:\n  key: k.pem\n",
        "2:3: tls.key: key without its certificate",
    ),
    (
        "a resolver by name",
        "dns: {servers: [dns.test]}\n",
        "1:17: dns.servers[0]: expected ADDRESS[:PORT], tls://ADDRESS[:PORT][#NAME] or https://ADDRESS[:PORT]/PATH[#NAME], found \"dns.test\"",
    ),
    (
        "DoH without path",
        "dns: {servers: [\"https://1.1.1.1\"]}\n",
        "1:17: dns.servers[0]: expected ADDRESS[:PORT], tls://ADDRESS[:PORT][#NAME] or https://ADDRESS[:PORT]/PATH[#NAME], found \"https://1.1.1.1\"",
    ),
    (
        "a name where nothing is verified",
        "dns: {servers: [\"1.1.1.1#a.test\"]}\n",
        "1:17: dns.servers[0]: expected ADDRESS[:PORT], tls://ADDRESS[:PORT][#NAME] or https://ADDRESS[:PORT]/PATH[#NAME], found \"1.1.1.1#a.test\"",
    ),
    (
        "a static answer that is none",
        "dns: {hosts: {a.test: [10.0.0.256]}}\n",
        "1:24: dns.hosts.a.test[0]: expected an IP address, found \"10.0.0.256\"",
    ),
    (
        "one host twice",
        "dns:\n  hosts:\n    a.test: 10.0.0.1\n    A.test: 10.0.0.2\n",
        "4:5: dns.hosts.A.test: \"A.test\" names the same host as an entry above",
    ),
    (
        "NAT64 length",
        "dns: {nat64: [\"64:ff9b::/95\"]}\n",
        "1:15: dns.nat64[0]: expected a prefix of length 32, 40, 48, 56, 64 or 96 (RFC 6052), found \"64:ff9b::/95\"",
    ),
    (
        "NAT64 host bits",
        "dns: {nat64: [\"64:ff9b:1::1/48\"]}\n",
        "1:15: dns.nat64[0]: expected an IPv6 prefix such as 64:ff9b:1::/48, without host bits, found \"64:ff9b:1::1/48\"",
    ),
    (
        "lifetimes crossed",
        "dns: {minTtl: 2h}\n",
        "1:15: dns.minTtl: minTtl is above maxTtl",
    ),
    (
        "no time at all",
        "dns: {timeout: 0}\n",
        "1:16: dns.timeout: expected a duration above 0, found \"0\"",
    ),
    (
        "a duration in words",
        "limits: {dialTimeout: soon}\n",
        "1:23: limits.dialTimeout: expected a duration such as 300 (seconds), 10s, 5m, 1h or 2d, found \"soon\"",
    ),
    (
        "no connection",
        "limits: {connections: 0}\n",
        "1:23: limits.connections: expected a whole number from 1 to 4294967295, found \"0\"",
    ),
    (
        "a head too large to keep",
        "limits: {maxHeadBytes: 2MiB}\n",
        "1:24: limits.maxHeadBytes: expected 1KiB to 1MiB, found \"2MiB\"",
    ),
    (
        "a host with a port",
        "admin: {allowedHosts: [\"a.test:80\"]}\n",
        "1:24: admin.allowedHosts[0]: expected a host name or address without port, found \"a.test:80\"",
    ),
    (
        "an origin with a path",
        "admin: {allowedOrigins: [\"https://a.test/x\"]}\n",
        "1:26: admin.allowedOrigins[0]: expected an origin such as https://console.example.com, found \"https://a.test/x\"",
    ),
    (
        "an event that never happens",
        "admin: {webhooks: [{name: a, url: \"https://a.test/\", secretFile: s, events: [session.*, session.start]}]}\n",
        "1:89: admin.webhooks[0].events[1]: expected a type of event such as session.started, or session.*, found \"session.start\"",
    ),
    (
        "a prefix of no event",
        "admin: {webhooks: [{name: a, url: \"https://a.test/\", secretFile: s, events: [\"sessions.*\"]}]}\n",
        "1:78: admin.webhooks[0].events[0]: expected a type of event such as session.started, or session.*, found \"sessions.*\"",
    ),
    (
        "a log nobody meant",
        "telemetry: {accessLog: stdot}\n",
        "1:24: telemetry.accessLog: expected stdout, stderr, none, or a file's path (./NAME for one here), found \"stdot\"",
    ),
    (
        "a level nobody knows",
        "telemetry: {log: verbose}\n",
        "1:18: telemetry.log: expected off, error, warn, info, debug, trace, or directives such as info,h2=warn, found \"verbose\"",
    ),
    (
        "advertised twice",
        "runtime: {providers: {p: {egressMode: none, advertised: {egressMode: cidr}}}}\n",
        "1:27: runtime.providers.p.egressMode: egressMode stands under advertised too",
    ),
    (
        "two defaults",
        "runtime:\n  providers:\n    a: {default: true}\n    b: {default: true}\n",
        "3:5: runtime.providers: more than one default provider: a, b",
    ),
    (
        "a provider's name",
        "runtime: {providers: {Big One: {}}}\n",
        "1:23: runtime.providers.Big One: \"Big One\" is not a name (lower-case letters, digits, '.', '_' and '-', at most 63, beginning with a letter or digit)",
    ),
    (
        "ttl above its bound",
        "runtime: {providers: {p: {session: {ttl: 2d}}}}\n",
        "1:42: runtime.providers.p.session.ttl: ttl is above maxLifetime",
    ),
    (
        "yes is not true",
        "runtime: {providers: {p: {canHostPlugins: yes}}}\n",
        "1:43: runtime.providers.p.canHostPlugins: expected true or false, found \"yes\"",
    ),
];

#[test]
fn each_fault_is_told_with_its_place() {
    let mut wrong = Vec::new();
    for (name, source, expected) in SINGLE {
        let found = faults_of(source);
        if found != [*expected] {
            wrong.push(format!(
                "{name}:\n  expected {expected}\n  found    {}",
                found.join("\n           ")
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_faults_are_told_at_once_in_order() {
    let found = faults_of(
        r#"publicUrl: ftp://x
listeners:
  - {kind: publik, address: nowhere}
  - {kind: plain, address: "192.0.2.1:3128", colour: red}
dns:
  timeout: -1s
  servers: [dns.test, "127.0.0.1:53", "tls://name"]
limits: {idleTimeout: never, connections: many}
egres: {}
telemetry: {refusalDetail: some}
"#,
    );
    let places: Vec<&str> = found
        .iter()
        .map(|fault| fault.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        places,
        [
            "1:12", "3:12", "3:29", "4:28", "4:46", "6:12", "7:13", "7:39", "8:23", "8:43", "9:1",
            "10:28"
        ],
        "{found:#?}"
    );
}

#[test]
fn a_key_twice_is_told_at_the_second() {
    let found = faults_of("limits: {connections: 1}\nlimits: {connections: 2}\n");
    assert_eq!(
        found.first().map(String::as_str),
        Some("2:1: limits: duplicate key \"limits\"")
    );
}

#[test]
fn a_syntax_error_and_text_that_is_no_document_do_not_panic() {
    for source in [
        "listeners: [",
        "a: b: c",
        "\u{0}",
        "{",
        "- - -",
        "*",
        "&a *a",
        "? !",
        "'",
        "\t- x",
        "%YAML 9.9\n",
    ] {
        assert!(!faults_of(source).is_empty(), "{source:?}");
    }
}

/// Rotting a valid document anywhere never panics, and never makes the reader accept what it cannot place.
#[test]
fn any_prefix_of_a_document_is_read_or_refused() {
    let source = include_str!("../../../../deploy/sluicegate.example.yaml");
    for (end, _) in source.char_indices() {
        if let Err(faults) = Config::parse(&source[..end]) {
            assert!(
                faults.errors.iter().all(|fault| fault.position.line >= 1),
                "{end}"
            );
        }
    }
}
