//! Signed tokens: JWT (RFC 7519) with EdDSA (RFC 8037), minted and verified by one table of claims.
//!
//! The checks are our own, with `now` as a parameter: the crate's validation takes array audiences, fractional times
//! and unknown `crit`, and does not insist on `iat` and `jti`.

use std::time::{Duration, SystemTime};

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::{Deserialize, Serialize};
use sluicegate_certs::Thumbprint;
use sluicegate_policy::{Direction, MethodPrefix, ServiceBound, ServiceName};

use super::{Audience, gestalt, keys::Keys};
use crate::{clock::unix_seconds, secret::Secret, session::SessionKey};

/// Who issues our tokens.
const ISSUER: &str = "sluicegate";
/// Clocks of two replicas may differ by this much.
pub(super) const LEEWAY: Duration = Duration::from_secs(5);
/// Random bytes of a token's id.
const ID: usize = 16;
/// No token of ours comes near; a longer text is not worth decoding.
pub(super) const MAX_LENGTH: usize = 8 * 1024;

/// Why a token is not one of ours. Only for records: every one of these is the same answer on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    /// Not three base64url parts of JSON with the claims required, each of its type.
    #[error("malformed token")]
    Malformed,
    /// `alg` is not EdDSA, or the header asks for extensions (`crit`, RFC 7515 §4.1.11).
    #[error("the header asks for what is not supported")]
    UnsupportedHeader,
    /// `kid` is missing or names no key of ours.
    #[error("unknown key")]
    UnknownKey,
    /// The signature does not match.
    #[error("the signature does not match")]
    Signature,
    /// For somebody else.
    #[error("another issuer or audience")]
    Audience,
    /// Over.
    #[error("expired")]
    Expired,
    /// Not yet.
    #[error("not valid yet")]
    NotYet,
}

/// Why no token was minted.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// No key signs.
    #[error("no signing key")]
    NoKey,
    /// No randomness.
    #[error("the system gives no randomness")]
    Randomness(#[from] getrandom::Error),
    /// The claims are not JSON, or signing failed.
    #[error("signing failed")]
    Signing,
}

/// One entry of the claim `svc`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceClaim {
    /// The service.
    pub name: String,
    /// Only paths under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method_prefix: Option<String>,
    /// `in` (default) or `out`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<String>,
}

impl ServiceClaim {
    fn bound(&self) -> Option<ServiceBound> {
        let method_prefix = match &self.method_prefix {
            None => None,
            Some(text) => Some(MethodPrefix::parse(text)?),
        };
        let direction = match self.direction.as_deref() {
            None | Some("in") => Direction::In,
            Some("out") => Direction::Out,
            Some(_) => return None,
        };
        Some(ServiceBound {
            name: ServiceName::parse(&self.name).ok()?,
            method_prefix,
            direction,
        })
    }
}

/// The claims, all of one type each: a string where an integer belongs is no token.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// Issuer.
    pub iss: String,
    /// Audience; never a list.
    pub aud: String,
    /// `ns/prv/sid`.
    pub sub: String,
    /// Token id. That of a token made by refreshing begins with its line's: see [`line_of`].
    pub jti: String,
    /// Issued, seconds.
    pub iat: u64,
    /// Not before, seconds.
    pub nbf: u64,
    /// Expires, seconds.
    pub exp: u64,
    /// Namespace.
    pub ns: String,
    /// Provider.
    pub prv: String,
    /// Session id.
    pub sid: String,
    /// Generation.
    pub r#gen: u64,
    /// Upper bound on services; absent = the live grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub svc: Option<Vec<ServiceClaim>>,
    /// Whose key presents it (RFC 7800); absent = anybody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Confirmation>,
    /// The id of the first token of its line, which it descends from by refreshing: revoking one of a line revokes all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fam: Option<String>,
    /// When its session came to be, in microseconds: one that is created later under the same id, and counts its generations
    /// from one again, is another.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub born: u64,
    /// Seconds the generation had been paused when this was minted. What it is paused from then on, this lives longer.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pau: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What a token is to be.
#[derive(Debug)]
pub struct Mint<'a> {
    /// For whom.
    pub audience: Audience,
    /// Whose.
    pub session: &'a SessionKey,
    /// Of which generation.
    pub generation: u64,
    /// When its session came to be, in microseconds.
    pub born: u64,
    /// Its own bound on services; absent = the live grant.
    pub services: Option<Vec<ServiceClaim>>,
    /// Whoever holds this key may present it; absent = anybody.
    pub key: Option<Thumbprint>,
    /// The id of the first token of the line it descends from.
    pub family: Option<String>,
    /// How long the generation has been paused until now.
    pub paused: Duration,
    /// Its end, pauses aside.
    pub expires: SystemTime,
}

