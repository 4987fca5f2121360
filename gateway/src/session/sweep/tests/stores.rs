//! A sweep, and the store it is made on.

use super::*;
use crate::store::{
    Store,
    testing::{Manner, Minded},
};

/// A registry of its own beside the fixture's, and its store.
fn minded(f: &Fixture, now: SystemTime) -> (Arc<Minded>, Arc<Registry>) {
    let store = Minded::open(&f.dir.path().join("minded.redb"));
    let keys = f.registry.keys().clone();
    let registry = Registry::open(store.clone(), keys, config(), now).unwrap();
    (store, registry)
}

/// However many end at once, the store is written once for all of them.
#[tokio::test]
async fn the_ends_of_one_sweep_are_one_commit() {
    let f = Fixture::new();
    let now = SystemTime::now();
    let (store, registry) = minded(&f, now);
    for id in 0..40 {
        let asked = request(&format!("{{id: s{id}, ttl: 10s}}"));
        registry
            .create_at(&Behalf::nobody(), "local", asked, now)
            .unwrap();
    }
    store.commits();
    registry.sweep_at(now + 11 * SECOND);
    assert_eq!(store.commits(), [40]);
    for id in 0..40 {
        let view = registry.show(&f.key(&format!("s{id}"))).unwrap();
        assert_eq!(view["state"], "idle");
    }
}

/// Whoever leaves many stopped sessions behind holds up nobody's end, at the start neither, when all of them are over at once.
#[tokio::test]
async fn what_is_reaped_in_one_sweep_is_one_commit_behind_the_ends() {
    let f = Fixture::new();
    let now = SystemTime::now();
    let (store, registry) = minded(&f, now);
    let nobody = Behalf::nobody();
    let create = |asked: String| {
        let created = registry.create_at(&nobody, "local", request(&asked), now);
        created.unwrap();
    };
    for id in 0..20 {
        create(format!("{{id: s{id}, start: false}}"));
        let stopped = registry.act_at(&nobody, &f.key(&format!("s{id}")), Action::Stop, None, now);
        stopped.unwrap();
    }
    create("{id: lives, ttl: 10s}".into());
    let began = registry.events_after(0, 100).await.unwrap().len();
    store.commits();
    registry.sweep_at(now + 172_800 * SECOND);
    assert_eq!(store.commits(), [1, 0], "an end, and what is reaped");
    let told = registry.events_after(0, 100).await.unwrap();
    let kinds = told.iter().skip(began).map(|event| {
        let event: serde_json::Value = serde_json::from_slice(&event.body).unwrap();
        event["type"].as_str().unwrap().to_owned()
    });
    let kinds: Vec<String> = kinds.collect();
    assert_eq!((kinds.len(), kinds[0].as_str()), (21, "session.expired"));
    assert!(kinds[1..].iter().all(|kind| kind == "session.reaped"));
    let left: Vec<_> = registry.list(None, None);
    assert_eq!((left.len(), &left[0]["id"]), (1, &"lives".into()));
}

#[test]
fn no_commit_reaps_all_that_may_be_there() {
    let of = |logs: &[u64]| reaped_together(logs.iter().copied());
    let (most, room) = REAPED;
    assert_eq!(of(&[]), 0);
    assert_eq!(of(&vec![0; most + 1]), most);
    assert_eq!(of(&[0, room - 1, 1, 0, 1, 0]), 4);
    assert_eq!(of(&[room + 1, 0]), 1, "one goes, whatever its log");
}

