//! One relay stream while it is open: pumped, metered, and cut when it is no longer allowed.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use sluicegate_policy::{
    Denial, Direction, Grant, Refusal, ServiceBound, ServiceName, ServicePermit, decide_service,
};
use sluicegate_relay::flow::{Broken, Flow, How, Meter, Pacing, Side, Timers, pump};

use super::Present;
use crate::{
    auth::Identity,
    outcome::{Outcome, Party},
    session::{Authority, Changes, Destination, Session, Slot, Way},
    telemetry::{Counters, Recorder},
};

/// The right to one stream: who, what, counted against whom. Dropping it frees the place.
#[derive(Debug)]
pub struct Ticket {
    /// Whose it is.
    pub identity: Identity,
    /// What it may open.
    pub permit: ServicePermit,
    /// The path that was judged; absent for raw streams.
    pub method: Option<String>,
    /// By which policy it was judged; changes after that are seen.
    watch: Changes,
    policy: u64,
    _slot: Slot,
    /// It proves the way in, where it came from another machine.
    pub(super) present: Option<Present>,
}

impl Ticket {
    /// Decide for one stream, by exactly one generation of policy: `asked` finds in its grant which service is meant, and by
    /// which method.
    ///
    /// # Errors
    /// The session's own state, what `asked` says, the decision, or the budget.
    pub fn issue(
        identity: Identity,
        recorder: &mut Recorder,
        asked: impl FnOnce(&Grant) -> Result<(ServiceName, Option<String>), Denial>,
    ) -> Result<Self, Refusal> {
        let now = SystemTime::now();
        let session = &identity.session;
        let judged = identity.judge(|policy| {
            recorder.session(identity.session.label(), policy.number);
            let decided = || {
                let (name, method) = asked(&policy.grant)?;
                recorder.service(&name);
                let (bound, way) = (identity.bound.as_deref(), Direction::In);
                let permit = decide_service(&policy.grant, bound, &name, way, method.as_deref())?;
                Ok::<_, Refusal>((permit, name, method))
            };
            decided().map_err(|refusal| session.refused(refusal, now))
        })?;
        let (permit, name, method) = judged.permit;
        let slot = identity
            .session
            .budget()
            .open_to(Destination::Service(name), now)
            .map_err(|denial| identity.session.budget().refusal(denial))?;
        identity.session.touch(now);
        Ok(Self {
            identity,
            permit,
            method,
            watch: judged.changes,
            policy: judged.policy.number,
            _slot: slot,
            present: None,
        })
    }

    /// The number of the policy it was judged by.
    pub(super) fn policy_number(&self) -> u64 {
        self.policy
    }

    /// Completes when the stream must end, with the reason.
    pub async fn revoked(&self) -> Denial {
        let bound = self.identity.bound.as_deref();
        still_allowed(
            self.watch.clone(),
            bound,
            &self.permit,
            self.method.as_deref(),
        )
        .await
    }

    /// Why it may not go on, right now. The wake-up of [`Ticket::revoked`] may come after another consequence of the
    /// same change: who sees an end asks here what it was.
    pub fn withdrawn(&self) -> Option<Denial> {
        let bound = self.identity.bound.as_deref();
        withdrawn(
            &self.watch.peek(),
            bound,
            &self.permit,
            self.method.as_deref(),
        )
    }

    /// Counts what passes.
    pub fn meter(&self, counters: &Arc<Counters>) -> Spending {
        Spending::new(&self.identity.session, counters)
    }

    pub(super) fn timers(&self, idle: Option<Duration>) -> Timers {
        let service = self.permit.service();
        Timers {
            idle: service.idle_timeout.or(idle),
            half_close: service.half_close_timeout,
        }
    }
}

/// Completes when what was permitted no longer is: re-decided on every change of the session.
pub async fn still_allowed(
    mut watch: Changes,
    bound: Option<&[ServiceBound]>,
    permit: &ServicePermit,
    method: Option<&str>,
) -> Denial {
    loop {
        if watch.changed().await.is_err() {
            // The session's owner is gone, and with it everything that could allow this.
            return Denial::SessionRevoked;
        }
        if let Some(denial) = withdrawn(&watch.now(), bound, permit, method) {
            return denial;
        }
    }
}

