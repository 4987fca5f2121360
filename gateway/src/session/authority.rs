//! What one generation of a session may do right now, and the watch by which live tunnels learn that it changed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, Weak},
    time::{Duration, SystemTime},
};

use sluicegate_policy::{Denial, Grant, Refusal, ServiceName};
use tokio::sync::watch;

use super::{
    Bearer, Budget, Changes, DialTargets, Door,
    index::Tie,
    lifecycle::{Expiry, Lease, after, next_expiry},
};
use crate::{clock::unix_seconds, telemetry::SessionLabel};

/// `(namespace, provider, session id)`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SessionKey {
    /// Namespace (`default` unless scoped).
    pub namespace: Arc<str>,
    /// Provider.
    pub provider: Arc<str>,
    /// Session id.
    pub id: Arc<str>,
}

/// One atomic generation of policy: every open is judged by exactly one, and records its number.
#[derive(Debug)]
pub struct PolicyGeneration {
    /// Rises with every change of the session's grant.
    pub number: u64,
    /// What it allows.
    pub grant: Arc<Grant>,
    /// Which credential narrows it with a bound of its own; 0 = none does.
    pub narrowed: u64,
}

/// What one open was allowed: what decided it and what its record says are the same. There is no policy to be had before
/// there is something to decide, so that none is kept until it is no longer the one that holds.
#[derive(Debug)]
pub struct Judged<P> {
    /// What may be done.
    pub permit: P,
    /// What judged.
    pub policy: Arc<PolicyGeneration>,
    /// Changes since: none is missed between the decision and the watch.
    pub changes: Changes,
}

/// What a generation may do now.
#[derive(Clone, Debug)]
pub enum Authority {
    /// Opens are judged by this policy.
    Live(Arc<PolicyGeneration>),
    /// New opens are refused; open tunnels are cut where `hold` is false.
    Paused {
        /// Keep open tunnels.
        hold: bool,
        /// The policy that resumes.
        policy: Arc<PolicyGeneration>,
    },
    /// Over, for this reason (`SessionRevoked`, `SessionExpired`).
    Ended(Denial),
}

/// A dead generation's credential is answered like an unknown one, and so is one that was withdrawn.
const ENDED: Denial = Denial::CredentialInvalid;

impl Authority {
    fn live(&self) -> Result<&Arc<PolicyGeneration>, Denial> {
        match self {
            Self::Live(policy) => Ok(policy),
            Self::Paused { .. } => Err(Denial::SessionPaused),
            Self::Ended(_) => Err(ENDED),
        }
    }

    fn narrowed(&self, by: &Narrowing) -> Self {
        let narrowed = |policy: &PolicyGeneration| {
            Arc::new(PolicyGeneration {
                number: policy.number,
                grant: Arc::new(policy.grant.narrowed(by.grant.clone())),
                narrowed: by.id,
            })
        };
        match self {
            Self::Live(policy) => Self::Live(narrowed(policy)),
            Self::Paused { hold, policy } => Self::Paused {
                hold: *hold,
                policy: narrowed(policy),
            },
            Self::Ended(denial) => Self::Ended(*denial),
        }
    }
}

/// What one credential allows of its session.
#[derive(Debug)]
struct Narrowing {
    id: u64,
    grant: Arc<Grant>,
}

/// One generation of a session.
#[derive(Debug)]
pub struct Session {
    key: SessionKey,
    /// Whose it is, below its namespace.
    owner: Option<Arc<str>>,
    generation: u64,
    authority: watch::Sender<Authority>,
    budget: Arc<Budget>,
    /// When its session came to be, in microseconds; 0 where that does not matter.
    born: u64,
    /// What its record says of its times, with whoever sees the generation more narrowly; `None` where no clock runs.
    lease: Arc<RwLock<Option<Lease>>>,
    dials: Mutex<Arc<DialTargets>>,
    /// Those of its dial targets that are sockets, with whoever sees the generation more narrowly.
    doors: Arc<Mutex<BTreeMap<ServiceName, Arc<Door>>>>,
    /// This generation as single credentials see it: whatever is published here is published there.
    narrowed: Mutex<Vec<(Weak<Session>, Narrowing)>>,
    /// To the tokens it ends with.
    ties: Mutex<Vec<Tie>>,
}

