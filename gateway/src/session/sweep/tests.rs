#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use sluicegate_policy::Denial;

use super::*;
use crate::session::Authority;
use crate::session::testing::{Fixture, config, request};

const SECOND: Duration = Duration::from_secs(1);

async fn create(f: &Fixture, source: &str) {
    f.registry
        .create("local".into(), request(source))
        .await
        .unwrap();
}

#[tokio::test]
async fn each_clock_expires_its_session_with_its_name() {
    let f = Fixture::new();
    create(&f, "{id: ttl, ttl: 10s, idleTimeout: 0}").await;
    create(&f, "{id: idle, idleTimeout: 10s}").await;
    create(
        &f,
        "{id: life, maxLifetime: 10s, idleTimeout: 0, onExpiry: stop}",
    )
    .await;
    create(&f, "{id: stays}").await;
    let session = f
        .registry
        .index()
        .session(&f.key("ttl"))
        .unwrap()
        .session
        .clone();
    let now = SystemTime::now();
    assert!(
        f.sweep(now).unwrap() <= now + 10 * SECOND,
        "the next deadline is known"
    );
    assert_eq!(f.state("ttl"), "running");
    f.sweep(now + 11 * SECOND);
    for (id, state, reason) in [
        ("ttl", "idle", "ttl"),
        ("idle", "idle", "idle_timeout"),
        ("life", "stopped", "max_lifetime"),
    ] {
        let view = f.registry.show(&f.key(id)).unwrap();
        assert_eq!(
            (view["state"].as_str(), view["reason"].as_str()),
            (Some(state), Some(reason)),
            "{id}"
        );
    }
    assert_eq!(f.state("stays"), "running");
    assert_eq!(
        session.policy().unwrap_err(),
        Denial::CredentialInvalid,
        "a dead credential is answered like an unknown one"
    );
    assert!(matches!(
        session.authority(),
        Authority::Ended(Denial::SessionExpired)
    ));
    assert!(f.registry.index().session(&f.key("ttl")).is_none());
}

#[tokio::test]
async fn an_open_tunnel_and_fresh_activity_hold_the_idle_clock() {
    let f = Fixture::new();
    create(&f, "{id: one, idleTimeout: 10s}").await;
    let session = f
        .registry
        .index()
        .session(&f.key("one"))
        .unwrap()
        .session
        .clone();
    let now = SystemTime::now();
    let slot = session.budget().open(now).unwrap();
    f.sweep(now + 60 * SECOND);
    assert_eq!(f.state("one"), "running");
    drop(slot);
    session.touch(now + 60 * SECOND);
    f.sweep(now + 69 * SECOND);
    assert_eq!(f.state("one"), "running");
    f.sweep(now + 70 * SECOND);
    assert_eq!(f.state("one"), "idle");
}

#[tokio::test]
async fn a_window_goes_on_over_a_restart() {
    let f = Fixture::new();
    create(&f, "{id: one, ttl: 10s, onExpiry: pause}").await;
    let now = SystemTime::now();
    let f = f.restarted();
    f.sweep(now + 5 * SECOND);
    assert_eq!(f.state("one"), "running");
    f.sweep(now + 11 * SECOND);
    assert_eq!(f.state("one"), "paused");
    // Paused, it burns nothing; resumed, it has a fresh window.
    f.sweep(now + 3000 * SECOND);
    assert_eq!(f.state("one"), "paused");
    f.registry
        .act(f.key("one"), Action::Resume, None)
        .await
        .unwrap();
    assert_eq!(f.state("one"), "running");
}

#[tokio::test]
async fn an_idle_clock_goes_on_over_restarts() {
    let f = Fixture::new();
    create(&f, "{id: one, idleTimeout: 300s}").await;
    let now = SystemTime::now();
    let mut f = f;
    // However often it starts again: nobody has come.
    for _ in 0..3 {
        f = f.restarted();
    }
    f.sweep(now + 299 * SECOND);
    assert_eq!(f.state("one"), "running");
    f.sweep(now + 301 * SECOND);
    assert_eq!(f.state("one"), "idle");
}

