//! What leaves in one piece, what by itself, and that all of it does.
#![allow(clippy::unwrap_used, clippy::panic)]
use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
    time::Duration,
};

use http::Request;
use proptest::prelude::*;
use tokio::{io::duplex, sync::mpsc, task::JoinSet};
use tokio_util::io::InspectWriter;

use super::{super::Aside, *};

/// Takes so many bytes yet, and tells what it was given at once.
#[derive(Debug)]
struct Sink {
    room: usize,
    taken: Vec<Vec<u8>>,
    flushed: usize,
}

impl Sink {
    fn gathered() -> Gathered<Self> {
        Gathered::new(Self {
            room: usize::MAX,
            taken: Vec::new(),
            flushed: 0,
        })
    }
}

impl AsyncWrite for Sink {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = bytes.len().min(self.room);
        if count == 0 {
            return Poll::Pending;
        }
        self.room -= count;
        self.taken.push(bytes.get(..count).unwrap().to_vec());
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = slices.iter().flat_map(|slice| slice.to_vec());
        self.poll_write(cx, &all.collect::<Vec<_>>())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushed += 1;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

type Io<'a> = Pin<&'a mut Gathered<Sink>>;

fn write(mut io: Io<'_>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<usize> {
    let (head, rest) = bytes.split_at(bytes.len() / 2);
    let slices = [IoSlice::new(head), IoSlice::new(rest)];
    io.as_mut()
        .poll_write_vectored(cx, &slices)
        .map(Result::unwrap)
}

/// As `h2` does with a long frame: what is written is flushed.
fn say(mut io: Io<'_>, cx: &mut Context<'_>, bytes: &[u8]) {
    assert_eq!(write(io.as_mut(), cx, bytes), Poll::Ready(bytes.len()));
    assert!(io.poll_flush(cx).is_ready());
}

fn in_a_turn(mut drive: impl FnMut(&mut Context<'_>)) {
    let cx = &mut Context::from_waker(Waker::noop());
    let driven: Poll<()> = turn(cx, |cx| {
        drive(cx);
        Poll::Pending
    });
    assert!(driven.is_pending());
    assert!(TURN.get() == Turn::None);
}

#[test]
fn what_is_said_in_one_turn_leaves_in_one_piece() {
    let mut io = Sink::gathered();
    let mut turns = 0;
    in_a_turn(|cx| {
        turns += 1;
        let mut io = Pin::new(&mut io);
        for word in [b"one", b"two", b"six"] {
            say(io.as_mut(), cx, word);
        }
        assert!(io.io.taken.is_empty());
        // It has no other.
        assert!(io.as_mut().poll_flush(cx).is_ready());
    });
    assert_eq!(io.io.taken, [b"onetwosix"]);
    assert_eq!((turns, io.io.flushed), (1, 1));
    assert_eq!(io.kept.capacity(), 0, "an idle connection holds nothing");
}

#[test]
fn who_does_not_say_that_it_was_the_last_is_driven_again() {
    let mut io = Sink::gathered();
    let mut turns = 0;
    in_a_turn(|cx| {
        turns += 1;
        let mut io = Pin::new(&mut io);
        match turns {
            1 => say(io, cx, b"word"),
            _ => assert!(io.as_mut().poll_flush(cx).is_ready()),
        }
    });
    assert_eq!((turns, io.io.taken), (2, vec![b"word".to_vec()]));
}

/// Frames that `h2` has gathered are flushed once.
#[test]
fn what_is_in_one_piece_is_the_last() {
    let mut io = Sink::gathered();
    let mut turns = 0;
    in_a_turn(|cx| {
        turns += 1;
        let mut io = Pin::new(&mut io);
        say(io.as_mut(), cx, b"word");
        assert!(io.as_mut().poll_write(cx, b"others").is_ready());
        assert!(io.io.taken.is_empty());
        assert!(io.as_mut().poll_flush(cx).is_ready());
    });
    assert_eq!((turns, io.io.taken), (1, vec![b"wordothers".to_vec()]));
}

#[test]
fn without_a_turn_a_flush_is_one() {
    let cx = &mut Context::from_waker(Waker::noop());
    let mut io = Sink::gathered();
    say(Pin::new(&mut io), cx, b"one");
    say(Pin::new(&mut io), cx, b"two");
    assert_eq!(io.io.taken, [b"one", b"two"]);
    assert_eq!(io.io.flushed, 2);
}

#[test]
fn a_long_write_goes_by_itself_behind_what_was_kept() {
    let (mut io, long) = (Sink::gathered(), vec![7; SHORT + 1]);
    in_a_turn(|cx| {
        let mut io = Pin::new(&mut io);
        say(io.as_mut(), cx, b"short");
        say(io.as_mut(), cx, &long);
        assert_eq!(io.io.taken, [b"short".to_vec(), long.clone()]);
    });
    assert_eq!(io.io.flushed, 1);
}

#[test]
fn no_more_is_kept_than_a_record_holds() {
    let (mut io, word) = (Sink::gathered(), vec![7; SHORT]);
    in_a_turn(|cx| {
        let mut io = Pin::new(&mut io);
        for _ in 0..ROOM / SHORT + 1 {
            say(io.as_mut(), cx, &word);
        }
        assert!(io.as_mut().poll_flush(cx).is_ready());
    });
    let lengths = io.io.taken.iter().map(Vec::len);
    assert_eq!(lengths.collect::<Vec<_>>(), [ROOM / SHORT * SHORT, SHORT]);
}

#[test]
fn what_is_not_taken_is_kept_in_order() {
    let mut io = Sink::gathered();
    io.io.room = 4;
    let mut turns = 0;
    in_a_turn(|cx| {
        turns += 1;
        let mut io = Pin::new(&mut io);
        say(io.as_mut(), cx, b"first");
        assert!(io.as_mut().poll_flush(cx).is_pending());
        assert!(write(io.as_mut(), cx, &[7; SHORT + 1]).is_pending());
        // Who has more to say hears of it behind the first word.
        assert_eq!(write(io.as_mut(), cx, b"second"), Poll::Ready(6));
        assert!(io.as_mut().poll_flush(cx).is_pending());
    });
    assert_eq!((turns, io.io.taken.concat()), (1, b"firs".to_vec()));
    io.io.room = usize::MAX;
    in_a_turn(|cx| assert!(Pin::new(&mut io).poll_shutdown(cx).is_ready()));
    assert_eq!(io.io.taken.concat(), b"firstsecond");
}

#[test]
fn a_turn_that_panics_has_ended() {
    let cx = &mut Context::from_waker(Waker::noop());
    let turned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        turn(cx, |_| -> Poll<()> { panic!("as a driver may") })
    }));
    assert!(turned.is_err());
    assert!(TURN.get() == Turn::None);
}

