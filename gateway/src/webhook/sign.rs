//! The signature of a delivery: HMAC-SHA256 (RFC 2104) over time, URL and body.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};

use crate::secret::Secret;

/// `v1=` and the hexadecimal HMAC-SHA256 of `TIME LF URL LF BODY`: the seconds as sent, the URL as configured, the body as
/// sent. `None` where the crypto library refuses, which it does not.
pub fn signature(secret: &Secret, seconds: u64, url: &str, body: &str) -> Option<String> {
    let message = format!("{seconds}\n{url}\n{body}");
    let key = EncodingKey::from_secret(secret.reveal().as_bytes());
    let mac = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).ok()?;
    let mac = BASE64URL_NOPAD.decode(mac.as_bytes()).ok()?;
    Some(format!("v1={}", HEXLOWER.encode(&mac)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Computed by another implementation (Python's `hmac`).
    #[test]
    fn others_compute_the_same() {
        let ours = signature(
            &Secret::new("a-secret-of-16-b"),
            1_800_000_000,
            "https://a.test/h",
            "{}",
        );
        assert_eq!(
            ours.unwrap(),
            "v1=b45f8f730270f62d1bf813aa19cd31c92e3a2e1197ff5f11834c9dd735480222"
        );
    }
}