#[tokio::test]
async fn what_moved_before_a_restart_counts_and_clients_have_a_minute_to_come_back() {
    let f = Fixture::new();
    let long_ago = SystemTime::now() - 3600 * SECOND;
    for id in ["moved", "still"] {
        let asked = request(&format!("{{id: {id}, idleTimeout: 600s}}"));
        f.registry.create_at("local", asked, long_ago).unwrap();
    }
    let found = f.registry.index().session(&f.key("moved")).unwrap();
    let moved_at = SystemTime::now() - 100 * SECOND;
    found.session.touch(moved_at);
    f.registry.save_usage();
    let f = f.restarted();
    let now = SystemTime::now();
    f.sweep(now + 55 * SECOND);
    assert_eq!(f.state("still"), "running", "a minute to come back");
    f.sweep(now + 61 * SECOND);
    assert_eq!(f.state("still"), "idle");
    f.sweep(now + 495 * SECOND);
    assert_eq!(f.state("moved"), "running");
    f.sweep(now + 505 * SECOND);
    assert_eq!(f.state("moved"), "idle");
}

#[tokio::test]
async fn whoever_starts_resumes_or_keeps_alive_is_not_idle() {
    let f = Fixture::new();
    for (id, action) in [
        ("resumed", Action::Resume),
        ("kept", Action::Keepalive(SECOND)),
        ("started", Action::Start),
    ] {
        create(&f, &format!("{{id: {id}, idleTimeout: 10s}}")).await;
        let now = SystemTime::now();
        let key = f.key(id);
        if action == Action::Resume {
            f.registry.act_at(&key, Action::Pause, None, now).unwrap();
        }
        let later = now + 9 * SECOND;
        f.registry.act_at(&key, action, None, later).unwrap();
        f.sweep(now + 18 * SECOND);
        assert_eq!(f.state(id), "running");
        f.sweep(now + 20 * SECOND);
        assert_eq!(f.state(id), "idle", "{id}");
    }
}

#[tokio::test]
async fn a_stopped_session_stays_readable_until_it_is_reaped() {
    let f = Fixture::with(crate::session::RegistryConfig {
        retention: Some(60 * SECOND),
        ..config()
    });
    create(&f, "{id: one}").await;
    f.registry
        .act(f.key("one"), Action::Stop, None)
        .await
        .unwrap();
    let now = SystemTime::now();
    f.sweep(now + 59 * SECOND);
    assert_eq!(f.state("one"), "stopped");
    f.sweep(now + 61 * SECOND);
    assert!(f.registry.show(&f.key("one")).is_none());
    assert_eq!(f.events().await.last().unwrap(), "session.reaped");
    let f = f.restarted();
    assert!(f.registry.show(&f.key("one")).is_none());
}

#[tokio::test]
async fn the_task_expires_without_being_asked_and_ends_with_the_drain() {
    let f = Fixture::new();
    let drain = crate::drain::Drain::default();
    let telemetry =
        Telemetry::new(crate::telemetry::AccessLog::open(&Default::default()).unwrap()).unwrap();
    drain
        .watch()
        .spawn_service(f.registry.clone().sweep(telemetry.clone(), drain.watch()));
    let mut events = f.registry.subscribe();
    create(&f, "{id: one, ttl: 300ms}").await;
    let expired = async {
        loop {
            let (_, event) = events.recv().await.unwrap();
            if event.contains("session.expired") {
                return;
            }
        }
    };
    tokio::time::timeout(10 * SECOND, expired).await.unwrap();
    assert_eq!(f.state("one"), "idle");
    assert_eq!(
        drain.run(SECOND, 5 * SECOND).await,
        0,
        "nothing had to be cut"
    );
}

#[tokio::test]
async fn revocations_of_expired_tokens_are_forgotten() {
    let f = Fixture::new();
    let issued = f
        .registry
        .create("local".into(), request("{id: one, maxLifetime: 10s}"))
        .await
        .unwrap();
    let env = issued.bundle.unwrap().env;
    let token = env
        .iter()
        .find(|(name, _)| name == "SLUICEGATE_RELAY_TOKEN")
        .unwrap()
        .1
        .clone();
    assert!(f.registry.revoke_credential(token).await.unwrap());
    let now = SystemTime::now();
    assert_eq!(f.registry.revocations_before(u64::MAX).len(), 1);
    f.sweep(now + 50 * SECOND);
    assert_eq!(
        f.registry.revocations_before(u64::MAX).len(),
        1,
        "kept as long as any token may live"
    );
    // A pause would move the end of what the token descends from, and of what comes of it.
    f.sweep(now + 367 * 86_400 * SECOND);
    assert!(f.registry.revocations_before(u64::MAX).is_empty());
}

