#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use sluicegate_policy::{Confinement, EgressMode, HostServiceAccess, HostnameEgress, Target};

use super::super::{Check, Finding, reported, testing};
use super::*;
use crate::{
    session::{
        RegistryConfig,
        testing::{Fixture, config},
    },
    telemetry::AccessLog,
};

/// One provider, `local`, that advertises this.
pub(crate) fn advertising(access: HostServiceAccess, mode: EgressMode) -> RegistryConfig {
    let mut config = config();
    let provider = config.providers.get_mut("local").unwrap();
    provider.advertised = Some(Profile {
        can_host_plugins: true,
        host_service_access: access,
        egress_mode: mode,
    });
    config
}

fn prober(config: RegistryConfig) -> (Fixture, Arc<Prober>) {
    let fixture = Fixture::with(config);
    let prober = prober_of(&fixture);
    (fixture, prober)
}

fn prober_of(fixture: &Fixture) -> Arc<Prober> {
    let telemetry = Telemetry::new(AccessLog::open(&Default::default()).unwrap()).unwrap();
    testing::idle(&fixture.registry, &telemetry)
}

/// Every check of the plan with this finding, but for those named.
fn all_but(prober: &Prober, others: &[(Check, Finding)]) -> Vec<(Check, Finding)> {
    let mut checks = prober.plan.load().checks();
    // These plans have no name to ask for, so that no run finds anything of it.
    checks.retain(|check| *check != Check::Resolver);
    let finding = |check: &Check| {
        let other = others.iter().find(|(named, _)| named == check);
        other.map_or(Finding::Pass, |(_, finding)| finding.clone())
    };
    checks
        .into_iter()
        .map(|check| (check.clone(), finding(&check)))
        .collect()
}

async fn three(prober: &Prober, found: &[(Check, Finding)]) {
    for _ in 0..3 {
        prober.found(found).await;
    }
}

/// What is told when a profile is known for the first time.
const FIRST: [&str; 1] = ["provider.profileChanged"];

