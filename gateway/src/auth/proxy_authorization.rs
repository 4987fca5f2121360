//! `Proxy-Authorization` and `Authorization` values to the credential in them (RFC 9110 §11, RFC 7617), and SOCKS5's user name
//! and password (RFC 1929).

use data_encoding::{BASE64, BASE64_NOPAD};
use sluicegate_policy::Denial;

use crate::secret::Secret;

/// Longer than any credential of ours, shorter than any head.
const MAX_LENGTH: usize = 16 * 1024;

/// The values of a field that holds a credential: one is good, and how many there are beyond two does not matter.
#[derive(Clone, Copy, Default)]
pub struct Values<'a>([Option<&'a [u8]>; 2]);

impl<'a> Values<'a> {
    /// One more.
    pub fn push(&mut self, value: &'a [u8]) {
        if let Some(place) = self.0.iter_mut().find(|place| place.is_none()) {
            *place = Some(value);
        }
    }

    /// None, the one, or two of them.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.0.into_iter().flatten()
    }
}

impl<'a> FromIterator<&'a [u8]> for Values<'a> {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(values: I) -> Self {
        let mut all = Self::default();
        values.into_iter().for_each(|value| all.push(value));
        all
    }
}

/// The credential of a classic proxy request: Basic password (any user name) or Bearer.
///
/// # Errors
/// `CredentialMissing` without a field, `MalformedRequest` with more than one (vector 103), `CredentialInvalid` where it cannot be read.
pub fn proxy_credential<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<Secret, Denial> {
    credential(values)
}

/// The credential of `Authorization: Bearer …` (Basic password too), same errors.
///
/// # Errors
/// As [`proxy_credential`].
pub fn bearer<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<Secret, Denial> {
    credential(values)
}

fn credential<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Result<Secret, Denial> {
    let value = values.next().ok_or(Denial::CredentialMissing)?;
    if values.next().is_some() {
        return Err(Denial::MalformedRequest);
    }
    read(value).ok_or(Denial::CredentialInvalid)
}

/// The credential of a SOCKS5 client: the password, whatever the user name; where the password is empty, the user name, for
/// programs that have one field only.
///
/// # Errors
/// `CredentialMissing` where both are empty, `CredentialInvalid` where it cannot be read.
pub fn socks_credential(name: &[u8], password: &[u8]) -> Result<Secret, Denial> {
    let given = if password.is_empty() { name } else { password };
    if given.is_empty() {
        return Err(Denial::CredentialMissing);
    }
    let text = str::from_utf8(given).map_err(|_| Denial::CredentialInvalid)?;
    readable(text.to_owned()).ok_or(Denial::CredentialInvalid)
}

/// `credentials = auth-scheme 1*SP token68` (RFC 9110 §11.4); the scheme's case does not matter.
fn read(value: &[u8]) -> Option<Secret> {
    if value.len() > MAX_LENGTH {
        return None;
    }
    let text = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
    let (scheme, rest) = text.split_once(' ')?;
    let rest = rest.trim_start_matches(' ');
    let secret = if scheme.eq_ignore_ascii_case("basic") {
        basic_password(rest)?
    } else if scheme.eq_ignore_ascii_case("bearer") {
        rest.to_owned()
    } else {
        return None;
    };
    readable(secret)
}

/// Handles and tokens are graphic ASCII: anything else is not one of ours, and must not reach a log either.
fn readable(secret: String) -> Option<Secret> {
    let readable = !secret.is_empty() && secret.bytes().all(|b| b.is_ascii_graphic());
    readable.then(|| Secret::new(secret))
}

