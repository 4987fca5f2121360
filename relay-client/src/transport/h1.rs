//! The last resort: HTTP/1.1 connections, one per stream, each upgraded to `connect-tcp`. They pass where a middlebox knows
//! neither HTTP/2 nor UDP, at the price of a connection and its handshakes for every stream.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use http::Method;
use rustls::ClientConfig;
use sluicegate_certs::ClientKey;
use sluicegate_relay_protocol::{Handshake, PROOF_PATH, TOKEN_PATH};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::{
    ConnectError, Endpoint, OpenError,
    error::{CONNECT_TIMEOUT, OPEN_TIMEOUT},
    life::Life,
    upgrade::{self, Connected},
};
use crate::flow::{Early, Flow};

/// Nothing tells that the gateway is gone while no stream is opened: it is asked this often …
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// … and is given up after this many answers that did not come.
const MISSED: u32 = 2;

/// A connection in name only: a place where streams are opened, and a verdict on whether that works. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    tls: Arc<ClientConfig>,
    key: Option<Arc<ClientKey>>,
    /// The one that showed that there is somebody, until something is asked on it.
    first: Mutex<Option<Connected>>,
    life: Life,
}

impl Connection {
    /// Connect once. The watch runs in `tasks` until the connection ends.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub(super) async fn connect(
        endpoint: &Endpoint,
        tls: &Arc<ClientConfig>,
        key: Option<Arc<ClientKey>>,
        tasks: &TaskTracker,
    ) -> Result<Self, ConnectError> {
        let first = timeout(CONNECT_TIMEOUT, upgrade::connect(endpoint, tls))
            .await
            .map_err(|_| ConnectError::Timeout(endpoint.to_string(), CONNECT_TIMEOUT))??;
        let shared = Arc::new(Shared {
            endpoint: endpoint.clone(),
            tls: tls.clone(),
            key,
            first: Mutex::new(Some(first)),
            life: Life::default(),
        });
        tasks.spawn(watch(Arc::downgrade(&shared)));
        Ok(Self { shared })
    }

    /// Show the credential on a request of its own: the gateway's verdict on it.
    ///
    /// # Errors
    /// [`OpenError::Refused`] where the gateway does not know the credential, or does not serve its session now.
    pub(super) async fn prove(&self, token: &str) -> Result<(), OpenError> {
        self.get(PROOF_PATH, token).await
    }

    /// GET a path of the gateway's: a good answer, or the refusal.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(super) async fn get(&self, path: &str, token: &str) -> Result<(), OpenError> {
        self.ask(Method::GET, path, token).await.map(drop)
    }

    /// A fresh token for this one, as JSON.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(super) async fn refresh(&self, token: &str) -> Result<Bytes, OpenError> {
        self.ask(Method::POST, TOKEN_PATH, token).await
    }

    async fn ask(&self, method: Method, path: &str, token: &str) -> Result<Bytes, OpenError> {
        let asked = async {
            let first = {
                let mut first = self.shared.first.lock();
                first.as_mut().unwrap_or_else(|e| e.get_mut()).take()
            };
            let connected = match first {
                Some(connected) => connected,
                None => upgrade::connect(&self.shared.endpoint, &self.shared.tls).await?,
            };
            let prover = connected.prover(self.shared.key.clone());
            let token = prover.present(token);
            upgrade::whole(connected, &self.shared.endpoint, method, path, Some(&token)).await
        };
        timeout(OPEN_TIMEOUT, asked)
            .await
            .map_err(|_| OpenError::Timeout(OPEN_TIMEOUT))?
    }

    /// Open a stream.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(super) async fn open(
        &self,
        target: &Handshake,
        token: &str,
        early: &mut Early<'_>,
    ) -> Result<Box<dyn Flow>, OpenError> {
        early.again(None);
        // Nothing may go before the 101 (draft-ietf-httpbis-connect-tcp §4.1: MUST NOT on HTTP/1.1).
        let opened = tokio::select! {
            biased;
            opened = timeout(OPEN_TIMEOUT, self.open_untimed(target, token)) => {
                opened.map_err(|_| OpenError::Timeout(OPEN_TIMEOUT))?
            }
            broken = poll_fn(|cx| early.poll_gone(cx)) => Err(OpenError::Broken(broken)),
        };
        match opened {
            // There was no answer, and no byte of the program's was sent: another connection may have it.
            Err(OpenError::Connect(error)) => Err(self.retire(&error.to_string())),
            Err(OpenError::Io(error)) => Err(self.retire(&error.to_string())),
            opened => opened,
        }
    }

    /// Open an accept stream: it is answered only once there is a dial, however long that takes. A middlebox may end it
    /// before: that is this offer's end and nobody else's.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(super) async fn accept(
        &self,
        target: &Handshake,
        token: &str,
    ) -> Result<Box<dyn Flow>, OpenError> {
        tokio::select! {
            biased;
            opened = self.open_untimed(target, token) => match opened {
                Err(OpenError::Connect(error)) => Err(self.retire(&error.to_string())),
                opened => opened,
            },
            () = self.shared.life.ended() => Err(OpenError::Retired),
        }
    }

    async fn open_untimed(
        &self,
        target: &Handshake,
        token: &str,
    ) -> Result<Box<dyn Flow>, OpenError> {
        let Shared {
            endpoint, tls, key, ..
        } = &*self.shared;
        upgrade::open(endpoint, tls, key.clone(), target, token).await
    }

    fn retire(&self, why: &str) -> OpenError {
        self.shared.life.retire(why);
        OpenError::Retired
    }

    pub(super) fn life(&self) -> &Life {
        &self.shared.life
    }
}

/// Ends the life when the gateway stops answering.
async fn watch(shared: Weak<Shared>) {
    let mut missed = 0;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        if shared.life.has_ended() {
            return;
        }
        // What was connected first and never used is as old as this by now.
        shared
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let asked = async {
            let connected = upgrade::connect(&shared.endpoint, &shared.tls).await?;
            upgrade::whole(connected, &shared.endpoint, Method::GET, "/healthz", None).await
        };
        match timeout(CONNECT_TIMEOUT, asked).await {
            // Whatever it says, it is there.
            Ok(Ok(_) | Err(OpenError::Refused(_))) => missed = 0,
            Ok(Err(error)) if missed + 1 >= MISSED => shared.life.end(error.to_string()),
            Err(_) if missed + 1 >= MISSED => shared.life.end("the gateway does not answer"),
            _ => missed += 1,
        }
    }
}
