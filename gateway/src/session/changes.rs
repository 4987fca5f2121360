//! The watch of something that is open: on its session's authority, and on the credential by which it was opened.

use std::sync::{Arc, Weak};

use sluicegate_policy::Denial;
use tokio::sync::watch::{self, error::RecvError};

use super::{Authority, Index, Session, usage::Visit};
use crate::auth::HandleHash;

/// What of a credential can be withdrawn, apart from its session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Credential {
    /// A handle.
    Handle(HandleHash),
    /// A signed token.
    Token {
        /// The namespace of its session.
        namespace: Arc<str>,
        /// Its id.
        id: Arc<str>,
        /// The id of the token it descends from by refreshing, where it does.
        family: Option<Arc<str>>,
        /// The id of the key that signed it.
        key: Arc<str>,
    },
}

impl Credential {
    /// Are they one, or is one of them refreshed from the other, or both from a third?
    fn is_of_line(&self, other: &Self) -> bool {
        match (self.first(), other.first()) {
            (Some(one), Some(other)) => one == other,
            _ => self == other,
        }
    }

    /// The namespace of a token, and the id of the first of its line.
    fn first(&self) -> Option<(&str, &str)> {
        match self {
            Self::Handle(_) => None,
            Self::Token {
                namespace,
                id,
                family,
                ..
            } => Some((&**namespace, &**family.as_ref().unwrap_or(id))),
        }
    }
}

/// By which credential somebody came, and where it is known whether it is still good.
#[derive(Clone, Debug)]
pub struct Bearer {
    index: Arc<Index>,
    credential: Credential,
    /// Its handle is in use for as long as this is held.
    _visit: Option<Arc<Visit>>,
}

impl Bearer {
    /// Of this credential, judged by this index.
    pub fn new(index: Arc<Index>, credential: Credential) -> Self {
        let visit = match &credential {
            Credential::Handle(hash) => index.visit(hash),
            Credential::Token { .. } => None,
        };
        Self {
            index,
            credential,
            _visit: visit,
        }
    }

    pub(super) fn is_withdrawn(&self) -> bool {
        self.index.is_withdrawn(&self.credential)
    }
}

/// Whether what somebody came by is still good, and nothing more: it is not in use by this.
#[derive(Clone, Debug)]
pub struct Right(Of);

#[derive(Clone, Debug)]
enum Of {
    Credential {
        index: Arc<Index>,
        credential: Credential,
    },
    /// As its credential sees it, with which it ends.
    Session(Weak<Session>),
}

impl Right {
    /// Of who came to this session, by this credential where one can be withdrawn by itself.
    pub fn of(session: &Arc<Session>, bearer: Option<&Bearer>) -> Self {
        Self(match bearer {
            Some(bearer) => Of::Credential {
                index: bearer.index.clone(),
                credential: bearer.credential.clone(),
            },
            None => Of::Session(Arc::downgrade(session)),
        })
    }

    pub(super) fn is_withdrawn(&self) -> bool {
        match &self.0 {
            Of::Credential { index, credential } => index.is_withdrawn(credential),
            // What nobody holds any more has nothing open.
            Of::Session(session) => session
                .upgrade()
                .is_none_or(|session| matches!(session.authority(), Authority::Ended(_))),
        }
    }

    /// Is it by the same credential?
    pub(super) fn is_of(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Of::Credential { credential, .. }, Of::Credential { credential: by, .. }) => {
                credential == by
            }
            (Of::Session(session), Of::Session(other)) => session.ptr_eq(other),
            _ => false,
        }
    }

    /// Is it by the same one, or by a token of its line?
    pub(super) fn is_of_line(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Of::Credential { credential, .. }, Of::Credential { credential: by, .. }) => {
                credential.is_of_line(by)
            }
            _ => self.is_of(other),
        }
    }
}

/// Changes of what one open may do.
#[derive(Clone, Debug)]
pub struct Changes {
    authority: watch::Receiver<Authority>,
    bearer: Option<Bearer>,
}

impl Changes {
    pub(super) fn new(authority: watch::Receiver<Authority>, bearer: Option<Bearer>) -> Self {
        Self { authority, bearer }
    }

    /// By which credential this is open; `None` where nothing of it can be withdrawn.
    pub fn bearer(&self) -> Option<&Bearer> {
        self.bearer.as_ref()
    }

    /// Completes when something changed since [`Changes::now`] was asked.
    ///
    /// # Errors
    /// The session's owner is gone.
    pub async fn changed(&mut self) -> Result<(), RecvError> {
        self.authority.changed().await
    }

    /// What it may do now.
    pub fn now(&mut self) -> Authority {
        let authority = self.authority.borrow_and_update().clone();
        self.judged(authority)
    }

    /// The same, without marking it as seen.
    pub fn peek(&self) -> Authority {
        let authority = self.authority.borrow().clone();
        self.judged(authority)
    }

    fn judged(&self, authority: Authority) -> Authority {
        let withdrawn = || self.bearer.as_ref().is_some_and(Bearer::is_withdrawn);
        match authority {
            Authority::Live(_) | Authority::Paused { .. } if withdrawn() => {
                Authority::Ended(Denial::SessionRevoked)
            }
            authority => authority,
        }
    }
}

#[cfg(test)]
mod tests;
