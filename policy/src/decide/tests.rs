#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use super::*;
use crate::{
    Denial, Direction, Grant, MethodPrefix, Nat64Prefix, Refusal, ServiceBound, ServiceName,
    TlsRule,
    testing::{compile, grant, target},
};
use std::{net::IpAddr, sync::Arc};

/// The setting of the vectors.
const SETTING: &str =
    "allowedHosts: ['api.allowed.test:443', '*.wild.test:443', 'plain.allowed.test:80']";

fn outcome(grant: &Arc<Grant>, authority: &str) -> Result<String, Denial> {
    decide(grant, &target(authority))
        .map(|permit| permit.rule().to_string())
        .map_err(|refusal| refusal.denial)
}

fn admitted(grant: &Arc<Grant>, authority: &str, answers: &[&str]) -> Result<Vec<String>, Denial> {
    admitted_with(grant, authority, answers, &Admission::default())
        .map_err(|refusal| refusal.denial)
}

fn admitted_with(
    grant: &Arc<Grant>,
    authority: &str,
    answers: &[&str],
    admission: &Admission,
) -> Result<Vec<String>, Refusal> {
    let permit = decide(grant, &target(authority))?;
    let answers: Vec<IpAddr> = match permit.answers() {
        Some(fixed) => fixed.to_vec(),
        None => answers
            .iter()
            .map(|answer| answer.parse().unwrap())
            .collect(),
    };
    let permits = admit(grant, &permit, &answers, admission)?;
    Ok(permits
        .iter()
        .map(|permit| permit.address().to_string())
        .collect())
}

#[test]
fn the_setting_of_the_vectors() {
    let grant = grant(SETTING);
    for (authority, expected) in [
        (
            "api.allowed.test:443",
            Ok("allowedHosts[0] \"api.allowed.test:443\""),
        ),
        (
            "API.Allowed.TEST.:443",
            Ok("allowedHosts[0] \"api.allowed.test:443\""),
        ),
        (
            "_srv.wild.test:443",
            Ok("allowedHosts[1] \"*.wild.test:443\""),
        ),
        (
            "a.b.wild.test:443",
            Ok("allowedHosts[1] \"*.wild.test:443\""),
        ),
        (
            "plain.allowed.test:80",
            Ok("allowedHosts[2] \"plain.allowed.test:80\""),
        ),
        // v016, v017
        (
            "api.allowed.test.evil.test:443",
            Err(Denial::HostNotAllowed),
        ),
        ("notapi.allowed.test:443", Err(Denial::HostNotAllowed)),
        ("evilwild.test:443", Err(Denial::HostNotAllowed)),
        ("wild.test:443", Err(Denial::HostNotAllowed)),
        ("allowed.test:443", Err(Denial::HostNotAllowed)),
        // v021
        ("api.allowed.test:80", Err(Denial::PortNotAllowed)),
        ("api.allowed.test:22", Err(Denial::PortNotAllowed)),
        ("x.wild.test:8443", Err(Denial::PortNotAllowed)),
        // v030
        ("1.1.1.1:443", Err(Denial::AddressNotAllowed)),
        ("[2606:4700::1111]:443", Err(Denial::AddressNotAllowed)),
        ("127.0.0.1:443", Err(Denial::AddressNotAllowed)),
    ] {
        assert_eq!(
            outcome(&grant, authority),
            expected.map(str::to_owned),
            "{authority}"
        );
    }
}

#[test]
fn ports_as_written() {
    let grant = grant(
        "allowedHosts: [a.test, 'b.test:5432', 'c.test:*', '10.20.0.0/16:5432', '[2001:db8::/32]:443', 10.9.9.9]",
    );
    for (authority, allowed) in [
        ("a.test:80", true),
        ("a.test:443", true),
        ("a.test:8080", false),
        ("b.test:5432", true),
        ("b.test:443", false),
        ("c.test:1", true),
        ("c.test:65535", true),
        ("10.20.255.1:5432", true),
        ("10.20.255.1:443", false),
        ("10.21.0.1:5432", false),
        ("[2001:db8:ffff::1]:443", true),
        ("[2001:db9::1]:443", false),
        ("10.9.9.9:443", true),
        ("[::ffff:10.9.9.9]:443", true), // the same socket
        ("10.9.9.8:443", false),
    ] {
        assert_eq!(outcome(&grant, authority).is_ok(), allowed, "{authority}");
    }
}

