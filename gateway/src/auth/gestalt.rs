//! Tokens as gestaltd mints them, where the operator accepts them: verified under its key, tied to a session, and never
//! more than the operator's ceiling allows.
//!
//! `key.rs` derives the key, `claims.rs` reads and judges one token, `known.rs` keeps those that were accepted; here each good
//! token becomes a [`Session`] as that token sees it, which every front serves like any other.

mod claims;
mod key;
mod known;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwapOption;
use jsonwebtoken::DecodingKey;
use sha2::{Digest, Sha256};
use sluicegate_policy::{
    Action, Ceiling, Denial, Direction, Grant, ServiceBound, ServiceDocument, ServiceName,
    import_gestalt_claims,
};
use subtle::ConstantTimeEq;

use super::{Audience, Identity, Presented, identify::stolen};
use crate::session::{Budget, Index, PolicyGeneration, Session, SessionKey};
use claims::Claims;
pub(super) use claims::{is_token_id, is_word, token_id};
pub use key::{GestaltError, GestaltKey};
use known::{Hash, Kept};

/// What a token's session is held against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionCheck {
    /// It must be one that lives here, and the token narrows what that one may do.
    Registry,
    /// None: until it expires or its id is revoked, the token is the session.
    TrustToken,
}

/// On which terms tokens are accepted.
#[derive(Clone, PartialEq, Debug)]
pub struct GestaltTerms {
    /// Where their key is.
    pub key: GestaltKey,
    /// What none of them exceeds.
    pub ceiling: Ceiling,
    /// The host services they may name.
    pub services: BTreeMap<ServiceName, ServiceDocument>,
    /// Without hosts and without an action everything within the ceiling is allowed, as gestaltd has it.
    pub legacy_default_allow: bool,
    /// How sessions are verified.
    pub check: SessionCheck,
    /// Namespace of the sessions they name.
    pub namespace: String,
    /// Provider of the sessions they name.
    pub provider: String,
}

struct Accepted {
    terms: GestaltTerms,
    secret: [u8; 32],
    key: DecodingKey,
}

impl std::fmt::Debug for Accepted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Accepted(***)")
    }
}

/// Terms whose key was derived.
pub struct PreparedTerms(Option<Arc<Accepted>>);

impl std::fmt::Debug for PreparedTerms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PreparedTerms(***)")
    }
}

/// One token, and the session as it sees it.
#[derive(Debug)]
struct Known {
    /// The terms it was accepted on.
    accepted: Arc<Accepted>,
    claims: Claims,
    session: Arc<Session>,
    /// The session of the registry it narrows.
    whole: Option<Arc<Session>>,
    bound: Arc<[ServiceBound]>,
}

impl Known {
    /// Are they of one session?
    fn is_of(&self, other: &Self) -> bool {
        match (&self.whole, &other.whole) {
            (Some(whole), Some(other)) => Arc::ptr_eq(whole, other),
            (whole, other) => whole.is_none() && other.is_none(),
        }
    }
}

/// The budget of a namespace.
type BudgetOf = dyn Fn(&str) -> Arc<Budget> + Send + Sync;

/// Accepts gestaltd's tokens, or none.
pub struct Gestalt {
    index: Arc<Index>,
    accepted: ArcSwapOption<Accepted>,
    known: Kept,
    /// The budget of the namespace that tokens count along in which are sessions themselves.
    budget: Box<BudgetOf>,
    narrowings: AtomicU64,
}

impl std::fmt::Debug for Gestalt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gestalt(***)")
    }
}

