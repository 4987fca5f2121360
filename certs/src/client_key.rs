//! A key that is made in a sandbox and never leaves it, and the proof that whoever shows a credential holds that key.
//!
//! The proof is a JWS (RFC 7515) with the public key in its header, as DPoP has it (RFC 9449 §4.2). Instead of a time and a
//! nonce it signs what only the two ends of one TLS connection know (RFC 9266): on any other connection it proves nothing.

use std::{fmt, fs, path::Path, str::FromStr};

use aws_lc_rs::{
    digest,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use data_encoding::BASE64URL_NOPAD;
use rustls::{ConnectionCommon, ProtocolVersion};
use serde::{Deserialize, Serialize};

use crate::{CertError, files};

/// Stands between a credential and its proof. Bearer tokens may hold it (RFC 6750 §2.1), ours never do.
const BEHIND: char = '~';
/// A proof has about 400 characters.
const PROOF_MAX: usize = 1024;
const PEM_TAG: &str = "PRIVATE KEY";

/// What a key is known by: the SHA-256 of its JWK (RFC 7638, RFC 8037 §2), as in the claim `cnf` (RFC 7800, RFC 9449 §6.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Thumbprint([u8; 32]);

/// Not a thumbprint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not the base64url of a SHA-256")]
pub struct ThumbprintError;

/// What only the two ends of one TLS 1.3 connection know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Channel([u8; 32]);

/// A client's key.
pub struct ClientKey(Ed25519KeyPair);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    jwk: Jwk,
    typ: String,
}

/// Members in the order of RFC 7638 §3.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Jwk {
    crv: String,
    kty: String,
    x: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    /// SHA-256 of the credential (RFC 9449 §4.2).
    ath: String,
    /// The channel.
    cb: String,
}

const ALG: &str = "EdDSA";
const TYP: &str = "sluicegate-key+jwt";

impl Jwk {
    fn of(public: &[u8]) -> Self {
        Self {
            crv: "Ed25519".into(),
            kty: "OKP".into(),
            x: BASE64URL_NOPAD.encode(public),
        }
    }

    fn thumbprint(&self) -> Thumbprint {
        let Self { crv, kty, x } = self;
        Thumbprint::of(&format!(r#"{{"crv":"{crv}","kty":"{kty}","x":"{x}"}}"#))
    }

    /// The key's bytes; `None` for any other kind of key.
    fn public(&self) -> Option<Vec<u8>> {
        let ours = self.crv == "Ed25519" && self.kty == "OKP";
        let bytes = BASE64URL_NOPAD.decode(self.x.as_bytes()).ok()?;
        (ours && bytes.len() == 32).then_some(bytes)
    }
}

impl Thumbprint {
    fn of(jwk: &str) -> Self {
        Self(sha256(jwk))
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Thumbprint {
    type Err = ThumbprintError;

    fn from_str(text: &str) -> Result<Self, ThumbprintError> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(ThumbprintError)
    }
}

impl Channel {
    /// Of a connection whose handshake is done; `None` for one before TLS 1.3, where others could have the same.
    pub fn of<D>(connection: &ConnectionCommon<D>) -> Option<Self> {
        if connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return None;
        }
        let bytes = connection.export_keying_material([0; 32], Self::LABEL, None);
        bytes.ok().map(Self)
    }

    /// The label of what is exported (RFC 9266 §4.1); there is no context.
    pub const LABEL: &[u8] = b"EXPORTER-Channel-Binding";

    /// Exported by something else than rustls itself, under [`Channel::LABEL`].
    pub const fn exported(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// It is nobody else's.
impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Channel(***)")
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientKey({})", self.thumbprint())
    }
}

impl ClientKey {
    /// The key in this file, which is made where there is none.
    ///
    /// # Errors
    /// As [`ClientKey::load`]; where it is to be made, the file cannot be written.
    pub fn load_or_create(path: &Path) -> Result<Self, CertError> {
        if !path.exists() {
            let pair = Ed25519KeyPair::generate().map_err(|_| CertError::NoRandomness)?;
            let der = pair.to_pkcs8().map_err(|_| CertError::NoKey)?;
            let pem = pem::encode(&pem::Pem::new(PEM_TAG, der.as_ref()));
            files::write_atomically(path, pem.as_bytes(), 0o600)?;
        }
        Self::load(path)
    }

    /// The key in this file: PEM, PKCS #8, the owner's alone.
    ///
    /// # Errors
    /// The file, its mode, or what it holds.
    pub fn load(path: &Path) -> Result<Self, CertError> {
        files::refuse_exposed(path)?;
        let text = fs::read(path).map_err(|source| CertError::Read {
            path: path.to_owned(),
            source,
        })?;
        let pem = pem::parse(text).map_err(|error| CertError::Pem(error.to_string()))?;
        if pem.tag() != PEM_TAG {
            return Err(CertError::NoKey);
        }
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(pem.contents())
            .map(Self)
            .map_err(|_| CertError::NotEd25519)
    }

    fn jwk(&self) -> Jwk {
        Jwk::of(self.0.public_key().as_ref())
    }

    /// What it is known by.
    pub fn thumbprint(&self) -> Thumbprint {
        self.jwk().thumbprint()
    }

    /// This credential with the proof for this connection behind it.
    pub fn present(&self, credential: &str, channel: &Channel) -> String {
        let header = Header {
            alg: ALG.into(),
            jwk: self.jwk(),
            typ: TYP.into(),
        };
        let claims = Claims {
            ath: BASE64URL_NOPAD.encode(&sha256(credential)),
            cb: BASE64URL_NOPAD.encode(&channel.0),
        };
        let message = format!("{}.{}", part(&header), part(&claims));
        let signature = BASE64URL_NOPAD.encode(self.0.sign(message.as_bytes()).as_ref());
        format!("{credential}{BEHIND}{message}.{signature}")
    }
}

/// A credential as presented, and the proof behind it, if there is one.
pub fn split_proof(presented: &str) -> (&str, Option<&str>) {
    match presented.split_once(BEHIND) {
        Some((credential, proof)) => (credential, Some(proof)),
        None => (presented, None),
    }
}

/// The key that whoever presented this credential with this proof on this connection holds. `None`: it proves nothing.
pub fn proven(credential: &str, proof: &str, channel: &Channel) -> Option<Thumbprint> {
    if proof.len() > PROOF_MAX {
        return None;
    }
    let (message, signature) = proof.rsplit_once('.')?;
    let (header, claims) = message.split_once('.')?;
    let header: Header = read(header)?;
    let claims: Claims = read(claims)?;
    if header.alg != ALG || header.typ != TYP {
        return None;
    }
    let of_this_connection = BASE64URL_NOPAD.encode(&channel.0) == claims.cb;
    let of_this_credential = BASE64URL_NOPAD.encode(&sha256(credential)) == claims.ath;
    let public = header.jwk.public()?;
    let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?;
    let key = UnparsedPublicKey::new(&ED25519, public);
    key.verify(message.as_bytes(), &signature).ok()?;
    (of_this_connection && of_this_credential).then(|| header.jwk.thumbprint())
}

fn sha256(text: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    bytes.copy_from_slice(hash.as_ref());
    bytes
}

fn part(value: &impl Serialize) -> String {
    // Structs of strings: there is nothing that could fail.
    BASE64URL_NOPAD.encode(&serde_json::to_vec(value).unwrap_or_default())
}

fn read<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_slice(&BASE64URL_NOPAD.decode(text.as_bytes()).ok()?).ok()
}

#[cfg(test)]
mod tests;
