//! Limits of one session, counted: tunnels at once, opens per second, bytes, bandwidth; its owner's along with them.

mod calls;
mod carriers;
mod requests;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use sluicegate_policy::{Denial, Hint, Limits, Refusal, ServiceName, Target};
use sluicegate_relay::flow::Pacing;

use super::pace::{Pace, Way};
pub use calls::Calling;
pub use carriers::Carrier;
use carriers::Place;
pub use requests::Requests;

/// In the atomics: no limit.
const NONE: u64 = u64::MAX;

/// Counts against the limits. Shared by all tunnels of one generation.
#[derive(Debug)]
pub struct Budget {
    max_open: AtomicU64,
    max_to_destination: AtomicU64,
    max_bytes: AtomicU64,
    open: AtomicU64,
    /// Of these, those whose dial has not ended.
    pending: AtomicU64,
    /// Calls on streams that carry them.
    calls: AtomicU64,
    /// Connections that carry them, and some that did.
    carriers: Mutex<Vec<Weak<Place>>>,
    /// Likewise of those that carry its tunnels, requests and calls.
    askers: Mutex<Vec<Weak<Place>>>,
    /// Open now, by destination; none is kept at zero, so it holds no more than is open.
    destinations: Mutex<HashMap<Destination, u64>>,
    bytes: AtomicU64,
    /// Spent by the session's generations before this one. Their owner has counted them.
    earlier: AtomicU64,
    /// Milliseconds since the epoch.
    active: AtomicU64,
    bucket: Mutex<Bucket>,
    /// Asks that are refused have as many a second of their own: what a sandbox is not allowed takes nothing of what it is.
    refusals: Mutex<Bucket>,
    pace: Pace,
    /// The owner's, counted along.
    owner: Option<Arc<Budget>>,
}

/// Opens: refilled at `rate` per second, a second's worth at most.
#[derive(Debug, Default)]
struct Bucket {
    rate: Option<u32>,
    tokens: f64,
    filled: Option<SystemTime>,
}

/// Where a tunnel or stream leads, as limits count it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Destination {
    /// A host and port.
    Target(Target),
    /// A host service.
    Service(ServiceName),
}

/// One open tunnel or stream; dropping it frees the place.
#[derive(Debug)]
pub struct Slot {
    budget: Arc<Budget>,
    /// Its place in the owner's budget.
    _owner: Option<Box<Slot>>,
    /// Its place at its destination.
    destination: Option<Destination>,
}

/// One open under way; dropping it says that its dial has ended, whichever way.
#[derive(Debug)]
pub struct Pending(Arc<Budget>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // The idle clock starts when the last thing closes, not when it opened.
        self.budget.touch(SystemTime::now());
        self.budget.open.fetch_sub(1, Ordering::AcqRel);
        if let Some(destination) = &self.destination {
            self.budget.leave(destination);
        }
    }
}

impl Budget {
    /// A fresh budget, counted along in the owner's where there is one.
    pub fn new(limits: Limits, owner: Option<Arc<Budget>>) -> Self {
        let budget = Self {
            max_open: AtomicU64::new(NONE),
            max_to_destination: AtomicU64::new(NONE),
            max_bytes: AtomicU64::new(NONE),
            open: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            carriers: Mutex::default(),
            askers: Mutex::default(),
            destinations: Mutex::default(),
            bytes: AtomicU64::new(0),
            earlier: AtomicU64::new(0),
            active: AtomicU64::new(0),
            bucket: Mutex::default(),
            refusals: Mutex::default(),
            pace: Pace::default(),
            owner,
        };
        budget.set_limits(limits);
        budget
    }

    /// New limits for what comes. What is open stays open; bytes already spent stay spent.
    pub fn set_limits(&self, limits: Limits) {
        self.max_open
            .store(limits.tunnels.map_or(NONE, u64::from), Ordering::Release);
        self.max_to_destination.store(
            limits.tunnels_per_destination.map_or(NONE, u64::from),
            Ordering::Release,
        );
        // What is left to this generation.
        let earlier = self.earlier.load(Ordering::Acquire);
        let left = limits.bytes.map(|bytes| bytes.saturating_sub(earlier));
        self.max_bytes
            .store(left.unwrap_or(NONE), Ordering::Release);
        self.pace.set(limits.bandwidth);
        for bucket in [&self.bucket, &self.refusals] {
            let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            if bucket.rate != limits.opens_per_second {
                *bucket = Bucket {
                    rate: limits.opens_per_second,
                    ..Bucket::default()
                };
            }
        }
    }

    /// Go on from what the session's generations before this one have spent: the bound is the session's.
    pub(super) fn go_on_from(&self, earlier: u64, limits: Limits) {
        self.earlier.store(earlier, Ordering::Release);
        self.set_limits(limits);
    }

    /// Go on from what was stored before a restart; the owner's count had it too.
    pub fn restore(&self, bytes: u64, active: SystemTime) {
        self.bytes.store(bytes, Ordering::Release);
        self.touch(active);
        if let Some(owner) = &self.owner {
            owner.count_along(bytes);
        }
    }