/// The claim `cnf`: one method, and one that is understood. A token that asks for another is no token of ours.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// The key's thumbprint (RFC 9449 §6.1).
    pub jkt: String,
}

impl Claims {
    /// Whose session.
    pub fn session(&self) -> SessionKey {
        SessionKey {
            namespace: self.ns.as_str().into(),
            provider: self.prv.as_str().into(),
            id: self.sid.as_str().into(),
        }
    }

    /// The id of the first token of its line: its own where it was not made by refreshing.
    pub fn line(&self) -> &str {
        self.fam.as_deref().unwrap_or(&self.jti)
    }

    /// The bound on services, typed.
    ///
    /// # Errors
    /// [`TokenError::Malformed`] where an entry is not readable: a bound that is not understood is not dropped.
    pub fn bound(&self) -> Result<Option<Vec<ServiceBound>>, TokenError> {
        let Some(entries) = &self.svc else {
            return Ok(None);
        };
        entries
            .iter()
            .map(ServiceClaim::bound)
            .collect::<Option<Vec<_>>>()
            .map(Some)
            .ok_or(TokenError::Malformed)
    }
}

/// Mint a token, valid from `now`.
///
/// # Errors
/// No key, no randomness, or the signing failed.
pub fn mint(keys: &Keys, asked: Mint<'_>, now: SystemTime) -> Result<Secret, MintError> {
    let (kid, signing) = keys.signing().ok_or(MintError::NoKey)?;
    let mut id = [0; ID];
    getrandom::fill(&mut id)?;
    let id = BASE64URL_NOPAD.encode(&id);
    let owner = asked.session;
    let claims = Claims {
        iss: ISSUER.into(),
        aud: asked.audience.as_str().into(),
        sub: format!("{}/{}/{}", owner.namespace, owner.provider, owner.id),
        // Nobody writes down what is refreshed: an id alone must lead to its line, on any replica and after any restart.
        jti: match &asked.family {
            Some(line) => format!("{line}.{id}"),
            None => id,
        },
        iat: unix_seconds(now),
        nbf: unix_seconds(now),
        exp: unix_seconds(asked.expires),
        ns: owner.namespace.to_string(),
        prv: owner.provider.to_string(),
        sid: owner.id.to_string(),
        r#gen: asked.generation,
        svc: asked.services,
        cnf: asked.key.map(|key| Confirmation {
            jkt: key.to_string(),
        }),
        fam: asked.family,
        born: asked.born,
        pau: asked.paused.as_secs(),
    };
    let header = serde_json::json!({ "alg": "EdDSA", "typ": "JWT", "kid": &*kid }).to_string();
    let body = serde_json::to_vec(&claims).map_err(|_| MintError::Signing)?;
    let message = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(header.as_bytes()),
        BASE64URL_NOPAD.encode(&body)
    );
    let signature = crypto::sign(message.as_bytes(), &signing.encoding, Algorithm::EdDSA)
        .map_err(|_| MintError::Signing)?;
    Ok(Secret::new(format!("{message}.{signature}")))
}

/// What we read of a JOSE header; members that would change how it is to be read are refused, not ignored.
#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    kid: Option<String>,
    crit: Option<serde_json::Value>,
    b64: Option<serde_json::Value>,
    enc: Option<serde_json::Value>,
    zip: Option<serde_json::Value>,
}

impl Header {
    /// Does it ask for what changes the reading of the rest?
    pub(super) fn is_extended(&self) -> bool {
        self.crit.is_some() || self.b64.is_some() || self.enc.is_some() || self.zip.is_some()
    }
}

/// A token whose signature and shape are good; its times and audience are judged at each use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Signed {
    pub(super) claims: Claims,
    pub(super) kid: String,
}

/// Signature and shape, no times: what stays true of these bytes for as long as the key is ours.
pub(super) fn verify_signature(keys: &Keys, token: &str) -> Result<Signed, TokenError> {
    if token.len() > MAX_LENGTH {
        return Err(TokenError::Malformed);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, claims) = message.split_once('.').ok_or(TokenError::Malformed)?;
    let header: Header = part(header)?;
    if header.alg != "EdDSA" || header.is_extended() {
        return Err(TokenError::UnsupportedHeader);
    }
    let kid = header.kid.ok_or(TokenError::UnknownKey)?;
    let key = keys.verifying(&kid).ok_or(TokenError::UnknownKey)?;
    signed_by(&key.decoding, message, signature)?;
    let claims: Claims = part(claims)?;
    if claims.iss != ISSUER || claims.jti.is_empty() {
        return Err(TokenError::Audience);
    }
    claims.bound()?;
    Ok(Signed { claims, kid })
}

