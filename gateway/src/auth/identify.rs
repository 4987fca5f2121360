//! From a presented credential to a live session. A verified token is not authority: the registry must say that the
//! generation lives.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use sluicegate_certs::Thumbprint;
use sluicegate_policy::{Denial, ServiceBound};

use super::{
    Gestalt, HandleHash, Keys, Presented,
    token::{Claims, LEEWAY, TokenError, judge},
    token_cache::{TokenCache, Verified},
};
use crate::{
    secret::Secret,
    session::{
        Bearer, Credential, Index, Judged, Live, PolicyGeneration, Right, Session, SessionKey,
    },
};

/// What a credential is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Audience {
    /// `sluicegate-relay`
    Relay,
    /// `sluicegate-egress`
    Egress,
    /// `sluicegate-admin`
    Admin,
}

impl Audience {
    /// The claim `aud`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Relay => "sluicegate-relay",
            Self::Egress => "sluicegate-egress",
            Self::Admin => "sluicegate-admin",
        }
    }
}

/// A verified credential on a session that lives.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The session's generation.
    pub session: Arc<Session>,
    /// The token's own bound on services; `None` = the live grant.
    pub bound: Option<Arc<[ServiceBound]>>,
    /// What can be withdrawn of it; `None` where that ends the session.
    pub bearer: Option<Bearer>,
}

impl Identity {
    /// Judge one open by the live policy.
    ///
    /// # Errors
    /// As [`Session::judge`].
    pub fn judge<P, E: From<Denial>>(
        &self,
        decide: impl FnOnce(&Arc<PolicyGeneration>) -> Result<P, E>,
    ) -> Result<Judged<P>, E> {
        self.judge_at(SystemTime::now(), decide)
    }

    /// The same at a moment, for who needs it for something else too.
    ///
    /// # Errors
    /// As [`Session::judge`].
    pub fn judge_at<P, E: From<Denial>>(
        &self,
        now: SystemTime,
        decide: impl FnOnce(&Arc<PolicyGeneration>) -> Result<P, E>,
    ) -> Result<Judged<P>, E> {
        self.session.judge_at(self.bearer.clone(), now, decide)
    }

    /// May it open anything now? The number of the policy that would judge, for records.
    ///
    /// # Errors
    /// As [`Session::judge`].
    pub fn stands(&self) -> Result<u64, Denial> {
        self.stands_at(SystemTime::now())
    }

    /// The same at a moment, for who needs it for something else too.
    ///
    /// # Errors
    /// As [`Session::judge`].
    pub fn stands_at(&self, now: SystemTime) -> Result<u64, Denial> {
        self.session.stands_at(self.bearer.as_ref(), now)
    }

    /// For who only has to know whether it is still good.
    pub fn right(&self) -> Right {
        Right::of(&self.session, self.bearer.as_ref())
    }
}

/// Verifies credentials. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Authenticator {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    index: Arc<Index>,
    keys: Arc<Keys>,
    tokens: Arc<TokenCache>,
    gestalt: Option<Arc<Gestalt>>,
}

impl Authenticator {
    /// Judge credentials by these keys and what lives in this index.
    pub fn new(index: Arc<Index>, keys: Arc<Keys>) -> Self {
        Self::of(index, keys, None)
    }

    /// The same, accepting tokens of gestaltd too, where `gestalt` has terms for them.
    #[must_use]
    pub fn accepting(&self, gestalt: Arc<Gestalt>) -> Self {
        let Inner { index, keys, .. } = &*self.inner;
        Self::of(index.clone(), keys.clone(), Some(gestalt))
    }

    fn of(index: Arc<Index>, keys: Arc<Keys>, gestalt: Option<Arc<Gestalt>>) -> Self {
        let tokens = Arc::<TokenCache>::default();
        let remembering = Arc::downgrade(&tokens);
        index.remembered_by(remembering);
        Self {
            inner: Arc::new(Inner {
                index,
                keys,
                tokens,
                gestalt,
            }),
        }
    }

