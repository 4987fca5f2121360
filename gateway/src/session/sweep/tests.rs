#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use sluicegate_policy::Denial;

use super::*;
use crate::session::testing::{Fixture, config, request};
use crate::session::{Authority, Behalf};

mod stores;

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
    session.touch(now + 60 * SECOND);
    drop(slot);
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
        f.registry
            .create_at(&Behalf::nobody(), "local", asked, long_ago)
            .unwrap();
    }
    let found = f.registry.index().session(&f.key("moved")).unwrap();
    let moved_at = SystemTime::now() - 100 * SECOND;
    // It was never silent for so long that it would have ended.
    for step in 1..=7 {
        let at = long_ago + step * 500 * SECOND;
        found.session.touch(at.min(moved_at));
    }
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
            f.registry
                .act_at(&Behalf::nobody(), &key, Action::Pause, None, now)
                .unwrap();
        }
        let later = now + 9 * SECOND;
        f.registry
            .act_at(&Behalf::nobody(), &key, action, None, later)
            .unwrap();
        f.sweep(now + 18 * SECOND);
        assert_eq!(f.state(id), "running");
        f.sweep(now + 20 * SECOND);
        assert_eq!(f.state(id), "idle", "{id}");
    }
}

#[tokio::test]
async fn a_stopped_session_stays_readable_until_it_is_reaped() {
    let f = Fixture::with(crate::session::RegistryConfig {
        retention: crate::session::Retention {
            sessions: 60 * SECOND,
            ..Default::default()
        },
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
        retention: crate::session::Retention {
            sessions: 60 * SECOND,
            ..Default::default()
        },
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

/// A life is over whether the store can be read or not, and recorded once it can.
#[tokio::test]
async fn what_is_over_ends_without_a_store() {
    let f = Fixture::new();
    create(&f, "{id: one, maxLifetime: 60, idleTimeout: 0}").await;
    let (store, aside) = (f.store_path(), f.dir.path().join("aside"));
    std::fs::rename(&store, &aside).unwrap();
    let later = SystemTime::now() + Duration::from_secs(61);
    f.sweep(later);
    assert!(f.registry.index().session(&f.key("one")).is_none());
    std::fs::rename(&aside, &store).unwrap();
    f.sweep(later);
    assert_eq!(f.state("one"), "idle");
    assert!(f.registry.writable());
}

/// So is the time of a session that is paused then: nothing is let in and what is open is cut, recorded or not.
#[tokio::test]
async fn a_pause_at_the_end_of_its_time_waits_for_no_store() {
    for (again, state) in [
        (None, "paused"),
        (Some(Action::Keepalive(SECOND)), "paused"),
        (Some(Action::Resume), "running"),
        (Some(Action::Reset), "idle"),
    ] {
        let f = Fixture::new();
        create(
            &f,
            "{id: one, ttl: 60, onExpiry: pause, idleTimeout: 0, maxLifetime: 3600}",
        )
        .await;
        let live = f.registry.index().session(&f.key("one")).unwrap();
        let open = live.session.judge(None, |_| Ok::<_, Denial>(())).unwrap();
        let (store, aside) = (f.store_path(), f.dir.path().join("aside"));
        std::fs::rename(&store, &aside).unwrap();
        let began = SystemTime::now();
        let over = began + 61 * SECOND;
        f.sweep(over);
        let told = open.changes.peek().clone();
        assert!(matches!(told, Authority::Paused { hold: false, .. }));
        assert_eq!(
            live.session.stands(None).unwrap_err(),
            Denial::SessionPaused
        );
        let view = f.registry.show(&f.key("one")).unwrap();
        assert_eq!(
            (&view["state"], &view["withdrawn"]),
            (&"running".into(), &true.into())
        );
        // Asked again without a store, it is as it was.
        f.sweep(over + SECOND);
        assert_eq!(
            live.session.stands(None).unwrap_err(),
            Denial::SessionPaused
        );
        std::fs::rename(&aside, &store).unwrap();
        let later = over + 600 * SECOND;
        match again {
            None => drop(f.sweep(later)),
            Some(action) => {
                drop(
                    f.registry
                        .act_at(&Behalf::nobody(), &f.key("one"), action, None, later),
                )
            }
        }
        assert_eq!(f.state("one"), state, "{again:?}");
        let view = f.registry.show(&f.key("one")).unwrap();
        assert!(view.get("withdrawn").is_none(), "{again:?}");
        if again.is_none() {
            // It has been paused since its time was over.
            assert_eq!(view["pausedAt"], crate::clock::rfc3339(over));
        }
        assert_eq!(f.restarted().state("one"), state);
    }
}

/// The sweep may be late; the clock is not.
#[tokio::test]
async fn what_is_over_opens_nothing_before_the_sweep_comes_by() {
    let f = Fixture::new();
    create(&f, "{id: ttl, ttl: 10s, idleTimeout: 0}").await;
    create(&f, "{id: idle, idleTimeout: 10s}").await;
    create(
        &f,
        "{id: life, maxLifetime: 10s, idleTimeout: 0, onExpiry: pause}",
    )
    .await;
    create(
        &f,
        "{id: pauses, ttl: 10s, idleTimeout: 0, onExpiry: pause}",
    )
    .await;
    create(&f, "{id: stays, idleTimeout: 1h}").await;
    let now = SystemTime::now();
    let opens = |id: &str, at| {
        let live = f.registry.index().session(&f.key(id)).unwrap();
        let opened = live.session.stands_at(None, at);
        // Whoever asks is no activity once it is over, whatever the ask is and wherever it is refused.
        live.session.touch(at);
        let refused = live.session.refused(Denial::MalformedTarget.into(), at);
        let expected = opened.as_ref().err().copied();
        assert_eq!(refused.denial, expected.unwrap_or(Denial::MalformedTarget));
        opened.err()
    };
    let over = now + 11 * SECOND;
    for (id, before, after) in [
        ("ttl", None, Some(Denial::CredentialInvalid)),
        ("life", None, Some(Denial::CredentialInvalid)),
        ("pauses", None, Some(Denial::SessionPaused)),
        ("stays", None, None),
    ] {
        assert_eq!(opens(id, now + 5 * SECOND), before, "{id}");
        assert_eq!(opens(id, over), after, "{id}");
    }
    for _ in 0..3 {
        assert_eq!(opens("idle", over), Some(Denial::CredentialInvalid));
    }
    f.sweep(over);
    for (id, state) in [
        ("ttl", "idle"),
        ("idle", "idle"),
        ("life", "idle"),
        ("pauses", "paused"),
        ("stays", "running"),
    ] {
        assert_eq!(f.state(id), state, "{id}");
    }
}

/// Its idle clock stands while something is open, whoever asks.
#[tokio::test]
async fn what_is_open_holds_the_idle_clock_for_new_opens_too() {
    let f = Fixture::new();
    create(&f, "{id: one, idleTimeout: 10s}").await;
    let live = f.registry.index().session(&f.key("one")).unwrap();
    let now = SystemTime::now();
    let slot = live.session.budget().open(now).unwrap();
    assert!(live.session.stands_at(None, now + 60 * SECOND).is_ok());
    drop(slot);
    let over = SystemTime::now() + 11 * SECOND;
    let refused = live.session.stands_at(None, over).unwrap_err();
    assert_eq!(refused, Denial::CredentialInvalid);
}

/// What is asked of a session that is over is asked of what it is now.
#[tokio::test]
async fn a_late_keepalive_revives_nothing() {
    for (times, state) in [
        ("ttl: 10s", State::Idle),
        ("ttl: 10s, onExpiry: pause", State::Paused),
        ("ttl: 10s, onExpiry: stop", State::Stopped),
        ("idleTimeout: 10s", State::Idle),
    ] {
        let f = Fixture::new();
        create(&f, &format!("{{id: one, {times}}}")).await;
        let late = SystemTime::now() + 11 * SECOND;
        let act = |action| {
            let (by, key) = (Behalf::nobody(), f.key("one"));
            f.registry.act_at(&by, &key, action, None, late)
        };
        let refused = act(Action::Keepalive(60 * SECOND)).unwrap_err();
        assert!(
            matches!(&refused, RegistryError::Impossible(why) if why.state == state),
            "{times}: {refused}"
        );
        assert_eq!(f.state("one"), state.as_str(), "{times}");
    }
}

/// A condition is asked of what the session is by its clocks, whether the sweep has come by or not.
#[tokio::test]
async fn a_condition_beside_a_due_end_is_asked_of_what_is_left() {
    let over = [
        Action::Keepalive(60 * SECOND),
        Action::Pause,
        Action::Resume,
        Action::Start,
    ];
    for action in over {
        let f = Fixture::new();
        create(&f, "{id: one, ttl: 10s}").await;
        let late = SystemTime::now() + 11 * SECOND;
        let etag = || {
            let view = f.registry.show(&f.key("one")).unwrap();
            view["etag"].as_str().unwrap().to_owned()
        };
        let act = |tag: &str| {
            let by = Behalf {
                if_match: vec![tag.to_owned()],
                ..Behalf::nobody()
            };
            f.registry.act_at(&by, &f.key("one"), action, None, late)
        };
        let seen = etag();
        let refused = act(&seen).unwrap_err();
        let now = etag();
        assert!(
            matches!(&refused, RegistryError::Changed { etag } if *etag == now),
            "{action:?}: {refused}"
        );
        assert_ne!(seen, now, "{action:?}");
        assert_eq!(f.state("one"), "idle", "{action:?}");
        // What it is now can be acted on, where there is anything to do.
        match action {
            Action::Start => assert_eq!(act(&now).unwrap().view["generation"], 2),
            _ => assert!(matches!(act(&now), Err(RegistryError::Impossible(_)))),
        }
    }
    // An end is what was asked for, or more of it.
    for (action, state) in [(Action::Reset, "idle"), (Action::Stop, "stopped")] {
        let f = Fixture::new();
        create(&f, "{id: one, ttl: 10s}").await;
        let late = SystemTime::now() + 11 * SECOND;
        let view = f.registry.show(&f.key("one")).unwrap();
        let by = Behalf {
            if_match: vec![view["etag"].as_str().unwrap().to_owned()],
            ..Behalf::nobody()
        };
        f.registry
            .act_at(&by, &f.key("one"), action, None, late)
            .unwrap();
        assert_eq!(f.state("one"), state);
    }
}
