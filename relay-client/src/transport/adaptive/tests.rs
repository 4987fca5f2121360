#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use proptest::prelude::*;

use super::{Adaptive, most};
use crate::transport::windows::{LARGE_CONNECTION, OFFERS, STREAM, STREAMS};

const ROUND: Duration = Duration::from_millis(100);

/// What all streams of a connection may hold is below its window, by more than an eighth: room for what is short.
#[test]
fn all_streams_at_once_fit_into_the_connection() {
    let held: u64 = (1..=STREAMS + OFFERS).map(|n| u64::from(most(n))).sum();
    assert_eq!(held, 116 << 20, "as the documentation says");
    assert!(held + u64::from(LARGE_CONNECTION) / 8 < u64::from(LARGE_CONNECTION));
    assert_eq!(most(1), 8 << 20);
    assert!((1..200).all(|n| most(n) >= most(n + 1) && most(n + 1) >= STREAM));
}

/// Of one stream, over a path that carries so many bytes a second at most.
fn grown(windows: &mut Adaptive, path: u64) -> u32 {
    for _ in 0..20 {
        let window = u64::from(windows.told());
        windows.round(window.min(path / 10), ROUND);
        if let Some(window) = windows.to_tell() {
            windows.has_told(window);
        }
    }
    windows.told()
}

#[test]
fn a_window_grows_with_the_path_and_no_further() {
    let grows = |path| {
        let mut windows = Adaptive::default();
        assert_eq!(windows.opens(), most(1));
        grown(&mut windows, path)
    };
    // 1 Mbit/s up to 800: bytes in 100 ms, and the power of two that is twice that or more.
    assert_eq!(grows(125_000), STREAM);
    assert_eq!(grows(2_000_000), STREAM);
    assert_eq!(grows(12_500_000), 8 * STREAM);
    assert_eq!(grows(40_000_000), 16 * STREAM);
    assert_eq!(grows(u64::MAX), most(1));
}

#[test]
fn a_path_that_gets_no_faster_gets_no_larger_window() {
    let mut windows = Adaptive::default();
    windows.opens();
    // Whatever is sent stands in a queue: a window takes as long as it is large.
    for _ in 0..20 {
        let window = windows.told();
        windows.round(window.into(), ROUND * (window / STREAM));
        if let Some(window) = windows.to_tell() {
            windows.has_told(window);
        }
    }
    assert_eq!(windows.told(), 2 * STREAM, "it is tried once");
}

/// What stood in its buffer and what comes meanwhile are passed on in one round.
#[test]
fn a_reader_that_stood_still_hides_no_path_that_is_wider() {
    let mut windows = Adaptive::default();
    windows.opens();
    assert!(windows.round(2 * u64::from(STREAM), ROUND));
    windows.has_told(2 * STREAM);
    // It keeps up from here on.
    assert_eq!(grown(&mut windows, u64::MAX), most(1));
}

#[test]
fn what_was_not_told_yet_grows_no_further() {
    let mut windows = Adaptive::default();
    windows.opens();
    assert!(windows.round(STREAM.into(), ROUND));
    assert!(!windows.round(u64::MAX, ROUND));
    windows.has_told(2 * STREAM);
    assert!(windows.round(2 * u64::from(STREAM), ROUND));
}

#[test]
fn the_next_stream_waits_until_the_window_is_right_for_it() {
    let mut windows = Adaptive::default();
    for _ in 0..4 {
        assert_eq!(windows.opens(), most(4));
    }
    assert_eq!(grown(&mut windows, u64::MAX), most(4));
    assert_eq!(windows.to_tell(), None);
    assert_eq!(windows.opens(), most(5));
    assert_eq!(windows.to_tell(), Some(most(5)));
    assert!(windows.told() > most(5), "it waits");
    windows.closes();
    assert_eq!(
        windows.to_tell(),
        Some(most(5)),
        "who waits still waits for it"
    );
}

/// One stream as the peer may treat it, at its worst.
#[derive(Clone, Debug)]
struct Stream {
    /// What the peer was told must fit this, before it hears of the stream.
    waits_for: u32,
    opened: bool,
    held: u32,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Opens,
    /// What is to be told is told. (Held back, as h2 does before the last word is acknowledged, it comes later.)
    Tells,
    /// Its reader stands still and the peer sends all that it may.
    Fills(prop::sample::Index),
    /// Its reader takes everything.
    Reads(prop::sample::Index),
    Closes(prop::sample::Index),
    /// So many bytes came through in a round trip of so many milliseconds.
    Round(u32, u16),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => Just(Step::Opens),
        4 => Just(Step::Tells),
        4 => index().prop_map(Step::Fills),
        2 => index().prop_map(Step::Reads),
        3 => index().prop_map(Step::Closes),
        4 => (0..=16 * STREAM, any::<u16>()).prop_map(|(bytes, took)| Step::Round(bytes, took)),
    ]
}

proptest! {
    /// Whatever readers do and in whichever order streams come and go: what stands still and what every other stream may be sent at
    /// once is within the connection's window, with an eighth to spare.
    #[test]
    fn who_reads_is_held_up_by_nobody(steps in proptest::collection::vec(step(), 1..400)) {
        let mut windows = Adaptive::default();
        let mut streams: Vec<Stream> = Vec::new();
        for step in steps {
            match step {
                Step::Opens if streams.len() < STREAMS + OFFERS => {
                    let waits_for = windows.opens();
                    streams.push(Stream { waits_for, opened: false, held: 0 });
                }
                Step::Opens => {}
                Step::Tells => {
                    if let Some(window) = windows.to_tell() {
                        windows.has_told(window);
                    }
                }
                Step::Fills(index) if !streams.is_empty() => {
                    let stream = index.get_mut(&mut streams);
                    if stream.opened {
                        stream.held = stream.held.max(windows.told());
                    }
                }
                Step::Reads(index) if !streams.is_empty() => index.get_mut(&mut streams).held = 0,
                Step::Closes(index) if !streams.is_empty() => {
                    streams.remove(index.index(streams.len()));
                    windows.closes();
                }
                Step::Fills(_) | Step::Reads(_) | Step::Closes(_) => {}
                Step::Round(bytes, took) => {
                    windows.round(bytes.into(), Duration::from_millis(took.into()));
                }
            }
            for stream in &mut streams {
                stream.opened |= windows.fits(stream.waits_for);
            }
            let opened = streams.iter().filter(|stream| stream.opened);
            let most: u64 = opened.map(|stream| u64::from(stream.held.max(windows.told()))).sum();
            prop_assert!(most < u64::from(LARGE_CONNECTION / 8 * 7), "{most}: {streams:?}");
        }
    }
}
