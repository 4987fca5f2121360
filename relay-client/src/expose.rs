//! Listeners of the sandbox, offered to its host: each dial of the host becomes one local connection.
//!
//! The client opens *accept streams*, which the gateway answers only once somebody dials. A few wait at any time; each
//! that is used is replaced, and their number grows while dials come faster than that.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::Backoff,
    flow::{Flow, How, Shared, Side, SocketFlow, Timers, connect_unix, pump},
    listen::Address,
    session::{Session, SessionError},
    tasks::Tasks,
};

/// Accept streams that wait where nothing much happens: one for the next dial, one for the dial after it.
const FEW: usize = 2;
/// However many dials come at once: the gateway takes a few times as many for all clients of a session together.
const MANY: usize = 32;
/// After this long without a dial the number falls back to [`FEW`] as streams are used.
const CALM: Duration = Duration::from_secs(60);
/// Reasons that are not said again before a dial comes: few, and several may take turns.
const REASONS: usize = 8;
/// An offer that stood this long was a success: the next failure starts from a short wait.
const SETTLED: Duration = Duration::from_secs(10);
/// A local listener accepts within this time, or nothing took the connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Offer `listener` until `stop`, carrying each dial to `address` in a task of its own. A local listener that is down
/// refuses that dial and is one line in the log; it never ends the offer.
pub async fn expose(
    listener: Arc<str>,
    address: Address,
    session: Session,
    tasks: Tasks,
    stop: CancellationToken,
) {
    let mut offers = Offers::new(listener.clone());
    while let Some(accepted) = stop.run_until_cancelled(offers.next(&session)).await {
        tasks.spawn(carry(accepted, listener.clone(), address.clone()));
    }
}

/// The accept streams of one listener.
struct Offers<S> {
    listener: Arc<str>,
    waiting: JoinSet<Result<S, SessionError>>,
    wanted: usize,
    used: Instant,
    backoff: Backoff,
    /// No new ones before that.
    hold: Instant,
    /// When the last were opened.
    opened: Instant,
    /// What went wrong since the last dial, so that each is said once.
    said: VecDeque<String>,
}

impl<S: Flow + 'static> Offers<S> {
    fn new(listener: Arc<str>) -> Self {
        let now = Instant::now();
        Self {
            listener,
            waiting: JoinSet::new(),
            wanted: FEW,
            used: now,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(15)),
            hold: now,
            opened: now,
            said: VecDeque::new(),
        }
    }

    /// A dial came, or an offer failed.
    fn settle(&mut self, outcome: Result<S, SessionError>) -> Option<S> {
        let now = Instant::now();
        match outcome {
            Ok(stream) => {
                if self.waiting.is_empty() {
                    self.wanted = (self.wanted * 2).min(MANY);
                } else if now - self.used > CALM {
                    self.wanted = FEW;
                }
                self.used = now;
                self.said.clear();
                self.backoff.reset();
                Some(stream)
            }
            Err(error) => {
                if now - self.opened > SETTLED {
                    self.backoff.reset();
                }
                // All of them fail in one moment with the connection: that is one failure.
                if self.hold <= now {
                    self.hold = now + self.backoff.wait();
                }
                let reason = error.to_string();
                if self.is_news(&reason) {
                    tracing::warn!(listener = %self.listener, %reason, "not offered now; trying on");
                }
                None
            }
        }
    }

    /// Has this not been said since the last dial?
    fn is_news(&mut self, reason: &str) -> bool {
        let news = !self.said.iter().any(|said| said == reason);
        if news {
            self.said.push_back(reason.to_owned());
            if self.said.len() > REASONS {
                self.said.pop_front();
            }
        }
        news
    }
}

/// What accept streams of this build are.
type Stream = Box<dyn Flow>;

impl Offers<Stream> {
    /// The next dial.
    async fn next(&mut self, session: &Session) -> Stream {
        loop {
            let now = Instant::now();
            if self.hold <= now && self.waiting.len() < self.wanted {
                self.opened = now;
                while self.waiting.len() < self.wanted {
                    let (session, listener) = (session.clone(), self.listener.clone());
                    self.waiting
                        .spawn(async move { session.accept(&listener).await });
                }
            }
            let held = self.waiting.len() < self.wanted;
            tokio::select! {
                Some(ended) = self.waiting.join_next() => {
                    // A task that was cut short is an offer that is not there any more, and nothing else.
                    if let Ok(outcome) = ended && let Some(stream) = self.settle(outcome) {
                        return stream;
                    }
                }
                () = sleep_until(self.hold), if held => {}
            }
        }
    }
}

async fn carry(mut stream: impl Flow, listener: Arc<str>, address: Address) {
    let connected = match timeout(CONNECT, connect(&address)).await {
        Ok(connected) => connected,
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    };
    let mut local = match connected {
        Ok(socket) => SocketFlow::new(socket),
        Err(error) => {
            tracing::warn!(%listener, %address, %error, "nothing took the dial");
            return stream.refuse();
        }
    };
    let ending = pump(&mut stream, &mut local, Timers::default(), &()).await;
    let by = match ending.by {
        Some(Side::A) => "gateway",
        Some(Side::B) => "local",
        None => "relay",
    };
    match ending.how {
        How::Completed => tracing::debug!(%listener, by, "closed"),
        how => tracing::info!(%listener, by, ?how, "reset"),
    }
}

async fn connect(address: &Address) -> std::io::Result<Shared> {
    Ok(match address {
        Address::Unix(path) => connect_unix(path).await?.into(),
        Address::Tcp(address) => TcpStream::connect(address).await?.into(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::{CALM, FEW, MANY, Offers, REASONS};
    use crate::{flow::SocketFlow, session::SessionError};
    use std::time::Duration;
    use tokio::{net::UnixStream, time::Instant};

    fn offers() -> Offers<SocketFlow> {
        Offers::new("plugin".into())
    }

    fn dial() -> SocketFlow {
        SocketFlow::new(UnixStream::pair().unwrap().0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_makes_more_of_them_and_calm_makes_fewer() {
        let mut offers = offers();
        for _ in 0..20 {
            // The last one that waited was used: dials come faster than offers.
            assert!(offers.settle(Ok(dial())).is_some());
        }
        assert_eq!(offers.wanted, MANY);
        offers.waiting.spawn(std::future::pending());
        tokio::time::advance(CALM * 2).await;
        offers.settle(Ok(dial()));
        assert_eq!(offers.wanted, FEW);
    }

    /// Refused for what it is, and, asked again, for having asked.
    #[tokio::test]
    async fn reasons_that_take_turns_are_said_once_each() {
        let mut offers = offers();
        let turns = ["listener_not_allowed", "too_many_opens"];
        let news = turns.iter().cycle().take(20);
        let said = news.filter(|reason| offers.is_news(reason)).count();
        assert_eq!(said, turns.len());
        assert!(offers.settle(Ok(dial())).is_some());
        assert!(offers.is_news(turns[0]), "after a dial it is news");
        for number in 0..2 * REASONS {
            offers.is_news(&number.to_string());
        }
        assert_eq!(offers.said.len(), REASONS);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_one_moment_are_one_and_hold_new_offers_back() {
        let mut offers = offers();
        let failure = || Err(SessionError::NotConnected(Duration::from_secs(10)));
        for _ in 0..10 {
            assert!(offers.settle(failure()).is_none());
        }
        let hold = offers.hold - Instant::now();
        assert!(hold <= Duration::from_millis(100), "{hold:?}");
        assert_eq!(offers.wanted, FEW, "failures are no demand");
    }
}