/// Why what was permitted no longer is, if so.
fn withdrawn(
    authority: &Authority,
    bound: Option<&[ServiceBound]>,
    permit: &ServicePermit,
    method: Option<&str>,
) -> Option<Denial> {
    match authority {
        Authority::Ended(denial) => Some(*denial),
        Authority::Paused { hold: false, .. } => Some(Denial::SessionPaused),
        // What a pause holds is held within the grant of now.
        Authority::Live(policy) | Authority::Paused { hold: true, policy } => {
            let now = decide_service(&policy.grant, bound, permit.name(), Direction::In, method);
            // The same name at another address is another service.
            let same = now.is_ok_and(|now| now.service().carries_as(permit.service()));
            (!same).then_some(Denial::PolicyChanged)
        }
    }
}

/// The session's meter: counts for the record, spends from the budget, and keeps the idle clock from running out.
#[derive(Debug)]
pub struct Spending {
    session: Arc<Session>,
    counters: Arc<Counters>,
}

impl Spending {
    /// Of this session, into these counters.
    pub(super) fn new(session: &Arc<Session>, counters: &Arc<Counters>) -> Self {
        Self {
            session: session.clone(),
            counters: counters.clone(),
        }
    }

    /// Where they are counted.
    pub(super) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Count bytes that came from this side.
    pub fn count(&self, from: Side, bytes: usize) {
        match from {
            Side::A => self.counters.add_up(bytes),
            Side::B => self.counters.add_down(bytes),
        }
    }

    /// Spend bytes of the budget. `false`: it is used up.
    pub fn spend(&self, bytes: usize) -> bool {
        self.session.touch(SystemTime::now());
        self.session.budget().spend(bytes).is_ok()
    }
}

impl Meter for Spending {
    fn moved(&self, from: Side, bytes: usize) -> bool {
        self.count(from, bytes);
        self.spend(bytes)
    }

    fn pace(&self, from: Side, bytes: usize) -> Option<Pacing> {
        let way = match from {
            Side::A => Way::Up,
            Side::B => Way::Down,
        };
        self.session.budget().pace(way, bytes)
    }
}

/// Pump until both ends are done or the right to it ends; what is left is reset.
pub(super) async fn carry(
    downstream: &mut dyn Flow,
    upstream: &mut dyn Flow,
    ticket: &Ticket,
    idle: Option<Duration>,
    recorder: &mut Recorder,
) {
    let meter = ticket.meter(recorder.counters());
    let (lost, timers) = (ticket.revoked(), ticket.timers(idle));
    join(downstream, upstream, lost, timers, &meter, recorder).await;
    ticket.identity.session.touch(SystemTime::now());
}

/// Pump until both ends are done or `lost` completes; what is left is reset, and the record says how it was.
pub(super) async fn join(
    downstream: &mut dyn Flow,
    upstream: &mut dyn Flow,
    lost: impl Future<Output = Denial>,
    timers: Timers,
    meter: &(impl Meter + Sync),
    recorder: &mut Recorder,
) {
    let ended = tokio::select! {
        biased;
        denial = lost => Err(denial),
        ending = pump(downstream, upstream, timers, meter) => Ok(ending),
    };
    let ending = match ended {
        Ok(ending) => ending,
        Err(denial) => {
            downstream.reset();
            upstream.reset();
            return recorder.cut(denial);
        }
    };
    let by = match ending.by {
        Some(Side::A) => Party::Downstream,
        Some(Side::B) => Party::Upstream,
        None => Party::Gateway,
    };
    match ending.how {
        How::Completed => recorder.ended(Outcome::Completed, by),
        How::Reset(Broken::Refused) if by == Party::Upstream => {
            recorder.refused(&Denial::ListenerRefused.into());
        }
        How::Reset(broken) => {
            if broken != Broken::Reset {
                recorder.detail(broken);
            }
            recorder.ended(Outcome::Reset, by);
        }
        How::Idle => recorder.cut(Denial::IdleTimeout),
        How::Stopped => recorder.cut(Denial::ByteQuota),
    }
}