/// A JWS by this Ed25519 key (RFC 8037 §3.1).
fn signed_by(key: &DecodingKey, message: &str, signature: &str) -> Result<(), TokenError> {
    // Strict base64url: one signature has one spelling.
    BASE64URL_NOPAD
        .decode(signature.as_bytes())
        .map_err(|_| TokenError::Malformed)?;
    let valid = crypto::verify(signature, message.as_bytes(), key, Algorithm::EdDSA);
    if valid.unwrap_or(false) {
        Ok(())
    } else {
        Err(TokenError::Signature)
    }
}

/// One of a token's parts.
pub(super) fn part<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, TokenError> {
    let bytes = BASE64URL_NOPAD
        .decode(text.as_bytes())
        .map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)
}

/// Audience and times, of a token whose generation has been paused for so long all in all, and which may have ended so long
/// ago.
pub(super) fn judge(
    claims: &Claims,
    audience: Audience,
    now: SystemTime,
    paused: Duration,
    late: Duration,
) -> Result<(), TokenError> {
    if claims.aud != audience.as_str() {
        return Err(TokenError::Audience);
    }
    let (now, leeway) = (unix_seconds(now), LEEWAY.as_secs());
    let more = paused.as_secs().saturating_sub(claims.pau) + late.as_secs();
    if now >= claims.exp.saturating_add(leeway).saturating_add(more) {
        return Err(TokenError::Expired);
    }
    if now.saturating_add(leeway) < claims.nbf.max(claims.iat) {
        return Err(TokenError::NotYet);
    }
    Ok(())
}

/// Verify a token whole.
///
/// # Errors
/// The first fact that is against it. A verified token is not authority: its generation may be dead.
pub fn verify(
    keys: &Keys,
    token: &str,
    audience: Audience,
    now: SystemTime,
) -> Result<Claims, TokenError> {
    let signed = verify_signature(keys, token)?;
    judge(
        &signed.claims,
        audience,
        now,
        Duration::ZERO,
        Duration::ZERO,
    )?;
    Ok(signed.claims)
}

/// Whose session one of our tokens is of, whatever its audience and times.
pub fn token_session(keys: &Keys, text: &str) -> Option<SessionKey> {
    Some(verify_signature(keys, text).ok()?.claims.session())
}

/// What somebody names in order to revoke it.
#[derive(Debug)]
pub enum Named {
    /// One of our tokens, whatever its audience, expired or not.
    Own(Box<Claims>),
    /// What reads like a token of gestaltd, whoever signed it.
    Gestalt {
        /// Its id.
        id: String,
        /// When it expires, in seconds.
        expires: u64,
    },
    /// A text that could be the id of a token, and says no more than that.
    Id(String),
    /// The same where ids are of others' making, and may be any word.
    Foreign(String),
}

/// The token that a text is, or that it could be the id of.
pub fn token_named(keys: &Keys, text: &str) -> Option<Named> {
    if let Ok(Signed { claims, .. }) = verify_signature(keys, text) {
        return Some(Named::Own(Box::new(claims)));
    }
    if let Some((id, expires)) = gestalt::token_id(text) {
        return Some(Named::Gestalt { id, expires });
    }
    let own = text.split('.').count() <= 2 && text.split('.').all(is_id);
    (own || gestalt::is_token_id(text)).then(|| Named::Id(text.to_owned()))
}

/// What could be the id of a token of gestaltd: any word can. What has a handle of ours in it is a secret that was badly pasted,
/// and no id: an id is written down in the clear.
pub fn foreign_named(text: &str) -> Option<Named> {
    let id = gestalt::is_word(text) && !text.contains(super::handle::PREFIX);
    id.then(|| Named::Foreign(text.to_owned()))
}

/// The id of the first token of the line in which a token of ours has this id.
pub fn line_of(id: &str) -> &str {
    id.split_once('.').map_or(id, |(line, _)| line)
}

fn is_id(text: &str) -> bool {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes());
    bytes.is_ok_and(|bytes| bytes.len() == ID)
}

#[cfg(test)]
mod tests;
