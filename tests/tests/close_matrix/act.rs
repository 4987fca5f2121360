//! The kinds of end, each done by one side and looked at from the other.

use std::io;
use std::time::Duration;

use e2e::{Link, Settings, Towards, within};
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::carrier::Carrier;
use crate::lab::Lab;
use crate::stream::{Stream, TCP};

/// Who ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The program in the sandbox.
    Sandbox,
    /// The service, or the upstream.
    Service,
}

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// FIN behind the last byte; the answer comes after it.
    Fin,
    /// RST when everything has arrived.
    Rst,
    /// FIN at once, then much data the other way.
    HalfClose,
    /// RST in the middle of bulk.
    MidTransfer,
    /// What carries it ends in the middle of a frame, or a record, or of nothing where there are none.
    MidFrame,
    /// It is gone without a word.
    Vanish,
    /// RST when everything has arrived, where the other is on a unix socket and has never written anything.
    Unheard,
}

/// How a reader saw the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// FIN, or close_notify.
    End,
    /// RST, or a TLS connection without close_notify.
    Cut,
}

/// A dead path is noticed by PING in at most twice ten seconds; two busy cores may take longer.
const GONE: Duration = Duration::from_secs(60);

/// Do it, and look.
pub(crate) async fn run(carrier: Carrier, side: Side, act: Act) {
    if act == Act::Vanish {
        return vanish(carrier, side).await;
    }
    let lab = match act {
        Act::MidFrame => Lab::behind_a_link(carrier).await,
        _ => Lab::start(carrier).await,
    };
    let (actor, other) = side.first(lab.pair().await);
    match act {
        Act::Fin => fin(actor, other, 300_000, 200_000).await,
        Act::HalfClose => fin(actor, other, 0, 3_000_000).await,
        Act::Rst => rst(actor, other).await,
        Act::MidTransfer => mid_transfer(actor, other).await,
        // Without frames a connection that ends is a stream that ends.
        Act::MidFrame if carrier == Carrier::Connect => fin(actor, other, 300_000, 0).await,
        Act::MidFrame => mid_frame(lab.link.as_ref().unwrap(), side, actor, other).await,
        Act::Vanish | Act::Unheard => {}
    }
}

impl Side {
    /// Its own end before the other's.
    pub(crate) fn first<T>(self, (near, far): (T, T)) -> (T, T) {
        match self {
            Self::Sandbox => (near, far),
            Self::Service => (far, near),
        }
    }

    /// Where it sends.
    fn sends(self) -> Towards {
        match self {
            Self::Sandbox => Towards::Gateway,
            Self::Service => Towards::Client,
        }
    }
}

pub(crate) async fn fin(mut actor: Stream, mut other: Stream, there: usize, back: usize) {
    let sent = send(&mut actor, there, 1);
    let got = read_to_end(&mut other);
    let (sent, (got, seen)) = tokio::join!(sent, got);
    assert_eq!((got, seen), (sent, Seen::End), "the first direction");
    let (sent, (got, seen)) = tokio::join!(send(&mut other, back, 2), read_to_end(&mut actor));
    assert_eq!((got, seen), (sent, Seen::End), "what came after the FIN");
}

pub(crate) async fn rst(actor: Stream, mut other: Stream) {
    assert_eq!(aborted(actor, &mut other).await, Seen::Cut);
}

/// Every byte that was written arrives, and then the abort: what that is seen as.
pub(crate) async fn aborted(mut actor: Stream, other: &mut Stream) -> Seen {
    let block = bytes(64 * 1024, 3);
    actor.write_all(&block).await.unwrap();
    actor.flush().await.unwrap();
    let mut read = vec![0; block.len()];
    within("every byte before the reset", other.read_exact(&mut read))
        .await
        .unwrap();
    assert!(read == block, "bytes differ");
    assert!(actor.abort());
    let (got, seen) = read_to_end(other).await;
    assert_eq!(got.0, 0);
    seen
}

pub(crate) async fn mid_transfer(mut actor: Stream, mut other: Stream) {
    let block = bytes(64 * 1024, 4);
    let (sent, read) = bulk(&mut actor, &mut other, &block).await;
    assert!(actor.abort());
    let last = within("the cut", until_cut(&mut other, &block, read)).await;
    assert!(last <= sent);
}

/// The direction from `actor` is the one that ends; the other follows it.
pub(crate) async fn mid_frame(link: &Link, side: Side, mut actor: Stream, mut other: Stream) {
    let block = bytes(64 * 1024, 5);
    let so_far = bulk(&mut actor, &mut other, &block).await;
    link.cut(side.sends());
    both_cut(actor, other, &block, so_far).await;
}

/// The same for both sides at once, where it is all the same which direction ends.
pub(crate) async fn mid_frame_both(link: &Link, mut pairs: [(Stream, Stream); 2]) {
    let block = bytes(64 * 1024, 5);
    let [(near, far), (other_near, other_far)] = &mut pairs;
    let (sandbox, service) =
        tokio::join!(bulk(near, far, &block), bulk(other_far, other_near, &block));
    link.cut(Side::Sandbox.sends());
    let [(near, far), (other_near, other_far)] = pairs;
    tokio::join!(
        both_cut(near, far, &block, sandbox),
        both_cut(other_far, other_near, &block, service)
    );
}

