//! Host services, and whose effective profile they touch.

use std::net::TcpListener;

use super::*;
use crate::{
    probe::{Asked, run},
    session::testing::request,
};

/// Providers `a`, with these services of its own, and `b`, with those.
fn of_two(a: &str, b: &str) -> RegistryConfig {
    let mut config = advertising(HostServiceAccess::Relay, EgressMode::Hostname);
    let local = config.providers.remove("local").unwrap();
    for (name, services) in [("a", a), ("b", b)] {
        let source = format!("{{services: {services}}}");
        let provider = ProviderConfig {
            defaults: request(&source).grant.document,
            ..local.clone()
        };
        config.providers.insert(name.into(), provider);
    }
    config
}

/// A run of the services' checks alone.
async fn one_run(config: &RegistryConfig) -> Found {
    let plan = Plan {
        asked: Asked::of(config),
        timeout: Duration::from_secs(60),
        ..testing::plan(None, Vec::new())
    };
    let mut found = run::run(&Arc::new(plan), Err("nobody comes in".into())).await;
    found.retain(|check, _| matches!(check, Check::Service(_)));
    found
}

#[tokio::test]
async fn a_service_of_one_provider_takes_nothing_from_another() {
    let config = of_two("{cache: 'tcp://127.0.0.1:1'}", "{}");
    let target = Target::from_authority("gateway.test:443").unwrap();
    let plan = Plan {
        asked: Asked::of(&config),
        ..testing::plan(Some(target), Vec::new())
    };
    let cache = Check::Service(plan.asked.services[0].service.clone());
    let fixture = Fixture::with(config);
    let telemetry = Telemetry::new(AccessLog::open(&Default::default()).unwrap()).unwrap();
    let prober = Prober::new(fixture.registry.clone(), telemetry, Arc::default(), plan);
    let access = |provider: &str| {
        let (profile, shortfalls, _) = prober.effective(provider).unwrap();
        let settings = shortfalls.into_iter().map(|one| one.setting.unwrap());
        let settings: Vec<String> = settings.collect();
        (profile.host_service_access, settings)
    };
    let named = |provider: &str| {
        let checks = prober.checks(provider, 0);
        checks.iter().any(|check| check["name"] == "service:cache")
    };
    let well = (HostServiceAccess::Relay, Vec::<String>::new());
    let setting = "runtime.providers.a.services.cache";
    let down = Finding::fail("cache is down", setting);
    three(&prober, &all_but(&prober, &[])).await;
    assert_eq!((access("a"), access("b")), (well.clone(), well.clone()));
    assert_eq!((named("a"), named("b")), (true, false));
    three(&prober, &all_but(&prober, &[(cache, down)])).await;
    let lost = (HostServiceAccess::None, vec![setting.to_owned()]);
    assert_eq!((access("a"), access("b")), (lost, well.clone()));
    three(&prober, &all_but(&prober, &[])).await;
    assert_eq!((access("a"), access("b")), (well.clone(), well));
    let events = fixture.registry.events_after(0, 10).await.unwrap();
    let whose = events.iter().map(|event| {
        let event: Value = serde_json::from_slice(&event.body).unwrap();
        event["provider"]["name"].as_str().unwrap().to_owned()
    });
    let whose: Vec<String> = whose.collect();
    assert_eq!(whose, ["a", "b", "a", "a"]);
}

#[tokio::test]
async fn a_service_that_is_written_twice_is_asked_once_and_told_of_both() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let services = format!("{{cache: 'tcp://{}'}}", listener.local_addr().unwrap());
    let found = one_run(&of_two(&services, &services)).await;
    assert_eq!(found.len(), 2);
    for (check, last) in &found {
        assert_eq!(last.finding, Finding::Pass, "{check}");
    }
    let came = std::iter::from_fn(|| listener.accept().ok()).count();
    assert_eq!(came, 1);
}

#[tokio::test]
async fn what_is_not_well_is_told_with_whose_it_is_and_where_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("gone");
    let services = format!("{{cache: 'unix://{}'}}", gone.display());
    let found = one_run(&of_two(&services, "{}")).await;
    let last = found.values().next().unwrap();
    let Finding::Fail { reason, setting } = &last.finding else {
        panic!("{last:?}");
    };
    let whose = "host service cache of provider a is not well: ";
    assert!(reason.starts_with(whose), "{reason}");
    assert_eq!(setting, "runtime.providers.a.services.cache");
}

/// Between a reload's new sessions and its new plan nothing is known of a provider that came with it.
#[tokio::test]
async fn a_provider_that_the_plan_does_not_know_is_not_published() {
    let config = of_two("{}", "{}");
    let fixture = Fixture::with(config);
    let telemetry = Telemetry::new(AccessLog::open(&Default::default()).unwrap()).unwrap();
    let target = Target::from_authority("gateway.test:443").unwrap();
    let plan = Plan {
        asked: testing::asked(&["a"], &[]),
        ..testing::plan(Some(target), Vec::new())
    };
    let prober = Prober::new(fixture.registry.clone(), telemetry, Arc::default(), plan);
    three(&prober, &all_but(&prober, &[])).await;
    assert!(prober.effective("a").is_some());
    assert_eq!(prober.effective("b"), None);
}
