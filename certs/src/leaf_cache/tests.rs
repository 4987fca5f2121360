#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use super::*;
use crate::{ServerIdentity, TrustBundle, handshake::Pair, tls};

const HOUR: Duration = Duration::from_secs(3600);

fn cache(capacity: usize, now: SystemTime) -> (Authority, LeafCache) {
    let root = Authority::create("root", now).unwrap();
    let capacity = NonZeroUsize::new(capacity).unwrap();
    let cache = LeafCache::new(&root, &["allowed.test".into()], capacity, 2 * HOUR, now).unwrap();
    (root, cache)
}

#[test]
fn a_minted_leaf_verifies_against_the_root() {
    let now = SystemTime::now();
    let (root, cache) = cache(4, now);
    let trust = TrustBundle::empty()
        .with_pem(root.certificate_pem().as_bytes())
        .unwrap();
    let client = tls::client(&trust, &[], None).unwrap();
    for host in ["allowed.test", "Api.Allowed.test"] {
        let leaf = cache.leaf(host, now).unwrap();
        let server = tls::server(&ServerIdentity::new((*leaf).clone()), &[]).unwrap();
        Pair::connect(&client, &server, &host.to_ascii_lowercase())
            .unwrap()
            .converse();
    }
}

#[test]
fn names_outside_the_bound_are_not_minted() {
    let now = SystemTime::now();
    let (_, cache) = cache(4, now);
    for host in [
        "other.test",
        "notallowed.test",
        "test",
        "allowed.test.evil.test",
        "127.0.0.1",
    ] {
        assert!(
            matches!(cache.leaf(host, now), Err(CertError::NameNotPermitted(_))),
            "{host}"
        );
    }
    assert!(cache.is_empty());
}

/// The bound is in the certificate too: a key that escaped could not speak for other names.
#[test]
fn verifiers_refuse_what_the_constrained_authority_signs_outside_its_names() {
    let now = SystemTime::now();
    let (root, cache) = cache(4, now);
    let trust = TrustBundle::empty()
        .with_pem(root.certificate_pem().as_bytes())
        .unwrap();
    let forged = cache
        .authority
        .issue_server(&["other.test".into()], HOUR, now)
        .unwrap();
    let server = tls::server(&ServerIdentity::new(forged), &[]).unwrap();
    let client = tls::client(&trust, &[], None).unwrap();
    let error =
        Pair::connect(&client, &server, "other.test").expect_err("outside the name constraint");
    assert!(format!("{error:?}").contains("NameConstraint"), "{error:?}");
}

#[test]
fn one_host_is_minted_once_until_half_of_its_life() {
    let now = SystemTime::now();
    let (_, cache) = cache(4, now);
    let first = cache.leaf("allowed.test", now).unwrap();
    let later = cache
        .leaf("ALLOWED.test", now + Duration::from_secs(3599))
        .unwrap();
    assert!(Arc::ptr_eq(&first, &later));
    let renewed = cache.leaf("allowed.test", now + HOUR).unwrap();
    assert!(renewed.not_after() > first.not_after());
    assert_eq!(cache.len(), 1);
}

#[test]
fn the_longest_unused_goes_first_and_the_bound_holds() {
    let now = SystemTime::now();
    let (_, cache) = cache(3, now);
    let first = cache.leaf("a.allowed.test", now).unwrap();
    let second = cache.leaf("b.allowed.test", now).unwrap();
    cache.leaf("c.allowed.test", now).unwrap();
    cache.leaf("a.allowed.test", now).unwrap();
    for extra in 0..50 {
        cache.leaf(&format!("x{extra}.allowed.test"), now).unwrap();
        assert_eq!(cache.len(), 3);
        assert!(
            Arc::ptr_eq(&first, &cache.leaf("a.allowed.test", now).unwrap()),
            "in use, so kept"
        );
    }
    assert!(!Arc::ptr_eq(
        &second,
        &cache.leaf("b.allowed.test", now).unwrap()
    ));
}
