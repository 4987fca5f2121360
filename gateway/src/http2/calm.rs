//! How much of a connection's talk may be about itself.
//!
//! PING, SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM and empty DATA cost little to send and time to answer, and `h2`
//! answers them for ever. They are counted here as they come in, against what the connection is for: requests, and
//! payload both ways. Resets are counted against streams that carried payload alone: a client that asks only to reset, answered or
//! not, makes work for nothing. Only the nine bytes before each frame are looked at.

use std::{
    collections::BTreeSet,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::{Duration, Instant},
};

use super::frames::{Frame, Frames};

/// Frames of its own that a connection may send before it has done anything useful.
pub(super) const FIRST: u32 = 1000;
/// What it has earned is kept up to this.
const MOST: u32 = 10_000;
/// Earned by a request: windows, priorities and its reset.
const PER_REQUEST: u32 = 8;
/// Earned by DATA that came in, which may be asked after with a PING.
const PER_DATA_IN: u32 = 2;
/// Earned by DATA that went out, for which windows are opened, that of the stream and that of the connection.
const PER_DATA_OUT: u32 = 10;
/// Earned by doing nothing: keep-alives.
const PER_SECOND: f64 = 100.0;

/// Streams without payload that are known, the newest: more than may be open unless that is raised. The others have ended, as a rule.
const MOST_BARE: usize = 2048;

const END_STREAM: u8 = 1;

/// What of its talk a connection is still allowed.
#[derive(Debug)]
struct Allowances {
    about_itself: Allowance,
    /// Of streams, but for as many as carried something: each earns its own.
    resets: Allowance,
    /// The last one that was opened.
    newest: u32,
    /// Those that have carried nothing yet.
    bare: BTreeSet<u32>,
}

impl Allowances {
    fn new(now: Instant) -> Self {
        Self {
            about_itself: Allowance::new(now),
            resets: Allowance::new(now),
            newest: 0,
            bare: BTreeSet::new(),
        }
    }

    fn came_in(&mut self, frame: Frame, now: Instant) -> bool {
        let goes_on = match frame.kind {
            Frame::RST_STREAM => {
                self.bare.remove(&frame.stream);
                self.resets.spend(now)
            }
            Frame::DATA => {
                self.carried(frame);
                true
            }
            // Trailers open nothing.
            Frame::HEADERS if frame.stream > self.newest => {
                self.opened(frame.stream);
                true
            }
            _ => true,
        };
        self.about_itself.came_in(frame, now) && goes_on
    }

    fn went_out(&mut self, frame: Frame) {
        self.about_itself.went_out(frame);
        if frame.kind == Frame::DATA {
            self.carried(frame);
        }
    }

    fn opened(&mut self, stream: u32) {
        self.newest = stream;
        self.bare.insert(stream);
        if self.bare.len() > MOST_BARE {
            self.bare.pop_first();
        }
    }

    fn carried(&mut self, data: Frame) {
        if data.length > 0 && self.bare.remove(&data.stream) {
            self.resets.earn(1);
        }
    }
}

