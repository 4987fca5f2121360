//! The supervisor's private directory, and those that supervisors left behind which were killed with all that would have
//! cleaned up after them.
//!
//! Its owner holds a lock on it, which the kernel takes away with the process. Whoever gets the lock of another one may
//! therefore remove it. A new one that was locked by somebody else in its first moment is left to them.

use std::{
    env, fs,
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock, open},
    io::Errno,
};
use tempfile::TempDir;

const PREFIX: &str = "sluicegate-run-";
/// Others take a new one away between its making and its locking at most this often.
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
    /// It cannot be made.
    pub fn new() -> io::Result<Self> {
        let parent = env::temp_dir();
        sweep(&parent);
        Self::below(&parent)
    }

    fn below(parent: &Path) -> io::Result<Self> {
        for _ in 0..ATTEMPTS {
            let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
            if let Some(lock) = lock(made.path())? {
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
    let ours = here.uid() == rustix::process::geteuid().as_raw();
    Ok((same && ours).then_some(opened))
}

/// Remove what dead supervisors of this user left. What does not work out is left to the next one.
fn sweep(parent: &Path) {
    for path in left(parent) {
        if let Ok(Some(lock)) = lock(&path) {
            let removed = fs::remove_dir_all(&path);
            tracing::debug!(path = %path.display(), ?removed, "left by a supervisor that is dead");
            drop(lock);
        }
    }
}

fn left(parent: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    let named = |entry: &fs::DirEntry| {
        entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(PREFIX.as_bytes())
    };
    let entries = entries.flatten().filter(named);
    entries.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        fs,
        os::unix::fs::symlink,
        sync::Arc,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::{Directory, PREFIX, sweep};

    #[test]
    fn only_what_nobody_holds_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let alive = Directory::below(parent.path()).unwrap();
        fs::write(alive.path().join("kept"), "").unwrap();
        let dead = parent.path().join(format!("{PREFIX}dead"));
        fs::create_dir_all(dead.join("state")).unwrap();
        fs::write(dead.join("state/key"), "").unwrap();
        // Not ours by its kind, or by its name.
        let elsewhere = parent.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("kept"), "").unwrap();
        let link = parent.path().join(format!("{PREFIX}link"));
        symlink(&elsewhere, &link).unwrap();
        let file = parent.path().join(format!("{PREFIX}file"));
        fs::write(&file, "").unwrap();
        sweep(parent.path());
        assert!(!dead.exists());
        assert!(alive.path().join("kept").exists() && elsewhere.join("kept").exists());
        assert!(link.is_symlink() && file.exists());
        let path = alive.path().to_owned();
        drop(alive);
        assert!(!path.exists());
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
