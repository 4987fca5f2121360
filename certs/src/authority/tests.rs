#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use super::*;
use std::{fs, os::unix::fs::PermissionsExt};

const HOUR: Duration = Duration::from_secs(3600);

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn kept_files_have_their_modes_and_come_back_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let first = Authority::load_or_create(dir.path(), "test", now).unwrap();
    assert_eq!(mode(&dir.path().join("ca.key")), 0o600);
    assert_eq!(mode(&dir.path().join("ca.pem")), 0o644);
    assert_eq!(
        fs::read_to_string(dir.path().join("ca.pem")).unwrap(),
        first.certificate_pem()
    );
    let again = Authority::load_or_create(dir.path(), "test", now).unwrap();
    assert_eq!(again.certificate_pem(), first.certificate_pem());
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["ca.key", "ca.pem"],
        "no temporary file stays behind"
    );
}

#[test]
fn two_starts_at_once_make_one_authority() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let made: Vec<String> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    Authority::load_or_create(dir.path(), "test", now)
                        .unwrap()
                        .certificate_pem
                })
            })
            .collect();
        starts
            .into_iter()
            .map(|start| start.join().unwrap())
            .collect()
    });
    assert!(made.iter().all(|pem| *pem == made[0]));
}

#[test]
fn a_key_others_can_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    Authority::load_or_create(dir.path(), "test", now).unwrap();
    for exposed in [0o604, 0o640, 0o666] {
        fs::set_permissions(
            dir.path().join("ca.key"),
            fs::Permissions::from_mode(exposed),
        )
        .unwrap();
        let error = Authority::load_or_create(dir.path(), "test", now).unwrap_err();
        assert!(
            matches!(error, CertError::KeyExposed { mode, .. } if mode == exposed),
            "{error}"
        );
        assert!(error.to_string().contains("ca.key"), "{error}");
    }
}

#[test]
fn a_crash_between_the_files_keeps_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    Authority::load_or_create(dir.path(), "test", now).unwrap();
    let key = fs::read(dir.path().join("ca.key")).unwrap();
    fs::remove_file(dir.path().join("ca.pem")).unwrap();
    Authority::load_or_create(dir.path(), "test", now).unwrap();
    assert_eq!(fs::read(dir.path().join("ca.key")).unwrap(), key);
    assert!(dir.path().join("ca.pem").exists());
}

#[test]
fn a_lost_key_and_a_foreign_key_are_told_apart() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let now = SystemTime::now();
    Authority::load_or_create(dir.path(), "one", now).unwrap();
    Authority::load_or_create(other.path(), "two", now).unwrap();
    fs::rename(other.path().join("ca.key"), dir.path().join("ca.key")).unwrap();
    assert!(matches!(
        Authority::load_or_create(dir.path(), "one", now),
        Err(CertError::KeyMismatch)
    ));
    fs::remove_file(dir.path().join("ca.key")).unwrap();
    assert!(matches!(
        Authority::load_or_create(dir.path(), "one", now),
        Err(CertError::KeyMissing { .. })
    ));
}

#[test]
fn a_leaf_is_not_an_authority() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let root = Authority::create("root", now).unwrap();
    let leaf = root.issue_server(&["a.test".into()], HOUR, now).unwrap();
    fs::write(dir.path().join("ca.pem"), leaf.chain_pem()).unwrap();
    fs::write(dir.path().join("ca.key"), leaf.key_pem()).unwrap();
    fs::set_permissions(dir.path().join("ca.key"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(
        Authority::load_or_create(dir.path(), "root", now),
        Err(CertError::NotAuthority)
    ));
}

#[test]
fn an_unwritable_place_is_a_clear_fault() {
    let missing = Path::new("/nonexistent-directory/below");
    let error = Authority::load_or_create(missing, "test", SystemTime::now()).unwrap_err();
    assert!(matches!(error, CertError::Read { .. }));
    assert!(
        error.to_string().contains("/nonexistent-directory/below"),
        "{error}"
    );
    // /proc takes no new file from anybody, root included.
    let error =
        Authority::load_or_create(Path::new("/proc"), "test", SystemTime::now()).unwrap_err();
    assert!(matches!(error, CertError::Write { .. }), "{error}");
    assert!(
        error.to_string().starts_with("cannot write /proc/ca.key: "),
        "{error}"
    );
}

#[test]
fn an_expired_authority_is_refused_and_issues_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let eleven_years_ago = now - Duration::from_secs(11 * 365 * 86_400);
    let old = Authority::load_or_create(dir.path(), "old", eleven_years_ago).unwrap();
    assert!(matches!(
        old.issue_server(&["a.test".into()], HOUR, now),
        Err(CertError::AuthorityExpired)
    ));
    assert!(matches!(
        Authority::load_or_create(dir.path(), "old", now),
        Err(CertError::AuthorityExpired)
    ));
}

#[test]
fn nothing_issued_outlives_the_authority() {
    let now = SystemTime::now();
    let root = Authority::create("root", now).unwrap();
    let leaf = root
        .issue_server(&["a.test".into()], LIFETIME * 2, now)
        .unwrap();
    assert!(leaf.not_after() <= root.not_after());
    let short = root.issue_server(&["a.test".into()], HOUR, now).unwrap();
    let life = short.not_after().duration_since(now).unwrap();
    assert!(
        life <= HOUR && life > HOUR - Duration::from_secs(2),
        "{life:?}"
    );
}

#[test]
fn names_that_are_none_are_refused() {
    let now = SystemTime::now();
    let root = Authority::create("root", now).unwrap();
    for bad in [
        "",
        "a b.test",
        "a.test.",
        "*",
        "a.*.test",
        "ümlaut.test",
        "a.test:443",
        "[::1]",
        "10.0.0.0/8",
    ] {
        let result = root.issue_server(&["good.test".into(), bad.into()], HOUR, now);
        assert!(
            matches!(&result, Err(CertError::Name(name)) if name == bad),
            "{bad:?}: {result:?}"
        );
    }
    assert!(matches!(
        root.issue_server(&[], HOUR, now),
        Err(CertError::NoNames)
    ));
    assert!(matches!(
        root.issue_client("", HOUR, now),
        Err(CertError::NoNames)
    ));
}

#[test]
fn debug_shows_no_key() {
    let now = SystemTime::now();
    let root = Authority::create("root", now).unwrap();
    let leaf = root.issue_server(&["a.test".into()], HOUR, now).unwrap();
    let body: String = leaf.key_pem().lines().nth(1).unwrap().into();
    assert!(!format!("{root:?}{leaf:?}").contains(&body));
}
