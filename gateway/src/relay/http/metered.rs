//! A stream's bytes, counted and paced where HTTP reads and writes them.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use sluicegate_relay::flow::{Broken, Flow, Meter, Side};
use tokio::time::{Sleep, sleep};

use crate::{relay::Spending, telemetry::Counters};

/// Spends from the session's budget and keeps within its bandwidth. Over the budget the flow is lost.
pub(super) struct Metered<F> {
    flow: F,
    meter: Spending,
    /// Nothing is read, or written, meanwhile.
    read_rest: Option<Pin<Box<Sleep>>>,
    write_rest: Option<Pin<Box<Sleep>>>,
}

impl<F: Flow> Metered<F> {
    pub(super) fn new(flow: F, meter: Spending) -> Self {
        Self {
            flow,
            meter,
            read_rest: None,
            write_rest: None,
        }
    }

    fn spend(&self, from: Side, bytes: usize) -> Result<Option<Pin<Box<Sleep>>>, Broken> {
        if !self.meter.moved(from, bytes) {
            return Err(Broken::Lost);
        }
        let rest = self.meter.rest(from, bytes);
        Ok((rest > Duration::ZERO).then(|| Box::pin(sleep(rest))))
    }
}

fn poll_rest(rest: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> Poll<()> {
    if let Some(sleep) = rest {
        ready!(sleep.as_mut().poll(cx));
        *rest = None;
    }
    Poll::Ready(())
}

impl<F: Flow> Flow for Metered<F> {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        ready!(poll_rest(&mut self.read_rest, cx));
        let read = ready!(self.flow.poll_read(cx))?;
        if let Some(chunk) = &read {
            self.read_rest = self.spend(Side::A, chunk.len())?;
        }
        Poll::Ready(Ok(read))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Broken>> {
        ready!(poll_rest(&mut self.write_rest, cx));
        let before = chunk.len();
        ready!(self.flow.poll_write(cx, chunk))?;
        self.write_rest = self.spend(Side::B, before - chunk.len())?;
        Poll::Ready(Ok(()))
    }

    sluicegate_relay::forward_flow!(flow);
}

/// Counts for a record what has been spent already.
pub(super) struct Uncounted(Arc<Counters>);

impl Uncounted {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self(counters)
    }
}

impl Meter for Uncounted {
    fn moved(&self, from: Side, bytes: usize) -> bool {
        match from {
            Side::A => self.0.add_up(bytes),
            Side::B => self.0.add_down(bytes),
        }
        true
    }
}
