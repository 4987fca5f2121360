//! Keeps a connection to the gateway, for ever.

mod keeper;

use std::{sync::Arc, time::Duration};

use sluicegate_relay_protocol::{Handshake, name_path};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tokio_util::task::TaskTracker;

use crate::{
    backoff::Backoff,
    flow::Flow,
    transport::{Choice, Connection, Endpoint, OpenError, Racer, Tls, Transport},
};
use keeper::Keeper;

/// An open waits this long for a connection before it fails.
const OPEN_PATIENCE: Duration = Duration::from_secs(30);

/// Where to, how, and as whom.
#[derive(Clone)]
pub struct SessionConfig {
    /// The gateway.
    pub endpoint: Endpoint,
    /// Whom to trust there.
    pub tls: Tls,
    /// The credential.
    pub token: Arc<str>,
    /// Which transports may be used.
    pub transport: Choice,
    /// How to wait between attempts.
    pub backoff: Backoff,
}

impl std::fmt::Debug for SessionConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionConfig")
            .field("endpoint", &self.endpoint)
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

/// What the connection is doing, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Status {
    /// Being made, for the first time or again.
    Connecting,
    /// Up, and the gateway knows the credential.
    Connected {
        /// By this.
        transport: Transport,
        /// And not the other, because.
        why: String,
    },
    /// Up, but the gateway does not take the credential now; it is asked again after a while.
    Unauthorized {
        /// What the gateway says.
        reason: String,
    },
    /// Down, with the reason; another attempt follows after the wait.
    Waiting {
        /// Why the last attempt or connection ended.
        reason: String,
        /// Until the next attempt.
        wait: Duration,
    },
}

/// Why an open failed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No connection came in time.
    #[error("no connection to the gateway within {0:?}")]
    NotConnected(Duration),
    /// Nobody keeps a connection any more.
    #[error("the client is stopping")]
    Stopped,
    /// The gateway or the stream said no.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Opens streams on whatever connection lives. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Session {
    config: SessionConfig,
    current: watch::Receiver<Option<Connection>>,
    status: watch::Receiver<Status>,
}

impl Session {
    /// Begin. The connection is kept by a task in `tasks`, which ends when the tracker's owner drops the runtime or
    /// `stop` is cancelled.
    pub fn start(
        config: SessionConfig,
        tasks: &TaskTracker,
        stop: tokio_util::sync::CancellationToken,
    ) -> Self {
        let (publish, current) = watch::channel(None);
        let (tell, status) = watch::channel(Status::Connecting);
        let racer = Racer {
            endpoint: config.endpoint.clone(),
            tls: config.tls.clone(),
            token: config.token.clone(),
            choice: config.transport,
            tasks: tasks.clone(),
        };
        let keeper = Keeper::new(racer, config.backoff, publish, tell);
        tasks.spawn(async move { stop.run_until_cancelled(keeper.keep()).await });
        Self {
            config,
            current,
            status,
        }
    }

    /// What the connection is doing.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Open a stream to a host service, waiting for a connection where there is none right now.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn open(&self, service: &str) -> Result<Box<dyn Flow>, SessionError> {
        let name = service.to_owned();
        let service = Handshake::Service { name };
        self.open_as(&service, &self.config.token, OPEN_PATIENCE)
            .await
    }

    /// Open a stream with a credential of its own, waiting so long for a connection where there is none.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn open_as(
        &self,
        target: &Handshake,
        token: &str,
        patience: Duration,
    ) -> Result<Box<dyn Flow>, SessionError> {
        let deadline = Instant::now() + patience;
        loop {
            let connection = timeout_at(deadline, self.connection())
                .await
                .map_err(|_| SessionError::NotConnected(patience))??;
            match connection.open(target, token).await {
                // Nobody has answered for it: the next connection may have it.
                Err(OpenError::Retired) => {}
                opened => return Ok(Box::new(opened?)),
            }
        }
    }

    /// Offer a listener to the host: a stream once somebody dials it, however late, and on whatever connection there is by
    /// then. The session must be one over HTTP/2.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn accept(&self, listener: &str) -> Result<Box<dyn Flow>, SessionError> {
        let name = listener.to_owned();
        let target = Handshake::Listener { name };
        loop {
            let connection = self.connection().await?;
            match connection.accept(&target, &self.config.token).await {
                Err(OpenError::Retired) => {}
                accepted => return Ok(accepted?),
            }
        }
    }

    /// May the session reach `name`, on any port? The session must be one over HTTP/2.
    ///
    /// # Errors
    /// See [`SessionError`]; a refusal says why not.
    pub async fn may_reach(
        &self,
        name: &str,
        token: &str,
        patience: Duration,
    ) -> Result<(), SessionError> {
        let deadline = Instant::now() + patience;
        let path = name_path(name);
        loop {
            let connection = timeout_at(deadline, self.connection())
                .await
                .map_err(|_| SessionError::NotConnected(patience))??;
            match connection.get(&path, token).await {
                Err(OpenError::Retired) => {}
                answered => return Ok(answered?),
            }
        }
    }

    /// A connection that takes new streams.
    async fn connection(&self) -> Result<Connection, SessionError> {
        let usable = |c: &Option<Connection>| c.as_ref().is_some_and(|c| !c.is_retired());
        let mut current = self.current.clone();
        let connection = match current.wait_for(usable).await {
            Ok(connection) => connection.clone(),
            Err(_) => None,
        };
        connection.ok_or(SessionError::Stopped)
    }
}
