#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

#[test]
fn the_first_start_makes_a_key_and_the_second_finds_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    let first = Keys::load_or_create(&path).unwrap();
    let second = Keys::load_or_create(&path).unwrap();
    assert_eq!(first.list(), second.list());
    assert_eq!(first.list().len(), 1);
    for entry in fs::read_dir(&path).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().mode() & 0o777, 0o600);
    }
}

#[test]
fn rotation_changes_who_signs_and_keeps_who_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::load_or_create(dir.path()).unwrap();
    let old = keys.list()[0].kid.clone();
    let new = keys.rotate().unwrap();
    assert_ne!(old, new);
    assert_eq!(&*keys.signing().unwrap().0, new);
    assert!(keys.verifying(&old).is_some());
    let jwks: serde_json::Value = serde_json::from_str(&keys.jwks()).unwrap();
    assert_eq!(jwks["keys"].as_array().unwrap().len(), 2);
    assert!(
        !keys.jwks().contains("\"d\""),
        "no private part is published"
    );

    fs::remove_file(dir.path().join(format!("{old}.pem"))).unwrap();
    keys.reload().unwrap();
    assert!(keys.verifying(&old).is_none());
}

#[test]
fn a_request_that_comes_again_makes_one_key() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::load_or_create(dir.path()).unwrap();
    let first = keys.list()[0].kid.clone();
    let once = keys.rotate_for(Some("a")).unwrap();
    assert_ne!(once, first);
    assert_eq!(keys.rotate_for(Some("a")).unwrap(), once);
    // After a restart too, and whatever has signed since.
    let keys = Keys::load_or_create(dir.path()).unwrap();
    assert_eq!(keys.rotate_for(Some("a")).unwrap(), once);
    let other = keys.rotate_for(Some("b")).unwrap();
    assert_eq!(keys.rotate_for(Some("a")).unwrap(), other, "what signs now");
    assert_eq!(keys.list().len(), 3);
    // Cut short before the new key came to sign: the same key does when it comes again.
    sign_with(dir.path(), &once, &write_private).unwrap();
    let keys = Keys::load_or_create(dir.path()).unwrap();
    assert_eq!(keys.rotate_for(Some("b")).unwrap(), other);
    assert_eq!(keys.list().len(), 3);
    assert_eq!(&*keys.signing().unwrap().0, other);
}

/// Killed before each of its writes: what signed goes on to, and the request that comes again makes one key in all.
#[test]
fn a_rotation_that_is_cut_short_anywhere_is_one_rotation_when_it_comes_again() {
    for written in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::load_or_create(dir.path()).unwrap();
        let first = keys.list()[0].kid.clone();
        let left = std::cell::Cell::new(written);
        let killed = |path: &Path, bytes: &[u8]| match left.get() {
            0 => Err(PrivateFileError::Write {
                path: path.into(),
                source: std::io::ErrorKind::Interrupted.into(),
            }),
            n => {
                left.set(n - 1);
                write_private(path, bytes)
            }
        };
        let cut = keys.rotate_by(Some("a"), &killed);
        assert_eq!(cut.is_ok(), written == 3, "{written}");
        drop(keys);

        let keys = Keys::load_or_create(dir.path()).unwrap();
        let signs = |keys: &Keys| keys.signing().unwrap().0.to_string();
        assert_eq!(signs(&keys) == first, written < 3, "{written}");
        let new = keys.rotate_for(Some("a")).unwrap();
        assert_ne!(new, first);
        assert_eq!(signs(&keys), new);
        assert_eq!(keys.rotate_for(Some("a")).unwrap(), new);
        let all: Vec<String> = keys.list().into_iter().map(|key| key.kid).collect();
        assert_eq!(all.len(), 2, "{written}: {all:?}");
        assert!(all.contains(&first), "what it signed is good");
    }
}

#[test]
fn what_requests_have_made_is_read_for_a_request_alone() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::load_or_create(dir.path()).unwrap();
    fs::create_dir(dir.path().join("rotations")).unwrap();
    assert!(keys.rotate_for(Some("a")).is_err());
    let kid = keys.rotate().unwrap();
    assert_eq!(&*keys.signing().unwrap().0, kid);
}

#[test]
fn keys_of_somebody_else_overlap_and_are_rotated_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for name in ["old.pem", "new.pem"] {
        let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        write_file(&path(name), pair.serialize_pem().as_bytes(), 0o600).unwrap();
    }
    let of = |signing: &str, verifying: &[&str]| ExternalKeys {
        signing: ExternalKey::File(path(signing)),
        verifying: verifying.iter().map(|name| path(name)).collect(),
    };
    let first = Keys::external(of("old.pem", &[])).unwrap();
    let old = first.list()[0].kid.clone();
    assert!(matches!(first.rotate(), Err(KeyError::External)));
    let second = Keys::external(of("new.pem", &["old.pem", "new.pem"])).unwrap();
    assert_eq!(second.list().len(), 2, "once each");
    assert!(second.verifying(&old).is_some());
    assert_ne!(&*second.signing().unwrap().0, old);
    // The same file with another key: taken over by a reload.
    fs::rename(path("new.pem"), path("old.pem")).unwrap();
    first.reload().unwrap();
    assert!(first.verifying(&old).is_none());
    fs::remove_file(path("old.pem")).unwrap();
    assert!(first.reload().is_err());
    assert_eq!(first.list().len(), 1, "the keys in use stay");
    let nowhere = ExternalKeys {
        signing: ExternalKey::Env("SLUICEGATE_TEST_NO_SUCH_KEY".into()),
        verifying: Vec::new(),
    };
    assert!(matches!(
        Keys::external(nowhere),
        Err(KeyError::Variable(_))
    ));
}

#[test]
fn a_key_that_others_read_or_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::load_or_create(dir.path()).unwrap();
    let path = dir.path().join(format!("{}.pem", keys.list()[0].kid));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(
        keys.reload(),
        Err(KeyError::File(PrivateFileError::Exposed { .. }))
    ));
    write_file(&path, b"nonsense", 0o600).unwrap();
    assert!(matches!(keys.reload(), Err(KeyError::Malformed { .. })));
    assert_eq!(keys.list().len(), 1, "the keys in use stay");
}
