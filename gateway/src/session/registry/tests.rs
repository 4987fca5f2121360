#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use std::time::Duration;

use serde_json::json;
use sluicegate_policy::{Denial, Target, decide, text::Faults};

use super::*;
use crate::session::PolicyGeneration;
use crate::session::lifecycle::Action;
use crate::session::testing::{Fixture, ceiling, config, patch, request};
use crate::store::{
    Batch,
    testing::{Manner, Minded},
};

async fn create(f: &Fixture, source: &str) -> Result<Issued, RegistryError> {
    f.registry.create("local".into(), request(source)).await
}

async fn act(f: &Fixture, id: &str, action: Action) -> Result<Issued, RegistryError> {
    f.registry.act(f.key(id), action, None).await
}

fn living(f: &Fixture, id: &str) -> Arc<Session> {
    f.registry
        .index()
        .session(&f.key(id))
        .unwrap()
        .session
        .clone()
}

fn target(text: &str) -> Target {
    Target::from_authority(text).unwrap()
}

#[tokio::test]
async fn a_session_is_created_running_and_every_transition_is_an_event() {
    let f = Fixture::new();
    let issued = create(&f, "{id: one, allow: [api.example.com]}")
        .await
        .unwrap();
    assert!(issued.created && issued.bundle.is_some() && issued.stale.is_empty());
    assert_eq!(issued.view["state"], "running");
    assert_eq!(issued.view["generation"], 1);
    assert_eq!(
        issued.view["egress"]["allowedHosts"],
        json!(["api.example.com"])
    );
    for action in [
        Action::Pause,
        Action::Resume,
        Action::Reset,
        Action::Start,
        Action::Stop,
    ] {
        act(&f, "one", action).await.unwrap();
    }
    let expected = [
        "created", "started", "paused", "resumed", "reset", "started", "stopped",
    ];
    assert_eq!(
        f.events().await,
        expected.map(|name| format!("session.{name}"))
    );
    assert_eq!(f.registry.show(&f.key("one")).unwrap()["generation"], 2);
}

#[tokio::test]
async fn a_session_without_start_is_idle_and_has_no_credential() {
    let f = Fixture::new();
    let issued = create(&f, "{id: one, start: false}").await.unwrap();
    assert!(issued.created && issued.bundle.is_none());
    assert_eq!(
        (f.state("one").as_str(), f.registry.index().len()),
        ("idle", 0)
    );
    let started = act(&f, "one", Action::Start).await.unwrap();
    assert!(started.bundle.is_some());
}

#[tokio::test]
async fn the_same_request_again_is_the_same_session_with_a_fresh_credential() {
    let f = Fixture::new();
    let first = create(&f, "{id: one, ttl: 1h, allow: [a.example.com]}")
        .await
        .unwrap();
    // Other spelling, other order, same meaning.
    let second = create(
        &f,
        "{\"allow\": [\"A.example.com\"], \"ttl\": 3600, \"id\": \"one\"}",
    )
    .await
    .unwrap();
    assert!(!second.created);
    assert_eq!(first.view["generation"], second.view["generation"]);
    let proxy = |issued: &Issued| issued.bundle.as_ref().unwrap().env[0].1.clone();
    assert_ne!(proxy(&first), proxy(&second), "fresh, and both live");
    let other = create(&f, "{id: one, ttl: 2h, allow: [a.example.com]}")
        .await
        .unwrap_err();
    assert!(
        matches!(
            other,
            RegistryError::Taken {
                state: State::Running,
                ..
            }
        ),
        "{other:?}"
    );
    act(&f, "one", Action::Reset).await.unwrap();
    let replay = create(&f, "{id: one, ttl: 1h, allow: [a.example.com]}")
        .await
        .unwrap();
    assert!(
        replay.bundle.is_none(),
        "an old request does not undo a revocation"
    );
    assert_eq!(f.state("one"), "idle");
}

#[tokio::test]
async fn v107_reset_and_stop_end_the_living_generation_at_once() {
    let f = Fixture::new();
    for action in [Action::Reset, Action::Stop] {
        let id = action.as_str();
        create(&f, &format!("{{id: {id}}}")).await.unwrap();
        let session = living(&f, id);
        let mut watch = session.subscribe();
        watch.mark_unchanged();
        act(&f, id, action).await.unwrap();
        assert!(watch.has_changed().unwrap());
        assert_eq!(
            session.policy().unwrap_err(),
            Denial::CredentialInvalid,
            "a dead credential is answered like an unknown one"
        );
        assert!(matches!(
            session.authority(),
            Authority::Ended(Denial::SessionRevoked)
        ));
        assert!(f.registry.index().session(&f.key(id)).is_none());
    }
}

