#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use super::*;
use crate::session::{
    RegistryConfig,
    lifecycle::Action,
    testing::{Fixture, ceiling, config, request},
};

fn bounded(concurrency: usize, queue: usize) -> RegistryConfig {
    let mut config = config();
    let provider = config.providers.get_mut("local").unwrap();
    provider.scopes = Some(Scopes { concurrency, queue });
    config
}

async fn create(f: &Fixture, id: &str, scope: &str) -> Issued {
    let source = format!("{{id: {id}, scope: {scope}}}");
    f.registry
        .create("local".into(), request(&source))
        .await
        .unwrap()
}

async fn act(f: &Fixture, id: &str, action: Action) -> Result<Issued, RegistryError> {
    f.registry.act(f.key(id), action, None).await
}

fn position(f: &Fixture, id: &str) -> u64 {
    let view = f.registry.show(&f.key(id)).unwrap();
    view["queued"]["position"].as_u64().unwrap_or_default()
}

fn states(f: &Fixture, ids: &[&str]) -> Vec<String> {
    ids.iter()
        .map(|id| match position(f, id) {
            0 => f.state(id),
            position => format!("queued {position}"),
        })
        .collect()
}

#[tokio::test]
async fn a_start_beyond_the_bound_waits_and_a_freed_place_starts_the_next_in_order() {
    let f = Fixture::with(bounded(2, 10));
    let now = SystemTime::now();
    for id in ["a", "b", "c", "d", "e"] {
        let issued = create(&f, id, "chat").await;
        assert!(issued.created);
        assert_eq!(issued.bundle.is_some(), matches!(id, "a" | "b"), "{id}");
    }
    // Another scope, and none at all, are not its business.
    create(&f, "x", "other").await;
    let free = f.registry.create("local".into(), request("{id: y}"));
    assert!(free.await.unwrap().bundle.is_some());
    let all = ["a", "b", "c", "d", "e", "x", "y"];
    let running = |s: &str| s.to_owned();
    let expected = [
        "running", "running", "queued 1", "queued 2", "queued 3", "running", "running",
    ];
    assert_eq!(states(&f, &all), expected.map(running));

    // Asking again neither starts it nor moves it; a pause frees no place.
    assert!(act(&f, "e", Action::Start).await.unwrap().bundle.is_none());
    act(&f, "a", Action::Pause).await.unwrap();
    f.sweep(now);
    assert_eq!(position(&f, "e"), 3);
    assert_eq!(position(&f, "c"), 1);

    // A reset of what waits withdraws it; of what lives frees a place.
    act(&f, "d", Action::Reset).await.unwrap();
    act(&f, "b", Action::Reset).await.unwrap();
    f.sweep(now);
    assert_eq!(
        states(&f, &["a", "b", "c", "d", "e"]),
        ["paused", "idle", "running", "idle", "queued 1"].map(running)
    );
    // Who comes after a free place but behind somebody who waits, waits too.
    act(&f, "a", Action::Stop).await.unwrap();
    let late = act(&f, "b", Action::Start).await.unwrap();
    assert!(late.bundle.is_none());
    f.sweep(now);
    assert_eq!(
        states(&f, &["b", "e"]),
        ["queued 1", "running"].map(running)
    );
    let started = act(&f, "e", Action::Start).await.unwrap();
    assert!(
        started.bundle.is_some(),
        "its credential is there for the asking"
    );
    let events = f.events().await;
    let count = |name: &str| events.iter().filter(|e| *e == name).count();
    assert_eq!((count("session.queued"), count("session.dequeued")), (4, 1));
}

#[tokio::test]
async fn the_queue_survives_a_restart_and_follows_the_bound() {
    let f = Fixture::with(bounded(1, 10));
    for id in ["c", "b", "a"] {
        create(&f, id, "chat").await;
    }
    let f = f.restarted_with(bounded(1, 10));
    f.sweep(SystemTime::now());
    let running = |s: &str| s.to_owned();
    assert_eq!(
        states(&f, &["c", "b", "a"]),
        ["running", "queued 1", "queued 2"].map(running),
        "in order of coming, not of name"
    );
    f.registry.replace_config(bounded(2, 10)).await.unwrap();
    f.sweep(SystemTime::now());
    assert_eq!(
        states(&f, &["c", "b", "a"]),
        ["running", "running", "queued 1"].map(running)
    );
    act(&f, "a", Action::Stop).await.unwrap();
    assert_eq!(f.state("a"), "stopped");
    assert_eq!(position(&f, "a"), 0);
}

#[tokio::test]
async fn a_label_of_another_owner_is_another_scope() {
    let f = Fixture::with(bounded(1, 1));
    let create = async |id: &str, owner: &str| {
        let source = format!("{{id: {id}, scope: chat{owner}}}");
        f.registry.create("local".into(), request(&source)).await
    };
    for (first, second, owner) in [
        ("a1", "a2", ", owner: ann"),
        ("b1", "b2", ", owner: bob"),
        ("n1", "n2", ""),
    ] {
        create(first, owner).await.unwrap();
        create(second, owner).await.unwrap();
        assert_eq!(states(&f, &[first, second]), ["running", "queued 1"]);
        let third = create("third", owner).await.unwrap_err();
        assert!(
            matches!(third, RegistryError::QueueFull { .. }),
            "{third:?}"
        );
    }
    // A place of one owner's is the next of that owner's.
    act(&f, "b1", Action::Stop).await.unwrap();
    f.sweep(SystemTime::now());
    assert_eq!(
        states(&f, &["a2", "b2", "n2"]),
        ["queued 1", "running", "queued 1"]
    );
}

