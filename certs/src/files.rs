//! Key and certificate files: bounded reads, atomic writes, and modes that mean something.
use crate::CertError;
use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// Largest PEM file read, in bytes; the system's whole root bundle is a quarter of it.
const LARGEST: u64 = 1024 * 1024;

/// Read a PEM file; `None` where there is none.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, CertError> {
    let fault = |source| CertError::Read {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault(error)),
    };
    let mut content = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut content)
        .map_err(fault)?;
    if content.len() as u64 > LARGEST {
        return Err(fault(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "larger than 1 MiB",
        )));
    }
    Ok(Some(content))
}

/// Read a PEM file that must be there.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, CertError> {
    read_if_there(path)?.ok_or_else(|| CertError::Read {
        path: path.to_owned(),
        source: io::ErrorKind::NotFound.into(),
    })
}

/// Refuse a key file that its group or anybody else can touch.
pub(crate) fn refuse_exposed(path: &Path) -> Result<(), CertError> {
    let metadata = fs::metadata(path).map_err(|source| CertError::Read {
        path: path.to_owned(),
        source,
    })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(CertError::KeyExposed {
            path: path.to_owned(),
            mode,
        })
    }
}

/// The directory a file is in. A bare name has an empty parent, which no system call takes: it is in the working directory.
pub fn directory_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// Put `content` at `path` with exactly `mode`, wholly or not at all: a reader never sees half a key, and the file is
/// on disk before its name is.
pub(crate) fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<(), CertError> {
    let write = || -> io::Result<()> {
        let dir = directory_of(path);
        let mut temporary = tempfile::Builder::new()
            .prefix(".new-")
            // 0600 while it is being written, whatever the umask and the final mode.
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(dir)?;
        temporary.write_all(content)?;
        temporary
            .as_file()
            .set_permissions(Permissions::from_mode(mode))?;
        temporary.as_file().sync_all()?;
        temporary.persist(path).map_err(|error| error.error)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|source| CertError::Write {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::directory_of;

    #[test]
    fn a_bare_name_is_in_the_working_directory() {
        for (path, directory) in [
            ("k.pem", "."),
            ("./k.pem", "."),
            ("keys/k.pem", "keys"),
            ("/k.pem", "/"),
        ] {
            assert_eq!(
                directory_of(Path::new(path)),
                Path::new(directory),
                "{path}"
            );
        }
    }
}
