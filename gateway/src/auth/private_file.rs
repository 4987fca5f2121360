//! Files that hold secrets: written whole or not at all, readable by their owner only.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;

/// Why a secret file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {path}: is the directory writable, and the disk not full?")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others can read it.
    #[error("{path} is readable by others (mode {mode:o}); run: chmod 600 {path}")]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// Write `bytes` to `path` with permission bits `mode`: to a temporary file beside it, synced, then renamed, so that
/// a crash leaves the old file or the new one.
///
/// # Errors
/// [`PrivateFileError::Write`].
pub fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PrivateFileError> {
    write(path, bytes, mode).map_err(|source| PrivateFileError::Write {
        path: path.into(),
        source,
    })
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = sluicegate_certs::directory_of(path);
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(directory)?;
    file.write_all(bytes)?;
    // The umask may have taken bits away that a public file needs.
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    fs::File::open(directory)?.sync_all()
}

/// Read a secret; `None` where there is no such file.
pub fn read_private(path: &Path) -> Result<Option<String>, PrivateFileError> {
    let unreadable = |source| PrivateFileError::Read {
        path: path.into(),
        source,
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(PrivateFileError::Exposed {
            path: path.into(),
            mode,
        });
    }
    fs::read_to_string(path).map(Some).map_err(unreadable)
}

/// Random bytes of our own that have to be the same after a restart, as hex; made where there are none.
///
/// # Errors
/// The file cannot be read or written, others may read it, or it holds something else.
pub fn load_or_create_secret<const N: usize>(path: &Path) -> Result<[u8; N], PrivateFileError> {
    let malformed = || PrivateFileError::Read {
        path: path.into(),
        source: io::Error::new(io::ErrorKind::InvalidData, "not a secret of ours"),
    };
    if let Some(text) = read_private(path)? {
        let bytes = HEXLOWER.decode(text.trim().as_bytes());
        return bytes
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(malformed);
    }
    let mut secret = [0; N];
    getrandom::fill(&mut secret).map_err(|error| PrivateFileError::Write {
        path: path.into(),
        source: io::Error::other(error.to_string()),
    })?;
    write_file(
        path,
        format!("{}\n", HEXLOWER.encode(&secret)).as_bytes(),
        0o600,
    )?;
    Ok(secret)
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

    #[test]
    fn a_secret_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let made: [u8; 32] = load_or_create_secret(&path).unwrap();
        assert_ne!(made, [0; 32]);
        assert_eq!(load_or_create_secret(&path).unwrap(), made);
        assert!(load_or_create_secret::<16>(&path).is_err());
    }

    #[test]
    fn a_secret_file_is_0600_and_one_that_others_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        assert!(read_private(&path).unwrap().is_none());
        write_file(&path, b"one", 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        write_file(&path, b"two", 0o600).unwrap();
        assert_eq!(read_private(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            read_private(&path),
            Err(PrivateFileError::Exposed { mode: 0o640, .. })
        ));
    }

    #[test]
    fn a_missing_directory_is_a_clear_error() {
        let error = write_file(Path::new("/nonexistent-sluicegate/x"), b"", 0o600).unwrap_err();
        assert!(
            error.to_string().contains("/nonexistent-sluicegate/x"),
            "{error}"
        );
    }
}