#[tokio::test]
async fn sessions_and_their_state_survive_the_process() {
    let f = Fixture::new();
    create(&f, "{id: run, allow: [a.example.com]}")
        .await
        .unwrap();
    create(&f, "{id: rest, onPause: hold}").await.unwrap();
    create(&f, "{id: gone}").await.unwrap();
    act(&f, "rest", Action::Pause).await.unwrap();
    act(&f, "gone", Action::Reset).await.unwrap();
    let before = f.registry.list(None, None);
    let f = f.restarted();
    for (mut before, mut after) in before.into_iter().zip(f.registry.list(None, None)) {
        for view in [&mut before, &mut after] {
            view.as_object_mut().unwrap().remove("usage");
        }
        assert_eq!(before, after);
    }
    assert!(living(&f, "run").policy().is_ok());
    assert_eq!(
        living(&f, "rest").policy().unwrap_err(),
        Denial::SessionPaused
    );
    assert!(matches!(
        living(&f, "rest").authority(),
        Authority::Paused { hold: true, .. }
    ));
    assert!(f.registry.index().session(&f.key("gone")).is_none());
}

#[tokio::test]
async fn a_patch_is_one_policy_generation_that_living_tunnels_see() {
    let f = Fixture::new();
    create(
        &f,
        "{id: one, allow: [a.example.com], limits: {tunnels: 5}}",
    )
    .await
    .unwrap();
    let session = living(&f, "one");
    let opened = session.policy().unwrap();
    let allowed = |policy: &PolicyGeneration, name: &str| {
        sluicegate_policy::decide(&policy.grant, &target(&format!("{name}:443"))).is_ok()
    };
    assert!(allowed(&opened, "a.example.com"));
    let view = f
        .registry
        .patch(
            f.key("one"),
            patch("{egress: {allowedHosts: [b.example.com]}}"),
        )
        .await
        .unwrap()
        .view;
    assert_eq!(view["policyGeneration"], 2);
    assert_eq!(
        view["limits"]["tunnels"], 5,
        "what a patch does not name stays"
    );
    let now = session.policy().unwrap();
    assert_eq!(now.number, 2);
    assert!(!allowed(&now, "a.example.com") && allowed(&now, "b.example.com"));
    assert!(
        allowed(&opened, "a.example.com"),
        "an open judged before keeps its own generation"
    );

    let empty = f
        .registry
        .patch(f.key("one"), patch("{egress: {allowedHosts: []}}"))
        .await
        .unwrap()
        .view;
    assert_eq!(
        empty["egress"]["allowedHosts"],
        json!([]),
        "empty is not absent"
    );
    let bad = f
        .registry
        .patch(
            f.key("one"),
            patch("{egress: {allowedAddresses: [10.0.0.0/8]}}"),
        )
        .await
        .unwrap_err();
    assert!(matches!(bad, RegistryError::Faults(_)));
    assert_eq!(
        session.policy().unwrap().number,
        3,
        "a patch that fails changes nothing"
    );
    act(&f, "one", Action::Stop).await.unwrap();
    let late = f
        .registry
        .patch(f.key("one"), patch("{egress: {}}"))
        .await
        .unwrap_err();
    assert!(matches!(late, RegistryError::Ended { .. }));
}

#[tokio::test]
async fn start_on_a_running_session_tells_what_went_stale() {
    let f = Fixture::new();
    create(&f, "{id: one, services: {cache: 'unix:///run/c'}}")
        .await
        .unwrap();
    assert_eq!(
        act(&f, "one", Action::Start).await.unwrap().stale,
        Vec::<String>::new()
    );
    f.registry
        .patch(
            f.key("one"),
            patch("{services: {db: 'tcp://127.0.0.1:5432'}}"),
        )
        .await
        .unwrap();
    let again = act(&f, "one", Action::Start).await.unwrap();
    assert_eq!(again.stale, ["service:cache", "service:db"]);
    assert_eq!(again.view["generation"], 1);
    let env = again.bundle.unwrap().env;
    assert!(env.iter().any(|(name, _)| name == "GESTALT_DB_TOKEN"));
}

