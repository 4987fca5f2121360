//! One owner for the record and the metrics of one tunnel, request or stream.

use std::{
    cell::RefCell,
    io::Write,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use prometheus_client::encoding::EncodeLabelValue;
use sluicegate_policy::{Denial, FirstBytes, Refusal, RuleId};

use super::{
    access::AccessLog,
    counters::Counters,
    line::Line,
    metrics::{EndLabels, Metrics},
    refusals::Refusals,
};
use crate::{
    clock,
    outcome::{Outcome, Party},
};

/// What is recorded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the label's text")]
pub enum Kind {
    /// Bytes both ways to an egress target.
    tunnel,
    /// One HTTP request, to an egress target or on a relay stream.
    request,
    /// One relay stream to or from a host service.
    stream,
}

impl Kind {
    /// In records.
    const fn as_str(self) -> &'static str {
        match self {
            Self::tunnel => "tunnel",
            Self::request => "request",
            Self::stream => "stream",
        }
    }
}

/// How it came in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the label's text")]
pub enum Front {
    /// CONNECT.
    connect,
    /// Absolute-form.
    forward,
    /// connect-tcp.
    connect_tcp,
    /// SOCKS5.
    socks,
    /// Captured by the network.
    transparent,
    /// Sent here by the name it says.
    sni,
    /// A stream of the relay's own protocol.
    quic,
    /// gRPC.
    grpc,
    /// The name server of a sandbox, asking what it may answer.
    names,
    /// A host's dial to a listener of the sandbox.
    listener,
    /// Anything else in origin form.
    origin,
}

impl Front {
    /// In records.
    const fn as_str(self) -> &'static str {
        match self {
            Self::connect => "connect",
            Self::forward => "forward",
            Self::connect_tcp => "connect-tcp",
            Self::socks => "socks",
            Self::transparent => "transparent",
            Self::sni => "sni",
            Self::quic => "quic",
            Self::grpc => "grpc",
            Self::names => "names",
            Self::listener => "listener",
            Self::origin => "origin",
        }
    }
}

/// The version of HTTP it came by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    /// HTTP/1.1 and 1.0.
    Http1,
    /// HTTP/2.
    Http2,
    /// HTTP/3.
    Http3,
}

impl Protocol {
    /// In records.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http/1.1",
            Self::Http2 => "h2",
            Self::Http3 => "h3",
        }
    }
}

/// Who connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller {
    /// From this address.
    Address(SocketAddr),
    /// A local user, by a unix socket.
    User(u32),
}

impl From<SocketAddr> for Caller {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::User(uid) => write!(f, "unix:uid={uid}"),
        }
    }
}

/// For whom something is opened, told to services that ask for it.
#[derive(Clone, Debug)]
pub struct Speaker {
    /// Where the sandbox connects from; absent where it comes by a unix socket.
    pub source: Option<SocketAddr>,
    /// The record's id.
    pub id: String,
    /// Whose it is.
    pub session: Option<SessionLabel>,
}

/// The provider of the gateway's own session: what probes do is told by their checks, not recorded as traffic.
pub const OWN_PROVIDER: &str = "_gateway";

