//! The credential streams are opened with. It may be replaced while the session goes on: streams that are open keep what
//! they were opened with, and nothing of theirs ends with it.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Deserialize;
use tokio::sync::watch;

/// A file is looked at this often: has somebody written to it?
const LOOK: Duration = Duration::from_secs(1);

/// Cheap to clone; clones see the same replacements.
#[derive(Clone)]
pub struct Credential {
    current: Arc<watch::Sender<Arc<str>>>,
    file: Option<Arc<TokenFile>>,
}

/// Where it was read from.
#[derive(Debug)]
struct TokenFile {
    path: PathBuf,
    read: Mutex<Read>,
}

/// What was found there last. It is not the credential at hand, which may have been refreshed since.
struct Read {
    text: Arc<str>,
    stamp: Option<Stamp>,
}

/// What changes when a file is written to, or another is put in its place.
type Stamp = (u64, u64, u64, i64, i64);

/// Without the secret.
impl std::fmt::Debug for Read {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Read").finish_non_exhaustive()
    }
}

/// Without the secret.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential")
            .field("file", &self.file.as_ref().map(|file| &file.path))
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
        let text: Arc<str> = text.into();
        let file = file.map(|path| {
            let (text, stamp) = (text.clone(), stamp(&path));
            let read = Mutex::new(Read { text, stamp });
            Arc::new(TokenFile { path, read })
        });
        Self {
            current: Arc::new(watch::Sender::new(text)),
            file,
        }
    }

    /// As it is now.
    pub fn now(&self) -> Arc<str> {
        self.current.borrow().clone()
    }

    /// A fresh one for `old`, unless somebody has put another one there meanwhile: that one is newer than both.
    pub(super) fn refresh(&self, old: &str, fresh: &str) -> bool {
        self.current.send_if_modified(|current| {
            let still = **current == *old;
            if still {
                *current = fresh.into();
            }
            still
        })
    }

    /// Look into its file: has somebody put another one there since it was read last? What was read once is never taken
    /// twice: a token that was refreshed since is newer.
    pub fn reread(&self) -> bool {
        let Some(file) = &self.file else {
            return false;
        };
        let Some(text) = file.another() else {
            return false;
        };
        self.current.send_if_modified(|current| {
            let other = *current != text;
            *current = text;
            other
        })
    }

    /// The same where a glance says that the file has changed.
    pub(crate) fn glance(&self) -> bool {
        self.file.as_ref().is_some_and(|file| file.is_touched()) && self.reread()
    }

    /// Is there another one by now than this, which was refused?
    pub(crate) fn is_other_than(&self, token: &str) -> bool {
        self.reread();
        *self.now() != *token
    }

    /// Completes when there is another one than this.
    pub(super) async fn other_than(&self, token: &str) {
        let mut current = self.current.subscribe();
        // We hold the sender: it does not end.
        let _ = current.wait_for(|now| **now != *token).await;
    }

    /// Completes when another one was found in its file.
    pub(crate) async fn replaced(&self) {
        if self.file.is_none() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(LOOK).await;
            if self.glance() {
                return;
            }
        }
    }

    /// Take whatever is put into its file, for as long as this is polled.
    pub async fn follow(&self) {
        loop {
            self.replaced().await;
            tracing::info!("another token was found in the file");
        }
    }

    /// When it is to be replaced; `None` for one that has no end.
    pub fn ends(&self) -> Option<Ends> {
        Ends::of(&self.now())
    }
}

impl TokenFile {
    fn is_touched(&self) -> bool {
        stamp(&self.path) != self.lock().stamp
    }

    /// What stands there now, where that is another token than the last time.
    fn another(&self) -> Option<Arc<str>> {
        let mut read = self.lock();
        // Before it is read: what is written after that shows the next time.
        read.stamp = stamp(&self.path);
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) => {
                tracing::debug!(file = %self.path.display(), %error, "no other token: the file cannot be read");
                return None;
            }
        };
        let text = text.trim();
        if text.is_empty() || *text == *read.text {
            return None;
        }
        if !is_token(text) {
            tracing::warn!(file = %self.path.display(), "what was written there is no token; it is not taken");
            return None;
        }
        read.text = text.into();
        Some(read.text.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A link in its place, as orchestrators make them, is followed. `None`: there is nothing.
fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    Some((
        found.dev(),
        found.ino(),
        found.len(),
        found.mtime(),
        found.mtime_nsec(),
    ))
}

/// May it be sent as a credential? One word of visible ASCII: whatever else it is, no gateway has issued it.
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
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
    use super::{Credential, Ends, is_token};
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
        std::fs::write(file.path(), "t w o\n").unwrap();
        assert!(!credential.reread(), "no token");
        std::fs::write(file.path(), "two\n").unwrap();
        assert!(credential.is_other_than("one"));
        assert_eq!(&*credential.now(), "two");
        assert!(!credential.is_other_than("two"));
        assert!(!format!("{credential:?}").contains("two"));
    }

    #[test]
    fn what_was_refreshed_is_newer_than_the_file_it_came_from() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one").unwrap();
        let credential = Credential::new("one", Some(file.path().into()));
        assert!(credential.refresh("one", "fresh"));
        assert!(!credential.reread(), "the old one is taken again");
        assert_eq!(&*credential.now(), "fresh");
        std::fs::write(file.path(), "two").unwrap();
        assert!(credential.reread());
        assert!(
            !credential.refresh("fresh", "too late"),
            "of the session before"
        );
        assert_eq!(&*credential.now(), "two");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_another_one_hears_of_it() {
        let credential = Credential::from("one");
        let other = || tokio::time::timeout(Duration::from_secs(5), credential.other_than("one"));
        assert!(other().await.is_err());
        let (heard, refreshed) =
            tokio::join!(other(), async { credential.refresh("one", "fresh") });
        assert!(heard.is_ok() && refreshed);
        assert!(other().await.is_ok(), "there is one already");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_looked_at_by_itself() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "one").unwrap();
        let credential = Credential::new("one", Some(path.clone()));
        let (soon, other) = (Duration::from_secs(5), directory.path().join("other"));
        let replaced = tokio::time::timeout(soon, credential.replaced());
        assert!(replaced.await.is_err(), "nothing was written");
        std::fs::write(&other, "two").unwrap();
        std::fs::rename(&other, &path).unwrap();
        let replaced = tokio::time::timeout(soon, credential.replaced());
        assert!(replaced.await.is_ok());
        assert_eq!(&*credential.now(), "two");
    }

    #[test]
    fn a_token_is_one_word() {
        for good in ["sgh_abc", "e30.e30.AA-_", "a~b+c/d="] {
            assert!(is_token(good), "{good}");
        }
        for bad in ["", "abc\ndef", "a b", "caf\u{e9}", "a\0"] {
            assert!(!is_token(bad), "{bad:?}");
        }
    }
}
