//! Keeps a connection to the gateway, for ever.

mod credential;
mod judge;
mod keeper;
mod pace;
mod pool;
mod refresh;
mod spare;
mod spread;

use std::{
    future::poll_fn,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use sluicegate_relay_protocol::Handshake;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_util::task::TaskTracker;

use crate::{
    backoff::Backoff,
    flow::{Counted, Early, Flow, Held},
    status::Stats,
    transport::{Choice, Connection, Endpoint, OpenError, Racer, Tls, Transport},
};
pub use credential::{Credential, Ends, bound_to, is_token};
use judge::Doubt;
use keeper::{Keeper, Teller};
use pool::{Pool, Room};

/// An open waits this long for a connection before it fails: longer than a gateway drains by default (30 s) and takes to
/// start. What was sent ahead of an answer can be asked for just as long.
const OPEN_PATIENCE: Duration = Duration::from_secs(60);
/// And this long for a fresh token, where its own has ended.
const RENEWAL: Duration = Duration::from_secs(2);
/// And this long for a place among the session's connections: a gateway notices within it that a connection is gone, 20 s after its last
/// sign of life at the latest.
const STALE: Duration = Duration::from_secs(22);
/// After which it is asked for one again.
const ROOM_AGAIN: Duration = Duration::from_millis(500);

/// Where to, how, and as whom.
#[derive(Clone)]
pub struct SessionConfig {
    /// The gateway.
    pub endpoint: Endpoint,
    /// Whom to trust there.
    pub tls: Tls,
    /// The credential.
    pub token: Credential,
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
    /// The connection went before it was answered, and with it the program's first bytes: they may have arrived.
    #[error("the connection was lost while the stream was being opened")]
    Lost,
    /// Every connection carries all the streams it has room for, and there is no further one.
    #[error("no room for another stream within {0:?}: {1}")]
    Full(Duration, String),
    /// Nobody keeps a connection any more.
    #[error("the client is stopping")]
    Stopped,
    /// The gateway or the stream said no.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Where room is looked for.
type Find = fn(&Pool, &Connection) -> Option<(Connection, Room)>;

/// Opens streams on whatever connection lives. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Session {
    config: SessionConfig,
    stats: Arc<Stats>,
    current: watch::Receiver<Option<Connection>>,
    /// To another replica, where there are several.
    spare: watch::Receiver<Option<Connection>>,
    /// For more streams than one has room for.
    pool: Pool,
    status: watch::Receiver<Status>,
    doubt: Doubt,
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
        let (spare_racer, further_racer) = (racer.clone(), racer.clone());
        let stats = Arc::new(Stats::default());
        let doubt = Doubt::default();
        let pool = Pool::default();
        let keeper = Keeper::new(
            racer,
            config.backoff,
            publish,
            Teller::new(tell, stats.clone()),
            doubt.clone(),
            pool.clone(),
        );
        let (publish_spare, spare) = watch::channel(None);
        let keeping = stop.clone();
        let sparing = spare::keep(spare_racer, current.clone(), publish_spare);
        tasks.spawn(async move { keeping.run_until_cancelled(sparing).await });
        let keeping = stop.clone();
        let pooling = pool::keep(further_racer, current.clone(), pool.clone());
        tasks.spawn(async move { keeping.run_until_cancelled(pooling).await });
        let keeping = stop.clone();
        tasks.spawn(async move { keeping.run_until_cancelled(keeper.keep()).await });
        let session = Self {
            config,
            stats,
            current,
            spare,
            pool,
            status,
            doubt,
        };
        let refreshing = refresh::keep_fresh(session.clone(), session.config.token.clone());
        tasks.spawn(async move { stop.run_until_cancelled(refreshing).await });
        session
    }

    /// What the connection is doing.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// What it has counted.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The gateway, for people.
    pub fn gateway(&self) -> String {
        self.config.endpoint.to_string()
    }

    /// How many connections to the gateway there are now, to other replicas included.
    pub fn connections(&self) -> usize {
        let one =
            |there: &watch::Receiver<Option<Connection>>| usize::from(there.borrow().is_some());
        one(&self.current) + one(&self.spare) + self.pool.count()
    }

    /// Bytes that one stream of the first connection may have in flight to here and unread, now.
    pub fn stream_window(&self) -> Option<u32> {
        let first = self.current.borrow();
        first.as_ref().and_then(Connection::stream_window)
    }

    /// Why there are not more of them, where streams run short.
    pub fn no_more(&self) -> Option<String> {
        let first = self.current.borrow().clone()?;
        self.pool.refused(&first)
    }

    /// When the credential ends, where it has an end.
    pub fn token_ends(&self) -> Option<Ends> {
        self.config.token.ends()
    }

    /// Open a stream to a host service, waiting for a connection where there is none right now.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn open(&self, service: &str) -> Result<Box<dyn Flow>, SessionError> {
        self.open_early(service, &mut Early::nothing()).await
    }

    /// The same for a program that may say something before the stream is open: it is sent right behind the request, where
    /// the transport allows that. No byte of it is ever said to a service twice:
    ///
    /// - While nothing was sent, an open whose connection goes is tried again on the next one.
    /// - What was sent is sent again with it where the peer has said that it processed none of it: HTTP/2's
    ///   REFUSED_STREAM, or a GOAWAY whose last stream comes before it (RFC 9113 §8.7, §6.8); on QUIC a reset with
    ///   [`ErrorCode::Refused`](sluicegate_relay_protocol::ErrorCode::Refused), or a close that says how many streams were
    ///   taken; on either a refusal that says `draining`.
    /// - Otherwise it may have arrived. It is made again as the same open, which the gateway takes only if it, or the
    ///   process before it, has not taken it yet ([`Once`](sluicegate_relay_protocol::Once)).
    /// - Where it has, or cannot know, the open fails with [`SessionError::Lost`], and the program's connection is reset.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn open_early(
        &self,
        service: &str,
        early: &mut Early<'_>,
    ) -> Result<Box<dyn Flow>, SessionError> {
        let name = service.to_owned();
        let service = Handshake::Service { name };
        self.open_by(&service, None, OPEN_PATIENCE, early).await
    }

    /// Whoever runs the sandbox says that there is another token in the file. The gateway is asked anew whatever is found.
    pub fn reread(&self) -> bool {
        let other = self.config.token.reread();
        self.doubt.raise();
        other
    }

    /// Open a stream with a credential of its own, waiting so long for a connection where there is none. Where it is refused
    /// and another one is in its file, it is opened with that.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn open_as(
        &self,
        target: &Handshake,
        credential: &Credential,
        patience: Duration,
    ) -> Result<Box<dyn Flow>, SessionError> {
        let mut nothing = Early::nothing();
        self.open_by(target, Some(credential), patience, &mut nothing)
            .await
    }

    async fn open_by(
        &self,
        target: &Handshake,
        credential: Option<&Credential>,
        patience: Duration,
        early: &mut Early<'_>,
    ) -> Result<Box<dyn Flow>, SessionError> {
        let opened = self.open_uncounted(target, credential, patience, early);
        match opened.await {
            Ok((flow, room)) => Ok(Box::new(Held::new(flow, (room, self.stats.opened())))),
            Err(error) => {
                self.stats.not_opened(&error);
                Err(error)
            }
        }
    }

    async fn open_uncounted(
        &self,
        target: &Handshake,
        other: Option<&Credential>,
        patience: Duration,
        early: &mut Early<'_>,
    ) -> Result<(Counted<Box<dyn Flow>>, Room), SessionError> {
        let credential = other.unwrap_or(&self.config.token);
        let began = Instant::now();
        let deadline = began + patience;
        loop {
            let (connection, room) = tokio::select! {
                room = timeout_at(deadline, self.room(Pool::room)) => {
                    room.map_err(|_| SessionError::NotConnected(patience))??
                }
                // Nobody is there any more to open it for.
                broken = poll_fn(|cx| early.poll_gone(cx)) => {
                    return Err(OpenError::Broken(broken).into());
                }
            };
            let token = credential.now();
            let gateway = connection.instance();
            if early.is_doubtful() && gateway.is_none() {
                return Err(SessionError::Lost);
            }
            match connection.open(target, &token, early).await {
                // Nobody has answered for it: the next connection has it, unless somebody may have got what was said.
                Err(OpenError::Retired) if early.may_be_asked(gateway) => {}
                Err(OpenError::Retired) => return Err(SessionError::Lost),
                Err(OpenError::Refused(refused)) if refused.is_repeated() => {
                    return Err(SessionError::Lost);
                }
                // What was refused has reached nobody.
                Err(OpenError::Refused(refused))
                    if refused.is_of_standing() && credential.is_other_than(&token) => {}
                // A place goes with the credentials by which its streams came, and those of others may have it now.
                Err(OpenError::Refused(refused))
                    if refused.is_of_room() && self.spares(&connection, other.is_none()) => {}
                // Connections that are gone keep their places until the gateway has noticed: as where there is none.
                Err(OpenError::Refused(refused))
                    if refused.is_of_room() && Instant::now() < deadline.min(began + STALE) =>
                {
                    self.doubt.raise();
                    drop(room);
                    sleep_until(Instant::now() + ROOM_AGAIN).await;
                }
                opened => {
                    let own = other.is_none();
                    self.heard(&opened, own);
                    let refused = matches!(&opened, Err(OpenError::Refused(refused)) if refused.is_of_credential());
                    if refused && own && self.renewed(&token).await {
                        continue;
                    }
                    return Ok((Counted::new(opened?, connection.load().clone()), room));
                }
            }
        }
    }

    /// A token that ended while there was no gateway to refresh it at is refused until it is, which is about to happen: is
    /// there another one in a moment?
    async fn renewed(&self, token: &str) -> bool {
        let over = Ends::of(token).is_some_and(|ends| ends.left(SystemTime::now()).is_zero());
        over && timeout(RENEWAL, self.config.token.other_than(token))
            .await
            .is_ok()
    }

    /// There is another token: where the last one was refused, the gateway is asked again.
    fn reconsider(&self) {
        if matches!(*self.status.borrow(), Status::Unauthorized { .. }) {
            self.doubt.raise();
        }
    }

    /// What an answer says of the session, and of the token where it was our own. One that agrees with what is known is no
    /// news.
    fn heard<T>(&self, answer: &Result<T, OpenError>, own: bool) {
        let refused = match answer {
            Ok(_) if own => false,
            Err(OpenError::Refused(refused)) if own => refused.is_of_standing(),
            Err(OpenError::Refused(refused)) if refused.is_of_session() => true,
            Ok(_) | Err(_) => return,
        };
        let known = matches!(*self.status.borrow(), Status::Unauthorized { .. });
        if refused != known {
            self.doubt.raise();
        }
    }

    /// Can this connection, for which the session has no place any more, be done without? Then it takes no new streams. The first one
    /// is there for our `own` credential, whatever is said of another.
    fn spares(&self, refused: &Connection, own: bool) -> bool {
        let first = self.current.borrow().clone();
        let leads = first.as_ref().is_some_and(|first| first.is(refused));
        (own || !leads) && self.pool.spares(refused, first.as_ref())
    }

    /// Offer a listener to the host: a stream once somebody dials it, however late, and on whatever connection there is by
    /// then. While the gateway refuses the token nothing is offered.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn accept(&self, listener: &str) -> Result<Box<dyn Flow>, SessionError> {
        let name = listener.to_owned();
        let target = Handshake::Listener { name };
        let mut status = self.status.clone();
        loop {
            let taken = |status: &Status| !matches!(status, Status::Unauthorized { .. });
            if status.wait_for(taken).await.is_err() {
                return Err(SessionError::Stopped);
            }
            let (connection, room) = self.room(Pool::room_to_wait).await?;
            let token = self.config.token.now();
            let answer = connection.accept(&target, &token).await;
            match answer {
                Err(OpenError::Retired) => {}
                Ok(flow) => {
                    let flow = Counted::new(flow, connection.load().clone());
                    let held = (room.settled(&connection), self.stats.opened());
                    return Ok(Box::new(Held::new(flow, held)));
                }
                Err(OpenError::Refused(refused))
                    if refused.is_of_standing() && self.config.token.is_other_than(&token) => {}
                Err(OpenError::Refused(refused))
                    if refused.is_of_room() && self.spares(&connection, true) => {}
                refused => {
                    self.heard(&refused, true);
                    return Ok(refused?);
                }
            }
        }
    }

    /// A fresh token for this one, as the gateway's JSON.
    async fn refresh(&self, token: &str) -> Result<Bytes, SessionError> {
        loop {
            match self.connection().await?.refresh(token).await {
                Err(OpenError::Retired) => {}
                answer => {
                    self.heard(&answer, true);
                    return Ok(answer?);
                }
            }
        }
    }

    /// May the session reach `name`, on any port?
    ///
    /// # Errors
    /// See [`SessionError`]; a refusal says why not.
    pub async fn may_reach(
        &self,
        name: &str,
        credential: &Credential,
        patience: Duration,
    ) -> Result<(), SessionError> {
        let deadline = Instant::now() + patience;
        loop {
            let connection = timeout_at(deadline, self.connection())
                .await
                .map_err(|_| SessionError::NotConnected(patience))??;
            let token = credential.now();
            match connection.may_reach(name, &token).await {
                Err(OpenError::Retired) => {}
                Err(OpenError::Refused(refused))
                    if refused.is_of_standing() && credential.is_other_than(&token) => {}
                answered => return Ok(answered?),
            }
        }
    }

    /// Room for a stream, and the connection that has it. The wait for a connection is the caller's to bound, that for room on one
    /// is bounded here.
    async fn room(&self, find: Find) -> Result<(Connection, Room), SessionError> {
        let mut until = None;
        let freed = self.pool.freed();
        loop {
            let first = self.connection().await?;
            let further = self.pool.count();
            // What is freed while room is looked for is heard of.
            let heard = freed.notified();
            if let Some(found) = find(&self.pool, &first) {
                return Ok(found);
            }
            let until = *until.get_or_insert_with(|| Instant::now() + pool::PATIENCE);
            tokio::select! {
                () = heard => {}
                () = self.pool.changed(&first, further, self.current.clone()) => {}
                () = sleep_until(until) => return Err(self.pool.full()),
            }
        }
    }

    /// A connection that takes new streams. What asks for something short goes there, whether it has room for streams or not.
    async fn connection(&self) -> Result<Connection, SessionError> {
        let usable = |c: &Option<Connection>| c.as_ref().is_some_and(|c| !c.is_retired());
        let (mut current, mut spare) = (self.current.clone(), self.spare.clone());
        let connection = tokio::select! {
            biased;
            connection = current.wait_for(usable) => connection.map(|found| found.clone()),
            connection = spare.wait_for(usable) => connection.map(|found| found.clone()),
            Some(connection) = self.pool.usable() => Ok(Some(connection)),
        };
        connection.ok().flatten().ok_or(SessionError::Stopped)
    }
}