/// Whatever is signed and has an end: a pause moves it, and only it.
#[tokio::test]
async fn the_same_credentials_work_again_after_a_pause() {
    let f = Fixture::new();
    let asked = request("{id: one, maxLifetime: 100s, idleTimeout: 0}");
    let now = SystemTime::now();
    let issued = f.registry.create_at("local", asked, now).unwrap();
    let env = issued.bundle.unwrap().env;
    let tokens = ["SLUICEGATE_RELAY_TOKEN", "SLUICEGATE_PROXY_TOKEN"].map(|wanted| {
        let found = env.iter().find(|(name, _)| name == wanted);
        crate::secret::Secret::new(found.unwrap().1.clone())
    });
    let good = |f: &Fixture, at: SystemTime| {
        let audiences = [crate::auth::Audience::Relay, crate::auth::Audience::Egress];
        let authenticator = f.registry.authenticator();
        let all = tokens.iter().zip(audiences).map(|(token, audience)| {
            let source = std::net::Ipv4Addr::LOCALHOST.into();
            let found = authenticator.identify(token, audience, source, at);
            found.and_then(|identity| identity.snapshot().map(drop))
        });
        all.collect::<Result<Vec<()>, Denial>>().map(drop)
    };
    let act = |f: &Fixture, action, at| f.registry.act_at(&f.key("one"), action, None, at).unwrap();
    act(&f, Action::Pause, now + 50 * SECOND);
    let weekend = now + 200_000 * SECOND;
    assert_eq!(good(&f, weekend), Err(Denial::SessionPaused));
    act(&f, Action::Resume, weekend);
    assert_eq!(good(&f, weekend + 49 * SECOND), Ok(()));
    let f = f.restarted();
    assert_eq!(good(&f, weekend + 49 * SECOND), Ok(()));
    assert_eq!(
        good(&f, weekend + 60 * SECOND),
        Err(Denial::CredentialInvalid),
        "fifty seconds were left of it"
    );
    // What is issued after a pause is not given that pause too.
    let fresh = act(&f, Action::Start, weekend + SECOND).bundle.unwrap().env;
    let found = fresh
        .iter()
        .find(|(name, _)| name == "SLUICEGATE_PROXY_TOKEN");
    let fresh = crate::secret::Secret::new(found.unwrap().1.clone());
    let late = weekend + 60 * SECOND;
    let source = std::net::Ipv4Addr::LOCALHOST.into();
    let audience = crate::auth::Audience::Egress;
    let found = f
        .registry
        .authenticator()
        .identify(&fresh, audience, source, late);
    assert_eq!(found.unwrap_err(), Denial::CredentialInvalid);
}

/// An end that could not be recorded holds at once, is seen, and is recorded as soon as that can be.
#[tokio::test]
async fn what_was_withdrawn_without_a_store_is_settled_with_one() {
    for again in [None, Some(Action::Reset), Some(Action::Start)] {
        let f = Fixture::new();
        create(&f, "{id: one, idleTimeout: 0}").await;
        let (store, aside) = (f.store_path(), f.dir.path().join("aside"));
        std::fs::rename(&store, &aside).unwrap();
        let act = |action| f.registry.act(f.key("one"), action, None);
        act(Action::Reset).await.unwrap_err();
        assert!(f.registry.index().session(&f.key("one")).is_none());
        let view = f.registry.show(&f.key("one")).unwrap();
        assert_eq!(
            (&view["state"], &view["withdrawn"]),
            (&"running".into(), &true.into())
        );
        assert!(act(Action::Start).await.is_err(), "no dead credentials");
        std::fs::rename(&aside, &store).unwrap();
        match again {
            None => drop(f.sweep(SystemTime::now())),
            Some(action) => drop(act(action).await.unwrap()),
        }
        let view = f.registry.show(&f.key("one")).unwrap();
        assert!(view.get("withdrawn").is_none(), "{again:?}");
        let started = again == Some(Action::Start);
        let expected = if started { ("running", 2) } else { ("idle", 1) };
        let found = (
            view["state"].as_str().unwrap(),
            view["generation"].as_u64().unwrap(),
        );
        assert_eq!(found, expected, "{again:?}");
        assert_eq!(f.registry.index().session(&f.key("one")).is_some(), started);
        assert_eq!(f.restarted().state("one"), expected.0);
    }
}

