//! One relay stream while it is open: pumped, metered, and cut when it is no longer allowed.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use sluicegate_policy::{
    CallsPermit, Denial, Direction, Grant, Refusal, ServiceBound, ServiceName, ServicePermit,
    StreamPermit, decide_service, decide_stream,
};
use sluicegate_relay::flow::{Broken, Flow, How, Meter, Pacing, Side, Timers, pump};

use super::{Present, place::Held};
use crate::{
    auth::Identity,
    lost::{Changed, Lost},
    outcome::{Outcome, Party},
    session::{Authority, Budget, Calling, Changes, PolicyGeneration, Session, Way},
    telemetry::{Counters, Recorder, Wait},
};

/// The right to one stream, or to one call: who, what, counted against whom. Dropping it frees the place.
#[derive(Debug)]
pub struct Ticket<P = ServicePermit> {
    /// Whose it is.
    pub identity: Identity,
    /// What it may open, or carry.
    pub permit: P,
    /// The path that was judged; absent for streams.
    pub method: Option<String>,
    /// By which policy it was judged; changes after that are seen.
    watch: Changes,
    policy: u64,
    held: Held,
    /// Counters of the stream that carries the call, where one does: waits for bandwidth are waits there too.
    within: Option<Arc<Counters>>,
    /// It is one of those calls.
    calling: Option<Calling>,
    /// It proves the way in, where it came from another machine.
    pub(super) present: Option<Present>,
}

/// What was found to be asked for, and permitted: of this service, by this method.
type Permitted<P> = (P, ServiceName, Option<String>);

impl<P> Ticket<P> {
    /// Decide by exactly one generation of policy, and take a place.
    fn decided(
        identity: Identity,
        recorder: &mut Recorder,
        decide: impl FnOnce(
            &Grant,
            Option<&[ServiceBound]>,
            &mut Recorder,
        ) -> Result<Permitted<P>, Refusal>,
        place: impl FnOnce(&Arc<Budget>, ServiceName, SystemTime) -> Result<Held, Denial>,
    ) -> Result<Self, Refusal> {
        let now = SystemTime::now();
        let session = &identity.session;
        let judged = identity.judge(|policy| {
            recorder.session(session.label(), policy.number);
            decide(&policy.grant, identity.bound.as_deref(), recorder)
                .map_err(|refusal| session.refused(refusal, now))
        })?;
        let (permit, name, method) = judged.permit;
        let budget = session.budget();
        let held = place(budget, name, now).map_err(|denial| budget.refusal(denial))?;
        session.touch(now);
        Ok(Self {
            identity,
            permit,
            method,
            watch: judged.changes,
            policy: judged.policy.number,
            held,
            within: None,
            calling: None,
            present: None,
        })
    }

    /// The number of the policy it was judged by.
    pub(super) fn policy_number(&self) -> u64 {
        self.policy
    }

    /// What it permits, and the same right to `other` in its stead.
    pub(super) fn with<Q>(self, other: Q) -> (P, Ticket<Q>) {
        let Self {
            identity,
            permit,
            method,
            watch,
            policy,
            held,
            within,
            calling,
            present,
        } = self;
        let other = Ticket {
            identity,
            permit: other,
            method,
            watch,
            policy,
            held,
            within,
            calling,
            present,
        };
        (permit, other)
    }
}

impl Ticket<StreamPermit> {
    /// Decide for one stream to this service.
    ///
    /// # Errors
    /// The session's own state, the decision, or the budget.
    pub(super) fn stream(
        identity: Identity,
        name: ServiceName,
        recorder: &mut Recorder,
    ) -> Result<Self, Refusal> {
        Self::decided(
            identity,
            recorder,
            |grant, bound, recorder| {
                recorder.service(&name);
                let permit = decide_stream(grant, bound, &name)?;
                Ok((permit, name, None))
            },
            Held::open,
        )
    }
}

impl Ticket {
    /// Decide for one call, by exactly one generation of policy: `asked` finds in its grant which service is meant, and by
    /// which method.
    ///
    /// # Errors
    /// The session's own state, what `asked` says, the decision, or the budget.
    pub fn issue(
        identity: Identity,
        recorder: &mut Recorder,
        asked: impl FnOnce(&Grant) -> Result<(ServiceName, Option<String>), Denial>,
    ) -> Result<Self, Refusal> {
        Self::decided(
            identity,
            recorder,
            |grant, bound, recorder| call(grant, bound, asked(grant)?, recorder),
            Held::open,
        )
    }

