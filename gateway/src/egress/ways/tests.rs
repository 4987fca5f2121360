#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use sluicegate_policy::{
    Admission, Denial, FirstBytes, Grant, HostName, Nat64Prefix, Target, decide,
};

use super::{Egress, Reached, Ways};
use crate::{
    egress::{AskFor, Known, Speaks, UpstreamProxy, still_allowed, testing::egress},
    session::{
        Authority, PolicyGeneration,
        testing::{Fixture, request},
    },
};

/// What a session has that may reach `a.test`, and nothing of special addresses by itself.
async fn policy(f: &Fixture) -> Arc<PolicyGeneration> {
    policy_of(f, "one", "allowedHosts: [a.test]").await
}

async fn policy_of(f: &Fixture, id: &str, egress: &str) -> Arc<PolicyGeneration> {
    let asked = request(&format!("{{id: {id}, egress: {{{egress}}}}}"));
    f.registry.create("local".into(), asked).await.unwrap();
    let live = f.registry.index().session(&f.key(id)).unwrap();
    live.session.policy().unwrap()
}

fn answering(pairs: &[(&str, &str)]) -> Egress {
    let mut hosts = BTreeMap::<HostName, Vec<IpAddr>>::new();
    for (name, address) in pairs {
        let name = HostName::parse(name).unwrap();
        hosts.insert(name, vec![address.parse().unwrap()]);
    }
    Egress {
        admission: Arc::new(Admission {
            hosts: Arc::new(hosts),
            ..Admission::default()
        }),
        ..egress()
    }
}

/// Nobody dials it here.
fn proxy(target: &str, grant: &Arc<Grant>) -> UpstreamProxy {
    UpstreamProxy {
        speaks: Speaks::Http(None),
        target: Target::from_authority(target).unwrap(),
        grant: grant.clone(),
        login: None,
        ask_for: AskFor::Address,
        bypass: None,
    }
}

fn through(proxy: UpstreamProxy) -> Egress {
    Egress {
        proxy: Some(Arc::new(proxy)),
        ..egress()
    }
}

fn reached(address: &str, by: Option<&UpstreamProxy>) -> Reached {
    Reached {
        address: format!("{address}:443").parse().unwrap(),
        by: by.cloned().map(Arc::new),
    }
}

/// What changed, as records say it.
const ADDRESS: &str = "its address would be refused now: special_address";
const ANSWERS: &str = "its name has other static answers now";
const WAY: &str = "upstreamProxy has it go another way now";