#[test]
fn denied_wins_over_every_allow() {
    let grant = grant(
        "allowedHosts: ['*.a.test:*', x.b.test, '10.0.0.0/8'], deniedHosts: ['*.int.a.test', 'y.a.test:22', x.b.test, 10.6.6.6]",
    );
    for (authority, expected) in [
        ("z.a.test:22", None),
        ("y.a.test:443", None),
        ("y.a.test:22", Some(Denial::HostDenied)),
        ("db.int.a.test:9", Some(Denial::HostDenied)),
        ("int.a.test:9", None),
        ("x.b.test:443", Some(Denial::HostDenied)),
        ("X.B.test.:443", Some(Denial::HostDenied)), // v002
        ("10.6.6.6:443", Some(Denial::HostDenied)),
        ("[::ffff:10.6.6.6]:443", Some(Denial::HostDenied)),
        ("[64:ff9b::a06:606]:443", Some(Denial::HostDenied)),
        ("10.6.6.7:443", None),
    ] {
        assert_eq!(outcome(&grant, authority).err(), expected, "{authority}");
    }
    assert_eq!(
        admitted(&grant, "q.a.test:1", &["10.6.6.6"]),
        Err(Denial::HostDenied)
    );
    assert_eq!(
        admitted(&grant, "q.a.test:1", &["64:ff9b::a06:606"]),
        Err(Denial::HostDenied)
    );
}

#[test]
fn v027_a_deny_holds_however_the_address_is_spelled() {
    let lists = |deny: &str| {
        format!(
            "egress: {{allowedHosts: ['127.0.0.0/8', 9.9.9.9, '[2000::/3]', '[64:ff9b::/32]', a.test], allowedAddresses: [127.0.0.0/8], deniedHosts: ['{deny}']}}"
        )
    };
    let widest = "addresses: [0.0.0.0/0, '::/0']";
    for deny in [
        "127.0.0.1",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::ffff:127.0.0.0/104]",
        "[::ffff:0:0/96]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::7f00:0/104]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::/48]",
        "[2002:7f00:1::5]",
        "[2600::5efe:7f00:1]",
        "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "[2001::80ff:fffe]",
    ] {
        let own = compile(&lists(deny), widest).unwrap();
        let ceiling = format!("{{addresses: [0.0.0.0/0, '::/0'], deniedHosts: ['{deny}']}}");
        let bound = compile(&lists("b.test"), &ceiling).unwrap();
        for grant in [own, bound] {
            for asked in [
                "127.0.0.1:443",
                "[::ffff:127.0.0.1]:443",
                "[64:ff9b::7f00:1]:443",
                "[2002:7f00:1::5]:443",
            ] {
                let found = outcome(&grant, asked);
                assert_eq!(found, Err(Denial::HostDenied), "{deny} {asked}");
            }
            for answer in ["127.0.0.1", "::ffff:127.0.0.1"] {
                let found = admitted(&grant, "a.test:443", &[answer]);
                assert_eq!(found, Err(Denial::HostDenied), "{deny} {answer}");
            }
        }
    }
    // A form as a whole is a way, and not all that can be reached by it.
    for deny in ["[64:ff9b::/96]", "[2002::/16]", "[2001::/32]", "[::/0]"] {
        let grant = compile(&lists(deny), widest).unwrap();
        assert!(outcome(&grant, "9.9.9.9:443").is_ok(), "{deny}");
        assert!(outcome(&grant, "127.0.0.1:443").is_ok(), "{deny}");
    }
}

#[test]
fn a_mapped_range_excepts_what_it_holds() {
    let within = "addresses: ['::ffff:10.0.0.0/104']";
    let source = "egress: {allowedHosts: [a.test, '[::ffff:10.1.0.0/112]'], allowedAddresses: ['[::ffff:10.2.0.0/112]']}";
    let grant = compile(source, within).unwrap();
    assert!(admitted(&grant, "a.test:443", &["10.2.3.4"]).is_ok());
    assert!(admitted(&grant, "10.1.2.3:443", &[]).is_ok());
    let found = admitted(&grant, "a.test:443", &["10.1.2.3"]);
    assert_eq!(found, Err(Denial::SpecialAddress));
}

#[test]
fn v109_absent_and_empty_differ() {
    for (egress, allowed) in [
        ("", false),
        ("defaultAction: deny", false),
        ("defaultAction: allow", true),
        ("allowedHosts: []", false),
        ("defaultAction: allow, allowedHosts: []", false),
        ("defaultAction: allow, allowedHosts: [b.test]", false),
        ("defaultAction: allow, deniedHosts: [a.test]", false),
    ] {
        assert_eq!(
            outcome(&grant(egress), "a.test:9999").is_ok(),
            allowed,
            "{egress}"
        );
    }
    // The default speaks of names; addresses are judged all the same.
    let open = grant("defaultAction: allow");
    assert_eq!(
        admitted(&open, "a.test:1", &["127.0.0.1"]),
        Err(Denial::SpecialAddress)
    );
    assert_eq!(
        admitted(&open, "127.0.0.1:1", &[]),
        Err(Denial::SpecialAddress)
    );
    assert_eq!(
        admitted(&open, "1.1.1.1:1", &[]),
        Ok(vec!["1.1.1.1:1".to_owned()])
    );
}

