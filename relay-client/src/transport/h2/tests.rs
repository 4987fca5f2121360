#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use sluicegate_relay_protocol::{
    Handshake, Instance, Once,
    capsule::{DATA as CAPSULE, Head},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex},
    net::UnixStream,
    time::{Instant, advance, sleep},
};
use tokio_util::{io::InspectWriter, task::TaskTracker};

use super::{Connection, PONG_WITHIN, Seat, field};
use crate::{
    flow::{CapsuleFlow, Early, Flow, Held, SocketFlow},
    transport::{
        Endpoint,
        windows::{LARGE_CONNECTION, STREAM},
    },
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// Of SETTINGS and PING.
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// Of the setting (RFC 9113 §6.5.2).
const INITIAL_WINDOW_SIZE: u16 = 4;

type Opened = Held<CapsuleFlow, Seat>;

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// A gateway whose frames are written by hand (RFC 9113 §4.1): what it answers, and when, is the test's.
struct Peer {
    io: DuplexStream,
    /// The window of streams that it was told last.
    window: u32,
    /// Bytes it may still send on all streams together, and on the first.
    connection: i64,
    first: i64,
    acknowledges: bool,
}

impl Peer {
    async fn connected(tasks: &TaskTracker) -> (Connection, Self) {
        let (near, io) = duplex(1 << 20);
        Self::connected_by(near, io, tasks).await
    }

    async fn connected_by<IO>(near: IO, io: DuplexStream, tasks: &TaskTracker) -> (Connection, Self)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut peer = Self {
            io,
            window: 65_535,
            connection: 65_535,
            first: 65_535,
            acknowledges: true,
        };
        let endpoint = Endpoint::parse("http://127.0.0.1:1").unwrap();
        let greeting = async {
            let mut preface = [0; 24];
            peer.io.read_exact(&mut preface).await.unwrap();
            // SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 §3).
            peer.send(SETTINGS, 0, 0, &[0, 8, 0, 0, 0, 1]).await;
            let ping = peer.until(PING, 0).await;
            peer.send(PING, ACK, 0, &ping.payload).await;
        };
        let (connection, ()) = tokio::join!(Connection::over(near, &endpoint, tasks), greeting);
        (connection.unwrap(), peer)
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.io.write_all(&head).await.unwrap();
        self.io.write_all(payload).await.unwrap();
    }

    async fn next(&mut self) -> Frame {
        let mut head = [0; 9];
        self.io.read_exact(&mut head).await.unwrap();
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.io.read_exact(&mut payload).await.unwrap();
        let stream = u32::from_be_bytes(stream);
        Frame {
            kind,
            flags,
            stream,
            payload,
        }
    }

    /// The next frame of this kind. On the way PINGs are answered and windows counted; a stream that opens or ends fails the test.
    async fn until(&mut self, kind: u8, flags: u8) -> Frame {
        loop {
            let frame = self.next().await;
            let wanted = frame.kind == kind && frame.flags & ACK == flags & ACK;
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => {
                    self.learns(&frame.payload);
                    if self.acknowledges {
                        self.send(SETTINGS, ACK, 0, &[]).await;
                    }
                }
                WINDOW_UPDATE => {
                    let more = u32::from_be_bytes(frame.payload[..].try_into().unwrap());
                    match frame.stream {
                        0 => self.connection += i64::from(more),
                        1 => self.first += i64::from(more),
                        _ => {}
                    }
                }
                PING if !wanted && frame.flags & ACK == 0 => {
                    self.send(PING, ACK, 0, &frame.payload).await;
                }
                RST_STREAM | GOAWAY => panic!("{frame:?}"),
                HEADERS if !wanted => panic!("{frame:?}"),
                _ => {}
            }
            if wanted {
                return frame;
            }
        }
    }

    fn learns(&mut self, settings: &[u8]) {
        for setting in settings.chunks_exact(6) {
            if u16::from_be_bytes([setting[0], setting[1]]) == INITIAL_WINDOW_SIZE {
                let window = u32::from_be_bytes(setting[2..].try_into().unwrap());
                self.first += i64::from(window) - i64::from(self.window);
                self.window = window;
            }
        }
    }

    /// The next stream, accepted. It is known by then which window was told before it.
    async fn opens(&mut self, connection: &Connection) -> Opened {
        let (target, mut nothing) = (service(), Early::nothing());
        let opening = connection.open(&target, "token", &mut nothing);
        let (opened, _) = tokio::join!(opening, self.accepts());
        opened.unwrap()
    }

    /// The next stream's request, and its answer.
    async fn accepts(&mut self) -> Frame {
        let asked = self.until(HEADERS, 0).await;
        // `:status: 200` in HPACK's static table.
        self.send(HEADERS, END_HEADERS, asked.stream, &[0x88]).await;
        asked
    }

    /// So many bytes on the first stream, behind this head.
    async fn sends(&mut self, head: &[u8], count: usize) {
        let bytes = [head, &vec![0; count - head.len()]].concat();
        for chunk in bytes.chunks(16 * 1024) {
            self.send(DATA, 0, 1, chunk).await;
        }
        self.first -= i64::try_from(count).unwrap();
        self.connection -= i64::try_from(count).unwrap();
        assert!(self.first >= 0 && self.connection >= 0, "more than it may");
    }

    /// The first stream carries a whole window in a round trip, and its reader takes all of it: what is told then is the next thing
    /// to come.
    async fn grows(&mut self, flow: &mut Opened) {
        let ping = self.until(PING, 0).await;
        // Inside one capsule without end.
        let head = Head::new(CAPSULE, 1 << 29);
        let count = usize::try_from(STREAM).unwrap();
        self.sends(head.as_slice(), count).await;
        let mut left = count - head.as_slice().len();
        while left > 0 {
            let read = poll_fn(|cx| flow.poll_read(cx)).await;
            left -= read.unwrap().unwrap().len();
        }
        // Who asks again has passed on what came before.
        let waits = poll_fn(|cx| Poll::Ready(flow.poll_read(cx).is_pending())).await;
        assert!(waits, "all of it was read");
        advance(Duration::from_millis(100)).await;
        self.send(PING, ACK, 0, &ping.payload).await;
        self.until(SETTINGS, 0).await;
        assert_eq!(self.window, 2 * STREAM);
    }
}

