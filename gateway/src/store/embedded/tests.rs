#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use std::os::unix::fs::PermissionsExt;

use super::*;

fn batch(key: &str, row: &[u8], events: &[&[u8]]) -> Batch {
    Batch {
        put: vec![(key.into(), row.to_vec())],
        events: events.iter().map(|e| e.to_vec()).collect(),
        ..Batch::default()
    }
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sluicegate.redb");
    {
        let store = EmbeddedStore::open(&path).unwrap();
        assert_eq!(store.commit(&batch("a", b"1", &[b"made"])).unwrap(), 1);
        let revoke = Batch {
            revoke: vec![("jti".into(), 7)],
            ..batch("b", b"2", &[b"x", b"y"])
        };
        assert_eq!(store.commit(&revoke).unwrap(), 3);
        store
            .commit(&Batch {
                remove: vec!["b".into()],
                ..Batch::default()
            })
            .unwrap();
    }
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let store = EmbeddedStore::open(&path).unwrap();
    let loaded = store.load().unwrap();
    assert_eq!(loaded.sessions, vec![("a".to_owned(), b"1".to_vec())]);
    assert_eq!(loaded.revoked, vec![("jti".to_owned(), 7)]);
    let after = store.events(1, 10).unwrap();
    assert_eq!(after.iter().map(|e| e.cursor).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(after[0].body, b"x");
    store
        .commit(&Batch {
            forget: vec!["jti".into()],
            ..Batch::default()
        })
        .unwrap();
    assert!(store.load().unwrap().revoked.is_empty());
}

#[test]
fn events_are_bounded_and_cursors_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&dir.path().join("s")).unwrap();
    let many = Batch {
        events: vec![b"e".to_vec(); EVENTS_KEPT as usize + 5],
        ..Batch::default()
    };
    assert_eq!(store.commit(&many).unwrap(), EVENTS_KEPT + 5);
    let kept = store.events(0, usize::MAX).unwrap();
    assert_eq!(kept.len() as u64, EVENTS_KEPT);
    assert_eq!(kept[0].cursor, 6);
}

#[test]
fn a_second_process_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let _first = EmbeddedStore::open(&path).unwrap();
    assert!(matches!(
        EmbeddedStore::open(&path),
        Err(StoreError::InUse { .. })
    ));
}

#[test]
fn an_unusable_place_is_refused_with_its_path() {
    let error = EmbeddedStore::open(Path::new("/nonexistent-sluicegate/s")).unwrap_err();
    assert!(matches!(&error, StoreError::Open { .. }), "{error:?}");
    assert!(error.to_string().contains("/nonexistent-sluicegate/s"));
    // A device that is always full takes no byte.
    assert!(EmbeddedStore::open(Path::new("/dev/full")).is_err());
}

#[test]
fn rubbish_is_not_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    fs::write(&path, [0x5a; 8192]).unwrap();
    assert!(EmbeddedStore::open(&path).is_err());
}

#[test]
fn another_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    {
        let database = Database::create(&path).unwrap();
        let write = database.begin_write().unwrap();
        write
            .open_table(META)
            .unwrap()
            .insert("format", 99)
            .unwrap();
        write.commit().unwrap();
    }
    assert!(matches!(
        EmbeddedStore::open(&path),
        Err(StoreError::Format { found: 99, .. })
    ));
}

#[test]
fn a_store_that_is_taken_away_does_not_probe() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let store = EmbeddedStore::open(&path).unwrap();
    store.probe().unwrap();
    let aside = dir.path().join("aside");
    fs::rename(&path, &aside).unwrap();
    assert!(matches!(store.probe(), Err(StoreError::Vanished { .. })));
    fs::write(&path, b"another file").unwrap();
    assert!(matches!(store.probe(), Err(StoreError::Vanished { .. })));
    fs::rename(&aside, &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    store.probe().unwrap();
}