/// RFC 7617 §2: base64 of `user-id ":" password`; the user-id holds no colon, the password may. Padding may be missing:
/// some clients leave it out, and it cannot change the meaning.
fn basic_password(token68: &str) -> Option<String> {
    let bytes = token68.as_bytes();
    let decoded = BASE64
        .decode(bytes)
        .or_else(|_| BASE64_NOPAD.decode(bytes))
        .ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (_, password) = text.split_once(':')?;
    Some(password.to_owned())
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

    fn one(value: &str) -> Result<String, Denial> {
        proxy_credential(std::iter::once(value.as_bytes())).map(|s| s.reveal().to_owned())
    }

    fn basic(user_and_password: &[u8]) -> String {
        format!("Basic {}", BASE64.encode(user_and_password))
    }

    #[test]
    fn credentials_are_read() {
        let cases: &[(&str, String, &str)] = &[
            ("basic", basic(b"sluicegate:sgh_x"), "sgh_x"),
            ("no user name", basic(b":sgh_x"), "sgh_x"),
            ("colon in the password", basic(b"u:a:b"), "a:b"),
            (
                "scheme in capitals",
                basic(b"u:p").replace("Basic", "BASIC"),
                "p",
            ),
            (
                "scheme in lower case",
                basic(b"u:p").replace("Basic", "basic"),
                "p",
            ),
            (
                "padding left out",
                basic(b"user:p").trim_end_matches('=').into(),
                "p",
            ),
            ("user name in UTF-8", basic("ü:p".as_bytes()), "p"),
            ("bearer", "Bearer a.b.c".into(), "a.b.c"),
            (
                "bearer in lower case, more spaces",
                "bearer   a.b.c ".into(),
                "a.b.c",
            ),
        ];
        for (name, value, expected) in cases {
            assert_eq!(one(value).as_deref(), Ok(*expected), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_invalid() {
        let cases: &[(&str, String)] = &[
            ("basic without colon", basic(b"sgh_x")),
            ("bad base64", "Basic ***".into()),
            ("base64url", "Basic dTpw_-__".into()),
            ("white space in base64", "Basic dTpw dTpw".into()),
            ("not UTF-8", basic(b"u:\xff\xfe")),
            ("empty password", basic(b"u:")),
            ("control character", basic(b"u:a\x00b")),
            ("line end", basic(b"u:a\r\nb")),
            ("space in bearer", "Bearer a b".into()),
            ("empty bearer", "Bearer ".into()),
            ("scheme only", "Basic".into()),
            ("no scheme", "sgh_x".into()),
            ("other scheme", "Digest username=\"u\"".into()),
            ("empty", String::new()),
            ("two in one field", "Bearer a, Bearer b".into()),
            ("endless", format!("Bearer {}", "a".repeat(MAX_LENGTH))),
        ];
        for (name, value) in cases {
            assert_eq!(one(value), Err(Denial::CredentialInvalid), "{name}");
        }
    }

    #[test]
    fn v103_two_fields_are_malformed_even_if_alike() {
        let value = basic(b"u:p");
        let both = [value.as_bytes(), value.as_bytes()];
        assert_eq!(
            proxy_credential(both.into_iter()).unwrap_err(),
            Denial::MalformedRequest
        );
        assert_eq!(
            bearer(both.into_iter()).unwrap_err(),
            Denial::MalformedRequest
        );
        let kept = |count| {
            let values: Values<'_> = std::iter::repeat_n(value.as_bytes(), count).collect();
            proxy_credential(values.iter()).map(drop)
        };
        assert_eq!(kept(0), Err(Denial::CredentialMissing));
        assert_eq!(kept(1), Ok(()));
        for count in 2..5 {
            assert_eq!(kept(count), Err(Denial::MalformedRequest), "{count}");
        }
    }

    #[test]
    fn socks_has_the_handle_in_either_field() {
        let read = |name: &[u8], password: &[u8]| {
            socks_credential(name, password).map(|secret| secret.reveal().to_owned())
        };
        assert_eq!(read(b"sluicegate", b"sgh_x").as_deref(), Ok("sgh_x"));
        assert_eq!(read(b"sgh_x", b"").as_deref(), Ok("sgh_x"));
        // A password that is there is the credential, and nothing else is tried.
        assert_eq!(read(b"sgh_x", b"other").as_deref(), Ok("other"));
        assert_eq!(read(b"", b""), Err(Denial::CredentialMissing));
        assert_eq!(read(b"u", b"a b"), Err(Denial::CredentialInvalid));
        assert_eq!(read(b"u", b"\xff"), Err(Denial::CredentialInvalid));
    }

    #[test]
    fn none_is_missing() {
        assert_eq!(
            proxy_credential(std::iter::empty()).unwrap_err(),
            Denial::CredentialMissing
        );
    }
}
