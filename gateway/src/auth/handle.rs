//! Handles: opaque credentials for proxy URLs, kept only as their hash.

use std::fmt;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use sha2::{Digest, Sha256};

use crate::secret::Secret;

/// Tells a handle from a signed token at a glance.
pub(super) const PREFIX: &str = "sgh_";
/// Prefix and 32 bytes in base64url.
const LENGTH: usize = PREFIX.len() + 43;

/// SHA-256 of a handle: 256 random bits need no salt and no slow hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandleHash([u8; 32]);

impl HandleHash {
    /// Characters of a presented handle.
    pub const LENGTH: usize = LENGTH;

    /// The hash of a presented text; `None` where it has not the form of a handle.
    pub fn of(presented: &str) -> Option<Self> {
        let well_formed = presented.len() == LENGTH && presented.starts_with(PREFIX);
        well_formed.then(|| Self(Sha256::digest(presented).into()))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// For the durable record.
    pub fn to_hex(self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// From the durable record.
    pub fn from_hex(text: &str) -> Option<Self> {
        HEXLOWER
            .decode(text.as_bytes())
            .ok()?
            .try_into()
            .ok()
            .map(Self)
    }
}

impl fmt::Debug for HandleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandleHash({:.8})", self.to_hex())
    }
}

/// A fresh handle and what is stored of it.
#[derive(Clone, Debug)]
pub struct Handle {
    /// What the client presents. Shown once.
    pub secret: Secret,
    /// What is kept.
    pub hash: HandleHash,
}

impl Handle {
    /// `sgh_` and 32 random bytes in base64url: 47 characters, safe in a URL's userinfo.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        let text = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&random));
        let hash = HandleHash(Sha256::digest(&text).into());
        Ok(Self {
            secret: Secret::new(text),
            hash,
        })
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
    use super::*;

    #[test]
    fn a_handle_hashes_to_what_was_stored() {
        let handle = Handle::generate().unwrap();
        assert_eq!(HandleHash::of(handle.secret.reveal()), Some(handle.hash));
        assert_eq!(
            HandleHash::from_hex(&handle.hash.to_hex()),
            Some(handle.hash)
        );
        assert!(handle.secret.reveal().len() <= 128);
        assert_ne!(Handle::generate().unwrap().hash, handle.hash);
    }

    #[test]
    fn what_is_not_a_handle_has_no_hash() {
        let handle = Handle::generate().unwrap();
        let text = handle.secret.reveal();
        assert_eq!(HandleHash::of(&text[..46]), None);
        assert_eq!(HandleHash::of(&format!("{text}A")), None);
        assert_eq!(HandleHash::of(&text.replace("sgh_", "xxx_")), None);
    }
}
