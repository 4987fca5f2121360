//! The life of a session: a pure table of state and action, with `now` as a parameter.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sluicegate_policy::Denial;

/// Where a session is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// No generation lives.
    Idle,
    /// A generation lives.
    Running,
    /// A generation lives and may open nothing.
    Paused,
    /// Over.
    Stopped,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Idle, Self::Running, Self::Paused, Self::Stopped];

    /// As in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// What becomes of a session that expires.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExpiry {
    /// Idle, its generation dead.
    #[default]
    Reset,
    /// Paused; it can be resumed. Past `maxLifetime` it is reset all the same.
    Pause,
    /// Over.
    Stop,
}

/// What becomes of open tunnels when a session is paused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnPause {
    /// They are cut.
    #[default]
    Close,
    /// They stay.
    Hold,
}

/// Which clock ran out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expiry {
    /// `ttl` since start, resume or keepalive.
    Ttl,
    /// `idleTimeout` with no tunnel and no request.
    IdleTimeout,
    /// `maxLifetime` since start.
    MaxLifetime,
}

impl Expiry {
    /// As in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ttl => "ttl",
            Self::IdleTimeout => "idle_timeout",
            Self::MaxLifetime => "max_lifetime",
        }
    }
}

/// The times of a session. `None` = never.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Times {
    /// A running generation's window; keepalive extends it.
    pub ttl: Option<Duration>,
    /// No tunnel and no request for so long.
    pub idle_timeout: Option<Duration>,
    /// A generation's life at most, paused time not counted.
    pub max_lifetime: Option<Duration>,
    /// What then.
    pub on_expiry: OnExpiry,
    /// What a pause does to open tunnels.
    pub on_pause: OnPause,
    /// A relay token is good for so long, and is exchanged for a fresh one by clients that can; `None` = as long as the
    /// generation.
    #[serde(default)]
    pub token_ttl: Option<Duration>,
}

/// Everything the table looks at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lease {
    /// Where it is.
    pub state: State,
    /// The last generation started; 0 before the first.
    pub generation: u64,
    /// Its times.
    pub times: Times,
    /// When this generation started.
    pub started_at: Option<SystemTime>,
    /// When the window closes.
    pub expires_at: Option<SystemTime>,
    /// When `maxLifetime` is over.
    pub ends_at: Option<SystemTime>,
    /// Since when it is paused.
    pub paused_at: Option<SystemTime>,
    /// How long this generation's earlier pauses were.
    #[serde(default)]
    pub paused_total: Duration,
}

impl Lease {
    /// An idle session that was never started.
    pub fn new(times: Times) -> Self {
        Self {
            state: State::Idle,
            generation: 0,
            times,
            started_at: None,
            expires_at: None,
            ends_at: None,
            paused_at: None,
            paused_total: Duration::ZERO,
        }
    }
}

/// What is asked of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Begin a generation.
    Start,
    /// Refuse new opens.
    Pause,
    /// Go on with the same credentials.
    Resume,
    /// Extend the window to at least so long from now.
    Keepalive(Duration),
    /// Revoke the generation.
    Reset,
    /// End the session.
    Stop,
    /// A clock ran out.
    Expire(Expiry),
    /// The runtime says that the sandbox is no more.
    Gone,
}

impl Action {
    /// As in routes and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Keepalive(_) => "keepalive",
            Self::Reset => "reset",
            Self::Stop => "stop",
            Self::Expire(_) => "expire",
            Self::Gone => "observe",
        }
    }
}

/// What live tunnels are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// A new generation lives.
    Begin,
    /// The same generation goes on.
    Live,
    /// It may open nothing; `hold` keeps what is open.
    Pause {
        /// Keep open tunnels.
        hold: bool,
    },
    /// It is dead, for this reason.
    End(Denial),
}

/// What follows from a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Effects {
    /// What live tunnels are told.
    pub change: Option<Change>,
    /// A credential of the living generation is issued.
    pub credential: bool,
    /// The event to record; `None` where nothing happened.
    pub event: Option<&'static str>,
}

/// The action is not possible in this state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("cannot {} a session that is {}", .action.as_str(), .state.as_str())]
pub struct Impossible {
    /// What was asked.
    pub action: Action,
    /// Where it is.
    pub state: State,
}

/// One step of the table.
///
/// # Errors
/// The cell is empty.
pub fn step(
    lease: &Lease,
    action: Action,
    now: SystemTime,
) -> Result<(Lease, Effects), Impossible> {
    use State::{Idle, Paused, Running, Stopped};
    let state = lease.state;
    match (action, state) {
        (Action::Start, Idle) => Ok(begin(lease, now)),
        (Action::Start, Running | Paused) => Ok((
            lease.clone(),
            Effects {
                credential: true,
                ..Effects::default()
            },
        )),
        (Action::Pause, Running) => Ok(pause(lease, now, "session.paused")),
        (Action::Resume, Paused) => Ok(resume(lease, now)),
        (Action::Keepalive(extend), Running) => Ok(keepalive(lease, extend, now)),
        (Action::Reset, Running | Paused) => {
            Ok(end(lease, Idle, Denial::SessionRevoked, "session.reset"))
        }
        (Action::Stop, Running | Paused) => Ok(end(
            lease,
            Stopped,
            Denial::SessionRevoked,
            "session.stopped",
        )),
        (Action::Stop, Idle) => {
            let effects = Effects {
                event: Some("session.stopped"),
                ..Effects::default()
            };
            Ok((
                Lease {
                    state: Stopped,
                    ..lease.clone()
                },
                effects,
            ))
        }
        (Action::Expire(which), Running | Paused) => Ok(expire(lease, which, now)),
        (Action::Gone, Running | Paused) => {
            Ok(end(lease, Idle, Denial::SessionRevoked, "session.ended"))
        }
        // What a runtime has to say of a generation that is dead already is no fault of its own.
        (Action::Pause, Paused)
        | (Action::Resume, Running)
        | (Action::Stop, Stopped)
        | (Action::Gone, Idle | Stopped) => Ok((lease.clone(), Effects::default())),
        (Action::Start | Action::Reset, Stopped)
        | (Action::Reset, Idle)
        | (Action::Pause | Action::Resume | Action::Expire(_), Idle | Stopped)
        | (Action::Keepalive(_), Idle | Paused | Stopped) => Err(Impossible { action, state }),
    }
}

