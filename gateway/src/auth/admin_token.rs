//! The credential of the admin API.

use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::private_file::{PrivateFileError, read_private, write_file};
use crate::secret::Secret;

/// Why there is no admin token.
#[derive(Debug, thiserror::Error)]
pub enum AdminTokenError {
    /// Its file.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// No randomness.
    #[error("the system gives no randomness")]
    Randomness(#[from] getrandom::Error),
    /// The configuration names it.
    #[error("there is no token file {0}")]
    Missing(PathBuf),
    /// Its content.
    #[error(
        "{0} holds no admin token of at least 16 characters; delete the file to have one generated"
    )]
    Malformed(PathBuf),
}

/// The admin token, kept in a file of mode 0600.
#[derive(Clone, Debug)]
pub struct AdminToken {
    secret: Secret,
    path: PathBuf,
}

impl AdminToken {
    /// Read the token, or generate one (`sga_` and 32 random bytes).
    ///
    /// # Errors
    /// The file cannot be read or written, others can read it, or it holds no token.
    pub fn load_or_create(path: &Path) -> Result<Self, AdminTokenError> {
        if let Some(token) = Self::load(path)? {
            return Ok(token);
        }
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        let text = format!("sga_{}", BASE64URL_NOPAD.encode(&random));
        write_file(path, format!("{text}\n").as_bytes(), 0o600)?;
        Ok(Self {
            secret: Secret::new(text),
            path: path.into(),
        })
    }

    /// Read the token; `None` where there is no such file.
    ///
    /// # Errors
    /// As [`Self::load_or_create`].
    pub fn load(path: &Path) -> Result<Option<Self>, AdminTokenError> {
        let Some(text) = read_private(path)? else {
            return Ok(None);
        };
        let text = text.trim();
        if text.len() < 16 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(AdminTokenError::Malformed(path.into()));
        }
        Ok(Some(Self {
            secret: Secret::new(text),
            path: path.into(),
        }))
    }

    /// Where it is kept.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The token itself, for the client's side.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Is this it? Digests are compared, so that not even the length shows in the time taken.
    pub fn matches(&self, presented: &str) -> bool {
        let (ours, theirs) = (
            Sha256::digest(self.secret.reveal()),
            Sha256::digest(presented),
        );
        ours.as_slice().ct_eq(theirs.as_slice()).into()
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
    fn a_token_is_generated_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.token");
        let made = AdminToken::load_or_create(&path).unwrap();
        let found = AdminToken::load_or_create(&path).unwrap();
        assert!(found.matches(made.secret().reveal()));
        assert!(!found.matches(&made.secret().reveal()[1..]));
        assert!(!found.matches(""));
        assert!(!format!("{found:?}").contains(made.secret().reveal()));
    }

    #[test]
    fn an_empty_file_is_not_a_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.token");
        write_file(&path, b"\n", 0o600).unwrap();
        assert!(matches!(
            AdminToken::load_or_create(&path),
            Err(AdminTokenError::Malformed(_))
        ));
    }
}