fn service() -> Handshake {
    let name = "echo".to_owned();
    Handshake::Service { name }
}

#[tokio::test(start_paused = true)]
async fn what_streams_say_at_once_is_one_write() {
    const STREAMS: usize = 5;
    const WORD: usize = 1024;
    let tasks = TaskTracker::new();
    let (near, io) = duplex(1 << 20);
    let written = Arc::<AtomicUsize>::default();
    let wrote = written.clone();
    let near = InspectWriter::new(near, move |_: &[u8]| {
        wrote.fetch_add(1, Ordering::Relaxed);
    });
    let (connection, mut peer) = Peer::connected_by(near, io, &tasks).await;
    let mut flows = Vec::new();
    for _ in 0..STREAMS {
        flows.push(peer.opens(&connection).await);
    }
    // On paused time: once nobody has anything to do.
    sleep(Duration::from_millis(1)).await;
    let before = written.load(Ordering::Relaxed);
    for flow in &mut flows {
        let mut word = Bytes::from(vec![7; WORD]);
        let sent = poll_fn(|cx| flow.poll_write(cx, &mut word)).await;
        assert!(sent.is_ok() && word.is_empty());
    }
    let mut came = 0;
    while came < STREAMS * WORD {
        came += peer.until(DATA, 0).await.payload.len();
    }
    assert_eq!(written.load(Ordering::Relaxed) - before, 1);
}

