//! The gateway's signing keys: several verify, one signs.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use jsonwebtoken::{DecodingKey, EncodingKey};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    private_file::{PrivateFileError, read_private, write_file},
    rotations::{Rotation, Rotations, Write},
};

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
    /// The variable that is to hold the signing key.
    #[error("the environment variable {0} holds no key")]
    Variable(String),
    /// Keys that come from elsewhere are rotated there.
    #[error(
        "the signing key is the configuration's own (keys): change it there, keep the old one in keys.verifyingKeyFiles, and reload"
    )]
    External,
    /// The key that signs is not taken away.
    #[error("{0:?} is the key that signs: rotate first")]
    Signing(String),
    /// No such key.
    #[error("there is no key {0:?}")]
    Unknown(String),
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

/// Where keys come from that are not the gateway's own to make.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExternalKeys {
    /// The one that signs.
    pub signing: ExternalKey,
    /// Files of keys that only verify: those that signed before.
    pub verifying: Vec<PathBuf>,
}

/// A key in PEM, kept by somebody else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ExternalKey {
    /// In a file of mode 0600.
    File(PathBuf),
    /// In an environment variable.
    Env(String),
}

#[derive(Debug)]
enum Source {
    Directory(PathBuf),
    External(ExternalKeys),
}

/// The keys in a directory: `<kid>.pem` (0600) each, and `signing`, which holds the kid of the one that signs.
#[derive(Debug)]
pub struct Keys {
    source: ArcSwap<Source>,
    set: ArcSwap<KeySet>,
    /// Held by whoever changes them.
    changing: Mutex<()>,
}

