//! Which transport it is to be: QUIC gets a head start, whatever answers first with a verdict on the credential wins, and
//! the winner is tried first the next time. Where neither it nor HTTP/2 passes, HTTP/1.1 does.

use std::{pin::pin, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::session::Credential;

use super::{
    Choice, ConnectError, Connection, Endpoint, OpenError, Refused, Tls, Transport, Why,
    why::Reason,
};

/// What is tried first by a client that knows of nothing better.
pub const FIRST: Transport = Transport::Quic;

/// What is tried first has this long before the other joins in.
const HEAD_START: Duration = Duration::from_millis(250);

/// Where nobody listens for TCP, QUIC has this long, or as many times what it took to hear so as its handshake and its proof take
/// round trips, and one more.
const LAST_CHANCE: Duration = Duration::from_secs(1);
const TRIPS: u32 = 3;
/// Where HTTP/2 cannot pass it has this long: what says so may be near, and the gateway on the other side of the world.
const BEHIND_MIDDLEBOX: Duration = Duration::from_secs(2);

/// Makes connections.
#[derive(Clone)]
pub struct Racer {
    /// The gateway.
    pub endpoint: Endpoint,
    /// Whom to trust there.
    pub tls: Tls,
    /// The credential that is shown.
    pub token: Credential,
    /// What may be used.
    pub choice: Choice,
    /// What connections need to live.
    pub tasks: TaskTracker,
}

/// A connection on which the gateway has answered.
#[derive(Debug)]
pub struct Won {
    /// The connection.
    pub connection: Connection,
    /// Why this transport.
    pub why: Why,
    /// The gateway's verdict on the credential, where it is not a good one. Streams would be refused alike.
    pub refused: Option<Refused>,
}

impl Won {
    /// Does the session have as many connections as it may?
    pub fn has_no_room(&self) -> bool {
        let refused = self.refused.as_ref();
        refused.is_some_and(Refused::is_of_room)
    }
}

impl Racer {
    /// What is better than this one, and may be tried beside it.
    pub fn better_than(&self, now: Transport) -> Option<Transport> {
        match now {
            _ if self.choice != Choice::Auto => None,
            Transport::Quic => None,
            Transport::H2 => self.endpoint.tls.then_some(Transport::Quic),
            Transport::H1 if self.endpoint.tls => Some(Transport::Quic),
            Transport::H1 => Some(Transport::H2),
        }
    }

    /// A connection by something better than `now`.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn improve(&self, now: Transport) -> Result<Won, ConnectError> {
        let better = match self.better_than(now) {
            Some(better) => better,
            None => now,
        };
        let tried = self.connect(better, Why::recovered(better)).await;
        match tried {
            Err(error) if now == Transport::H1 && better == Transport::Quic => {
                let why = Why::recovered(Transport::H2);
                let won = self.connect(Transport::H2, why).await;
                won.map_err(|other| both(error, other))
            }
            tried => tried,
        }
    }

    /// Connect by what may be used, `first` before the others. HTTP/1.1 comes in only where it was `first` or where the
    /// others cannot pass.
    ///
    /// # Errors
    /// Why none answered.
    pub async fn race(&self, first: Transport) -> Result<Won, ConnectError> {
        if let Choice::Only(only) = self.choice {
            return self.connect(only, Why::forced()).await;
        }
        if first == Transport::H1 {
            match self.connect(Transport::H1, Why::preferred()).await {
                Ok(won) => return Ok(won),
                Err(error) => tracing::debug!(%error, "HTTP/1.1 does not answer"),
            }
        }
        let raced = if self.endpoint.tls {
            self.race_two(first).await
        } else {
            let why = Why::new(Reason::NoTls, "a gateway without TLS has no QUIC");
            self.connect(Transport::H2, why).await
        };
        match raced {
            Err(error) if first != Transport::H1 && error.is_of_http2() => {
                self.instead(Transport::H1, error, Duration::ZERO).await
            }
            raced => raced,
        }
    }

    async fn race_two(&self, first: Transport) -> Result<Won, ConnectError> {
        let (first, second) = match first {
            Transport::H2 => (Transport::H2, Transport::Quic),
            Transport::Quic | Transport::H1 => (Transport::Quic, Transport::H2),
        };
        let began = Instant::now();
        let mut one = pin!(self.connect(first, Why::preferred()));
        let failed = tokio::select! {
            won = &mut one => match won {
                Ok(won) => return Ok(won),
                Err(error) => Some(error),
            },
            () = sleep(HEAD_START) => None,
        };
        if let Some(error) = failed {
            return self.instead(second, error, began.elapsed()).await;
        }
        let began = Instant::now();
        let mut two = pin!(self.connect(second, Why::late(first)));
        tokio::select! {
            won = &mut one => match won {
                Ok(won) => Ok(won),
                Err(error) => two.await.map_err(|other| both(error, other)),
            },
            won = &mut two => match won {
                Ok(won) => Ok(won),
                // A middlebox answers for HTTP/2 at once and for UDP never, and so does a host where no gateway runs: there
                // is no point in waiting for that.
                Err(error)
                    if (error.is_of_http2() || error.is_refused()) && first == Transport::Quic =>
                {
                    match timeout(last_chance(&error, began.elapsed()), one).await {
                        Ok(won) => won.map_err(|other| both(error, other)),
                        Err(_) => Err(error),
                    }
                }
                Err(error) => one.await.map_err(|other| both(error, other)),
            },
        }
    }

    /// Connect by `second`, where the other has failed, so long after it was begun.
    async fn instead(
        &self,
        second: Transport,
        failed: ConnectError,
        took: Duration,
    ) -> Result<Won, ConnectError> {
        let connect = self.connect(second, Why::instead(second, &failed));
        let won = if failed.is_refused() && second == Transport::Quic {
            match timeout(last_chance(&failed, took), connect).await {
                Ok(won) => won,
                Err(_) => return Err(failed),
            }
        } else {
            connect.await
        };
        won.map_err(|error| ConnectError::Neither(Box::new((failed, error))))
    }

    /// Connect by this transport alone.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(&self, transport: Transport, why: Why) -> Result<Won, ConnectError> {
        let connection =
            Connection::connect(transport, &self.endpoint, &self.tls, &self.tasks).await?;
        let refused = self.prove(&connection).await?;
        Ok(Won {
            connection,
            why,
            refused,
        })
    }

    /// The gateway's verdict on the credential, where it is not a good one.
    ///
    /// # Errors
    /// The gateway gave none.
    pub async fn prove(&self, connection: &Connection) -> Result<Option<Refused>, ConnectError> {
        let name = || self.endpoint.to_string();
        let token = self.token.now();
        match connection.prove(&token).await {
            Ok(()) => Ok(None),
            Err(OpenError::Refused(refused)) if refused.is_draining() => {
                Err(ConnectError::Draining(name()))
            }
            Err(OpenError::Refused(refused)) if refused.is_of_credential() => Ok(Some(Refused {
                hint: refused.hint.clone().or_else(|| self.tls.advice(&token)),
                ..refused
            })),
            Err(OpenError::Refused(refused)) => Ok(Some(refused)),
            Err(error) => Err(ConnectError::Unproved(name(), error.into())),
        }
    }
}

