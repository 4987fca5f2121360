//! Properties of the decision, on generated lists and targets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use super::*;
use crate::{
    Grant, Host, Refusal, Target,
    testing::{compile, grant, target},
};
use proptest::prelude::*;
use std::{net::IpAddr, sync::Arc};

/// Names that often meet: few labels, few letters.
fn name() -> impl Strategy<Value = String> {
    proptest::collection::vec("[a-c]", 1..4).prop_map(|labels| format!("{}.test", labels.join(".")))
}

fn entry() -> impl Strategy<Value = String> {
    let host = prop_oneof![
        name(),
        name().prop_map(|name| format!("*.{name}")),
        Just("10.0.0.0/8".to_owned()),
        Just("1.2.3.4".to_owned()),
        Just("[2600:64::/64]".to_owned())
    ];
    (
        host,
        prop_oneof![Just(""), Just(":*"), Just(":22"), Just(":443")],
    )
        .prop_map(|(host, port)| format!("'{host}{port}'"))
}

fn asked() -> impl Strategy<Value = Target> {
    let host = prop_oneof![4 => name(), 1 => Just("1.2.3.4".to_owned()), 1 => Just("10.1.1.1".to_owned()), 1 => Just("[2600:64::7f00:1]".to_owned())];
    (host, prop_oneof![Just(22), Just(80), Just(443), Just(9)])
        .prop_map(|(host, port)| target(&format!("{host}:{port}")))
}

/// A network with a NAT64 prefix of its own, and a static answer that some lists deny.
fn admission() -> Admission {
    let prefix = crate::Nat64Prefix::new("2600:64::".parse().unwrap(), 96).unwrap();
    let name = crate::HostName::parse("a.test").unwrap();
    Admission {
        nat64: vec![prefix].into(),
        hosts: Arc::new([(name, vec![IpAddr::from([10, 1, 1, 1])])].into()),
        ..Admission::default()
    }
}

/// How many ways [`spelled`] knows.
const FORMS: usize = 6;

/// An IPv4 address, or a range of them, in one of the ways it can be written.
fn spelled(address: std::net::Ipv4Addr, length: Option<u8>, form: usize) -> String {
    let bits = u128::from(address.to_bits());
    let (base, begins): (u128, u8) = match form {
        0 => {
            return match length {
                Some(length) => format!("{address}/{length}"),
                None => address.to_string(),
            };
        }
        1 => (0xffff << 32, 96),
        2 => (0x64_ff9b << 96, 96),
        3 => (0xffff << 48, 96),
        4 => (0x2600 << 112 | 0x5efe << 32, 96),
        _ => (0x2002 << 112, 16),
    };
    let v6 = std::net::Ipv6Addr::from_bits(base | bits << (96 - begins));
    match length {
        Some(length) => format!("[{v6}/{}]", begins + length),
        None => format!("[{v6}]"),
    }
}

fn list() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(entry(), 0..6)
}

fn egress(allow: &[String], deny: &[String], mode: &str) -> Arc<Grant> {
    grant(&format!(
        "allowedHosts: [{}], deniedHosts: [{}], mode: {mode}",
        allow.join(", "),
        deny.join(", ")
    ))
}

/// What a rule says.
fn attribute() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "tls: require",
        "tls: auto",
        "tls: opaque",
        "ech: deny",
        "ech: {publicNames: [b.test]}",
        "http: {methods: [GET]}",
        "http: {pathPrefixes: [/v1]}",
    ])
}

fn supposed() -> impl Strategy<Value = Supposed> {
    let address = prop::sample::select(vec!["93.184.215.14", "10.1.1.1", "1.2.3.4", "fd00::1"])
        .prop_map(|address| address.parse::<IpAddr>().unwrap());
    let method = prop::sample::select(vec!["GET", "POST"]).prop_map(str::to_owned);
    let path = prop::sample::select(vec!["/v1/x", "/", "/v1/../x"]).prop_map(str::to_owned);
    let hello = (
        prop::option::of(name()),
        proptest::bool::ANY,
        proptest::bool::ANY,
    )
        .prop_map(|(sni, ech, ech_draft)| {
            FirstBytes::Tls(Hello {
                sni: sni.map(Into::into),
                ech,
                ech_draft,
            })
        });
    (
        prop::option::of(proptest::collection::vec(address, 1..3)),
        proptest::collection::vec((method, path), 0..3),
        prop::option::of(prop_oneof![Just(FirstBytes::Other), hello]),
    )
        .prop_map(|(addresses, requests, began)| Supposed {
            addresses,
            requests,
            began,
        })
}

