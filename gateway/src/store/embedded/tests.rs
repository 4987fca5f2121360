#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use std::os::unix::fs::PermissionsExt;

use super::{hooks::DEAD_KEPT, *};
use crate::store::NewEvent;

fn of(namespace: &str, body: &[u8]) -> NewEvent {
    NewEvent {
        of: namespace.into(),
        body: body.into(),
    }
}

fn batch(key: &str, row: &[u8], events: &[&[u8]]) -> Batch {
    Batch {
        put: vec![(key.into(), row.to_vec())],
        events: events.iter().map(|body| of("n", body)).collect(),
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
    let many = |count: usize, keep| Batch {
        events: vec![of("n", b"e"); count],
        keep_events: Some(keep),
        ..Batch::default()
    };
    assert_eq!(store.commit(&many(105, 100)).unwrap(), 105);
    let cursors = || -> Vec<u64> {
        let kept = store.events(0, usize::MAX).unwrap();
        kept.iter().map(|event| event.cursor).collect()
    };
    assert_eq!(cursors(), (6..=105).collect::<Vec<_>>());
    // Fewer are kept from the next commit on, whatever that changes.
    store.commit(&many(0, 3)).unwrap();
    assert_eq!(cursors(), [103, 104, 105]);
    assert_eq!(store.commit(&many(2, 100)).unwrap(), 107);
    assert_eq!(cursors(), [103, 104, 105, 106, 107]);
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

/// Whoever made it empty has lost what was in it: that is not to begin anew.
#[test]
fn an_empty_file_is_no_new_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    EmbeddedStore::open(&path)
        .unwrap()
        .commit(&batch("a", b"1", &[]))
        .unwrap();
    fs::write(&path, b"").unwrap();
    let refused = EmbeddedStore::open(&path).unwrap_err();
    assert!(matches!(refused, StoreError::Empty { .. }), "{refused:?}");
    assert!(
        refused
            .to_string()
            .contains("remove the file to begin anew")
    );
    assert!(matches!(
        super::verify::file(&path),
        Err(StoreError::Empty { .. })
    ));
    assert_eq!(fs::read(&path).unwrap(), b"", "it is left as it was");
    fs::remove_file(&path).unwrap();
    EmbeddedStore::open(&path).unwrap();
}

/// A start that was cut short leaves nothing in the next one's way.
#[test]
fn a_store_stands_at_its_path_once_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    fs::write(dir.path().join("s.new"), b"half a sto").unwrap();
    drop(EmbeddedStore::open(&path).unwrap());
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
    let names: Vec<_> = names.iter().map(|one| one.file_name()).collect();
    assert_eq!(names, ["s"]);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
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
    store.probe(SystemTime::now()).unwrap();
    let aside = dir.path().join("aside");
    fs::rename(&path, &aside).unwrap();
    assert!(matches!(
        store.probe(SystemTime::now()),
        Err(StoreError::Vanished { .. })
    ));
    fs::write(&path, b"another file").unwrap();
    assert!(matches!(
        store.probe(SystemTime::now()),
        Err(StoreError::Vanished { .. })
    ));
    fs::rename(&aside, &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    store.probe(SystemTime::now()).unwrap();
}

/// Of records of one byte each, four of which are kept: the last one's number, and bytes dropped.
fn append(store: &EmbeddedStore, key: &str, range: std::ops::Range<u64>, room: u64) -> (u64, u64) {
    let records: Vec<Vec<u8>> = range.map(|n| n.to_string().into_bytes()).collect();
    let appended = store.append_log(key, &records, 4, room).unwrap();
    (appended.last, appended.dropped)
}

#[test]
fn the_oldest_records_of_a_log_make_room_for_its_newest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let store = EmbeddedStore::open(&path).unwrap();
    assert_eq!(append(&store, "a", 1..4, 0), (3, 0));
    assert_eq!(append(&store, "ab", 1..3, 0), (2, 0));
    assert_eq!(append(&store, "a", 4..5, 2), (4, 2));
    assert_eq!(store.log("a", 0, 9).unwrap().first, 3);
    let sizes = |store: &EmbeddedStore| store.load().unwrap().logs;
    assert_eq!(sizes(&store), [("a".to_owned(), 2), ("ab".to_owned(), 2)]);
    // All there are, where more room is asked for; numbers go on.
    assert_eq!(append(&store, "a", 5..6, 9), (5, 2));
    assert_eq!(store.log("a", 0, 9).unwrap().first, 5);
    drop(store);
    let store = EmbeddedStore::open(&path).unwrap();
    assert_eq!(sizes(&store), [("a".to_owned(), 1), ("ab".to_owned(), 2)]);
}