/// Counted by who sends: what one stream takes unread is one window, and more once its reader has kept up.
#[tokio::test(start_paused = true)]
async fn who_keeps_up_is_sent_more_than_one_window_before_it_reads() {
    let tasks = TaskTracker::new();
    let (connection, mut peer) = Peer::connected(&tasks).await;
    let mut flow = peer.opens(&connection).await;
    assert_eq!(
        (peer.first, connection.window()),
        (i64::from(STREAM), STREAM)
    );
    peer.grows(&mut flow).await;
    assert_eq!(connection.window(), 2 * STREAM);

    // What was given back of the first window and is not told yet is less than a third of it.
    assert!(peer.first > i64::from(STREAM) * 3 / 2, "{}", peer.first);
    assert!(peer.connection > i64::from(LARGE_CONNECTION) / 2);
    let all = usize::try_from(peer.first).unwrap();
    peer.sends(&[], all).await;
    // It comes back from behind all of that: nothing was too much.
    peer.send(PING, 0, 0, &[7; 8]).await;
    let back = peer.until(PING, ACK).await;
    assert_eq!(back.payload, [7; 8]);
    drop(flow);
}

/// A stream that is one too many for the window is not opened before the peer knows of a smaller one.
#[tokio::test(start_paused = true)]
async fn a_smaller_window_is_told_before_the_stream_that_needs_it() {
    let tasks = TaskTracker::new();
    let (connection, mut peer) = Peer::connected(&tasks).await;
    let mut flows = vec![peer.opens(&connection).await];
    peer.grows(&mut flows[0]).await;
    while flows.len() < 32 {
        flows.push(peer.opens(&connection).await);
        assert_eq!(peer.window, 2 * STREAM, "{} streams", flows.len());
    }
    flows.push(peer.opens(&connection).await);
    assert_eq!(peer.window, STREAM, "told before");
}

/// HTTP/2 has one word about windows on its way at a time: a stream waits for the answer to the one before.
#[tokio::test(start_paused = true)]
async fn a_stream_waits_while_the_last_word_is_not_acknowledged() {
    let tasks = TaskTracker::new();
    let (connection, mut peer) = Peer::connected(&tasks).await;
    let mut flows = vec![peer.opens(&connection).await];
    peer.acknowledges = false;
    peer.grows(&mut flows[0]).await;
    while flows.len() < 32 {
        flows.push(peer.opens(&connection).await);
    }
    let (target, mut nothing) = (service(), Early::nothing());
    let opening = connection.open(&target, "token", &mut nothing);
    let answering = async {
        peer.send(PING, 0, 0, &[7; 8]).await;
        // No stream comes before that.
        peer.until(PING, ACK).await;
        assert_eq!(peer.window, 2 * STREAM);
        peer.acknowledges = true;
        peer.send(SETTINGS, ACK, 0, &[]).await;
        peer.accepts().await;
        assert_eq!(peer.window, STREAM, "told before");
    };
    let (opened, ()) = tokio::join!(opening, answering);
    opened.unwrap();
}

/// Who waits for the window of a connection that ends is told of its end.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_word_to_a_peer_that_is_gone() {
    let tasks = TaskTracker::new();
    let (connection, mut peer) = Peer::connected(&tasks).await;
    let mut flows = vec![peer.opens(&connection).await];
    peer.acknowledges = false;
    peer.grows(&mut flows[0]).await;
    while flows.len() < 32 {
        flows.push(peer.opens(&connection).await);
    }
    let (target, mut nothing) = (service(), Early::nothing());
    let opening = connection.open(&target, "token", &mut nothing);
    let going = async move {
        peer.send(PING, 0, 0, &[7; 8]).await;
        peer.until(PING, ACK).await;
        drop(peer);
    };
    let (opened, ()) = tokio::join!(opening, going);
    assert!(
        matches!(opened, Err(super::OpenError::Retired)),
        "{opened:?}"
    );
}

