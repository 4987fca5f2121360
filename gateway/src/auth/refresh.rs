//! A fresh relay token for one that lives or did until a while ago: the same session, generation, bound and key, a later end.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use sluicegate_policy::{Denial, Refusal};

use super::{
    Audience, Authenticator, HandleHash, Presented,
    token::{self, Mint},
};
use crate::{secret::Secret, session::Session};

/// How long a refreshed token is good for where the provider says nothing; its generation's own end comes first where it is
/// nearer.
pub const LIFE: Duration = Duration::from_secs(15 * 60);

/// A token that has ended is exchanged for so long all the same, while its generation lives and nobody has revoked its line:
/// whoever was cut off, or whose gateway was down, when it was to be refreshed comes back by it. It opens nothing else.
pub const LATE: Duration = Duration::from_secs(3600);

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
    /// Exchange a relay token that is good now, or was [`LATE`] ago. It counts as one open, so that `opensPerSecond` bounds it too, and takes no
    /// place.
    ///
    /// # Errors
    /// `CredentialInvalid` for whatever is no living token (handles have no end and are not exchanged), `SessionPaused`,
    /// `SourceNotAllowed`, `TooManyOpens`, `ByteQuota`, `StoreUnavailable`, `Internal`.
    pub fn refresh<'a>(
        &self,
        presented: impl Into<Presented<'a>>,
        source: IpAddr,
        now: SystemTime,
    ) -> Result<Refreshed, Refusal> {
        let presented = presented.into();
        if HandleHash::of(presented.text()).is_some() {
            return Err(Denial::CredentialInvalid.into());
        }
        let identity = self.identify_late(presented, Audience::Relay, source, now, LATE)?;
        identity.stands()?;
        let session = identity.session;
        // No place: streams that fill the session, or its owner, are what the token is kept fresh for.
        let budget = session.budget();
        budget.again(now).map_err(|denial| budget.refusal(denial))?;
        let claims = self.claims_of(&presented, now, LATE)?;
        let (life, key) = self.terms(session.key());
        let expires = now + life.unwrap_or(LIFE);
        let expires = session.ends_at().map_or(expires, |end| expires.min(end));
        let minted = token::mint(
            self.keys(),
            Mint {
                audience: Audience::Relay,
                session: session.key(),
                generation: session.generation(),
                born: session.born(),
                services: claims.svc,
                key,
                // Of the first of them: one that was stolen is not made good by being refreshed.
                family: Some(claims.fam.unwrap_or(claims.jti)),
                paused: session.paused(now),
                expires,
            },
            now,
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
