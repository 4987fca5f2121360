#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use std::net::{IpAddr, Ipv4Addr};

use sluicegate_policy::Denial;

use super::*;
use crate::{
    auth::{Audience, Identity},
    secret::Secret,
    session::{
        Authority, Behalf,
        lifecycle::Action,
        testing::{Fixture, config, request},
    },
};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn token(f: &Fixture, asked: &str, name: &str, now: SystemTime) -> Secret {
    let issued = f
        .registry
        .create_at(&Behalf::nobody(), "local", request(asked), now)
        .unwrap();
    let env = issued.bundle.unwrap().env;
    let found = env.iter().find(|(key, _)| key == name).unwrap();
    Secret::new(found.1.clone())
}

fn identify(f: &Fixture, token: &Secret, now: SystemTime) -> Result<Identity, Denial> {
    let authenticator = f.registry.authenticator();
    authenticator.identify(token, Audience::Relay, HERE, now)
}

fn refreshed(f: &Fixture, token: &Secret, now: SystemTime) -> Secret {
    let authenticator = f.registry.authenticator();
    authenticator.refresh(token, HERE, now).unwrap().token
}

fn id(f: &Fixture, token: &Secret) -> String {
    match token_named(f.registry.keys(), token.reveal()).unwrap() {
        Named::Own(claims) => claims.jti,
        other => panic!("{other:?}"),
    }
}

/// First, middle and last of a line, as tokens and as bare ids: whichever is named, all of them go, and stay gone.
#[tokio::test]
async fn whichever_of_a_line_is_named_the_whole_line_goes() {
    for by_id in [false, true] {
        for named in 0..3 {
            let f = Fixture::new();
            let now = SystemTime::now();
            let first = token(
                &f,
                "{id: one, idleTimeout: 0}",
                "SLUICEGATE_RELAY_TOKEN",
                now,
            );
            let second = refreshed(&f, &first, now);
            let third = refreshed(&f, &second, now);
            let other = token(&f, "{id: two}", "SLUICEGATE_RELAY_TOKEN", now);
            let line = [first, second, third];
            let mut open: Vec<_> = line
                .iter()
                .map(|one| {
                    let identity = identify(&f, one, now).unwrap();
                    let opened = identity.judge(|_| Ok::<_, Denial>(()));
                    opened.unwrap().changes
                })
                .collect();
            let credential = match by_id {
                true => id(&f, &line[named]),
                false => line[named].reveal().to_owned(),
            };
            assert!(f.registry.revoke_credential(credential).await.unwrap());
            for changes in &mut open {
                changes.changed().await.unwrap();
                assert!(matches!(
                    changes.now(),
                    Authority::Ended(Denial::SessionRevoked)
                ));
            }
            let f = f.restarted();
            for one in &line {
                let found = identify(&f, one, now).unwrap_err();
                assert_eq!(found, Denial::CredentialInvalid, "{named} {by_id}");
                let authenticator = f.registry.authenticator();
                assert!(authenticator.refresh(one, HERE, now).is_err());
            }
            assert!(identify(&f, &other, now).is_ok(), "another line lives");
        }
    }
}

#[test]
fn what_could_be_no_id_is_none() {
    let f = Fixture::new();
    let id = "AAAAAAAAAAAAAAAAAAAAAA";
    let known = |text: &str| token_named(f.registry.keys(), text).is_some();
    assert!(known(id) && known(&format!("{id}.{id}")));
    for other in [
        "",
        ".",
        &format!("{id}."),
        &format!(".{id}"),
        &format!("{id}.{id}.{id}"),
        &format!("{id}.A"),
        "AAAA.AAAAAAAAAAAAAAAAAAAAAA",
    ] {
        assert!(!known(other), "{other:?}");
    }
}

fn until(f: &Fixture, token: &Secret, now: SystemTime) -> SystemTime {
    let named = token_named(f.registry.keys(), token.reveal()).unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_secs(f.registry.revocation(named, now).until)
}