#[test]
fn a_log_keeps_its_newest_records_and_goes_with_its_session() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&dir.path().join("s")).unwrap();
    assert_eq!(store.log("a", 0, 10).unwrap().first, 1, "nothing yet");
    assert_eq!(append(&store, "a", 1..6, 0), (5, 1));
    assert_eq!(append(&store, "ab", 1..2, 0), (1, 0));
    assert_eq!(append(&store, "a", 6..8, 0), (7, 2));
    let page = store.log("a", 0, 2).unwrap();
    assert_eq!((page.first, page.last), (4, 7));
    assert_eq!(page.records, [(4, b"4".to_vec()), (5, b"5".to_vec())]);
    let rest = store.log("a", 6, 9).unwrap();
    assert_eq!(rest.records, [(7, b"7".to_vec())]);
    let gone = Batch {
        remove: vec!["a".into()],
        ..Batch::default()
    };
    store.commit(&gone).unwrap();
    assert_eq!(store.log("a", 0, 9).unwrap().last, 0);
    assert_eq!(
        store.log("ab", 0, 9).unwrap().last,
        1,
        "its neighbour keeps its own"
    );
}

/// A store as format 1 left it: three tables and the meta row.
fn format_1(path: &Path, rows: &[(&str, &[u8])]) {
    let database = Database::create(path).unwrap();
    let write = database.begin_write().unwrap();
    {
        write.open_table(META).unwrap().insert("format", 1).unwrap();
        let mut sessions = write.open_table(SESSIONS).unwrap();
        for (key, row) in rows {
            sessions.insert(*key, *row).unwrap();
        }
        let mut revoked = write.open_table(REVOKED).unwrap();
        revoked.insert("jti", 7).unwrap();
        let mut events = write.open_table(EVENTS).unwrap();
        events.insert(41, b"old".as_slice()).unwrap();
    }
    write.commit().unwrap();
}

#[test]
fn the_format_before_this_one_is_brought_up_to_date_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    format_1(&path, &[("a", b"1")]);
    {
        let store = EmbeddedStore::open(&path).unwrap();
        let loaded = store.load().unwrap();
        assert_eq!(loaded.sessions, [("a".to_owned(), b"1".to_vec())]);
        assert_eq!(loaded.revoked, [("jti".to_owned(), 7)]);
        assert_eq!(store.commit(&batch("b", b"2", &[b"new"])).unwrap(), 42);
        let line = store.append_log("a", &[b"line".to_vec()], 9, 0);
        assert_eq!(line.unwrap().last, 1);
    }
    let database = Database::create(&path).unwrap();
    let read = database.begin_read().unwrap();
    let meta = read.open_table(META).unwrap();
    assert_eq!(meta.get("format").unwrap().unwrap().value(), FORMAT);
}

#[test]
fn a_format_of_the_future_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    for found in [0, FORMAT + 1] {
        format_1(&path, &[]);
        {
            let database = Database::create(&path).unwrap();
            let write = database.begin_write().unwrap();
            write
                .open_table(META)
                .unwrap()
                .insert("format", found)
                .unwrap();
            write.commit().unwrap();
        }
        let refused = EmbeddedStore::open(&path).unwrap_err();
        assert!(
            matches!(refused, StoreError::Format { found: told, .. } if told == found),
            "{refused:?}"
        );
    }
}

#[test]
fn a_webhook_goes_on_where_it_was_and_its_dead_letters_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    {
        let store = EmbeddedStore::open(&path).unwrap();
        assert_eq!(store.webhook_cursor("a").unwrap(), None);
        store.webhook_settle("a", 3, None).unwrap();
        for cursor in 4..=DEAD_KEPT + 6 {
            store.webhook_settle("a", cursor, Some(b"x")).unwrap();
        }
        store.webhook_settle("b", 9, Some(b"y")).unwrap();
    }
    let store = EmbeddedStore::open(&path).unwrap();
    assert_eq!(store.webhook_cursor("a").unwrap(), Some(DEAD_KEPT + 6));
    let kept = store.webhook_dead("a", usize::MAX).unwrap();
    assert_eq!(kept.len() as u64, DEAD_KEPT);
    assert_eq!(kept[0].0, 7, "the oldest went");
    let newest = store.webhook_dead("a", 1).unwrap();
    assert_eq!(newest, [(DEAD_KEPT + 6, b"x".to_vec())]);
    assert_eq!(store.webhook_dead("b", 9).unwrap().len(), 1);
}

