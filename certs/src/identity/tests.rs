#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use super::*;
use crate::{Authority, TrustBundle, handshake::Pair};

const HOUR: Duration = Duration::from_secs(3600);

fn issue(names: &[&str]) -> (Authority, Identity) {
    let now = SystemTime::now();
    let root = Authority::create("root", now).unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let identity = root.issue_server(&names, HOUR, now).unwrap();
    (root, identity)
}

#[test]
fn pem_round_trips_and_still_shakes_hands() {
    let (root, made) = issue(&["A.test", "*.b.test", "127.0.0.1", "::1"]);
    let read = Identity::from_pem(made.chain_pem().as_bytes(), made.key_pem().as_bytes()).unwrap();
    assert_eq!(read.names(), ["a.test", "*.b.test", "127.0.0.1", "::1"]);
    assert_eq!(read.not_after(), made.not_after());
    assert_eq!(read.chain_pem(), made.chain_pem());
    assert_eq!(read.key_pem(), made.key_pem());
    let trust = TrustBundle::empty()
        .with_pem(root.certificate_pem().as_bytes())
        .unwrap();
    let server = tls::server(&ServerIdentity::new(read), &[]).unwrap();
    let client = tls::client(&trust, &[], None).unwrap();
    for name in ["a.test", "x.b.test", "127.0.0.1", "::1"] {
        Pair::connect(&client, &server, name).unwrap().converse();
    }
}

#[test]
fn files_are_read_and_the_missing_one_is_named() {
    let (_, made) = issue(&["a.test"]);
    let dir = tempfile::tempdir().unwrap();
    let (chain, key) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
    std::fs::write(&chain, made.chain_pem()).unwrap();
    let error = Identity::load(&chain, &key).unwrap_err();
    assert!(matches!(error, CertError::Read { .. }));
    assert!(error.to_string().contains("key.pem"), "{error}");
    std::fs::write(&key, made.key_pem()).unwrap();
    assert_eq!(Identity::load(&chain, &key).unwrap().names(), ["a.test"]);
}

#[test]
fn broken_input_is_told_by_its_fact() {
    let (root, made) = issue(&["a.test"]);
    let (_, other) = issue(&["b.test"]);
    let chain = made.chain_pem();
    let key = made.key_pem();
    assert!(matches!(
        Identity::from_pem(b"", key.as_bytes()),
        Err(CertError::NoCertificate)
    ));
    assert!(matches!(
        Identity::from_pem(key.as_bytes(), key.as_bytes()),
        Err(CertError::NoCertificate)
    ));
    assert!(matches!(
        Identity::from_pem(chain.as_bytes(), chain.as_bytes()),
        Err(CertError::NoKey)
    ));
    let result = Identity::from_pem(chain.as_bytes(), other.key_pem().as_bytes());
    assert!(matches!(result, Err(CertError::KeyMismatch)), "{result:?}");
    let cut: String = chain.lines().take(3).collect::<Vec<_>>().join("\n");
    let result = Identity::from_pem(cut.as_bytes(), key.as_bytes());
    assert!(matches!(result, Err(CertError::Pem(_))), "{result:?}");
    // The chain's order matters: the root first is another key's certificate.
    let swapped = format!("{}{chain}", root.certificate_pem());
    assert!(matches!(
        Identity::from_pem(swapped.as_bytes(), key.as_bytes()),
        Err(CertError::KeyMismatch)
    ));
}

#[test]
fn replacing_shows_the_new_certificate_and_leaves_open_connections_alone() {
    let now = SystemTime::now();
    let root = Authority::create("root", now).unwrap();
    let name = ["a.test".to_owned()];
    let slot = ServerIdentity::new(root.issue_server(&name, HOUR, now).unwrap());
    let server = tls::server(&slot, &[]).unwrap();
    let trust = TrustBundle::empty()
        .with_pem(root.certificate_pem().as_bytes())
        .unwrap();
    let mut before =
        Pair::connect(&tls::client(&trust, &[], None).unwrap(), &server, "a.test").unwrap();
    slot.replace(root.issue_server(&name, 2 * HOUR, now).unwrap());
    let mut after =
        Pair::connect(&tls::client(&trust, &[], None).unwrap(), &server, "a.test").unwrap();
    assert_ne!(before.shown(), after.shown());
    assert_eq!(after.shown(), slot.current().certified().cert[0].to_vec());
    before.converse();
    after.converse();
}