#[tokio::test]
async fn what_the_ceiling_does_not_hold_is_refused_by_name() {
    let f = Fixture::new();
    let faults = |source: &'static str| {
        let registry = f.registry.clone();
        async move {
            match registry
                .create("local".into(), request(source))
                .await
                .unwrap_err()
            {
                RegistryError::Faults(faults) => faults.to_string(),
                other => panic!("{other:?}"),
            }
        }
    };
    let told =
        faults("{egress: {allowedAddresses: [10.1.0.0/16], hosts: {a.test: 169.254.169.254}}}")
            .await;
    assert!(
        told.contains("10.1.0.0/16") && told.contains("169.254.169.254"),
        "{told}"
    );
    for url in [
        "tcp://127.0.0.1:8443",
        "tcp://127.0.0.1:3128",
        "unix:///run/sluicegate/admin.sock",
    ] {
        let source: &'static str =
            Box::leak(format!("{{services: {{evil: '{url}'}}}}").into_boxed_str());
        let told = faults(source).await;
        assert!(
            told.contains("services.evil") && told.contains("gateway itself"),
            "{told}"
        );
    }
    assert!(
        f.registry.list(None, None).is_empty(),
        "nothing was created"
    );
}

#[tokio::test]
async fn the_catalogue_knows_where_services_are() {
    let mut config = config();
    let mut faults = Faults::default();
    let known = GrantDocument::read(
        &sluicegate_policy::text::parse("{services: {cache: 'unix:///run/known'}}", &mut faults),
        &mut faults,
    );
    config.catalogue = known.services;
    let f = Fixture::with(config);
    let view = create(&f, "{id: one, services: [cache]}")
        .await
        .unwrap()
        .view;
    assert_eq!(
        view["services"]["cache"]["url"]
            .as_str()
            .or(view["services"]["cache"].as_str()),
        Some("unix:///run/known")
    );
    assert!(matches!(
        create(&f, "{services: [other]}").await.unwrap_err(),
        RegistryError::Faults(_)
    ));
}

#[tokio::test]
async fn the_session_after_the_last_is_over_quota() {
    let f = Fixture::with(RegistryConfig {
        namespace_quota: crate::session::Quota {
            sessions: Some(2),
            ..Default::default()
        },
        ..config()
    });
    create(&f, "{id: one}").await.unwrap();
    create(&f, "{id: two}").await.unwrap();
    let third = create(&f, "{id: three}").await.unwrap_err();
    assert!(matches!(
        third,
        RegistryError::Quota {
            in_use: 2,
            limit: 2,
            ..
        }
    ));
    create(&f, "{id: three, namespace: other}").await.unwrap();
    act(&f, "one", Action::Stop).await.unwrap();
    create(&f, "{id: three}").await.unwrap();
}

/// Whoever is woken by a new policy finds in force what came with it.
#[tokio::test]
async fn a_reload_switches_what_else_it_brings_before_a_policy_is_shown() {
    let f = Fixture::new();
    create(&f, "{id: one, allow: [a.example.com]}")
        .await
        .unwrap();
    let session = living(&f, "one");
    let (seen, shown) = (Arc::new(AtomicU64::new(0)), session.clone());
    let noted = seen.clone();
    let switch = move || noted.store(shown.policy().unwrap().number, Ordering::SeqCst);
    let mut narrow = config();
    narrow.providers.get_mut("local").unwrap().ceiling = ceiling("{allowedHosts: [a.example.com]}");
    f.registry.replace_config_and(narrow, switch).await.unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    assert_eq!(session.policy().unwrap().number, 2);
}

