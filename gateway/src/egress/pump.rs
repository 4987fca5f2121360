//! Bytes both ways until both ends have said so.
//!
//! Nothing is held while idle: each direction reads into a buffer of its thread and keeps only what could not be
//! written at once. A direction that proves bulky between two plaintext sockets moves through a lent pipe instead.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use sluicegate_policy::{Denial, FirstBytes, TargetPermit};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::{
    gate::{Gate, Step},
    splice::{Pipe, Plain},
};
use crate::outcome::Party;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// Reads of one direction before the other gets a turn.
const TURNS: usize = 16;
/// While one side takes nothing, how often the other is asked whether it has been reset: it is not read meanwhile.
const LOOK: Duration = Duration::from_secs(1);
/// Reads in a row of at least so much prove a direction bulky …
const BULKY_READ: usize = 16 * 1024;
/// … when there were so many of them.
const BULKY_READS: u8 = 8;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into_boxed_slice());
}

/// How a pump ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Both directions ended with FIN; this side's came first.
    Finished(Party),
    /// This side reset, or could not be written to.
    Reset(Party),
    /// The gate closed, or the observer stopped it (a byte quota).
    Cut(Denial),
    /// The client speaks plain HTTP/1: what it sent so far is to be taken from [`Pump::take_held`].
    Http,
}

/// Carries bytes between a downstream and an upstream. All state is here, so that a call to [`Pump::run`] may be dropped
/// and repeated.
#[derive(Debug)]
pub struct Pump {
    gate: Option<Gate>,
    up: Direction,
    down: Direction,
    first_fin: Option<Party>,
    activity: Activity,
    /// The bytes it began with were judged.
    begun: bool,
    /// A hello of the client's was an encrypted one.
    ech: bool,
    /// What report mode let pass of its first bytes.
    reported: Option<Denial>,
    /// What it began with, as far as the gate has looked; as long as there is one, it knows.
    seen: FirstBytes,
}

/// When bytes moved.
#[derive(Clone, Copy, Debug)]
pub struct Activity {
    /// The client's first byte.
    pub first_up: Option<Instant>,
    /// The last byte either way; the start, if there was none.
    pub last: Instant,
}

impl Activity {
    fn mark(&mut self, party: Party) {
        self.last = Instant::now();
        if party == Party::Downstream && self.first_up.is_none() {
            self.first_up = Some(self.last);
        }
    }
}

#[derive(Debug, Default)]
struct Direction {
    /// Read but not yet written.
    kept: Vec<u8>,
    written: usize,
    eof: bool,
    done: bool,
    unflushed: bool,
    /// Kept bytes may not be written: the gate has not decided.
    held: bool,
    /// Kept bytes that were not observed yet.
    waiting: usize,
    /// Bandwidth: nothing is read meanwhile. Only where there is a limit, and it is met.
    rest: Option<Pin<Box<Sleep>>>,
    /// Until the next look at a reader whose bytes wait. Only while they do.
    look: Option<Pin<Box<Sleep>>>,
    /// Large reads in a row.
    large: u8,
    /// Lent while bulk is in flight.
    pipe: Option<Pipe>,
}

enum Stop {
    Reader,
    Writer,
    Cut(Denial),
    Http,
}

/// No gate: nobody looks at the bytes.
const NOBODY: Option<fn(&[u8])> = None;

/// Told of each chunk and by whom it was sent, before any of it goes on. Answers how long that side must rest before it is read
/// again; a refusal stops the pump.
pub trait Observe: FnMut(Party, usize) -> Result<Duration, Denial> {}
impl<F: FnMut(Party, usize) -> Result<Duration, Denial>> Observe for F {}

impl Pump {
    /// A pump; `first` was read from downstream already, and goes up first if the gate lets it.
    pub fn new(gate: Option<Gate>, first: Vec<u8>) -> Self {
        let up = Direction {
            kept: first,
            ..Direction::default()
        };
        let activity = Activity {
            first_up: None,
            last: Instant::now(),
        };
        Self {
            gate,
            up,
            down: Direction::default(),
            first_fin: None,
            activity,
            begun: false,
            ech: false,
            reported: None,
            seen: FirstBytes::Unseen,
        }
    }

    /// What the client began with; `None` where that is still to be judged, and nothing of it has gone up.
    pub fn seen(&self) -> Option<&FirstBytes> {
        match &self.gate {
            Some(gate) => gate.seen(),
            None => Some(&self.seen),
        }
    }

    /// What the client has sent and sends is judged by this permit: the one it began with is no longer in force. For first bytes
    /// of which nothing has gone up.
    pub fn judge_by(&mut self, permit: &TargetPermit) {
        self.gate = Gate::new(permit);
        self.begun = false;
        self.up.held = false;
        self.up.waiting = 0;
    }

