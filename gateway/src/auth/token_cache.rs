//! Verified tokens, remembered by hash: a repeat costs no signature. Bounded; times and lives are judged anew each time.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use sha2::{Digest, Sha256};
use sluicegate_policy::ServiceBound;

use super::{
    keys::Keys,
    token::{Claims, TokenError, verify_signature},
};
use crate::session::{Credential, SessionKey};

/// Entries per half; when the young half is full it becomes the old one.
const HALF: usize = 4096;

/// What a token says.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) claims: Claims,
    pub(super) session: SessionKey,
    pub(super) bound: Option<Arc<[ServiceBound]>>,
    pub(super) credential: Credential,
    kid: String,
}

type Entries = HashMap<[u8; 32], Arc<Verified>>;

#[derive(Debug, Default)]
struct Halves {
    young: Entries,
    old: Entries,
}

/// The cache. Only good tokens enter it, so that nobody can fill it with rubbish.
#[derive(Debug, Default)]
pub(super) struct TokenCache(RwLock<Halves>);

impl TokenCache {
    /// Signature and shape of `token`, from memory where it was seen before; `first` is told where it was not.
    pub(super) fn verified(
        &self,
        keys: &Keys,
        token: &str,
        first: impl FnOnce(&Verified),
    ) -> Result<Arc<Verified>, TokenError> {
        let hash: [u8; 32] = Sha256::digest(token).into();
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
        self.keep(hash, verified.clone());
        first(&verified);
        Ok(verified)
    }

    fn look_up(&self, hash: &[u8; 32]) -> Option<Arc<Verified>> {
        let halves = self.0.read().unwrap_or_else(PoisonError::into_inner);
        halves
            .young
            .get(hash)
            .or_else(|| halves.old.get(hash))
            .cloned()
    }

    fn keep(&self, hash: [u8; 32], verified: Arc<Verified>) {
        let mut halves = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if halves.young.len() >= HALF {
            halves.old = std::mem::take(&mut halves.young);
        }
        halves.young.insert(hash, verified);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let halves = self.0.read().unwrap_or_else(PoisonError::into_inner);
        halves.young.len() + halves.old.len()
    }
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
    use crate::auth::{
        Audience,
        token::{Mint, mint},
    };

    #[test]
    fn only_good_tokens_are_kept_and_never_more_than_two_halves() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::load_or_create(dir.path()).unwrap();
        let cache = TokenCache::default();
        assert!(cache.verified(&keys, "not.a.token", |_| {}).is_err());
        assert_eq!(cache.len(), 0);
        let session = SessionKey {
            namespace: "n".into(),
            provider: "p".into(),
            id: "i".into(),
        };
        let now = SystemTime::now();
        for _ in 0..2 {
            let token = mint(
                &keys,
                Mint {
                    audience: Audience::Relay,
                    session: &session,
                    generation: 1,
                    born: 0,
                    services: None,
                    key: None,
                    family: None,
                    paused: Duration::ZERO,
                    expires: now + Duration::from_secs(9),
                },
                now,
            )
            .unwrap();
            let first = cache.verified(&keys, token.reveal(), |_| {}).unwrap();
            assert!(Arc::ptr_eq(
                &first,
                &cache.verified(&keys, token.reveal(), |_| {}).unwrap()
            ));
        }
        let verified = cache
            .look_up(cache.0.read().unwrap().young.keys().next().unwrap())
            .unwrap();
        for n in 0..3 * HALF as u64 {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_le_bytes());
            cache.keep(hash, verified.clone());
        }
        assert!(cache.len() <= 2 * HALF);
    }
}