/// Keys that were read and are not used yet.
#[derive(Debug)]
pub struct NewKeys {
    source: Arc<Source>,
    set: Arc<KeySet>,
    /// What there was meanwhile.
    before: Arc<KeySet>,
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
            source: ArcSwap::from_pointee(Source::Directory(directory.into())),
            set: ArcSwap::from_pointee(set),
            changing: Mutex::default(),
        })
    }

    /// Keys that somebody else makes and keeps; their ids follow from their public parts.
    ///
    /// # Errors
    /// One is missing, readable by others, or no Ed25519 key.
    pub fn external(keys: ExternalKeys) -> Result<Self, KeyError> {
        let set = load_external(&keys)?;
        Ok(Self {
            source: ArcSwap::from_pointee(Source::External(keys)),
            set: ArcSwap::from_pointee(set),
            changing: Mutex::default(),
        })
    }

    /// Other external keys from now on.
    ///
    /// # Errors
    /// As [`Self::external`]; the keys in use stay.
    pub fn follow(&self, keys: ExternalKeys) -> Result<(), KeyError> {
        self.switch(self.read(Some(keys))?);
        Ok(())
    }

    /// The keys of this source, or of the one there is, not used yet.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn read(&self, external: Option<ExternalKeys>) -> Result<NewKeys, KeyError> {
        let before = self.set.load_full();
        let source = match external {
            Some(keys) => Arc::new(Source::External(keys)),
            None => self.source.load_full(),
        };
        let set = match &*source {
            Source::Directory(directory) => {
                load(directory)?.ok_or_else(|| KeyError::Malformed {
                    path: directory.clone(),
                })?
            }
            Source::External(keys) => load_external(keys)?,
        };
        let set = Arc::new(set);
        Ok(NewKeys {
            source,
            set,
            before,
        })
    }

    /// Use what was read, unless somebody has rotated or retired one of them since.
    pub fn switch(&self, new: NewKeys) {
        let _changing = self.changing();
        let same = Arc::ptr_eq(&self.source.load(), &new.source);
        if same && !Arc::ptr_eq(&self.set.load(), &new.before) {
            return;
        }
        self.store(new);
    }

    fn store(&self, new: NewKeys) {
        self.source.store(new.source);
        self.set.store(new.set);
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Generate a key that signs from now on; the old ones go on verifying. Returns its kid.
    ///
    /// # Errors
    /// The key cannot be made or written; the old one then goes on signing.
    pub fn rotate(&self) -> Result<String, KeyError> {
        self.rotate_for(None)
    }

    /// The same for a request that may come again: it makes one key, however often it comes. Returns the kid of the one that
    /// signs then.
    ///
    /// # Errors
    /// As [`Self::rotate`].
    pub fn rotate_for(&self, request: Option<&str>) -> Result<String, KeyError> {
        self.rotate_by(request, &write_private)
    }

    /// A crash between any two writes leaves what signed before, and a request that comes again goes on from there: it is
    /// remembered, then there is its key, then that key signs.
    fn rotate_by(&self, request: Option<&str>, write: Write<'_>) -> Result<String, KeyError> {
        let _changing = self.changing();
        let source = self.source.load();
        let Source::Directory(directory) = &**source else {
            return Err(KeyError::External);
        };
        let before = self.set.load().signing.to_string();
        // A file that nobody needs stops nobody.
        let done = match request {
            Some(request) => Some((request, Rotations::read(directory)?)),
            None => None,
        };
        let known = done.as_ref().and_then(|(request, done)| done.of(request));
        let known = known.cloned();
        let there = |kid: &str| read_private(&file_of(directory, kid));
        let kid = match known {
            // It was cut short before its key came to sign.
            Some(known) if known.before == before && there(&known.kid)?.is_some() => known.kid,
            Some(known) if known.before != before => return Ok(before),
            Some(_) | None => {
                let (kid, pem) = make()?;
                if let Some((request, done)) = done {
                    let rotation = Rotation {
                        request: request.into(),
                        kid: kid.clone(),
                        before,
                    };
                    done.add(rotation, write)?;
                }
                write(&file_of(directory, &kid), pem.as_bytes())?;
                kid
            }
        };
        sign_with(directory, &kid, write)?;
        self.store(self.read(None)?);
        Ok(kid)
    }

    /// Take a key away: what it signed is good no more, at once and for good. The one that signs stays.
    ///
    /// # Errors
    /// It signs, is not there, is not ours to take away, or its file cannot be removed.
    pub fn retire(&self, kid: &str) -> Result<(), KeyError> {
        let _changing = self.changing();
        let source = self.source.load();
        let Source::Directory(directory) = &**source else {
            return Err(KeyError::External);
        };
        let set = self.set.load();
        if *set.signing == *kid {
            return Err(KeyError::Signing(kid.into()));
        }
        // Only names that are known become paths.
        if !set.keys.contains_key(kid) {
            return Err(KeyError::Unknown(kid.into()));
        }
        let path = file_of(directory, kid);
        std::fs::remove_file(&path).map_err(|source| KeyError::Directory { path, source })?;
        self.store(self.read(None)?);
        Ok(())
    }

    /// Read the directory again: a key whose file is gone verifies no more.
    ///
    /// # Errors
    /// As [`Self::load_or_create`]; the keys in use stay.
    pub fn reload(&self) -> Result<(), KeyError> {
        let _changing = self.changing();
        self.store(self.read(None)?);
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
    let (kid, pem) = make()?;
    write_private(&file_of(directory, &kid), pem.as_bytes())?;
    // The name last: a crash before it leaves a key that only verifies.
    sign_with(directory, &kid, &write_private)?;
    Ok(kid)
}

/// A new key, its id and its PEM.
fn make() -> Result<(String, String), KeyError> {
    let pair = KeyPair::generate_for(&PKCS_ED25519).map_err(KeyError::Generate)?;
    Ok((kid_of(pair.der_bytes()), pair.serialize_pem()))
}

fn file_of(directory: &Path, kid: &str) -> PathBuf {
    directory.join(format!("{kid}.pem"))
}

fn sign_with(directory: &Path, kid: &str, write: Write<'_>) -> Result<(), PrivateFileError> {
    let name = format!("{kid}\n");
    write(&directory.join("signing"), name.as_bytes())
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), PrivateFileError> {
    write_file(path, bytes, 0o600)
}

/// A key's id follows from its public part.
fn kid_of(public: &[u8]) -> String {
    let digest = Sha256::digest(public);
    HEXLOWER.encode(digest.get(..8).unwrap_or(&digest))
}

fn load_external(keys: &ExternalKeys) -> Result<KeySet, KeyError> {
    let from_file = |path: &Path| {
        let missing = || PrivateFileError::Read {
            path: path.into(),
            source: std::io::ErrorKind::NotFound.into(),
        };
        let pem = read_private(path)?.ok_or_else(missing)?;
        parse(&pem, path)
    };
    let signing = match &keys.signing {
        ExternalKey::File(path) => from_file(path)?,
        ExternalKey::Env(name) => {
            let missing = |_| KeyError::Variable(name.clone());
            parse(&std::env::var(name).map_err(missing)?, Path::new(name))
                .map_err(|_| KeyError::Variable(name.clone()))?
        }
    };
    let kid: Arc<str> = kid_of(&signing.public).into();
    let mut all = BTreeMap::from([(kid.clone(), Arc::new(signing))]);
    for path in &keys.verifying {
        let key = from_file(path)?;
        all.entry(kid_of(&key.public).into())
            .or_insert_with(|| Arc::new(key));
    }
    Ok(KeySet {
        signing: kid,
        keys: all,
    })
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
mod tests;