/// Remembered for as long as a token of the line can be good, and not for ever.
#[tokio::test]
async fn it_is_remembered_until_the_last_of_the_line_is_over() {
    let f = Fixture::new();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let relay = |asked: &str| token(&f, asked, "SLUICEGATE_RELAY_TOKEN", now);
    // Its generation has an end: nothing outlives that.
    let bounded = relay("{id: bounded, maxLifetime: 2h}");
    let later = refreshed(&f, &bounded, now + MINUTE);
    assert_eq!(until(&f, &bounded, now), now + 2 * HOUR);
    assert_eq!(until(&f, &later, now + MINUTE), now + 2 * HOUR);
    // The generation is dead, and its tokens with it.
    f.registry
        .act_at(
            &Behalf::nobody(),
            &f.key("bounded"),
            Action::Reset,
            None,
            now,
        )
        .unwrap();
    f.registry
        .act_at(
            &Behalf::nobody(),
            &f.key("bounded"),
            Action::Start,
            None,
            now,
        )
        .unwrap();
    assert_eq!(until(&f, &later, now + MINUTE), now + 16 * MINUTE);
    // An id alone says nothing.
    let bare = f.registry.revocation(Named::Id(id(&f, &later)), now);
    assert_eq!(bare.until, unix_seconds(now + 366 * DAY));
}

/// Without an end of the generation it is the first of a line that says when that one ends, and the others are good for as long
/// as they are refreshed for.
#[tokio::test]
async fn a_line_without_an_end_is_remembered_as_long_as_it_may_last() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    for (token_ttl, first, second) in [
        (None, 365 * DAY, 365 * DAY),
        (Some(5 * MINUTE), 5 * MINUTE, 6 * MINUTE),
    ] {
        let mut config = config();
        let provider = config.providers.get_mut("local").unwrap();
        provider.times.max_lifetime = None;
        provider.times.token_ttl = token_ttl;
        let f = Fixture::with(config);
        let one = token(&f, "{id: one}", "SLUICEGATE_RELAY_TOKEN", now);
        assert_eq!(until(&f, &one, now), now + first);
        let later = refreshed(&f, &one, now + MINUTE);
        let least = now + second;
        let found = until(&f, &later, now + MINUTE);
        assert!(found >= least && found <= least + MINUTE, "{found:?}");
    }
}

/// What is over is forgotten; a token that a pause keeps alive is not over.
#[tokio::test]
async fn what_is_over_is_forgotten_and_what_a_pause_keeps_is_not() {
    let f = Fixture::new();
    let now = SystemTime::now();
    let one = token(
        &f,
        "{id: one, maxLifetime: 1h, idleTimeout: 0}",
        "SLUICEGATE_RELAY_TOKEN",
        now,
    );
    let act = |action, at| {
        f.registry
            .act_at(&Behalf::nobody(), &f.key("one"), action, None, at)
            .unwrap()
    };
    f.registry.revoke_credential_at(one.reveal(), now).unwrap();
    act(Action::Pause, now + MINUTE);
    f.sweep(now + DAY);
    act(Action::Resume, now + DAY);
    f.sweep(now + DAY + MINUTE);
    let good = |at| identify(&f, &one, at).is_ok();
    assert!(!good(now + DAY + MINUTE), "it is remembered over the pause");
    assert_eq!(f.registry.store().load().unwrap().revoked.len(), 1);
    // The sweep ends the generation, and then nothing keeps the token.
    f.sweep(now + 2 * DAY);
    f.sweep(now + 2 * DAY);
    assert_eq!(f.registry.store().load().unwrap().revoked.len(), 0);
}

/// Whoever is told of a namespace's events is told of this one too.
#[tokio::test]
async fn the_event_says_whose_token_it_was() {
    let f = Fixture::new();
    let one = token(&f, "{id: one}", "SLUICEGATE_RELAY_TOKEN", SystemTime::now());
    let name = id(&f, &one);
    f.registry
        .revoke_credential(one.reveal().to_owned())
        .await
        .unwrap();
    let events = f.registry.events_after(0, 100).await.unwrap();
    let last: serde_json::Value = serde_json::from_slice(&events.last().unwrap().body).unwrap();
    assert_eq!(last["type"], "credential.revoked");
    assert_eq!(last["session"]["id"], "one");
    assert_eq!(last["reason"], format!("token {name}"));
}