#[test]
fn v024_to_v028_answers_of_an_allowed_name() {
    let grant = grant(SETTING);
    let name = "api.allowed.test:443";
    for answer in [
        "127.0.0.1",
        "10.0.0.1",
        "100.64.0.1",
        "169.254.1.1",
        "0.0.0.0",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fd00::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2600::5efe:a00:1",
    ] {
        assert_eq!(
            admitted(&grant, name, &[answer]),
            Err(Denial::SpecialAddress),
            "{answer}"
        );
    }
    for answer in [
        "169.254.169.254",
        "fd00:ec2::254",
        "64:ff9b::a9fe:a9fe",
        "168.63.129.16",
    ] {
        assert_eq!(
            admitted(&grant, name, &[answer]),
            Err(Denial::MetadataAddress),
            "{answer}"
        );
    }
    assert_eq!(
        admitted(&grant, name, &["64:ff9b::808:808"]),
        Ok(vec!["[64:ff9b::808:808]:443".to_owned()])
    );
    assert_eq!(admitted(&grant, name, &[]), Err(Denial::DnsFailed));
    assert_eq!(
        admitted(&grant, name, &["9.9.9.9", "2620:fe::fe", "1.1.1.1"]),
        Ok(vec![
            "9.9.9.9:443".to_owned(),
            "[2620:fe::fe]:443".to_owned(),
            "1.1.1.1:443".to_owned()
        ])
    );
}

#[test]
fn v025_metadata_is_named_one_by_one_by_the_operator() {
    let session = "egress: {allowedHosts: [a.test, metadata.google.internal], allowedAddresses: [169.254.169.254, 169.254.0.0/16]}";
    let by_range =
        "{addresses: [169.254.0.0/16], allowedHosts: [a.test, metadata.google.internal]}";
    let by_name = "{addresses: [169.254.0.0/16, 169.254.169.254], allowedHosts: [a.test, metadata.google.internal]}";
    assert!(
        compile(session, by_range)
            .unwrap_err()
            .contains("169.254.169.254 is a metadata address")
    );
    let grant = compile(session, by_name).unwrap();
    assert!(admitted(&grant, "a.test:80", &["169.254.169.254"]).is_ok());
    assert!(admitted(&grant, "metadata.google.internal:80", &["169.254.169.254"]).is_ok());
    assert_eq!(
        admitted(&grant, "a.test:80", &["169.254.170.2"]),
        Err(Denial::MetadataAddress)
    );
    assert!(admitted(&grant, "a.test:80", &["169.254.1.1"]).is_ok());

    let ranged =
        "egress: {allowedHosts: [a.test, '169.254.0.0/16'], allowedAddresses: [169.254.0.0/16]}";
    let grant = compile(ranged, "{addresses: [169.254.0.0/16, 169.254.169.254]}").unwrap();
    assert_eq!(
        admitted(&grant, "a.test:80", &["169.254.169.254"]),
        Err(Denial::MetadataAddress)
    );
    assert_eq!(
        admitted(&grant, "169.254.169.254:80", &[]),
        Err(Denial::MetadataAddress)
    );
    assert!(admitted(&grant, "169.254.1.1:80", &[]).is_ok());

    let open = compile("egress: {defaultAction: allow}", "{}").unwrap();
    assert_eq!(
        outcome(&open, "metadata.google.internal:80"),
        Err(Denial::MetadataAddress)
    );
    let named = compile("egress: {allowedHosts: [metadata.google.internal]}", "{}").unwrap_err();
    assert!(named.contains("metadata service"), "{named}");
}

