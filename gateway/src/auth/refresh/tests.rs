#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use super::*;
use crate::{
    auth::{Claims, verify},
    session::{
        lifecycle::Action,
        testing::{Fixture, config, request},
    },
};

struct World {
    fixture: Fixture,
    authenticator: Authenticator,
}

const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

impl World {
    /// A session and the variables of its bundle.
    async fn start(source: &str) -> (Self, Vec<(String, String)>) {
        let fixture = Fixture::new();
        let issued = fixture.registry.create("local".into(), request(source));
        let env = issued.await.unwrap().bundle.unwrap().env;
        let authenticator = fixture.registry.authenticator();
        let world = Self {
            fixture,
            authenticator,
        };
        (world, env)
    }

    fn refresh(&self, token: &str) -> Result<Refreshed, Denial> {
        let now = SystemTime::now();
        let refreshed = self.authenticator.refresh(&Secret::new(token), SOURCE, now);
        refreshed.map_err(|refusal| refusal.denial)
    }

    fn claims(&self, token: &str) -> Claims {
        let keys = self.fixture.registry.keys();
        verify(keys, token, Audience::Relay, SystemTime::now()).unwrap()
    }

    async fn act(&self, action: Action) {
        let key = self.fixture.key("one");
        self.fixture.registry.act(key, action, None).await.unwrap();
    }
}

fn variable(env: &[(String, String)], name: &str) -> String {
    let found = env.iter().find(|(key, _)| key == name);
    found.unwrap().1.clone()
}

const ONE: &str = "{id: one, services: {cache: 'unix:///run/c'}}";

