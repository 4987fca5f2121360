//! Further connections of one session, for more streams than one connection has room for, and for streams beside bulk. There are none
//! while one is enough.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, watch},
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use super::{
    SessionError,
    spread::{Need, Seen, choose, need},
};
use crate::{
    backoff::Backoff,
    transport::{Connection, Racer, Transport},
};

/// A stream waits this long for room, where every connection is full.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// However many streams are asked for. The gateway takes fewer, unless its operator says otherwise.
const MOST: usize = 127;
/// After a further connection that could not be made: the first wait, and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// And after one that was wanted for bulk alone, or went as soon as it was there: nobody waits for it, and each is a refusal in the
/// gateway's records, or a handshake for nothing.
const REST: Duration = Duration::from_secs(60);
/// Further connections are looked at this often …
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// One that lived this long was a success.
const SETTLED: Duration = Duration::from_secs(10);
/// … and let go of when they have carried nothing for this long.
const KEPT: Duration = Duration::from_secs(30);

/// What the streams of one session have beside the first connection. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    further: watch::Sender<Vec<Further>>,
    /// Places are about to run short, or all connections carry bulk.
    wanted: Notify,
    /// A place has become free, or there are new ones.
    freed: Arc<Notify>,
    /// Why there was no further connection, the last time.
    said: Mutex<Option<String>>,
    /// Until then bulk is no reason for one more.
    rests: Mutex<Option<Instant>>,
}

#[derive(Clone, Debug)]
struct Further {
    connection: Connection,
    made: Instant,
    /// Since when it is seen to carry nothing.
    unused: Option<Instant>,
}

impl Further {
    fn takes_streams(&self) -> bool {
        !self.connection.is_retired()
    }

    /// It was hardly there, and is gone, though the gateway is not going down.
    fn was_futile(&self, now: Instant) -> bool {
        let connection = &self.connection;
        connection.is_retired() && !connection.goes_down() && now - self.made < SETTLED
    }
}

/// Room for one stream. Dropping it frees the place.
#[derive(Debug)]
pub(super) struct Room {
    place: Option<OwnedSemaphorePermit>,
    freed: Arc<Notify>,
}

impl Drop for Room {
    fn drop(&mut self) {
        drop(self.place.take());
        self.freed.notify_waiters();
    }
}

impl Room {
    /// What waited carries bytes from now on: it goes to a place of those for such streams, where there is one, and the next offer
    /// has its own.
    pub(super) fn settled(mut self, connection: &Connection) -> Self {
        if let Some(place) = connection.place() {
            self.place = Some(place);
            self.freed.notify_waiters();
        }
        self
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self(Arc::new(Inner {
            further: watch::Sender::new(Vec::new()),
            wanted: Notify::new(),
            freed: Arc::default(),
            said: Mutex::default(),
            rests: Mutex::default(),
        }))
    }
}

impl Pool {
    /// Room on the first connection; on a further one where that has none, or carries bulk and the other carries less. Where little
    /// is left, or all carry bulk, another one is made.
    pub(super) fn room(&self, first: &Connection) -> Option<(Connection, Room)> {
        let further = self.0.further.borrow();
        let (lead, now) = (first.transport(), Instant::now());
        let all = usable(first, &further).map(|one| (one, Seen::of(one, lead, now)));
        // Somebody else may have taken its last place since.
        let order = choose(all).into_iter().chain(usable(first, &further));
        self.taken(order, first, &further)
    }

    /// Room for an accept stream: of the places that are kept back for such, else the first there is. Until there is a dial it
    /// carries nothing.
    pub(super) fn room_to_wait(&self, first: &Connection) -> Option<(Connection, Room)> {
        if let Some(place) = first.offer_place() {
            return Some((first.clone(), self.held(place)));
        }
        let further = self.0.further.borrow();
        self.taken(usable(first, &further), first, &further)
    }

