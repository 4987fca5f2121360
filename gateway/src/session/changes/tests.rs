#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
//! What becomes of credentials that were issued: pauses, revocations, restarts, keys that go and come back.

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use sluicegate_policy::Denial;

use crate::auth::{Audience, Identity, write_file};
use crate::secret::Secret;
use crate::session::lifecycle::Action;
use crate::session::testing::{Fixture, config, request};
use crate::session::{Authority, Behalf, Changes, Right};

const SECOND: Duration = Duration::from_secs(1);

fn variable(env: &[(String, String)], name: &str) -> String {
    let found = env.iter().find(|(key, _)| *key == name);
    found.unwrap().1.clone()
}

/// The handle in the proxy's address.
fn handle(env: &[(String, String)]) -> String {
    let url = variable(env, "HTTP_PROXY");
    url.split(['@', ':']).nth(2).unwrap().to_owned()
}

fn identify(
    f: &Fixture,
    credential: &str,
    audience: Audience,
    at: SystemTime,
) -> Result<Identity, Denial> {
    let authenticator = f.registry.authenticator();
    let source = Ipv4Addr::LOCALHOST.into();
    authenticator.identify(&Secret::new(credential), audience, source, at)
}

/// Something that is open.
fn watch(identity: &Identity) -> Changes {
    let opened = identity.judge(|_| Ok::<_, Denial>(()));
    opened.unwrap().changes
}

/// Whatever is signed and has an end: a pause moves it, and only it.
#[tokio::test]
async fn the_same_credentials_work_again_after_a_pause() {
    let f = Fixture::new();
    let asked = request("{id: one, maxLifetime: 100s, idleTimeout: 0}");
    let now = SystemTime::now();
    let issued = f
        .registry
        .create_at(&Behalf::nobody(), "local", asked, now)
        .unwrap();
    let env = issued.bundle.unwrap().env;
    let tokens =
        ["SLUICEGATE_RELAY_TOKEN", "SLUICEGATE_PROXY_TOKEN"].map(|name| variable(&env, name));
    let good = |f: &Fixture, at: SystemTime| {
        let audiences = [Audience::Relay, Audience::Egress];
        let all = tokens.iter().zip(audiences).map(|(token, audience)| {
            identify(f, token, audience, at).and_then(|identity| identity.stands().map(drop))
        });
        all.collect::<Result<Vec<()>, Denial>>().map(drop)
    };
    let act = |f: &Fixture, action, at| {
        f.registry
            .act_at(&Behalf::nobody(), &f.key("one"), action, None, at)
            .unwrap()
    };
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
    let fresh = variable(&fresh, "SLUICEGATE_PROXY_TOKEN");
    let late = identify(&f, &fresh, Audience::Egress, weekend + 60 * SECOND);
    assert_eq!(late.unwrap_err(), Denial::CredentialInvalid);
}