/// However a store breaks off: what was taken away is taken away before it is asked.
#[tokio::test]
async fn an_end_and_a_revocation_hold_where_the_store_panics() {
    let f = Fixture::new();
    let now = SystemTime::now();
    let (store, registry) = minded(&f, now);
    let mut lives = Vec::new();
    let mut handles = Vec::new();
    for id in ["reset", "stopped", "revoked"] {
        let asked = request(&format!("{{id: {id}, idleTimeout: 0}}"));
        let issued = registry.create_at(&Behalf::nobody(), "local", asked, now);
        let env = issued.unwrap().bundle.unwrap().env;
        let handle = env
            .iter()
            .find(|(name, _)| *name == "SLUICEGATE_PROXY_TOKEN");
        handles.push(handle.unwrap().1.to_string());
        lives.push(
            registry
                .index()
                .session(&f.key(id))
                .unwrap()
                .session
                .clone(),
        );
    }
    store.be(Manner::BreakOff);
    for (id, action) in [("reset", Action::Reset), ("stopped", Action::Stop)] {
        let refused = registry.act(f.key(id), action, None).await.unwrap_err();
        assert!(matches!(refused, RegistryError::Interrupted), "{refused}");
        assert!(registry.index().session(&f.key(id)).is_none(), "{id}");
    }
    for live in &lives[..2] {
        assert!(matches!(live.authority(), Authority::Ended(_)));
    }
    let revoked = registry.revoke_credential(handles[2].clone()).await;
    assert!(matches!(revoked, Err(RegistryError::Interrupted)));
    let named = crate::auth::token_named(registry.keys(), &handles[2]);
    let Some(crate::auth::Named::Own(claims)) = named else {
        panic!("it is a token of ours")
    };
    assert!(registry.index().is_revoked("default", claims.line()));
    // And it is made durable once it can be.
    store.be(Manner::Serve);
    registry.sweep_at(now);
    assert_eq!(store.load().unwrap().revoked.len(), 1);
    for (id, state) in [("reset", "idle"), ("stopped", "stopped")] {
        let view = registry.show(&f.key(id)).unwrap();
        assert_eq!(view["state"], state, "{id}");
        assert!(view.get("withdrawn").is_none(), "{id}");
    }
}

/// One that breaks off while it is to write down what holds already takes it from nobody's list.
#[tokio::test]
async fn a_revocation_waits_on_where_the_store_panics_again() {
    let f = Fixture::new();
    let now = SystemTime::now();
    let (store, registry) = minded(&f, now);
    let mut credentials = Vec::new();
    for id in ["one", "two"] {
        let asked = request(&format!("{{id: {id}, idleTimeout: 0}}"));
        let issued = registry.create_at(&Behalf::nobody(), "local", asked, now);
        let env = issued.unwrap().bundle.unwrap().env;
        let mut tokens = env
            .iter()
            .filter(|(name, _)| *name == "SLUICEGATE_RELAY_TOKEN");
        credentials.push(tokens.next().unwrap().1.clone());
    }
    store.be(Manner::BreakOffWriting);
    for credential in credentials {
        let revoked = registry.revoke_credential(credential).await;
        assert!(matches!(revoked, Err(RegistryError::Interrupted)));
    }
    for _ in 0..2 {
        let sweeping = registry.clone();
        let swept = tokio::task::spawn_blocking(move || sweeping.sweep_at(now)).await;
        assert!(swept.unwrap_err().is_panic());
    }
    assert_eq!(registry.unsaved().len(), 2);
    store.be(Manner::Serve);
    registry.sweep_at(now);
    assert_eq!(registry.unsaved().len(), 0);
    assert_eq!(store.load().unwrap().revoked.len(), 2);
    let told = registry.events_after(0, 100).await.unwrap();
    let revoked = told.iter().filter(|event| {
        let event: serde_json::Value = serde_json::from_slice(&event.body).unwrap();
        event["type"] == "credential.revoked"
    });
    assert_eq!(revoked.count(), 2, "each is told once");
}

/// A sweep that breaks off has looked at nobody's clocks: nobody is let in meanwhile.
#[tokio::test]
async fn a_sweep_that_breaks_off_lets_nobody_in() {
    let f = Fixture::new();
    let (store, registry) = minded(&f, SystemTime::now());
    let drain = crate::drain::Drain::default();
    let log = crate::telemetry::AccessLog::open(&Default::default()).unwrap();
    let telemetry = Telemetry::new(log).unwrap();
    drain
        .watch()
        .spawn_service(registry.clone().sweep(telemetry, drain.watch()));
    for breaks in [true, false, true] {
        store.be(if breaks {
            Manner::BreakOff
        } else {
            Manner::Serve
        });
        // The first that serves again finds that the one before looked at no clocks, and looks; the next lets in.
        let sweeps = if breaks { 2 } else { 3 };
        let swept = tokio::time::timeout(60 * SECOND, store.swept(sweeps)).await;
        assert!(swept.is_ok(), "{breaks}");
        assert_eq!(registry.index().readable(), !breaks);
    }
    assert_eq!(drain.run(SECOND, 5 * SECOND).await, 0);
}
