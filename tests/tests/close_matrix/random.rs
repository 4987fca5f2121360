//! Random ends. Whatever the order of bytes, FINs and resets: an end that was not sent is never seen, and what was sent
//! whole and ended arrives whole, unless somebody reset.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::act::bytes;
use crate::carrier::Carrier;
use crate::lab::Lab;
use crate::stream::{Sockets, Stream};

/// Runs of all carriers together; `CLOSE_RUNS` sets another number. With those of [`crate::faults`] they are over 10,000.
const RUNS: u64 = 7_200;
/// Under way at once.
const CROWD: usize = 16;
/// As long as one may take.
const LONG: Duration = Duration::from_secs(120);
/// Tests below.
const WAYS: u64 = 11;
/// Bytes of one direction, at most.
pub(crate) const MOST: u64 = 200_000;

/// What one side will do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) sends: usize,
    chunk: usize,
    /// FIN behind the last byte, but only after the other side's end was seen.
    answers: bool,
    /// Reset when so many bytes were sent, or so many read.
    reset: Option<Reset>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Reset {
    Sent(usize),
    Read(usize),
}

/// What one side saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    sent: usize,
    read: usize,
    /// An end, not a cut.
    ended: bool,
    /// A cut would have read like that end too: a unix socket, and nothing had been written to it.
    deaf: bool,
    /// Sent everything and its FIN.
    finished: bool,
    /// Broke off.
    did_reset: bool,
    /// … which on its unix socket may have been an end: the other had nothing there that was unread.
    as_end: bool,
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// Small numbers as often as large ones.
    fn size(&mut self) -> usize {
        let bound = 1 << self.below(18);
        self.below(bound).min(MOST) as usize
    }

    /// What both sides will do.
    pub(crate) fn plans(&mut self) -> [Plan; 2] {
        let mut near = self.plan(MOST as usize / 8);
        let mut far = self.plan(near.sends);
        // At most one waits for the other, or nobody would begin to end.
        match self.below(4) {
            0 => near.answers = true,
            1 => far.answers = true,
            _ => {}
        }
        [near, far]
    }

    /// And what on.
    pub(crate) fn sockets(&mut self, carrier: Carrier) -> Sockets {
        let all = carrier.sockets();
        all[self.below(all.len() as u64) as usize]
    }

    fn plan(&mut self, other: usize) -> Plan {
        let sends = self.size();
        let reset = match self.below(5) {
            0 => Some(Reset::Sent(self.below(sends as u64 + 1) as usize)),
            1 => Some(Reset::Read(self.below(other as u64 + 1) as usize)),
            _ => None,
        };
        Plan {
            sends,
            chunk: 1 + self.size(),
            answers: false,
            reset,
        }
    }
}

pub(crate) fn number(variable: &str, default: u64) -> u64 {
    let set = std::env::var(variable).ok();
    set.map_or(default, |value| value.parse().expect("a number"))
}

async fn runs(carrier: Carrier) {
    let runs = number("CLOSE_RUNS", RUNS) / WAYS + 1;
    let seed = number("CLOSE_SEED", 20_261);
    let lab = Arc::new(Lab::start(carrier).await);
    let mut crowd = JoinSet::new();
    for run in 0..runs {
        if crowd.len() == CROWD {
            crowd.join_next().await.unwrap().unwrap();
        }
        crowd.spawn(one(
            lab.clone(),
            carrier,
            seed.wrapping_mul(1_000_003).wrapping_add(run),
        ));
    }
    while let Some(done) = crowd.join_next().await {
        done.unwrap();
    }
}

async fn one(lab: Arc<Lab>, carrier: Carrier, seed: u64) {
    let mut random = Random(seed);
    let [near_plan, far_plan] = random.plans();
    let sockets = random.sockets(carrier);
    let (near, far) = lab.pair_of(sockets).await;
    let both = async { tokio::join!(side(near, &near_plan, 1), side(far, &far_plan, 2)) };
    let what = format!("run {seed}: {near_plan:?} and {far_plan:?} on {sockets:?}");
    // A hundred thousand bytes one by one take a busy machine a while.
    let ended = tokio::time::timeout(LONG, both).await;
    let (at_near, at_far) = ended.unwrap_or_else(|_| panic!("not within {LONG:?}: {what}"));
    judge(&near_plan, at_near, at_far, false, &what);
    judge(&far_plan, at_far, at_near, false, &what);
}