fn short(prober: &Prober) -> (HostServiceAccess, EgressMode, Vec<(&'static str, String)>) {
    let (profile, shortfalls, _) = prober.effective("local").unwrap();
    let told = shortfalls
        .into_iter()
        .map(|one| (one.field, one.setting.unwrap_or_default()));
    (
        profile.host_service_access,
        profile.egress_mode,
        told.collect(),
    )
}

#[tokio::test]
async fn nothing_is_published_before_it_is_known_and_unknown_is_never_published_as_lost() {
    let (fixture, prober) = prober(advertising(HostServiceAccess::Relay, EgressMode::Hostname));
    assert_eq!(prober.effective("local"), None);
    let good = all_but(&prober, &[]);
    prober.found(&good).await;
    prober.found(&good).await;
    assert_eq!(
        prober.effective("local"),
        None,
        "two findings are not three"
    );
    prober.found(&good).await;
    let whole = (HostServiceAccess::Relay, EgressMode::Hostname, Vec::new());
    assert_eq!(short(&prober), whole);
    let unknown = Finding::Unknown("not looked at".into());
    let nothing: Vec<_> = good
        .iter()
        .map(|(check, _)| (check.clone(), unknown.clone()))
        .collect();
    for _ in 0..10 {
        prober.found(&nothing).await;
    }
    assert_eq!(short(&prober), whole);
    assert_eq!(fixture.events().await, FIRST, "nothing changed since");
    let events = fixture.registry.events_after(0, 10).await.unwrap();
    let first: Value = serde_json::from_slice(&events[0].body).unwrap();
    assert_eq!(first["provider"]["before"], Value::Null);
    assert_eq!(first["provider"]["after"]["egressMode"], "hostname");
    let metrics = prober.telemetry.render();
    assert!(!metrics.contains("sluicegate_profile_changes_total 1"));
}

#[tokio::test]
async fn a_loss_takes_three_findings_is_an_event_and_ends_as_it_began() {
    let (fixture, prober) = prober(advertising(HostServiceAccess::Relay, EgressMode::Hostname));
    let good = all_but(&prober, &[]);
    three(&prober, &good).await;
    let leak = Finding::fail("it let pass what it must refuse", "publicUrl");
    let bad = all_but(&prober, &[(Check::Refuses, leak)]);
    prober.found(&bad).await;
    prober.found(&bad).await;
    prober.found(&good).await;
    three(&prober, &good).await;
    assert_eq!(fixture.events().await, FIRST, "two losses are no loss");
    three(&prober, &bad).await;
    assert_eq!(
        short(&prober),
        (
            HostServiceAccess::Relay,
            EgressMode::None,
            vec![("egressMode", "publicUrl".into())]
        )
    );
    three(&prober, &good).await;
    assert_eq!(
        short(&prober),
        (HostServiceAccess::Relay, EgressMode::Hostname, Vec::new())
    );
    assert_eq!(fixture.events().await, ["provider.profileChanged"; 3]);
    let metrics = prober.telemetry.render();
    for line in [
        "sluicegate_profile_changes_total 2",
        "sluicegate_proved{path=\"proxy\"} 1",
        "sluicegate_probe_checks_total{check=\"proxy.refuses\",outcome=\"fail\"} 5",
    ] {
        assert!(metrics.contains(line), "{line} in:\n{metrics}");
    }
    let events = fixture.registry.events_after(0, 10).await.unwrap();
    let lost: Value = serde_json::from_slice(&events[1].body).unwrap();
    assert_eq!(lost["provider"]["name"], "local");
    assert_eq!(lost["provider"]["before"]["egressMode"], "hostname");
    assert_eq!(lost["provider"]["after"]["egressMode"], "none");
    assert_eq!(lost["reason"], "it let pass what it must refuse");
}

#[tokio::test]
async fn report_mode_and_confinement_count() {
    let mut config = advertising(HostServiceAccess::None, EgressMode::Cidr);
    let (_fixture, one) = prober(config.clone());
    three(&one, &all_but(&one, &[])).await;
    assert_eq!(
        short(&one),
        (
            HostServiceAccess::Relay,
            EgressMode::Cidr,
            vec![(
                "egressMode",
                "runtime.providers.local.confinement: gateway-only".into()
            )]
        )
    );
    let provider = config.providers.get_mut("local").unwrap();
    provider.confinement = Confinement::GatewayOnly;
    provider.hostname_egress = HostnameEgress::Proxy;
    let (_fixture, one) = prober(config.clone());
    three(&one, &all_but(&one, &[])).await;
    assert_eq!(
        short(&one),
        (HostServiceAccess::Relay, EgressMode::Hostname, Vec::new())
    );
    let provider = config.providers.get_mut("local").unwrap();
    let request = crate::session::testing::request("egress: {mode: report}");
    provider.defaults = request.grant.document;
    let (_fixture, one) = prober(config);
    three(&one, &all_but(&one, &[])).await;
    assert_eq!(
        short(&one),
        (
            HostServiceAccess::Relay,
            EgressMode::Cidr,
            vec![("egressMode", "runtime.providers.local.egress.mode".into())]
        )
    );
}

/// What the configuration alone brings about is dated and has its setting as well, and keeps its date.
#[tokio::test]
async fn every_shortfall_has_its_reason_its_time_and_its_setting() {
    let mut config = advertising(HostServiceAccess::None, EgressMode::Cidr);
    let provider = config.providers.get_mut("local").unwrap();
    provider.advertised.as_mut().unwrap().can_host_plugins = false;
    let (_fixture, one) = prober(config);
    let good = all_but(&one, &[]);
    three(&one, &good).await;
    let shown = || one.effective("local").unwrap().1;
    let first = shown();
    assert_eq!(first.len(), 2);
    for shortfall in &first {
        let setting = shortfall.setting.as_deref().unwrap();
        assert!(setting.starts_with("runtime.providers.local."), "{setting}");
        assert!(shortfall.since.is_some_and(|since| since > 0));
    }
    // As if it had been so for a while.
    for shortfall in &mut one.memory().published.get_mut("local").unwrap().shortfalls {
        shortfall.since = Some(7);
    }
    one.found(&good).await;
    assert!(shown().iter().all(|shortfall| shortfall.since == Some(7)));
}

#[tokio::test]
async fn a_reload_keeps_what_is_known_and_forgets_what_is_not_asked_any_more() {
    let (_fixture, prober) = prober(advertising(HostServiceAccess::Relay, EgressMode::Hostname));
    let target = Target::from_authority("gateway.test:443").unwrap();
    let cache = sluicegate_policy::ServiceName::parse("cache").unwrap();
    prober.replace(testing::plan(Some(target.clone()), vec![cache.clone()]));
    let down = Finding::fail("cache is down", "services.cache");
    let cache = Check::Service(testing::service(&cache));
    let found = all_but(&prober, &[(cache, down)]);
    three(&prober, &found).await;
    assert_eq!(
        short(&prober),
        (
            HostServiceAccess::None,
            EgressMode::Hostname,
            vec![("hostServiceAccess", "services.cache".into())]
        )
    );
    prober.replace(testing::plan(Some(target), Vec::new()));
    prober.found(&all_but(&prober, &[])).await;
    assert_eq!(
        short(&prober),
        (HostServiceAccess::Relay, EgressMode::Hostname, Vec::new())
    );
}

#[tokio::test]
async fn asked_at_the_same_moment_runs_are_shared_and_never_overlap() {
    let (_fixture, prober) = prober(advertising(HostServiceAccess::Relay, EgressMode::Hostname));
    let (first, ..) = tokio::join!(prober.now(), prober.now(), prober.now(), prober.now());
    assert_eq!((first.runs, first.settled), (3, true));
    // Each run fails to resolve gateway.test, or to reach it: three runs establish that, and nobody needs more.
    assert_eq!(prober.begun.load(Ordering::SeqCst), 3);
    let checks = prober.checks("local", 0);
    assert_eq!(checks[0]["name"], "reach");
    assert_eq!(checks[0]["state"], "fails");
    let (profile, shortfalls, _) = prober.effective("local").unwrap();
    assert_eq!(
        (profile.host_service_access, profile.egress_mode),
        (HostServiceAccess::None, EgressMode::None)
    );
    assert_eq!(shortfalls.len(), 2);
    assert!(
        shortfalls[0].reason.contains("gateway.test"),
        "{shortfalls:?}"
    );
    assert_eq!(prober.registry.index().len(), 0, "its session is gone");
    // What is found again is known already.
    let again = prober.now().await;
    assert_eq!((again.runs, again.settled), (1, true));
}

#[tokio::test]
async fn agents_are_lent_one_run_at_a_time_and_only_theirs_is_taken() {
    let fixture = Fixture::new();
    let telemetry = Telemetry::new(AccessLog::open(&Default::default()).unwrap()).unwrap();
    let target = Target::from_authority("gateway.test:443").unwrap();
    let own = testing::plan(Some(target), Vec::new());
    let prober = Prober::new(
        fixture.registry.clone(),
        telemetry,
        Arc::default(),
        own.clone(),
    );
    assert_eq!(prober.begin().unwrap_err(), AgentError::NotAsked);
    prober.replace(Plan {
        from: Maker::Agent,
        ..own.clone()
    });
    let reach = |outcome: &str| {
        let why = ("unreachable".to_owned(), "publicUrl".to_owned());
        vec![reported("reach", outcome, why, 1).unwrap()]
    };
    let refused = prober.report("none", reach("pass")).await;
    assert_eq!(refused.unwrap_err(), AgentError::NoTurn);
    for _ in 0..3 {
        let lent = prober.begin().unwrap();
        assert_eq!(lent["publicUrl"], "https://gateway.test:443");
        assert_eq!(prober.begin().unwrap_err(), AgentError::Busy);
        let run = lent["run"].as_str().unwrap();
        prober.report(run, reach("fail")).await.unwrap();
        let again = prober.report(run, reach("fail")).await;
        assert_eq!(again.unwrap_err(), AgentError::NoTurn, "once each");
    }
    let checks = prober.checks("local", 0);
    let state = checks
        .iter()
        .find(|check| check["name"] == "reach")
        .unwrap();
    assert_eq!(
        (&state["state"], &state["setting"]),
        (&json!("fails"), &json!("publicUrl"))
    );
    for (name, outcome) in [
        ("service:cache", "pass"),
        ("resolver", "pass"),
        ("reach", "well"),
    ] {
        assert!(
            reported(name, outcome, Default::default(), 1).is_err(),
            "{name} {outcome}"
        );
    }
}

/// Another process may have told what was found before.
#[tokio::test]
async fn a_change_over_a_restart_is_a_change() {
    let config = advertising(HostServiceAccess::Relay, EgressMode::Hostname);
    let (fixture, one) = prober(config.clone());
    three(&one, &all_but(&one, &[])).await;
    assert_eq!(fixture.events().await, FIRST);
    drop(one);
    let fixture = fixture.restarted_with(config.clone());
    let again = prober_of(&fixture);
    three(&again, &all_but(&again, &[])).await;
    assert_eq!(fixture.events().await, FIRST, "it is as it was");
    drop(again);
    let fixture = fixture.restarted_with(config);
    let other = prober_of(&fixture);
    let leak = Finding::fail("it let pass what it must refuse", "publicUrl");
    three(&other, &all_but(&other, &[(Check::Refuses, leak)])).await;
    assert_eq!(fixture.events().await, ["provider.profileChanged"; 2]);
    let events = fixture.registry.events_after(0, 10).await.unwrap();
    let lost: Value = serde_json::from_slice(&events[1].body).unwrap();
    assert_eq!(lost["provider"]["before"]["egressMode"], "hostname");
    assert_eq!(lost["provider"]["after"]["egressMode"], "none");
}

/// A relay client on another machine, with one stream open.
fn comes(presence: &Arc<Presence>) -> crate::relay::Present {
    presence.came([192, 0, 2, 9].into(), &[]).unwrap()
}

fn told(prober: &Prober) -> Vec<(&'static str, HostServiceAccess)> {
    let (profile, shortfalls, _) = prober.effective("local").unwrap();
    let fields = shortfalls.iter().map(|one| one.field);
    fields
        .map(|field| (field, profile.host_service_access))
        .collect()
}

/// Whatever comes through, what was found of the certificate stands.
#[tokio::test]
async fn a_relay_stream_takes_no_finding_back() {
    let (_fixture, prober) = prober(advertising(HostServiceAccess::Relay, EgressMode::Hostname));
    let expired = Finding::fail("the certificate has expired", "tls.names");
    let unknown = Finding::Unknown("not looked at".into());
    let bad = all_but(
        &prober,
        &[
            (Check::Certificate, expired),
            (Check::Http2, unknown.clone()),
            (Check::Token, unknown),
        ],
    );
    three(&prober, &bad).await;
    let lost = [
        ("hostServiceAccess", HostServiceAccess::None),
        ("egressMode", HostServiceAccess::None),
    ];
    assert_eq!(told(&prober), lost);
    let stream = comes(&prober.presence);
    for _ in 0..6 {
        prober.found(&bad).await;
        assert_eq!(told(&prober), lost);
    }
    drop(stream);
    prober.found(&bad).await;
    assert_eq!(told(&prober), lost);
}

/// Where the gateway cannot reach itself, three runs in a row must have seen a client before that changes anything.
#[tokio::test]
async fn clients_stand_for_reach_after_three_findings_that_agree() {
    let (_fixture, prober) = prober(advertising(HostServiceAccess::Relay, EgressMode::None));
    let hairpin: Vec<_> = all_but(&prober, &[])
        .into_iter()
        .map(|(check, _)| match check {
            Check::Reach => (check, Finding::fail("no hairpin", "probe.resolve")),
            _ => (check, Finding::Unknown("not looked at".into())),
        })
        .collect();
    three(&prober, &hairpin).await;
    let access = || prober.effective("local").unwrap().0.host_service_access;
    assert_eq!(access(), HostServiceAccess::None);
    let _stream = comes(&prober.presence);
    // Which check it is that says so is among the checks.
    let clients = || {
        let checks = prober.checks("local", 0).into_iter();
        let mut clients = checks.filter(|check| check["name"] == "clients");
        clients.next().map(|check| check["state"].clone())
    };
    assert_eq!(clients(), Some("fails".into()));
    for expected in [
        HostServiceAccess::None,
        HostServiceAccess::None,
        HostServiceAccess::Relay,
    ] {
        prober.found(&hairpin).await;
        assert_eq!(access(), expected);
        let raised = expected == HostServiceAccess::Relay;
        let state = if raised { "works" } else { "fails" };
        assert_eq!(clients(), Some(state.into()));
    }
    // Where this gateway reaches itself nothing follows from them.
    three(&prober, &all_but(&prober, &[])).await;
    assert_eq!(clients(), None);
}

/// How many runs there are in an hour by an interval of a minute.
async fn runs_of_an_hour(plan: Plan) -> u64 {
    let fixture = Fixture::with(advertising(HostServiceAccess::Relay, EgressMode::Hostname));
    let telemetry = Telemetry::new(AccessLog::open(&Default::default()).unwrap()).unwrap();
    let every_minute = Plan {
        interval: Some(Duration::from_secs(60)),
        ..plan
    };
    let registry = fixture.registry.clone();
    let prober = Prober::new(registry, telemetry, Arc::default(), every_minute);
    let drain = crate::drain::Drain::default();
    let running =
        tokio::time::timeout(Duration::from_secs(3600), prober.clone().run(drain.watch()));
    assert!(running.await.is_err(), "it runs on");
    prober.begun.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn what_can_never_be_known_is_not_asked_for_each_second() {
    let target = Target::from_authority("gateway.test:443").unwrap();
    let agents = Plan {
        from: Maker::Agent,
        ..testing::plan(Some(target), Vec::new())
    };
    for (what, plan) in [
        ("without probe.name", testing::plan(None, Vec::new())),
        ("with no agent that reports", agents),
    ] {
        let runs = runs_of_an_hour(plan).await;
        // A tenth more or less each.
        assert!((54..=70).contains(&runs), "{what}: {runs} runs");
    }
}

/// What is not known yet is asked for soon, until it is.
#[tokio::test]
async fn runs_are_close_together_only_until_all_is_known() {
    let target = Target::from_authority("gateway.test:443").unwrap();
    let (_fixture, prober) = prober(advertising(HostServiceAccess::Relay, EgressMode::Hostname));
    prober.replace(Plan {
        interval: Some(Duration::from_secs(60)),
        ..testing::plan(Some(target), Vec::new())
    });
    let soon = || prober.pause().unwrap() < Duration::from_secs(2);
    assert!(soon(), "nothing is known");
    // Nothing behind it can be looked at: that is as well known as it can be.
    let down: Vec<_> = all_but(&prober, &[])
        .into_iter()
        .map(|(check, _)| match check {
            Check::Reach => (check, Finding::fail("no road", "publicUrl")),
            _ => (check, Finding::Unknown("not looked at".into())),
        })
        .collect();
    prober.found(&down).await;
    assert!(soon(), "one finding is not three");
    three(&prober, &down).await;
    assert!(!soon());
    let good = all_but(&prober, &[]);
    prober.found(&good).await;
    assert!(soon(), "what was never known is about to be");
    three(&prober, &good).await;
    assert!(!soon());
}

mod recorded;
mod services;
