//! Where the gateway keeps what must survive it: found, made, and proved writable before anything starts.
use std::{
    ffi::OsString,
    fs::{self, DirBuilder},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// What is written to prove that there is room, in bytes: more than the first transaction of the store needs.
const PROOF: usize = 64 * 1024;

/// Why there is no state directory.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Nothing says where.
    #[error("no state directory: give --state-dir, or set SLUICEGATE_STATE_DIR or HOME")]
    Unknown,
    /// The path is something else.
    #[error("{path} is not a directory: choose another with --state-dir", path = path.display())]
    NotDirectory {
        /// The path.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("cannot create the state directory {path}: {source}; choose another with --state-dir", path = path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Other users could put files there.
    #[error("the state directory {path} has mode {mode:04o}, others can write to it: chmod go-w {path}", path = path.display())]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// No room.
    #[error("the disk of the state directory {path} is full: make room, or choose another with --state-dir", path = path.display())]
    Full {
        /// The directory.
        path: PathBuf,
    },
    /// It cannot be written to.
    #[error("the state directory {path} is not writable: {source}; choose another with --state-dir", path = path.display())]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A directory that exists and takes files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Where state belongs, in this order: `--state-dir`, `$SLUICEGATE_STATE_DIR`, `$STATE_DIRECTORY` (systemd; the
    /// first of several), `$XDG_STATE_HOME/sluicegate`, `~/.local/state/sluicegate`. Empty variables count as unset, and
    /// so does a relative `XDG_STATE_HOME` (XDG Base Directory Specification).
    ///
    /// # Errors
    /// Where none of them is set.
    pub fn locate(
        flag: Option<&Path>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<PathBuf, StateDirError> {
        let variable = |name: &str| {
            environment(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        if let Some(path) = flag {
            return Ok(path.to_owned());
        }
        if let Some(path) = variable("SLUICEGATE_STATE_DIR") {
            return Ok(path);
        }
        if let Some(first) = variable("STATE_DIRECTORY").and_then(first_of_list) {
            return Ok(first);
        }
        if let Some(home) = variable("XDG_STATE_HOME").filter(|path| path.is_absolute()) {
            return Ok(home.join("sluicegate"));
        }
        let home = variable("HOME").ok_or(StateDirError::Unknown)?;
        Ok(home.join(".local/state/sluicegate"))
    }

    /// Make the directory where it is missing (0700) and prove that it can be written to.
    ///
    /// # Errors
    /// Each with the path and what to do; nothing is left behind.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let owned = || path.to_owned();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                    StateDirError::NotDirectory { path: owned() }
                }
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    StateDirError::Full { path: owned() }
                }
                _ => StateDirError::Create {
                    path: owned(),
                    source,
                },
            })?;
        let path = fs::canonicalize(path).map_err(|source| StateDirError::Create {
            path: owned(),
            source,
        })?;
        Self::proved(path)
    }

    /// A directory that is reached by a descriptor alone (`/proc/self/fd/N`), which has to stay open.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn by_descriptor(path: PathBuf) -> Result<Self, StateDirError> {
        Self::proved(path)
    }

    fn proved(path: PathBuf) -> Result<Self, StateDirError> {
        let owned = || path.clone();
        let metadata = fs::metadata(&path).map_err(|source| StateDirError::Create {
            path: owned(),
            source,
        })?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(StateDirError::Exposed { path, mode });
        }
        prove(&path).map_err(|source| unwritable(&path, source))?;
        Ok(Self { path })
    }

    /// The directory, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// systemd.exec(5): several directories are joined by colons.
fn first_of_list(list: PathBuf) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let first = list
        .as_os_str()
        .as_bytes()
        .split(|byte| *byte == b':')
        .next()?;
    (!first.is_empty()).then(|| PathBuf::from(std::ffi::OsStr::from_bytes(first)))
}

/// Write and sync a file with no name: a full disk shows only when blocks are really asked for.
fn prove(path: &Path) -> io::Result<()> {
    let mut file = tempfile::Builder::new()
        .prefix(".proof-")
        .tempfile_in(path)?;
    file.write_all(&[0x5a; PROOF])?;
    file.as_file().sync_all()
}

fn unwritable(path: &Path, source: io::Error) -> StateDirError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StateDirError::Full {
            path: path.to_owned(),
        },
        _ => StateDirError::NotWritable {
            path: path.to_owned(),
            source,
        },
    }
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
    use std::collections::HashMap;

    fn locate(flag: Option<&str>, variables: &[(&str, &str)]) -> Option<String> {
        let variables: HashMap<&str, &str> = variables.iter().copied().collect();
        let found = StateDir::locate(flag.map(Path::new), |name| {
            variables.get(name).map(OsString::from)
        });
        found.ok().map(|path| path.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_first_that_is_set_wins() {
        let all = [
            ("SLUICEGATE_STATE_DIR", "/own"),
            ("STATE_DIRECTORY", "/systemd/one:/systemd/two"),
            ("XDG_STATE_HOME", "/xdg"),
            ("HOME", "/home/me"),
        ];
        assert_eq!(locate(Some("/flag"), &all).as_deref(), Some("/flag"));
        let expected = [
            "/own",
            "/systemd/one",
            "/xdg/sluicegate",
            "/home/me/.local/state/sluicegate",
        ];
        for (skipped, expected) in expected.iter().enumerate() {
            assert_eq!(locate(None, &all[skipped..]).as_deref(), Some(*expected));
        }
        assert_eq!(locate(None, &[]), None);
        let odd = [
            ("SLUICEGATE_STATE_DIR", ""),
            ("XDG_STATE_HOME", "relative"),
            ("HOME", "/h"),
        ];
        assert_eq!(
            locate(None, &odd).as_deref(),
            Some("/h/.local/state/sluicegate")
        );
    }

    #[test]
    fn a_missing_directory_is_made_private_and_left_empty() {
        let parent = tempfile::tempdir().unwrap();
        let wanted = parent.path().join("a/b");
        let dir = StateDir::open(&wanted).unwrap();
        assert_eq!(
            fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(StateDir::open(&wanted).unwrap(), dir);
        assert!(dir.file("ca.pem").starts_with(dir.path()));
    }

    #[test]
    fn what_is_no_place_for_state_is_told_by_its_fact() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(
            StateDir::open(&file),
            Err(StateDirError::NotDirectory { .. })
        ));
        assert!(matches!(
            StateDir::open(&file.join("below")),
            Err(StateDirError::NotDirectory { .. })
        ));
        // /proc takes nothing from anybody, root included.
        let error = StateDir::open(Path::new("/proc/sluicegate-state")).unwrap_err();
        assert!(matches!(error, StateDirError::Create { .. }), "{error}");
        assert!(matches!(
            StateDir::open(Path::new("/proc")),
            Err(StateDirError::NotWritable { .. })
        ));
        let open = parent.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let error = StateDir::open(&open).unwrap_err();
        assert!(
            matches!(error, StateDirError::Exposed { mode: 0o777, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_full_disk_is_called_full() {
        // The error a write to a full device really gives; only root could fill a file system of its own.
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap()
            .write_all(b"x")
            .unwrap_err();
        let error = unwritable(Path::new("/state"), full);
        assert!(matches!(error, StateDirError::Full { .. }));
        assert!(error.to_string().contains("/state is full"), "{error}");
    }
}
