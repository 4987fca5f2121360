//! Properties of the decision, on generated lists and targets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use super::*;
use crate::{
    Grant, Host, Target,
    testing::{grant, target},
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

    #[test]
    fn explain_and_decide_never_differ(allow in list(), deny in list(), report: bool, asked in asked()) {
        let grant = egress(&allow, &deny, if report { "report" } else { "enforce" });
        let admission = admission();
        let told = explain(&grant, &asked, &admission);
        let decided = decide(&grant, &asked).and_then(|permit| {
            let answers = match asked.host() {
                Host::Ip(address) => Some(vec![*address]),
                Host::Name(name) => admission.hosts.get(name).cloned(),
            };
            if let Some(answers) = answers {
                admit(&grant, &permit, &answers, &admission)?;
            }
            Ok(permit)
        });
        match decided {
            Ok(permit) => {
                prop_assert_eq!(told.outcome, "allow");
                prop_assert_eq!(told.rule, Some(permit.rule().to_string()));
                prop_assert_eq!(told.reason, permit.reported().map(|refusal| refusal.denial.reason()));
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
    }
}