/// The answer to a PING stands behind what was sent before it, for as long as that takes.
#[tokio::test(start_paused = true)]
async fn a_path_on_which_something_comes_is_not_taken_for_dead() {
    let tasks = TaskTracker::new();
    let (connection, mut peer) = Peer::connected(&tasks).await;
    let ping = peer.until(PING, 0).await;
    for _ in 0..5 {
        sleep(PONG_WITHIN - Duration::from_secs(1)).await;
        peer.send(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).await;
    }
    assert!(!connection.life.has_ended());
    peer.send(PING, ACK, 0, &ping.payload).await;
    peer.until(PING, 0).await;
    let asked = Instant::now();
    connection.life.ended().await;
    let took = asked.elapsed();
    assert!(took < PONG_WITHIN + Duration::from_secs(1), "{took:?}");
}

#[test]
fn which_open_it_is_is_not_indexed() {
    let tried = Vec::new();
    let once = Once { number: 7, tried };
    let field = field(&once).unwrap();
    assert!(field.is_sensitive());
    assert_eq!(field, once.to_string());
}

/// The representations of a field block (RFC 7541 §6), each whole.
fn representations(block: &[u8]) -> Vec<&[u8]> {
    let (mut found, mut rest) = (Vec::new(), block);
    while let Some(first) = rest.first() {
        // How many bits its number has, and whether strings follow it.
        let (bits, literal) = match first.leading_zeros() {
            0 => (7, false),
            1 => (6, true),
            // The table's size.
            2 => (5, false),
            _ => (4, true),
        };
        let (index, mut end) = integer(rest, bits);
        // The value; before it the name, where no table has it.
        let strings = usize::from(literal) + usize::from(literal && index == 0);
        for _ in 0..strings {
            let (length, head) = integer(&rest[end..], 7);
            end += head + length;
        }
        let (whole, behind) = rest.split_at(end);
        found.push(whole);
        rest = behind;
    }
    found
}

/// The integer at the front, in so many bits of the first byte and what follows (RFC 7541 §5.1), and how many bytes it takes.
fn integer(bytes: &[u8], bits: u32) -> (usize, usize) {
    let most = (1_usize << bits) - 1;
    let mut value = usize::from(bytes[0]) & most;
    let mut taken = 1;
    if value == most {
        loop {
            let byte = bytes[taken];
            value += usize::from(byte & 0x7f) << (7 * (taken - 1));
            taken += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    (value, taken)
}

/// Nor on the wire: it is a literal that no table takes (RFC 7541 §6.2.3), in this open and in the next.
#[tokio::test(start_paused = true)]
async fn no_table_grows_by_which_open_it_is() {
    let tasks = TaskTracker::new();
    let (connection, mut peer) = Peer::connected(&tasks).await;
    let (_program, near) = UnixStream::pair().unwrap();
    let mut program = SocketFlow::new(near);
    let (mut blocks, mut flows) = (Vec::new(), Vec::new());
    for open in 0..3 {
        let (target, mut early) = (service(), Early::of(&mut program));
        let opening = connection.open(&target, "token", &mut early);
        let (opened, asked) = tokio::join!(opening, peer.accepts());
        assert_eq!(asked.flags, END_HEADERS, "the whole block, and no end");
        flows.push(opened.unwrap());
        blocks.push(asked.payload);
        if open == 0 {
            // What is the same each time is in the table now. From here on an open says which one it is.
            connection.instance.set(Instance::new([7; 16])).unwrap();
        }
    }
    let counted = |is: fn(u8) -> bool| -> Vec<usize> {
        let of = |block: &Vec<u8>| {
            let all = representations(block);
            all.iter().filter(|whole| is(whole[0])).count()
        };
        blocks.iter().map(of).collect()
    };
    // Never indexed, and its name spelt out: of no other field both are true.
    assert_eq!(counted(|first| first == 0b0001_0000), [0, 1, 1]);
    let added = counted(|first| first & 0b1100_0000 == 0b0100_0000);
    assert!(added[0] > 0, "the reader of the block sees none");
    assert_eq!(added[1..], [0, 0]);
}