#[test]
fn exceptions_are_for_whom_they_name() {
    let grant = grant(
        "allowedHosts: [a.test, fixed.test, '192.168.1.0/24', 8.8.8.8], allowedAddresses: ['10.20.0.0/16', 'fd00:1::/32'], hosts: {fixed.test: [127.0.0.1, '::1']}",
    );
    for (authority, answers, expected) in [
        ("a.test:443", &["10.20.1.1"][..], Ok(vec!["10.20.1.1:443"])),
        ("a.test:443", &["fd00:1::9"], Ok(vec!["[fd00:1::9]:443"])),
        ("a.test:443", &["10.21.1.1"], Err(Denial::SpecialAddress)),
        // A literal's exception is for the literal, a static answer's for its name.
        ("a.test:443", &["192.168.1.1"], Err(Denial::SpecialAddress)),
        ("a.test:443", &["127.0.0.1"], Err(Denial::SpecialAddress)),
        ("192.168.1.1:443", &[], Ok(vec!["192.168.1.1:443"])),
        ("8.8.8.8:443", &[], Ok(vec!["8.8.8.8:443"])),
        (
            "fixed.test:443",
            &[],
            Ok(vec!["127.0.0.1:443", "[::1]:443"]),
        ),
        // And allowedAddresses is for names.
        ("10.20.1.1:443", &[], Err(Denial::AddressNotAllowed)),
    ] {
        let expected = expected.map(|list| list.into_iter().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(
            admitted(&grant, authority, answers),
            expected,
            "{authority} {answers:?}"
        );
    }
}

#[test]
fn v033_mixed_answers() {
    let grant = grant(SETTING);
    let name = "api.allowed.test:443";
    let answers = ["1.1.1.1", "10.0.0.1", "9.9.9.9"];
    assert_eq!(
        admitted(&grant, name, &answers),
        Err(Denial::SpecialAddress)
    );
    let filter = Admission {
        mixed: MixedAnswers::Filter,
        ..Admission::default()
    };
    assert_eq!(
        admitted_with(&grant, name, &answers, &filter).unwrap(),
        ["1.1.1.1:443", "9.9.9.9:443"]
    );
    let none = admitted_with(&grant, name, &["10.0.0.1", "169.254.169.254"], &filter);
    assert_eq!(none.unwrap_err().denial, Denial::SpecialAddress);
}

/// An operator's NAT64 prefixes are a way to IPv4 like the well-known one, for what is denied as well.
#[test]
fn denies_hold_under_the_networks_own_nat64_prefixes() {
    let prefix = |text: &str, length| Nat64Prefix::new(text.parse().unwrap(), length).unwrap();
    let admission = Admission {
        nat64: vec![prefix("2600:64::", 96), prefix("2600:77::", 64)].into(),
        ..Admission::default()
    };
    let under = [
        "2600:64::909:909",
        "2600:77::9:909:900:0",
        "64:ff9b::909:909",
        "9.9.9.9",
    ];
    let beside = [
        "2600:64::908:909",
        "2600:77::9:809:900:0",
        "64:ff9b::908:909",
        "9.8.9.9",
    ];
    for (deny, denied, passing) in [
        ("9.9.0.0/16", &under[..], &beside[..]),
        ("9.9.9.9", &under, &beside),
        ("[64:ff9b::909:0/112]", &under, &beside),
        ("[2600:64::909:0/112]", &under, &beside),
        ("[2600:77::9:909:900:0]", &under, &beside),
        // The way as a whole.
        ("[2600:64::/96]", &["2600:64::909:909"], &under[1..]),
        ("9.9.9.9:80", &[], &under),
        ("[2600:64::909:909]:80", &[], &under),
    ] {
        let grant = grant(&format!("allowedHosts: [a.test], deniedHosts: ['{deny}']"));
        let check = |answer: &str| {
            admitted_with(&grant, "a.test:443", &[answer], &admission).map_err(|r| r.denial)
        };
        for answer in denied {
            assert_eq!(check(answer), Err(Denial::HostDenied), "{deny} {answer}");
        }
        for answer in passing {
            assert!(check(answer).is_ok(), "{deny} {answer}");
        }
    }
    // A literal is judged like an answer.
    let grant = grant("allowedHosts: ['[2600:64::/96]'], deniedHosts: [9.9.9.9]");
    for (literal, denial) in [
        ("[2600:64::909:909]:443", Some(Denial::HostDenied)),
        ("[2600:64::909:908]:443", None),
    ] {
        let judged = admitted_with(&grant, literal, &[], &admission);
        assert_eq!(judged.err().map(|r| r.denial), denial, "{literal}");
    }
}

#[test]
fn no_hint_leads_to_an_own_listener() {
    let own = OwnAddresses {
        listeners: vec!["0.0.0.0:8443".parse().unwrap()],
        interfaces: vec!["9.9.9.9".parse::<IpAddr>().unwrap()].into(),
        ..OwnAddresses::default()
    };
    let admission = Admission {
        own: Arc::new(own),
        ..Admission::default()
    };
    let grant = grant("allowedHosts: [a.test]");
    let hint = |authority: &str| {
        let target = target(authority);
        let refusal = decide_at(&grant, &target, &admission).unwrap_err();
        assert_eq!(refusal.denial, decide(&grant, &target).unwrap_err().denial);
        refusal.hint.unwrap().to_string()
    };
    for own in ["9.9.9.9:8443", "127.0.0.1:8443", "[::ffff:9.9.9.9]:8443"] {
        assert!(hint(own).starts_with("nothing allows this"), "{own}");
    }
    for other in ["9.9.9.9:443", "b.test:8443"] {
        assert!(hint(other).contains("add "), "{other}");
    }
}

#[test]
fn v130_a_port_where_hosts_dial_is_no_target_while_it_is_one() {
    let own = OwnAddresses::default();
    // As a gateway holds it: the set is filled after the admission was made.
    let dials = own.dials.clone();
    let admission = Admission {
        own: Arc::new(own),
        ..Admission::default()
    };
    let grant = grant(
        "allowedHosts: ['a.test:*', '127.0.0.0/8:*', '0.0.0.0:*', '[::ffff:0:0/96]:*'], allowedAddresses: [127.0.0.0/8, 0.0.0.0]",
    );
    let check = |authority, answers: &[&str]| {
        admitted_with(&grant, authority, answers, &admission)
            .err()
            .map(|refusal| refusal.denial)
    };
    assert_eq!(check("127.0.0.1:34233", &[]), None);
    dials.add(34233);
    for (authority, answers, expected) in [
        ("127.0.0.1:34233", &[][..], Some(Denial::OwnListener)),
        ("0.0.0.0:34233", &[], Some(Denial::OwnListener)),
        ("[::ffff:127.0.0.1]:34233", &[], Some(Denial::OwnListener)),
        ("a.test:34233", &["127.0.0.1"], Some(Denial::OwnListener)),
        ("127.0.0.1:34234", &[], None),
        // Not what the socket is bound to.
        ("127.0.0.2:34233", &[], None),
    ] {
        assert_eq!(
            check(authority, answers),
            expected,
            "{authority} {answers:?}"
        );
    }
    dials.remove(34233);
    assert_eq!(check("127.0.0.1:34233", &[]), None);
}

#[test]
fn v022_v031_own_addresses() {
    let own = OwnAddresses {
        listeners: ["127.0.0.1:9443", "0.0.0.0:8443", "[::]:3128"]
            .map(|text| text.parse().unwrap())
            .to_vec(),
        interfaces: ["9.9.9.9", "10.1.1.1"]
            .map(|text| text.parse::<IpAddr>().unwrap())
            .to_vec()
            .into(),
        ..OwnAddresses::default()
    };
    let admission = Admission {
        own: Arc::new(own),
        ..Admission::default()
    };
    let grant = grant(
        "allowedHosts: ['a.test:*', '127.0.0.0/8:*', '10.0.0.0/8:*', '0.0.0.0:*', '[::ffff:0:0/96]:*'], allowedAddresses: [127.0.0.0/8, 0.0.0.0, '::1']",
    );
    let check = |authority, answers: &[&str]| {
        admitted_with(&grant, authority, answers, &admission).map_err(|r| r.denial)
    };
    for (authority, answers, expected) in [
        ("127.0.0.1:9443", &[][..], Some(Denial::OwnListener)),
        ("a.test:9443", &["127.0.0.1"], Some(Denial::OwnListener)),
        (
            "a.test:9443",
            &["::ffff:127.0.0.1"],
            Some(Denial::OwnListener),
        ),
        ("a.test:9443", &["0.0.0.0"], Some(Denial::OwnListener)),
        ("a.test:8443", &["9.9.9.9"], Some(Denial::OwnListener)),
        ("10.1.1.1:8443", &[], Some(Denial::OwnListener)),
        ("a.test:8443", &["127.3.3.3"], Some(Denial::OwnListener)),
        ("a.test:3128", &["::1"], Some(Denial::OwnListener)),
        ("a.test:9444", &["127.0.0.1"], None),
        ("127.0.0.2:9443", &[], None),
        ("10.1.1.1:80", &[], None), // its own exception
        ("a.test:80", &["9.9.9.9"], Some(Denial::AddressNotAllowed)),
        (
            "a.test:80",
            &["64:ff9b::909:909"],
            Some(Denial::AddressNotAllowed),
        ),
        ("a.test:80", &["9.9.9.8"], None),
    ] {
        assert_eq!(
            check(authority, answers).err(),
            expected,
            "{authority} {answers:?}"
        );
    }
}

#[test]
fn an_address_that_turns_out_to_be_the_hosts_is_judged_as_its_own() {
    let own = OwnAddresses {
        listeners: vec!["0.0.0.0:8443".parse().unwrap()],
        ..OwnAddresses::default()
    };
    let admission = Admission {
        own: Arc::new(own),
        ..Admission::default()
    };
    let found = admission.with_own("9.9.9.9".parse().unwrap());
    let grant = grant("allowedHosts: ['a.test:*', '9.9.9.9:80'], allowedAddresses: [9.9.8.0/24]");
    for (authority, answers, denial) in [
        (
            "a.test:80",
            &["9.9.9.9"][..],
            Some(Denial::AddressNotAllowed),
        ),
        (
            "a.test:80",
            &["::ffff:9.9.9.9"],
            Some(Denial::AddressNotAllowed),
        ),
        ("a.test:8443", &["9.9.9.9"], Some(Denial::OwnListener)),
        ("a.test:80", &["9.9.9.8"], None),
        // Its own exception, which is none for a listener.
        ("9.9.9.9:80", &[], None),
    ] {
        let judged = |by| admitted_with(&grant, authority, answers, by).map_err(|r| r.denial);
        assert_eq!(judged(&admission).err(), None, "{authority} {answers:?}");
        assert_eq!(judged(&found).err(), denial, "{authority} {answers:?}");
    }
    let found = admission.with_own("9.9.8.1".parse().unwrap());
    let judged =
        |authority| admitted_with(&grant, authority, &["9.9.8.1"], &found).map_err(|r| r.denial);
    assert_eq!(judged("a.test:80").err(), None);
    assert_eq!(judged("a.test:8443").err(), Some(Denial::OwnListener));
}

#[test]
fn refusals_say_what_would_change_them() {
    let grant = grant("allowedHosts: [a.test, 'b.test:8443'], deniedHosts: [c.test]");
    for (authority, hint) in [
        ("x.test:443", "add \"x.test\" to egress.allowedHosts"),
        ("x.test:8443", "add \"x.test:8443\" to egress.allowedHosts"),
        ("a.test:22", "add \"a.test:22\" to egress.allowedHosts"),
        ("b.test:443", "add \"b.test\" to egress.allowedHosts"),
        ("[2606::1]:5", "add \"[2606::1]:5\" to egress.allowedHosts"),
        ("9.9.9.9:80", "add \"9.9.9.9\" to egress.allowedHosts"),
        (
            "c.test:443",
            "egress.deniedHosts[0] \"c.test\" always wins; remove it to allow c.test:443",
        ),
    ] {
        assert_eq!(
            decide(&grant, &target(authority))
                .unwrap_err()
                .hint
                .map(|hint| hint.to_string())
                .as_deref(),
            Some(hint)
        );
    }
    let hint = admitted_with(&grant, "a.test:443", &["10.0.0.5"], &Admission::default())
        .unwrap_err()
        .hint;
    assert!(
        hint.unwrap()
            .to_string()
            .contains("add \"10.0.0.5\" to egress.allowedAddresses")
    );
}

#[test]
fn report_mode_lets_names_pass_and_says_so() {
    let source = "egress: {mode: report, allowedHosts: [a.test], deniedHosts: [b.test]}";
    let grant = compile(
        source,
        "{allowedHosts: [a.test, b.test, c.test], deniedHosts: [x.c.test]}",
    )
    .unwrap();
    let reported = |authority| {
        let permit = decide(&grant, &target(authority)).map_err(|refusal| refusal.denial)?;
        Ok(permit.reported().map(|refusal| refusal.denial))
    };
    assert_eq!(reported("a.test:443"), Ok(None));
    assert_eq!(reported("b.test:443"), Ok(Some(Denial::HostDenied)));
    assert_eq!(reported("c.test:443"), Ok(Some(Denial::HostNotAllowed)));
    assert_eq!(
        reported("a.test:22"),
        Err(Denial::HostNotAllowed),
        "the operator's bound holds"
    );
    assert_eq!(reported("d.test:443"), Err(Denial::HostNotAllowed));
    assert_eq!(
        admitted(&grant, "c.test:443", &["10.0.0.1"]),
        Err(Denial::SpecialAddress),
        "addresses are judged"
    );
    let empty = compile("egress: {mode: report, allowedHosts: []}", "{}").unwrap();
    let permit = decide(&empty, &target("a.test:443")).unwrap();
    assert_eq!(permit.rule().to_string(), "mode \"report\"");
    let told = explain(&grant, &target("b.test:443"), &Admission::default());
    assert_eq!((told.outcome, told.reason), ("allow", Some("host_denied")));
}

#[test]
fn attributes_come_from_the_most_specific_rule_that_has_them() {
    let grant = grant(
        "allowedHosts: ['*.a.test:*', 'db.a.test:5432'], rules: [{host: '*.a.test', ech: deny}, {host: db.a.test, tls: opaque, ech: outer}, {host: 'web.a.test:8080', http: {methods: [GET], pathPrefixes: [/v1/]}}, {host: 'db.a.test:443', tls: auto}]",
    );
    let permit = |authority| decide(&grant, &target(authority)).unwrap();
    let (deny, outer) = (crate::EchRule::Deny, crate::EchRule::Outer);
    for (authority, tls, ech) in [
        ("x.a.test:443", TlsRule::Require, &deny),
        ("x.a.test:80", TlsRule::Auto, &deny),
        ("db.a.test:5432", TlsRule::Opaque, &outer),
        ("db.a.test:443", TlsRule::Auto, &outer),
    ] {
        assert_eq!(permit(authority).tls(), tls, "{authority}");
        assert_eq!(
            permit(authority).ech().collect::<Vec<_>>(),
            [ech],
            "{authority}"
        );
    }
    let web = permit("web.a.test:8080");
    assert!(web.judge_http("GET", "/v1/x?y").is_ok());
    let refusal = web.judge_http("POST", "/v1/x").unwrap_err();
    assert_eq!(refusal.denial, Denial::MethodNotAllowed);
    assert_eq!(
        refusal.rule.unwrap().as_str(),
        "rules[2] \"web.a.test:8080\""
    );
    assert_eq!(
        web.judge_http("GET", "/v2").unwrap_err().denial,
        Denial::PathNotAllowed
    );
    assert!(permit("x.a.test:8080").judge_http("POST", "/").is_ok());
    // By whatever rule, or the port's default: in the plain there is no TLS.
    let refusal = permit("x.a.test:443").judge_http("GET", "/").unwrap_err();
    assert_eq!(refusal.denial, Denial::TlsRequired);
    assert_eq!(refusal.rule.unwrap().as_str(), "tls \"require\"");
    assert!(permit("db.a.test:443").judge_http("GET", "/").is_ok());
    // What is cut later is cut by the rule that asked for it, not by the entry that allowed it.
    for (authority, denial, rule) in [
        (
            "x.a.test:443",
            Denial::EchDenied,
            Some("rules[0] \"*.a.test\""),
        ),
        ("x.a.test:443", Denial::SniMismatch, Some("tls \"require\"")),
        ("x.a.test:80", Denial::SniMissing, Some("tls \"auto\"")),
        (
            "db.a.test:443",
            Denial::TlsRequired,
            Some("rules[3] \"db.a.test:443\""),
        ),
        (
            "web.a.test:8080",
            Denial::MethodNotAllowed,
            Some("rules[2] \"web.a.test:8080\""),
        ),
        ("x.a.test:443", Denial::SpecialAddress, None),
    ] {
        let behind = permit(authority).rule_behind(denial);
        assert_eq!(
            behind.as_ref().map(crate::RuleId::as_str),
            rule,
            "{authority}"
        );
    }
}

#[test]
fn services() {
    let grant = compile(
        "services: {cache: 'unix:///run/c.sock', 'cache:main': 'tcp://127.0.0.1:1', s3: {url: 'tcp://127.0.0.1:2', grpc: {methodPrefix: /pkg.S3}}}",
        "{}",
    )
    .unwrap();
    let name = |text| ServiceName::parse(text).unwrap();
    let bound = |text, prefix: Option<&str>| ServiceBound {
        name: name(text),
        method_prefix: prefix.map(|prefix| MethodPrefix::parse(prefix).unwrap()),
        direction: Direction::In,
    };
    let bounds = [
        bound("cache", Some("/pkg.Cache")),
        bound("s3", None),
        bound("gone", None),
    ];
    for (service, bounded, method, expected) in [
        ("cache", false, None, None),
        ("cache:main", false, None, None),
        ("cache:other", false, None, Some(Denial::ServiceNotAllowed)),
        ("gone", false, None, Some(Denial::ServiceNotAllowed)),
        ("gone", true, None, Some(Denial::ServiceNotAllowed)),
        ("cache:main", true, None, Some(Denial::ServiceNotAllowed)),
        ("cache", true, Some("/pkg.Cache/Get"), None),
        (
            "cache",
            true,
            Some("/pkg.CacheX/Get"),
            Some(Denial::ServiceMethodNotAllowed),
        ),
        ("cache", true, None, Some(Denial::ServiceMethodNotAllowed)),
        ("s3", true, Some("/pkg.S3/Put"), None),
        (
            "s3",
            true,
            Some("/pkg.Other/Put"),
            Some(Denial::ServiceMethodNotAllowed),
        ),
        ("s3", false, None, Some(Denial::ServiceMethodNotAllowed)),
    ] {
        let bound = bounded.then_some(&bounds[..]);
        let found = decide_service(&grant, bound, &name(service), Direction::In, method);
        assert_eq!(
            found.err().map(|refusal| refusal.denial),
            expected,
            "{service} {bounded} {method:?}"
        );
    }
    let out = decide_service(&grant, None, &name("cache"), Direction::Out, None);
    assert_eq!(out.unwrap_err().denial, Denial::ServiceNotAllowed);
    let none = decide_service(&grant, Some(&[]), &name("cache"), Direction::In, None);
    assert_eq!(
        none.unwrap_err().denial,
        Denial::ServiceNotAllowed,
        "an empty bound is a bound"
    );
}

#[test]
fn http_of_a_service() {
    let grant = compile(
        "services: {web: {url: 'tcp://127.0.0.1:2', http: {hosts: [web.local], origins: ['https://app.test'], methods: [GET, POST], pathPrefixes: [/v1]}}, open: {url: 'tcp://127.0.0.1:3', http: {}}, raw: 'tcp://127.0.0.1:4'}",
        "{}",
    )
    .unwrap();
    let permit = |name: &str| {
        let name = ServiceName::parse(name).unwrap();
        decide_service(&grant, None, &name, Direction::In, None).unwrap()
    };
    let web = permit("web");
    use Denial::{MethodNotAllowed, PathNotAllowed};
    let (host, origin) = (
        Denial::ServiceHostNotAllowed,
        Denial::ServiceOriginNotAllowed,
    );
    for (method, path, named, origins, expected) in [
        ("GET", "/v1/x?y=/v2", Some("web.local"), &[][..], None),
        (
            "GET",
            "/v1",
            Some("WEB.local:8080"),
            &["https://app.test"],
            None,
        ),
        ("GET", "/v1", Some("web.local"), &["HTTPS://APP.TEST"], None),
        ("GET", "/v1", Some("evil.test"), &[], Some(host)),
        ("GET", "/v1", Some("web.local.evil.test"), &[], Some(host)),
        ("GET", "/v1", Some("127.0.0.1"), &[], Some(host)),
        ("GET", "/v1", None, &[], Some(host)),
        ("GET", "/v1", Some("web.local"), &["null"], Some(origin)),
        (
            "GET",
            "/v1",
            Some("web.local"),
            &["https://app.test.evil.test"],
            Some(origin),
        ),
        (
            "GET",
            "/v1",
            Some("web.local"),
            &["https://app.test", "https://evil.test"],
            Some(origin),
        ),
        ("PUT", "/v1", Some("web.local"), &[], Some(MethodNotAllowed)),
        ("get", "/v1", Some("web.local"), &[], Some(MethodNotAllowed)),
        ("GET", "/v10", Some("web.local"), &[], Some(PathNotAllowed)),
        (
            "GET",
            "/v1/../v2",
            Some("web.local"),
            &[],
            Some(PathNotAllowed),
        ),
    ] {
        let origins = origins.iter().map(|origin| origin.as_bytes());
        let found = web.judge_http(method, path, named, origins);
        let found = found.err().map(|refusal| refusal.denial);
        assert_eq!(found, expected, "{method} {path} {named:?}");
    }
    for name in ["open", "raw"] {
        let none = std::iter::once(&b"https://any.test"[..]);
        assert!(permit(name).judge_http("PUT", "/", None, none).is_ok());
    }
    let web = ServiceName::parse("web").unwrap();
    let call = decide_service(&grant, None, &web, Direction::In, Some("/pkg.S/Get"));
    assert_eq!(call.unwrap_err().denial, Denial::ServiceMethodNotAllowed);
}

#[test]
fn explanations_tell_the_steps() {
    let grant = grant("allowedHosts: [a.test], deniedHosts: [b.test]");
    let told = explain(&grant, &target("c.test:22"), &Admission::default());
    assert_eq!(told.outcome, "deny");
    assert_eq!(
        told.hint.as_deref(),
        Some("add \"c.test:22\" to egress.allowedHosts")
    );
    assert!(
        told.steps
            .contains(&"No entry of allowedHosts covers the host.".to_owned()),
        "{told:?}"
    );
    let told = explain(&grant, &target("b.test:22"), &Admission::default());
    assert_eq!(told.rule.as_deref(), Some("deniedHosts[0] \"b.test\""));
    assert_eq!(
        serde_json::to_value(&told).unwrap()["reason"],
        "host_denied"
    );
}

#[test]
fn what_is_supposed_is_explained_along() {
    let grant = grant(
        "allowedHosts: ['a.test:*'], rules: [{host: 'a.test:80', http: {methods: [GET]}}, {host: 'a.test:443', ech: deny}]",
    );
    for (authority, supposed, reason, rule) in [
        ("a.test:443", "{}", None, None),
        (
            "a.test:443",
            "{addresses: [10.0.0.1]}",
            Some("special_address"),
            None,
        ),
        ("a.test:443", "{addresses: [93.184.215.14]}", None, None),
        ("a.test:80", "{method: GET, path: /x}", None, None),
        (
            "a.test:80",
            "{method: PUT}",
            Some("method_not_allowed"),
            Some("rules[0] \"a.test:80\""),
        ),
        (
            "a.test:443",
            "{path: /x}",
            Some("tls_required"),
            Some("tls \"require\""),
        ),
        ("a.test:443", "{began: {as: tls, sni: a.test}}", None, None),
        (
            "a.test:443",
            "{began: {as: tls, sni: b.test}}",
            Some("sni_mismatch"),
            Some("tls \"require\""),
        ),
        (
            "a.test:443",
            "{began: {as: tls}}",
            Some("sni_missing"),
            Some("tls \"require\""),
        ),
        (
            "a.test:443",
            "{began: {as: tls, sni: a.test, ech: true}}",
            Some("ech_denied"),
            Some("rules[1] \"a.test:443\""),
        ),
        (
            "a.test:443",
            "{began: {as: other}}",
            Some("tls_required"),
            Some("tls \"require\""),
        ),
        ("a.test:22", "{began: {as: other}}", None, None),
    ] {
        let mut faults = crate::text::Faults::default();
        let node = crate::text::parse(supposed, &mut faults);
        let mut fields = node.fields(&mut faults);
        let mut what = Supposed::take(&mut fields, &mut faults);
        let [method, path] = ["method", "path"].map(|key| {
            let word = fields.take(key).and_then(|node| node.scalar(&mut faults));
            word.map(str::to_owned)
        });
        if method.is_some() || path.is_some() {
            let (method, path) = (method.unwrap_or("GET".into()), path.unwrap_or("/".into()));
            what.requests.push((method, path));
        }
        fields.finish(&mut faults);
        assert!(faults.is_clean(), "{faults}");
        let told = explain_supposing(&grant, &target(authority), &Admission::default(), &what);
        let outcome = if reason.is_some() { "deny" } else { "allow" };
        assert_eq!(
            (told.outcome, told.reason),
            (outcome, reason),
            "{authority} {supposed}"
        );
        if reason.is_some() {
            assert_eq!(told.rule.as_deref(), rule, "{authority} {supposed}");
        }
        // Whoever does not say what the name resolves to is told that there is more to come.
        let open = told.steps.iter().any(|step| step.contains("is judged too"));
        let judged = what.requests.is_empty() || reason.is_none();
        assert_eq!(open, judged && what.addresses.is_none(), "{told:?}");
    }
}

#[test]
fn an_address_that_would_be_refused_is_explained_as_refused() {
    let grant = grant("defaultAction: allow");
    for (authority, reason) in [
        ("169.254.169.254:80", "metadata_address"),
        ("10.0.0.1:443", "special_address"),
        ("[2002:7f00:1::]:443", "special_address"),
    ] {
        let told = explain(&grant, &target(authority), &Admission::default());
        assert_eq!(
            (told.outcome, told.reason),
            ("deny", Some(reason)),
            "{authority}"
        );
    }
    assert_eq!(
        explain(&grant, &target("8.8.8.8:443"), &Admission::default()).outcome,
        "allow"
    );
}
