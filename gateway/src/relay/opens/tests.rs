#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::os::unix::fs::FileExt;

use sluicegate_policy::Denial;
use sluicegate_relay_protocol::{Instance, Once};

use super::{INSTANCES, Journal, Opens, PLACES, REMEMBERED};

const TAKEN: Result<(), Denial> = Err(Denial::AlreadyOpened);

fn first(number: u64) -> Once {
    let tried = Vec::new();
    Once { number, tried }
}

fn again(number: u64, tried: &[Instance]) -> Once {
    let tried = tried.to_vec();
    Once { number, tried }
}

#[test]
fn an_open_is_taken_once() {
    let dir = tempfile::tempdir().unwrap();
    let opens = Opens::open(&dir.path().join("opens")).unwrap();
    let here = [opens.instance()];
    assert_eq!(opens.take(&first(1)), Ok(()));
    assert_eq!(opens.take(&again(1, &here)), TAKEN);
    // The first attempt that arrives after the second.
    assert_eq!(opens.take(&again(2, &here)), Ok(()));
    assert_eq!(opens.take(&first(2)), TAKEN);
    // What another gateway has taken nobody knows.
    let elsewhere = Instance::new([7; 16]);
    assert_eq!(opens.take(&again(3, &[here[0], elsewhere])), TAKEN);
    assert_eq!(opens.take(&again(3, &here)), Ok(()));
}

#[test]
fn the_next_process_knows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("opens");
    let mut before = Vec::new();
    for round in 0..INSTANCES as u64 + 2 {
        // Nothing is written at its end: killed, it leaves the same.
        let opens = Opens::open(&path).unwrap();
        assert_eq!(opens.take(&first(round)), Ok(()));
        before.push(opens.instance());
    }
    let opens = Opens::open(&path).unwrap();
    let last = *before.last().unwrap();
    for number in 0..before.len() as u64 {
        assert_eq!(opens.take(&again(number, &[last])), TAKEN, "{number}");
    }
    assert_eq!(opens.take(&again(100, &[last, before[3]])), Ok(()));
    // Too long ago.
    assert_eq!(opens.take(&again(101, &[before[0]])), TAKEN);
}

#[test]
fn a_file_that_cannot_be_believed_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("opens");
    for (what, offset, bytes) in [
        ("of another form", 0, [0; 16]),
        ("of before the machine's start", 16, [1; 16]),
        ("of another clock", 160, [0x7f; 16]),
    ] {
        let opens = Opens::open(&path).unwrap();
        let gone = [opens.instance()];
        opens.take(&first(1)).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&bytes, offset).unwrap();
        let next = Opens::open(&path).unwrap();
        assert_eq!(next.take(&again(2, &gone)), TAKEN, "{what}");
    }
    std::fs::write(&path, b"").unwrap();
    assert!(Opens::open(&path).is_ok());
}

#[test]
fn what_is_forgotten_too_early_is_not_asked_about() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("opens");
    let opens = Opens::open(&path).unwrap();
    let here = [opens.instance()];
    let kept = u64::try_from(REMEMBERED.as_millis()).unwrap();
    let start = 1_000_000;
    let mut memory = opens.memory.lock().unwrap();
    for number in 0..PLACES as u64 {
        assert!(memory.take(&first(number), start + number / 1000));
    }
    assert!(!memory.take(&again(0, &here), start + 500));
    assert!(memory.take(&again(u64::MAX, &here), start + 500));
    // One more than there is room for: the first one is gone.
    assert!(memory.take(&first(0), start + 500));
    assert!(!memory.take(&again(u64::MAX - 1, &here), start + 500));
    assert!(memory.take(&first(u64::MAX - 1), start + 500));
    let (known, left) = Journal::left_behind(&path, start + 500);
    assert_eq!(known, here);
    assert_eq!(left.len(), PLACES);
    assert_eq!(left.last().unwrap().number, u64::MAX - 1);
    // When those would have been forgotten anyway, the rest is known again.
    assert!(memory.take(&again(u64::MAX - 2, &here), start + kept + 1));
    assert!(memory.order.len() < PLACES);
    let (_, left) = Journal::left_behind(&path, start + kept + 1);
    assert_eq!(left.len(), memory.order.len());
}