/// The same for single credentials: what cannot be recorded holds, and is recorded as soon as it can be.
#[tokio::test]
async fn a_revocation_without_a_store_holds_and_is_saved_with_one() {
    let f = Fixture::new();
    let issued = f
        .registry
        .create("local".into(), request("{id: one, idleTimeout: 0}"));
    let env = issued.await.unwrap().bundle.unwrap().env;
    let (token, handle) = (variable(&env, "SLUICEGATE_PROXY_TOKEN"), handle(&env));
    let good = |f: &Fixture, credential: &str| {
        identify(f, credential, Audience::Egress, SystemTime::now())
    };
    let mut open = [&token, &handle].map(|one| watch(&good(&f, one).unwrap()));
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

/// Whether a credential stands is what an open by it would be told.
#[tokio::test]
async fn who_only_asks_is_told_what_an_open_is() {
    let f = Fixture::new();
    let issued = f
        .registry
        .create("local".into(), request("{id: one, idleTimeout: 0}"));
    let env = issued.await.unwrap().bundle.unwrap().env;
    let (token, handle) = (variable(&env, "SLUICEGATE_PROXY_TOKEN"), handle(&env));
    let by_token = identify(&f, &token, Audience::Egress, SystemTime::now()).unwrap();
    let by_handle = identify(&f, &handle, Audience::Egress, SystemTime::now()).unwrap();
    let told = |identity: &Identity| {
        let opened = identity.judge(|policy| Ok::<_, Denial>(policy.number));
        assert_eq!(identity.stands(), opened.map(|judged| judged.permit));
        identity.stands().map(drop)
    };
    let both = || [told(&by_token), told(&by_handle)];
    assert_eq!(both(), [Ok(()), Ok(())]);
    assert!(f.registry.revoke_credential(token).await.unwrap());
    assert_eq!(both(), [Err(Denial::CredentialInvalid), Ok(())]);
    let paused = f.registry.act(f.key("one"), Action::Pause, None);
    paused.await.unwrap();
    let (withdrawn, paused) = (Denial::CredentialInvalid, Denial::SessionPaused);
    assert_eq!(both(), [Err(withdrawn), Err(paused)]);
    let over = f.registry.act(f.key("one"), Action::Reset, None);
    over.await.unwrap();
    assert_eq!(both(), [Err(withdrawn), Err(withdrawn)]);
}

/// A connection's place is free once none of the credentials is good by which its streams came.
#[tokio::test]
async fn a_place_ends_with_the_last_credential_that_held_it() {
    let f = Fixture::new();
    let created = f.registry.create("local".into(), request("{id: one}"));
    let created = created.await.unwrap().bundle.unwrap().env;
    let started = f.registry.act(f.key("one"), Action::Start, None);
    let started = started.await.unwrap().bundle.unwrap().env;
    let tokens = [created, started].map(|env| variable(&env, "SLUICEGATE_RELAY_TOKEN"));
    let [one, two] = [&tokens[0], &tokens[1]]
        .map(|token| identify(&f, token, Audience::Relay, SystemTime::now()).unwrap());
    let budget = one.session.budget();
    let carrier = budget.carry(1, one.right()).unwrap();
    assert!(carrier.goes_on(&two.right()));
    let other = Right::of(&one.session, None);
    let [first, second] = tokens;
    assert!(f.registry.revoke_credential(first).await.unwrap());
    let refused = budget.carry(1, other.clone());
    assert!(refused.is_err(), "the other one is good");
    assert!(carrier.goes_on(&two.right()));
    assert!(f.registry.revoke_credential(second).await.unwrap());
    let next = budget.carry(1, other.clone()).unwrap();
    assert!(!carrier.goes_on(&other), "it is the next one's");
    assert!(next.goes_on(&other));
}

/// Credentials of a session that the configuration keeps paused are those of a paused one, over a restart too: they are
/// somebody's to revoke, and its bytes are counted once.
#[tokio::test]
async fn a_session_that_cannot_go_on_keeps_its_credentials_and_its_count() {
    let f = Fixture::new();
    let asked = "{id: one, owner: zoe, services: {db: 'tcp://127.0.0.1:5432'}, idleTimeout: 0}";
    let issued = f.registry.create("local".into(), request(asked));
    let env = issued.await.unwrap().bundle.unwrap().env;
    let (token, handle) = (variable(&env, "SLUICEGATE_PROXY_TOKEN"), handle(&env));
    let live = f.registry.index().session(&f.key("one")).unwrap();
    live.session.budget().spend(1000).unwrap();
    f.registry.save_usage();
    drop(live);
    let mut narrower = config();
    narrower.providers.get_mut("local").unwrap().ceiling = Default::default();
    f.registry.replace_config(narrower.clone()).await.unwrap();
    assert_eq!(f.state("one"), "paused");
    let f = f.restarted_with(narrower);
    for credential in [&token, &handle] {
        let found = identify(&f, credential, Audience::Egress, SystemTime::now()).unwrap();
        assert_eq!(found.stands().unwrap_err(), Denial::SessionPaused);
    }
    assert!(f.registry.revoke_credential(handle).await.unwrap());
    f.registry.replace_config(config()).await.unwrap();
    f.registry
        .act(f.key("one"), Action::Resume, None)
        .await
        .unwrap();
    let found = identify(&f, &token, Audience::Egress, SystemTime::now()).unwrap();
    assert!(found.stands().is_ok(), "the same credential goes on");
    let owner = f.registry.budget_of("default", Some("zoe"));
    assert_eq!(owner.bytes(), 1000);
}

/// What is issued while a pause lasts lives as long as it says, and the rest of the pause more.
#[tokio::test]
async fn a_token_issued_in_a_pause_is_given_only_what_comes_of_it() {
    let f = Fixture::new();
    let now = SystemTime::now();
    let asked = request("{id: one, maxLifetime: 100s, idleTimeout: 0}");
    f.registry
        .create_at(&Behalf::nobody(), "local", asked, now)
        .unwrap();
    let act = |action, at| {
        f.registry
            .act_at(&Behalf::nobody(), &f.key("one"), action, None, at)
            .unwrap()
    };
    act(Action::Pause, now + 10 * SECOND);
    let issued = act(Action::Start, now + 1000 * SECOND);
    act(Action::Resume, now + 2000 * SECOND);
    let env = issued.bundle.unwrap().env;
    let token = variable(&env, "SLUICEGATE_PROXY_TOKEN");
    let good = |at| identify(&f, &token, Audience::Egress, at).is_ok();
    // Ninety seconds of the generation are left after the pause.
    assert!(good(now + 2089 * SECOND));
    assert!(!good(now + 2096 * SECOND));
}

/// A handle that is in use makes room for none; a retired key cuts what came by its tokens, and nothing else.
#[tokio::test]
async fn handles_in_use_stay_and_retired_keys_cut_their_own() {
    let f = Fixture::new();
    let issued = f
        .registry
        .create("local".into(), request("{id: one, idleTimeout: 0}"));
    let env = issued.await.unwrap().bundle.unwrap().env;
    let (token, handle) = (variable(&env, "SLUICEGATE_PROXY_TOKEN"), handle(&env));
    let found = |credential: &str| identify(&f, credential, Audience::Egress, SystemTime::now());
    let mut by_handle = watch(&found(&handle).unwrap());
    let mut by_token = watch(&found(&token).unwrap());
    for _ in 0..33 {
        f.registry
            .act(f.key("one"), Action::Start, None)
            .await
            .unwrap();
    }
    assert!(found(&handle).is_ok());
    let old = f.registry.keys().list()[0].kid.clone();
    f.registry.keys().rotate().unwrap();
    let file = f.dir.path().join("keys").join(format!("{old}.pem"));
    let kept = std::fs::read(&file).unwrap();
    f.registry.retire_key(&old).unwrap();
    assert!(matches!(by_handle.now(), Authority::Live(_)));
    by_token.changed().await.unwrap();
    assert!(matches!(
        by_token.now(),
        Authority::Ended(Denial::SessionRevoked)
    ));
    // A file that is put back is as good as before: whoever took it away may have been wrong.
    write_file(&file, &kept, 0o600).unwrap();
    let before = f.registry.keys().list();
    f.registry.keys().reload().unwrap();
    f.registry.keys_changed(before);
    assert!(found(&token).is_ok());
}

/// Its name and the number of its generation are those of an earlier session, whose tokens have not expired.
#[tokio::test]
async fn what_an_earlier_session_was_given_is_nothing_to_a_later_one_of_its_name() {
    let f = Fixture::new();
    let now = SystemTime::now();
    let create = |at| {
        let asked = request("{id: one, idleTimeout: 0}");
        let issued = f
            .registry
            .create_at(&Behalf::nobody(), "local", asked, at)
            .unwrap();
        variable(&issued.bundle.unwrap().env, "SLUICEGATE_PROXY_TOKEN")
    };
    let old = create(now);
    f.registry
        .act_at(&Behalf::nobody(), &f.key("one"), Action::Stop, None, now)
        .unwrap();
    // Removed after a day; the token, good for as long, has its leeway.
    let back = now + Duration::from_secs(86_400 + 2);
    f.sweep(back);
    let new = create(back);
    let view = f.registry.show(&f.key("one")).unwrap();
    assert_eq!(view["generation"], 1);
    let good = |token: &str| identify(&f, token, Audience::Egress, back);
    assert!(good(&new).is_ok());
    assert_eq!(good(&old).unwrap_err(), Denial::CredentialInvalid);
}

/// Whose a token is does not hang on a clock: one that was ahead, and is put right, spoils none.
#[tokio::test]
async fn a_clock_that_steps_back_spoils_no_token() {
    let f = Fixture::new();
    let now = SystemTime::now();
    let ahead = now + Duration::from_secs(60);
    let asked = request("{id: one, idleTimeout: 0}");
    f.registry
        .create_at(&Behalf::nobody(), "local", asked, ahead)
        .unwrap();
    let again = f
        .registry
        .act_at(&Behalf::nobody(), &f.key("one"), Action::Start, None, now);
    let token = variable(
        &again.unwrap().bundle.unwrap().env,
        "SLUICEGATE_PROXY_TOKEN",
    );
    assert!(identify(&f, &token, Audience::Egress, now).is_ok());
}

#[tokio::test]
async fn what_is_open_is_counted_of_each_session_that_has_such() {
    let f = Fixture::new();
    for id in ["one", "two"] {
        let asked = request(&format!("{{id: {id}, idleTimeout: 0}}"));
        f.registry.create("local".into(), asked).await.unwrap();
    }
    let index = f.registry.index();
    assert!(index.open_now().is_empty());
    let live = index.session(&f.key("one")).unwrap();
    let open = || live.session.budget().open(SystemTime::now()).unwrap();
    let places = (open(), open());
    assert_eq!(index.open_now(), [2]);
    drop(places);
    assert!(index.open_now().is_empty());
}

/// What is open by a credential that allows less than its session looks again too, though it watches another policy.
#[tokio::test]
async fn whatever_is_open_looks_again_as_its_credential_sees_it() {
    let f = Fixture::new();
    let asked = request("{id: one, idleTimeout: 0}");
    f.registry.create("local".into(), asked).await.unwrap();
    let live = f.registry.index().session(&f.key("one")).unwrap();
    let grant = live.session.policy().unwrap().grant.clone();
    let narrowed = live.session.narrowed(1, grant);
    for session in [&live.session, &narrowed] {
        let opened = session.judge(None, |_| Ok::<_, Denial>(())).unwrap();
        let mut changes = opened.changes;
        f.registry.index().everything_looks_again();
        let woken = tokio::time::timeout(60 * SECOND, changes.changed());
        woken.await.expect("it looks again").unwrap();
        assert!(matches!(changes.now(), Authority::Live(_)));
    }
}
