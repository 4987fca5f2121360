//! HTTP/2 connections to gRPC services: kept per session generation and service, never shared between sessions.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use h2::client::SendRequest;
use sluicegate_policy::{Denial, ServicePermit, ServiceUrl};
use sluicegate_relay::{flow::Chunk, transport::windows};
use tokio::time::timeout;

use super::{ServiceFailure, Services, Ticket};
use crate::{
    drain::DrainWatch,
    session::{Authority, Session, SessionKey},
    telemetry::Speaker,
};

/// A connection without calls goes after this long.
const IDLE: Duration = Duration::from_secs(60);
/// The service's HTTP/2 preface.
const HANDSHAKE: Duration = Duration::from_secs(5);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Key {
    session: SessionKey,
    generation: u64,
    url: ServiceUrl,
    service: String,
    /// Where the service is told who speaks, a connection speaks for one source.
    source: Option<std::net::IpAddr>,
}

/// One call's place on a connection. The connection is not closed as idle while any exists.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Sends the call.
    pub requests: SendRequest<Chunk>,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// For `:authority`: the service's own address, nothing of the client's.
    pub authority: String,
    _busy: Arc<()>,
}

impl Upstream {
    /// Are both places on one connection?
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self._busy, &other._busy)
    }
}

/// The connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pool {
    services: Services,
    kept: Arc<Mutex<HashMap<Key, Upstream>>>,
    tasks: DrainWatch,
}

impl Pool {
    /// Opens through `services`; connections run in `tasks`.
    pub fn new(services: Services, tasks: DrainWatch) -> Self {
        Self {
            services,
            kept: Arc::default(),
            tasks,
        }
    }

    /// A connection ready for one more call.
    ///
    /// # Errors
    /// `ServiceUnavailable`, `OwnListener`.
    pub async fn take(
        &self,
        ticket: &Ticket,
        speaker: &Speaker,
    ) -> Result<Upstream, ServiceFailure> {
        let session = &ticket.identity.session;
        let told = ticket.permit.service().proxy_protocol.is_some();
        let key = Key {
            session: session.key().clone(),
            generation: session.generation(),
            url: ticket.permit.url().clone(),
            service: ticket.permit.name().to_string(),
            source: speaker.source.map(|source| source.ip()).filter(|_| told),
        };
        let kept = self.lock().get(&key).cloned();
        if let Some(kept) = kept {
            match kept.requests.clone().ready().await {
                Ok(requests) => return Ok(Upstream { requests, ..kept }),
                // Gone away, or gone: the next call gets a new one.
                Err(_) => self.forget(&key, &kept),
            }
        }
        let fresh = self.connect(&key, session, &ticket.permit, speaker).await?;
        self.keep(key, &fresh);
        Ok(fresh)
    }

    /// For calls to come. Of two that were made at once the first is kept: the other goes when its own calls are over.
    fn keep(&self, key: Key, fresh: &Upstream) {
        self.lock().entry(key).or_insert_with(|| fresh.clone());
    }

    async fn connect(
        &self,
        key: &Key,
        session: &Arc<Session>,
        permit: &ServicePermit,
        speaker: &Speaker,
    ) -> Result<Upstream, ServiceFailure> {
        let connecting = self.services.connect(permit, Some(speaker), true);
        let (connected, _) = connecting.await?;
        let failed = |detail: String| ServiceFailure {
            denial: Denial::ServiceUnavailable,
            detail,
        };
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(windows::STREAM)
            .initial_connection_window_size(windows::CONNECTION)
            .max_frame_size(windows::FRAME)
            .max_send_buffer_size(windows::SEND_BUFFER)
            .data_frame_budget(windows::SMALL_FRAMES)
            .enable_push(false);
        let handshake = timeout(HANDSHAKE, builder.handshake::<_, Chunk>(connected.io())).await;
        let handshake = handshake.map_err(|_| failed("no HTTP/2 preface in time".into()))?;
        let (requests, driver) = handshake.map_err(|error| failed(error.to_string()))?;
        let (scheme, authority) = address(permit.url());
        let upstream = Upstream {
            requests,
            scheme,
            authority,
            _busy: Arc::new(()),
        };
        let (pool, key, session, kept) =
            (self.clone(), key.clone(), session.clone(), upstream.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                _ = driver => {}
                () = ended(&session) => {}
                () = pool.idle(&key, &kept) => {}
            }
            pool.forget(&key, &kept);
        });
        Ok(upstream)
    }

    /// Completes when nothing has used the connection for a while.
    async fn idle(&self, key: &Key, kept: &Upstream) {
        loop {
            tokio::time::sleep(IDLE).await;
            if self.give_up(key, kept) {
                return;
            }
        }
    }

    /// Is nobody using it? Then nobody will: it is out of the map.
    fn give_up(&self, key: &Key, kept: &Upstream) -> bool {
        let mut map = self.lock();
        // Another may stand there by now, or none: this one may have been told to go away, with calls on it that go on.
        let in_map = map.get(key).is_some_and(|one| one.is(kept));
        // One is the asker's; the driver's task holds none of its own.
        let idle = Arc::strong_count(&kept._busy) <= 1 + usize::from(in_map);
        if idle && in_map {
            map.remove(key);
        }
        idle
    }

    fn forget(&self, key: &Key, gone: &Upstream) {
        let mut map = self.lock();
        if map.get(key).is_some_and(|one| one.is(gone)) {
            map.remove(key);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Upstream>> {
        // A map is whole whatever panicked beside it.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ended(session: &Session) {
    let over = |authority: &Authority| matches!(authority, Authority::Ended(_));
    // An error means the session is gone altogether.
    let _ = session.subscribe().wait_for(over).await;
}

/// Scheme and `:authority` of a service's own address.
fn address(url: &ServiceUrl) -> (&'static str, String) {
    match url {
        // What gRPC implementations send over unix sockets.
        ServiceUrl::Unix(_) => ("http", "localhost".into()),
        ServiceUrl::Tcp(ip, port) => ("http", std::net::SocketAddr::new(*ip, *port).to_string()),
        ServiceUrl::Tls { host, port } => ("https", format!("{host}:{port}")),
    }
}

#[cfg(test)]
mod tests;