#[test]
fn a_turn_within_another_is_its_own() {
    let (mut inner, mut outer) = (Sink::gathered(), Sink::gathered());
    let mut turns = 0;
    in_a_turn(|cx| {
        turns += 1;
        if turns == 1 {
            say(Pin::new(&mut outer), cx, b"outer");
            let _: Poll<()> = turn(cx, |cx| {
                say(Pin::new(&mut inner), cx, b"inner");
                assert!(Pin::new(&mut inner).poll_flush(cx).is_ready());
                Poll::Pending
            });
            assert_eq!(inner.io.taken, [b"inner"]);
            assert!(outer.io.taken.is_empty());
        } else {
            assert!(Pin::new(&mut outer).poll_flush(cx).is_ready());
        }
    });
    assert_eq!((turns, outer.io.taken), (2, vec![b"outer".to_vec()]));
}

#[test]
fn what_nobody_takes_any_more_is_an_error() {
    /// Takes nothing, and says so.
    struct Gone;

    impl AsyncWrite for Gone {
        fn poll_write(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            _bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(0))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    let cx = &mut Context::from_waker(Waker::noop());
    let mut io = Gathered::new(Gone);
    let slices = [IoSlice::new(b"a"), IoSlice::new(b"word")];
    let kept = Pin::new(&mut io).poll_write_vectored(cx, &slices);
    assert!(matches!(kept, Poll::Ready(Ok(5))));
    let Poll::Ready(Err(error)) = Pin::new(&mut io).poll_flush(cx) else {
        panic!("it was flushed");
    };
    assert_eq!(error.kind(), io::ErrorKind::WriteZero);
}

proptest! {
    /// Whatever is written and flushed, in however many turns, and however much is taken: all of it comes, and in order.
    #[test]
    fn nothing_is_lost_or_comes_twice(
        steps in prop::collection::vec(
            (1..2 * SHORT, any::<bool>(), any::<bool>(), prop::option::of(0..2 * ROOM)),
            0..60,
        ),
        per_turn in 1..8_usize,
    ) {
        let (mut io, mut said) = (Sink::gathered(), Vec::new());
        let word = |at: usize, length| (at..at + length).map(|n| (n % 251) as u8);
        for steps in steps.chunks(per_turn) {
            let mut again = false;
            in_a_turn(|cx| {
                let mut io = Pin::new(&mut io);
                if std::mem::replace(&mut again, true) {
                    return drop(io.poll_flush(cx));
                }
                for &(length, data, flush, room) in steps {
                    io.io.room = room.unwrap_or(io.io.room);
                    let word: Vec<u8> = word(said.len(), length).collect();
                    let written = if data {
                        write(io.as_mut(), cx, &word)
                    } else {
                        io.as_mut().poll_write(cx, &word).map(Result::unwrap)
                    };
                    if let Poll::Ready(count) = written {
                        said.extend_from_slice(word.get(..count).unwrap());
                    }
                    assert!(io.kept.len() <= ROOM);
                    if flush {
                        drop(io.as_mut().poll_flush(cx));
                    }
                }
            });
        }
        io.io.room = usize::MAX;
        in_a_turn(|cx| assert!(Pin::new(&mut io).poll_shutdown(cx).is_ready()));
        prop_assert!(io.io.taken.concat() == said);
    }
}

const STREAMS: usize = 10;
const WORD: usize = 4096;

/// How often a connection of `h2` writes when so many of its streams say a word each, all at once.
async fn writes(in_turns: bool) -> usize {
    let (near, far) = duplex(1 << 20);
    let (heard, mut hears) = mpsc::unbounded_channel();
    let mut ends = JoinSet::new();
    ends.spawn(async move {
        let mut connection = h2::server::handshake(far).await.unwrap();
        let mut streams = JoinSet::new();
        while let Some(request) = connection.accept().await {
            let (mut request, _respond) = request.unwrap();
            let heard = heard.clone();
            streams.spawn(async move {
                while let Some(word) = request.body_mut().data().await {
                    heard.send(word.unwrap().len()).unwrap();
                }
            });
        }
    });
    let written = Arc::<AtomicUsize>::default();
    let wrote = written.clone();
    let counted = InspectWriter::new(near, move |_: &[u8]| {
        wrote.fetch_add(1, Ordering::Relaxed);
    });
    let io = Gathered::new(counted);
    let (mut requests, driver) = h2::client::handshake(io).await.unwrap();
    ends.spawn(async move {
        let (mut driver, mut aside) = (pin!(driver), Aside::new());
        let driven = poll_fn(|cx| {
            if in_turns {
                aside.poll(cx, |cx| driver.as_mut().poll(cx))
            } else {
                driver.as_mut().poll(cx)
            }
        });
        driven.await.unwrap();
    });
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        requests = requests.ready().await.unwrap();
        streams.push(requests.send_request(Request::new(()), false).unwrap());
    }
    // On paused time: once nobody has anything to do.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let before = written.load(Ordering::Relaxed);
    for (_, words) in &mut streams {
        words.send_data(vec![7; WORD].into(), false).unwrap();
    }
    let mut came = 0;
    while came < STREAMS * WORD {
        came += hears.recv().await.unwrap();
    }
    written.load(Ordering::Relaxed) - before
}

#[tokio::test(start_paused = true)]
async fn what_many_streams_say_at_once_is_a_write_for_each_record() {
    let of_a_record = ROOM / WORD - 1;
    assert_eq!(writes(true).await, STREAMS.div_ceil(of_a_record));
    assert_eq!(writes(false).await, STREAMS, "or nothing was proved");
}