impl Gestalt {
    /// Accepts none until it has terms.
    pub fn new(
        index: Arc<Index>,
        budget: impl Fn(&str) -> Arc<Budget> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            index,
            accepted: ArcSwapOption::empty(),
            known: Kept::default(),
            budget: Box::new(budget),
            narrowings: AtomicU64::new(1),
        })
    }

    /// Accept tokens on these terms from now on, or none. What other terms let in ends. Deriving a key takes a while:
    /// call it where that may block.
    ///
    /// # Errors
    /// The key cannot be read; the terms so far stay.
    pub fn follow(&self, terms: Option<GestaltTerms>) -> Result<(), GestaltError> {
        self.switch(Self::prepare(terms)?);
        Ok(())
    }

    /// The first half of [`Gestalt::follow`]: all that can fail.
    ///
    /// # Errors
    /// The key cannot be read.
    pub fn prepare(terms: Option<GestaltTerms>) -> Result<PreparedTerms, GestaltError> {
        let accepted = match terms {
            None => None,
            Some(terms) => {
                let secret = terms.key.derive()?;
                let key = DecodingKey::from_secret(&secret);
                Some(Arc::new(Accepted { terms, secret, key }))
            }
        };
        Ok(PreparedTerms(accepted))
    }

    /// The second half: they hold.
    pub fn switch(&self, PreparedTerms(accepted): PreparedTerms) {
        let before = self.accepted.load_full();
        let same = match (&before, &accepted) {
            (Some(before), Some(after)) => {
                before.terms == after.terms && bool::from(before.secret.ct_eq(&after.secret))
            }
            (before, after) => before.is_none() && after.is_none(),
        };
        if same {
            return;
        }
        self.index.takes_foreign(accepted.is_some());
        self.accepted.store(accepted.clone());
        self.known.end_others(accepted.as_ref());
    }

    /// Whose token is this? Whatever is wrong with it is one refusal; there may also be no room for one more.
    pub(super) fn identify(
        &self,
        presented: &Presented<'_>,
        audience: Audience,
        source: IpAddr,
        now: SystemTime,
    ) -> Result<Identity, Denial> {
        let accepted = self.accepted.load_full();
        let accepted = accepted.ok_or(Denial::CredentialInvalid)?;
        let hash: Hash = Sha256::digest(presented.text()).into();
        let known = match self.known.find(&hash) {
            Some(known) => known,
            None => {
                let claims = claims::verify(&accepted.key, presented.text())
                    .ok_or(Denial::CredentialInvalid)?;
                // Judged before anything is made of it.
                if !claims.are_good(audience, now) {
                    return Err(Denial::CredentialInvalid);
                }
                self.make(&accepted, claims, hash, now)?
            }
        };
        if !known.claims.are_good(audience, now) || self.is_revoked(&known) {
            return Err(Denial::CredentialInvalid);
        }
        if let Some(whole) = &known.whole {
            let live = self.index.session(whole.key());
            // Another generation is another session: what was made of the token is made anew.
            let Some(live) = live.filter(|live| Arc::ptr_eq(&live.session, whole)) else {
                self.known.remove(&hash, &known);
                return match self.index.session(whole.key()) {
                    Some(_) => self.identify(presented, audience, source, now),
                    None => Err(Denial::CredentialInvalid),
                };
            };
            if live.session.has_ended(now) {
                return Err(Denial::CredentialInvalid);
            }
            if live.key.is_some() && live.key != presented.proved() {
                return Err(stolen(live.session.key()));
            }
            if !live.accepts(source) {
                return Err(Denial::SourceNotAllowed);
            }
        }
        known.session.touch(now);
        Ok(Identity {
            session: known.session.clone(),
            bound: Some(known.bound.clone()),
            // What was made of the token ends with it.
            bearer: None,
        })
    }

    fn is_revoked(&self, known: &Known) -> bool {
        let namespace = &known.session.key().namespace;
        self.index.is_revoked(namespace, &known.claims.jti)
    }

    /// The session as this token sees it.
    ///
    /// # Errors
    /// `CredentialInvalid` where it names none that lives, and otherwise as [`Kept::keep`].
    fn make(
        &self,
        accepted: &Arc<Accepted>,
        claims: Claims,
        hash: Hash,
        now: SystemTime,
    ) -> Result<Arc<Known>, Denial> {
        let known = self.made(accepted, claims);
        let known = Arc::new(known.ok_or(Denial::CredentialInvalid)?);
        // Terms are changed first, and then what is kept is ended.
        let stands = || {
            let now = self.accepted.load();
            now.as_ref().is_some_and(|now| Arc::ptr_eq(now, accepted))
        };
        let tie = |known: &Known| self.index.tie(&known.claims.jti, &known.session);
        let known = self.known.keep(hash, known, now, (stands, tie))?;
        let Known {
            claims, session, ..
        } = &*known;
        self.index.saw(&session.key().namespace, &claims.jti);
        tracing::info!(
            session = %session.key().id,
            app = claims.app.as_deref().unwrap_or_default(),
            audience = claims.audience(),
            jti = %claims.jti,
            "a token of gestaltd is accepted"
        );
        Ok(known)
    }

    fn made(&self, accepted: &Arc<Accepted>, claims: Claims) -> Option<Known> {
        let terms = &accepted.terms;
        let bound = services(terms, &claims)?;
        let grant = Arc::new(policy(terms, &claims, &bound));
        let key = SessionKey {
            namespace: terms.namespace.as_str().into(),
            provider: terms.provider.as_str().into(),
            id: claims.session_id.as_deref().unwrap_or(&claims.jti).into(),
        };
        let id = self.narrowings.fetch_add(1, Ordering::Relaxed);
        let whole = match terms.check {
            SessionCheck::Registry => {
                claims.session_id.as_ref()?;
                let live = self.index.session(&key)?;
                // Before the session came to be, or its last generation ended: it was for another.
                if !claims.is_since(live.since) {
                    return None;
                }
                Some(live.session.clone())
            }
            SessionCheck::TrustToken => None,
        };
        let session = match &whole {
            Some(whole) => whole.narrowed(id, grant),
            None => Arc::new(Session::new(
                key,
                0,
                Arc::new(PolicyGeneration {
                    number: 0,
                    grant,
                    narrowed: id,
                }),
                Some((self.budget)(&terms.namespace)),
            )),
        };
        Some(Known {
            accepted: accepted.clone(),
            claims,
            session,
            whole,
            bound: bound.into(),
        })
    }

    /// How many places are taken by what is open now by tokens that are sessions themselves, of each that has such.
    pub fn open_now(&self) -> Vec<u64> {
        let own = self.known.own();
        let open = own.iter().map(|known| known.session.budget().open_now());
        open.filter(|open| *open > 0).collect()
    }

    /// Whatever is open by tokens that are sessions themselves looks again whether it still may be. (What is open by the others is
    /// woken with their session.)
    pub fn everything_looks_again(&self) {
        for known in self.known.own() {
            known.session.look_again();
        }
    }

    /// End what is over: tokens that are sessions themselves take what is open with them.
    pub fn sweep(&self, now: SystemTime) {
        self.known.sweep(now);
    }
}

