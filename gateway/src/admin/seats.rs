//! Places on the management listener: whoever holds requests open there must not keep out operators and health checks.
//!
//! A connection is somebody's for as long as a request with a credential is under way on it, its answer included. Of the others,
//! the one that has been nobody's for the longest time makes room for one more than there may be.

use std::{
    collections::{BTreeMap, HashMap},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use tokio::sync::Notify;

use super::Problem;
use crate::auth::Principal;

/// All of them.
#[derive(Debug)]
pub struct Seats {
    /// Connections at once.
    connections: usize,
    /// Requests under way at once of one credential that is bounded to a part.
    per_credential: usize,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    open: HashMap<u64, Taken>,
    /// Connections that are nobody's, by when they became so.
    nobodys: BTreeMap<u64, u64>,
    /// Requests under way, of all credentials and of those that are bounded.
    all: usize,
    bounded: usize,
    by: HashMap<Arc<str>, usize>,
}

/// What a connection is right now.
#[derive(Debug)]
struct Taken {
    requests: usize,
    /// Its key among those that are nobody's.
    since: u64,
    leave: Arc<Notify>,
}

impl Inside {
    fn turn(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Seats {
    /// So many connections, and so many requests under way of each bounded credential.
    pub fn new(connections: u32, per_credential: u32) -> Arc<Self> {
        Arc::new(Self {
            connections: connections as usize,
            per_credential: per_credential as usize,
            inside: Mutex::default(),
        })
    }

    /// Connections that may be there for a moment: those that come, and those that make room for them.
    pub fn at_once(&self) -> usize {
        self.connections * 2
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection has come.
    pub fn enter(self: &Arc<Self>) -> Arc<Seat> {
        let mut inside = self.inside();
        if inside.open.len() >= self.connections
            && let Some((_, longest)) = inside.nobodys.pop_first()
            && let Some(other) = inside.open.remove(&longest)
        {
            other.leave.notify_one();
        }
        let (id, since) = (inside.turn(), inside.turn());
        let leave = Arc::new(Notify::new());
        let taken = Taken {
            requests: 0,
            since,
            leave: leave.clone(),
        };
        inside.open.insert(id, taken);
        inside.nobodys.insert(since, id);
        drop(inside);
        Arc::new(Seat {
            seats: self.clone(),
            id,
            leave,
        })
    }

    /// A request of somebody's begins, where there is room. A sixteenth of all is for those without a credential, health checks
    /// among them; another for credentials that see everything and hold less than that; bounded ones have three quarters together, and
    /// any other half of all by itself. So no credential keeps out another, whatever either may do.
    fn begin(&self, id: u64, principal: &Principal) -> Result<(), Problem> {
        let mut inside = self.inside();
        if !inside.open.contains_key(&id) {
            // It has been shown out: what it would begin could not be answered.
            return Err(full(inside.open.len(), self.connections));
        }
        let name = principal.name.clone();
        let own = inside.by.get(&name).copied().unwrap_or_default();
        let bounded = principal.is_bounded();
        let mut room = if bounded {
            vec![
                (inside.bounded, self.connections * 3 / 4),
                (own, self.per_credential),
            ]
        } else {
            vec![(own, self.connections / 2)]
        };
        let last = !bounded && own < self.connections / 16;
        let sixteenths = if last { 15 } else { 14 };
        room.push((inside.all, self.connections * sixteenths / 16));
        if let Some((in_use, limit)) = room.into_iter().find(|(in_use, limit)| in_use >= limit) {
            return Err(full(in_use, limit));
        }
        inside.all += 1;
        inside.bounded += usize::from(bounded);
        inside.by.insert(name, own + 1);
        if let Some(taken) = inside.open.get_mut(&id) {
            taken.requests += 1;
            let since = taken.since;
            inside.nobodys.remove(&since);
        }
        Ok(())
    }

    fn end(&self, id: u64, name: &Arc<str>, bounded: bool) {
        let mut inside = self.inside();
        inside.all = inside.all.saturating_sub(1);
        inside.bounded = inside.bounded.saturating_sub(usize::from(bounded));
        let left = inside.by.get(name).map_or(0, |own| own.saturating_sub(1));
        if left == 0 {
            inside.by.remove(name);
        } else {
            inside.by.insert(name.clone(), left);
        }
        let since = inside.turn();
        let Some(taken) = inside.open.get_mut(&id) else {
            return;
        };
        taken.requests = taken.requests.saturating_sub(1);
        if taken.requests == 0 {
            taken.since = since;
            inside.nobodys.insert(since, id);
        }
    }
}

fn full(in_use: usize, limit: usize) -> Problem {
    let detail = "as many requests of this credential, or of all together, are under way as may be: end some (feeds of events, waits), or ask again";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", detail)
        .with("inUse", in_use)
        .with("limit", limit)
}

/// One connection's place. Dropping the last of it frees it.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    id: u64,
    leave: Arc<Notify>,
}

impl Seat {
    /// It has to make room: none of its requests is anybody's, and none is taken any more.
    pub(super) async fn shown_out(&self) {
        self.leave.notified().await;
    }

    /// A request that needs nobody's credential: a health check that keeps its connection is not the one that waited for the longest.
    pub(super) fn touch(&self) {
        let mut inside = self.seats.inside();
        let now = inside.turn();
        let Some(taken) = inside.open.get_mut(&self.id) else {
            return;
        };
        if taken.requests > 0 {
            return;
        }
        let before = std::mem::replace(&mut taken.since, now);
        inside.nobodys.remove(&before);
        inside.nobodys.insert(now, self.id);
    }

    /// A request of somebody's begins.
    ///
    /// # Errors
    /// 429: there are too many.
    pub(super) fn hold(self: &Arc<Self>, principal: &Principal) -> Result<Held, Problem> {
        self.seats.begin(self.id, principal)?;
        Ok(Held {
            seat: self.clone(),
            name: principal.name.clone(),
            bounded: principal.is_bounded(),
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inside = self.seats.inside();
        if let Some(taken) = inside.open.remove(&self.id) {
            inside.nobodys.remove(&taken.since);
        }
    }
}

/// A request under way. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Held {
    seat: Arc<Seat>,
    name: Arc<str>,
    bounded: bool,
}

impl Held {
    /// The answer's body, with which it ends.
    pub(super) fn until_told(self, body: Body) -> Body {
        until_told(body, self)
    }
}

/// A body that keeps something for as long as it is told.
pub(super) fn until_told<T: Send + Unpin + 'static>(body: Body, kept: T) -> Body {
    Body::new(Answer { body, _kept: kept })
}

impl Drop for Held {
    fn drop(&mut self) {
        let (seat, name) = (&self.seat, &self.name);
        seat.seats.end(seat.id, name, self.bounded);
    }
}

struct Answer<T> {
    body: Body,
    _kept: T,
}

impl<T: Unpin> http_body::Body for Answer<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )]
    use super::*;
    use crate::auth::Scope;

    fn bounded(name: &str) -> Principal {
        Principal {
            name: name.into(),
            scope: Scope::Operate,
            namespaces: Some(["team".to_owned()].into()),
            owner: None,
        }
    }

    fn whole(name: &str) -> Principal {
        Principal {
            name: name.into(),
            ..Principal::operator()
        }
    }

    #[test]
    fn a_runaway_that_sees_everything_keeps_out_nobody() {
        let seats = Seats::new(32, 4);
        let seat: Vec<_> = (0..32).map(|_| seats.enter()).collect();
        let mut held: Vec<_> = seat[..16]
            .iter()
            .map(|one| one.hold(&Principal::operator()).unwrap())
            .collect();
        assert!(seat[16].hold(&Principal::operator()).is_err(), "half");
        // Bounded ones and others that see everything have the rest, whoever comes first.
        for (at, one) in seat.iter().enumerate().take(28).skip(16) {
            held.push(one.hold(&bounded(&format!("c{at}"))).unwrap());
        }
        assert!(seat[28].hold(&bounded("more")).is_err());
        held.push(seat[28].hold(&whole("console")).unwrap());
        held.push(seat[29].hold(&whole("deploy")).unwrap());
        assert!(seat[30].hold(&whole("more")).is_err(), "for health checks");
        drop(held);
        assert!(seats.inside().by.is_empty());
    }

    /// Has it been shown out?
    fn is_out(seats: &Seats, seat: &Seat) -> bool {
        !seats.inside().open.contains_key(&seat.id)
    }

    #[test]
    fn one_credential_has_its_share_and_others_have_theirs() {
        let seats = Seats::new(32, 4);
        let seat: Vec<_> = (0..32).map(|_| seats.enter()).collect();
        let (ann, bob) = (bounded("ann"), bounded("bob"));
        let mut held: Vec<_> = seat[..4].iter().map(|s| s.hold(&ann).unwrap()).collect();
        assert!(seat[4].hold(&ann).is_err());
        let other = seat[4].hold(&bob).unwrap();
        held.pop();
        drop(other);
        held.push(seat[3].hold(&ann).unwrap());
        // All that are bounded leave room for whoever sees everything, and those for whoever has no credential.
        for (at, one) in seat.iter().enumerate().take(24).skip(4) {
            held.push(one.hold(&bounded(&format!("c{at}"))).unwrap());
        }
        assert!(seat[24].hold(&bounded("more")).is_err());
        for one in &seat[24..28] {
            held.push(one.hold(&Principal::operator()).unwrap());
        }
        // The last before those are for whoever has few.
        assert!(seat[28].hold(&Principal::operator()).is_err());
        for one in &seat[28..30] {
            held.push(one.hold(&whole("console")).unwrap());
        }
        assert!(seat[30].hold(&whole("console")).is_err());
        assert!(seat[30].hold(&whole("more")).is_err());
        drop(held);
        assert!(seats.inside().by.is_empty());
        let (all, bounded) = {
            let inside = seats.inside();
            (inside.all, inside.bounded)
        };
        assert_eq!((all, bounded), (0, 0));
        drop(seat);
        assert!(seats.inside().open.is_empty() && seats.inside().nobodys.is_empty());
    }

    #[tokio::test]
    async fn whoever_is_nobody_for_the_longest_makes_room() {
        let seats = Seats::new(16, 4);
        let seat: Vec<_> = (0..16).map(|_| seats.enter()).collect();
        let held = seat[0].hold(&bounded("ann")).unwrap();
        drop(seat[1].hold(&Principal::operator()).unwrap());
        let came = seats.enter();
        // The first is somebody's, the second was until now.
        assert!(is_out(&seats, &seat[2]));
        seat[2].shown_out().await;
        for other in [&seat[0], &seat[1], &seat[3], &came] {
            assert!(!is_out(&seats, other));
        }
        drop(held);
        let more: Vec<_> = (0..14).map(|_| seats.enter()).collect();
        assert!(is_out(&seats, &seat[15]) && is_out(&seats, &seat[1]));
        assert!(!is_out(&seats, &seat[0]) && !is_out(&seats, &more[13]));
    }

    /// A health check that keeps its connection has been there the shortest, and whoever has a request under way is not
    /// made nobody by one.
    #[test]
    fn whoever_is_heard_of_is_not_the_one_that_waited() {
        let seats = Seats::new(16, 4);
        let seat: Vec<_> = (0..16).map(|_| seats.enter()).collect();
        seat[0].touch();
        let held = seat[1].hold(&Principal::operator()).unwrap();
        seat[1].touch();
        // All but these two, the one after the other, and then the first.
        let more: Vec<_> = (0..14).map(|_| seats.enter()).collect();
        assert!(!is_out(&seats, &seat[0]) && !is_out(&seats, &seat[1]));
        assert!(seat[2..].iter().all(|one| is_out(&seats, one)));
        let last = seats.enter();
        assert!(is_out(&seats, &seat[0]) && !is_out(&seats, &seat[1]));
        // Nobody is heard of any more who is out.
        seat[0].touch();
        assert_eq!(seats.inside().nobodys.len(), 15);
        drop((held, more, last));
    }

    #[test]
    fn nothing_begins_on_a_connection_that_has_been_shown_out() {
        let seats = Seats::new(16, 4);
        let seat: Vec<_> = (0..16).map(|_| seats.enter()).collect();
        let _came = seats.enter();
        assert!(is_out(&seats, &seat[0]));
        for principal in [Principal::operator(), bounded("ann")] {
            assert!(seat[0].hold(&principal).is_err());
        }
        let inside = seats.inside();
        assert_eq!((inside.all, inside.bounded), (0, 0));
        assert!(inside.by.is_empty());
        drop(inside);
        assert!(seat[1].hold(&bounded("ann")).is_ok());
    }
}