#[tokio::test]
async fn a_fresh_token_says_the_same_with_another_id_and_end() {
    let (world, env) = World::start(ONE).await;
    for name in ["SLUICEGATE_RELAY_TOKEN", "GESTALT_CACHE_TOKEN"] {
        let old = variable(&env, name);
        let fresh = world.refresh(&old).unwrap();
        let (before, after) = (world.claims(&old), world.claims(fresh.token.reveal()));
        assert_ne!(before.jti, after.jti);
        assert_eq!(
            (before.sub, before.r#gen, before.svc, before.aud),
            (after.sub, after.r#gen, after.svc, after.aud),
            "{name}: no wider and no narrower"
        );
        assert!(after.exp <= after.iat + LIFE.as_secs());
        // It can be exchanged in turn, and by whoever has a rotated key.
        world.fixture.registry.keys().rotate().unwrap();
        world.refresh(fresh.token.reveal()).unwrap();
    }
}

#[tokio::test]
async fn it_never_outlives_its_generation() {
    let (world, env) = World::start("{id: one, maxLifetime: 60s}").await;
    let old = variable(&env, "SLUICEGATE_RELAY_TOKEN");
    let fresh = world.refresh(&old).unwrap();
    let view = world
        .fixture
        .registry
        .show(&world.fixture.key("one"))
        .unwrap();
    assert_eq!(
        view["endsAt"],
        crate::clock::rfc3339(fresh.expires),
        "the generation's own end"
    );
}

#[tokio::test]
async fn what_is_dead_paused_or_no_token_is_not_exchanged() {
    let (world, env) = World::start(ONE).await;
    let token = variable(&env, "SLUICEGATE_RELAY_TOKEN");
    let url = variable(&env, "HTTP_PROXY");
    let handle = url.split(['@', ':']).nth(2).unwrap();
    let refused = |token: &str| world.refresh(token).map(|_| ()).unwrap_err();
    assert!(handle.starts_with("sgh_"), "{handle}");
    assert_eq!(refused(handle), Denial::CredentialInvalid);
    for text in ["", "x", "a.b.c", &token[..token.len() - 1]] {
        assert_eq!(refused(text), Denial::CredentialInvalid, "{text}");
    }
    world.act(Action::Pause).await;
    assert_eq!(refused(&token), Denial::SessionPaused);
    world.act(Action::Resume).await;
    let fresh = world.refresh(&token).unwrap();

    // One token revoked by its id, and with it what came of it; the others of the same generation live.
    let registry = &world.fixture.registry;
    let id = world.claims(&token).jti;
    assert!(registry.revoke_credential(id).await.unwrap());
    assert_eq!(refused(&token), Denial::CredentialInvalid);
    assert_eq!(refused(fresh.token.reveal()), Denial::CredentialInvalid);
    let other = variable(&env, "GESTALT_CACHE_TOKEN");
    world.refresh(&other).unwrap();
    world.act(Action::Reset).await;
    world.act(Action::Start).await;
    assert_eq!(
        refused(&other),
        Denial::CredentialInvalid,
        "another generation"
    );
}

/// The gateway was away when it was to be refreshed.
#[tokio::test]
async fn one_that_ended_a_while_ago_is_exchanged_and_opens_nothing() {
    let mut config = config();
    let provider = config.providers.get_mut("local").unwrap();
    provider.times.token_ttl = Some(Duration::from_secs(60));
    let fixture = Fixture::with(config);
    let source = "{id: one, idleTimeout: 0, services: {cache: 'unix:///run/c'}}";
    let issued = fixture.registry.create("local".into(), request(source));
    let env = issued.await.unwrap().bundle.unwrap().env;
    let authenticator = fixture.registry.authenticator();
    let world = World {
        fixture,
        authenticator,
    };
    let old = variable(&env, "SLUICEGATE_RELAY_TOKEN");
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(world.claims(&old).exp);
    let refresh = |token: &str, at| {
        let refreshed = world.authenticator.refresh(&Secret::new(token), SOURCE, at);
        let told = refreshed.map(|refreshed| refreshed.token.reveal().to_owned());
        told.map_err(|refusal| refusal.denial)
    };
    let opens = |token: &str, at| {
        let token = Secret::new(token);
        let identified = world
            .authenticator
            .identify(&token, Audience::Relay, SOURCE, at);
        identified.is_ok()
    };
    let later = end + LATE - Duration::from_secs(60);
    assert!(!opens(&old, later));
    let fresh = refresh(&old, later).unwrap();
    assert!(opens(&fresh, later));
    assert_eq!(
        refresh(&old, end + LATE + Duration::from_secs(60)),
        Err(Denial::CredentialInvalid)
    );
    // What is revoked stays so, for as long as anything would come of it.
    let registry = &world.fixture.registry;
    assert!(registry.revoke_credential(old.clone()).await.unwrap());
    world.fixture.sweep(later);
    for token in [&old, &fresh] {
        assert_eq!(refresh(token, later), Err(Denial::CredentialInvalid));
    }
}

#[tokio::test]
async fn the_rate_of_opens_bounds_it() {
    let (world, env) = World::start("{id: one, limits: {opensPerSecond: 1}}").await;
    let token = variable(&env, "SLUICEGATE_RELAY_TOKEN");
    let now = SystemTime::now();
    let ask = || {
        world
            .authenticator
            .refresh(&Secret::new(token.clone()), SOURCE, now)
    };
    ask().unwrap();
    let refusal = ask().map(|_| ()).unwrap_err();
    assert_eq!(refusal.denial, Denial::TooManyOpens);
    let hint = refusal.hint.map(|hint| hint.to_string());
    assert_eq!(hint.as_deref(), Some("1 of 1 opens of this second"));
}

/// What is full goes on, and so does its token.
#[tokio::test]
async fn a_session_and_an_owner_that_are_full_have_their_tokens_refreshed() {
    let mut config = config();
    config.owner_quota.limits.tunnels = Some(2);
    let fixture = Fixture::with(config);
    let authenticator = fixture.registry.authenticator();
    let now = SystemTime::now();
    let mut tokens = Vec::new();
    let mut open = Vec::new();
    for (id, limits) in [("full", ", limits: {tunnels: 1}"), ("other", "")] {
        let asked = format!("{{id: {id}, owner: ann{limits}}}");
        let issued = fixture.registry.create("local".into(), request(&asked));
        let env = issued.await.unwrap().bundle.unwrap().env;
        tokens.push(variable(&env, "SLUICEGATE_RELAY_TOKEN"));
        let live = fixture.registry.index().session(&fixture.key(id));
        let budget = live.unwrap().session.budget().clone();
        open.push(budget.open(now).unwrap());
        assert_eq!(
            budget.open(now).unwrap_err(),
            Denial::TooManyTunnels,
            "{id}"
        );
    }
    for token in tokens {
        let refreshed = authenticator.refresh(&Secret::new(token), SOURCE, now);
        assert!(refreshed.is_ok(), "{refreshed:?}");
    }
    drop(open);
}

/// Whoever stole one of them has them all; so has whoever revokes one.
#[tokio::test]
async fn revoking_a_token_revokes_what_came_of_it() {
    for revoked in 0..3 {
        let (world, env) = World::start(ONE).await;
        let mut all = vec![variable(&env, "SLUICEGATE_RELAY_TOKEN")];
        for _ in 0..2 {
            let fresh = world.refresh(all.last().unwrap()).unwrap();
            all.push(fresh.token.reveal().to_owned());
        }
        let other = variable(&env, "GESTALT_CACHE_TOKEN");
        let credential = all[revoked].clone();
        let registry = &world.fixture.registry;
        assert!(registry.revoke_credential(credential).await.unwrap());
        for token in &all {
            assert_eq!(
                world.refresh(token).unwrap_err(),
                Denial::CredentialInvalid,
                "the {revoked}th was revoked"
            );
        }
        world.refresh(&other).unwrap();
    }
}
