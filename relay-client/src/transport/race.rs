//! Which transport it is to be: QUIC gets a head start, whatever answers first with a verdict on the credential wins, and
//! the winner is tried first the next time.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use super::{Choice, ConnectError, Connection, Endpoint, OpenError, Refused, Tls, Transport};

/// What is tried first has this long before the other joins in.
const HEAD_START: Duration = Duration::from_millis(250);

/// Makes connections.
#[derive(Clone)]
pub struct Racer {
    /// The gateway.
    pub endpoint: Endpoint,
    /// Whom to trust there.
    pub tls: Tls,
    /// The credential that is shown.
    pub token: Arc<str>,
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
    /// Why this transport, for people.
    pub why: String,
    /// The gateway's verdict on the credential, where it is not a good one. Streams would be refused alike.
    pub refused: Option<Refused>,
}

impl Racer {
    /// May another transport than this one be tried?
    pub fn may_race(&self) -> bool {
        self.choice == Choice::Auto && self.endpoint.tls
    }

    /// Connect by what may be used, `first` before the other.
    ///
    /// # Errors
    /// Why neither answered.
    pub async fn race(&self, first: Transport) -> Result<Won, ConnectError> {
        if !self.may_race() {
            let (only, why) = match self.choice {
                Choice::Only(only) => (only, "the only one allowed"),
                Choice::Auto => (Transport::H2, "a gateway without TLS has no other"),
            };
            return self.connect(only, why.to_owned()).await;
        }
        let second = match first {
            Transport::Quic => Transport::H2,
            Transport::H2 => Transport::Quic,
        };
        let mut one = pin!(self.connect(first, "it was tried first and answered".to_owned()));
        let failed = tokio::select! {
            won = &mut one => match won {
                Ok(won) => return Ok(won),
                Err(error) => Some(error),
            },
            () = sleep(HEAD_START) => None,
        };
        if let Some(error) = failed {
            return self.instead(second, &error).await;
        }
        let late = format!("{first} had not answered yet");
        let mut two = pin!(self.connect(second, late));
        tokio::select! {
            won = &mut one => match won {
                Ok(won) => Ok(won),
                Err(error) => two.await.map_err(|other| both(&error, &other)),
            },
            won = &mut two => match won {
                Ok(won) => Ok(won),
                Err(error) => one.await.map_err(|other| both(&other, &error)),
            },
        }
    }

    async fn instead(&self, second: Transport, failed: &ConnectError) -> Result<Won, ConnectError> {
        let won = self.connect(second, failed.to_string()).await;
        won.map_err(|error| both(failed, &error))
    }

    /// Connect by this transport alone.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(&self, transport: Transport, why: String) -> Result<Won, ConnectError> {
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
        match connection.prove(&self.token).await {
            Ok(()) => Ok(None),
            Err(OpenError::Refused(refused)) if refused.is_draining() => {
                Err(ConnectError::Draining(name()))
            }
            Err(OpenError::Refused(refused)) => Ok(Some(refused)),
            Err(error) => Err(ConnectError::Unproved(name(), error.into())),
        }
    }
}

fn both(one: &ConnectError, two: &ConnectError) -> ConnectError {
    ConnectError::Neither(one.to_string(), two.to_string())
}