    /// Identify a signed token or a handle. Its session is touched.
    ///
    /// # Errors
    /// `CredentialInvalid` (unknown, forged, expired, dead generation alike; see `dead_generation`), `KeyNotProved` (another key
    /// than its own, or none), `SourceNotAllowed`, `StoreUnavailable`; `ConnectionLimit` where something is open by as many tokens of
    /// gestaltd as there may be.
    pub fn identify<'a>(
        &self,
        presented: impl Into<Presented<'a>>,
        audience: Audience,
        source: IpAddr,
        now: SystemTime,
    ) -> Result<Identity, Denial> {
        self.identify_late(presented.into(), audience, source, now, Duration::ZERO)
    }

    /// The same, where a signed token may have ended so long ago.
    pub(super) fn identify_late(
        &self,
        presented: Presented<'_>,
        audience: Audience,
        source: IpAddr,
        now: SystemTime,
        late: Duration,
    ) -> Result<Identity, Denial> {
        if !self.inner.index.readable() {
            return Err(Denial::StoreUnavailable);
        }
        let (live, bound, credential) = match HandleHash::of(presented.text()) {
            Some(hash) if audience != Audience::Admin => (
                self.inner
                    .index
                    .handle(&hash)
                    .ok_or(Denial::CredentialInvalid)?,
                None,
                Credential::Handle(hash),
            ),
            Some(_) => return Err(Denial::CredentialInvalid),
            None => {
                let verified = self.verified(presented.text(), audience, now, late);
                let Some(verified) = verified else {
                    let gestalt = self.inner.gestalt.as_ref();
                    let gestalt = gestalt.ok_or(Denial::CredentialInvalid)?;
                    return gestalt.identify(&presented, audience, source, now);
                };
                if let Some(confirmation) = &verified.claims.cnf
                    && !proves(&presented, &confirmation.jkt)
                {
                    // What the session says is the same; a token whose session has another key by now is none.
                    return Err(stolen(&verified.session));
                }
                (
                    self.living(&verified, now)
                        .ok_or(Denial::CredentialInvalid)?,
                    verified.bound.clone(),
                    verified.credential.clone(),
                )
            }
        };
        // By its own clocks, whether the sweep has come by or not.
        if live.session.has_ended(now) {
            return Err(Denial::CredentialInvalid);
        }
        if live.key.is_some() && live.key != presented.proved() {
            return Err(stolen(live.session.key()));
        }
        if !live.accepts(source) {
            return Err(Denial::SourceNotAllowed);
        }
        live.session.touch(now);
        Ok(Identity {
            session: live.session.clone(),
            bound,
            bearer: Some(Bearer::new(self.inner.index.clone(), credential)),
        })
    }

    /// Identify by where a connection comes from, as the only session of these namespaces with that source. It is touched.
    ///
    /// # Errors
    /// `SourceUnknown`, `SourceAmbiguous`, `StoreUnavailable`.
    pub fn identify_source(
        &self,
        source: IpAddr,
        namespaces: &[Arc<str>],
        now: SystemTime,
    ) -> Result<Identity, Denial> {
        if !self.inner.index.readable() {
            return Err(Denial::StoreUnavailable);
        }
        let live = self.inner.index.source(source, namespaces, now)?;
        live.session.touch(now);
        Ok(Identity {
            session: live.session.clone(),
            bound: None,
            bearer: None,
        })
    }

    /// Is this a credential of ours? A handle of a session that lives, or a token that names a key of ours, expired or not.
    pub fn knows(&self, text: &str) -> bool {
        match HandleHash::of(text) {
            Some(hash) => self.inner.index.handle(&hash).is_some(),
            None => jsonwebtoken::decode_header(text)
                .ok()
                .and_then(|header| header.kid)
                .is_some_and(|kid| self.inner.keys.verifying(&kid).is_some()),
        }
    }

    /// For gRPC answers only: is this a validly signed token whose generation is dead?
    pub fn dead_generation(&self, presented: &Secret, now: SystemTime) -> bool {
        self.verified(presented.reveal(), Audience::Relay, now, Duration::ZERO)
            .is_some_and(|verified| self.living(&verified, now).is_none())
    }

    /// How long a fresh token of this session is good for, and whose key it is bound to.
    pub(super) fn terms(&self, key: &SessionKey) -> (Option<Duration>, Option<Thumbprint>) {
        match self.inner.index.session(key) {
            Some(live) => (live.token_ttl, live.key),
            None => (None, None),
        }
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.inner.keys
    }

    /// What a token that was identified says, which may have ended so long ago.
    pub(super) fn claims_of(
        &self,
        presented: &Presented<'_>,
        now: SystemTime,
        late: Duration,
    ) -> Result<Claims, Denial> {
        let verified = self.verified(presented.text(), Audience::Relay, now, late);
        let verified = verified.ok_or(Denial::CredentialInvalid)?;
        Ok(verified.claims.clone())
    }

    /// Are credentials of this session good from some sources alone?
    pub fn has_sources(&self, session: &Session) -> bool {
        let live = self.inner.index.session(session.key());
        live.is_some_and(|live| !live.sources.is_empty())
    }

    /// May credentials of this session be used from there, by what it says now? One that is no more is cut for that.
    pub fn accepts(&self, session: &Session, source: IpAddr) -> bool {
        let live = self.inner.index.session(session.key());
        live.is_none_or(|live| live.accepts(source))
    }

    /// The published JWKS document.
    pub fn jwks(&self) -> String {
        self.inner.keys.jwks()
    }

    fn verified(
        &self,
        presented: &str,
        audience: Audience,
        now: SystemTime,
        late: Duration,
    ) -> Option<Arc<Verified>> {
        let Inner {
            index,
            keys,
            tokens,
            ..
        } = &*self.inner;
        let verified = tokens.verified(keys, index, presented).ok()?;
        let judged = |paused| judge(&verified.claims, audience, now, paused, late);
        match judged(Duration::ZERO) {
            Err(TokenError::Expired) => judged(self.paused(&verified, now)),
            other => other,
        }
        .ok()?;
        Some(verified)
    }

    /// How long the token's generation, if it lives, has been paused.
    fn paused(&self, verified: &Verified, now: SystemTime) -> Duration {
        let live = self.inner.index.session(&verified.session);
        let live = live.filter(|live| live.session.generation() == verified.claims.r#gen);
        live.map_or(Duration::ZERO, |live| live.session.paused(now))
    }

    fn living(&self, verified: &Verified, now: SystemTime) -> Option<Arc<Live>> {
        if self.inner.index.is_withdrawn(&verified.credential) {
            return None;
        }
        let live = self.inner.index.session(&verified.session)?;
        // A session whose record was removed may be created again, and count from one again. Tokens of earlier versions say
        // nothing of it but when they were issued.
        let claims = &verified.claims;
        let own = match claims.born {
            0 => claims.iat.saturating_add(LEEWAY.as_secs()) >= live.session.began(),
            born => born == live.session.born(),
        };
        let lives = own && live.session.generation() == claims.r#gen;
        (lives && !live.session.has_ended(now)).then_some(live)
    }
}

fn proves(presented: &Presented<'_>, wanted: &str) -> bool {
    presented
        .proved()
        .is_some_and(|key| key.to_string() == wanted)
}

/// Somebody has a credential and not the key it is bound to. The answer is the same as to any other bad one
/// ([`Denial::told`]); the operator should know.
pub(super) fn stolen(session: &SessionKey) -> Denial {
    tracing::warn!(session = ?session.id, "a credential was presented without the key it is bound to: it may have been stolen");
    Denial::KeyNotProved
}

#[cfg(test)]
mod tests;
