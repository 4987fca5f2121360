//! One token of gestaltd: HS256, one audience, and the claims its minter always writes.

use std::time::{Duration, SystemTime};

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::Deserialize;
use sluicegate_policy::{Action, MethodPrefix};

use crate::{
    auth::{
        Audience,
        token::{Header, LEEWAY, MAX_LENGTH, part},
    },
    clock::unix_seconds,
};

const ISSUER: &str = "gestaltd";
const RELAY: &str = "gestalt-host-service-relay";
const EGRESS: &str = "gestalt-egress-proxy";
/// gestaltd mints none that lives longer.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneAudience {
    Text(String),
    /// As Go's library writes it.
    List([String; 1]),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Allow,
    Deny,
}

/// What is read of the claims, all of one type each.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    iss: String,
    aud: OneAudience,
    /// Token id.
    pub(super) jti: String,
    iat: u64,
    nbf: u64,
    exp: u64,
    /// Which app; `plugin` in older versions.
    #[serde(alias = "plugin")]
    pub(super) app: Option<String>,
    /// Whose session.
    pub(super) session_id: Option<String>,
    service: Option<String>,
    env_var: Option<String>,
    method_prefix: Option<String>,
    #[serde(default)]
    allowed_hosts: Option<Vec<String>>,
    default_action: Option<Word>,
}

/// Signature and shape; times and audience are judged at each use.
pub(super) fn verify(key: &DecodingKey, token: &str) -> Option<Claims> {
    if token.len() > MAX_LENGTH {
        return None;
    }
    let (message, signature) = token.rsplit_once('.')?;
    let (header, claims) = message.split_once('.')?;
    let header: Header = part(header).ok()?;
    if header.alg != "HS256" || header.is_extended() {
        return None;
    }
    if !is_signed(key, message, signature) {
        return None;
    }
    let claims: Claims = part(claims).ok()?;
    let lives = claims.exp.checked_sub(claims.iat)?;
    let named = |text: &Option<String>| text.as_ref().is_none_or(|text| is_word(text));
    let good = claims.iss == ISSUER
        && is_word(&claims.jti)
        && named(&claims.session_id)
        && lives <= LONGEST.as_secs();
    good.then_some(claims)
}

/// A JWS by this secret (RFC 7515, RFC 7518 §3.2).
fn is_signed(key: &DecodingKey, message: &str, signature: &str) -> bool {
    // Strict base64url: one signature has one spelling.
    if BASE64URL_NOPAD.decode(signature.as_bytes()).is_err() {
        return false;
    }
    let valid = crypto::verify(signature, message.as_bytes(), key, Algorithm::HS256);
    valid.unwrap_or(false)
}

/// Goes into records and answers: graphic, and not long.
pub(in crate::auth) fn is_word(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

impl Claims {
    /// As written.
    pub(super) fn audience(&self) -> &str {
        match &self.aud {
            OneAudience::Text(text) => text,
            OneAudience::List([text]) => text,
        }
    }

    /// Is it for this, and in its time?
    pub(super) fn are_good(&self, audience: Audience, now: SystemTime) -> bool {
        let wanted = match audience {
            Audience::Relay => RELAY,
            Audience::Egress => EGRESS,
            Audience::Admin => return false,
        };
        let begun = unix_seconds(now).saturating_add(LEEWAY.as_secs()) >= self.nbf.max(self.iat);
        self.audience() == wanted && begun && !self.is_over(now)
    }

    /// Was it issued at this moment or after it? It says so to the second: one of the second in which the moment lies may
    /// be older, and counts as that.
    pub(super) fn is_since(&self, moment: SystemTime) -> bool {
        let since = moment.duration_since(SystemTime::UNIX_EPOCH);
        let begun = since.is_ok_and(|since| since.subsec_nanos() > 0);
        self.iat >= unix_seconds(moment) + u64::from(begun)
    }

    /// Has it expired?
    pub(super) fn is_over(&self, now: SystemTime) -> bool {
        unix_seconds(now) >= self.exp.saturating_add(LEEWAY.as_secs())
    }

    /// The service it is for, and the methods; `Some(None)` where it is for egress, `None` where it cannot be read. Its
    /// minter writes both, always.
    pub(super) fn service(&self) -> Option<Option<(&str, MethodPrefix)>> {
        if self.audience() != RELAY {
            return Some(None);
        }
        let (service, prefix) = (self.service.as_deref()?, self.method_prefix.as_deref()?);
        Some(Some((service, MethodPrefix::parse(prefix)?)))
    }

    /// The binding in the variable that older versions name: `GESTALT_CACHE_SOCKET_MAIN` is for `MAIN`.
    pub(super) fn binding(&self) -> Option<&str> {
        let (_, binding) = self.env_var.as_deref()?.split_once("_SOCKET_")?;
        (!binding.is_empty()).then_some(binding)
    }

    /// Hosts and action of a token for egress.
    pub(super) fn policy(&self) -> Option<(&[String], Option<Action>)> {
        let action = self.default_action.map(|word| match word {
            Word::Allow => Action::Allow,
            Word::Deny => Action::Deny,
        });
        let hosts = self.allowed_hosts.as_deref().unwrap_or_default();
        (self.audience() == EGRESS).then_some((hosts, action))
    }
}

/// Id and expiry of a text that reads like one of these tokens, for its revocation: whoever signed it.
pub(in crate::auth) fn token_id(text: &str) -> Option<(String, u64)> {
    #[derive(Deserialize)]
    struct Read {
        iss: String,
        jti: String,
        exp: u64,
    }
    let mut parts = text.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    let read: Read = part(claims).ok()?;
    (read.iss == ISSUER && is_word(&read.jti)).then_some((read.jti, read.exp))
}

/// Could the text be such a token's id? (A UUID, RFC 9562 §4.)
pub(in crate::auth) fn is_token_id(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::is_signed;
    use data_encoding::BASE64URL_NOPAD;
    use jsonwebtoken::DecodingKey;

    #[test]
    fn the_signature_of_rfc_7520_is_good_and_no_other() {
        // §4.4, with the key of §3.5.
        let key = BASE64URL_NOPAD
            .decode(b"hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg")
            .unwrap();
        let key = DecodingKey::from_secret(&key);
        let message = [
            "eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9.",
            "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAg",
            "b250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dp",
            "bmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4",
        ]
        .concat();
        let signature = "s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0";
        assert!(is_signed(&key, &message, signature));
        assert!(!is_signed(&key, &message, &signature.replacen('s', "t", 1)));
        assert!(!is_signed(&key, &format!("{message}Zw"), signature));
        assert!(!is_signed(&key, &message, &format!("{signature}=")));
        assert!(!is_signed(&key, &message, ""));
    }
}
