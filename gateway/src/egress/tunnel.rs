//! One open tunnel: bytes both ways, under the session's live authority.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use sluicegate_policy::{Admission, Denial, TargetPermit};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    close::{Abort, Guarded, linger_close},
    gate::Gate,
    pump::{End, Pump},
    splice::Plain,
    standing::still_allowed,
};
use crate::{
    outcome::{Outcome, Party},
    session::{Authority, Session, Way},
    telemetry::Recorder,
};

/// A tunnel about to carry bytes.
#[derive(Debug)]
pub struct Tunnel {
    /// Whose it is.
    pub session: Arc<Session>,
    /// Subscribed before the decision was made: a change in between is seen.
    pub authority: watch::Receiver<Authority>,
    /// What allowed it; judged again when the policy changes.
    pub permit: TargetPermit,
    /// The address dialled; judged again likewise.
    pub dialled: IpAddr,
    /// How addresses are judged.
    pub admission: Arc<Admission>,
    /// Silence both ways for this long ends it; zero = never.
    pub idle: Duration,
    /// The client's first bytes must be whole by then.
    pub first_bytes: Duration,
    /// Judge first bytes? Not on an upgraded request, whose head was judged.
    pub gated: bool,
}

/// A tunnel whose client turned out to speak plain HTTP/1.
#[derive(Debug)]
pub struct Held<D: Abort, U: Abort> {
    /// The client.
    pub downstream: Guarded<D>,
    /// The dialled upstream, nothing sent to it yet.
    pub upstream: Guarded<U>,
    /// The client's first bytes.
    pub bytes: Vec<u8>,
    /// The record goes on.
    pub recorder: Recorder,
}

/// A fatal `access_denied` alert (RFC 8446 §6.2) in a plaintext record.
pub const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

impl Tunnel {
    /// Carry bytes until the end. `first` came with the request. Returns the tunnel again where the client speaks
    /// plain HTTP/1 that is to be judged request by request.
    pub async fn run<D, U>(
        &mut self,
        mut downstream: Guarded<D>,
        mut upstream: Guarded<U>,
        first: Vec<u8>,
        mut recorder: Recorder,
    ) -> Option<Held<D, U>>
    where
        D: AsyncRead + AsyncWrite + Unpin + Abort,
        U: AsyncRead + AsyncWrite + Unpin + Abort,
    {
        let gate = if self.gated {
            Gate::new(&self.permit)
        } else {
            None
        };
        let mut pump = Pump::new(gate, first);
        let end = self
            .carry(&mut pump, &mut downstream, &mut upstream, &recorder)
            .await;
        if pump.ech() {
            recorder.ech();
        }
        match end {
            End::Finished(by) => {
                recorder.ended(Outcome::Completed, by);
                downstream.release();
                upstream.release();
            }
            // Both guards reset what they hold.
            End::Reset(by) => recorder.ended(Outcome::Reset, by),
            End::Cut(denial) => {
                recorder.cut(denial);
                // While there is a gate, TLS is still in its plaintext handshake, and an alert can be read.
                if pump.tls() && downstream.write_all(&ACCESS_DENIED).await.is_ok() {
                    linger_close(&mut downstream).await;
                    downstream.release();
                }
            }
            End::Http => {
                return Some(Held {
                    downstream,
                    upstream,
                    bytes: pump.take_held(),
                    recorder,
                });
            }
        }
        None
    }

    async fn carry<D, U>(
        &mut self,
        pump: &mut Pump,
        downstream: &mut D,
        upstream: &mut U,
        recorder: &Recorder,
    ) -> End
    where
        D: AsyncRead + AsyncWrite + Plain + Unpin,
        U: AsyncRead + AsyncWrite + Plain + Unpin,
    {
        let counters = recorder.counters().clone();
        let budget = self.session.budget().clone();
        let start = Instant::now();
        let observe = |party: Party, bytes: usize| {
            let way = match party {
                Party::Downstream => {
                    counters.add_up(bytes);
                    Way::Up
                }
                Party::Upstream | Party::Gateway => {
                    counters.add_down(bytes);
                    Way::Down
                }
            };
            budget.spend(bytes)?;
            Ok(budget.rest(way, bytes, Instant::now()))
        };
        let mut touched = start;
        loop {
            let deadline = self.deadline(pump, start);
            tokio::select! {
                biased;
                changed = self.authority.changed() => {
                    if changed.is_err() {
                        return End::Cut(Denial::SessionRevoked);
                    }
                    if let Err(denial) = self.still_allowed() {
                        return End::Cut(denial);
                    }
                }
                end = pump.run(downstream, upstream, observe) => return end,
                () = sleep_until(deadline) => {
                    let now = Instant::now();
                    let activity = pump.activity();
                    let since = activity.first_up.unwrap_or(start);
                    if pump.undecided() && now >= since + self.first_bytes && let Some(denial) = pump.at_deadline() {
                        return End::Cut(denial);
                    }
                    if !self.idle.is_zero() && now >= activity.last + self.idle {
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
    fn deadline(&self, pump: &Pump, start: Instant) -> Instant {
        let activity = pump.activity();
        let mut deadline = Instant::now() + Duration::from_secs(60);
        if pump.undecided() {
            deadline = deadline.min(match activity.first_up {
                Some(at) => at + self.first_bytes,
                // Looked at again soon: the first byte may come, and start its own clock, while we sleep.
                None => (start + self.first_bytes).max(Instant::now() + Duration::from_millis(250)),
            });
        }
        if !self.idle.is_zero() {
            deadline = deadline.min(activity.last + self.idle);
        }
        deadline
    }

    fn still_allowed(&mut self) -> Result<(), Denial> {
        let authority = self.authority.borrow_and_update();
        still_allowed(
            &authority,
            &self.permit,
            None,
            Some(self.dialled),
            &self.admission,
        )
    }
}
