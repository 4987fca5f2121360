//! HTTP/2 connections to gRPC services: kept per session generation and service, never shared between sessions, nor between
//! policies that ask something else of the service. A connection takes as many calls as the service allows on one
//! (SETTINGS_MAX_CONCURRENT_STREAMS); for more there is another, so that no call waits for the end of one it has nothing to do
//! with.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    hash::{Hash, Hasher},
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use h2::client::SendRequest;
use sluicegate_policy::{Denial, ProxyProtocol, ServicePermit, ServiceUrl, Within};
use sluicegate_relay::{flow::Chunk, transport::windows};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout, timeout_at},
};

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
/// Connections of one session to one service.
const CONNECTIONS: usize = 16;
/// A call waits this long for a place where all of them are full.
const WAIT: Duration = Duration::from_secs(5);
/// Bytes of one call's answer that are taken before its client has room for them: as much as waits for a client of any stream.
const WINDOW: u32 = windows::STREAM / 2;

#[derive(Clone, PartialEq, Eq, Debug)]
struct Key {
    session: SessionKey,
    generation: u64,
    url: ServiceUrl,
    service: String,
    /// Where the service is told who speaks, a connection speaks for one source.
    source: Option<IpAddr>,
    /// What was made sure of, and said first, when the connection was made: by another policy it would not have been made.
    peer_uid: Option<u32>,
    within: Within,
    proxy_protocol: Option<ProxyProtocol>,
    /// By which settings of the gateway: a reload may have it lead elsewhere.
    settings: u64,
}

impl Key {
    fn new(ticket: &Ticket, speaker: &Speaker, settings: u64) -> Self {
        let (session, permit) = (&ticket.identity.session, &ticket.permit);
        let service = permit.service();
        let told = service.proxy_protocol.is_some();
        Self {
            session: session.key().clone(),
            generation: session.generation(),
            url: permit.url().clone(),
            service: permit.name().to_string(),
            source: speaker.source.map(|source| source.ip()).filter(|_| told),
            peer_uid: service.peer_uid,
            within: service.within.clone(),
            proxy_protocol: service.proxy_protocol,
            settings,
        }
    }
}

impl Hash for Key {
    /// Without what a service is held to: its lists may be long, and there is hardly more than one form of it at a time.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.session.hash(state);
        self.generation.hash(state);
        self.url.hash(state);
        self.service.hash(state);
        self.source.hash(state);
    }
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
    /// Where it leads; none for a unix socket.
    pub address: Option<SocketAddr>,
    place: Place,
}

/// Counted while it exists; whoever waits for one hears of its end.
#[derive(Clone, Debug)]
struct Place {
    /// `None` only while it is dropped.
    held: Option<Arc<()>>,
    freed: Arc<Notify>,
}

impl Place {
    fn new(freed: Arc<Notify>) -> Self {
        let held = Some(Arc::default());
        Self { held, freed }
    }

    /// How many there are on its connection.
    fn count(&self) -> usize {
        self.held.as_ref().map_or(0, Arc::strong_count)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Given up before it is said. One place is for one who waits: all the others would be woken to find it taken.
        drop(self.held.take());
        self.freed.notify_one();
    }
}

impl Upstream {
    /// Are both places on one connection?
    fn is(&self, other: &Self) -> bool {
        let held = self.place.held.as_ref().zip(other.place.held.as_ref());
        held.is_some_and(|(one, other)| Arc::ptr_eq(one, other))
    }

    /// Does the service allow one more call on it, by what it last said? One place is the map's and one the task's.
    fn has_room(&self) -> bool {
        self.place.count().saturating_sub(2) < self.requests.current_max_send_streams()
    }
}

/// Those of one session to one service.
#[derive(Debug, Default)]
struct Kept {
    connections: Vec<Upstream>,
    /// Held by whoever opens one more: the others may find room on it.
    opening: Arc<tokio::sync::Mutex<()>>,
    /// A place came free, or there is one connection more or less.
    freed: Arc<Notify>,
}

