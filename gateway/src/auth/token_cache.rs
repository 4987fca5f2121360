//! Verified tokens, remembered by hash: a repeat costs no signature. Bounded; times and lives are judged anew each time, and
//! what is withdrawn by itself is forgotten at once.
//!
//! In parts, each with a lock of its own.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockWriteGuard},
};

use sha2::{Digest, Sha256};
use sluicegate_policy::ServiceBound;

use super::{
    keys::Keys,
    token::{Claims, TokenError, verify_signature},
};
use crate::session::{Credential, Index, Remembers, SessionKey};

const PARTS: usize = 16;
/// Entries per half of a part; when the young half is full it becomes the old one.
const HALF: usize = 4096 / PARTS;

/// What a token says.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) claims: Claims,
    pub(super) session: SessionKey,
    pub(super) bound: Option<Arc<[ServiceBound]>>,
    pub(super) credential: Credential,
    kid: String,
}

/// A token's SHA-256.
type Hash = [u8; 32];
type Entries = HashMap<Hash, Arc<Verified>>;

#[derive(Debug, Default)]
struct Halves {
    young: Entries,
    old: Entries,
}

/// The cache. Only good tokens enter it, so that nobody can fill it with rubbish.
#[derive(Debug, Default)]
pub(super) struct TokenCache([RwLock<Halves>; PARTS]);

impl TokenCache {
    /// Signature and shape of `token`, from memory where it was seen before; where it was not, `index` is told.
    pub(super) fn verified(
        &self,
        keys: &Keys,
        index: &Index,
        token: &str,
    ) -> Result<Arc<Verified>, TokenError> {
        let hash: Hash = Sha256::digest(token).into();
        if let Some(found) = self.look_up(&hash) {
            // A key taken away takes its tokens along.
            return if keys.verifying(&found.kid).is_some() {
                Ok(found)
            } else {
                Err(TokenError::UnknownKey)
            };
        }
        let signed = verify_signature(keys, token)?;
        let bound = signed.claims.bound()?.map(Arc::from);
        let session = signed.claims.session();
        let credential = Credential::Token {
            namespace: session.namespace.clone(),
            id: signed.claims.jti.as_str().into(),
            family: signed.claims.fam.as_deref().map(Into::into),
            key: signed.kid.as_str().into(),
        };
        let verified = Arc::new(Verified {
            claims: signed.claims,
            session,
            bound,
            credential,
            kid: signed.kid,
        });
        self.keep(hash, &verified, index);
        index.saw(&verified.session.namespace, verified.claims.line());
        Ok(verified)
    }

    fn look_up(&self, hash: &Hash) -> Option<Arc<Verified>> {
        let halves = self.part(hash).read();
        let halves = halves.unwrap_or_else(PoisonError::into_inner);
        let found = halves.young.get(hash).or_else(|| halves.old.get(hash));
        found.cloned()
    }

    fn keep(&self, hash: Hash, verified: &Arc<Verified>, index: &Index) {
        let mut halves = write(self.part(&hash));
        // Under the lock: who withdraws it from now on comes by afterwards and forgets it.
        if index.is_withdrawn(&verified.credential) {
            return;
        }
        if halves.young.len() >= HALF {
            halves.old = std::mem::take(&mut halves.young);
        }
        halves.young.insert(hash, verified.clone());
    }

    fn part(&self, hash: &Hash) -> &RwLock<Halves> {
        // In range: the remainder.
        #[allow(clippy::indexing_slicing)]
        &self.0[usize::from(hash[0]) % PARTS]
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let parts = self.0.iter().map(write);
        parts
            .map(|halves| halves.young.len() + halves.old.len())
            .sum()
    }
}

impl Remembers for TokenCache {
    fn forget_withdrawn(&self, index: &Index) {
        for part in &self.0 {
            let mut halves = write(part);
            let Halves { young, old } = &mut *halves;
            for half in [young, old] {
                half.retain(|_, verified| !index.is_withdrawn(&verified.credential));
            }
        }
    }
}

fn write(part: &RwLock<Halves>) -> RwLockWriteGuard<'_, Halves> {
    part.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )]
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{
        auth::{
            Audience,
            token::{Mint, mint},
        },
        secret::Secret,
    };

    #[test]
    fn only_good_tokens_are_kept_and_never_more_than_two_halves() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::load_or_create(dir.path()).unwrap();
        let (cache, index) = (TokenCache::default(), Index::default());
        assert!(cache.verified(&keys, &index, "not.a.token").is_err());
        assert_eq!(cache.len(), 0);
        let now = SystemTime::now();
        let token = minted(&keys, None, now);
        let first = cache.verified(&keys, &index, token.reveal()).unwrap();
        let again = cache.verified(&keys, &index, token.reveal()).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        for n in 0..3 * (HALF * PARTS) as u64 {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_le_bytes());
            cache.keep(hash, &first, &index);
        }
        assert!(cache.len() <= 2 * HALF * PARTS);
    }

    #[test]
    fn what_is_withdrawn_is_forgotten_and_does_not_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::load_or_create(dir.path()).unwrap();
        let (cache, index) = (Arc::new(TokenCache::default()), Index::default());
        let cached = Arc::downgrade(&cache);
        index.remembered_by(cached);
        let now = SystemTime::now();
        let line = |family: &str| minted(&keys, Some(family.into()), now);
        let tokens = [line("one"), line("one"), line("other")];
        let verify = || {
            for token in &tokens {
                cache.verified(&keys, &index, token.reveal()).unwrap();
            }
            cache.len()
        };
        assert_eq!(verify(), 3);
        index.revoke("one".into(), None);
        assert_eq!(cache.len(), 1, "none of its line");
        assert_eq!(verify(), 1, "it is verified, and not kept");
        let (kid, _) = keys.signing().unwrap();
        index.keys_changed(vec![kid.to_string()], Vec::new);
        assert_eq!(cache.len(), 0);
    }

    fn minted(keys: &Keys, family: Option<String>, now: SystemTime) -> Secret {
        let session = SessionKey {
            namespace: "n".into(),
            provider: "p".into(),
            id: "i".into(),
        };
        let asked = Mint {
            audience: Audience::Relay,
            session: &session,
            generation: 1,
            born: 0,
            services: None,
            key: None,
            family,
            paused: Duration::ZERO,
            expires: now + Duration::from_secs(9),
        };
        mint(keys, asked, now).unwrap()
    }
}