fn begin(lease: &Lease, now: SystemTime) -> (Lease, Effects) {
    let times = lease.times;
    let ends_at = times.max_lifetime.map(|life| now + life);
    let started = Lease {
        state: State::Running,
        generation: lease.generation + 1,
        times,
        started_at: Some(now),
        expires_at: window(times, now, ends_at),
        ends_at,
        paused_at: None,
        paused_total: Duration::ZERO,
    };
    let effects = Effects {
        change: Some(Change::Begin),
        credential: true,
        event: Some("session.started"),
    };
    (started, effects)
}

/// A fresh window, within the generation's life.
fn window(times: Times, now: SystemTime, ends_at: Option<SystemTime>) -> Option<SystemTime> {
    let expires = now + times.ttl?;
    Some(ends_at.map_or(expires, |end| expires.min(end)))
}

fn pause(lease: &Lease, now: SystemTime, event: &'static str) -> (Lease, Effects) {
    let hold = lease.times.on_pause == OnPause::Hold;
    let paused = Lease {
        state: State::Paused,
        paused_at: Some(now),
        ..lease.clone()
    };
    (
        paused,
        Effects {
            change: Some(Change::Pause { hold }),
            credential: false,
            event: Some(event),
        },
    )
}

fn resume(lease: &Lease, now: SystemTime) -> (Lease, Effects) {
    // Paused time burns neither the window nor the life.
    let paused = lease
        .paused_at
        .and_then(|since| now.duration_since(since).ok())
        .unwrap_or_default();
    let ends_at = lease.ends_at.map(|end| end + paused);
    let resumed = Lease {
        state: State::Running,
        expires_at: window(lease.times, now, ends_at),
        ends_at,
        paused_at: None,
        paused_total: lease.paused_total + paused,
        ..lease.clone()
    };
    (
        resumed,
        Effects {
            change: Some(Change::Live),
            credential: false,
            event: Some("session.resumed"),
        },
    )
}

fn keepalive(lease: &Lease, extend: Duration, now: SystemTime) -> (Lease, Effects) {
    let extended = lease.expires_at.map(|expires| {
        let wanted = expires.max(now + extend);
        lease.ends_at.map_or(wanted, |end| wanted.min(end))
    });
    let effects = Effects {
        event: Some("session.extended"),
        ..Effects::default()
    };
    (
        Lease {
            expires_at: extended,
            ..lease.clone()
        },
        effects,
    )
}

fn end(lease: &Lease, state: State, reason: Denial, event: &'static str) -> (Lease, Effects) {
    let ended = Lease {
        state,
        expires_at: None,
        ends_at: None,
        paused_at: None,
        ..lease.clone()
    };
    (
        ended,
        Effects {
            change: Some(Change::End(reason)),
            credential: false,
            event: Some(event),
        },
    )
}

/// Does the end of this clock pause a running session, and no more?
fn pauses(times: Times, which: Expiry) -> bool {
    times.on_expiry == OnExpiry::Pause && which != Expiry::MaxLifetime
}

/// What a new open gets of a running session when this clock has run out. A dead generation's credential is answered like an
/// unknown one.
pub fn after(times: Times, which: Expiry) -> Denial {
    if pauses(times, which) {
        Denial::SessionPaused
    } else {
        Denial::CredentialInvalid
    }
}

fn expire(lease: &Lease, which: Expiry, now: SystemTime) -> (Lease, Effects) {
    match lease.times.on_expiry {
        OnExpiry::Pause if pauses(lease.times, which) && lease.state == State::Running => {
            pause(lease, now, "session.expired")
        }
        OnExpiry::Stop => end(
            lease,
            State::Stopped,
            Denial::SessionExpired,
            "session.expired",
        ),
        OnExpiry::Pause | OnExpiry::Reset => end(
            lease,
            State::Idle,
            Denial::SessionExpired,
            "session.expired",
        ),
    }
}

/// The next moment a running session expires, and by which clock. A paused one burns nothing.
///
/// `active` is the last moment something moved; `open` = something is open now, which holds the idle clock.
pub fn next_expiry(lease: &Lease, active: SystemTime, open: bool) -> Option<(SystemTime, Expiry)> {
    if lease.state != State::Running {
        return None;
    }
    // The idle clock never starts before the generation does.
    let active = lease.started_at.map_or(active, |start| start.max(active));
    let idle = lease
        .times
        .idle_timeout
        .filter(|_| !open)
        .map(|span| (active + span, Expiry::IdleTimeout));
    let life = lease.ends_at.map(|at| (at, Expiry::MaxLifetime));
    let ttl = lease.expires_at.map(|at| (at, Expiry::Ttl));
    // At one moment, the end of life tells more than the end of a window.
    [life, ttl, idle]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
}

#[cfg(test)]
mod tests;