/// What an owner spent counts as long as there is a record of it: over generations, and over restarts.
#[tokio::test]
async fn an_owners_bytes_survive_generations_and_restarts() {
    let limits = sluicegate_policy::Limits {
        bytes: Some(100),
        ..Default::default()
    };
    let config = crate::session::RegistryConfig {
        owner_quota: crate::session::Quota {
            limits,
            ..Default::default()
        },
        retention: Some(60 * SECOND),
        ..config()
    };
    let f = Fixture::with(config.clone());
    for id in ["one", "two"] {
        create(&f, &format!("{{id: {id}, owner: zoe, idleTimeout: 0}}")).await;
    }
    let spend = |f: &Fixture, id: &str, bytes| {
        let live = f.registry.index().session(&f.key(id)).unwrap();
        live.session.budget().spend(bytes)
    };
    assert_eq!(spend(&f, "one", 60), Ok(()));
    f.registry
        .act(f.key("one"), Action::Reset, None)
        .await
        .unwrap();
    let f = f.restarted_with(config.clone());
    assert_eq!(spend(&f, "two", 30), Ok(()));
    f.registry.save_usage();
    let f = f.restarted_with(config.clone());
    assert_eq!(spend(&f, "two", 20), Err(Denial::ByteQuota));
    // The record of the session that spent most is removed.
    f.registry
        .act(f.key("one"), Action::Stop, None)
        .await
        .unwrap();
    f.sweep(SystemTime::now() + 61 * SECOND);
    assert_eq!(spend(&f, "two", 20), Ok(()));
}

/// The same for single credentials: what cannot be recorded holds, and is recorded as soon as it can be.
#[tokio::test]
async fn a_revocation_without_a_store_holds_and_is_saved_with_one() {
    let f = Fixture::new();
    let issued = f
        .registry
        .create("local".into(), request("{id: one, idleTimeout: 0}"));
    let env = issued.await.unwrap().bundle.unwrap().env;
    let variable = |name: &str| env.iter().find(|(key, _)| key == name).unwrap().1.clone();
    let token = variable("SLUICEGATE_PROXY_TOKEN");
    let url = variable("HTTP_PROXY");
    let handle = url.split(['@', ':']).nth(2).unwrap().to_owned();
    let good = |f: &Fixture, credential: &str| {
        let secret = crate::secret::Secret::new(credential);
        let source = std::net::Ipv4Addr::LOCALHOST.into();
        let audience = crate::auth::Audience::Egress;
        let authenticator = f.registry.authenticator();
        authenticator.identify(&secret, audience, source, SystemTime::now())
    };
    let mut open = [&token, &handle].map(|one| good(&f, one).unwrap().snapshot().unwrap().changes);
    let (store, aside) = (f.store_path(), f.dir.path().join("aside"));
    std::fs::rename(&store, &aside).unwrap();
    for credential in [&token, &handle] {
        assert!(
            f.registry
                .revoke_credential(credential.clone())
                .await
                .is_err()
        );
        assert_eq!(good(&f, credential).unwrap_err(), Denial::CredentialInvalid);
    }
    for changes in &mut open {
        changes.changed().await.unwrap();
        assert!(matches!(
            changes.now(),
            Authority::Ended(Denial::SessionRevoked)
        ));
    }
    std::fs::rename(&aside, &store).unwrap();
    f.sweep(SystemTime::now());
    let told = f.events().await;
    assert_eq!(
        told.iter()
            .filter(|event| *event == "credential.revoked")
            .count(),
        2
    );
    let f = f.restarted();
    for credential in [&token, &handle] {
        assert_eq!(good(&f, credential).unwrap_err(), Denial::CredentialInvalid);
    }
}

/// A reload judges sessions anew; one that was withdrawn is not given back by that.
#[tokio::test]
async fn what_was_withdrawn_stays_so_over_a_reload() {
    let f = Fixture::new();
    create(
        &f,
        "{id: one, services: {db: 'tcp://127.0.0.1:5432'}, idleTimeout: 0}",
    )
    .await;
    let (store, aside) = (f.store_path(), f.dir.path().join("aside"));
    std::fs::rename(&store, &aside).unwrap();
    let reset = f.registry.act(f.key("one"), Action::Reset, None);
    reset.await.unwrap_err();
    std::fs::rename(&aside, &store).unwrap();
    let mut narrower = config();
    narrower.providers.get_mut("local").unwrap().ceiling = Default::default();
    f.registry.replace_config(narrower).await.unwrap();
    f.registry.replace_config(config()).await.unwrap();
    assert_eq!(f.state("one"), "idle");
    assert!(f.registry.index().session(&f.key("one")).is_none());
}