/// Whose it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionLabel {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Provider.
    pub provider: Arc<str>,
    /// Session id.
    pub id: Arc<str>,
    /// Generation.
    pub generation: u64,
    /// The session's owner. Records do not name it; counts for one owner need it.
    pub owner: Option<Arc<str>>,
}

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
        let next = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let id = RequestId::new(self.inner.prefix, next);
        self.inner.metrics.of(kind).open.inc();
        Recorder {
            telemetry: self.clone(),
            start: Instant::now(),
            counters: Arc::new(Counters::default()),
            reason: "",
            written: true,
            record: Box::new(Record {
                time: SystemTime::now(),
                id,
                kind,
                front,
                protocol: None,
                downstream: downstream.into(),
                session: None,
                policy_generation: None,
                method: None,
                target: None,
                path: None,
                also_read_as: Vec::new(),
                service: None,
                address: None,
                answers: Vec::new(),
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

/// Which record: eight hexadecimal digits of the process, and its number in at least eight.
#[derive(Clone, Copy)]
struct RequestId {
    digits: [u8; 24],
    length: u8,
}

impl RequestId {
    fn new(prefix: u32, number: u64) -> Self {
        let mut id = Self {
            digits: [0; 24],
            length: 0,
        };
        let mut room = id.digits.as_mut_slice();
        // Never more than 24 digits.
        let _ = write!(room, "{prefix:08x}{number:08x}");
        let left = room.len();
        id.length = u8::try_from(id.digits.len() - left).unwrap_or_default();
        id
    }

    fn as_str(&self) -> &str {
        let digits = self.digits.get(..usize::from(self.length));
        digits
            .and_then(|digits| str::from_utf8(digits).ok())
            .unwrap_or_default()
    }
}

struct Record {
    time: SystemTime,
    id: RequestId,
    kind: Kind,
    front: Front,
    protocol: Option<Protocol>,
    downstream: Caller,
    session: Option<SessionLabel>,
    policy_generation: Option<u64>,
    method: Option<String>,
    target: Option<String>,
    path: Option<String>,
    also_read_as: Vec<(String, String)>,
    service: Option<String>,
    address: Option<SocketAddr>,
    answers: Vec<IpAddr>,
    rule: Option<RuleId>,
    status: Option<u16>,
    grpc_status: Option<u32>,
    would_refuse: Option<&'static str>,
    began: Option<FirstBytes>,
    ech: bool,
    detail: Option<String>,
    open: Option<Duration>,
    outcome: Outcome,
    closed_by: Option<Party>,
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
            .field("id", &self.id())
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
    pub fn id(&self) -> &str {
        self.record.id.as_str()
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
            id: self.id().to_owned(),
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
        self.record.target = Some(target.to_string());
    }

    /// Method and path of an HTTP request. What follows `?` is redacted.
    pub fn http(&mut self, method: &str, path: &str) {
        self.record.method = Some(method.into());
        self.record.path = Some(without_query(path));
    }

    /// Methods and paths by which a server may read it instead.
    pub fn also_read_as<'r>(&mut self, pairs: impl Iterator<Item = (&'r str, &'r str)>) {
        let written = pairs.map(|(method, path)| (method.to_owned(), without_query(path)));
        self.record.also_read_as = written.collect();
    }

    /// The host service asked for.
    pub fn service(&mut self, name: impl ToString) {
        self.record.service = Some(name.to_string());
    }

    /// What a name resolved to, where that is why it was refused.
    pub fn answers(&mut self, answers: Vec<IpAddr>) {
        self.record.answers = answers;
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
        self.record.detail = Some(detail.to_string());
    }

    /// The same, beside what is noted already.
    pub fn more_detail(&mut self, detail: impl ToString) {
        let more = detail.to_string();
        self.record.detail = Some(match self.record.detail.take() {
            Some(known) => format!("{known}; {more}"),
            None => more,
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

    /// The record as it is written: one JSON object, no line end.
    fn write(&self, bytes: &mut Vec<u8>) {
        let r = &*self.record;
        let (up, down) = self.counters.total();
        let mut line = Line::begin(bytes);
        line.time("time", r.time)
            .text("id", self.id())
            .text("kind", r.kind.as_str())
            .text("front", r.front.as_str())
            .maybe("protocol", r.protocol.map(Protocol::as_str));
        match r.downstream {
            Caller::Address(address) => line.address("downstream", address),
            Caller::User(_) => line.text("downstream", &r.downstream.to_string()),
        };
        if let Some(session) = &r.session {
            line.object("session", |line| {
                line.text("namespace", &session.namespace)
                    .text("provider", &session.provider)
                    .text("id", &session.id)
                    .number("generation", session.generation);
            });
        }
        if let Some(number) = r.policy_generation {
            line.number("policyGeneration", number);
        }
        line.maybe("method", r.method.as_deref())
            .maybe("target", r.target.as_deref())
            .maybe("path", r.path.as_deref());
        if !r.also_read_as.is_empty() {
            line.pairs("alsoReadAs", &r.also_read_as);
        }
        line.maybe("service", r.service.as_deref());
        if let Some(address) = r.address {
            line.address("address", address);
        }
        if !r.answers.is_empty() {
            line.addresses("answers", &r.answers);
        }
        line.maybe("rule", r.rule.as_ref().map(RuleId::as_str));
        if let Some(status) = r.status {
            line.number("status", status.into());
        }
        if let Some(code) = r.grpc_status {
            line.number("grpcStatus", code.into());
        }
        line.text("outcome", r.outcome.as_str())
            .maybe("reason", Some(self.reason).filter(|text| !text.is_empty()))
            .maybe("wouldRefuse", r.would_refuse);
        if let Some(began) = &r.began {
            line.object("began", |line| write_began(line, began));
        }
        if r.ech {
            line.flag("ech");
        }
        line.maybe("detail", r.detail.as_deref())
            .maybe("closedBy", r.closed_by.map(Party::as_str))
            .number("bytesUp", up)
            .number("bytesDown", down);
        if let Some(open) = r.open {
            line.millis("openMs", open);
        }
        line.millis("durationMs", self.start.elapsed());
        line.end();
    }
}

fn write_began(line: &mut Line<'_>, began: &FirstBytes) {
    match began {
        FirstBytes::Unseen => {
            line.text("as", "unseen");
        }
        FirstBytes::Other => {
            line.text("as", "other");
        }
        FirstBytes::Tls(hello) => {
            line.text("as", "tls").maybe("sni", hello.sni.as_deref());
            for (key, said) in [("ech", hello.ech), ("echDraft", hello.ech_draft)] {
                if said {
                    line.flag(key);
                }
            }
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