    /// The first place there is in this order.
    fn taken<'a>(
        &self,
        mut order: impl Iterator<Item = &'a Connection>,
        first: &Connection,
        further: &[Further],
    ) -> Option<(Connection, Room)> {
        let found = order.find_map(|one| {
            let place = one.place()?;
            Some((one.clone(), self.held(place)))
        });
        if self.need(first, further).is_some() {
            self.0.wanted.notify_one();
        }
        found
    }

    fn held(&self, place: OwnedSemaphorePermit) -> Room {
        let (place, freed) = (Some(place), self.0.freed.clone());
        Room { place, freed }
    }

    /// Tells all who wait that a place has become free, or that there are new ones, of whichever kind: only they know which they need. Nothing is kept for who
    /// comes later: wait first, then look.
    pub(super) fn freed(&self) -> Arc<Notify> {
        self.0.freed.clone()
    }

    /// Completes when there are other connections than there were: another one leads than `first`, which may be one that stands in
    /// for it, or there are not as many further ones as `before`.
    pub(super) async fn changed(
        &self,
        first: &Connection,
        before: usize,
        mut lead: watch::Receiver<Option<Connection>>,
    ) {
        let other = |lead: &Option<Connection>| {
            let lead = lead.as_ref().filter(|lead| !lead.is_retired());
            lead.is_some_and(|lead| !lead.is(first))
        };
        let mut further = self.0.further.subscribe();
        tokio::select! {
            // An error is the session's end, which others notice.
            _ = further.wait_for(|further| further.len() != before) => {}
            Ok(_) = lead.wait_for(other) => {}
            () = first.retired() => {}
        }
    }

    /// One of the further connections that takes new streams; it waits for one.
    pub(super) async fn usable(&self) -> Option<Connection> {
        let mut further = self.0.further.subscribe();
        let found = further.wait_for(|further| further.iter().any(Further::takes_streams));
        let found = found.await.ok()?;
        let one = found.iter().find(|one| one.takes_streams());
        one.map(|one| one.connection.clone())
    }

    /// One of the further connections, to be the first from now on.
    pub(super) fn promote(&self) -> Option<Connection> {
        let mut found = None;
        self.0.further.send_if_modified(|further| {
            let place = further.iter().position(Further::takes_streams);
            found = place.map(|place| further.remove(place).connection);
            found.is_some()
        });
        found
    }

    /// The session has no place any more for this one, on which its streams were refused: where another one has room for streams, it takes
    /// none. What is full is no way out: a stream would wait there for room, and be refused for want of it.
    pub(super) fn spares(&self, refused: &Connection, first: Option<&Connection>) -> bool {
        let further = self.0.further.borrow();
        let mut all = first
            .into_iter()
            .chain(further.iter().map(|one| &one.connection));
        let others = all.any(|one| !one.is_retired() && !one.is(refused) && one.free() > 0);
        if others {
            refused.retire("the session has no place for it");
        }
        others
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.further.borrow().len()
    }

    /// Why there is no further connection, where places run short.
    pub(super) fn refused(&self, first: &Connection) -> Option<String> {
        if self.is_short(first) {
            self.said().clone()
        } else {
            None
        }
    }

    /// The refusal of a stream that has waited.
    pub(super) fn full(&self) -> SessionError {
        let why = self.said().clone();
        let why = why.unwrap_or_else(|| "every connection is full".to_owned());
        SessionError::Full(PATIENCE, why)
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.0.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_short(&self, first: &Connection) -> bool {
        self.need(first, &self.0.further.borrow()) == Some(Need::Room)
    }

    /// Completes when streams run short, at once where they do already. It takes what tells that one more is wanted: ask for the need
    /// again afterwards.
    async fn runs_short(&self, first: &Connection) {
        while !self.is_short(first) {
            self.0.wanted.notified().await;
        }
    }

    /// What one more would be for now.
    fn need(&self, first: &Connection, further: &[Further]) -> Option<Need> {
        let (lead, now) = (first.transport(), Instant::now());
        let need = need(usable(first, further).map(|one| Seen::of(one, lead, now)))?;
        let wanted = need == Need::Room || !self.is_resting(now);
        wanted.then_some(need)
    }

    fn is_resting(&self, now: Instant) -> bool {
        self.rests().is_some_and(|until| until > now)
    }

    fn rests(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.0.rests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, connection: Connection) {
        let one = Further {
            connection,
            made: Instant::now(),
            unused: None,
        };
        self.0.further.send_modify(|further| further.push(one));
        // By their number alone who waits would not hear of one that came as another went.
        self.0.freed.notify_waiters();
    }

    /// Those that have gone, and those that nothing needs any more. Places are taken while the list is read, so that nobody can
    /// be about to open a stream on one that goes. `true`: one of them was made for nothing.
    fn let_go(&self) -> bool {
        let (now, mut futile) = (Instant::now(), false);
        self.0.further.send_if_modified(|further| {
            let before = further.len();
            further.retain_mut(|one| {
                let unused = one.connection.has_rested();
                one.unused = unused.then(|| one.unused.unwrap_or(now));
                let kept = one.unused.is_none_or(|since| now - since < KEPT);
                futile |= one.was_futile(now);
                kept && one.takes_streams()
            });
            further.len() != before
        });
        if futile {
            *self.rests() = Some(now + REST);
        }
        futile
    }
}