#[tokio::test]
async fn a_reload_judges_living_sessions_and_pauses_what_it_no_longer_allows() {
    let f = Fixture::new();
    create(&f, "{id: keeps, allow: [a.example.com]}")
        .await
        .unwrap();
    create(&f, "{id: loses, allow: [b.example.com]}")
        .await
        .unwrap();
    let (keeps, loses) = (living(&f, "keeps"), living(&f, "loses"));
    assert_eq!(
        f.registry.replace_config(config()).await.unwrap().len(),
        1,
        "nothing changed"
    );
    assert_eq!(keeps.policy().unwrap().number, 1);

    let mut narrow = config();
    narrow.providers.get_mut("local").unwrap().ceiling = ceiling("{allowedHosts: [a.example.com]}");
    let notes = f.registry.replace_config(narrow.clone()).await.unwrap();
    assert!(
        notes
            .iter()
            .any(|note| note.contains("loses") && note.contains("b.example.com")),
        "{notes:?}"
    );
    assert_eq!(keeps.policy().unwrap().number, 2);
    assert_eq!(loses.policy().unwrap_err(), Denial::SessionPaused);
    assert!(
        f.registry.show(&f.key("loses")).unwrap()["reason"]
            .as_str()
            .unwrap()
            .contains("b.example.com")
    );
    assert!(matches!(
        act(&f, "loses", Action::Resume).await.unwrap_err(),
        RegistryError::Faults(_)
    ));

    // The same after a restart; and a patch within the ceiling mends it.
    let f = f.restarted_with(narrow);
    assert_eq!(f.state("loses"), "paused");
    f.registry
        .patch(
            f.key("loses"),
            patch("{egress: {allowedHosts: [a.example.com]}}"),
        )
        .await
        .unwrap();
    act(&f, "loses", Action::Resume).await.unwrap();
    assert!(living(&f, "loses").policy().is_ok());
}

#[tokio::test]
async fn a_revocation_that_cannot_be_stored_takes_effect_all_the_same() {
    let f = Fixture::new();
    let store = Minded::open(&f.dir.path().join("minded.redb"));
    let keys = f.registry.keys.clone();
    let now = SystemTime::now();
    let registry = Registry::open(store.clone(), keys, config(), now).unwrap();
    let created = registry.create("local".into(), request("{id: one}")).await;
    assert!(created.is_ok());
    let found = registry.index().session(&f.key("one")).unwrap();
    let session = found.session.clone();
    store.be(Manner::Refuse);
    let error = registry
        .act_at(
            &Behalf::nobody(),
            &f.key("one"),
            Action::Reset,
            None,
            SystemTime::now(),
        )
        .unwrap_err();
    assert!(matches!(error, RegistryError::Store(_)));
    assert_eq!(
        session.policy().unwrap_err(),
        Denial::CredentialInvalid,
        "a dead credential is answered like an unknown one"
    );
    assert!(matches!(
        session.authority(),
        Authority::Ended(Denial::SessionRevoked)
    ));
    assert!(registry.index().session(&f.key("one")).is_none());
    let again = registry
        .act_at(
            &Behalf::nobody(),
            &f.key("one"),
            Action::Reset,
            None,
            SystemTime::now(),
        )
        .unwrap_err();
    assert!(
        matches!(again, RegistryError::Store(_)),
        "it can be asked again"
    );
}

#[tokio::test]
async fn handles_of_one_generation_are_bounded() {
    let f = Fixture::new();
    create(&f, "{id: one}").await.unwrap();
    for _ in 0..40 {
        act(&f, "one", Action::Start).await.unwrap();
    }
    assert_eq!(
        f.registry
            .entry(&f.key("one"))
            .unwrap()
            .record
            .handles
            .len(),
        32
    );
}

/// The secret of a bundle's proxy URL.
fn handle_of(issued: &Issued) -> crate::auth::HandleHash {
    let url = &issued.bundle.as_ref().unwrap().env[0].1;
    let (_, rest) = url.split_once("sluicegate:").unwrap();
    let (secret, _) = rest.split_once('@').unwrap();
    crate::auth::HandleHash::of(secret).unwrap()
}

#[tokio::test]
async fn replays_never_take_away_a_handle_in_use() {
    use crate::session::{Bearer, Credential};

    let f = Fixture::new();
    let index = f.registry.index();
    let by = |hash| Bearer::new(index.clone(), Credential::Handle(hash));
    let first = handle_of(&create(&f, "{id: one}").await.unwrap());
    let open = by(first);
    let mut last = first;
    for _ in 0..80 {
        last = handle_of(&create(&f, "{id: one}").await.unwrap());
    }
    assert!(index.handle(&first).is_some(), "something is open by it");
    assert!(index.handle(&last).is_some(), "an answer is good");

    // Every one of them is in use: none makes room, and none more is given.
    let all = f
        .registry
        .entry(&f.key("one"))
        .unwrap()
        .record
        .handles
        .clone();
    let all: Vec<_> = all
        .iter()
        .map(|text| crate::auth::HandleHash::from_hex(text).unwrap())
        .collect();
    let rest: Vec<_> = all.iter().map(|hash| by(*hash)).collect();
    let refused = create(&f, "{id: one}").await.unwrap_err();
    assert!(matches!(refused, RegistryError::HandlesInUse { limit: 32 }));
    assert!(all.iter().all(|hash| index.handle(hash).is_some()));

    // Long after the others are gone, the one that is still open stays.
    drop(rest);
    let later = SystemTime::now() + Duration::from_secs(600);
    let spare = index.spare(&all, later).unwrap();
    assert_ne!(spare, first);
    assert_eq!(index.spare(&[first], later), None);
    drop(open);
    assert_eq!(index.spare(&[first], SystemTime::now()), None, "just now");
    assert_eq!(index.spare(&[first], later), Some(first));
}

