#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use std::{net::Ipv4Addr, time::Duration};

use super::*;
use crate::session::{
    Registry,
    lifecycle::Action,
    testing::{Fixture, request},
};

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn variable(bundle: &crate::session::Bundle, name: &str) -> Secret {
    let found = bundle.env.iter().find(|(key, _)| key == name);
    Secret::new(
        found
            .unwrap_or_else(|| panic!("{name} in the bundle"))
            .1
            .as_str(),
    )
}

/// The handle of the proxy URL, as a client would send it.
fn handle(bundle: &crate::session::Bundle) -> Secret {
    let url = variable(bundle, "HTTP_PROXY");
    let (_, rest) = url.reveal().split_once("sluicegate:").unwrap();
    Secret::new(rest.split_once('@').unwrap().0)
}

fn who(registry: &Registry, secret: &Secret, audience: Audience) -> Result<String, Denial> {
    let found = registry
        .authenticator()
        .identify(secret, audience, SOURCE, SystemTime::now());
    found.map(|identity| identity.session.key().id.to_string())
}

const SERVICES: &str = "{id: one, services: {cache: 'unix:///run/c', db: 'tcp://127.0.0.1:5432'}}";

#[tokio::test]
async fn a_token_serves_its_audience_and_a_handle_both() {
    let f = Fixture::new();
    let bundle = f
        .registry
        .create("local".into(), request(SERVICES))
        .await
        .unwrap()
        .bundle
        .unwrap();
    let (token, handle) = (variable(&bundle, "SLUICEGATE_RELAY_TOKEN"), handle(&bundle));
    assert_eq!(
        who(&f.registry, &token, Audience::Relay).as_deref(),
        Ok("one")
    );
    assert_eq!(
        who(&f.registry, &token, Audience::Egress),
        Err(Denial::CredentialInvalid)
    );
    assert_eq!(
        who(&f.registry, &handle, Audience::Relay).as_deref(),
        Ok("one")
    );
    assert_eq!(
        who(&f.registry, &handle, Audience::Egress).as_deref(),
        Ok("one")
    );
    for secret in [&token, &handle] {
        assert_eq!(
            who(&f.registry, secret, Audience::Admin),
            Err(Denial::CredentialInvalid)
        );
    }
}

#[tokio::test]
async fn a_service_token_is_bounded_to_its_service() {
    let f = Fixture::new();
    let bundle = f
        .registry
        .create("local".into(), request(SERVICES))
        .await
        .unwrap()
        .bundle
        .unwrap();
    let identify = |name| {
        let now = SystemTime::now();
        f.registry
            .authenticator()
            .identify(&variable(&bundle, name), Audience::Relay, SOURCE, now)
            .unwrap()
    };
    let bound = identify("GESTALT_CACHE_TOKEN").bound.unwrap();
    assert_eq!(
        bound.iter().map(|b| b.name.as_str()).collect::<Vec<_>>(),
        ["cache"]
    );
    assert!(identify("GESTALT_HOST_SERVICE_TOKEN").bound.is_none());
}

#[tokio::test]
async fn v106_unknown_forged_expired_and_revoked_are_one_answer() {
    let f = Fixture::new();
    let issued = f
        .registry
        .create("local".into(), request(SERVICES))
        .await
        .unwrap();
    let bundle = issued.bundle.unwrap();
    let (token, handle) = (variable(&bundle, "SLUICEGATE_RELAY_TOKEN"), handle(&bundle));
    let authenticator = f.registry.authenticator();
    assert!(!authenticator.dead_generation(&token, SystemTime::now()));
    f.registry
        .act(f.key("one"), Action::Reset, None)
        .await
        .unwrap();

    let unknown = Secret::new(format!("sgh_{}", "A".repeat(43)));
    let forged = Secret::new(format!("{}x", token.reveal()));
    for secret in [&token, &handle, &unknown, &forged, &Secret::new("")] {
        assert_eq!(
            who(&f.registry, secret, Audience::Relay),
            Err(Denial::CredentialInvalid)
        );
    }
    assert!(authenticator.dead_generation(&token, SystemTime::now()));
    assert!(!authenticator.dead_generation(&forged, SystemTime::now()));
    let later = SystemTime::now() + Duration::from_secs(400 * 86_400);
    assert!(
        !authenticator.dead_generation(&token, later),
        "expired is not dead: it is no token"
    );

    // The next generation does not bring the old credentials back.
    f.registry
        .act(f.key("one"), Action::Start, None)
        .await
        .unwrap();
    for secret in [&token, &handle] {
        assert_eq!(
            who(&f.registry, secret, Audience::Relay),
            Err(Denial::CredentialInvalid)
        );
    }
}