/// Handles of a session that the configuration keeps paused are still somebody's to revoke, and its bytes are counted once.
#[tokio::test]
async fn a_session_that_cannot_go_on_keeps_its_credentials_and_its_count() {
    let f = Fixture::new();
    let asked = "{id: one, owner: zoe, services: {db: 'tcp://127.0.0.1:5432'}, idleTimeout: 0}";
    let issued = f.registry.create("local".into(), request(asked));
    let env = issued.await.unwrap().bundle.unwrap().env;
    let url = env
        .iter()
        .find(|(key, _)| key == "HTTP_PROXY")
        .unwrap()
        .1
        .clone();
    let handle = url.split(['@', ':']).nth(2).unwrap().to_owned();
    let live = f.registry.index().session(&f.key("one")).unwrap();
    live.session.budget().spend(1000).unwrap();
    f.registry.save_usage();
    drop(live);
    let mut narrower = config();
    narrower.providers.get_mut("local").unwrap().ceiling = Default::default();
    f.registry.replace_config(narrower.clone()).await.unwrap();
    assert_eq!(f.state("one"), "paused");
    let f = f.restarted_with(narrower);
    assert!(f.registry.revoke_credential(handle).await.unwrap());
    f.registry.replace_config(config()).await.unwrap();
    f.registry
        .act(f.key("one"), Action::Resume, None)
        .await
        .unwrap();
    let owner = f.registry.budget_of("default", Some("zoe"));
    assert_eq!(owner.bytes(), 1000);
}

/// What is issued while a pause lasts lives as long as it says, and the rest of the pause more.
#[tokio::test]
async fn a_token_issued_in_a_pause_is_given_only_what_comes_of_it() {
    let f = Fixture::new();
    let now = SystemTime::now();
    let asked = request("{id: one, maxLifetime: 100s, idleTimeout: 0}");
    f.registry.create_at("local", asked, now).unwrap();
    let act = |action, at| f.registry.act_at(&f.key("one"), action, None, at).unwrap();
    act(Action::Pause, now + 10 * SECOND);
    let issued = act(Action::Start, now + 1000 * SECOND);
    act(Action::Resume, now + 2000 * SECOND);
    let env = issued.bundle.unwrap().env;
    let token = env
        .iter()
        .find(|(key, _)| key == "SLUICEGATE_PROXY_TOKEN")
        .unwrap();
    let secret = crate::secret::Secret::new(token.1.as_str());
    let good = |at| {
        let source = std::net::Ipv4Addr::LOCALHOST.into();
        let audience = crate::auth::Audience::Egress;
        let found = f
            .registry
            .authenticator()
            .identify(&secret, audience, source, at);
        found.is_ok()
    };
    // Ninety seconds of the generation are left after the pause.
    assert!(good(now + 2089 * SECOND));
    assert!(!good(now + 2096 * SECOND));
}

/// A handle that made room for newer ones lets nobody in any more, and cuts nothing; a retired key cuts its own.
#[tokio::test]
async fn evicted_handles_cut_nothing_and_retired_keys_do() {
    let f = Fixture::new();
    let issued = f
        .registry
        .create("local".into(), request("{id: one, idleTimeout: 0}"));
    let env = issued.await.unwrap().bundle.unwrap().env;
    let variable = |name: &str| env.iter().find(|(key, _)| key == name).unwrap().1.clone();
    let url = variable("HTTP_PROXY");
    let handle = url.split(['@', ':']).nth(2).unwrap().to_owned();
    let token = variable("SLUICEGATE_PROXY_TOKEN");
    let identify = |credential: &str| {
        let secret = crate::secret::Secret::new(credential);
        let source = std::net::Ipv4Addr::LOCALHOST.into();
        let audience = crate::auth::Audience::Egress;
        let authenticator = f.registry.authenticator();
        authenticator.identify(&secret, audience, source, SystemTime::now())
    };
    let mut by_handle = identify(&handle).unwrap().snapshot().unwrap().changes;
    let mut by_token = identify(&token).unwrap().snapshot().unwrap().changes;
    for _ in 0..33 {
        f.registry
            .act(f.key("one"), Action::Start, None)
            .await
            .unwrap();
    }
    assert_eq!(identify(&handle).unwrap_err(), Denial::CredentialInvalid);
    let old = f.registry.keys().list()[0].kid.clone();
    f.registry.keys().rotate().unwrap();
    f.registry.retire_key(&old).unwrap();
    assert!(matches!(by_handle.now(), Authority::Live(_)));
    by_token.changed().await.unwrap();
    assert!(matches!(
        by_token.now(),
        Authority::Ended(Denial::SessionRevoked)
    ));
}