#[tokio::test]
async fn many_at_once_lose_nothing() {
    let f = Fixture::new();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..40 {
        let registry = f.registry.clone();
        // Each id is asked for twice: one of the two creates it.
        tasks.spawn(async move {
            registry
                .create("local".into(), request(&format!("{{id: s{}}}", n / 2)))
                .await
        });
    }
    let mut created = 0;
    while let Some(result) = tasks.join_next().await {
        created += usize::from(result.unwrap().unwrap().created);
    }
    assert_eq!(created, 20);
    let f = f.restarted();
    assert_eq!(f.registry.list(None, None).len(), 20);
    assert_eq!(f.registry.index().len(), 20);
}

#[tokio::test]
async fn no_credential_is_stored_or_shown() {
    let f = Fixture::new();
    let issued = create(&f, "{id: one, services: {cache: 'unix:///run/c'}}")
        .await
        .unwrap();
    let bundle = issued.bundle.unwrap();
    let handle = bundle.env[0]
        .1
        .split_once("sluicegate:")
        .unwrap()
        .1
        .split_once('@')
        .unwrap()
        .0
        .to_owned();
    let token = &bundle
        .env
        .iter()
        .find(|(name, _)| name == "SLUICEGATE_RELAY_TOKEN")
        .unwrap()
        .1;
    let file = std::fs::read(f.store_path()).unwrap();
    for secret in [&handle, token] {
        assert!(!issued.view.to_string().contains(secret.as_str()));
        assert!(
            !file
                .windows(secret.len())
                .any(|window| window == secret.as_bytes())
        );
        assert!(!format!("{bundle:?}").contains(secret.as_str()));
    }
}

#[tokio::test]
async fn times_are_bounded_by_the_provider() {
    let f = Fixture::new();
    let longer = create(&f, "{maxLifetime: 30d}").await.unwrap_err();
    assert!(matches!(longer, RegistryError::Faults(_)), "{longer:?}");
    let view = create(&f, "{ttl: 1d, idleTimeout: 0}").await.unwrap().view;
    assert_eq!(view["maxLifetimeSeconds"], 86_400.0);
    assert_eq!(view["idleTimeoutSeconds"], serde_json::Value::Null);
    assert_eq!(
        view["expiresAt"], view["endsAt"],
        "a window within the life"
    );
    let shorter = create(&f, "{maxLifetime: 1h}").await.unwrap().view;
    assert_eq!(
        shorter["maxLifetimeSeconds"],
        Duration::from_secs(3600).as_secs_f64()
    );
}

/// A session may come to be, or become somebody else's, while a request is read.
#[tokio::test]
async fn whose_a_session_is_is_asked_where_it_is_changed() {
    let f = Fixture::new();
    create(&f, "{id: one, owner: bob}").await.unwrap();
    let key = f.key("one");
    let of = |owner: &str| Behalf {
        owner: Some(owner.into()),
        bounded: true,
        ..Behalf::default()
    };
    let (ann, all, now) = (of("ann"), &f.registry, SystemTime::now());
    let nothing = patch("{egress: {allowedHosts: []}}");
    let same = request("{id: one, owner: bob}");
    let read = all.log(&ann, key.clone(), 0, 10, Duration::ZERO);
    for (what, refused) in [
        ("read", read.await.map(drop)),
        (
            "act",
            all.act_at(&ann, &key, Action::Start, None, now).map(drop),
        ),
        ("patch", all.patch_at(&ann, &key, nothing, now).map(drop)),
        (
            "bind",
            all.bind_at(&ann, &key, "c", Bind::Uninstall, now).map(drop),
        ),
        (
            "log",
            all.append_log_at(&ann, &key, Vec::new(), now).map(drop),
        ),
        ("create", all.create_at(&ann, "local", same, now).map(drop)),
        ("show", all.show_to(&ann, &key).map(drop)),
    ] {
        let refused = refused.unwrap_err();
        assert!(matches!(refused, RegistryError::NotOwner(_)), "{what}");
    }
    all.act_at(&of("bob"), &key, Action::Start, None, now)
        .unwrap();
}