#[tokio::test]
async fn what_is_open_is_judged_by_the_way_out_of_now() {
    let f = Fixture::new();
    let policy = policy(&f).await;
    let target = Target::from_authority("a.test:443").unwrap();
    let permit = decide(&policy.grant, &target).unwrap();
    let nat64 = |prefix: &str| Egress {
        admission: Arc::new(Admission {
            nat64: [Nat64Prefix::new(prefix.parse().unwrap(), 96).unwrap()].into(),
            ..Admission::default()
        }),
        ..egress()
    };
    let one = proxy("192.0.2.1:3128", &policy.grant);
    let other = proxy("192.0.2.1:3129", &policy.grant);
    let not_for_it = UpstreamProxy {
        bypass: Some(policy.grant.clone()),
        ..one.clone()
    };
    let by_name = UpstreamProxy {
        ask_for: AskFor::Name,
        ..one.clone()
    };
    let by_socks = UpstreamProxy {
        speaks: Speaks::Socks,
        ..one.clone()
    };
    let public = "93.184.216.34";
    // 10.0.0.1 behind a prefix of this network's own.
    let embedded = "[2600:1:2::a00:1]";
    for (what, reached, now, changed) in [
        (
            "an answer that stands",
            reached("127.0.0.1", None),
            answering(&[("a.test", "127.0.0.1")]),
            None,
        ),
        (
            "one that was taken away",
            reached("127.0.0.1", None),
            answering(&[]),
            Some(ADDRESS),
        ),
        (
            "another's",
            reached("127.0.0.1", None),
            answering(&[("b.test", "127.0.0.1")]),
            Some(ADDRESS),
        ),
        (
            "another answer",
            reached("127.0.0.1", None),
            answering(&[("a.test", "127.0.0.2")]),
            Some(ANSWERS),
        ),
        (
            "an answer where DNS was asked",
            reached(public, None),
            answering(&[("a.test", "127.0.0.1")]),
            Some(ANSWERS),
        ),
        (
            "an address that needs no exception",
            reached(public, None),
            answering(&[]),
            None,
        ),
        ("no prefix", reached(embedded, None), egress(), None),
        (
            "another prefix",
            reached(embedded, None),
            nat64("2600:1:3::"),
            None,
        ),
        (
            "a prefix that shows what is behind it",
            reached(embedded, None),
            nat64("2600:1:2::"),
            Some(ADDRESS),
        ),
        (
            "past a proxy that is to be asked",
            reached(public, None),
            through(one.clone()),
            Some(WAY),
        ),
        (
            "past one that is not asked for it",
            reached(public, None),
            through(not_for_it.clone()),
            None,
        ),
        (
            "by the same",
            reached(public, Some(&one)),
            through(one.clone()),
            None,
        ),
        (
            "by one that is not asked for it any more",
            reached(public, Some(&one)),
            through(not_for_it.clone()),
            None,
        ),
        (
            "by one that is gone",
            reached(public, Some(&one)),
            egress(),
            Some(WAY),
        ),
        (
            "by another",
            reached(public, Some(&one)),
            through(other),
            Some(WAY),
        ),
        (
            "asked otherwise",
            reached(public, Some(&one)),
            through(by_name),
            Some(WAY),
        ),
        (
            "that speaks otherwise",
            reached(public, Some(&one)),
            through(by_socks),
            Some(WAY),
        ),
    ] {
        let ways = Ways::new(Arc::new(egress()));
        ways.replace(Arc::new(now));
        let authority = Authority::Live(policy.clone());
        let known = Known::Nothing;
        let judged = still_allowed(&authority, &permit, known, Some(&reached), &ways.now());
        let told = judged.err().map(|lost| {
            assert_eq!(lost.denial, Denial::PolicyChanged, "{what}");
            lost.changed.unwrap().to_string()
        });
        assert_eq!(told.as_deref(), changed, "{what}");
    }
}

#[tokio::test]
async fn the_record_says_what_of_the_policy_refuses_now() {
    let f = Fixture::new();
    let before = policy_of(&f, "before", "allowedHosts: [a.test]").await;
    let elsewhere = policy_of(&f, "elsewhere", "allowedHosts: [b.test]").await;
    let required = "allowedHosts: [a.test], rules: [{host: a.test, tls: require}]";
    let required = policy_of(&f, "required", required).await;
    let target = Target::from_authority("a.test:443").unwrap();
    let permit = decide(&before.grant, &target).unwrap();
    let refused = |denial: Denial| format!("would be refused now: {}", denial.reason());
    let why = decide(&elsewhere.grant, &target).unwrap_err().denial;
    let (other, unseen) = (FirstBytes::Other, FirstBytes::Unseen);
    let egress = egress();
    for (now, known, expected) in [
        (
            &elsewhere,
            Known::Nothing,
            format!("its target {}", refused(why)),
        ),
        (
            &required,
            Known::Began(&other),
            format!("what it carries {}", refused(Denial::TlsRequired)),
        ),
        (
            &required,
            Known::Began(&unseen),
            "its first bytes, which nobody looked at, would be judged now".to_owned(),
        ),
    ] {
        let authority = Authority::Live(now.clone());
        let lost = still_allowed(&authority, &permit, known, None, &egress).err();
        let lost = lost.unwrap();
        assert_eq!(lost.denial, Denial::PolicyChanged, "{expected}");
        assert_eq!(lost.changed.unwrap().to_string(), expected);
    }
    // What ends the session says it all.
    let ended = Authority::Ended(Denial::SessionRevoked);
    let lost = still_allowed(&ended, &permit, Known::Nothing, None, &egress).err();
    assert_eq!(lost, Some(Denial::SessionRevoked.into()));
}
