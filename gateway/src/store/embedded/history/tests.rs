#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use std::path::Path;

use super::*;
use crate::store::{Batch, EmbeddedStore, Store};

fn told(store: &EmbeddedStore, of: &str, count: usize, keep: u64) {
    let event = NewEvent {
        of: of.into(),
        body: of.into(),
    };
    let batch = Batch {
        events: vec![event; count],
        keep_events: Some(keep),
        ..Batch::default()
    };
    store.commit(&batch).unwrap();
}

fn kept(store: &EmbeddedStore) -> Vec<(u64, String)> {
    let kept = store.events(0, usize::MAX).unwrap();
    let one =
        |event: crate::store::StoredEvent| (event.cursor, String::from_utf8(event.body).unwrap());
    kept.into_iter().map(one).collect()
}

fn of(store: &EmbeddedStore, namespace: &str) -> Vec<u64> {
    let kept = kept(store).into_iter();
    kept.filter(|(_, of)| of == namespace)
        .map(|(cursor, _)| cursor)
        .collect()
}

#[test]
fn noise_pushes_out_its_own_history() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&dir.path().join("s")).unwrap();
    told(&store, "quiet", 3, 10);
    told(&store, "loud", 50, 10);
    assert_eq!(of(&store, "quiet"), [1, 2, 3]);
    assert_eq!(of(&store, "loud"), (47..=53).collect::<Vec<_>>());
    let lost = store.dropped("loud").unwrap();
    assert_eq!((lost.events, lost.last), (43, 46));
    assert_eq!(store.dropped("quiet").unwrap(), Dropped::default());
    // Two that are as loud share what there is; one that comes late gets its own.
    told(&store, "other", 50, 10);
    assert_eq!(
        (of(&store, "loud").len(), of(&store, "other").len()),
        (3, 4)
    );
    told(&store, "late", 1, 10);
    assert_eq!(of(&store, "late"), [104]);
    assert_eq!(of(&store, "quiet"), [1, 2, 3]);
    let cursors: Vec<u64> = kept(&store).iter().map(|(cursor, _)| *cursor).collect();
    assert!(cursors.is_sorted() && cursors.len() == 10, "{cursors:?}");
}

#[test]
fn more_namespaces_than_events_keep_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&dir.path().join("s")).unwrap();
    for n in 0..20 {
        told(&store, &format!("n{n}"), 1, 5);
    }
    let cursors: Vec<u64> = kept(&store).iter().map(|(cursor, _)| *cursor).collect();
    assert_eq!(cursors, [16, 17, 18, 19, 20]);
    told(&store, "n20", 1, 0);
    assert_eq!(kept(&store).len(), 1, "cursors go on from the last");
    told(&store, "n21", 1, 5);
    assert_eq!(of(&store, "n21"), [22]);
}

/// A bound that was lowered is reached step by step, by commits that bring nothing too.
#[test]
fn no_commit_drops_all_that_a_lower_bound_lets_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&dir.path().join("s")).unwrap();
    let all = 2 * CATCHING_UP + 10;
    told(&store, "a", all, u64::MAX);
    told(&store, "a", 5, 10);
    assert_eq!(kept(&store).len(), all - CATCHING_UP);
    told(&store, "a", 0, 10);
    assert_eq!(kept(&store).len(), 10);
    let last = u64::try_from(all).unwrap() + 5;
    assert_eq!(of(&store, "a"), (last - 9..=last).collect::<Vec<_>>());
    let lost = store.dropped("a").unwrap();
    assert_eq!((lost.events, lost.last), (last - 10, last - 10));
}

/// What an older version does with the file: it appends, drops the oldest, and knows of no shares.
fn older(path: &Path, append: u64, stale: u64) {
    let database = Database::create(path).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut events = write.open_table(EVENTS).unwrap();
        let last = events
            .last()
            .unwrap()
            .map_or(0, |(cursor, _)| cursor.value());
        for cursor in last + 1..=last + append {
            events.insert(cursor, b"old".as_slice()).unwrap();
        }
        events.retain_in(..=stale, |_, _| false).unwrap();
    }
    write.commit().unwrap();
}

#[test]
fn what_an_older_version_wrote_is_counted_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    {
        let store = EmbeddedStore::open(&path).unwrap();
        told(&store, "a", 4, 100);
        told(&store, "b", 4, 100);
    }
    // As many as it dropped: the number alone would not tell.
    older(&path, 5, 5);
    let store = EmbeddedStore::open(&path).unwrap();
    assert_eq!(of(&store, "b"), [6, 7, 8]);
    let lost = |of: &str| store.dropped(of).unwrap();
    assert_eq!((lost("a").events, lost("a").last), (4, 4));
    assert_eq!((lost("b").events, lost("b").last), (1, 5));
    // Its own are one share, and the largest here until it has as many as another.
    told(&store, "b", 1, 7);
    assert_eq!(of(&store, "b"), [7, 8, 14]);
    assert_eq!(of(&store, "old"), [10, 11, 12, 13]);
}