/// So many bytes were sent, so many read, when the way ended.
async fn both_cut(
    actor: Stream,
    mut other: Stream,
    block: &[u8],
    (mut sent, read): (usize, usize),
) {
    let (mut reader, mut writer) = tokio::io::split(actor);
    // It goes on until it is cut itself.
    let writing = async {
        while let Ok(count) = writer.write(&block[sent % block.len()..]).await {
            if writer.flush().await.is_err() {
                return;
            }
            sent += count;
        }
    };
    let reading = async { reader.read(&mut [0]).await };
    let seeing = async {
        let last = until_cut(&mut other, block, read).await;
        // Who was cut lets go.
        drop(other);
        last
    };
    let cuts = async { tokio::join!(seeing, reading, writing) };
    let cuts = tokio::time::timeout(GONE, cuts).await;
    let (last, back, ()) = cuts.expect("both sides are cut");
    assert!(last <= sent + block.len());
    // The reset that a write was told first is an end to the reads after it.
    assert!(!matches!(back, Ok(1..)), "bytes from nobody");
}

/// Until much has come through: so many bytes were sent, so many read.
async fn bulk(actor: &mut Stream, other: &mut Stream, block: &[u8]) -> (usize, usize) {
    let (mut sent, mut read) = (0_usize, 0_usize);
    let mut buffer = vec![0; 64 * 1024];
    while read < 1024 * 1024 {
        let place = sent % block.len();
        tokio::select! {
            n = actor.write(&block[place..]) => sent += n.unwrap(),
            n = other.read(&mut buffer) => {
                let n = n.unwrap();
                assert!(n > 0, "an end that nobody sent");
                check(&buffer[..n], block, read);
                read += n;
            }
        }
    }
    (sent, read)
}

/// Reads on to the cut; how many bytes came in all.
async fn until_cut(other: &mut Stream, block: &[u8], mut read: usize) -> usize {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match other.read(&mut buffer).await {
            Ok(0) => panic!("a cut looks like an end after {read} bytes"),
            Ok(n) => {
                check(&buffer[..n], block, read);
                read += n;
            }
            Err(_) => return read,
        }
    }
}

fn check(got: &[u8], block: &[u8], from: usize) {
    for (offset, byte) in got.iter().enumerate() {
        assert_eq!(
            *byte,
            block[(from + offset) % block.len()],
            "at {}",
            from + offset
        );
    }
}

/// The relay client is frozen, or somebody is merely silent.
async fn vanish(carrier: Carrier, side: Side) {
    if carrier.is_watched() && side == Side::Sandbox {
        let lab = Lab::start(carrier).await;
        let pair = lab.pair().await;
        frozen(&lab, pair).await;
    } else {
        let lab = Lab::with(carrier, impatient()).await;
        let pair = in_time(async || lab.try_pair(TCP).await).await;
        silent(&lab, pair).await;
    }
}

/// The relay client is frozen: its kernel still takes bytes, nobody answers.
pub(crate) async fn frozen(lab: &Lab, (_near, mut far): (Stream, Stream)) {
    let client = lab.client.as_ref().unwrap();
    client.process.signal(Signal::STOP);
    assert_eq!(patient(&mut far).await, Seen::Cut);
    client.process.signal(Signal::CONT);
}

/// A program or a service that is silent is ended by the idle timeout.
pub(crate) async fn silent(lab: &Lab, (mut near, mut far): (Stream, Stream)) {
    assert_eq!(patient(&mut far).await, Seen::Cut);
    assert_eq!(patient(&mut near).await, Seen::Cut);
    let record = lab.world.gateway.record("the cut", |record| {
        ["tunnel", "stream"].contains(&record.text("kind")) && record.text("outcome") == "cut"
    });
    assert_eq!(record.await.text("reason"), "idle_timeout");
}

/// For [`silent`].
pub(crate) fn impatient() -> Settings {
    Settings {
        limits: "  idleTimeout: 2s\n".to_owned(),
        ..Settings::default()
    }
}

/// A pair on a gateway that is [`impatient`]: on a slow machine it may be cut before it is one, and is tried again.
pub(crate) async fn in_time(
    attempt: impl AsyncFn() -> io::Result<(Stream, Stream)>,
) -> (Stream, Stream) {
    let attempts = async {
        loop {
            let tried = tokio::time::timeout(Duration::from_secs(5), attempt()).await;
            if let Ok(Ok(pair)) = tried {
                return pair;
            }
        }
    };
    let pair = tokio::time::timeout(GONE, attempts).await;
    pair.expect("both ends of a pair in time")
}

async fn patient(stream: &mut Stream) -> Seen {
    let mut byte = [0];
    let read = tokio::time::timeout(GONE, stream.read(&mut byte)).await;
    match read.expect("the end of a stream whose peer is gone") {
        Ok(0) => Seen::End,
        Ok(_) => panic!("bytes from nobody"),
        Err(_) => Seen::Cut,
    }
}

/// Sends `count` bytes and FIN; their number and digest.
async fn send(stream: &mut Stream, count: usize, seed: u64) -> (usize, String) {
    let all = bytes(count, seed);
    within("room to send", stream.write_all(&all))
        .await
        .unwrap();
    within("the FIN", stream.shutdown()).await.unwrap();
    (count, digest(&all))
}

async fn read_to_end(stream: &mut Stream) -> ((usize, String), Seen) {
    let mut all = Vec::new();
    let read = within("the end of a stream", stream.read_to_end(&mut all)).await;
    let seen = if read.is_ok() { Seen::End } else { Seen::Cut };
    ((all.len(), digest(&all)), seen)
}

fn digest(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

/// Bytes that differ from place to place.
pub(crate) fn bytes(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut byte = || {
        // Knuth's MMIX generator; the high bits are the good ones.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(&mut byte).take(count).collect()
}
