//! The gateway's signing keys: several verify, one signs.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use arc_swap::ArcSwap;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use jsonwebtoken::{DecodingKey, EncodingKey};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::private_file::{PrivateFileError, read_private, write_file};

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A key file.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The directory.
    #[error("cannot use the key directory {path}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What a file holds.
    #[error("{path} holds no Ed25519 private key in PEM (PKCS#8)")]
    Malformed {
        /// Which.
        path: PathBuf,
    },
    /// The file that names the signing key names one that is not there.
    #[error("{directory}/signing names the key {kid:?}, which is not there")]
    SigningKeyMissing {
        /// Where.
        directory: PathBuf,
        /// Which.
        kid: String,
    },
    /// A key could not be made.
    #[error("cannot generate an Ed25519 key")]
    Generate(#[source] rcgen::Error),
}

/// One key.
pub(super) struct Key {
    pub(super) encoding: EncodingKey,
    pub(super) decoding: DecodingKey,
    public: Vec<u8>,
    created: Option<SystemTime>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(***)")
    }
}

#[derive(Debug)]
struct KeySet {
    signing: Arc<str>,
    keys: BTreeMap<Arc<str>, Arc<Key>>,
}

/// What may be told of a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyInfo {
    /// Key id.
    pub kid: String,
    /// The one that signs; the others only verify.
    pub signing: bool,
    /// When its file was written.
    pub created: Option<String>,
}

/// The keys in a directory: `<kid>.pem` (0600) each, and `signing`, which holds the kid of the one that signs.
#[derive(Debug)]
pub struct Keys {
    directory: PathBuf,
    set: ArcSwap<KeySet>,
}

impl Keys {
    /// Load the keys; generate the first.
    ///
    /// # Errors
    /// The directory cannot be used, a key is malformed or readable by others.
    pub fn load_or_create(directory: &Path) -> Result<Self, KeyError> {
        let unusable = |source| KeyError::Directory {
            path: directory.into(),
            source,
        };
        fs::create_dir_all(directory).map_err(unusable)?;
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(unusable)?;
        }
        let set = match load(directory)? {
            Some(set) => set,
            None => {
                generate(directory)?;
                load(directory)?.ok_or_else(|| KeyError::Malformed {
                    path: directory.into(),
                })?
            }
        };
        Ok(Self {
            directory: directory.into(),
            set: ArcSwap::from_pointee(set),
        })
    }

    /// Generate a key that signs from now on; the old ones go on verifying. Returns its kid.
    ///
    /// # Errors
    /// The key cannot be made or written; the old one then goes on signing.
    pub fn rotate(&self) -> Result<String, KeyError> {
        let kid = generate(&self.directory)?;
        self.reload()?;
        Ok(kid)
    }

    /// Read the directory again: a key whose file is gone verifies no more.
    ///
    /// # Errors
    /// As [`Self::load_or_create`]; the keys in use stay.
    pub fn reload(&self) -> Result<(), KeyError> {
        let set = load(&self.directory)?.ok_or_else(|| KeyError::Malformed {
            path: self.directory.clone(),
        })?;
        self.set.store(Arc::new(set));
        Ok(())
    }

    /// What there is, without secrets.
    pub fn list(&self) -> Vec<KeyInfo> {
        let set = self.set.load();
        let info = |(kid, key): (&Arc<str>, &Arc<Key>)| KeyInfo {
            kid: kid.to_string(),
            signing: *kid == set.signing,
            created: key.created.map(crate::clock::rfc3339),
        };
        set.keys.iter().map(info).collect()
    }

    /// The published JWKS document (RFC 7517 §5, RFC 8037 §2).
    pub fn jwks(&self) -> String {
        let set = self.set.load();
        let key = |(kid, key): (&Arc<str>, &Arc<Key>)| {
            serde_json::json!({
                "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA",
                "kid": &**kid, "x": BASE64URL_NOPAD.encode(&key.public),
            })
        };
        serde_json::json!({ "keys": set.keys.iter().map(key).collect::<Vec<_>>() }).to_string()
    }

    pub(super) fn signing(&self) -> Option<(Arc<str>, Arc<Key>)> {
        let set = self.set.load();
        Some((set.signing.clone(), set.keys.get(&set.signing)?.clone()))
    }

    pub(super) fn verifying(&self, kid: &str) -> Option<Arc<Key>> {
        self.set.load().keys.get(kid).cloned()
    }
}

