//! What cuts an exchange that is under way: its session's authority, or silence.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use sluicegate_policy::{Denial, TargetPermit};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    egress::{Asked, Known, Reached, Ways, still_allowed},
    lost::Lost,
    session::{Authority, Changes},
    telemetry::{Counters, Motion},
};

/// Waits for a change of authority, then hands the watch back.
type Changed = Pin<Box<dyn Future<Output = Changes> + Send>>;

/// For its body, and for the connection that sends it.
pub(super) type SharedGuard = Arc<Mutex<Guard>>;

/// Watches over one exchange.
pub(super) struct Guard {
    changed: Changed,
    /// The same watch, for whoever cannot wait.
    authority: Changes,
    permit: TargetPermit,
    request: Asked,
    /// Once it leads somewhere.
    reached: Option<Reached>,
    /// What that is judged by, whatever reloads do.
    ways: Arc<Ways>,
    /// Zero = silence does not end it.
    idle: Duration,
    timer: Pin<Box<Sleep>>,
    counters: Arc<Counters>,
    /// What had moved when the timer was last set.
    seen: Motion,
    /// The verdict, once there is one: it may be asked for again.
    cut: Option<Lost>,
}

/// Where silence is allowed, the timer only has to be far away.
const FAR: Duration = Duration::from_secs(86_400);

impl Guard {
    /// Watch `authority`, subscribed before `permit` was decided.
    pub(super) fn new(
        authority: Changes,
        permit: TargetPermit,
        request: Asked,
        ways: Arc<Ways>,
        idle: Duration,
        counters: Arc<Counters>,
    ) -> Self {
        let period = if idle.is_zero() { FAR } else { idle };
        let timer = Box::pin(sleep_until(Instant::now() + period));
        Self {
            changed: changed(authority.clone()),
            authority,
            permit,
            request,
            reached: None,
            ways,
            idle,
            timer,
            counters,
            seen: Motion::default(),
            cut: None,
        }
    }

    /// Where it leads is judged along from now on.
    pub(super) fn reached(&mut self, reached: Reached) {
        self.reached = Some(reached);
    }

    /// May what leads there be used for it, as it is now? Where not, it may still be made by another connection.
    pub(super) fn may_use(&self, reached: &Reached) -> bool {
        self.judge(&self.authority.peek(), Some(reached)).is_ok()
    }

    /// Ready when the exchange must be cut.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        if let Some(lost) = self.cut {
            return Poll::Ready(lost);
        }
        let cut = self.poll_cut(cx);
        if let Poll::Ready(lost) = cut {
            self.cut = Some(lost);
        }
        cut
    }

    /// Why the exchange must be cut, as it is now: not everybody who waits for one change is woken by it at once.
    pub(super) fn verdict(&mut self) -> Option<Lost> {
        let authority = self.authority.peek();
        let reached = self.reached.as_ref();
        self.cut = self.cut.or_else(|| self.judge(&authority, reached).err());
        self.cut
    }

    fn judge(&self, authority: &Authority, reached: Option<&Reached>) -> Result<(), Lost> {
        still_allowed(
            authority,
            &self.permit,
            Known::Request(&self.request),
            reached,
            &self.ways.now(),
        )
        .map(drop)
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        while let Poll::Ready(mut authority) = self.changed.as_mut().poll(cx) {
            if let Err(lost) = self.judge(&authority.now(), self.reached.as_ref()) {
                return Poll::Ready(lost);
            }
            self.changed = changed(authority);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            // What waits for its turn is not silent.
            let (waits, moved) = (self.counters.waits(), self.counters.motion());
            if moved == self.seen && !waits && !self.idle.is_zero() {
                return Poll::Ready(Denial::IdleTimeout.into());
            }
            self.seen = moved;
            self.timer
                .as_mut()
                .reset(Instant::now() + if self.idle.is_zero() { FAR } else { self.idle });
        }
        Poll::Pending
    }
}

fn changed(mut authority: Changes) -> Changed {
    Box::pin(async move {
        // The session's owner is gone: its last word stands, and nothing more will be said.
        if authority.changed().await.is_err() && !matches!(authority.peek(), Authority::Ended(_)) {
            std::future::pending::<()>().await;
        }
        authority
    })
}

#[cfg(test)]
pub(super) mod tests;
