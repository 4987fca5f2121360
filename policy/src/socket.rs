//! What an operator's list holds of the host's unix sockets.

use crate::service::socket_path;
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// One entry of `ceiling.sockets`: a socket's path, or with a slash at its end a directory and everything below it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SocketEntry {
    path: PathBuf,
    directory: bool,
}

impl SocketEntry {
    /// Parse `/run/app.sock` or `/run/app/`, in the grammar of `unix://` addresses.
    ///
    /// # Errors
    /// What is wrong, for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "/" {
            return Err("\"/\" is every socket of the host: write their directories".to_owned());
        }
        let bare = text.strip_suffix('/');
        Ok(Self {
            path: socket_path(bare.unwrap_or(text))?,
            directory: bare.is_some(),
        })
    }

    /// The path, without a directory's slash.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Is it a directory with everything below it?
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.directory
    }

    /// Does it hold this path, going by the text alone? What really is there is looked at when it is dialled.
    #[must_use]
    pub fn holds(&self, path: &Path) -> bool {
        if self.directory {
            path != self.path && path.starts_with(&self.path)
        } else {
            path == self.path
        }
    }

    /// Does it hold all that the other one does?
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self == other || (self.directory && self.holds(&other.path))
    }
}

impl fmt::Display for SocketEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.directory { "/" } else { "" };
        write!(f, "{}{slash}", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_entry_holds_its_path_or_what_is_below_it() {
        for (entry, path, held) in [
            ("/run/a.sock", "/run/a.sock", true),
            ("/run/a.sock", "/run/a.sock2", false),
            ("/run/a.sock", "/run/a.sock/b", false),
            ("/run/app/", "/run/app/a.sock", true),
            ("/run/app/", "/run/app/deep/er/a.sock", true),
            ("/run/app/", "/run/app", false),
            ("/run/app/", "/run/apple/a.sock", false),
            ("/run/app/", "/run/docker.sock", false),
        ] {
            let parsed = SocketEntry::parse(entry).unwrap();
            assert_eq!(parsed.holds(Path::new(path)), held, "{entry} {path}");
            assert_eq!(parsed.to_string(), entry);
        }
    }

    #[test]
    fn what_is_no_plain_absolute_path_is_refused() {
        for bad in [
            "",
            "/",
            "//",
            "run/a",
            "/run/../a",
            "/run/./a",
            "/run//a",
            "/run/a//",
            "/run/%2e",
            "/run/a\n",
            "@abstract",
        ] {
            assert!(SocketEntry::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn one_entry_covers_another() {
        let entry = |text| SocketEntry::parse(text).unwrap();
        for (wide, narrow, covered) in [
            ("/run/app/", "/run/app/a.sock", true),
            ("/run/app/", "/run/app/deep/", true),
            ("/run/app/", "/run/app/", true),
            ("/run/app/deep/", "/run/app/", false),
            ("/run/app", "/run/app/", false),
            ("/run/app/", "/run/app", false),
        ] {
            assert_eq!(
                entry(wide).covers(&entry(narrow)),
                covered,
                "{wide} {narrow}"
            );
        }
    }
}