/// What of the operator's services the token is for; nothing, where it is for egress. `None`: it cannot be read.
fn services(terms: &GestaltTerms, claims: &Claims) -> Option<Vec<ServiceBound>> {
    let Some((service, method_prefix)) = claims.service()? else {
        return Some(Vec::new());
    };
    let binding = claims.binding();
    let named = terms.services.keys().filter(|name| {
        let bound = name.binding().map(key::as_variable);
        name.base() == service && (binding.is_none() || bound.as_deref() == binding)
    });
    let bounds = named.map(|name| ServiceBound {
        name: name.clone(),
        method_prefix: Some(method_prefix.clone()),
        direction: Direction::In,
    });
    Some(bounds.collect())
}

/// The token's own policy within the ceiling; nothing for one that is not for egress.
fn policy(terms: &GestaltTerms, claims: &Claims, bound: &[ServiceBound]) -> Grant {
    let (hosts, action) = match claims.policy() {
        Some((hosts, None)) if hosts.is_empty() && terms.legacy_default_allow => {
            (hosts, Some(Action::Allow))
        }
        Some(policy) => policy,
        None => (&[][..], Some(Action::Deny)),
    };
    let services = terms
        .services
        .iter()
        .filter(|(name, _)| bound.iter().any(|one| one.name == **name))
        .map(|(name, service)| (name.clone(), service.clone()))
        .collect();
    import_gestalt_claims(hosts, action).within(&terms.ceiling, &services)
}

#[cfg(test)]
mod tests;
