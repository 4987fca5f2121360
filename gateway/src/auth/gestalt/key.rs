//! gestaltd's key: 64 hexadecimal characters as they are, anything else by Argon2id (RFC 9106).

use std::{io, path::PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use data_encoding::HEXLOWER_PERMISSIVE;

use crate::auth::private_file::{PrivateFileError, read_private};

/// What gestaltd derives with: 3 passes over 64 MiB in 4 lanes, and one salt for everybody.
const SALT: &[u8] = b"gestalt-derivekey-v1";
const PASSES: u32 = 3;
const KIBIBYTES: u32 = 64 * 1024;
const LANES: u32 = 4;

/// Where the key is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GestaltKey {
    /// In a file of mode 0600.
    File(PathBuf),
    /// In an environment variable.
    Env(String),
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum GestaltError {
    /// The file.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// Nothing stands where the key should.
    #[error("{0} holds no key")]
    Empty(String),
    /// The derivation failed, which takes a machine without memory.
    #[error("the key of gestaltd cannot be derived: {0}")]
    Derive(String),
}

impl GestaltKey {
    /// The 32 bytes that sign. Takes 64 MiB and a good part of a second where they are derived.
    pub(super) fn derive(&self) -> Result<[u8; 32], GestaltError> {
        let (place, text) = match self {
            Self::File(path) => {
                let missing = || PrivateFileError::Read {
                    path: path.clone(),
                    source: io::ErrorKind::NotFound.into(),
                };
                let text = read_private(path)?.ok_or_else(missing)?;
                (path.display().to_string(), text)
            }
            Self::Env(name) => {
                let place = format!("the environment variable {name}");
                (place, std::env::var(name).unwrap_or_default())
            }
        };
        match text.trim() {
            "" => Err(GestaltError::Empty(place)),
            text => derive(text),
        }
    }
}

fn derive(text: &str) -> Result<[u8; 32], GestaltError> {
    let raw = HEXLOWER_PERMISSIVE.decode(text.as_bytes());
    if let Some(raw) = raw.ok().and_then(|bytes| bytes.try_into().ok()) {
        return Ok(raw);
    }
    let failed = |error: argon2::Error| GestaltError::Derive(error.to_string());
    let params = Params::new(KIBIBYTES, PASSES, LANES, Some(32)).map_err(failed)?;
    let mut key = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(text.as_bytes(), SALT, &mut key)
        .map_err(failed)?;
    Ok(key)
}

/// A binding as gestaltd spells it in the names of variables: `main-db` is `MAIN_DB`.
pub(super) fn as_variable(binding: &str) -> String {
    let letter = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    binding.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use data_encoding::HEXLOWER;

    use super::*;
    use crate::auth::write_file;

    #[test]
    fn sixty_four_hexadecimal_characters_are_the_key_itself() {
        let text = "00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff";
        assert_eq!(HEXLOWER.encode(&derive(text).unwrap()), text.to_lowercase());
    }

    /// Computed by another implementation (argon2-cffi: `hash_secret_raw(b"correct horse", b"gestalt-derivekey-v1", 3, 65536, 4, 32, Type.ID)`).
    #[test]
    fn anything_else_is_derived_as_others_derive_it() {
        assert_eq!(
            HEXLOWER.encode(&derive("correct horse").unwrap()),
            "7e616c9da55daedcb5c81ebd244699e6f125e13017ce283714682fb3307706db"
        );
    }

    #[test]
    fn a_file_others_read_and_an_empty_one_are_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let key = GestaltKey::File(path.clone());
        assert!(matches!(key.derive(), Err(GestaltError::File(_))));
        write_file(&path, b" \n", 0o600).unwrap();
        assert!(matches!(key.derive(), Err(GestaltError::Empty(_))));
        let hex = "11".repeat(32);
        write_file(&path, format!("{hex}\n").as_bytes(), 0o644).unwrap();
        assert!(matches!(
            key.derive(),
            Err(GestaltError::File(PrivateFileError::Exposed { .. }))
        ));
        write_file(&path, format!("{hex}\n").as_bytes(), 0o600).unwrap();
        assert_eq!(key.derive().unwrap(), [0x11; 32]);
        let nowhere = GestaltKey::Env("SLUICEGATE_TEST_NO_SUCH_KEY".into());
        assert!(matches!(nowhere.derive(), Err(GestaltError::Empty(_))));
    }

    #[test]
    fn bindings_as_variables_spell_them() {
        assert_eq!(as_variable("main-db.2"), "MAIN_DB_2");
    }
}
