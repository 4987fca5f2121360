//! Why the registry did not do it.

use std::time::Duration;

use sluicegate_policy::text::Faults;

use crate::{
    auth::MintError,
    session::lifecycle::{Impossible, State},
    store::StoreError,
};

/// Why the registry did not do it.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The request's grant cannot be had.
    #[error("the request has {} fault(s)", .0.errors.len())]
    Faults(Faults),
    /// No such provider.
    #[error("there is no provider {0:?}")]
    UnknownProvider(String),
    /// No such session.
    #[error("there is no session {0:?}")]
    UnknownSession(String),
    /// The session is another owner's.
    #[error("session {0:?} is another owner's")]
    NotOwner(String),
    /// The session is not bound to that capability.
    #[error("the session has no capability {0:?}")]
    UnknownBinding(String),
    /// Not in this state.
    #[error(transparent)]
    Impossible(#[from] Impossible),
    /// The session is over.
    #[error("session {id:?} is {}", .state.as_str())]
    Ended {
        /// The id.
        id: String,
        /// Its state.
        state: State,
    },
    /// The id is taken.
    #[error("{}", taken(id, *state))]
    Taken {
        /// The id.
        id: String,
        /// Its state.
        state: State,
    },
    /// The session is not the one that the change was meant for any more.
    #[error("the session has changed since: its entity tag is {etag:?} now")]
    Changed {
        /// Its entity tag now.
        etag: String,
    },
    /// The namespace, or the owner in it, has all it may hold.
    #[error("{whose} has {in_use} of {limit} {what}")]
    Quota {
        /// Whose quota it is.
        whose: String,
        /// How much is held.
        in_use: u64,
        /// The limit.
        limit: u64,
        /// What it is that is held.
        what: &'static str,
    },
    /// As many handles of the generation are in use as it may have.
    #[error("all {limit} handles of the generation are in use, and one more would take one away")]
    HandlesInUse {
        /// The limit.
        limit: usize,
    },
    /// As many ids of tokens are revoked within the namespace as are remembered of one.
    #[error(
        "namespace {namespace:?} has {limit} ids of tokens revoked, and no more are remembered: send the token itself, or reset its session"
    )]
    RevocationsFull {
        /// The namespace.
        namespace: String,
        /// The limit.
        limit: usize,
    },
    /// As many starts wait in the scope as may.
    #[error("{waiting} starts wait in scope {scope:?}, whose {limit} places are taken")]
    QueueFull {
        /// The scope.
        scope: String,
        /// Starts that wait.
        waiting: usize,
        /// Generations that live.
        in_use: usize,
        /// Generations that may live at once.
        limit: usize,
    },
    /// Its last generation ended in this second, and the next begins in one of its own.
    #[error("the session's next generation begins in {0:?}")]
    TooSoon(Duration),
    /// The store.
    #[error("the session store is not available")]
    Store(#[from] StoreError),
    /// The store could not be read a moment ago: nothing is known of what it would say.
    #[error("the session store cannot be read")]
    Unreadable,
    /// A stored session cannot be read: starting without it would forget a session, so nothing starts.
    #[error("the stored session {key:?} cannot be read")]
    Row {
        /// Its row.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// No credential.
    #[error("a credential could not be issued")]
    Mint(#[from] MintError),
    /// No randomness.
    #[error("the system gives no randomness")]
    Randomness(#[from] getrandom::Error),
    /// The work was dropped half way: the process is going down.
    #[error("interrupted")]
    Interrupted,
}

/// Why an id cannot be used.
fn taken(id: &str, state: State) -> String {
    match state {
        State::Stopped => {
            format!("session {id:?} is stopped: its id is free again when its record is removed")
        }
        _ => format!("session {id:?} exists and was created by another request"),
    }
}

impl RegistryError {
    /// In one line, each fault of several by its message alone.
    pub(in crate::session) fn told(&self) -> String {
        match self {
            Self::Faults(faults) => {
                let all: Vec<String> = faults
                    .errors
                    .iter()
                    .map(|fault| fault.message.clone())
                    .collect();
                all.join("; ")
            }
            other => other.to_string(),
        }
    }
}