#[tokio::test]
async fn a_paused_session_is_known_and_its_opens_say_paused() {
    let f = Fixture::new();
    let bundle = f
        .registry
        .create("local".into(), request("{id: one}"))
        .await
        .unwrap()
        .bundle
        .unwrap();
    f.registry
        .act(f.key("one"), Action::Pause, None)
        .await
        .unwrap();
    let now = SystemTime::now();
    let identity = f
        .registry
        .authenticator()
        .identify(&handle(&bundle), Audience::Egress, SOURCE, now)
        .unwrap();
    assert_eq!(
        identity.session.policy().unwrap_err(),
        Denial::SessionPaused
    );
    f.registry
        .act(f.key("one"), Action::Resume, None)
        .await
        .unwrap();
    assert!(
        identity.session.policy().is_ok(),
        "the same credential works again"
    );
}

#[tokio::test]
async fn v101_a_credential_from_elsewhere_is_refused() {
    let f = Fixture::new();
    let asked = request("{id: one, sources: [10.1.0.0/16, '2001:db8::/32']}");
    let bundle = f
        .registry
        .create("local".into(), asked)
        .await
        .unwrap()
        .bundle
        .unwrap();
    let from = |source: &str| {
        let now = SystemTime::now();
        let source = source.parse().unwrap();
        f.registry
            .authenticator()
            .identify(&handle(&bundle), Audience::Egress, source, now)
            .map(|_| ())
    };
    assert_eq!(from("10.1.2.3"), Ok(()));
    assert_eq!(from("::ffff:10.1.2.3"), Ok(()), "the same address, mapped");
    assert_eq!(from("2001:db8::1"), Ok(()));
    assert_eq!(from("10.2.0.1"), Err(Denial::SourceNotAllowed));
    assert_eq!(from("127.0.0.1"), Err(Denial::SourceNotAllowed));
}

#[tokio::test]
async fn one_token_can_be_revoked_alone() {
    let f = Fixture::new();
    let bundle = f
        .registry
        .create("local".into(), request(SERVICES))
        .await
        .unwrap()
        .bundle
        .unwrap();
    let (one, other) = (
        variable(&bundle, "GESTALT_CACHE_TOKEN"),
        variable(&bundle, "GESTALT_DB_TOKEN"),
    );
    assert!(
        f.registry
            .revoke_credential(one.reveal().into())
            .await
            .unwrap()
    );
    assert_eq!(
        who(&f.registry, &one, Audience::Relay),
        Err(Denial::CredentialInvalid)
    );
    assert!(who(&f.registry, &other, Audience::Relay).is_ok());
    assert!(
        f.registry
            .revoke_credential(handle(&bundle).reveal().into())
            .await
            .unwrap()
    );
    assert_eq!(
        who(&f.registry, &handle(&bundle), Audience::Egress),
        Err(Denial::CredentialInvalid)
    );
    assert!(
        !f.registry
            .revoke_credential("rubbish".into())
            .await
            .unwrap()
    );
    let f = f.restarted();
    assert_eq!(
        who(&f.registry, &one, Audience::Relay),
        Err(Denial::CredentialInvalid),
        "a restart does not forget"
    );
    assert_eq!(
        who(&f.registry, &handle(&bundle), Audience::Egress),
        Err(Denial::CredentialInvalid)
    );
}

#[tokio::test]
async fn v112_a_store_that_cannot_be_read_is_503_at_once() {
    let f = Fixture::new();
    let bundle = f
        .registry
        .create("local".into(), request("{id: one}"))
        .await
        .unwrap()
        .bundle
        .unwrap();
    let aside = f.dir.path().join("aside");
    std::fs::rename(f.store_path(), &aside).unwrap();
    f.sweep(SystemTime::now());
    assert_eq!(
        who(&f.registry, &handle(&bundle), Audience::Egress),
        Err(Denial::StoreUnavailable)
    );
    std::fs::rename(&aside, f.store_path()).unwrap();
    f.sweep(SystemTime::now());
    assert!(
        who(&f.registry, &handle(&bundle), Audience::Egress).is_ok(),
        "it recovers"
    );
}
