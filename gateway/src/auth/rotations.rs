//! Rotations that were asked for by a request that may come again: which key each has made.

use std::path::{Path, PathBuf};

use super::private_file::{PrivateFileError, read_private};

/// How a file that only its owner reads is written: whole, and durable when this returns.
pub(super) type Write<'a> = &'a dyn Fn(&Path, &[u8]) -> Result<(), PrivateFileError>;

/// Kept, the newest: a request that comes again does so soon.
const KEPT: usize = 100;
const FILE: &str = "rotations";

/// One rotation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rotation {
    /// The request's digest.
    pub(super) request: String,
    /// The key that was made.
    pub(super) kid: String,
    /// The one that signed until then.
    pub(super) before: String,
}

/// The file beside the keys: `REQUEST KID BEFORE` in each line, the newest last.
#[derive(Debug)]
pub(super) struct Rotations {
    path: PathBuf,
    all: Vec<Rotation>,
}

impl Rotations {
    /// Read it. A line that is none of ours is forgotten.
    pub(super) fn read(directory: &Path) -> Result<Self, PrivateFileError> {
        let path = directory.join(FILE);
        let text = read_private(&path)?.unwrap_or_default();
        let line = |line: &str| {
            let mut words = line.split(' ').map(str::to_owned);
            Some(Rotation {
                request: words.next()?,
                kid: words.next()?,
                before: words.next()?,
            })
        };
        let all = text.lines().filter_map(line).collect();
        Ok(Self { path, all })
    }

    /// What this request has led to.
    pub(super) fn of(&self, request: &str) -> Option<&Rotation> {
        self.all.iter().rev().find(|one| one.request == request)
    }

    /// Remember one more.
    pub(super) fn add(
        mut self,
        rotation: Rotation,
        write: Write<'_>,
    ) -> Result<(), PrivateFileError> {
        self.all.retain(|one| one.request != rotation.request);
        self.all.push(rotation);
        let newest = self.all.iter().rev().take(KEPT).rev();
        let text: String = newest
            .map(|one| format!("{} {} {}\n", one.request, one.kid, one.before))
            .collect();
        write(&self.path, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::auth::private_file::write_file;

    #[test]
    fn the_newest_are_kept() {
        let write = |path: &Path, bytes: &[u8]| write_file(path, bytes, 0o600);
        let dir = tempfile::tempdir().unwrap();
        for n in 0..KEPT + 2 {
            let one = Rotation {
                request: format!("r{n}"),
                kid: format!("k{n}"),
                before: "b".into(),
            };
            let known = Rotations::read(dir.path()).unwrap();
            known.add(one, &write).unwrap();
        }
        let all = Rotations::read(dir.path()).unwrap();
        assert_eq!(all.all.len(), KEPT);
        assert!(all.of("r1").is_none());
        assert!(all.of("r2").is_some_and(|one| one.kid == "k2"));
    }
}