#[tokio::test]
async fn who_named_a_socket_is_known_after_a_restart() {
    let socket = "{id: one, services: {db: 'unix:///run/app/db.sock'}}";
    let listed = || {
        let mut listed = config();
        listed.providers.get_mut("local").unwrap().ceiling = ceiling("{sockets: [/run/app/]}");
        listed
    };
    for (bounded, after) in [(true, "paused"), (false, "running")] {
        let f = Fixture::with(listed());
        let by = Behalf {
            owner: None,
            bounded,
            ..Behalf::default()
        };
        let now = SystemTime::now();
        let made = f.registry.create_at(&by, "local", request(socket), now);
        made.unwrap();
        let f = f.restarted_with(listed());
        assert_eq!(f.state("one"), "running");
        // A list that is gone leaves a bounded author none, and the operator any.
        let f = f.restarted();
        assert_eq!(f.state("one"), after, "{bounded}");
    }
}

/// What a reload forbids, what it changes and the configuration itself are one commit; a pause that holds holds nothing that is
/// forbidden.
#[tokio::test]
async fn a_reload_that_cannot_be_stored_changes_nothing() {
    let f = Fixture::new();
    create(&f, "{id: keeps, allow: [a.example.com]}")
        .await
        .unwrap();
    create(
        &f,
        "{id: loses, allow: [a.example.com, b.example.com], onPause: hold}",
    )
    .await
    .unwrap();
    let (keeps, loses) = (living(&f, "keeps"), living(&f, "loses"));
    let mut narrow = config();
    narrow.providers.get_mut("local").unwrap().ceiling = ceiling("{allowedHosts: [a.example.com]}");
    let (store, aside) = (f.store_path(), f.dir.path().join("aside"));
    std::fs::rename(&store, &aside).unwrap();
    f.registry.replace_config(narrow.clone()).await.unwrap_err();
    assert_eq!(keeps.policy().unwrap().number, 1);
    assert!(loses.policy().is_ok());
    assert_eq!(f.state("loses"), "running");
    std::fs::rename(&aside, &store).unwrap();
    f.sweep(SystemTime::now());
    f.registry.replace_config(narrow).await.unwrap();
    assert_eq!(keeps.policy().unwrap().number, 2);
    assert_eq!(f.state("loses"), "paused");
    let Authority::Paused { hold: true, policy } = loses.authority() else {
        panic!("{:?}", loses.authority())
    };
    assert!(decide(&policy.grant, &target("a.example.com:443")).is_err());
}

/// What nobody knows is nobody's privilege.
#[tokio::test]
async fn a_session_of_an_author_nobody_knows_names_no_socket() {
    let f = Fixture::new();
    let services = "services: {db: 'unix:///run/db.sock'}";
    create(&f, &format!("{{id: one, {services}}}"))
        .await
        .unwrap();
    create(&f, "{id: two, allow: [a.example.com]}")
        .await
        .unwrap();
    // As an older version wrote them.
    let store = f.registry.store();
    let older = |(key, row): (String, Vec<u8>)| {
        let mut row: serde_json::Value = serde_json::from_slice(&row).unwrap();
        row.as_object_mut()
            .unwrap()
            .remove("bounded_author")
            .unwrap();
        (key, serde_json::to_vec(&row).unwrap())
    };
    let rows = store.load().unwrap().sessions.into_iter().map(older);
    let batch = Batch {
        put: rows.collect(),
        ..Batch::default()
    };
    store.commit(&batch).unwrap();
    let f = f.restarted();
    assert_eq!(
        (f.state("one"), f.state("two")),
        ("paused".into(), "running".into())
    );
    // The operator says that they are theirs.
    let patched = f
        .registry
        .patch(f.key("one"), patch(&format!("{{{services}}}")));
    patched.await.unwrap();
    act(&f, "one", Action::Resume).await.unwrap();
    let f = f.restarted();
    assert_eq!(f.state("one"), "running");
}
