//! One owner for the record and the metrics of one tunnel, request or stream.

mod record;

use std::{
    cell::RefCell,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use sluicegate_policy::{Denial, FirstBytes, Refusal, RuleId};

use self::record::{Record, RequestId};
use super::{
    access::AccessLog,
    counters::Counters,
    labels::{EndLabels, Front, Kind, Protocol},
    metrics::Metrics,
    refusals::Refusals,
    whose::{Caller, OWN_PROVIDER, SessionLabel, Speaker},
};
use crate::{
    clock,
    outcome::{Outcome, Party},
};

/// Makes recorders. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Telemetry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    metrics: Metrics,
    access: AccessLog,
    refusals: Refusals,
    /// Random per process, so that request ids of two replicas differ.
    prefix: u32,
    next: AtomicU64,
    /// What ends without a word from now on was cut by the drain.
    draining: AtomicBool,
}

impl Telemetry {
    /// Record into this log.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn new(access: AccessLog) -> Result<Self, getrandom::Error> {
        let prefix = getrandom::u32()?;
        Ok(Self {
            inner: Arc::new(Inner {
                metrics: Metrics::default(),
                access,
                refusals: Refusals::new(clock::unix_seconds(SystemTime::now())),
                prefix,
                next: AtomicU64::new(1),
                draining: AtomicBool::new(false),
            }),
        })
    }

    /// The gateway goes down: what is dropped from now on was cut by it.
    pub fn draining(&self) {
        self.inner.draining.store(true, Ordering::Release);
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// The access log.
    pub fn access(&self) -> &AccessLog {
        &self.inner.access
    }

    /// Everything in OpenMetrics text.
    pub fn render(&self) -> String {
        self.inner
            .metrics
            .records_dropped(self.inner.access.dropped());
        self.inner.metrics.render()
    }

    /// Refusals of the last hour by reason.
    pub fn refusals(&self) -> std::collections::BTreeMap<&'static str, u64> {
        let now = clock::unix_seconds(SystemTime::now());
        self.inner.refusals.last_hour(now)
    }

    /// The same of the sessions that `seen` (namespace, owner) lets see: what came without a credential is nobody's.
    pub fn refusals_of(
        &self,
        seen: &dyn Fn(&str, Option<&str>) -> bool,
    ) -> std::collections::BTreeMap<&'static str, u64> {
        let now = clock::unix_seconds(SystemTime::now());
        self.inner.refusals.last_hour_of(now, seen)
    }

    /// Since when those are counted: for an hour, or since this process began.
    pub fn refusals_since(&self) -> SystemTime {
        let now = clock::unix_seconds(SystemTime::now());
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.inner.refusals.since(now))
    }

    /// Begin one record.
    pub fn begin(&self, kind: Kind, front: Front, downstream: impl Into<Caller>) -> Recorder {
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        self.inner.metrics.of(kind).open.inc();
        Recorder {
            telemetry: self.clone(),
            start: Instant::now(),
            counters: Arc::new(Counters::default()),
            reason: "",
            written: true,
            record: Box::new(Record {
                time: SystemTime::now(),
                number,
                kind,
                front,
                protocol: None,
                downstream: downstream.into(),
                session: None,
                policy_generation: None,
                method: None,
                target: None,
                path: None,
                also_read_as: Box::default(),
                service: None,
                address: None,
                answers: Box::default(),
                rule: None,
                status: None,
                grpc_status: None,
                would_refuse: None,
                began: None,
                ech: false,
                detail: None,
                open: None,
                outcome: Outcome::Abandoned,
                closed_by: None,
            }),
        }
    }
}

/// The one owner of a record; dropping it writes.
pub struct Recorder {
    telemetry: Telemetry,
    start: Instant,
    counters: Arc<Counters>,
    reason: &'static str,
    written: bool,
    /// Apart, so that what is moved from stage to stage is small.
    record: Box<Record>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder")
            .field("id", &self.id().as_str())
            .finish_non_exhaustive()
    }
}

impl Recorder {
    /// Is its session known?
    pub fn is_somebodys(&self) -> bool {
        self.record.session.is_some()
    }

