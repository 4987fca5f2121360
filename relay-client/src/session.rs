//! Keeps a connection to the gateway, for ever.

use std::{sync::Arc, time::Duration};

use rustls::ClientConfig;
use sluicegate_relay_protocol::{Handshake, egress_path, service_path};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tokio_util::task::TaskTracker;

use crate::{
    backoff::Backoff,
    flow::Flow,
    transport::{Connection, Endpoint, OpenError},
};

/// An open waits this long for a connection before it fails.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// A connection that lived this long was a success: the next failure starts from a short wait.
const SETTLED: Duration = Duration::from_secs(10);

/// Where to, and as whom.
#[derive(Clone)]
pub struct SessionConfig {
    /// The gateway.
    pub endpoint: Endpoint,
    /// Whom to trust there.
    pub tls: Arc<ClientConfig>,
    /// The credential.
    pub token: Arc<str>,
    /// How to wait between attempts.
    pub backoff: Backoff,
}

impl std::fmt::Debug for SessionConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionConfig")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// What the connection is doing, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Status {
    /// Being made, for the first time or again.
    Connecting,
    /// Up.
    Connected,
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
        let keeper = Keeper {
            config: config.clone(),
            publish,
            tell,
            tasks: tasks.clone(),
        };
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
        self.open_as(&Handshake::Service { name }, &self.config.token)
            .await
    }

    /// Open a stream with a credential of its own.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn open_as(
        &self,
        target: &Handshake,
        token: &str,
    ) -> Result<Box<dyn Flow>, SessionError> {
        let path = match target {
            Handshake::Service { name } => service_path(name),
            Handshake::Egress { host, port } => egress_path(host, *port),
        };
        let deadline = Instant::now() + OPEN_PATIENCE;
        let mut current = self.current.clone();
        loop {
            let usable = |c: &Option<Connection>| c.as_ref().is_some_and(|c| !c.is_retired());
            let connection = match timeout_at(deadline, current.wait_for(usable)).await {
                Ok(Ok(connection)) => connection.clone(),
                Ok(Err(_)) | Err(_) => None,
            };
            let Some(connection) = connection else {
                return Err(SessionError::NotConnected(OPEN_PATIENCE));
            };
            match connection.open(&path, token).await {
                // Nobody has seen it: the next connection may have it.
                Err(OpenError::Retired) => {}
                opened => return Ok(Box::new(opened?)),
            }
        }
    }
}

struct Keeper {
    config: SessionConfig,
    publish: watch::Sender<Option<Connection>>,
    tell: watch::Sender<Status>,
    tasks: TaskTracker,
}

impl Keeper {
    async fn keep(self) {
        let mut backoff = self.config.backoff;
        loop {
            let reason = match Connection::connect(
                &self.config.endpoint,
                &self.config.tls,
                &self.tasks,
            )
            .await
            {
                Ok(connection) => {
                    let since = Instant::now();
                    tracing::info!(gateway = %self.config.endpoint, attempts = backoff.attempts(), "connected");
                    self.publish.send_replace(Some(connection.clone()));
                    self.tell.send_replace(Status::Connected);
                    connection.retired().await;
                    self.publish.send_replace(None);
                    if since.elapsed() >= SETTLED {
                        backoff.reset();
                    }
                    "the connection ended".to_owned()
                }
                Err(error) => error.to_string(),
            };
            let wait = backoff.wait();
            tracing::warn!(gateway = %self.config.endpoint, %reason, ?wait, attempt = backoff.attempts(), "reconnecting");
            self.tell.send_replace(Status::Waiting { reason, wait });
            tokio::time::sleep(wait).await;
            self.tell.send_replace(Status::Connecting);
        }
    }
}