/// The connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pool {
    services: Services,
    kept: Arc<Mutex<HashMap<Key, Kept>>>,
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
    /// `ServiceUnavailable`, `OwnListener`; `TooManyOpens` where the service has as many calls as it allows.
    pub async fn take(
        &self,
        ticket: &Ticket,
        speaker: &Speaker,
    ) -> Result<Upstream, ServiceFailure> {
        let session = &ticket.identity.session;
        let key = Key::new(ticket, speaker, self.services.in_force());
        let deadline = Instant::now() + WAIT;
        loop {
            if let Some(found) = self.find(&key).await {
                return Ok(found);
            }
            let queue = self.queue(&key);
            let mut freed = pin!(queue.freed.notified());
            // From here on nothing that comes free is missed.
            freed.as_mut().enable();
            if let Some(found) = self.find(&key).await {
                return Ok(found);
            }
            let turn = tokio::select! {
                turn = queue.opening.lock() => turn,
                () = freed.as_mut() => continue,
                () = sleep_until(deadline) => {
                    return Err(failed("it does not take connections".into()));
                }
            };
            if let Some(found) = self.find(&key).await {
                return Ok(found);
            }
            let others = self.count(&key);
            if others < CONNECTIONS {
                let place = Place::new(queue.freed.clone());
                let connecting = self.connect(&key, place, session, &ticket.permit, speaker);
                match connecting.await {
                    Ok(fresh) => return Ok(fresh),
                    Err(error) if others == 0 => return Err(error),
                    // It takes no more of them: a place comes free on those there are.
                    Err(_) => {}
                }
            }
            drop(turn);
            timeout_at(deadline, freed)
                .await
                .map_err(|_| ServiceFailure {
                    denial: Denial::TooManyOpens,
                    detail: format!(
                        "the service allows no more calls on {CONNECTIONS} connections"
                    ),
                })?;
        }
    }

    /// Where those stand who would open one more.
    fn queue(&self, key: &Key) -> Queue<'_> {
        let mut map = self.lock();
        let kept = map.entry(key.clone()).or_default();
        Queue {
            pool: self,
            key: key.clone(),
            opening: kept.opening.clone(),
            freed: kept.freed.clone(),
        }
    }

    /// A place on a connection there is.
    async fn find(&self, key: &Key) -> Option<Upstream> {
        loop {
            let kept = self.free(key)?;
            match kept.requests.clone().ready().await {
                Ok(requests) => {
                    return Some(Upstream { requests, ..kept });
                }
                // Gone away, or gone: calls go elsewhere.
                Err(_) => self.forget(key, &kept),
            }
        }
    }

    fn free(&self, key: &Key) -> Option<Upstream> {
        let map = self.lock();
        let mut connections = map.get(key)?.connections.iter();
        connections.find(|kept| kept.has_room()).cloned()
    }

    fn count(&self, key: &Key) -> usize {
        self.lock()
            .get(key)
            .map_or(0, |kept| kept.connections.len())
    }

    /// For calls to come.
    fn keep(&self, key: Key, fresh: &Upstream) {
        let mut map = self.lock();
        let kept = map.entry(key).or_default();
        kept.connections.push(fresh.clone());
        kept.freed.notify_waiters();
    }

    async fn connect(
        &self,
        key: &Key,
        place: Place,
        session: &Arc<Session>,
        permit: &ServicePermit,
        speaker: &Speaker,
    ) -> Result<Upstream, ServiceFailure> {
        let connecting = self.services.connect(permit, Some(speaker), true);
        let (connected, address) = connecting.await?;
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(WINDOW)
            .initial_connection_window_size(windows::CONNECTION)
            .max_frame_size(windows::FRAME)
            .max_send_buffer_size(windows::SEND_BUFFER)
            .data_frame_budget(windows::SMALL_FRAMES)
            .max_concurrent_reset_streams(windows::RESETS_KNOWN)
            .reset_stream_duration(windows::RESET_KNOWN)
            // None before the service has said how many.
            .initial_max_send_streams(0)
            .enable_push(false);
        let begin = async {
            let (requests, driver) = builder.handshake::<_, Chunk>(connected.io()).await?;
            let mut driver = Box::pin(driver);
            // RFC 9113 §3.4: the service's SETTINGS are the first it sends.
            poll_fn(|cx| match driver.as_mut().poll(cx) {
                Poll::Ready(ended) => Poll::Ready(ended),
                Poll::Pending if requests.current_max_send_streams() > 0 => Poll::Ready(Ok(())),
                Poll::Pending => Poll::Pending,
            })
            .await?;
            Ok::<_, h2::Error>((requests, driver))
        };
        let begun = timeout(HANDSHAKE, begin).await;
        let begun = begun.map_err(|_| failed("no HTTP/2 preface in time".into()))?;
        let (requests, driver) = begun.map_err(|error| failed(error.to_string()))?;
        let (scheme, authority) = told(permit.url());
        let upstream = Upstream {
            requests,
            scheme,
            authority,
            address,
            place,
        };
        let (pool, key, session, kept) =
            (self.clone(), key.clone(), session.clone(), upstream.clone());
        // Before its task, which takes it out again.
        self.keep(key.clone(), &upstream);
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
        // It may be out of it already: told to go away, with calls on it that go on.
        let known = map.get(key).map(|all| all.connections.as_slice());
        let in_map = known.unwrap_or_default().iter().any(|one| one.is(kept));
        // One is the asker's; the driver's task holds none of its own.
        let idle = kept.place.count() <= 1 + usize::from(in_map);
        if idle {
            take_out(&mut map, key, kept);
        }
        idle
    }

    fn forget(&self, key: &Key, gone: &Upstream) {
        take_out(&mut self.lock(), key, gone);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Kept>> {
        // A map is whole whatever panicked beside it.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take_out(map: &mut HashMap<Key, Kept>, key: &Key, gone: &Upstream) {
    if let Some(kept) = map.get_mut(key) {
        kept.connections.retain(|one| !one.is(gone));
        kept.freed.notify_waiters();
        // Somebody may be about to open another.
        if kept.connections.is_empty() && Arc::strong_count(&kept.opening) == 1 {
            map.remove(key);
        }
    }
}

/// One who stands in it. The last to leave takes the key along where no connection came of it.
struct Queue<'p> {
    pool: &'p Pool,
    key: Key,
    opening: Arc<tokio::sync::Mutex<()>>,
    freed: Arc<Notify>,
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        let mut map = self.pool.lock();
        let empty = map.get(&self.key).is_some_and(|kept| {
            // One is the map's and one our own.
            kept.connections.is_empty() && Arc::strong_count(&kept.opening) <= 2
        });
        if empty {
            map.remove(&self.key);
        }
    }
}

fn failed(detail: String) -> ServiceFailure {
    ServiceFailure {
        denial: Denial::ServiceUnavailable,
        detail,
    }
}

async fn ended(session: &Session) {
    let over = |authority: &Authority| matches!(authority, Authority::Ended(_));
    // An error means the session is gone altogether.
    let _ = session.subscribe().wait_for(over).await;
}

/// Scheme and `:authority` of a service's own address.
fn told(url: &ServiceUrl) -> (&'static str, String) {
    match url {
        // What gRPC implementations send over unix sockets.
        ServiceUrl::Unix(_) => ("http", "localhost".into()),
        ServiceUrl::Tcp(ip, port) => ("http", SocketAddr::new(*ip, *port).to_string()),
        ServiceUrl::Tls { host, port } => ("https", format!("{host}:{port}")),
    }
}

#[cfg(test)]
mod tests;