    /// Bytes that were spent here by what counts no more by itself.
    pub fn count_along(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        if let Some(owner) = &self.owner {
            owner.count_along(bytes);
        }
    }

    /// Nobody remembers who spent these.
    pub fn forget(&self, bytes: u64) {
        let less = |now: u64| Some(now.saturating_sub(bytes));
        let _ = self
            .bytes
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        if let Some(owner) = &self.owner {
            owner.forget(bytes);
        }
    }

    /// Take a place for one tunnel or stream.
    ///
    /// # Errors
    /// `TooManyTunnels`, `TooManyOpens`, `ByteQuota`.
    pub fn open(self: &Arc<Self>, now: SystemTime) -> Result<Slot, Denial> {
        // A refused open is activity too: somebody is there.
        self.touch(now);
        if self.bytes() >= self.max_bytes.load(Ordering::Acquire) {
            return Err(Denial::ByteQuota);
        }
        let max = self.max_open.load(Ordering::Acquire);
        let taken = self
            .open
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| {
                (open < max).then_some(open + 1)
            });
        if taken.is_err() {
            return Err(Denial::TooManyTunnels);
        }
        let mut slot = Slot {
            budget: self.clone(),
            _owner: None,
            destination: None,
        };
        // Its own first: whoever is over its own bound takes nothing of its neighbours'.
        self.take(now)?;
        if let Some(owner) = &self.owner {
            match owner.open(now) {
                Ok(place) => slot._owner = Some(Box::new(place)),
                Err(denial) => {
                    self.bucket().give_back();
                    return Err(denial);
                }
            }
        }
        Ok(slot)
    }

    /// One more dial begins, of so many at once: what does not answer must not take the gateway's descriptors and the time of whoever
    /// does. How long each may take is its own deadline.
    ///
    /// # Errors
    /// `TooManyPending`.
    pub fn dial(self: &Arc<Self>, most: u64) -> Result<Pending, Refusal> {
        let begun = |pending| (pending < most).then_some(pending + 1);
        let begun = self
            .pending
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, begun);
        match begun {
            Ok(_) => Ok(Pending(self.clone())),
            Err(used) => Err(Refusal {
                denial: Denial::TooManyPending,
                rule: None,
                hint: Some(Hint::InUse {
                    used,
                    most,
                    what: "opens under way",
                }),
            }),
        }
    }

    fn take(&self, now: SystemTime) -> Result<(), Denial> {
        let taken = self.bucket().take(now);
        taken.then_some(()).ok_or(Denial::TooManyOpens)
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody who is known was refused, and nothing was opened. Over the rate of opens it is that which is answered: who asks
    /// for what is not allowed as fast as it can is told to stop, whatever it asks for. Of a session it is asked by
    /// [`super::Session::refused`], which knows its clocks.
    pub(super) fn refused(&self, refusal: Refusal, now: SystemTime) -> Refusal {
        // A refused ask is activity too: somebody is there.
        self.touch(now);
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.take(now) {
            drop(refusals);
            return match &self.owner {
                Some(owner) => owner.refused(refusal, now),
                None => refusal,
            };
        }
        let most = refusals.rate.map_or(NONE, u64::from);
        Refusal {
            denial: Denial::TooManyOpens,
            rule: None,
            hint: Some(Hint::InUse {
                used: most,
                most,
                what: "refusals of this second",
            }),
        }
    }

    /// A refusal of this budget's with what is in use of it, or of its owner's.
    pub fn refusal(&self, denial: Denial) -> Refusal {
        let limit = |limit: &AtomicU64| limit.load(Ordering::Acquire);
        let (used, most, what) = match denial {
            Denial::TooManyTunnels => (self.open_now(), limit(&self.max_open), "open"),
            Denial::ByteQuota => {
                let earlier = self.earlier.load(Ordering::Acquire);
                let most = limit(&self.max_bytes).saturating_add(earlier);
                (self.spent(), most, "bytes spent")
            }
            Denial::TooManyOpens => {
                let bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
                let rate = bucket.rate.map(u64::from);
                // Whose bucket is empty has none left of its second's.
                let used = rate.map_or(0, |rate| if bucket.tokens < 1.0 { rate } else { 0 });
                (used, rate.unwrap_or(NONE), "opens of this second")
            }
            other => return other.into(),
        };
        match &self.owner {
            Some(owner) if used < most => owner.refusal(denial),
            _ => Refusal {
                denial,
                rule: None,
                hint: Some(Hint::InUse { used, most, what }),
            },
        }
    }

    /// Take a place for one tunnel or stream to `destination`.
    ///
    /// # Errors
    /// `TooManyToDestination`, and those of [`Budget::open`]. A refusal takes nothing of the other limits.
    pub fn open_to(
        self: &Arc<Self>,
        destination: Destination,
        now: SystemTime,
    ) -> Result<Slot, Denial> {
        if let Err(denial) = self.enter(&destination) {
            self.touch(now);
            return Err(denial);
        }
        match self.open(now) {
            Ok(mut slot) => {
                slot.destination = Some(destination);
                Ok(slot)
            }
            Err(denial) => {
                self.leave(&destination);
                Err(denial)
            }
        }
    }

    /// Counted whether there is a limit or not: one that comes later counts what is open.
    fn enter(&self, destination: &Destination) -> Result<(), Denial> {
        let max = self.max_to_destination.load(Ordering::Acquire);
        let mut destinations = self.destinations();
        match destinations.get_mut(destination) {
            Some(open) if *open >= max => return Err(Denial::TooManyToDestination),
            Some(open) => *open += 1,
            None if max == 0 => return Err(Denial::TooManyToDestination),
            None => {
                destinations.insert(destination.clone(), 1);
            }
        }
        Ok(())
    }

    fn leave(&self, destination: &Destination) {
        let mut destinations = self.destinations();
        if let Some(open) = destinations.get_mut(destination) {
            *open -= 1;
            if *open == 0 {
                destinations.remove(destination);
            }
        }
    }

    fn destinations(&self) -> MutexGuard<'_, HashMap<Destination, u64>> {
        self.destinations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Count bytes about to be passed on: payload by the chunk, and the heads of requests and answers.
    ///
    /// # Errors
    /// `ByteQuota` when there are not so many left. None of them may go on then, and none are.
    pub fn spend(&self, bytes: usize) -> Result<(), Denial> {
        let max = self.max_bytes.load(Ordering::Acquire);
        let before = self.bytes.fetch_add(bytes as u64, Ordering::AcqRel);
        let spent = before.saturating_add(bytes as u64);
        if spent > max {
            // The quota is used up, and no more than that: what is over it was not passed on.
            self.bytes
                .fetch_sub(spent - max.max(before), Ordering::AcqRel);
            return Err(Denial::ByteQuota);
        }
        let along = self
            .owner
            .as_ref()
            .map_or(Ok(()), |owner| owner.spend(bytes));
        along.inspect_err(|_| {
            self.bytes.fetch_sub(bytes as u64, Ordering::AcqRel);
        })
    }

    /// The most bytes that go on at once; `None` where there is no bandwidth, this budget's or its owner's.
    pub fn piece(&self) -> Option<usize> {
        let own = self.pace.piece();
        let Some(owner) = &self.owner else { return own };
        match (own, owner.piece()) {
            (Some(own), Some(owner)) => Some(own.min(owner)),
            (own, owner) => own.or(owner),
        }
    }

    /// These bytes are to go on. `None`: at once. Otherwise it completes when some of them may, and says how many: those are
    /// paid for, and the others are to be asked for anew. Dropped before, it costs nothing.
    pub fn pace(self: &Arc<Self>, way: Way, bytes: usize) -> Option<Pacing> {
        let piece = self.piece()?;
        Some(Pacing::new(self.clone().turn(way, bytes.min(piece))))
    }

    async fn turn(self: Arc<Self>, way: Way, bytes: usize) -> usize {
        // Its own first, whether that is limited or not: of each session one waits for the owner's, however many it opens.
        let all: Vec<&Self> =
            std::iter::successors(Some(&*self), |budget| budget.owner.as_deref()).collect();
        let mut turns = Vec::with_capacity(all.len());
        for budget in &all {
            turns.push(budget.pace.turn(way).await);
        }
        for (budget, debt) in all.iter().zip(&mut turns) {
            budget.pace.charge(debt, bytes);
        }
        bytes
    }

    /// Activity now.
    pub fn touch(&self, now: SystemTime) {
        let millis = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |d| d.as_millis());
        self.active
            .fetch_max(u64::try_from(millis).unwrap_or(NONE), Ordering::AcqRel);
    }

    /// Bytes spent by all generations of the session.
    pub fn spent(&self) -> u64 {
        let earlier = self.earlier.load(Ordering::Acquire);
        self.bytes().saturating_add(earlier)
    }

    /// Bytes spent by this generation.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// Tunnels and streams open now.
    pub fn open_now(&self) -> u64 {
        self.open.load(Ordering::Acquire)
    }

    /// The last activity; the epoch before the first.
    pub fn last_activity(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.active.load(Ordering::Acquire))
    }
}

impl Bucket {
    /// What was taken has led to nothing.
    fn give_back(&mut self) {
        if self.rate.is_some() {
            self.tokens += 1.0;
        }
    }

    fn take(&mut self, now: SystemTime) -> bool {
        let Some(rate) = self.rate.map(f64::from) else {
            return true;
        };
        // A clock that went back refills nothing.
        let refill = match self.filled {
            None => rate,
            Some(filled) => now
                .duration_since(filled)
                .map_or(0.0, |d| d.as_secs_f64() * rate),
        };
        self.tokens = (self.tokens + refill).min(rate);
        self.filled = Some(now);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests;
