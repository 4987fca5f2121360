//! Joins two flows: both directions at once, each end carried as what it is.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Broken, Flow};

/// Chunks moved in one direction before other tasks get their turn.
const FAIR: usize = 32;

/// Which of the two flows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// The first argument of [`pump`].
    A,
    /// The second.
    B,
}

/// Why the pump stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// FIN both ways.
    Completed,
    /// One side broke; the other was reset.
    Reset(Broken),
    /// Nothing moved for the time allowed; both were reset.
    Idle,
    /// The meter said no; both were reset.
    Stopped,
}

/// How it ended, and whose doing it was: the side that broke, or that sent the first FIN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ending {
    /// Why.
    pub how: How,
    /// Who; `None` where it was neither.
    pub by: Option<Side>,
}

/// How long nothing may move. Absent: for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timers {
    /// With both directions open.
    pub idle: Option<Duration>,
    /// Once one direction has ended, where that is less.
    pub half_close: Option<Duration>,
}

impl Timers {
    /// Once one direction has ended: that makes nobody wait longer.
    #[must_use]
    pub fn shortest(self) -> Option<Duration> {
        self.idle.into_iter().chain(self.half_close).min()
    }
}

/// Counts what passes, and may stop it.
pub trait Meter {
    /// `bytes` came from this side. `false` stops the pump.
    fn moved(&self, from: Side, bytes: usize) -> bool;

    /// These bytes of that side's are to go on. `None`: at once. Otherwise when it completes, and as many as it says; the others
    /// are asked for anew.
    fn pace(&self, _from: Side, _bytes: usize) -> Option<Pacing> {
        None
    }

    /// Do bytes wait for their turn somewhere inside one of the flows?
    fn waits(&self) -> bool {
        false
    }
}

/// Waits until bytes may go on within a bandwidth, and says how many.
pub struct Pacing(Pin<Box<dyn Future<Output = usize> + Send>>);

impl Pacing {
    /// By this future.
    pub fn new(turn: impl Future<Output = usize> + Send + 'static) -> Self {
        Self(Box::pin(turn))
    }
}

impl std::fmt::Debug for Pacing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pacing")
    }
}

impl Future for Pacing {
    type Output = usize;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<usize> {
        self.0.as_mut().poll(cx)
    }
}

/// Counts nothing.
impl Meter for () {
    fn moved(&self, _from: Side, _bytes: usize) -> bool {
        true
    }
}

/// Pump until both directions have ended or one side broke. At most one chunk per direction is held here: what is not
/// taken on one side is not read on the other. Dropping the future and then the flows resets both.
pub fn pump<'p, A, B, M>(
    a: &'p mut A,
    b: &'p mut B,
    timers: Timers,
    meter: &'p M,
) -> Pump<'p, A, B, M>
where
    A: Flow + ?Sized,
    B: Flow + ?Sized,
    M: Meter + Sync,
{
    Pump {
        a,
        b,
        meter,
        timers,
        work: Work::default(),
        timer: None,
        armed: None,
        ending: None,
    }
}

/// What [`pump`] does. By hand: an async function would hold twice what it is given, as long as the stream is idle.
#[must_use = "nothing moves before it is awaited"]
pub struct Pump<'p, A: ?Sized, B: ?Sized, M> {
    a: &'p mut A,
    b: &'p mut B,
    meter: &'p M,
    timers: Timers,
    work: Work,
    /// Apart: most streams of a client have no limit, and none has one before it is silent.
    timer: Option<Pin<Box<Sleep>>>,
    /// The limit that it was last set for.
    armed: Option<Option<Duration>>,
    /// Both FINs are through, and what carries them is to be ended.
    ending: Option<Ending>,
}

impl<A, B, M> Future for Pump<'_, A, B, M>
where
    A: Flow + ?Sized,
    B: Flow + ?Sized,
    M: Meter,
{
    type Output = Ending;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ending> {
        let this = &mut *self;
        let ending = match this.ending {
            Some(ending) => ending,
            None => ready!(this.poll_work(cx)),
        };
        if ending.how != How::Completed {
            this.a.reset();
            this.b.reset();
            return Poll::Ready(ending);
        }
        this.ending = Some(ending);
        match (this.a.poll_close(cx), this.b.poll_close(cx)) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(ending),
            _ => Poll::Pending,
        }
    }
}

impl<A, B, M> Pump<'_, A, B, M>
where
    A: Flow + ?Sized,
    B: Flow + ?Sized,
    M: Meter,
{
    /// Until both directions have ended, one side broke, or nothing has moved for too long.
    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        if let Poll::Ready(ending) = self.work.poll(cx, self.a, self.b, self.meter) {
            return Poll::Ready(ending);
        }
        ready!(self.poll_silence(cx));
        Poll::Ready(Ending {
            how: How::Idle,
            by: None,
        })
    }

    /// Nothing moves now: has that lasted too long?
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = if self.work.waits() || self.meter.waits() {
            // What waits for its turn is not silent.
            None
        } else if self.work.first_fin.is_some() {
            self.timers.shortest()
        } else {
            self.timers.idle
        };
        let anew = std::mem::take(&mut self.work.moved) || self.armed != Some(limit);
        self.armed = Some(limit);
        let Some(limit) = limit else {
            return Poll::Pending;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + limit)));
        if anew {
            timer.as_mut().reset(Instant::now() + limit);
        }
        timer.as_mut().poll(cx)
    }
}

/// One direction.
#[derive(Default)]
struct Way {
    /// On its way out.
    going: Bytes,
    /// Waits for its turn, and nothing is read meanwhile. Only where there is a bandwidth, and so apart.
    held: Option<Box<Waiting>>,
    state: State,
}