fn generate(directory: &Path) -> Result<String, KeyError> {
    let pair = KeyPair::generate_for(&PKCS_ED25519).map_err(KeyError::Generate)?;
    let digest = Sha256::digest(pair.der_bytes());
    let kid = HEXLOWER.encode(digest.get(..8).unwrap_or(&digest));
    write_file(
        &directory.join(format!("{kid}.pem")),
        pair.serialize_pem().as_bytes(),
        0o600,
    )?;
    // The name last: a crash before it leaves a key that only verifies.
    write_file(
        &directory.join("signing"),
        format!("{kid}\n").as_bytes(),
        0o600,
    )?;
    Ok(kid)
}

fn load(directory: &Path) -> Result<Option<KeySet>, KeyError> {
    let unusable = |source| KeyError::Directory {
        path: directory.into(),
        source,
    };
    let mut keys = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(unusable)? {
        let path = entry.map_err(unusable)?.path();
        let (Some(kid), Some("pem")) = (
            path.file_stem().and_then(|s| s.to_str()),
            path.extension().and_then(|e| e.to_str()),
        ) else {
            continue;
        };
        if let Some(pem) = read_private(&path)? {
            keys.insert(Arc::from(kid), Arc::new(parse(&pem, &path)?));
        }
    }
    let Some(signing) = read_private(&directory.join("signing"))? else {
        return Ok(None);
    };
    let signing: Arc<str> = signing.trim().into();
    if !keys.contains_key(&signing) {
        return Err(KeyError::SigningKeyMissing {
            directory: directory.into(),
            kid: signing.to_string(),
        });
    }
    Ok(Some(KeySet { signing, keys }))
}

fn parse(pem: &str, path: &Path) -> Result<Key, KeyError> {
    let malformed = || KeyError::Malformed { path: path.into() };
    let pair = KeyPair::from_pem_and_sign_algo(pem, &PKCS_ED25519).map_err(|_| malformed())?;
    let public = pair.public_key_raw().to_vec();
    Ok(Key {
        encoding: EncodingKey::from_ed_der(pair.serialized_der()),
        decoding: DecodingKey::from_ed_der(&public),
        public,
        created: fs::metadata(path).and_then(|m| m.modified()).ok(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )]
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn the_first_start_makes_a_key_and_the_second_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let first = Keys::load_or_create(&path).unwrap();
        let second = Keys::load_or_create(&path).unwrap();
        assert_eq!(first.list(), second.list());
        assert_eq!(first.list().len(), 1);
        for entry in fs::read_dir(&path).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn rotation_changes_who_signs_and_keeps_who_verifies() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::load_or_create(dir.path()).unwrap();
        let old = keys.list()[0].kid.clone();
        let new = keys.rotate().unwrap();
        assert_ne!(old, new);
        assert_eq!(&*keys.signing().unwrap().0, new);
        assert!(keys.verifying(&old).is_some());
        let jwks: serde_json::Value = serde_json::from_str(&keys.jwks()).unwrap();
        assert_eq!(jwks["keys"].as_array().unwrap().len(), 2);
        assert!(
            !keys.jwks().contains("\"d\""),
            "no private part is published"
        );

        fs::remove_file(dir.path().join(format!("{old}.pem"))).unwrap();
        keys.reload().unwrap();
        assert!(keys.verifying(&old).is_none());
    }

    #[test]
    fn a_key_that_others_read_or_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::load_or_create(dir.path()).unwrap();
        let path = dir.path().join(format!("{}.pem", keys.list()[0].kid));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            keys.reload(),
            Err(KeyError::File(PrivateFileError::Exposed { .. }))
        ));
        write_file(&path, b"nonsense", 0o600).unwrap();
        assert!(matches!(keys.reload(), Err(KeyError::Malformed { .. })));
        assert_eq!(keys.list().len(), 1, "the keys in use stay");
    }
}