    /// The gate is open for good.
    fn open(&mut self) {
        if let Some(gate) = self.gate.take() {
            self.seen = gate.into_seen();
        }
    }

    /// When bytes moved so far.
    pub fn activity(&self) -> Activity {
        self.activity
    }

    /// Is the gate still waiting for bytes to judge?
    pub fn undecided(&self) -> bool {
        self.gate.as_ref().is_some_and(Gate::undecided)
    }

    /// The gate's refusal when the deadline for first bytes passes now.
    pub fn at_deadline(&self) -> Option<Denial> {
        self.gate
            .as_ref()
            .and_then(|gate| gate.at_deadline(self.up.kept.len()))
    }

    /// Did the client begin TLS, as far as the gate has seen?
    pub fn tls(&self) -> bool {
        self.gate.as_ref().is_some_and(Gate::tls)
    }

    /// Was one of the client's hellos an encrypted one?
    pub fn ech(&self) -> bool {
        self.ech
    }

    /// What report mode let pass of the client's first bytes.
    pub fn reported(&self) -> Option<Denial> {
        self.reported
    }

    /// The client's bytes not yet sent on.
    pub fn take_held(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.up.kept)
    }

    /// Carry bytes until both directions have ended. FIN is carried as FIN in each direction by itself. On a reset it
    /// returns at once: the caller resets the rest. May be dropped and called again.
    pub async fn run<D, U>(
        &mut self,
        downstream: &mut D,
        upstream: &mut U,
        mut observe: impl Observe,
    ) -> End
    where
        D: AsyncRead + AsyncWrite + Plain + Unpin,
        U: AsyncRead + AsyncWrite + Plain + Unpin,
    {
        if let Err(stop) = self.judge_first(&mut observe) {
            return stop.end(Party::Downstream, Party::Upstream);
        }
        poll_fn(|cx| self.poll(cx, downstream, upstream, &mut observe)).await
    }

    /// Bytes that came with the request are judged, once, before anything is read.
    fn judge_first(&mut self, observe: &mut impl Observe) -> Result<(), Stop> {
        if std::mem::replace(&mut self.begun, true) || self.up.kept.is_empty() {
            return Ok(());
        }
        self.activity.mark(Party::Downstream);
        self.judge(self.up.kept.len(), observe)
    }

    /// Ask the gate about the last `new` bytes kept. They are observed when they may go on.
    fn judge(&mut self, new: usize, observe: &mut impl Observe) -> Result<(), Stop> {
        self.up.waiting += new;
        let step = match &mut self.gate {
            Some(gate) => gate.client_sent(&self.up.kept, new),
            None => Step::Open,
        };
        if let Some(gate) = &self.gate {
            self.ech |= gate.ech();
            self.reported = self.reported.or(gate.reported());
        }
        match step {
            Step::Hold => {
                self.up.held = true;
                return Ok(());
            }
            Step::Forward => {}
            Step::Open => self.open(),
            Step::Http => return Err(Stop::Http),
            Step::Cut(denial) => return Err(Stop::Cut(denial)),
        }
        self.release(observe)
    }

    /// What is held may go on.
    fn release(&mut self, observe: &mut impl Observe) -> Result<(), Stop> {
        self.up.held = false;
        let rest =
            observe(Party::Downstream, std::mem::take(&mut self.up.waiting)).map_err(Stop::Cut)?;
        self.up.rest_for(rest);
        Ok(())
    }

    fn poll<D, U>(
        &mut self,
        cx: &mut Context<'_>,
        downstream: &mut D,
        upstream: &mut U,
        observe: &mut impl Observe,
    ) -> Poll<End>
    where
        D: AsyncRead + AsyncWrite + Plain + Unpin,
        U: AsyncRead + AsyncWrite + Plain + Unpin,
    {
        let up = self.poll_up(cx, downstream, upstream, observe);
        if let Poll::Ready(Err(stop)) = up {
            return Poll::Ready(stop.end(Party::Downstream, Party::Upstream));
        }
        let down = self.poll_down(cx, upstream, downstream, observe);
        if let Poll::Ready(Err(stop)) = down {
            return Poll::Ready(stop.end(Party::Upstream, Party::Downstream));
        }
        if self.first_fin.is_none() {
            self.first_fin = if self.up.eof {
                Some(Party::Downstream)
            } else {
                self.down.eof.then_some(Party::Upstream)
            };
        }
        match (up, down) {
            (Poll::Ready(_), Poll::Ready(_)) => {
                Poll::Ready(End::Finished(self.first_fin.unwrap_or(Party::Downstream)))
            }
            _ => Poll::Pending,
        }
    }

    fn poll_up<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        observe: &mut impl Observe,
    ) -> Poll<Result<(), Stop>>
    where
        R: AsyncRead + Plain + Unpin,
        W: AsyncWrite + Plain + Unpin,
    {
        for _ in 0..TURNS {
            if self.gate.is_none() {
                let activity = &mut self.activity;
                let observe = |n| {
                    activity.mark(Party::Downstream);
                    observe(Party::Downstream, n)
                };
                return self.up.poll(cx, reader, writer, NOBODY, observe);
            }
            if !self.up.held {
                ready!(self.up.poll_kept(cx, writer)).map_err(|_| Stop::Writer)?;
            }
            if self.up.eof {
                if self.up.held
                    && let Some(denial) = self.gate.as_ref().and_then(Gate::at_end)
                {
                    return Poll::Ready(Err(Stop::Cut(denial)));
                }
                self.open();
                self.release(observe)?;
                continue;
            }
            if self.up.poll_rest(cx).is_pending() {
                return self.up.poll_flush(cx, writer);
            }
            let before = self.up.kept.len();
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let mut buf = ReadBuf::new(scratch);
                ready!(Pin::new(&mut *reader).poll_read(cx, &mut buf)).map_err(|_| Stop::Reader)?;
                self.up.kept.extend_from_slice(buf.filled());
                Poll::Ready(Ok::<(), Stop>(()))
            });
            if read.is_pending() {
                return self.up.poll_flush(cx, writer);
            }
            ready!(read)?;
            let new = self.up.kept.len() - before;
            if new == 0 {
                self.up.eof = true;
                continue;
            }
            self.activity.mark(Party::Downstream);
            self.judge(new, observe)?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_down<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        observe: &mut impl Observe,
    ) -> Poll<Result<(), Stop>>
    where
        R: AsyncRead + Plain + Unpin,
        W: AsyncWrite + Plain + Unpin,
    {
        if self.gate.as_ref().is_some_and(Gate::holds_upstream) {
            return Poll::Pending;
        }
        let gated = self.gate.is_some();
        let (gate, began) = (&mut self.gate, &mut self.seen);
        let watch = |chunk: &[u8]| {
            if let Some(open) = gate.take_if(|gate| gate.server_sent(chunk)) {
                *began = open.into_seen();
            }
        };
        let activity = &mut self.activity;
        let seen = |n| {
            activity.mark(Party::Upstream);
            observe(Party::Upstream, n)
        };
        let watch = if gated { Some(watch) } else { None };
        let poll = self.down.poll(cx, reader, writer, watch, seen);
        // Client bytes held for a second hello may go now: nothing else would wake their direction.
        if gated && self.gate.is_none() {
            self.release(observe)?;
            cx.waker().wake_by_ref();
        }
        poll
    }
}