/// Those that take new streams, the first one first.
fn usable<'a>(
    first: &'a Connection,
    further: &'a [Further],
) -> impl Iterator<Item = &'a Connection> {
    let all = std::iter::once(first).chain(further.iter().map(|one| &one.connection));
    all.filter(|connection| !connection.is_retired())
}

/// Make further connections as they are wanted, beside what `first` has, and let go of them afterwards.
pub(super) async fn keep(racer: Racer, first: watch::Receiver<Option<Connection>>, pool: Pool) {
    let mut backoff = Backoff::new(AGAIN.0, AGAIN.1);
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let wanted = tokio::select! {
            () = pool.0.wanted.notified() => true,
            _ = look.tick(), if pool.count() > 0 => false,
        };
        if pool.let_go() {
            sleep(backoff.bound() / 2 + backoff.wait() / 2).await;
        }
        if !wanted {
            continue;
        }
        let lead = first.borrow().clone();
        // Without one, streams wait for that; they ask again.
        let Some(lead) = lead.filter(|lead| !lead.is_retired()) else {
            continue;
        };
        let Some(need) = pool.need(&lead, &pool.0.further.borrow()) else {
            continue;
        };
        match further(&racer, &lead, need, &pool).await {
            Ok(connection) => {
                if !pool.is_resting(Instant::now()) {
                    backoff.reset();
                }
                tracing::info!(gateway = %racer.endpoint, further = pool.count() + 1, "a further connection: {}", need.why());
                pool.said().take();
                pool.add(connection);
                // There may be need of one more.
                pool.0.wanted.notify_one();
            }
            Err(reason) if need == Need::Bulk => {
                tracing::info!(gateway = %racer.endpoint, %reason, "no further connection, though {}", need.why());
                *pool.rests() = Some(Instant::now() + REST);
            }
            Err(reason) => {
                tracing::warn!(gateway = %racer.endpoint, %reason, "no further connection, though streams run short");
                *pool.said() = Some(reason);
                pool.let_go();
                sleep(backoff.bound() / 2 + backoff.wait() / 2).await;
            }
        }
    }
}

/// One more, by the transport of the first, on which the gateway takes the token. For bulk there is none where it would keep a better
/// transport out.
async fn further(
    racer: &Racer,
    first: &Connection,
    need: Need,
    pool: &Pool,
) -> Result<Connection, String> {
    if pool.count() >= MOST {
        return Err(format!("there are {MOST} further connections already"));
    }
    let transport = first.transport();
    let connection = proved(racer, transport, need).await?;
    if need == Need::Bulk
        && let Some(better) = racer.better_than(transport)
    {
        // Bulk is no reason to stay with what is worse: the session needs a place beside this one for the way back. Only one more shows
        // that there is one; it is closed at once. Streams that find no room meanwhile go before.
        tokio::select! {
            beside = proved(racer, transport, need) => {
                beside.map_err(|reason| format!("none would be left for {better}: {reason}"))?;
            }
            () = pool.runs_short(first) => {}
        }
    }
    Ok(connection)
}

/// One more, on which the gateway takes the token.
async fn proved(racer: &Racer, transport: Transport, need: Need) -> Result<Connection, String> {
    let (endpoint, tls, tasks) = (&racer.endpoint, &racer.tls, &racer.tasks);
    let connection = match need {
        Need::Room => Connection::connect_further(transport, endpoint, tls, tasks).await,
        // Few streams and fast ones, as on the first.
        Need::Bulk => Connection::connect(transport, endpoint, tls, tasks).await,
    };
    let connection = connection.map_err(|error| error.to_string())?;
    match racer.prove(&connection).await {
        Ok(None) => Ok(connection),
        Ok(Some(refused)) => Err(refused.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
