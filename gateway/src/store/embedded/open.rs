//! Opening the file: made with its mode, verified whole, and why not.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Instant,
};

use redb::{Database, DatabaseError};

use super::guard::guarded;
use crate::store::StoreError;

/// `None` after an IO error whose reopening failed, until a probe succeeds.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) database: Option<Database>,
    pub(super) inode: u64,
}

/// The file was read, and holds less or something else than a store does.
fn is_cut(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

/// Make a store where there is none. It stands at its path once it is whole: a crash leaves none there, and never an empty
/// one.
pub(super) fn create(path: &Path) -> Result<(), StoreError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(unusable(path)(error)),
        // A link that leads nowhere is one to a store that is not there now, and no place for a new one.
        Ok(_) => return Ok(()),
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let made = make(&beside, path);
    if made.is_err() {
        // What is left of it is of no use; why there is anything left is told by what failed.
        let _ = fs::remove_file(&beside);
    }
    made
}

/// Made beside, and linked to where it belongs; what stands there by then stays, a link too.
pub(super) fn make(beside: &Path, path: &Path) -> Result<(), StoreError> {
    // Of a start that was cut short.
    match fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(path)(error)),
        Ok(()) | Err(_) => {}
    }
    // Made here, for its mode.
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(beside)
        .map_err(unusable(path))?;
    drop(Database::create(beside).map_err(failed(path))?);
    file.sync_all().map_err(unusable(path))?;
    // Unlike a rename this takes no place of what somebody has made meanwhile.
    match fs::hard_link(beside, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(unusable(path)(error));
        }
        Ok(()) | Err(_) => {}
    }
    fs::remove_file(beside).map_err(unusable(path))?;
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = fs::File::open(directory.unwrap_or(Path::new(".")));
    directory
        .and_then(|directory| directory.sync_all())
        .map_err(unusable(path))
}

/// Open the file, and verify all of it.
pub(super) fn open(path: &Path) -> Result<Open, StoreError> {
    let found = fs::metadata(path).map_err(unusable(path))?;
    if found.len() == 0 {
        return Err(StoreError::Empty { path: path.into() });
    }
    let began = Instant::now();
    let (database, as_written) = guarded(path, || {
        let mut database = Database::open(path).map_err(failed(path))?;
        // Without this a page is only looked at when it is read, and what is at rest after a shutdown in order is never.
        let as_written = database.check_integrity().map_err(failed(path))?;
        Ok((database, as_written))
    })?;
    tracing::debug!(path = %path.display(), as_written, took = ?began.elapsed(), "the store was verified");
    Ok(Open {
        database: Some(database),
        inode: found.ino(),
    })
}

/// Let go of the file. Closing writes to it: what is damaged may not let itself be closed in order, and is not the worse for that.
pub(super) fn close(path: &Path, open: &mut Open) {
    let database = open.database.take();
    let closed = guarded(path, || {
        drop(database);
        Ok(())
    });
    if let Err(error) = closed {
        tracing::warn!(path = %path.display(), %error, "the store could not be closed in order");
    }
}

fn unusable(path: &Path) -> impl Fn(io::Error) -> StoreError {
    move |source| StoreError::Open {
        path: path.into(),
        source,
    }
}

fn failed(path: &Path) -> impl Fn(DatabaseError) -> StoreError {
    move |error| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: path.into() },
        DatabaseError::Storage(redb::StorageError::Io(source)) if !is_cut(&source) => {
            unusable(path)(source)
        }
        other => StoreError::Damaged {
            path: path.into(),
            source: Box::new(other.into()),
        },
    }
}