impl Stop {
    fn end(self, reader: Party, writer: Party) -> End {
        match self {
            Self::Reader => End::Reset(reader),
            Self::Writer => End::Reset(writer),
            Self::Cut(denial) => End::Cut(denial),
            Self::Http => End::Http,
        }
    }
}

impl Direction {
    /// Ready(Ok) once FIN was read and passed on. `see` looks at each chunk before it is written.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        mut see: Option<impl FnMut(&[u8])>,
        mut observe: impl FnMut(usize) -> Result<Duration, Denial>,
    ) -> Poll<Result<(), Stop>>
    where
        R: AsyncRead + Plain + Unpin,
        W: AsyncWrite + Plain + Unpin,
    {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..TURNS {
            if self.poll_out(cx, writer)?.is_pending() {
                return self.poll_look(cx, reader);
            }
            if self.eof {
                ready!(Pin::new(&mut *writer).poll_shutdown(cx)).map_err(|_| Stop::Writer)?;
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            if self.poll_rest(cx).is_pending() {
                return self.poll_flush(cx, writer);
            }
            // Either way what is read is observed before any of it is written: a budget is never passed.
            let step = match self.poll_splice(cx, see.is_some(), reader, writer, &mut observe) {
                Some(step) => step,
                None => SCRATCH.with_borrow_mut(|scratch| {
                    self.poll_chunk(cx, reader, writer, scratch, &mut see, &mut observe)
                }),
            };
            if step?.is_pending() {
                return self.poll_flush(cx, writer);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Write everything read so far.
    fn poll_out<W>(&mut self, cx: &mut Context<'_>, writer: &mut W) -> Result<Poll<()>, Stop>
    where
        W: AsyncWrite + Plain + Unpin,
    {
        let written = match self.poll_kept(cx, writer) {
            Poll::Ready(Ok(())) => self.poll_pipe(cx, writer),
            unwritten => unwritten,
        };
        match written {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Err(_)) => return Err(Stop::Writer),
            Poll::Ready(Ok(())) => {}
        }
        self.look = None;
        Ok(Poll::Ready(()))
    }

    /// The writer takes nothing: has the reader been reset? Always pending, or a failure.
    fn poll_look<R: Plain>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
    ) -> Poll<Result<(), Stop>> {
        loop {
            let look = self.look.get_or_insert_with(|| Box::pin(sleep(LOOK)));
            ready!(look.as_mut().poll(cx));
            self.look = None;
            if reader.broken(cx) {
                return Poll::Ready(Err(Stop::Reader));
            }
        }
    }

    /// What was read and observed: is it bulk? Bandwidth is kept in small steps: who rests is not.
    fn measured(&mut self, read: usize, rest: Duration) {
        self.rest_for(rest);
        let large = read >= BULKY_READ && rest.is_zero();
        self.large = if large {
            self.large.saturating_add(1)
        } else {
            0
        };
    }

    /// Read through a pipe, where this direction is bulky, nobody has to see the bytes, both ends are plaintext and a pipe
    /// is to be had.
    fn poll_splice<R: Plain, W: Plain>(
        &mut self,
        cx: &mut Context<'_>,
        seen: bool,
        reader: &R,
        writer: &W,
        observe: &mut impl FnMut(usize) -> Result<Duration, Denial>,
    ) -> Option<Result<Poll<()>, Stop>> {
        if seen || self.large < BULKY_READS {
            return None;
        }
        let (from, _) = (reader.tcp()?, writer.tcp()?);
        if self.pipe.is_none() {
            self.pipe = Pipe::borrow();
        }
        let filled = self.pipe.as_mut()?.poll_fill(cx, from);
        if !matches!(filled, Poll::Ready(Ok(1..))) {
            // Nothing in flight: others may have it.
            self.pipe = None;
        }
        Some(match filled {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Err(_)) => Err(Stop::Reader),
            Poll::Ready(Ok(0)) => {
                self.eof = true;
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Ok(n)) => observe(n).map_err(Stop::Cut).map(|rest| {
                self.measured(n, rest);
                Poll::Ready(())
            }),
        })
    }

    /// Write what the pipe holds.
    fn poll_pipe<W: Plain>(&mut self, cx: &mut Context<'_>, writer: &W) -> Poll<io::Result<()>> {
        match (&mut self.pipe, writer.tcp()) {
            (Some(pipe), Some(to)) if !pipe.is_empty() => pipe.poll_drain(cx, to),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Read nothing for so long.
    fn rest_for(&mut self, rest: Duration) {
        if !rest.is_zero() {
            self.rest = Some(Box::pin(sleep(rest)));
        }
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(rest) = &mut self.rest {
            ready!(rest.as_mut().poll(cx));
            self.rest = None;
        }
        Poll::Ready(())
    }

    /// Nothing more to read for now: what was written must not wait in a TLS buffer. Always pending, or a failure.
    fn poll_flush<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut W,
    ) -> Poll<Result<(), Stop>> {
        if self.unflushed {
            ready!(Pin::new(writer).poll_flush(cx)).map_err(|_| Stop::Writer)?;
            self.unflushed = false;
        }
        Poll::Pending
    }

    /// Write what was kept.
    fn poll_kept<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut W,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = self
            .kept
            .get(self.written..)
            .filter(|rest| !rest.is_empty())
        {
            let n = ready!(Pin::new(&mut *writer).poll_write(cx, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
            self.unflushed = true;
        }
        if self.written > 0 {
            self.kept = Vec::new();
            self.written = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// One read, and as much of a write as goes at once.
    fn poll_chunk<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        scratch: &mut [u8],
        see: &mut Option<impl FnMut(&[u8])>,
        observe: &mut impl FnMut(usize) -> Result<Duration, Denial>,
    ) -> Result<Poll<()>, Stop>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buf = ReadBuf::new(scratch);
        match Pin::new(reader).poll_read(cx, &mut buf) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(read) => read.map_err(|_| Stop::Reader)?,
        }
        let mut rest = buf.filled();
        if rest.is_empty() {
            self.eof = true;
            return Ok(Poll::Ready(()));
        }
        let wait = observe(rest.len()).map_err(Stop::Cut)?;
        self.measured(rest.len(), wait);
        if let Some(see) = see {
            see(rest);
        }
        while !rest.is_empty() {
            match Pin::new(&mut *writer).poll_write(cx, rest) {
                Poll::Ready(Ok(0) | Err(_)) => return Err(Stop::Writer),
                Poll::Ready(Ok(n)) => {
                    self.unflushed = true;
                    rest = rest.get(n..).unwrap_or_default();
                }
                Poll::Pending => {
                    self.kept.extend_from_slice(rest);
                    break;
                }
            }
        }
        Ok(Poll::Ready(()))
    }
}

#[cfg(test)]
mod tests;
