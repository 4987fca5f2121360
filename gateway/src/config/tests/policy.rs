//! Faults of policy inside the document: the place is ours to get right, the words are the policy crate's.
use super::*;

/// Policy inside the document: the place and a word of the message, which is the policy crate's own.
const POLICY: &[(&str, &str, &str, &str)] = &[
    (
        "broad pattern",
        "egress:\n  allowedHosts: [a.test, \"*.com\"]\n",
        "2:26: egress.allowedHosts[1]: ",
        "public suffix",
    ),
    (
        "unquoted pattern",
        "egress:\n  allowedHosts:\n    - *.a.test\n",
        "3:7: ",
        "quote a pattern",
    ),
    (
        "ceiling is the provider's",
        "egress: {ceiling: {}}\n",
        "1:10: egress.ceiling: ",
        "unknown key",
    ),
    (
        "beyond a provider's ceiling",
        "runtime:\n  providers:\n    p:\n      egress: {allowedAddresses: [10.0.0.0/8]}\n",
        "4:35: ",
        "ceiling.addresses",
    ),
    (
        "top-level egress beyond the ceiling",
        "egress: {allowedAddresses: [10.0.0.0/8]}\n",
        "1:29: ",
        "ceiling.addresses",
    ),
    (
        "ceiling that does not parse",
        "runtime: {providers: {p: {egress: {ceiling: {addresses: [here]}}}}}\n",
        "1:58: runtime.providers.p.egress.ceiling.addresses[0]: ",
        "here",
    ),
    (
        "a provider's service outside its list of sockets",
        "runtime: {providers: {p: {egress: {ceiling: {sockets: [/run/a/]}}, services: {s: \"unix:///run/b\"}}}}\n",
        "1:82: runtime.providers.p.services.s: ",
        "ceiling.sockets",
    ),
    (
        "a list of sockets that does not parse",
        "runtime: {providers: {p: {egress: {ceiling: {sockets: [run/a]}}}}}\n",
        "1:56: runtime.providers.p.egress.ceiling.sockets[0]: ",
        "not absolute",
    ),
    (
        "known service without address",
        "services: {cache: {idleTimeout: 5m}}\n",
        "1:19: services.cache: ",
        "needs its url",
    ),
    (
        "service address",
        "services: {cache: \"http://x\"}\n",
        "1:19: services.cache: ",
        "unix:///path",
    ),
    (
        "service name",
        "services: {Big Cache: \"tcp://127.0.0.1:1\"}\n",
        "1:12: services.Big Cache: ",
        "not a service name",
    ),
    (
        "service nobody knows",
        "services: {db: \"tcp://127.0.0.1:1\"}\ncapabilities: {c: {services: [cache]}}\n",
        "2:31: ",
        "cache",
    ),
    (
        "capability key",
        "capabilities: {c: {egres: {}}}\n",
        "1:20: capabilities.c.egres: ",
        "did you mean",
    ),
    (
        "capability beyond every ceiling",
        "capabilities: {c: {egress: {allowedAddresses: [10.0.0.0/8]}}}\n",
        "1:48: ",
        "ceiling.addresses",
    ),
    (
        "provider's service, told once",
        "runtime: {providers: {p: {egress: {}, services: {s: \"ftp://x\"}}}}\n",
        "1:53: runtime.providers.p.services.s: ",
        "unix:///path",
    ),
    (
        "provider's egress, told once",
        "runtime: {providers: {p: {egress: {allowedHost: []}}}}\n",
        "1:36: runtime.providers.p.egress.allowedHost: ",
        "did you mean",
    ),
    (
        "session limit",
        "runtime: {providers: {p: {limits: {tunnels: -1}}}}\n",
        "1:45: runtime.providers.p.limits.tunnels: ",
        "whole number",
    ),
    (
        "built later",
        "egress: {allowedHosts: [a.test], rules: [{host: a.test, inject: []}]}\n",
        "1:",
        "not built yet",
    ),
];

#[test]
fn each_fault_of_policy_is_told_once_with_its_place() {
    let mut wrong = Vec::new();
    for (name, source, place, word) in POLICY {
        let found = faults_of(source);
        if found.len() != 1 || !found[0].starts_with(place) || !found[0].contains(word) {
            wrong.push(format!("{name}: {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_address_within_a_ceiling_is_no_fault() {
    let capability = "capabilities: {c: {egress: {allowedAddresses: [10.0.0.0/8]}}}\n";
    let providers =
        "runtime: {providers: {tight: {}, wide: {egress: {ceiling: {addresses: [10.0.0.0/8]}}}}}\n";
    assert_eq!(
        faults_of(&format!("{capability}{providers}")),
        Vec::<String>::new()
    );
}