#[tokio::test]
async fn hundreds_that_wait_start_in_order_of_coming() {
    let f = Fixture::with(bounded(1, 1000));
    // Every id once, and not in the order of their names.
    let ids: Vec<String> = (0..300).map(|n| format!("s{:03}", n * 7 % 300)).collect();
    for id in &ids {
        create(&f, id, "chat").await;
    }
    for (at, id) in ids.iter().enumerate() {
        assert_eq!(position(&f, id), at as u64, "{id}");
    }
    f.registry.replace_config(bounded(5, 1000)).await.unwrap();
    f.sweep(SystemTime::now());
    assert_eq!(position(&f, &ids[5]), 1);
    // From within the queue, and of what lives.
    for at in [6, 200, 0, 1, 2] {
        act(&f, &ids[at], Action::Stop).await.unwrap();
    }
    f.sweep(SystemTime::now());
    assert_eq!(position(&f, &ids[9]), 1);
    assert_eq!(position(&f, &ids[201]), 192);
    let events = f.registry.events_after(0, usize::MAX).await.unwrap();
    let started: Vec<String> = events
        .iter()
        .map(|event| serde_json::from_slice::<Value>(&event.body).unwrap())
        .filter(|event| event["type"] == "session.started")
        .map(|event| event["session"]["id"].as_str().unwrap().to_owned())
        .collect();
    let expected: Vec<String> = [0, 1, 2, 3, 4, 5, 7, 8].map(|at| ids[at].clone()).into();
    assert_eq!(started, expected);
}

#[tokio::test]
async fn who_cannot_be_started_leaves_the_place_to_the_next() {
    let f = Fixture::with(bounded(1, 10));
    for (id, host) in [("a", "a"), ("b", "b"), ("c", "b"), ("d", "a")] {
        let source = format!("{{id: {id}, scope: chat, allow: [{host}.example.com]}}");
        let created = f.registry.create("local".into(), request(&source));
        created.await.unwrap();
    }
    let mut narrow = bounded(1, 10);
    let provider = narrow.providers.get_mut("local").unwrap();
    provider.ceiling = ceiling("{allowedHosts: [a.example.com]}");
    f.registry.replace_config(narrow).await.unwrap();
    act(&f, "a", Action::Stop).await.unwrap();
    f.sweep(SystemTime::now());
    assert_eq!(
        states(&f, &["a", "b", "c", "d"]),
        ["stopped", "idle", "idle", "running"]
    );
    let told = f.registry.show(&f.key("b")).unwrap();
    let reason = told["reason"].as_str().unwrap();
    assert!(reason.starts_with("could not be started"), "{reason}");
}

#[tokio::test]
async fn a_full_queue_refuses_and_says_how_full_it_is() {
    let f = Fixture::with(bounded(1, 1));
    create(&f, "a", "chat").await;
    create(&f, "b", "chat").await;
    let refused = f
        .registry
        .create("local".into(), request("{id: c, scope: chat}"))
        .await;
    match refused.unwrap_err() {
        RegistryError::QueueFull {
            waiting,
            in_use,
            limit,
            ..
        } => assert_eq!((waiting, in_use, limit), (1, 1, 1)),
        other => panic!("{other:?}"),
    }
    assert!(
        f.registry.show(&f.key("c")).is_none(),
        "nothing is left behind"
    );
}

#[tokio::test]
async fn whoever_waits_hears_of_the_place() {
    let f = Fixture::with(bounded(1, 1));
    create(&f, "a", "chat").await;
    create(&f, "b", "chat").await;
    let patience = Duration::from_secs(60);
    let registry = f.registry.clone();
    let key = f.key("b");
    let waiting = registry.wait_for_place(&key, patience);
    let free = async {
        act(&f, "a", Action::Stop).await.unwrap();
        f.sweep(SystemTime::now());
    };
    tokio::join!(waiting, free);
    assert_eq!(f.state("b"), "running");
}

#[tokio::test]
async fn quotas_hold_for_the_namespace_and_for_each_owner_in_it() {
    let mut config = config();
    config.namespace_quota.sessions = Some(3);
    config.owner_quota.sessions = Some(1);
    config.owner_quota.limits.tunnels = Some(1);
    config.namespace_quota.limits.tunnels = Some(2);
    let f = Fixture::with(config);
    let create = async |source: &str| f.registry.create("local".into(), request(source)).await;
    for source in ["{id: a, owner: ann}", "{id: b, owner: bob}", "{id: c}"] {
        create(source).await.unwrap();
    }
    let told = async |source: &str| match create(source).await.unwrap_err() {
        RegistryError::Quota {
            whose,
            in_use,
            limit,
            ..
        } => (whose, in_use, limit),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        told("{id: d}").await,
        ("namespace \"default\"".into(), 3, 3)
    );
    act(&f, "c", Action::Stop).await.unwrap();
    assert_eq!(
        told("{id: d, owner: ann}").await,
        ("owner \"ann\"".into(), 1, 1)
    );
    create("{id: d}").await.unwrap();

    let budget = |id: &str| {
        let live = f.registry.index().session(&f.key(id)).unwrap();
        live.session.budget().clone()
    };
    let now = SystemTime::now();
    let (ann, free) = (budget("a"), budget("d"));
    let first = ann.open(now).unwrap();
    assert!(ann.open(now).is_err(), "the owner's bound");
    let _second = free.open(now).unwrap();
    assert!(free.open(now).is_err(), "the namespace's bound counts both");
    drop(first);
    assert!(free.open(now).is_ok());
}