impl Session {
    /// A generation with its policy, counted along in its owner's budget where there is one.
    pub fn new(
        key: SessionKey,
        generation: u64,
        policy: Arc<PolicyGeneration>,
        owner: Option<Arc<Budget>>,
    ) -> Self {
        let budget = Arc::new(Budget::new(policy.grant.limits(), owner));
        Self {
            key,
            owner: None,
            generation,
            authority: watch::Sender::new(Authority::Live(policy)),
            budget,
            born: 0,
            lease: Arc::default(),
            dials: Mutex::default(),
            doors: Arc::default(),
            narrowed: Mutex::default(),
            ties: Mutex::default(),
        }
    }

    /// The same, of this owner.
    #[must_use]
    pub fn owned_by(mut self, owner: Option<&str>) -> Self {
        self.owner = owner.map(Arc::from);
        self
    }

    /// The same, of a session whose generations before it have spent these bytes.
    #[must_use]
    pub(super) fn after(self, earlier: u64) -> Self {
        let limits = match self.authority() {
            Authority::Live(policy) | Authority::Paused { policy, .. } => policy.grant.limits(),
            Authority::Ended(_) => return self,
        };
        self.budget.go_on_from(earlier, limits);
        self
    }

    /// The same, of a session that came to be then.
    #[must_use]
    pub(super) fn born_at(mut self, born: u64) -> Self {
        self.born = born;
        self
    }

    /// This generation as a credential sees it that allows less: the same life, budget and name, and of its policy what
    /// `grant` allows too. `id` tells such credentials apart, and is not 0.
    #[must_use]
    pub fn narrowed(&self, id: u64, grant: Arc<Grant>) -> Arc<Self> {
        let mut all = self.narrowed.lock().unwrap_or_else(PoisonError::into_inner);
        let by = Narrowing { id, grant };
        let session = Arc::new(Self {
            key: self.key.clone(),
            owner: self.owner.clone(),
            generation: self.generation,
            authority: watch::Sender::new(self.authority().narrowed(&by)),
            budget: self.budget.clone(),
            born: self.born,
            lease: self.lease.clone(),
            dials: Mutex::default(),
            doors: self.doors.clone(),
            narrowed: Mutex::default(),
            ties: Mutex::default(),
        });
        all.retain(|(session, _)| session.strong_count() > 0);
        all.push((Arc::downgrade(&session), by));
        session
    }

    /// Whose it is.
    pub fn key(&self) -> &SessionKey {
        &self.key
    }

    /// Its number.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// For records.
    pub fn label(&self) -> SessionLabel {
        SessionLabel {
            namespace: self.key.namespace.clone(),
            provider: self.key.provider.clone(),
            id: self.key.id.clone(),
            generation: self.generation,
            owner: self.owner.clone(),
        }
    }

    /// Hold what ties it to a token for as long as it lives.
    pub(super) fn hold(&self, tie: Tie) {
        let mut ties = self.ties.lock().unwrap_or_else(PoisonError::into_inner);
        ties.push(tie);
    }

    /// What it may do now.
    pub fn authority(&self) -> Authority {
        self.authority.borrow().clone()
    }

    /// Judge one open by the live policy: who asks twice may get two. The withdrawal of the credential it came by, where it
    /// came by one, is a change too.
    ///
    /// # Errors
    /// The denial that a new open gets (paused, revoked, expired), or what `decide` says.
    pub fn judge<P, E: From<Denial>>(
        &self,
        bearer: Option<Bearer>,
        decide: impl FnOnce(&Arc<PolicyGeneration>) -> Result<P, E>,
    ) -> Result<Judged<P>, E> {
        self.judge_at(bearer, SystemTime::now(), decide)
    }

