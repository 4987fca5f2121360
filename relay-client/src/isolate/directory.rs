//! The supervisor's private directory, and those that supervisors left behind which were killed with all that would have
//! cleaned up after them.
//!
//! All of a user's are in one directory that nobody else may look into, so that a sandbox is kept from all of them by one
//! mount, those of later runs among them. The owner of each holds a lock on it, which the kernel takes away with the
//! process, and has put a mark into it while it held that. Whoever gets the lock of a marked one may therefore remove it;
//! nothing without a mark is ours, or it is not finished.

use std::{
    env,
    ffi::OsString,
    fs,
    fs::File,
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock, open},
    io::Errno,
};
use tempfile::TempDir;

/// What the directory of all is called, with the user's number behind it.
const OF: &str = "sluicegate-run-of-";
/// Stands in each of ours.
const MARK: &str = ".of-a-run";
/// Bytes of a socket's path (unix(7)).
const LONGEST: usize = 107;
/// Of these, for what is below the directory of all: a slash, six characters, `/state/admin.sock`, and services with short names.
const ROOM: usize = 28;
/// Others hold a new one for a moment, to see whether it is marked.
const ATTEMPTS: usize = 16;

/// A private directory for [`run`](super::run). What else the caller keeps in it is hidden from the command as well, and
/// goes with it even when the caller is killed.
#[derive(Debug)]
pub struct Directory {
    directory: TempDir,
    _lock: File,
}

impl Directory {
    /// Make one, below the directory for temporary files; and remove what is left there of supervisors that are dead.
    ///
    /// # Errors
    /// It cannot be made, or what would hold it is not this user's alone.
    pub fn new() -> io::Result<Self> {
        let parent = private(&base(env::temp_dir())?)?;
        sweep(&parent);
        Self::below(&parent)
    }

    fn below(parent: &Path) -> io::Result<Self> {
        for _ in 0..ATTEMPTS {
            let made = tempfile::Builder::new().prefix("").tempdir_in(parent)?;
            if let Some(lock) = lock(made.path())? {
                fs::write(made.path().join(MARK), "")?;
                return Ok(Self {
                    directory: made,
                    _lock: lock,
                });
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// What the directory of all of this user's is called.
pub(super) fn name() -> OsString {
    format!("{OF}{}", rustix::process::geteuid().as_raw()).into()
}

/// Where temporary files go; /tmp where that has so long a name that no socket could be bound there.
fn base(asked: PathBuf) -> io::Result<PathBuf> {
    let told =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", asked.display()));
    let real = fs::canonicalize(&asked).map_err(told)?;
    if real.as_os_str().len() + 1 + name().len() + ROOM > LONGEST {
        return fs::canonicalize("/tmp");
    }
    Ok(real)
}

/// The directory of all, made where it is not there yet.
fn private(base: &Path) -> io::Result<PathBuf> {
    let path = base.join(name());
    let told =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(told(error)),
        _ => {}
    }
    // Where everybody may write, somebody else may have been first.
    let found = fs::symlink_metadata(&path).map_err(told)?;
    if found.is_dir() && is_ours(&found) && found.mode() & 0o077 == 0 {
        return Ok(path);
    }
    Err(io::Error::other(format!(
        "{} is not a directory of this user's alone (mode 0700): remove it, or set TMPDIR to another directory",
        path.display()
    )))
}

fn is_ours(found: &fs::Metadata) -> bool {
    found.uid() == rustix::process::geteuid().as_raw()
}

/// The lock of a directory of ours that is there; `None` where somebody else has it, or it is not there any more.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match open(path, flags, Mode::empty()) {
        Ok(opened) => File::from(opened),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    // It may have been removed, by whoever had the lock before.
    let here = opened.metadata()?;
    let same = fs::symlink_metadata(path)
        .is_ok_and(|there| (there.dev(), there.ino()) == (here.dev(), here.ino()));
    Ok((same && is_ours(&here)).then_some(opened))
}

/// Remove what dead supervisors of this user left. What does not work out is left to the next one.
fn sweep(parent: &Path) {
    let (Ok(here), Ok(entries)) = (fs::metadata(parent), fs::read_dir(parent)) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let Ok(Some(lock)) = lock(&path) else {
            continue;
        };
        // What is mounted there is somebody's.
        let mounted = lock
            .metadata()
            .map_or(true, |found| found.dev() != here.dev());
        if !mounted && is_marked(&path) {
            let removed = fs::remove_dir_all(&path);
            tracing::debug!(path = %path.display(), ?removed, "left by a supervisor that is dead");
        }
    }
}

fn is_marked(path: &Path) -> bool {
    fs::symlink_metadata(path.join(MARK)).is_ok_and(|mark| mark.is_file() && is_ours(&mark))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
        path::PathBuf,
        sync::Arc,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::{Directory, MARK, base, name, private, sweep};

    #[test]
    fn only_what_nobody_holds_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let alive = Directory::below(parent.path()).unwrap();
        fs::write(alive.path().join("kept"), "").unwrap();
        let dead = parent.path().join("dead");
        fs::create_dir_all(dead.join("state")).unwrap();
        fs::write(dead.join("state/key"), "").unwrap();
        fs::write(dead.join(MARK), "").unwrap();
        // Not ours by its kind, or without our mark.
        let elsewhere = parent.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("kept"), "").unwrap();
        let link = parent.path().join("link");
        symlink(&elsewhere, &link).unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        sweep(parent.path());
        assert!(!dead.exists());
        assert!(alive.path().join("kept").exists() && elsewhere.join("kept").exists());
        assert!(link.is_symlink() && file.exists());
        let path = alive.path().to_owned();
        drop(alive);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_not_ours_alone_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = private(root.path()).unwrap();
        assert_eq!(private(root.path()).unwrap(), path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(private(root.path()).is_err());
        fs::remove_dir(&path).unwrap();
        let elsewhere = root.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o700)).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert!(private(root.path()).is_err());
        assert_eq!(path.file_name(), Some(&*name()));
    }

    #[test]
    fn sockets_fit_below_it() {
        let root = tempfile::tempdir().unwrap();
        let long = root.path().join("a".repeat(60));
        fs::create_dir(&long).unwrap();
        assert_eq!(
            base(long).unwrap(),
            PathBuf::from("/tmp").canonicalize().unwrap()
        );
        assert!(base(root.path().join("none")).is_err());
    }

    /// Made while others sweep all the time: what one has got stays.
    #[test]
    fn a_new_one_is_never_swept_away() {
        let parent = Arc::new(tempfile::tempdir().unwrap());
        let done = Arc::new(AtomicBool::new(false));
        let sweepers = [(); 2].map(|()| {
            let (parent, done) = (parent.clone(), done.clone());
            std::thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    sweep(parent.path());
                }
            })
        });
        for _ in 0..300 {
            let one = Directory::below(parent.path()).unwrap();
            fs::write(one.path().join("a"), "").unwrap();
            assert!(one.path().join("a").exists());
        }
        done.store(true, Ordering::Relaxed);
        for sweeper in sweepers {
            sweeper.join().unwrap();
        }
    }
}
