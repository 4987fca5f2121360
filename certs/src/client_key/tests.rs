#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use std::{fs, os::unix::fs::PermissionsExt};

use super::{Channel, ClientKey, Jwk, Thumbprint, part, proven, split_proof};
use crate::CertError;

fn key(name: &str, dir: &tempfile::TempDir) -> ClientKey {
    ClientKey::load_or_create(&dir.path().join(name)).unwrap()
}

const HERE: Channel = Channel::exported([1; 32]);

#[test]
fn the_thumbprint_is_that_of_rfc_8037() {
    // Appendix A.3.
    let jwk = Jwk {
        crv: "Ed25519".into(),
        kty: "OKP".into(),
        x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo".into(),
    };
    let known = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
    assert_eq!(jwk.thumbprint().to_string(), known);
    assert_eq!(known.parse::<Thumbprint>().unwrap(), jwk.thumbprint());
    for bad in [
        "",
        "kPrK",
        "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k=",
        "é",
    ] {
        assert!(bad.parse::<Thumbprint>().is_err(), "{bad}");
    }
}

#[test]
fn a_key_is_made_once_and_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.pem");
    let made = ClientKey::load_or_create(&path).unwrap().thumbprint();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(ClientKey::load_or_create(&path).unwrap().thumbprint(), made);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(
        ClientKey::load_or_create(&path),
        Err(CertError::KeyExposed { .. })
    ));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(
        &path,
        "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n",
    )
    .unwrap();
    assert!(matches!(
        ClientKey::load_or_create(&path),
        Err(CertError::NotEd25519)
    ));
}

#[test]
fn a_proof_is_good_for_one_credential_on_one_connection() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (key("ours", &dir), key("theirs", &dir));
    let presented = ours.present("a.b.c", &HERE);
    let (credential, proof) = split_proof(&presented);
    let proof = proof.unwrap();
    assert_eq!(credential, "a.b.c");
    assert_eq!(proven(credential, proof, &HERE), Some(ours.thumbprint()));
    assert_ne!(ours.thumbprint(), theirs.thumbprint());
    assert_eq!(proven("a.b.d", proof, &HERE), None, "another credential");
    let elsewhere = Channel::exported([2; 32]);
    assert_eq!(proven(credential, proof, &elsewhere), None, "replayed");
    assert_eq!(split_proof("a.b.c"), ("a.b.c", None));
}

#[test]
fn what_is_changed_proves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (key("ours", &dir), key("theirs", &dir));
    let text = |key: &ClientKey| {
        let presented = key.present("t", &HERE);
        split_proof(&presented).1.unwrap().to_owned()
    };
    let (good, other) = (text(&ours), text(&theirs));
    let parts: Vec<&str> = good.split('.').collect();
    let foreign: Vec<&str> = other.split('.').collect();
    let header = |change: fn(&mut serde_json::Value)| {
        let mut header: serde_json::Value = super::read(parts[0]).unwrap();
        change(&mut header);
        format!("{}.{}.{}", part(&header), parts[1], parts[2])
    };
    for (what, proof) in [
        ("nothing", String::new()),
        (
            "another key's header",
            format!("{}.{}.{}", foreign[0], parts[1], parts[2]),
        ),
        (
            "another key's signature",
            format!("{}.{}.{}", parts[0], parts[1], foreign[2]),
        ),
        ("alg none", header(|h| h["alg"] = "none".into())),
        ("another type", header(|h| h["typ"] = "JWT".into())),
        ("crit", header(|h| h["crit"] = serde_json::json!(["x"]))),
        (
            "another curve",
            header(|h| h["jwk"]["crv"] = "X25519".into()),
        ),
        (
            "a private key in it",
            header(|h| h["jwk"]["d"] = "AAAA".into()),
        ),
        ("padded", format!("{good}=")),
        ("two of them", format!("{good}~{good}")),
        ("too long", "A".repeat(2000)),
    ] {
        assert_eq!(proven("t", &proof, &HERE), None, "{what}");
    }
}
