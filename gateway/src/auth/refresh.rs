//! A fresh relay token for a live one: the same session, generation, bound and key, a later end.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use sluicegate_policy::Denial;

use super::{Audience, Authenticator, HandleHash, Presented, token};
use crate::{secret::Secret, session::Session};

/// How long a refreshed token is good for where the provider says nothing; its generation's own end comes first where it is
/// nearer.
const LIFE: Duration = Duration::from_secs(15 * 60);

/// A token in exchange for another.
#[derive(Debug)]
pub struct Refreshed {
    /// The new one; the old one goes on until its own end.
    pub token: Secret,
    /// When it ends.
    pub expires: SystemTime,
    /// Whose it is, for the record.
    pub session: std::sync::Arc<Session>,
}

impl Authenticator {
    /// Exchange a relay token that is good now. It counts as one open, so that `opensPerSecond` bounds it too.
    ///
    /// # Errors
    /// `CredentialInvalid` for whatever is no living token (handles have no end and are not exchanged), `SessionPaused`,
    /// `SourceNotAllowed`, `TooManyOpens` and its like, `StoreUnavailable`, `Internal`.
    pub fn refresh<'a>(
        &self,
        presented: impl Into<Presented<'a>>,
        source: IpAddr,
        now: SystemTime,
    ) -> Result<Refreshed, Denial> {
        let presented = presented.into();
        if HandleHash::of(presented.text()).is_some() {
            return Err(Denial::CredentialInvalid);
        }
        let session = self
            .identify(presented, Audience::Relay, source, now)?
            .session;
        session.snapshot()?;
        drop(session.budget().open(now)?);
        let services = self.services_of(&presented, now)?;
        let (life, key) = self.terms(session.key());
        let expires = now + life.unwrap_or(LIFE);
        let expires = session.ends_at().map_or(expires, |end| expires.min(end));
        let minted = token::mint(
            self.keys(),
            Audience::Relay,
            (session.key(), session.generation()),
            services,
            key,
            now,
            expires,
        );
        let token = minted.map_err(|error| {
            tracing::error!(%error, "a relay token could not be refreshed");
            Denial::Internal
        })?;
        Ok(Refreshed {
            token,
            expires,
            session,
        })
    }
}

#[cfg(test)]
mod tests;