/// Each judgement by itself, in the order in which they come: the rule that lets it pass, and what report mode makes of it.
fn judged(
    grant: &Arc<Grant>,
    asked: &Target,
    admission: &Admission,
    supposed: &Supposed,
) -> Result<(String, Option<Refusal>), Refusal> {
    let permit = decide(grant, asked)?;
    let mut reported = permit.reported().cloned();
    for (method, path) in &supposed.requests {
        let also = permit.judge_http(method, path)?;
        reported = reported.or(also);
    }
    let answers = match asked.host() {
        Host::Ip(address) => Some(vec![*address]),
        Host::Name(name) => {
            let fixed = admission.hosts.get(name).cloned();
            fixed.or_else(|| supposed.addresses.clone())
        }
    };
    if let Some(answers) = answers {
        admit(grant, &permit, &answers, admission)?;
    }
    if let Some(began) = &supposed.began {
        let judged = permit.judge_began(began);
        judged.map_err(|denial| permit.refuse(denial, Some(began)))?;
    }
    Ok((permit.rule().to_string(), reported))
}

proptest! {
    #[test]
    fn a_name_is_reachable_exactly_where_one_port_is(allow in list(), deny in list(), name in name()) {
        let grant = egress(&allow, &deny, "enforce");
        let any = (1..=500).chain([u16::MAX]).any(|port| decide(&grant, &target(&format!("{name}:{port}"))).is_ok());
        let asked = crate::HostName::parse(&name).unwrap();
        prop_assert_eq!(decide_name(&grant, &asked).is_ok(), any);
    }

    #[test]
    fn nothing_is_allowed_that_no_entry_covers(allow in list(), asked in asked()) {
        let grant = egress(&allow, &[], "enforce");
        // The same question, asked of each entry alone.
        let alone = allow.iter().any(|entry| decide(&egress(std::slice::from_ref(entry), &[], "enforce"), &asked).is_ok());
        prop_assert_eq!(decide(&grant, &asked).is_ok(), alone);
    }

    #[test]
    fn a_pattern_covers_what_its_definition_says(pattern in name(), asked in name()) {
        let grant = egress(&[format!("'*.{pattern}:*'")], &[], "enforce");
        let below = asked.ends_with(&format!(".{pattern}"));
        prop_assert_eq!(decide(&grant, &target(&format!("{asked}:1"))).is_ok(), below);
    }

    #[test]
    fn adding_a_deny_never_permits_more(allow in list(), deny in list(), more in entry(), asked in asked()) {
        let before = decide(&egress(&allow, &deny, "enforce"), &asked).is_ok();
        let mut wider = deny;
        wider.push(more);
        let after = decide(&egress(&allow, &wider, "enforce"), &asked).is_ok();
        prop_assert!(before || !after);
    }

    /// However an address is written: the deny holds for what it names, spelled so or otherwise, and opens nothing.
    #[test]
    fn a_deny_in_any_spelling_denies_what_it_names(bits: u32, length in 1_u8..=32, written in 0..FORMS, asked in 0..FORMS, other: u32) {
        let everything = "defaultAction: allow";
        let net = ipnet::Ipv4Net::new(bits.into(), length).unwrap().trunc();
        let denied = grant(&format!("{everything}, deniedHosts: ['{}']", spelled(net.addr(), Some(length), written)));
        let within = |bits: u32| format!("{}:443", spelled(bits.into(), None, asked));
        prop_assert!(decide(&denied, &target(&within(bits))).is_err(), "{:?} {}", denied.egress.deny, within(bits));
        let before = decide(&grant(everything), &target(&within(other))).is_ok();
        let after = decide(&denied, &target(&within(other))).is_ok();
        prop_assert!(before || !after);
        prop_assert_eq!(after, !net.contains(&std::net::Ipv4Addr::from(other)), "{}", within(other));
    }

    /// Of everything that may be asked about, and whoever wrote what stands in the way.
    #[test]
    fn explain_and_decide_never_differ(
        allow in list(),
        deny in proptest::collection::vec(entry(), 0..3),
        bound in (prop::option::weighted(0.2, list()), proptest::collection::vec(entry(), 0..2)),
        rules in proptest::collection::vec((any::<prop::sample::Index>(), attribute()), 0..3),
        report: bool,
        asked in asked(),
        supposed in supposed(),
    ) {
        let mode = if report { "report" } else { "enforce" };
        let rules: Vec<String> = match &allow[..] {
            [] => Vec::new(),
            allow => rules.iter().map(|(at, says)| format!("{{host: {}, {says}}}", at.get(allow))).collect(),
        };
        let source = |rules: &[String]| {
            let (allow, deny, rules) = (allow.join(", "), deny.join(", "), rules.join(", "));
            format!("egress: {{allowedHosts: [{allow}], deniedHosts: [{deny}], rules: [{rules}], mode: {mode}}}")
        };
        let ceiling = |allowed: Option<&Vec<String>>| {
            let allowed = allowed.map_or_else(String::new, |list| format!("allowedHosts: [{}], ", list.join(", ")));
            format!("{{{allowed}deniedHosts: [{}], addresses: [0.0.0.0/0, '::/0']}}", bound.1.join(", "))
        };
        // What cannot be loaded is asked about without what is in its way.
        let grant = compile(&source(&rules), &ceiling(bound.0.as_ref()))
            .or_else(|_| compile(&source(&rules), &ceiling(None)))
            .or_else(|_| compile(&source(&[]), &ceiling(None)))
            .unwrap();
        let admission = admission();
        let told = explain_supposing(&grant, &asked, &admission, &supposed);
        match judged(&grant, &asked, &admission, &supposed) {
            Ok((rule, reported)) => {
                prop_assert_eq!(told.outcome, "allow");
                prop_assert_eq!(told.rule, Some(rule));
                prop_assert_eq!(told.reason, reported.as_ref().map(|refusal| refusal.denial.reason()));
                if let Some(hint) = reported.and_then(|refusal| refusal.hint) {
                    prop_assert_eq!(told.hint, Some(hint.to_string()));
                }
            }
            Err(refusal) => {
                prop_assert_eq!(told.outcome, "deny");
                prop_assert_eq!(told.reason, Some(refusal.denial.reason()));
                prop_assert_eq!(told.rule, refusal.rule.map(|rule| rule.to_string()));
                prop_assert_eq!(told.hint, refusal.hint.map(|hint| hint.to_string()));
            }
        }
    }

    #[test]
    fn a_hint_works(allow in list(), asked in asked()) {
        let refused = decide(&egress(&allow, &[], "enforce"), &asked).err();
        if let Some(hint) = refused.and_then(|refusal| refusal.hint) {
            let hint = hint.to_string();
            let entry = hint.split('"').nth(1).unwrap().to_owned();
            let mut wider = allow;
            wider.push(format!("'{entry}'"));
            prop_assert!(decide(&egress(&wider, &[], "enforce"), &asked).is_ok(), "{}", hint);
        }
    }

    #[test]
    fn nothing_special_is_dialled_without_an_exception(bits: u32, v6: u128, filter: bool) {
        let grant = grant("allowedHosts: [a.test]");
        let mixed = if filter { MixedAnswers::Filter } else { MixedAnswers::Refuse };
        let admission = Admission { mixed, ..Admission::default() };
        let permit = decide(&grant, &target("a.test:443")).unwrap();
        let answers = [IpAddr::from(std::net::Ipv4Addr::from_bits(bits)), IpAddr::from(std::net::Ipv6Addr::from_bits(v6))];
        for permit in admit(&grant, &permit, &answers, &admission).into_iter().flatten() {
            prop_assert_eq!(crate::classify(permit.address().ip(), &[]), crate::AddressClass::Global);
        }
        for answer in answers {
            let one = admit_one(&grant, &permit, answer, &admission).map(|admitted| vec![admitted]);
            prop_assert_eq!(one, admit(&grant, &permit, &[answer], &admission));
        }
    }
}
