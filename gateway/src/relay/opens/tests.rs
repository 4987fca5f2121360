#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{os::unix::fs::FileExt, path::Path};

use sluicegate_policy::Denial;
use sluicegate_relay_protocol::{Instance, Once};

use super::{
    INSTANCES, Opens, REMEMBERED, Room,
    journal::{BLOCK, Journal, Left, LeftBehind},
    name,
};
use crate::session::SessionKey;

const TAKEN: Result<(), Denial> = Err(Denial::AlreadyOpened);
const START: u64 = 1_000_000;

fn first(number: u64) -> Once {
    let tried = Vec::new();
    Once { number, tried }
}

fn again(number: u64, tried: &[Instance]) -> Once {
    let tried = tried.to_vec();
    Once { number, tried }
}

fn session(id: &str) -> SessionKey {
    SessionKey {
        namespace: "default".into(),
        provider: "local".into(),
        id: id.into(),
    }
}

/// With room for so many blocks.
fn small(path: &Path, all: usize, one: usize) -> Opens {
    Opens::with(path, Room { all, one }).unwrap()
}

/// One session's first opens, numbered from `from`, at this time.
fn flood(opens: &Opens, session: u64, from: u64, blocks: usize, now: u64) {
    for number in from..from + (blocks * BLOCK) as u64 {
        assert_eq!(opens.take_at(session, &first(number), now), Ok(()));
    }
}

#[test]
fn an_open_is_taken_once() {
    let dir = tempfile::tempdir().unwrap();
    let opens = Opens::open(&dir.path().join("opens")).unwrap();
    let (one, here) = (session("one"), [opens.instance()]);
    assert_eq!(opens.take(&one, &first(1)), Ok(()));
    assert_eq!(opens.take(&one, &again(1, &here)), TAKEN);
    // The first attempt that arrives after the second.
    assert_eq!(opens.take(&one, &again(2, &here)), Ok(()));
    assert_eq!(opens.take(&one, &first(2)), TAKEN);
    // What another gateway has taken nobody knows.
    let elsewhere = Instance::new([7; 16]);
    assert_eq!(opens.take(&one, &again(3, &[here[0], elsewhere])), TAKEN);
    assert_eq!(opens.take(&one, &again(3, &here)), Ok(()));
    // Another session's open is another one.
    assert_eq!(opens.take(&session("two"), &again(3, &here)), Ok(()));
}

#[test]
fn the_next_process_knows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("opens");
    let key = session("one");
    let mut before = Vec::new();
    for round in 0..INSTANCES as u64 + 2 {
        // Nothing is written at its end: killed, it leaves the same.
        let opens = Opens::open(&path).unwrap();
        assert_eq!(opens.take(&key, &first(round)), Ok(()));
        before.push(opens.instance());
    }
    let opens = Opens::open(&path).unwrap();
    let last = *before.last().unwrap();
    for number in 0..before.len() as u64 {
        assert_eq!(opens.take(&key, &again(number, &[last])), TAKEN, "{number}");
    }
    assert_eq!(opens.take(&session("two"), &again(0, &[last])), Ok(()));
    assert_eq!(opens.take(&key, &again(100, &[last, before[3]])), Ok(()));
    // Too long ago.
    assert_eq!(opens.take(&key, &again(101, &[before[0]])), TAKEN);
}

#[test]
fn a_file_that_cannot_be_believed_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("opens");
    let key = session("one");
    for (what, offset, bytes) in [
        ("of another form", 0, [0; 16]),
        ("of before the machine's start", 16, [1; 16]),
        ("of another clock", 528, [0x7f; 16]),
    ] {
        let opens = Opens::open(&path).unwrap();
        let gone = [opens.instance()];
        opens.take(&key, &first(1)).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&bytes, offset).unwrap();
        let next = Opens::open(&path).unwrap();
        assert_eq!(next.take(&key, &again(2, &gone)), TAKEN, "{what}");
    }
    std::fs::write(&path, b"").unwrap();
    assert!(Opens::open(&path).is_ok());
}

/// The next process, as it would start now. (Its own start reads the real clock, which is not the test's.)
fn left_behind(path: &Path, now: u64) -> super::LeftBehind {
    super::LeftBehind::read(path, now)
}

