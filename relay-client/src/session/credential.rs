//! The credential streams are opened with. It may be replaced while the session goes on: streams that are open keep what
//! they were opened with, and nothing of theirs ends with it.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Deserialize;
use tokio::sync::watch;

/// Cheap to clone; clones see the same replacements.
#[derive(Clone)]
pub struct Credential {
    current: Arc<watch::Sender<Arc<str>>>,
    file: Option<PathBuf>,
}

/// Without the secret.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl From<&str> for Credential {
    fn from(text: &str) -> Self {
        Self::new(text, None)
    }
}

impl Credential {
    /// This one; `file` is where it was read from, and where whoever runs the sandbox may put another.
    pub fn new(text: &str, file: Option<PathBuf>) -> Self {
        Self {
            current: Arc::new(watch::Sender::new(text.into())),
            file,
        }
    }

    /// As it is now.
    pub fn now(&self) -> Arc<str> {
        self.current.borrow().clone()
    }

    pub(super) fn replace(&self, text: &str) {
        self.current.send_replace(text.into());
    }

    /// Look into its file: has somebody put another one there?
    pub(crate) fn reread(&self) -> bool {
        let Some(text) = self
            .file
            .as_ref()
            .and_then(|f| std::fs::read_to_string(f).ok())
        else {
            return false;
        };
        let text = text.trim();
        let other = !text.is_empty() && *text != *self.now();
        if other {
            self.replace(text);
        }
        other
    }

    /// When it is to be replaced; `None` for one that has no end.
    pub fn ends(&self) -> Option<Ends> {
        Ends::of(&self.now())
    }
}

/// What a signed token says of its own life. It is not verified here: the gateway does that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// The claim `exp`.
    pub at: SystemTime,
    /// From `iat` to `exp`.
    pub life: Duration,
}

#[derive(Deserialize)]
struct Claims {
    iat: u64,
    exp: u64,
    cnf: Option<Confirmation>,
}

#[derive(Deserialize)]
struct Confirmation {
    jkt: String,
}

/// The thumbprint of the key a signed token says it is bound to (RFC 7800, RFC 9449 §6.1). As unverified as [`Ends`].
pub fn bound_to(token: &str) -> Option<String> {
    Some(Claims::of(token)?.cnf?.jkt)
}

impl Claims {
    fn of(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (Some(_), Some(claims), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let json = data_encoding::BASE64URL_NOPAD
            .decode(claims.as_bytes())
            .ok()?;
        serde_json::from_slice(&json).ok()
    }
}

impl Ends {
    /// From a signed token; `None` for anything else.
    pub fn of(token: &str) -> Option<Self> {
        let claims = Claims::of(token)?;
        Some(Self {
            at: UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp))?,
            life: Duration::from_secs(claims.exp.checked_sub(claims.iat)?),
        })
    }

    /// How much is left of it. A clock that is behind does not make it longer.
    pub fn left(&self, now: SystemTime) -> Duration {
        let left = self.at.duration_since(now).unwrap_or_default();
        left.min(self.life)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Credential, Ends};
    use std::time::{Duration, UNIX_EPOCH};

    fn token(claims: &str) -> String {
        let claims = data_encoding::BASE64URL_NOPAD.encode(claims.as_bytes());
        format!("e30.{claims}.c2ln")
    }

    #[test]
    fn a_token_says_when_it_ends_and_a_handle_does_not() {
        let ends = Ends::of(&token(r#"{"iat":100,"exp":160,"x":1}"#)).unwrap();
        let at = |secs| UNIX_EPOCH + Duration::from_secs(secs);
        assert_eq!(ends.left(at(130)), Duration::from_secs(30));
        assert_eq!(ends.left(at(0)), Duration::from_secs(60), "a clock behind");
        assert_eq!(ends.left(at(500)), Duration::ZERO);
        for none in [
            "sgh_abcdef",
            "a.b",
            "a.b.c",
            &token(r#"{"exp":160}"#),
            &token(r#"{"iat":9,"exp":1}"#),
            &token(r#"{"iat":"9","exp":10}"#),
        ] {
            assert_eq!(Ends::of(none), None, "{none}");
        }
    }

    #[test]
    fn another_one_in_the_file_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let credential = Credential::new("one", Some(file.path().into()));
        assert!(!credential.reread(), "an empty file is none");
        std::fs::write(file.path(), "one\n").unwrap();
        assert!(!credential.reread());
        std::fs::write(file.path(), "two\n").unwrap();
        assert!(credential.reread());
        assert_eq!(&*credential.now(), "two");
        assert!(!format!("{credential:?}").contains("two"));
    }
}
