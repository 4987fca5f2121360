//! Bytes both ways until both ends have said so.
//!
//! Nothing is held while idle: each direction reads into a buffer of its thread and keeps only what could not be
//! written at once. A direction that proves bulky between two plaintext sockets moves through a lent pipe instead.

mod direction;

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use sluicegate_policy::{Denial, FirstBytes, TargetPermit};
use sluicegate_relay::flow::{FULL, Pacing};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use self::direction::{Direction, Side};
use super::{
    gate::{Gate, Step},
    splice::Plain,
};
use crate::outcome::Party;

/// Reads of one direction before the other gets a turn.
const TURNS: usize = 16;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; FULL].into_boxed_slice());
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

enum Stop {
    Reader,
    Writer,
    Cut(Denial),
    Http,
}

/// Room for one read: all of it, or a piece.
fn room(scratch: &mut [u8], piece: Option<usize>) -> &mut [u8] {
    let most = piece.map_or(scratch.len(), |piece| piece.min(scratch.len()));
    scratch.get_mut(..most).unwrap_or_default()
}

/// No gate: nobody looks at the bytes.
const NOBODY: Option<fn(&[u8])> = None;

/// Told of each chunk and by whom it was sent, before any of it goes on; a refusal stops the pump.
pub trait Observe {
    /// A chunk was read.
    ///
    /// # Errors
    /// Nothing of it may go on.
    fn moved(&mut self, by: Party, bytes: usize) -> Result<(), Denial>;

    /// The most that is read at once, where there is a bandwidth.
    fn piece(&self) -> Option<usize> {
        None
    }

    /// These bytes are to go on. `None`: at once. Otherwise when it completes, and as many as it says.
    fn pace(&self, _by: Party, _bytes: usize) -> Option<Pacing> {
        None
    }
}

impl<F: FnMut(Party, usize) -> Result<(), Denial>> Observe for F {
    fn moved(&mut self, by: Party, bytes: usize) -> Result<(), Denial> {
        self(by, bytes)
    }
}

impl Pump {
    /// A pump; `first` was read from downstream already, and goes up first if the gate lets it.
    pub fn new(gate: Option<Gate>, first: Vec<u8>) -> Self {
        let up = Direction::of(first);
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

    /// What the client began with, for its record; taken out, as nobody asks again. `None` where it is not known yet.
    pub fn take_began(&mut self) -> Option<FirstBytes> {
        match &mut self.gate {
            Some(gate) => gate.take_began(),
            None => Some(std::mem::replace(&mut self.seen, FirstBytes::Unseen)),
        }
    }

    /// What the client has sent and sends is judged by this permit: the one it began with is no longer in force. For first bytes
    /// of which nothing has gone up.
    pub fn judge_by(&mut self, permit: &TargetPermit) {
        self.gate = Gate::new(permit);
        self.begun = false;
        self.up.held = false;
        self.up.waiting = 0;
        // Held back from now on, it must not hold a turn that others wait for.
        self.down.step_back();
    }

    /// The gate is open for good.
    fn open(&mut self) {
        if let Some(gate) = self.gate.take() {
            self.reported = self.reported.or(gate.reported());
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

    /// Did the client begin with a PROXY header?
    pub fn preamble(&self) -> bool {
        self.gate.as_ref().is_some_and(Gate::preamble)
    }

    /// Was one of the client's hellos an encrypted one?
    pub fn ech(&self) -> bool {
        self.ech
    }

    /// What report mode let pass of the client's first bytes.
    pub fn reported(&self) -> Option<Denial> {
        self.reported
    }

    /// Do bytes wait for their turn, to keep within a bandwidth?
    pub fn waits(&self) -> bool {
        self.up.waits() || self.down.waits()
    }

    /// The client's bytes not yet sent on.
    pub fn take_held(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.up.kept)
    }

    /// Carry bytes until both directions have ended. FIN is carried as FIN in each direction by itself; the last of them may be left
    /// to the caller, who closes both at once. On a reset it returns at once: the caller resets the rest. May be dropped and called
    /// again.
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
        let new = std::mem::take(&mut self.up.waiting);
        observe.moved(Party::Downstream, new).map_err(Stop::Cut)?;
        if observe.piece().is_some() {
            // Until they are out nothing is read, and so nothing else is owed.
            self.up.owe(new);
        }
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
        let last = self.down.is_done();
        for _ in 0..TURNS {
            let mut side = Side::new(Party::Downstream, &mut self.activity, observe);
            if self.gate.is_none() {
                return self.up.poll(cx, reader, writer, (last, NOBODY), &mut side);
            }
            if !self.up.held && self.up.poll_out(cx, writer, &mut side)?.is_pending() {
                return self.up.poll_look(cx, reader);
            }
            if self.up.eof {
                // Nothing said at all is no TLS either.
                let (held, kept) = (self.up.held, &self.up.kept);
                let denial = self.gate.as_mut().and_then(|gate| match held {
                    true => gate.at_end(kept),
                    false => gate.at_deadline(0).map(|_| Denial::TlsRequired),
                });
                if let Some(denial) = denial {
                    return Poll::Ready(Err(Stop::Cut(denial)));
                }
                self.open();
                self.release(observe)?;
                continue;
            }
            let (before, piece) = (self.up.kept.len(), observe.piece());
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let mut buf = ReadBuf::new(room(scratch, piece));
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
        let mut side = Side::new(Party::Upstream, &mut self.activity, observe);
        let watch = if gated { Some(watch) } else { None };
        let last = self.up.is_done();
        let poll = self.down.poll(cx, reader, writer, (last, watch), &mut side);
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

#[cfg(test)]
mod tests;