    /// The same at a moment: what is over by its clocks is over, whether the sweep has come by or not.
    ///
    /// # Errors
    /// As [`Session::judge`].
    pub fn judge_at<P, E: From<Denial>>(
        &self,
        bearer: Option<Bearer>,
        now: SystemTime,
        decide: impl FnOnce(&Arc<PolicyGeneration>) -> Result<P, E>,
    ) -> Result<Judged<P>, E> {
        // Subscribed first: a change after the policy is read is a change that is seen.
        let changes = Changes::new(self.authority.subscribe(), bearer);
        let policy = changes.peek().live()?.clone();
        if let Some(denial) = self.over(now) {
            return Err(denial.into());
        }
        let permit = decide(&policy)?;
        Ok(Judged {
            permit,
            policy,
            changes,
        })
    }

    /// May it open anything now? The number of the policy that would judge, for records. Nothing watches it by this.
    ///
    /// # Errors
    /// As [`Session::judge`].
    pub fn stands(&self, bearer: Option<&Bearer>) -> Result<u64, Denial> {
        self.stands_at(bearer, SystemTime::now())
    }

    /// The same at a moment.
    ///
    /// # Errors
    /// As [`Session::judge`].
    pub fn stands_at(&self, bearer: Option<&Bearer>, now: SystemTime) -> Result<u64, Denial> {
        // Let go before anything else is asked, which has locks of its own.
        let number = self.authority.borrow().live().map(|policy| policy.number);
        if bearer.is_some_and(Bearer::is_withdrawn) {
            return Err(ENDED);
        }
        let number = number?;
        self.over(now).map_or(Ok(number), Err)
    }

    /// Everything open looks again whether it still may: one of its credentials was withdrawn, or what else it is judged by has
    /// changed. So does what is open as single credentials see it.
    pub fn look_again(&self) {
        for session in self.views() {
            session.look_again();
        }
        self.authority.send_modify(|_| {});
    }

    /// Is anything open, that would have to look?
    pub(crate) fn is_watched(&self) -> bool {
        self.authority.receiver_count() > 0 || self.views().iter().any(|view| view.is_watched())
    }

    /// It as single credentials see it.
    fn views(&self) -> Vec<Arc<Self>> {
        let narrowed = self.narrowed.lock().unwrap_or_else(PoisonError::into_inner);
        let views = narrowed.iter().map(|(session, _)| session.upgrade());
        views.flatten().collect()
    }

    /// The live policy, of this moment only.
    ///
    /// # Errors
    /// As [`Session::judge`].
    #[cfg(test)]
    pub fn policy(&self) -> Result<Arc<PolicyGeneration>, Denial> {
        self.authority.borrow().live().cloned()
    }

    /// A watch on what it may do.
    pub fn subscribe(&self) -> watch::Receiver<Authority> {
        self.authority.subscribe()
    }

    /// Publish a change. Live tunnels see it at once.
    pub fn publish(&self, authority: Authority) {
        if let Authority::Live(policy) | Authority::Paused { policy, .. } = &authority {
            self.budget.set_limits(policy.grant.limits());
        }
        // Held meanwhile: one that is made now begins with what is published.
        let narrowed = self.narrowed.lock().unwrap_or_else(PoisonError::into_inner);
        for (session, by) in narrowed.iter() {
            if let Some(session) = session.upgrade() {
                session.follow(authority.narrowed(by));
            }
        }
        self.authority.send_replace(authority);
    }

    /// What is over for one credential is not revived by what becomes of its session.
    fn follow(&self, authority: Authority) {
        self.authority.send_if_modified(|own| {
            let lives = !matches!(own, Authority::Ended(_));
            if lives {
                *own = authority;
            }
            lives
        });
    }