/// How long QUIC is waited for where TCP's answer is this, so long after it was asked for.
fn last_chance(failed: &ConnectError, took: Duration) -> Duration {
    if failed.is_refused() {
        LAST_CHANCE.max(took * TRIPS)
    } else {
        BEHIND_MIDDLEBOX
    }
}

fn both(one: ConnectError, two: ConnectError) -> ConnectError {
    ConnectError::Neither(Box::new((one, two)))
}

#[cfg(test)]
mod tests {
    use std::{io, time::Duration};

    use super::{BEHIND_MIDDLEBOX, ConnectError, LAST_CHANCE, last_chance};

    /// The handshake and the proof of a gateway that is a round trip of 600 ms away take two of them.
    #[test]
    fn a_gateway_that_is_far_away_has_time_to_answer_over_quic() {
        let trip = Duration::from_millis(600);
        let io = io::Error::from(io::ErrorKind::ConnectionRefused);
        let refused = ConnectError::Tcp("gateway".into(), io);
        assert_eq!(last_chance(&refused, Duration::ZERO), LAST_CHANCE);
        assert!(last_chance(&refused, trip) > trip * 2);
        assert_eq!(last_chance(&refused, Duration::from_secs(1)).as_secs(), 3);
        let blocked = ConnectError::Alpn("gateway".into());
        assert_eq!(
            last_chance(&blocked, Duration::from_millis(1)),
            BEHIND_MIDDLEBOX
        );
        assert!(BEHIND_MIDDLEBOX > trip * 3);
    }
}
