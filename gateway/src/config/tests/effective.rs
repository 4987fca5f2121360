//! The effective configuration: complete, readable again, and equal when read.
use super::*;

fn round_trip(config: &Config) {
    for text in [config.masked_yaml(), config.to_json().to_string()] {
        let again = good(&text);
        assert_eq!(&again, config, "{text}");
        assert_eq!(again.to_json(), config.to_json());
    }
}

#[test]
fn the_embedded_configuration_reads_back() {
    round_trip(&Config::embedded(Path::new("/var/lib/sluicegate")));
}

#[test]
fn the_example_reads_back_without_a_warning() {
    let source = include_str!("../../../../deploy/sluicegate.example.yaml");
    assert_eq!(warnings_of(source), Vec::<String>::new());
    round_trip(&good(source));
}

#[test]
fn every_value_that_is_not_a_default_reads_back() {
    round_trip(&good(
        r#"
publicUrl: http://10.0.0.1:8080
listeners:
  - {kind: public, address: "[::]:443", quic: false}
  - {kind: plain, address: "10.1.2.3:3128", privateNetwork: true}
  - {kind: socks, address: "10.1.2.3:1080", privateNetwork: true}
  - {kind: socks, address: "192.0.2.1:1081", tls: {certificate: c.pem, key: k.pem}}
  - {kind: plain, address: "127.0.0.1:3129", proxyProtocol: {trusted: [192.0.2.0/24, "2001:db8::1"]}}
  - {kind: transparent, address: "0.0.0.0:15001", capture: tproxy, identify: source, namespaces: [a, b]}
  - {kind: sni, address: "[::]:8444", targetPort: 8443, identify: header, proxyProtocol: {trusted: [192.0.2.1]}}
  - {kind: management, address: "192.0.2.1:9443", tls: {certificate: "a b.pem", key: "yes"}}
tls: {names: ["*.gate.test", "2001:db8::1"]}
dns: {servers: ["tls://[2606::1]:853", "https://1.1.1.1:8443/x/y#a.test"], hosts: {a.test: ["fd00::8", 10.0.0.8]}, mixedAnswers: filter, timeout: 1500ms, nat64: ["64:ff9b:1::/48"]}
upstreamProxy: {url: "https://proxy.test:8443", credentialFile: c, caFile: a.pem, ask: name, bypass: ["*.corp.test:*", "10.0.0.0/8:*"]}
quotas: {sessions: 0, records: 7, logs: 8MiB, tunnels: 1, opensPerSecond: 2, bytes: 3, bandwidth: 1TiB}
limits: {headTimeout: 90s, connectionsPerSource: 7, pendingOpens: 5, relayConnections: 6, firstBytesTimeout: 1ms, idleTimeout: 0, responseTimeout: 61s, drainTimeout: 0}
admin: {allowedHosts: [console.test, "[::1]"], allowedOrigins: ["https://console.test:8443"]}
telemetry: {accessLog: ./on, refusalDetail: minimal, log: "off"}
runtime:
  providers:
    a: {driver: "null", default: true, canHostPlugins: true, hostServiceAccess: direct, egressMode: hostname, hostnameEgress: runtime, session: {ttl: 25h, maxLifetime: 49h, idleTimeout: 0, onExpiry: stop, onPause: hold}}
    b: {confinement: gateway-only}
"#,
    ));
}

#[test]
fn policy_inside_the_document_reads_back() {
    round_trip(&good(
        r#"
egress: {allowedHosts: [], deniedHosts: ["*.bad.test"], hosts: {a.test: 127.0.0.1}}
services: {cache: "unix:///run/cache.sock", db: {url: "tcp://127.0.0.1:5432", idleTimeout: 5m}}
capabilities:
  web: {description: "Read: the web", egress: {allowedHosts: ["*.b.example.com", "a.example.com:8443"]}}
  db: {services: [db], limits: {tunnels: 3, bandwidth: 1MiB}}
runtime:
  providers:
    p:
      egress:
        allowedAddresses: ["127.0.0.0/8", "::1/128"]
        mode: report
        ceiling: {allowedHosts: ["*.example.com:*"], deniedHosts: [x.example.com], addresses: ["127.0.0.0/8", "::1/128"], sockets: [/run/app/]}
      services: {s3: "tls://127.0.0.1:9000"}
      limits: {tunnels: 64, tunnelsPerDestination: 16, opensPerSecond: 20, bytes: 1GiB}
"#,
    ));
}