    /// When its session came to be, in microseconds of Unix time: tells it from another of its name. 0 = it does not matter.
    pub fn born(&self) -> u64 {
        self.born
    }

    fn lease(&self) -> RwLockReadGuard<'_, Option<Lease>> {
        self.lease.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it began, in seconds of Unix time: no token of its own is older. 0 = it does not matter.
    pub fn began(&self) -> u64 {
        let lease = self.lease();
        let started = lease.as_ref().and_then(|lease| lease.started_at);
        started.map_or(0, unix_seconds)
    }

    /// When the generation's life is over, whatever keeps it alive; `None` = never.
    pub fn ends_at(&self) -> Option<SystemTime> {
        self.lease().as_ref()?.ends_at
    }

    /// How long this generation has been paused, all in all. Its signed tokens live as much longer.
    pub fn paused(&self, now: SystemTime) -> Duration {
        let lease = self.lease();
        let Some(lease) = lease.as_ref() else {
            return Duration::ZERO;
        };
        let present = lease
            .paused_at
            .and_then(|since| now.duration_since(since).ok());
        lease.paused_total + present.unwrap_or_default()
    }

    /// The next moment one of its clocks runs out, and which.
    pub(super) fn due(&self) -> Option<(SystemTime, Expiry)> {
        self.due_of(self.lease().as_ref()?)
    }

    fn due_of(&self, lease: &Lease) -> Option<(SystemTime, Expiry)> {
        let open = self.budget.open_now() > 0;
        next_expiry(lease, self.budget.last_activity(), open)
    }

    /// What a new open gets where a clock has run out: the same before and after that is recorded.
    fn over(&self, now: SystemTime) -> Option<Denial> {
        let lease = self.lease();
        let lease = lease.as_ref()?;
        let (at, which) = self.due_of(lease)?;
        (at <= now).then(|| after(lease.times, which))
    }

    /// What it asked for was refused, and nothing was opened: what is answered, as its budget counts refusals too. Where a clock has run
    /// out it is that, and no ask starts it again.
    pub fn refused(&self, refusal: Refusal, now: SystemTime) -> Refusal {
        match self.over(now) {
            Some(denial) => denial.into(),
            None => self.budget.refused(refusal, now),
        }
    }

    /// Is it dead by its clocks? One that they only pause lives on.
    pub fn has_ended(&self, now: SystemTime) -> bool {
        self.over(now) == Some(Denial::CredentialInvalid)
    }

    /// What its lease says of its times.
    pub(super) fn set_times(&self, lease: &Lease) {
        *self.lease.write().unwrap_or_else(PoisonError::into_inner) = Some(lease.clone());
    }

    /// Completes when nothing may be opened in it: it is paused, or over.
    pub async fn barred(&self) {
        let mut authority = self.authority.subscribe();
        let barred = |now: &Authority| !matches!(now, Authority::Live(_));
        // It cannot fail while the sender lives, which is ours.
        let _ = authority.wait_for(barred).await;
    }

    /// Where its host dials what the sandbox exposes.
    pub fn dials(&self) -> Arc<DialTargets> {
        self.dials
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn show_dials(&self, dials: DialTargets) {
        *self.dials.lock().unwrap_or_else(PoisonError::into_inner) = dials.into();
    }

    /// The socket of this listener's dial target, where it has one.
    pub fn door(&self, listener: &ServiceName) -> Option<Arc<Door>> {
        let doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        doors.get(listener).cloned()
    }

    pub(super) fn show_doors(&self, doors: BTreeMap<ServiceName, Arc<Door>>) {
        *self.doors.lock().unwrap_or_else(PoisonError::into_inner) = doors;
    }

    /// The session's budget.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Something moved: the idle clock starts again, unless it has run out.
    pub fn touch(&self, now: SystemTime) {
        if self.over(now).is_none() {
            self.budget.touch(now);
        }
    }
}