/// How many frames may still come, as things are.
#[derive(Debug)]
struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self {
            left: FIRST,
            since: now,
        }
    }

    fn came_in(&mut self, frame: Frame, now: Instant) -> bool {
        match frame.kind {
            Frame::DATA if frame.length > 0 => self.earn(PER_DATA_IN),
            Frame::DATA if frame.flags & END_STREAM != 0 => true,
            Frame::HEADERS => self.earn(PER_REQUEST),
            // Bounded by `h2` itself, with the head it belongs to.
            Frame::CONTINUATION => true,
            _ => self.spend(now),
        }
    }

    fn went_out(&mut self, frame: Frame) {
        if frame.kind == Frame::DATA && frame.length > 0 {
            self.earn(PER_DATA_OUT);
        }
    }

    fn earn(&mut self, earned: u32) -> bool {
        self.left = self.left.saturating_add(earned).min(MOST);
        true
    }

    fn spend(&mut self, now: Instant) -> bool {
        if self.left == 0 {
            let passed = now.saturating_duration_since(self.since).as_secs_f64();
            // As long as it takes: it is cut off at `MOST`, and a fraction is left for the next time.
            let earned = (passed * PER_SECOND).min(f64::from(MOST)).floor();
            self.since += Duration::from_secs_f64(earned / PER_SECOND);
            self.left = earned as u32;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// A connection whose frames are counted. When it has said too much of itself, nothing more is read of it.
#[derive(Debug)]
pub struct Calm<IO> {
    io: IO,
    inbound: Frames,
    outbound: Frames,
    allowances: Allowances,
    exceeded: bool,
    tell: Arc<Notify>,
}

impl<IO> Calm<IO> {
    /// And what is notified, once, when it is enough.
    pub fn new(io: IO) -> (Self, Arc<Notify>) {
        let tell = Arc::<Notify>::default();
        let calm = Self {
            io,
            inbound: Frames::of_client(),
            outbound: Frames::of_server(),
            allowances: Allowances::new(Instant::now()),
            exceeded: false,
            tell: tell.clone(),
        };
        (calm, tell)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Calm<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.exceeded {
            // Whoever was told does not wait for this.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
        let (now, allowances) = (Instant::now(), &mut this.allowances);
        let (mut enough, read) = (false, buffer.filled().get(before..).unwrap_or_default());
        this.inbound
            .heads(read, |frame| enough |= !allowances.came_in(frame, now));
        if enough {
            this.exceeded = true;
            this.tell.notify_one();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Calm<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, slices))?;
        let mut left = written;
        for slice in slices {
            let part = slice.get(..left.min(slice.len())).unwrap_or_default();
            let allowances = &mut this.allowances;
            this.outbound
                .heads(part, |frame| allowances.went_out(frame));
            left -= part.len();
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Duration, Instant};

    use super::{Allowance, Allowances, FIRST, Frame, MOST, MOST_BARE, PER_DATA_OUT, PER_REQUEST};

    fn of(kind: u8, length: usize) -> Frame {
        on(1, kind, length)
    }

    fn on(stream: u32, kind: u8, length: usize) -> Frame {
        let flags = 0;
        Frame {
            kind,
            flags,
            length,
            stream,
        }
    }

    fn refused(allowance: &mut Allowance, frame: Frame, now: Instant) -> u32 {
        let mut taken = 0;
        while allowance.came_in(frame, now) {
            taken += 1;
            assert!(taken <= 2 * MOST, "no end of {frame:?}");
        }
        taken
    }

    #[test]
    fn what_carries_nothing_is_spent_and_what_carries_something_is_earned() {
        let now = Instant::now();
        // PRIORITY, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, empty DATA, and what nobody knows.
        for kind in [2, 3, 4, 6, 8, 0, 0xfa] {
            assert_eq!(refused(&mut Allowance::new(now), of(kind, 0), now), FIRST);
        }
        let mut allowance = Allowance::new(now);
        assert_eq!(refused(&mut allowance, of(6, 8), now), FIRST);
        assert!(allowance.came_in(of(1, 40), now));
        assert_eq!(refused(&mut allowance, of(6, 8), now), PER_REQUEST);
        allowance.went_out(of(0, 1));
        allowance.went_out(of(0, 0));
        allowance.went_out(of(6, 8));
        assert_eq!(refused(&mut allowance, of(8, 4), now), PER_DATA_OUT);
        // The last DATA of a stream may be empty.
        let last = Frame {
            flags: 1,
            ..of(0, 0)
        };
        assert!((0..2 * MOST).all(|_| allowance.came_in(last, now)));
        for _ in 0..MOST {
            allowance.went_out(of(0, 1));
        }
        assert_eq!(refused(&mut allowance, of(8, 4), now), MOST);
    }

    /// Opens streams and resets them until it is enough; with bytes in between, or none. How many were taken.
    fn reset(allowances: &mut Allowances, bytes: usize, now: Instant) -> u32 {
        let mut taken = 0;
        while taken < 2 * MOST {
            let next = allowances.newest + 2;
            assert!(allowances.came_in(on(next, 1, 40), now));
            allowances.went_out(on(next, 1, 10));
            allowances.went_out(on(next, 0, bytes));
            if !allowances.came_in(on(next, 3, 4), now) {
                break;
            }
            taken += 1;
        }
        taken
    }

    #[test]
    fn streams_that_are_reset_with_nothing_carried_come_to_an_end() {
        let now = Instant::now();
        assert_eq!(reset(&mut Allowances::new(now), 0, now), FIRST);
        let mut allowances = Allowances::new(now);
        assert_eq!(reset(&mut allowances, 1, now), 2 * MOST);
        assert_eq!(reset(&mut allowances, 0, now), FIRST);
        // As many a second as keep-alives may be.
        let mut later = now;
        for _ in 0..20 * FIRST {
            later += Duration::from_millis(11);
            assert!(allowances.came_in(of(1, 40), later) && allowances.came_in(of(3, 4), later));
        }
    }

    #[test]
    fn what_one_stream_carries_excuses_no_other() {
        let now = Instant::now();
        let mut allowances = Allowances::new(now);
        assert!(allowances.came_in(on(1, 1, 40), now));
        for _ in 0..MOST {
            assert!(allowances.came_in(on(1, 0, 1), now));
            allowances.went_out(on(1, 0, 1));
        }
        // Trailers do not make it a new one.
        assert!(allowances.came_in(on(1, 1, 10), now));
        allowances.went_out(on(1, 0, 1));
        assert_eq!(reset(&mut allowances, 0, now), FIRST + 1);
    }

    #[test]
    fn streams_that_end_without_payload_are_forgotten() {
        let now = Instant::now();
        let mut allowances = Allowances::new(now);
        let streams = (1..).step_by(2).take(3 * MOST_BARE);
        for stream in streams {
            assert!(allowances.came_in(on(stream, 1, 40), now));
        }
        assert_eq!(allowances.bare.len(), MOST_BARE);
        assert!(allowances.bare.contains(&allowances.newest));
    }

    #[test]
    fn keep_alives_go_on_for_ever() {
        let mut now = Instant::now();
        let mut allowance = Allowance::new(now);
        for _ in 0..20 * FIRST {
            now += Duration::from_millis(11);
            assert!(allowance.came_in(of(6, 8), now));
        }
    }
}
