//! A stream's bytes where HTTP reads and writes them: spent, paced, counted as they go on; or counted alone, where what is in
//! it spends by itself.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use sluicegate_relay::flow::{Broken, Flow, Meter, Pacing, Side};
use tokio::time::{Instant, sleep_until};

use crate::{
    relay::Spending,
    telemetry::{Counters, Wait},
};

/// The last time that something moved, either way.
#[derive(Clone, Debug)]
pub(super) struct Moved {
    last: Arc<Mutex<Instant>>,
    /// Those that tell whether bytes wait for their turn.
    counters: Arc<Counters>,
}

impl Moved {
    fn new(counters: Arc<Counters>) -> Self {
        let last = Arc::new(Mutex::new(Instant::now()));
        Self { last, counters }
    }

    /// Something moves.
    pub(super) fn now(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Do bytes wait for their turn?
    fn waits(&self) -> bool {
        self.counters.waits()
    }

    /// Completes when nothing has moved and nothing has waited for its turn for so long, and no later.
    pub(super) async fn silent(&self, idle: Duration) {
        loop {
            let (over, now) = (self.last() + idle, Instant::now());
            if over > now {
                sleep_until(over).await;
            } else if self.waits() {
                // Whoever waits moves something at its end, which is from now on.
                sleep_until(now + idle).await;
            } else {
                return;
            }
        }
    }
}

/// Spends from the session's budget and keeps within its bandwidth. Over the budget the flow is lost.
pub(super) struct Metered<F> {
    flow: F,
    meter: Spending,
    moved: Moved,
    /// Read, and waiting for its turn.
    read: Bytes,
    reading: Option<(Pacing, Wait)>,
    /// Of what is offered for writing: so many bytes at its front are spent, and so many of those may go.
    spent: usize,
    may_go: usize,
    writing: Option<(Pacing, Wait)>,
}

impl<F: Flow> Metered<F> {
    pub(super) fn new(flow: F, meter: Spending) -> Self {
        let moved = Moved::new(meter.counters().clone());
        Self {
            flow,
            meter,
            moved,
            read: Bytes::new(),
            reading: None,
            spent: 0,
            may_go: 0,
            writing: None,
        }
    }

    /// When something moves.
    pub(super) fn moved(&self) -> Moved {
        self.moved.clone()
    }
}

/// How many of `bytes` may go on now.
fn poll_turn(
    turn: &mut Option<(Pacing, Wait)>,
    meter: &Spending,
    (from, bytes): (Side, usize),
    cx: &mut Context<'_>,
) -> Poll<usize> {
    if turn.is_none() {
        let pacing = meter.pace(from, bytes);
        *turn = pacing.map(|pacing| (pacing, meter.counters().wait()));
    }
    let may = match turn {
        Some((pacing, _)) => ready!(Pin::new(pacing).poll(cx)),
        None => bytes,
    };
    *turn = None;
    Poll::Ready(may.min(bytes))
}

impl<F: Flow> Flow for Metered<F> {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        if self.read.is_empty() {
            match ready!(self.flow.poll_read(cx))? {
                None => return Poll::Ready(Ok(None)),
                Some(chunk) if !self.meter.spend(chunk.len()) => {
                    return Poll::Ready(Err(Broken::Lost));
                }
                Some(chunk) => self.read = chunk,
            }
        }
        let asked = (Side::A, self.read.len());
        let may = ready!(poll_turn(&mut self.reading, &self.meter, asked, cx));
        let piece = self.read.split_to(may);
        self.meter.count(Side::A, piece.len());
        self.moved.now();
        if self.read.is_empty() {
            self.read = Bytes::new();
        }
        Poll::Ready(Ok(Some(piece)))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Broken>> {
        if self.spent == 0 {
            if !self.meter.spend(chunk.len()) {
                return Poll::Ready(Err(Broken::Lost));
            }
            self.spent = chunk.len();
        }
        if self.may_go == 0 {
            let asked = (Side::B, self.spent);
            self.may_go = ready!(poll_turn(&mut self.writing, &self.meter, asked, cx));
            // Silence counts from the end of the wait.
            self.moved.now();
        }
        let mut piece = chunk.slice(..self.may_go.min(chunk.len()));
        let before = piece.len();
        let written = self.flow.poll_write(cx, &mut piece);
        let taken = before - piece.len();
        self.meter.count(Side::B, taken);
        if taken > 0 {
            self.moved.now();
        }
        chunk.advance(taken);
        self.may_go = self.may_go.saturating_sub(taken);
        self.spent = self.spent.saturating_sub(taken);
        written
    }

    sluicegate_relay::forward_flow!(flow);
}

/// Counts a stream's bytes for its record. What is in it is spent and paced by itself.
pub(super) struct Counted<F> {
    flow: F,
    counters: Arc<Counters>,
    moved: Moved,
}

impl<F: Flow> Counted<F> {
    pub(super) fn new(flow: F, counters: Arc<Counters>) -> Self {
        let moved = Moved::new(counters.clone());
        Self {
            flow,
            counters,
            moved,
        }
    }

    /// When something moves.
    pub(super) fn moved(&self) -> Moved {
        self.moved.clone()
    }
}

impl<F: Flow> Flow for Counted<F> {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        let read = ready!(self.flow.poll_read(cx));
        if let Ok(Some(chunk)) = &read {
            self.counters.add_up(chunk.len());
            self.moved.now();
        }
        Poll::Ready(read)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Broken>> {
        let before = chunk.len();
        let written = self.flow.poll_write(cx, chunk);
        let taken = before - chunk.len();
        if taken > 0 {
            self.counters.add_down(taken);
            self.moved.now();
        }
        written
    }

    sluicegate_relay::forward_flow!(flow);
}

/// Counts for a record what has been spent already, in a stream that keeps within its bandwidth by itself.
pub(super) struct Uncounted {
    counters: Arc<Counters>,
    stream: Moved,
}

impl Uncounted {
    pub(super) fn new(counters: Arc<Counters>, stream: Moved) -> Self {
        Self { counters, stream }
    }
}

impl Meter for Uncounted {
    fn moved(&self, from: Side, bytes: usize) -> bool {
        match from {
            Side::A => self.counters.add_up(bytes),
            Side::B => self.counters.add_down(bytes),
        }
        true
    }

    fn waits(&self) -> bool {
        self.stream.waits()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::time::{Instant, sleep};

    use super::{Counters, Moved};

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_what_moved_last() {
        let (begun, moved) = (Instant::now(), Moved::new(Arc::default()));
        let busy = async {
            sleep(Duration::from_millis(100)).await;
            moved.now();
        };
        tokio::join!(moved.silent(Duration::from_secs(1)), busy);
        let took = begun.elapsed();
        // The clock of timers ticks in milliseconds.
        let wanted = Duration::from_millis(1100)..Duration::from_millis(1105);
        assert!(wanted.contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_its_turn_is_not_silent() {
        let counters = Arc::new(Counters::default());
        let (begun, moved) = (Instant::now(), Moved::new(counters.clone()));
        let waiting = async {
            let wait = counters.wait();
            sleep(Duration::from_millis(3500)).await;
            drop(wait);
            moved.now();
        };
        tokio::join!(moved.silent(Duration::from_secs(1)), waiting);
        let took = begun.elapsed();
        let wanted = Duration::from_millis(4500)..Duration::from_millis(4510);
        assert!(wanted.contains(&took), "{took:?}");
    }
}