#[test]
fn who_floods_forgets_his_own_opens_and_nobody_elses() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("opens");
    let opens = small(&path, 8, 4);
    let here = [opens.instance()];
    let (loud, quiet) = (name(&session("loud")), name(&session("quiet")));
    assert_eq!(opens.take_at(quiet, &first(7), START), Ok(()));
    flood(&opens, loud, 0, 4, START);
    assert_eq!(opens.take_at(loud, &again(0, &here), START), TAKEN);
    assert_eq!(opens.take_at(quiet, &again(7, &here), START), TAKEN);
    flood(&opens, loud, 1000, 20, START + 1);
    // What it has forgotten it cannot tell from what never came.
    assert_eq!(opens.take_at(loud, &again(9999, &here), START + 1), TAKEN);
    assert_eq!(opens.take_at(loud, &first(9999), START + 1), Ok(()));
    // The neighbour's memory is whole.
    assert_eq!(opens.take_at(quiet, &again(7, &here), START + 1), TAKEN);
    assert_eq!(opens.take_at(quiet, &again(8, &here), START + 1), Ok(()));
    let left = left_behind(&path, START + 2);
    let blocks = |of| left.blocks.iter().filter(move |block| block.session == of);
    assert_eq!((blocks(loud).count(), blocks(quiet).count()), (4, 1));
    assert!(blocks(loud).any(|block| block.forgotten >= START));
    assert!(blocks(quiet).all(|block| block.forgotten == 0));
    // When those would have been forgotten anyway, it may ask again.
    let kept = u64::try_from(REMEMBERED.as_millis()).unwrap();
    let later = START + 1 + kept;
    assert_eq!(opens.take_at(loud, &again(10_000, &here), later), Ok(()));
}

#[test]
fn where_all_is_used_up_whoever_has_most_gives() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("opens");
    let opens = small(&path, 6, 4);
    let here = [opens.instance()];
    flood(&opens, 1, 0, 4, START);
    flood(&opens, 2, 0, 2, START);
    // There is no block left; the third takes the first one's oldest.
    assert_eq!(opens.take_at(3, &first(1), START), Ok(()));
    assert_eq!(opens.take_at(3, &again(1, &here), START), TAKEN);
    assert_eq!(opens.take_at(3, &again(2, &here), START), Ok(()));
    assert_eq!(opens.take_at(2, &again(0, &here), START), TAKEN);
    // So does the second, which has less too.
    assert_eq!(opens.take_at(2, &again(999, &here), START), Ok(()));
    let last = 3 * BLOCK as u64;
    assert_eq!(opens.take_at(1, &first(last), START), TAKEN);
    assert_eq!(opens.take_at(1, &again(999, &here), START), TAKEN);
    // The next process knows that the first one has forgotten something.
    let left = left_behind(&path, START);
    let forgotten = |of| {
        let blocks = left.blocks.iter().filter(|block| block.session == of);
        blocks.map(|block| block.forgotten).max()
    };
    assert_eq!((forgotten(1), forgotten(3)), (Some(START), Some(0)));
}

#[test]
fn more_sessions_than_blocks_are_not_asked_about() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("opens");
    let opens = small(&path, 2, 1);
    let here = [opens.instance()];
    for session in 1..=2 {
        assert_eq!(opens.take_at(session, &first(1), START), Ok(()));
    }
    assert_eq!(opens.take_at(1, &again(2, &here), START), Ok(()));
    // There is no room for a third: it goes on, and nobody knows of it.
    assert_eq!(opens.take_at(3, &first(1), START), Ok(()));
    for session in 1..=3 {
        assert_eq!(opens.take_at(session, &again(9, &here), START), TAKEN);
    }
    assert_eq!(left_behind(&path, START).unremembered, START);
    // What has passed makes room.
    let kept = u64::try_from(REMEMBERED.as_millis()).unwrap();
    assert_eq!(opens.take_at(3, &again(9, &here), START + kept), Ok(()));
    assert_eq!(opens.take_at(3, &again(9, &here), START + kept), TAKEN);
}

/// A process that is killed between a block's head and its first open leaves one that holds nothing but what was forgotten.
#[test]
fn an_inherited_block_without_opens_passes_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("opens");
    let forgotten = super::now().unwrap();
    let empty = Left {
        session: 1,
        forgotten,
        taken: Vec::new(),
    };
    let left = LeftBehind {
        blocks: vec![empty],
        ..LeftBehind::default()
    };
    drop(Journal::begin(&path, &left).unwrap());
    let opens = small(&path, 2, 1);
    let here = [opens.instance()];
    // It says that something is forgotten for as long as that matters.
    assert_eq!(opens.take_at(1, &again(1, &here), forgotten), TAKEN);
    let kept = u64::try_from(REMEMBERED.as_millis()).unwrap();
    let later = forgotten + kept;
    assert_eq!(opens.take_at(2, &first(1), later), Ok(()));
    // Then it is the next one's, whose opens are remembered.
    assert_eq!(opens.take_at(3, &first(1), later), Ok(()));
    assert_eq!(opens.take_at(3, &again(1, &here), later), TAKEN);
    assert_eq!(opens.take_at(3, &again(2, &here), later), Ok(()));
}

#[test]
fn what_is_written_behind_no_head_is_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("opens");
    let opens = small(&path, 2, 1);
    flood(&opens, 1, 0, 1, START);
    assert_eq!(left_behind(&path, START).blocks.len(), 1);
    // As after a write that failed.
    std::fs::write(&path, b"").unwrap();
    assert_eq!(opens.take_at(2, &first(1), START), Ok(()));
    let left = left_behind(&path, START);
    assert!(left.known.is_empty() && left.blocks.is_empty());
}