    /// Decide for one call on a stream that carries calls, whose waits are told to `counters`; it is one of so many of the
    /// session's at once.
    ///
    /// # Errors
    /// As [`Ticket::issue`].
    pub(super) fn issue_within(
        stream: &Ticket<CallsPermit>,
        path: &str,
        most: u64,
        counters: &Arc<Counters>,
        recorder: &mut Recorder,
    ) -> Result<Self, Refusal> {
        if let Some(lost) = stream.withdrawn() {
            return Err(lost.told(recorder).into());
        }
        let asked = (stream.permit.name().clone(), Some(path.to_owned()));
        let mut ticket = Self::decided(
            stream.identity.clone(),
            recorder,
            |grant, bound, recorder| call(grant, bound, asked, recorder),
            |budget, name, now| stream.held.open_within(budget, name, now),
        )?;
        ticket.calling = Some(ticket.identity.session.budget().call(most)?);
        ticket.within = Some(counters.clone());
        Ok(ticket)
    }

    /// What it permits by the policy of now, for one request on what is open: what holds the stream open, a pause, holds no requests.
    ///
    /// # Errors
    /// Why it may not go on, or the session's own state.
    pub(super) fn anew(&self, recorder: &mut Recorder) -> Result<ServicePermit, Refusal> {
        if let Some(lost) = self.withdrawn() {
            return Err(lost.told(recorder).into());
        }
        let judged = self.identity.judge(|policy| {
            recorder.session(self.identity.session.label(), policy.number);
            // It may be another policy than a moment ago, and what it would set is for no other service than its own.
            let still = self.still(policy);
            still.map_err(|changed| Lost::from(changed).told(recorder))
        })?;
        Ok(judged.permit)
    }

    /// Completes when the stream must end, with the reason.
    pub fn revoked(&self) -> impl Future<Output = Lost> {
        changed(self.watch.clone(), move |authority| self.lost(authority))
    }

    /// Why it may not go on, right now. The wake-up of [`Ticket::revoked`] may come after another consequence of the
    /// same change: who sees an end asks here what it was.
    pub fn withdrawn(&self) -> Option<Lost> {
        self.lost(&self.watch.peek())
    }

    fn lost(&self, authority: &Authority) -> Option<Lost> {
        let policy = match in_force(authority) {
            Ok(policy) => policy,
            Err(denial) => return Some(denial.into()),
        };
        self.still(policy).err().map(Lost::from)
    }

    /// What it permits by this policy, or why it may not go on by that.
    fn still(&self, policy: &PolicyGeneration) -> Result<ServicePermit, Changed> {
        let (bound, permit) = (self.identity.bound.as_deref(), &self.permit);
        let (way, method) = (Direction::In, self.method.as_deref());
        let now = decide_service(&policy.grant, bound, permit.name(), way, method)
            .map_err(|refusal| Changed::Service(refusal.denial))?;
        // The same name at another address is another service.
        match permit.service().differs_in(now.service()) {
            None => Ok(now),
            Some(term) => Err(Changed::ServiceTerm(term)),
        }
    }

    /// Counts what passes.
    pub fn meter(&self, counters: &Arc<Counters>) -> Spending {
        let spending = Spending::new(&self.identity.session, counters);
        Spending {
            within: self.within.clone(),
            ..spending
        }
    }

    pub(super) fn timers(&self, idle: Option<Duration>) -> Timers {
        let service = self.permit.service();
        Timers {
            idle: service.idle_timeout.or(idle),
            half_close: service.half_close_timeout,
        }
    }
}

impl Ticket<CallsPermit> {
    /// Completes when the stream must end, with the reason. What of a change concerns single calls ends those.
    pub(super) async fn revoked(&self) -> Lost {
        changed(self.watch.clone(), |authority| self.lost(authority)).await
    }

    /// Why it may not go on, right now.
    pub(super) fn withdrawn(&self) -> Option<Lost> {
        self.lost(&self.watch.peek())
    }