/// A text that only reads like a token, with an end in the past, takes nothing back.
#[tokio::test]
async fn a_revocation_is_not_cut_short_by_another() {
    let f = Fixture::new();
    let now = SystemTime::now();
    let token = token(
        &f,
        "{id: one, idleTimeout: 0}",
        "SLUICEGATE_RELAY_TOKEN",
        now,
    );
    let part = |value: serde_json::Value| {
        data_encoding::BASE64URL_NOPAD.encode(value.to_string().as_bytes())
    };
    let claims = serde_json::json!({"iss": "gestaltd", "jti": id(&f, &token), "exp": 1});
    let forged = format!(
        "{}.{}.",
        part(serde_json::json!({"alg": "none"})),
        part(claims)
    );
    for text in [token.reveal(), &forged] {
        f.registry.revoke_credential_at(text, now).unwrap();
    }
    let later = now + HOUR;
    f.sweep(later);
    assert_eq!(
        identify(&f, &token, later).unwrap_err(),
        Denial::CredentialInvalid
    );
}

/// Whoever has a say in some namespaces revokes of what is theirs, by an id alone too; and is told whether anybody came by it.
#[tokio::test]
async fn an_id_is_revoked_within_a_namespace() {
    let f = Fixture::new();
    let now = SystemTime::now();
    let asked = "{id: one, namespace: team, idleTimeout: 0}";
    let one = token(&f, asked, "SLUICEGATE_RELAY_TOKEN", now);
    let name = id(&f, &one);
    let within = |own: &str| Some(vec![own.to_owned()]);
    let nobody = Behalf::nobody();
    let revoke = |of| f.registry.revoke_within(name.clone(), of, &nobody);
    assert_eq!(
        revoke(within("team")).await.unwrap(),
        Some(false),
        "never seen"
    );
    let f = {
        let f = Fixture::new();
        let one = token(&f, asked, "SLUICEGATE_RELAY_TOKEN", now);
        let name = id(&f, &one);
        let identity = identify(&f, &one, now).unwrap();
        let mut open = identity.judge(|_| Ok::<_, Denial>(())).unwrap().changes;
        let revoke = |of| f.registry.revoke_within(name.clone(), of, &nobody);
        // Another's word is nothing to it, and tells nothing of it.
        assert_eq!(revoke(within("other")).await.unwrap(), Some(false));
        assert!(identify(&f, &one, now).is_ok());
        assert_eq!(revoke(within("team")).await.unwrap(), Some(true));
        open.changed().await.unwrap();
        assert!(matches!(
            open.now(),
            Authority::Ended(Denial::SessionRevoked)
        ));
        let f = f.restarted();
        assert!(identify(&f, &one, now).is_err(), "it holds after a restart");
        f
    };
    // And is forgotten in its time.
    f.sweep(now + 400 * DAY);
    assert!(f.registry.revocations_before(u64::MAX).is_empty());
    assert!(!f.registry.index().is_revoked("team", &name));
}