#[test]
fn nothing_is_acknowledged_that_goes_into_a_file_nobody_will_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let store = EmbeddedStore::open(&path).unwrap();
    store.commit(&batch("a", b"1", &[b"made"])).unwrap();
    let aside = dir.path().join("aside");
    fs::rename(&path, &aside).unwrap();
    let gone = |found: Result<u64, StoreError>| {
        assert!(
            matches!(found, Err(StoreError::Vanished { .. })),
            "{found:?}"
        );
    };
    gone(store.commit(&batch("b", b"2", &[b"lost"])));
    let line = store.append_log("a", &[b"line".to_vec()], 9, 0);
    gone(line.map(|appended| appended.last));
    gone(store.webhook_settle("w", 1, None).map(|()| 0));
    fs::rename(&aside, &path).unwrap();
    assert_eq!(store.commit(&batch("c", b"3", &[b"kept"])).unwrap(), 2);
    let keys: Vec<_> = store
        .load()
        .unwrap()
        .sessions
        .into_iter()
        .map(|row| row.0)
        .collect();
    assert_eq!(keys, ["a", "c"]);
}

#[test]
fn a_file_that_somebody_else_wrote_to_is_not_written_on() {
    for damage in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let store = EmbeddedStore::open(&path).unwrap();
        let before = fs::read(&path).unwrap();
        store.commit(&batch("a", b"1", &[b"made"])).unwrap();
        store.probe(SystemTime::now()).unwrap();
        match damage {
            // An older copy, put in place over the one that is open.
            0 => fs::write(&path, before).unwrap(),
            1 => fs::write(&path, vec![0x5a; before.len()]).unwrap(),
            2 => {
                let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.set_len(file.metadata().unwrap().len() / 8).unwrap();
            }
            _ => fs::OpenOptions::new()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(0)
                .unwrap(),
        }
        let refused = store.commit(&batch("b", b"2", &[b"lost"]));
        assert!(
            matches!(refused, Err(StoreError::Vanished { .. })),
            "{damage}: {refused:?}"
        );
        assert!(store.probe(SystemTime::now()).is_err(), "{damage}");
    }
}

#[test]
fn what_was_found_of_providers_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let batch = Batch {
        profiles: vec![("p".into(), b"x".to_vec())],
        ..Batch::default()
    };
    EmbeddedStore::open(&path).unwrap().commit(&batch).unwrap();
    let loaded = EmbeddedStore::open(&path).unwrap().load().unwrap();
    assert_eq!(loaded.profiles, [("p".to_owned(), b"x".to_vec())]);
}

#[test]
fn a_dead_letter_is_taken_back_or_given_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&dir.path().join("s")).unwrap();
    for cursor in [3, 4] {
        store.webhook_settle("a", cursor, Some(b"x")).unwrap();
    }
    store.webhook_letter("a", 3, Some(b"again")).unwrap();
    store.webhook_letter("a", 4, None).unwrap();
    // Neither was there, or is there any more.
    store.webhook_letter("a", 4, Some(b"late")).unwrap();
    store.webhook_letter("b", 3, Some(b"other")).unwrap();
    assert_eq!(
        store.webhook_dead("a", 9).unwrap(),
        [(3, b"again".to_vec())]
    );
    assert!(store.webhook_dead("b", 9).unwrap().is_empty());
    assert_eq!(
        store.webhook_cursor("a").unwrap(),
        Some(4),
        "its place stays"
    );
}

/// Neither is what it leads to made, nor is it replaced: the store it was for is away, not gone.
#[test]
fn a_link_that_leads_nowhere_is_no_place_for_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let (path, target) = (dir.path().join("s"), dir.path().join("away"));
    std::os::unix::fs::symlink(&target, &path).unwrap();
    let still = || {
        assert_eq!(fs::read_link(&path).unwrap(), target);
        assert!(fs::symlink_metadata(&target).is_err(), "it was made");
        let names = fs::read_dir(dir.path()).unwrap();
        assert_eq!(names.count(), 1, "something is left beside it");
    };
    let refused = EmbeddedStore::open(&path).unwrap_err();
    assert!(matches!(refused, StoreError::Open { .. }), "{refused:?}");
    still();
    // And where it came to be while the store was made.
    open::make(&dir.path().join("s.new"), &path).unwrap();
    still();
    // The store comes back.
    drop(EmbeddedStore::open(&target).unwrap());
    EmbeddedStore::open(&path).unwrap();
    assert_eq!(fs::read_link(&path).unwrap(), target);
}