    /// It began earlier: before it could be told what it is.
    pub fn since(&mut self, start: Instant) {
        let earlier = self.start.saturating_duration_since(start);
        self.start -= earlier;
        self.record.time -= earlier;
    }

    /// The request id, also given in refusals.
    pub(crate) fn id(&self) -> RequestId {
        RequestId::new(self.telemetry.inner.prefix, self.record.number)
    }

    /// Who connected.
    pub fn caller(&self) -> Caller {
        self.record.downstream
    }

    /// For whom this is recorded.
    pub fn speaker(&self) -> Speaker {
        Speaker {
            source: match self.record.downstream {
                Caller::Address(address) => Some(address),
                Caller::User(_) => None,
            },
            id: self.id().as_str().to_owned(),
            session: self.record.session.clone(),
        }
    }

    /// Byte counters, to be shared with the pump.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// By which version of HTTP it came.
    pub fn protocol(&mut self, protocol: Protocol) {
        self.record.protocol = Some(protocol);
    }

    /// Whose it is, whatever becomes of it: it may be refused before any policy judges it.
    pub fn whose(&mut self, session: SessionLabel) {
        self.record.session = Some(session);
    }

    /// Whose it is, and the number of the policy that judges it.
    pub fn session(&mut self, session: SessionLabel, policy_generation: u64) {
        self.record.session = Some(session);
        self.record.policy_generation = Some(policy_generation);
    }

    /// The number of the policy that judges it. Whose it is, is on record.
    pub fn policy(&mut self, policy_generation: u64) {
        self.record.policy_generation = Some(policy_generation);
    }

    /// What was asked for.
    pub fn target(&mut self, target: impl ToString) {
        self.record.target = Some(target.to_string().into());
    }

    /// Method and path of an HTTP request. What follows `?` is redacted.
    pub fn http(&mut self, method: &str, path: &str) {
        self.record.method = Some(method.into());
        self.record.path = Some(without_query(path).into());
    }