/// Whoever repeats it pushes out the history of their own namespace, and nobody else's.
#[tokio::test]
async fn a_namespaces_revocations_are_part_of_its_history() {
    let mut config = config();
    config.retention.events = 6;
    let f = Fixture::with(config);
    let change = serde_json::json!({"name": "local"});
    let profile = change.clone();
    f.registry
        .profile_is("local".into(), profile, Some(change), None)
        .await
        .unwrap();
    let nobody = Behalf::nobody();
    let two = ["team".to_owned(), "other".to_owned()];
    for n in 0..20_u8 {
        let id = data_encoding::BASE64URL_NOPAD.encode(&[n; 16]);
        let known = f.registry.revoke_within(id, Some(two.to_vec()), &nobody);
        assert_eq!(known.await.unwrap(), Some(false));
    }
    let events = f.registry.events_after(0, 100).await.unwrap();
    let told = |event: &crate::store::StoredEvent| -> serde_json::Value {
        serde_json::from_slice(&event.body).unwrap()
    };
    let told: Vec<_> = events.iter().map(told).collect();
    assert_eq!(told[0]["type"], "provider.profileChanged", "{told:?}");
    let of = |namespace: &str| {
        let own = told.iter().filter(|event| event["namespace"] == namespace);
        own.filter(|event| event["type"] == "credential.revoked")
            .count()
    };
    assert_eq!(of("team") + of("other"), 5);
    assert!(of("team") >= 2 && of("other") >= 2, "{told:?}");
    for of in ["team", "other"] {
        let lost = f.registry.events_dropped(of.into()).await.unwrap();
        assert!(lost.events >= 17, "{of}: {lost:?}");
    }
}

/// Nobody has to have what is revoked by an id: of one namespace so many are remembered, and no more.
#[tokio::test]
async fn ids_that_are_revoked_within_a_namespace_are_bounded() {
    let f = Fixture::new();
    let id = |n: usize| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        data_encoding::BASE64URL_NOPAD.encode(&id)
    };
    let nobody = Behalf::nobody();
    let revoke = |n: usize, of: &str| {
        let of = Some(vec![of.to_owned()]);
        f.registry.revoke_within(id(n), of, &nobody)
    };
    assert_eq!(revoke(0, "team").await.unwrap(), Some(false));
    for n in 1..WITHIN_ONE {
        f.registry.index().revoke(within("team", &id(n)), None);
    }
    let refused = revoke(WITHIN_ONE, "team").await.unwrap_err();
    assert!(
        matches!(&refused, RegistryError::RevocationsFull { namespace, .. } if namespace == "team"),
        "{refused}"
    );
    assert!(!f.registry.index().is_revoked("team", &id(WITHIN_ONE)));
    assert_eq!(f.registry.store().load().unwrap().revoked.len(), 1);
    // What is revoked already can be again, and others have their own.
    assert_eq!(revoke(0, "team").await.unwrap(), Some(false));
    assert_eq!(revoke(WITHIN_ONE, "other").await.unwrap(), Some(false));
}

/// Whoever repeats it while the store takes nothing fills no memory; it holds, and is recorded with the store.
#[tokio::test]
async fn an_id_that_is_revoked_again_waits_once_for_the_store() {
    let f = Fixture::new();
    let (store, aside) = (f.store_path(), f.dir.path().join("aside"));
    std::fs::rename(&store, &aside).unwrap();
    let nobody = Behalf::nobody();
    let id = |n: u8| data_encoding::BASE64URL_NOPAD.encode(&[n; 16]);
    let now = SystemTime::now();
    for (n, seconds) in [(1, 0), (2, 1), (1, 2), (1, 3), (2, 4)] {
        let (of, at) = (["team".to_owned()], now + Duration::from_secs(seconds));
        let revoked = f
            .registry
            .revoke_within_at(&nobody, &id(n), Some(of.as_slice()), at);
        assert!(revoked.is_err(), "{n}");
        assert!(f.registry.index().is_revoked("team", &id(n)));
    }
    assert_eq!(f.registry.unsaved().len(), 2);
    std::fs::rename(&aside, &store).unwrap();
    f.sweep(now);
    assert_eq!(f.registry.unsaved().len(), 0);
    let mut until: Vec<u64> = f
        .registry
        .store()
        .load()
        .unwrap()
        .revoked
        .into_iter()
        .map(|(_, until)| until)
        .collect();
    until.sort_unstable();
    let kept = |seconds: u64| unix_seconds(now + 366 * DAY + Duration::from_secs(seconds));
    assert_eq!(until, [kept(3), kept(4)], "for as long as the last said");
}
