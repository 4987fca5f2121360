#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use std::time::{Duration, SystemTime};

use super::*;
use crate::store::{Batch, EmbeddedStore, NewEvent, Store, embedded::patience::Stamp};

fn event(body: &[u8]) -> NewEvent {
    NewEvent {
        of: "default".into(),
        body: body.into(),
    }
}

/// Two hundred rows of 2 KiB, each with its number in it.
fn filled(path: &Path) -> EmbeddedStore {
    let store = EmbeddedStore::open(path).unwrap();
    for number in 0..200 {
        let row = format!("<needle-{number:03}>{}", "x".repeat(2048));
        let batch = Batch {
            put: vec![(format!("s{number:03}"), row.into_bytes())],
            events: vec![event(b"made")],
            ..Batch::default()
        };
        store.commit(&batch).unwrap();
    }
    let revoke = Batch {
        revoke: vec![("jti".into(), 7)],
        ..Batch::default()
    };
    store.commit(&revoke).unwrap();
    store
}

/// Turn one bit of every place where this stands.
fn flip(path: &Path, needle: &str) {
    let bytes = fs::read(path).unwrap();
    let found: Vec<usize> = bytes
        .windows(needle.len())
        .enumerate()
        .filter(|(_, window)| *window == needle.as_bytes())
        .map(|(at, _)| at)
        .collect();
    assert!(!found.is_empty(), "{needle}");
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    for at in found {
        // Behind the needle, so that it is found again.
        let at = at + needle.len() + 5;
        file.write_all_at(&[bytes[at] ^ 0x20], at as u64).unwrap();
    }
}

fn is_damaged<T: std::fmt::Debug>(found: Result<T, StoreError>) {
    assert!(
        matches!(found, Err(StoreError::Damaged { .. })),
        "{found:?}"
    );
}

#[test]
fn what_is_whole_is_counted_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let (path, crashed) = (dir.path().join("s"), dir.path().join("crashed"));
    let store = filled(&path);
    // As a crash would leave it.
    fs::copy(&path, &crashed).unwrap();
    assert_eq!(store.verify().unwrap().sessions, 200, "while it is in use");
    drop(store);
    for path in [&path, &crashed] {
        let before = fs::read(path).unwrap();
        let verified = file(path).unwrap();
        assert_eq!(verified.bytes, before.len() as u64);
        assert_eq!((verified.sessions, verified.events), (200, 200));
        assert_eq!((verified.revocations, verified.log_records), (1, 0));
        assert!(fs::read(path).unwrap() == before);
        assert_eq!(
            EmbeddedStore::open(path)
                .unwrap()
                .load()
                .unwrap()
                .sessions
                .len(),
            200
        );
    }
}

#[test]
fn what_is_no_store_is_not_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    assert!(matches!(file(&path), Err(StoreError::Open { .. })));
    fs::write(&path, "").unwrap();
    assert!(matches!(file(&path), Err(StoreError::Empty { .. })));
    fs::write(&path, [0x5a; 8192]).unwrap();
    is_damaged(file(&path));
    let mut half = {
        drop(filled(&dir.path().join("whole")));
        fs::read(dir.path().join("whole")).unwrap()
    };
    half.truncate(half.len() / 2);
    fs::write(&path, half).unwrap();
    is_damaged(file(&path));
}

/// Wherever a bit is turned in what belongs to the store, after a shutdown in order and after a crash: nobody begins with it.
#[test]
fn a_bit_that_was_turned_at_rest_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (path, crashed) = (dir.path().join("s"), dir.path().join("crashed"));
    let store = filled(&path);
    fs::copy(&path, &crashed).unwrap();
    drop(store);
    for path in [&path, &crashed] {
        // The last one too: a commit that is damaged is not one that never was.
        for needle in ["<needle-000>", "<needle-107>", "<needle-199>"] {
            flip(path, needle);
            is_damaged(file(path));
            let damaged = fs::read(path).unwrap();
            is_damaged(EmbeddedStore::open(path));
            // What was not whole was not made worse by looking.
            fs::write(path, damaged).unwrap();
            flip(path, needle);
            file(path).unwrap();
        }
    }
}

#[test]
fn a_bit_that_is_turned_in_use_is_found_before_anything_else_happens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let store = filled(&path);
    let commit = || {
        store.commit(&Batch {
            events: vec![event(b"more")],
            ..Batch::default()
        })
    };
    assert_eq!(commit().unwrap(), 201);
    flip(&path, "<needle-050>");
    is_damaged(commit());
    is_damaged(store.probe(SystemTime::now()));
    is_damaged(store.events(0, 9));
    is_damaged(store.load());
    is_damaged(store.verify());
    flip(&path, "<needle-050>");
    store.probe(SystemTime::now()).unwrap();
    assert_eq!(commit().unwrap(), 202);
    assert_eq!(store.load().unwrap().sessions.len(), 200);
}

