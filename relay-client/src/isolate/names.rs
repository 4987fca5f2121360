//! Which names there are in the sandbox: those the gateway says the session may reach. Nothing is resolved.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::OnceCell;

use super::pool::{Pair, Pool};
use crate::{
    session::{Credential, Session, SessionError},
    transport::OpenError,
};

/// What the gateway said holds for this long. It judges every connection anew; this is only about names.
pub(super) const FRESH: Duration = Duration::from_secs(10);
/// A question waits this long for a connection to the gateway: resolvers ask again after five seconds.
const PATIENCE: Duration = Duration::from_secs(4);
/// Verdicts that are remembered.
const REMEMBERED: usize = 4096;
/// Questions put to the gateway: as many at once …
const BURST: f64 = 200.0;
/// … and as many per second from then on. A program that makes names up learns nothing faster, and fills no log.
const PER_SECOND: f64 = 50.0;

/// What there is to say of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It may be reached; these stand for it.
    Here(Pair),
    /// It may not, which is as if it did not exist.
    Nowhere,
    /// Too many questions.
    Enough,
    /// The gateway does not say.
    Unknown,
}

/// The gateway's word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Word {
    Allowed,
    Denied,
    Unknown,
}

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Names {
    session: Session,
    token: Credential,
    state: Arc<Mutex<State>>,
}

struct State {
    pool: Pool,
    said: HashMap<Arc<str>, (Instant, Arc<OnceCell<Word>>)>,
    allowance: f64,
    since: Instant,
}

impl Names {
    pub(super) fn new(session: Session, token: Credential) -> Self {
        Self {
            session,
            token,
            state: Arc::new(Mutex::new(State::new(Instant::now()))),
        }
    }

    /// Ask, unless it was asked a moment ago. Two who ask at once are one question.
    pub(super) async fn ask(&self, name: &str) -> Verdict {
        let Some(cell) = self.state().remembered(name, Instant::now()) else {
            return Verdict::Enough;
        };
        match cell.get_or_init(|| self.put(name)).await {
            Word::Denied => Verdict::Nowhere,
            Word::Unknown => {
                self.state().said.remove(name);
                Verdict::Unknown
            }
            Word::Allowed => match self.state().pool.pair(name, Instant::now()) {
                Some(pair) => Verdict::Here(pair),
                None => Verdict::Enough,
            },
        }
    }

    async fn put(&self, name: &str) -> Word {
        match self.session.may_reach(name, &self.token, PATIENCE).await {
            Ok(()) => Word::Allowed,
            Err(SessionError::Open(OpenError::Refused(refused)))
                if matches!(refused.status.as_u16(), 400 | 403) =>
            {
                tracing::debug!(name, reason = refused.reason, "no such name here");
                Word::Denied
            }
            Err(error) => {
                tracing::warn!(name, %error, "the gateway does not say whether this name may be reached");
                Word::Unknown
            }
        }
    }

    /// The name an address stands for.
    pub(super) fn name(&self, address: IpAddr) -> Option<Arc<str>> {
        self.state().pool.name(address)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(now: Instant) -> Self {
        Self {
            pool: Pool::default(),
            said: HashMap::new(),
            allowance: BURST,
            since: now,
        }
    }

    /// Where the answer is, or is to be put; `None` where no more questions may be asked now.
    fn remembered(&mut self, name: &str, now: Instant) -> Option<Arc<OnceCell<Word>>> {
        let fresh = |at: Instant| now.saturating_duration_since(at) < FRESH;
        if let Some((at, cell)) = self.said.get(name)
            && fresh(*at)
        {
            return Some(cell.clone());
        }
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.allowance = (self.allowance + passed * PER_SECOND).min(BURST);
        self.since = now;
        if self.allowance < 1.0 {
            return None;
        }
        if self.said.len() >= REMEMBERED {
            self.said.retain(|_, (at, _)| fresh(*at));
        }
        if self.said.len() >= REMEMBERED {
            return None;
        }
        self.allowance -= 1.0;
        let cell = Arc::<OnceCell<Word>>::default();
        self.said.insert(name.into(), (now, cell.clone()));
        Some(cell)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{BURST, State};

    #[test]
    fn questions_are_budgeted_and_answers_are_not() {
        let now = Instant::now();
        let mut state = State::new(now);
        let asked = (0..1000)
            .filter(|n| state.remembered(&format!("{n}.test"), now).is_some())
            .count();
        assert_eq!(asked as f64, BURST);
        assert!(state.remembered("0.test", now).is_some(), "said already");
        assert!(state.remembered("x.test", now).is_none());
        let later = now + Duration::from_secs(1);
        assert!(state.remembered("x.test", later).is_some());
    }
}