/// Bytes that wait for their turn.
struct Waiting {
    bytes: Bytes,
    /// Asked for again with what is left.
    pacing: Option<Pacing>,
}

#[derive(Default, PartialEq, Eq, Clone, Copy)]
enum State {
    #[default]
    Open,
    Finishing,
    Done,
}

/// What stops a direction for good.
enum Stop {
    From(Broken),
    To(Broken),
    Meter,
}

#[derive(Default)]
struct Work {
    up: Way,
    down: Way,
    first_fin: Option<Side>,
    moved: bool,
}

impl Work {
    /// Bytes wait for their turn.
    fn waits(&self) -> bool {
        self.up.waits() || self.down.waits()
    }

    fn poll<A, B>(
        &mut self,
        cx: &mut Context<'_>,
        a: &mut A,
        b: &mut B,
        meter: &impl Meter,
    ) -> Poll<Ending>
    where
        A: Flow + ?Sized,
        B: Flow + ?Sized,
    {
        let up = self.up.poll(cx, a, b, meter, Side::A, &mut self.moved);
        if self.up.state != State::Open {
            self.first_fin.get_or_insert(Side::A);
        }
        if let Poll::Ready(Err(stop)) = up {
            return Poll::Ready(stop.ending(Side::A, Side::B));
        }
        let down = self.down.poll(cx, b, a, meter, Side::B, &mut self.moved);
        if self.down.state != State::Open {
            self.first_fin.get_or_insert(Side::B);
        }
        if let Poll::Ready(Err(stop)) = down {
            return Poll::Ready(stop.ending(Side::B, Side::A));
        }
        if up.is_ready() && down.is_ready() {
            return Poll::Ready(Ending {
                how: How::Completed,
                by: self.first_fin,
            });
        }
        // A side that is not being read must still be heard when it breaks.
        if self.up.deaf()
            && let Poll::Ready(broken) = a.poll_broken(cx)
        {
            return Poll::Ready(Ending {
                how: How::Reset(broken),
                by: Some(Side::A),
            });
        }
        if self.down.deaf()
            && let Poll::Ready(broken) = b.poll_broken(cx)
        {
            return Poll::Ready(Ending {
                how: How::Reset(broken),
                by: Some(Side::B),
            });
        }
        Poll::Pending
    }
}

impl Way {
    /// Nothing is being read from this direction's source.
    fn deaf(&self) -> bool {
        self.state != State::Open || !self.going.is_empty() || self.held.is_some()
    }

    /// Its turn has not come.
    fn waits(&self) -> bool {
        let held = self.held.as_ref();
        held.is_some_and(|waiting| waiting.pacing.is_some())
    }

    fn poll<F, T>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
        meter: &impl Meter,
        side: Side,
        moved: &mut bool,
    ) -> Poll<Result<(), Stop>>
    where
        F: Flow + ?Sized,
        T: Flow + ?Sized,
    {
        for _ in 0..FAIR {
            match self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Finishing => {
                    ready!(to.poll_finish(cx)).map_err(Stop::To)?;
                    self.state = State::Done;
                    *moved = true;
                }
                State::Open if !self.going.is_empty() => {
                    ready!(to.poll_write(cx, &mut self.going)).map_err(Stop::To)?;
                    *moved = true;
                }
                State::Open if self.held.is_some() => {
                    if self.poll_turn(cx, meter, side).is_pending() {
                        if let Poll::Ready(Err(broken)) = to.poll_flush(cx) {
                            return Poll::Ready(Err(Stop::To(broken)));
                        }
                        return Poll::Pending;
                    }
                    *moved = true;
                }
                State::Open => match from.poll_read(cx) {
                    Poll::Ready(Ok(Some(chunk))) => {
                        if !meter.moved(side, chunk.len()) {
                            return Poll::Ready(Err(Stop::Meter));
                        }
                        match meter.pace(side, chunk.len()) {
                            None => self.going = chunk,
                            pacing => {
                                let bytes = chunk;
                                self.held = Some(Box::new(Waiting { bytes, pacing }));
                            }
                        }
                        *moved = true;
                    }
                    Poll::Ready(Ok(None)) => {
                        self.going = Bytes::new();
                        self.state = State::Finishing;
                        *moved = true;
                    }
                    Poll::Ready(Err(broken)) => return Poll::Ready(Err(Stop::From(broken))),
                    Poll::Pending => {
                        // Idle: hold no buffer, and let nothing written wait for company.
                        self.going = Bytes::new();
                        if let Poll::Ready(Err(broken)) = to.poll_flush(cx) {
                            return Poll::Ready(Err(Stop::To(broken)));
                        }
                        return Poll::Pending;
                    }
                },
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// What of the held bytes may go, goes.
    fn poll_turn(&mut self, cx: &mut Context<'_>, meter: &impl Meter, side: Side) -> Poll<()> {
        let Some(waiting) = &mut self.held else {
            return Poll::Ready(());
        };
        let left = waiting.bytes.len();
        if waiting.pacing.is_none() {
            waiting.pacing = meter.pace(side, left);
        }
        let may = match &mut waiting.pacing {
            Some(pacing) => ready!(Pin::new(pacing).poll(cx)),
            None => left,
        };
        waiting.pacing = None;
        self.going = waiting.bytes.split_to(may.min(left));
        if may >= left {
            self.held = None;
        }
        Poll::Ready(())
    }
}

impl Stop {
    fn ending(self, from: Side, to: Side) -> Ending {
        match self {
            Self::From(broken) => Ending {
                how: How::Reset(broken),
                by: Some(from),
            },
            Self::To(broken) => Ending {
                how: How::Reset(broken),
                by: Some(to),
            },
            Self::Meter => Ending {
                how: How::Stopped,
                by: None,
            },
        }
    }
}

#[cfg(test)]
mod tests;