    /// Methods and paths by which a server may read it instead.
    pub fn also_read_as<'r>(&mut self, pairs: impl Iterator<Item = (&'r str, &'r str)>) {
        let written = pairs.map(|(method, path)| (method.to_owned(), without_query(path)));
        self.record.also_read_as = written.collect();
    }

    /// The host service asked for.
    pub fn service(&mut self, name: impl ToString) {
        self.record.service = Some(name.to_string().into());
    }

    /// What a name resolved to, where that is why it was refused.
    pub fn answers(&mut self, answers: Vec<IpAddr>) {
        self.record.answers = answers.into();
    }

    /// The address dialled.
    pub fn address(&mut self, address: SocketAddr) {
        self.record.address = Some(address);
    }

    /// The rule that allowed it.
    pub fn rule(&mut self, rule: RuleId) {
        self.record.rule = Some(rule);
    }

    /// The status answered.
    pub fn status(&mut self, status: u16) {
        self.record.status = Some(status);
    }

    /// How a gRPC call ended, by its own account. What is not 0 does not count as plainly completed in the metrics.
    pub fn grpc_status(&mut self, code: u32) {
        self.record.grpc_status = Some(code);
    }

    /// It is judged anew, and only by this from now on: the generation of its session's policy, the rule, and what report mode
    /// let pass.
    pub fn judged_by(&mut self, policy_generation: u64, rule: RuleId, reported: Option<Denial>) {
        self.record.policy_generation = Some(policy_generation);
        self.record.rule = Some(rule);
        self.record.would_refuse = reported.map(Denial::reason);
    }

    /// Report mode let this pass.
    pub fn would_refuse(&mut self, denial: Denial) {
        self.record.would_refuse = Some(denial.reason());
    }

    /// What a tunnel began with, as far as it is known.
    pub fn began(&mut self, began: Option<FirstBytes>) {
        self.record.began = began;
    }

    /// The client's hello was an encrypted one (RFC 9849): its inner name is not known.
    pub fn ech(&mut self) {
        self.record.ech = true;
    }

    /// What only the operator may see: the resolver's or the kernel's own words.
    pub fn detail(&mut self, detail: impl ToString) {
        self.record.detail = Some(detail.to_string().into());
    }

    /// The same, beside what is noted already.
    pub fn more_detail(&mut self, detail: impl ToString) {
        let more = detail.to_string();
        self.record.detail = Some(match self.record.detail.take() {
            Some(known) => format!("{known}; {more}").into(),
            None => more.into(),
        });
    }

    /// The upstream is open.
    pub fn opened(&mut self) {
        let elapsed = self.start.elapsed();
        if self.is_own() {
            return;
        }
        self.record.open = Some(elapsed);
        let metrics = self.telemetry.inner.metrics.of(self.record.kind);
        metrics.open_seconds.observe(elapsed);
    }

    /// Refused (or failed) before it opened.
    pub fn refused(&mut self, refusal: &Refusal) {
        self.record.outcome = match refusal.denial.blame() {
            sluicegate_policy::Blame::Upstream => Outcome::Failed,
            sluicegate_policy::Blame::Downstream | sluicegate_policy::Blame::Gateway => {
                Outcome::Refused
            }
        };
        self.reason = refusal.denial.reason();
        // What refused outweighs what had let it through until then.
        if refusal.rule.is_some() {
            self.record.rule.clone_from(&refusal.rule);
        }
    }

    /// Cut by the gateway after it opened.
    pub fn cut(&mut self, denial: Denial) {
        self.record.outcome = Outcome::Cut;
        self.record.closed_by = Some(Party::Gateway);
        self.reason = denial.reason();
    }

    /// Ended by one of its ends.
    pub fn ended(&mut self, outcome: Outcome, by: Party) {
        self.record.outcome = outcome;
        self.record.closed_by = Some(by);
    }

    /// Refused, and nothing went out for it: no name was resolved, no address dialled.
    fn is_idle(&self) -> bool {
        self.record.outcome == Outcome::Refused
            && self.record.address.is_none()
            && self.record.answers.is_empty()
    }

    /// It counts in the metrics, and no record is written of it.
    pub fn unwritten(&mut self) {
        self.written = false;
    }

    /// Is it the gateway's own?
    fn is_own(&self) -> bool {
        self.record
            .session
            .as_ref()
            .is_some_and(|session| *session.provider == *OWN_PROVIDER)
    }

    /// The reason, or that a call which the gateway carried to its end was an error of the service's own.
    fn metric_reason(&self) -> &'static str {
        match self.record.grpc_status {
            Some(code) if code != 0 && self.reason.is_empty() => "grpc_status",
            _ => self.reason,
        }
    }
}

/// What follows `?` is nobody's to read.
fn without_query(path: &str) -> String {
    match path.split_once('?') {
        Some((path, _)) => format!("{path}?…"),
        None => path.to_owned(),
    }
}

thread_local! {
    /// Lines are put together here: a record that is written allocates nothing.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if self.record.outcome == Outcome::Abandoned
            && self.telemetry.inner.draining.load(Ordering::Acquire)
        {
            self.cut(Denial::Draining);
        }
        if self.record.outcome == Outcome::Refused && !self.is_own() {
            let now = clock::unix_seconds(SystemTime::now());
            let whose = self.record.session.as_ref();
            let whose = whose.map(|session| (session.namespace.clone(), session.owner.clone()));
            self.telemetry.inner.refusals.count(self.reason, whose, now);
        }
        let metrics = &self.telemetry.inner.metrics;
        let kind = self.record.kind;
        let of_kind = metrics.of(kind);
        of_kind.open.dec();
        if self.is_own() {
            return;
        }
        let labels = EndLabels {
            kind,
            front: self.record.front,
            outcome: self.record.outcome,
            reason: self.metric_reason(),
        };
        metrics.ended(&labels);
        let (up, down) = self.counters.total();
        of_kind.up.inc_by(up);
        of_kind.down.inc_by(down);
        if self.written && self.telemetry.inner.access.wanted() {
            LINE.with_borrow_mut(|line| {
                line.clear();
                self.write(line);
                if let Ok(line) = str::from_utf8(line) {
                    self.telemetry.inner.access.write(line, self.is_idle());
                }
            });
        }
    }
}
