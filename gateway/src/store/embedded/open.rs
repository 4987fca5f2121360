//! Opening the file: made with its mode, verified whole, and why not.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    time::Instant,
};

use redb::{Database, DatabaseError};

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

/// Open or create the file, and verify all of it.
pub(super) fn open(path: &Path) -> Result<Open, StoreError> {
    let unusable = |source| StoreError::Open {
        path: path.into(),
        source,
    };
    // Made here, for its mode; an empty file becomes a new database.
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    let inode = file
        .and_then(|file| file.metadata())
        .map_err(unusable)?
        .ino();
    let failed = |error: DatabaseError| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: path.into() },
        DatabaseError::Storage(redb::StorageError::Io(source)) if !is_cut(&source) => {
            unusable(source)
        }
        other => StoreError::Damaged {
            path: path.into(),
            source: Box::new(other.into()),
        },
    };
    let began = Instant::now();
    let mut database = Database::create(path).map_err(failed)?;
    // Without this a page is only looked at when it is read, and what is at rest after a shutdown in order is never.
    let as_written = database.check_integrity().map_err(failed)?;
    tracing::debug!(path = %path.display(), as_written, took = ?began.elapsed(), "the store was verified");
    Ok(Open {
        database: Some(database),
        inode,
    })
}