#[test]
fn what_stays_damaged_is_looked_at_less_and_less_often() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let store = filled(&path);
    let start = SystemTime::now();
    store.probe(start).unwrap();
    flip(&path, "<needle-050>");
    let mut now = start;
    // Ten minutes, as the sweep asks.
    for _ in 0..1200 {
        now += Duration::from_millis(500);
        is_damaged(store.probe(now));
    }
    let looked = store.patience().looked();
    assert!((20..=50).contains(&looked), "{looked}");
    // Somebody asks for it; then its turn comes after a second again.
    store.hasten();
    is_damaged(store.probe(now));
    is_damaged(store.probe(now));
    assert_eq!(store.patience().looked(), 1);
    // And it is mended: that shows at once.
    flip(&path, "<needle-050>");
    store.probe(now).unwrap();
    store.commit(&Batch::default()).unwrap();
    assert_eq!(store.load().unwrap().sessions.len(), 200);
}

#[test]
fn whoever_touches_it_and_leaves_it_whole_is_let_go() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let store = filled(&path);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    store.probe(SystemTime::now()).unwrap();
    flip(&path, "<needle-050>");
    flip(&path, "<needle-050>");
    store.probe(SystemTime::now()).unwrap();
    store.commit(&Batch::default()).unwrap();
}

/// A store of a few rows in every table, small enough to be damaged everywhere.
fn few(path: &Path) {
    let store = EmbeddedStore::open(path).unwrap();
    for number in 0..8 {
        let key = format!("s{number}");
        let batch = Batch {
            put: vec![(key.clone(), vec![b'x'; 600])],
            revoke: vec![(format!("jti{number}"), 7)],
            events: vec![event(b"made")],
            ..Batch::default()
        };
        store.commit(&batch).unwrap();
        let lines = [b"line".to_vec(), b"line".to_vec()];
        store.append_log(&key, &lines, 100, 0).unwrap();
        store.webhook_settle("hook", number, Some(b"dead")).unwrap();
    }
}

/// The page from `at` on with one bit turned, or lost.
fn broken(whole: &[u8], at: usize, lost: bool) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    if lost {
        let end = (at + BLOCK).min(bytes.len());
        bytes[at..end].fill(0);
    } else {
        bytes[at] ^= 0x20;
    }
    bytes
}

/// Every page of so many bytes, and both ways to break it.
fn pages(length: usize) -> impl Iterator<Item = (usize, bool)> {
    let starts = (0..length).step_by(BLOCK);
    starts.flat_map(|at| [(at, false), (at, true)])
}

/// redb takes some damage for a mistake of its own and panics: that is told like any other, at rest and at the start.
#[test]
fn whatever_page_is_damaged_it_is_told_and_nothing_panics() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    few(&path);
    let whole = fs::read(&path).unwrap();
    let mut noticed = 0;
    for (at, lost) in pages(whole.len()) {
        fs::write(&path, broken(&whole, at, lost)).unwrap();
        // What is in no use may be anything.
        match file(&path) {
            Ok(verified) => assert_eq!(verified.sessions, 8, "{at}"),
            Err(StoreError::Damaged { .. }) => {
                noticed += 1;
                is_damaged(EmbeddedStore::open(&path));
            }
            Err(other) => panic!("{at}: {other}"),
        }
    }
    assert!(noticed >= 8, "{noticed}");
}

/// The same in use: nothing is read of it or written to it from then on, and it is good again when it is mended.
#[test]
fn whatever_page_is_damaged_in_use_nothing_is_done_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("s"), dir.path().join("copy"));
    few(&path);
    let store = EmbeddedStore::open(&path).unwrap();
    let mut now = SystemTime::now();
    store.probe(now).unwrap();
    // The clock of a file's changes goes in steps: what is written within one cannot be told apart.
    let write = |bytes: &[u8]| {
        let before = Stamp::of(&path);
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        while Stamp::of(&path) == before {
            file.write_all_at(bytes, 0).unwrap();
        }
    };
    let mut noticed = 0;
    for (at, lost) in pages(fs::read(&path).unwrap().len()) {
        // Opening it anew has written to it.
        let whole = fs::read(&path).unwrap();
        if at >= whole.len() {
            break;
        }
        let bytes = broken(&whole, at, lost);
        fs::write(&copy, &bytes).unwrap();
        if file(&copy).is_ok() {
            continue;
        }
        noticed += 1;
        write(&bytes);
        assert!(store.commit(&Batch::default()).is_err(), "{at}");
        now += Duration::from_secs(60);
        assert!(store.probe(now).is_err(), "{at}");
        assert!(store.verify().is_err(), "{at}");
        write(&whole);
        store.probe(now).unwrap();
        assert_eq!(store.load().unwrap().sessions.len(), 8, "{at}");
    }
    assert!(noticed >= 8, "{noticed}");
    store.commit(&Batch::default()).unwrap();
}