    fn lost(&self, authority: &Authority) -> Option<Lost> {
        let policy = match in_force(authority) {
            Ok(policy) => policy,
            Err(denial) => return Some(denial.into()),
        };
        let bound = self.identity.bound.as_deref();
        let now = decide_stream(&policy.grant, bound, self.permit.name());
        now.err()
            .map(|refusal| Changed::Service(refusal.denial).into())
    }
}

/// Which service a call is for, and whether it may be made.
fn call(
    grant: &Grant,
    bound: Option<&[ServiceBound]>,
    (name, method): (ServiceName, Option<String>),
    recorder: &mut Recorder,
) -> Result<Permitted<ServicePermit>, Refusal> {
    recorder.service(&name);
    let permit = decide_service(grant, bound, &name, Direction::In, method.as_deref())?;
    Ok((permit, name, method))
}

/// Completes when what was permitted no longer is: re-decided on every change of the session.
#[allow(
    clippy::manual_async_fn,
    reason = "an async fn would hold the watch twice, once as it came"
)]
fn changed(
    mut watch: Changes,
    lost: impl Fn(&Authority) -> Option<Lost> + Send + Sync,
) -> impl Future<Output = Lost> {
    async move {
        loop {
            if watch.changed().await.is_err() {
                // The session's owner is gone, and with it everything that could allow this.
                return Denial::SessionRevoked.into();
            }
            if let Some(lost) = lost(&watch.now()) {
                return lost;
            }
        }
    }
}

/// The policy by which what is open is judged again, or why it is over.
fn in_force(authority: &Authority) -> Result<&PolicyGeneration, Denial> {
    match authority {
        Authority::Ended(denial) => Err(*denial),
        Authority::Paused { hold: false, .. } => Err(Denial::SessionPaused),
        // What a pause holds is held within the grant of now.
        Authority::Live(policy) | Authority::Paused { hold: true, policy } => Ok(policy),
    }
}

/// The session's meter: counts for the record, spends from the budget, and keeps the idle clock from running out.
#[derive(Debug)]
pub struct Spending {
    session: Arc<Session>,
    counters: Arc<Counters>,
    /// Of what carries it, where that has a record of its own.
    within: Option<Arc<Counters>>,
}

impl Spending {
    /// Of this session, into these counters.
    pub(super) fn new(session: &Arc<Session>, counters: &Arc<Counters>) -> Self {
        Self {
            session: session.clone(),
            counters: counters.clone(),
            within: None,
        }
    }

    /// Bytes wait for their turn while this is held.
    pub(super) fn wait(&self) -> (Wait, Option<Wait>) {
        (
            self.counters.wait(),
            self.within.as_ref().map(Counters::wait),
        )
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
#[allow(
    clippy::manual_async_fn,
    reason = "an async fn would hold twice what it is given"
)]
pub(super) fn carry(
    downstream: &mut dyn Flow,
    upstream: &mut dyn Flow,
    ticket: &Ticket,
    idle: Option<Duration>,
    recorder: &mut Recorder,
) -> impl Future<Output = ()> {
    async move {
        let meter = ticket.meter(recorder.counters());
        let lost = pin!(ticket.revoked());
        join(
            downstream,
            upstream,
            lost,
            ticket.timers(idle),
            &meter,
            recorder,
        )
        .await;
        ticket.identity.session.touch(SystemTime::now());
    }
}

/// Pump until both ends are done or `lost` completes; what is left is reset, and the record says how it was. `lost` is best
/// pinned by the caller: what is handed over is held twice, here and by the call.
#[allow(
    clippy::manual_async_fn,
    reason = "an async fn would hold twice what it is given"
)]
pub(super) fn join(
    downstream: &mut dyn Flow,
    upstream: &mut dyn Flow,
    lost: impl Future<Output = Lost>,
    timers: Timers,
    meter: &(impl Meter + Sync),
    recorder: &mut Recorder,
) -> impl Future<Output = ()> {
    async move {
        let ended = tokio::select! {
            biased;
            lost = lost => Err(lost),
            ending = pump(downstream, upstream, timers, meter) => Ok(ending),
        };
        let ending = match ended {
            Ok(ending) => ending,
            Err(lost) => {
                downstream.reset();
                upstream.reset();
                return lost.cut(recorder);
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
}
