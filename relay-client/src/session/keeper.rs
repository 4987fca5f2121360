//! The task behind a session: connects, tells, and moves on to another connection before the one it has is gone.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    Status,
    judge::{Doubt, Judge},
    pace::Pace,
    pool::Pool,
};
use crate::{
    backoff::Backoff,
    status::Stats,
    transport::{Connection, FIRST, Racer, Reason, Transport, Why, Won},
};

/// A connection that lived this long was a success: the next failure starts from a short wait.
const SETTLED: Duration = Duration::from_secs(10);
/// While something else than QUIC carries the streams, what is better is tried again after about this long …
const PROBE_FIRST: Duration = Duration::from_secs(4);
/// … and then less and less often, down to this.
const PROBE_RARELY: Duration = Duration::from_secs(300);

/// Tells what the connection does.
pub(super) struct Teller {
    tell: watch::Sender<Status>,
    stats: Arc<Stats>,
}

impl Teller {
    pub(super) fn new(tell: watch::Sender<Status>, stats: Arc<Stats>) -> Self {
        Self { tell, stats }
    }

    fn tell(&self, status: Status) {
        self.stats.changed();
        self.tell.send_replace(status);
    }
}

pub(super) struct Keeper {
    racer: Racer,
    pace: Pace,
    publish: watch::Sender<Option<Connection>>,
    teller: Teller,
    judge: Judge,
    /// Further connections.
    pool: Pool,
    /// What answered last, or answers better.
    first: Transport,
    /// QUIC worked, and has fallen silent.
    lost: bool,
}

impl Keeper {
    pub(super) fn new(
        racer: Racer,
        backoff: Backoff,
        publish: watch::Sender<Option<Connection>>,
        teller: Teller,
        doubt: Doubt,
        pool: Pool,
    ) -> Self {
        Self {
            racer,
            pace: Pace::new(backoff),
            publish,
            teller,
            judge: Judge::new(doubt),
            pool,
            first: FIRST,
            lost: false,
        }
    }

    pub(super) async fn keep(mut self) {
        loop {
            let since = Instant::now();
            let reason = match self.racer.race(self.first).await {
                Ok(mut won) => {
                    let tried = won.connection.transport();
                    // Further ones hold what places the session has: one of them is as good.
                    if won.has_no_room()
                        && let Some(connection) = self.pool.promote()
                    {
                        (won.connection, won.refused) = (connection, None);
                    }
                    let lost = std::mem::take(&mut self.lost);
                    won.why = why((tried, won.why), won.connection.transport(), lost);
                    self.pace.is_there();
                    let reason = self.stay(won).await;
                    if since.elapsed() >= SETTLED {
                        self.pace.settled();
                    }
                    reason
                }
                Err(error) => {
                    if error.is_draining() {
                        self.pace.goes_down();
                    }
                    error.to_string()
                }
            };
            let wait = self.pace.wait();
            tracing::warn!(gateway = %self.racer.endpoint, %reason, ?wait, attempt = self.pace.attempts(), "reconnecting");
            self.teller.tell(Status::Waiting { reason, wait });
            sleep(wait).await;
            self.teller.tell(Status::Connecting);
        }
    }

    /// Stay on this connection, or on a better one, until there is none; the reason.
    async fn stay(&mut self, won: Won) -> String {
        self.moved_to(&won);
        let mut now = won;
        let mut probes = Backoff::new(PROBE_FIRST, PROBE_RARELY);
        loop {
            let racer = self.racer.clone();
            let judged = self
                .judge
                .changed(&racer, &now.connection, now.refused.as_ref());
            tokio::select! {
                () = now.connection.retired() => break,
                better = probe(&racer, now.connection.transport(), &mut probes) => {
                    // Streams of the connection before go on to their end.
                    now.connection.retire("a better transport works");
                    self.moved_to(&better);
                    now = better;
                }
                verdict = judged => {
                    now.refused = verdict;
                    self.tell_standing(&now);
                }
            }
        }
        let connection = now.connection;
        self.publish.send_replace(None);
        if connection.fell_silent() {
            // UDP goes nowhere: TLS first, until a probe says otherwise.
            (self.first, self.lost) = (Transport::H2, true);
        }
        if connection.goes_down() {
            self.pace.goes_down();
        }
        connection.why_retired()
    }

    /// From here on new streams go there.
    fn moved_to(&mut self, won: &Won) {
        self.first = won.connection.transport();
        self.teller.stats.connected(self.first, won.why.reason);
        self.publish.send_replace(Some(won.connection.clone()));
        self.tell_standing(won);
    }

    /// Why this transport does not change with the gateway's word on the token.
    fn tell_standing(&self, now: &Won) {
        let (gateway, transport) = (&self.racer.endpoint, now.connection.transport());
        let status = match &now.refused {
            None => {
                let (attempts, why) = (self.pace.attempts(), now.why.text.clone());
                tracing::info!(%gateway, %transport, %why, attempts, "connected; the gateway takes the token");
                Status::Connected { transport, why }
            }
            Some(refused) => {
                let reason = refused.to_string();
                tracing::error!(%gateway, %transport, %reason, "the gateway refuses the token; streams fail until it does not");
                Status::Unauthorized { reason }
            }
        };
        self.teller.tell(status);
    }
}

/// Why the streams are carried by `now`, where something was said of the transport that was tried: another one may have been there
/// already, and a path of QUIC's be lost.
fn why((tried, said): (Transport, Why), now: Transport, lost: bool) -> Why {
    if lost && now != Transport::Quic {
        return Why::lost();
    }
    if tried == now {
        return said;
    }
    let text = "it is there already, and there is no room for another";
    Why::new(Reason::Preferred, text)
}

/// Completes with a connection by a better transport, where there may be one.
async fn probe(racer: &Racer, now: Transport, backoff: &mut Backoff) -> Won {
    if racer.better_than(now).is_none() {
        return std::future::pending().await;
    }
    loop {
        // Never at once: what has just failed fails again.
        sleep(backoff.bound() / 2 + backoff.wait() / 2).await;
        match racer.improve(now).await {
            Ok(won) if won.has_no_room() => {
                tracing::debug!(gateway = %racer.endpoint, "no room for a better connection beside those there are");
            }
            Ok(won) => return won,
            Err(error) => {
                tracing::debug!(gateway = %racer.endpoint, %error, "nothing better answers yet");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::why;
    use crate::transport::{Reason, Transport, Why};

    #[test]
    fn what_is_said_is_true_of_what_carries() {
        use Transport::{H2, Quic};
        for (tried, now, lost, reason) in [
            // As the race has it.
            (Quic, Quic, false, Reason::Recovered),
            (H2, H2, false, Reason::Recovered),
            // One that was there already, by another transport than the one that found no room.
            (Quic, H2, false, Reason::Preferred),
            (H2, Quic, false, Reason::Preferred),
            // Because QUIC fell silent, whatever came of the race.
            (H2, H2, true, Reason::UdpLost),
            (Quic, H2, true, Reason::UdpLost),
            // It is back.
            (Quic, Quic, true, Reason::Recovered),
            (H2, Quic, true, Reason::Preferred),
        ] {
            let said = Why::new(Reason::Recovered, format!("{tried} works again"));
            let why = why((tried, said), now, lost);
            assert_eq!(why.reason, reason, "{tried}, {now}, {lost}");
            let other = if now == H2 { Quic } else { H2 };
            let told = why.text.contains(&format!("{other} works"));
            assert!(!told, "{now}: {}", why.text);
        }
    }
}
