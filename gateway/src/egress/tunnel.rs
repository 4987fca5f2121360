//! One open tunnel: bytes both ways, under the session's live authority.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use sluicegate_policy::{Denial, TargetPermit, TlsRule};
use sluicegate_relay::flow::Pacing;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep_until},
};

use super::{
    Reached, Ways,
    close::{Abort, Guarded, linger_close},
    gate::Gate,
    pump::{End, Observe, Pump},
    standing::{Asked, Known, still_allowed, still_serves},
};
use crate::{
    lost::Lost,
    outcome::{Outcome, Party},
    session::{Budget, Changes, Session, Way},
    telemetry::{Counters, Recorder},
};

/// A tunnel about to carry bytes.
#[derive(Debug)]
pub struct Tunnel {
    /// Whose it is.
    pub session: Arc<Session>,
    /// Subscribed before the decision was made: a change in between is seen.
    pub authority: Changes,
    /// What allowed it; judged again when the policy changes.
    pub permit: TargetPermit,
    /// Where it leads, and by whom; judged again likewise.
    pub reached: Reached,
    /// What that is judged by, whatever reloads do.
    pub ways: Arc<Ways>,
    /// Silence both ways for this long ends it; zero = never.
    pub idle: Duration,
    /// The client's first bytes must be whole by then.
    pub first_bytes: Duration,
    /// The request that was upgraded: its head was judged, and is when the policy changes; what follows is another protocol's.
    /// `None`: first bytes are judged.
    pub upgraded: Option<Asked>,
}

/// What a tunnel lies between. In one piece: what is handed on from one async function to the next is held by both.
#[derive(Debug)]
pub struct Ends<D: Abort, U: Abort> {
    /// The tunnel's record, written before the ends are let go.
    pub recorder: Recorder,
    /// The client's bytes that nobody has judged yet: those that came with the request.
    pub first: Vec<u8>,
    /// The dialled upstream.
    pub upstream: Guarded<U>,
    /// The client.
    pub downstream: Guarded<D>,
}

/// How a tunnel came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carried {
    /// Both ends may be dropped, and what was not finished is reset by that.
    Over,
    /// The client speaks plain HTTP/1 that is to be judged request by request: its bytes so far are in `first`, and nothing was
    /// sent upstream.
    Http,
}

/// For the operator, who may want it to pass.
const H2_UNJUDGED: &str = "HTTP/2 without TLS: the hosts it asks for cannot be judged; a rule with tls: opaque lets it pass";

/// A server might have taken its first bytes for a request, which nobody could judge.
const REQUEST_UNJUDGED: &str = "a request line without an end, or with a control byte or a method of more than 256 bytes in it: a rule with tls: opaque lets it pass";

/// Who takes such a header from the gateway takes what follows it for another client's bytes.
const PREAMBLE: &str = "a PROXY header before the first bytes, which would have to be judged behind it; a rule with tls: opaque lets it pass";

/// What was held could still have become the first line of a request.
const LINE_UNFINISHED: &str = "its first bytes have no line end, and might have become a request: a rule with tls: opaque lets them pass";

/// Counts a tunnel's bytes for its record, spends them, and keeps within its bandwidth.
#[derive(Clone, Copy)]
struct Meter<'a> {
    counters: &'a Counters,
    budget: &'a Arc<Budget>,
}

impl Observe for Meter<'_> {
    fn moved(&mut self, by: Party, bytes: usize) -> Result<(), Denial> {
        self.budget.spend(bytes)?;
        match by {
            Party::Downstream => self.counters.add_up(bytes),
            Party::Upstream | Party::Gateway => self.counters.add_down(bytes),
        }
        Ok(())
    }

    fn piece(&self) -> Option<usize> {
        self.budget.piece()
    }

    fn pace(&self, by: Party, bytes: usize) -> Option<Pacing> {
        let way = match by {
            Party::Downstream => Way::Up,
            Party::Upstream | Party::Gateway => Way::Down,
        };
        self.budget.pace(way, bytes)
    }
}

/// A fatal `access_denied` alert (RFC 8446 §6.2) in a plaintext record.
pub const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

impl Tunnel {
    /// Carry bytes until the end.
    pub async fn run<D, U>(&mut self, ends: &mut Ends<D, U>) -> Carried
    where
        D: AsyncRead + AsyncWrite + Unpin + Abort,
        U: AsyncRead + AsyncWrite + Unpin + Abort,
    {
        let gate = match self.upgraded {
            None => Gate::new(&self.permit),
            Some(_) => None,
        };
        let mut pump = Pump::new(gate, std::mem::take(&mut ends.first));
        let end = self.carry(&mut pump, ends).await;
        let Ends {
            recorder,
            first,
            upstream,
            downstream,
        } = ends;
        self.tell(&mut pump, end, recorder);
        match end {
            End::Finished(by) => {
                recorder.ended(Outcome::Completed, by);
                downstream.release();
                upstream.release();
            }
            // Both guards reset what they hold.
            End::Reset(by) => recorder.ended(Outcome::Reset, by),
            End::Cut(denial) => {
                if let Some(rule) = self.permit.rule_behind(denial) {
                    recorder.rule(rule);
                }
                recorder.cut(denial);
                // While there is a gate, TLS is still in its plaintext handshake, and an alert can be read.
                let tls = pump.tls();
                // Whoever waits for a turn of bandwidth behind it must not wait for its farewell.
                drop(pump);
                if tls && downstream.write_all(&ACCESS_DENIED).await.is_ok() {
                    linger_close(downstream).await;
                    downstream.release();
                }
            }
            End::Http => {
                *first = pump.take_held();
                return Carried::Http;
            }
        }
        Carried::Over
    }