/// What `reader` saw of what `sender` did. Where the way between them breaks, there may be a cut that nobody made.
pub(crate) fn judge(plan: &Plan, sender: Sight, reader: Sight, breaks: bool, what: &str) {
    let seen = format!("{what}: sender {sender:?}, reader {reader:?}");
    assert!(reader.read <= plan.sends, "bytes nobody sent: {seen}");
    if reader.did_reset {
        return;
    }
    let cut = breaks || sender.did_reset;
    if !reader.ended {
        assert!(cut, "a cut nobody made: {seen}");
    } else if !(cut && reader.deaf) {
        let sent = sender.finished || sender.as_end;
        assert!(sent, "an end nobody sent: {seen}");
        assert_eq!(
            reader.read, sender.sent,
            "a cut that looks like an end: {seen}"
        );
    }
}

/// One step of a writer.
enum Step {
    Wrote(usize),
    Flushed,
    Ended,
}

/// What one side has done and seen so far.
#[derive(Default)]
struct Progress {
    sent: usize,
    unflushed: bool,
    written: bool,
    finished: bool,
    read: usize,
    over: bool,
    ended: bool,
    deaf: bool,
    /// A write met the reset: the kernel tells it once, and reads are at an end after that.
    cut: bool,
}

impl Progress {
    fn resets(&self, plan: &Plan) -> bool {
        match plan.reset {
            Some(Reset::Sent(at)) => self.sent >= at && !self.written,
            Some(Reset::Read(at)) => self.read >= at && !self.over,
            None => false,
        }
    }

    fn sight(&self) -> Sight {
        Sight {
            sent: self.sent,
            read: self.read,
            ended: self.ended,
            deaf: self.deaf,
            finished: self.finished,
            did_reset: false,
            as_end: false,
        }
    }
}

/// Carry out a plan and read until the end, checking every byte. Every step may be given up for another and begun again.
pub(crate) async fn side(stream: Stream, plan: &Plan, seed: u64) -> Sight {
    let (all, expected) = (bytes(plan.sends, seed), bytes(MOST as usize + 1, 3 - seed));
    let mut buffer = vec![0; 32 * 1024];
    let deaf = stream.is_deaf();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut now = Progress::default();
    while !(now.over && now.written) {
        if now.resets(plan) {
            let heard = reader.unsplit(writer).abort();
            return Sight {
                did_reset: true,
                as_end: !heard,
                ..now.sight()
            };
        }
        let bound = match plan.reset {
            Some(Reset::Sent(at)) => at,
            _ => all.len(),
        };
        let next = &all[now.sent..bound.min(now.sent + plan.chunk)];
        let may_end = next.is_empty() && (now.over || !plan.answers);
        let may_write = now.unflushed || !next.is_empty() || may_end;
        let step = async {
            if now.unflushed {
                writer.flush().await.map(|()| Step::Flushed)
            } else if next.is_empty() {
                writer.shutdown().await.map(|()| Step::Ended)
            } else {
                writer.write(next).await.map(Step::Wrote)
            }
        };
        tokio::select! {
            step = step, if may_write && !now.written => match step {
                Ok(Step::Wrote(n)) => (now.sent, now.unflushed) = (now.sent + n, true),
                Ok(Step::Flushed) => now.unflushed = false,
                Ok(Step::Ended) => (now.written, now.finished) = (true, true),
                Err(_) => (now.written, now.cut) = (true, true),
            },
            read = reader.read(&mut buffer), if !now.over => match read {
                Ok(0) => {
                    (now.over, now.ended) = (true, !now.cut);
                    now.deaf = deaf && now.sent == 0;
                }
                Ok(n) => {
                    let place = now.read..now.read + n;
                    assert!(expected.get(place) == Some(&buffer[..n]), "bytes differ");
                    now.read += n;
                }
                Err(_) => now.over = true,
            },
        }
    }
    now.sight()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_quic() {
    runs(Carrier::Relay("quic")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_h2() {
    runs(Carrier::Relay("h2")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_h1() {
    runs(Carrier::Relay("h1")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exposed_quic() {
    runs(Carrier::Exposed("quic")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exposed_h2() {
    runs(Carrier::Exposed("h2")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exposed_h1() {
    runs(Carrier::Exposed("h1")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxy_quic() {
    runs(Carrier::Proxy("quic")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxy_h2() {
    runs(Carrier::Proxy("h2")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxy_h1() {
    runs(Carrier::Proxy("h1")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect() {
    runs(Carrier::Connect).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_tls() {
    runs(Carrier::ConnectTls).await;
}