    /// What the record says of its first bytes, and of those it was cut for. Nothing of this is held while the tunnel lives.
    fn tell(&self, pump: &mut Pump, end: End, recorder: &mut Recorder) {
        if pump.ech() {
            recorder.ech();
        }
        if let Some(denial) = pump.reported() {
            recorder.would_refuse(denial);
        }
        let began = pump.take_began();
        if let End::Cut(denial) = end {
            match denial {
                Denial::UnsupportedProtocol => recorder.detail(H2_UNJUDGED),
                Denial::MalformedRequest if pump.preamble() => recorder.detail(PREAMBLE),
                Denial::MalformedRequest => recorder.detail(REQUEST_UNJUDGED),
                Denial::FirstBytesTimeout if !pump.tls() && self.permit.tls() == TlsRule::Auto => {
                    recorder.detail(LINE_UNFINISHED);
                }
                _ => {
                    // Nobody is answered any more: what would let it pass stands in the record alone.
                    if let Some(hint) = self.permit.refuse(denial, began.as_ref()).hint {
                        recorder.detail(hint);
                    }
                }
            }
        }
        // What follows an upgrade is no beginning, and requests have records of their own.
        if self.upgraded.is_none() && end != End::Http {
            recorder.began(began);
        }
    }

    /// Completes when something changed by which the connection that this tunnel has become is judged. It may be dropped and asked again.
    ///
    /// # Errors
    /// The reason why no request may be made in it any more.
    pub async fn changed(&mut self) -> Result<(), Lost> {
        if self.authority.changed().await.is_err() {
            return Err(Denial::SessionRevoked.into());
        }
        still_serves(&self.authority.now(), self.permit.target())
    }

    /// May requests still be made in it? As it is now: not everybody who waits for one change is woken by it at once.
    ///
    /// # Errors
    /// The reason why not.
    pub fn still_serves(&self) -> Result<(), Lost> {
        still_serves(&self.authority.peek(), self.permit.target())
    }

    async fn carry<D, U>(&mut self, pump: &mut Pump, ends: &mut Ends<D, U>) -> End
    where
        D: AsyncRead + AsyncWrite + Unpin + Abort,
        U: AsyncRead + AsyncWrite + Unpin + Abort,
    {
        let meter = Meter {
            counters: &ends.recorder.counters().clone(),
            budget: &self.session.budget().clone(),
        };
        // That of the pump, which has moved nothing yet.
        let start = pump.activity().last;
        let (mut touched, mut now) = (start, start);
        loop {
            let deadline = self.deadline(pump, start, now);
            tokio::select! {
                biased;
                changed = self.authority.changed() => {
                    if changed.is_err() {
                        return End::Cut(Denial::SessionRevoked);
                    }
                    if let Err(denial) = self.still_allowed(pump, &mut ends.recorder) {
                        return End::Cut(denial);
                    }
                    now = Instant::now();
                }
                end = pump.run(&mut ends.downstream, &mut ends.upstream, meter) => return end,
                () = sleep_until(deadline) => {
                    now = Instant::now();
                    let activity = pump.activity();
                    let since = activity.first_up.unwrap_or(start);
                    if pump.undecided() && now >= since + self.first_bytes && let Some(denial) = pump.at_deadline() {
                        return End::Cut(denial);
                    }
                    if self.may_idle_out(pump) && now >= activity.last + self.idle {
                        return End::Cut(Denial::IdleTimeout);
                    }
                    if activity.last > touched {
                        touched = activity.last;
                        self.session.touch(SystemTime::now());
                    }
                }
            }
        }
    }

    /// When to look again: the first-bytes deadline, the idle deadline, and now and then to keep the session awake.
    fn deadline(&self, pump: &Pump, start: Instant, now: Instant) -> Instant {
        let activity = pump.activity();
        let mut deadline = now + Duration::from_secs(60);
        if pump.undecided() {
            deadline = deadline.min(match activity.first_up {
                Some(at) => at + self.first_bytes,
                // Looked at again soon: the first byte may come, and start its own clock, while we sleep.
                None => (start + self.first_bytes).max(now + Duration::from_millis(250)),
            });
        }
        if self.may_idle_out(pump) {
            deadline = deadline.min(activity.last + self.idle);
        }
        deadline
    }

    /// What waits for its turn is not silent.
    fn may_idle_out(&self, pump: &Pump) -> bool {
        !self.idle.is_zero() && !pump.waits()
    }

    fn still_allowed(&mut self, pump: &mut Pump, recorder: &mut Recorder) -> Result<(), Denial> {
        let authority = self.authority.now();
        let known = match (&self.upgraded, pump.seen()) {
            (Some(asked), _) => Known::Request(asked),
            (None, Some(seen)) => Known::Began(seen),
            (None, None) => Known::Nothing,
        };
        let judged = !matches!(known, Known::Nothing);
        let (reached, egress) = (Some(&self.reached), self.ways.now());
        let now = still_allowed(&authority, &self.permit, known, reached, &egress)
            .map_err(|lost| lost.told(recorder))?;
        if !judged {
            pump.judge_by(&now.permit);
            now.record(recorder);
        }
        // A second hello that is still to come repeats the first, which passes by this one too.
        self.permit = now.permit;
        Ok(())
    }
}
