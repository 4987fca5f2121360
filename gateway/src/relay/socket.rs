//! Unix sockets of host services: opened once, looked at, and connected through what was looked at.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use rustix::fs::{FileType, Mode, OFlags};
use sluicegate_policy::{Denial, SocketEntry};
use sluicegate_relay::flow::connect_unix;
use tokio::net::UnixStream;

use super::ServiceFailure;
use crate::descriptors::{self, For};

/// The file at the path, opened to be looked at and connected through. It must be a socket and no symbolic link.
pub(super) fn file(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::Socket {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a socket"));
    }
    Ok(file)
}

/// The entry that holds the path as it is written must hold it where it really leads: a directory on the way may be a
/// symbolic link, and another one than when the session was made.
pub(super) fn hold(
    path: &Path,
    file: &OwnedFd,
    listed: &[SocketEntry],
) -> Result<(), ServiceFailure> {
    // The kernel's own word for what was opened.
    let real = std::fs::read_link(own_path(file));
    let real = real.map_err(|error| ServiceFailure::of(&error, error.to_string()))?;
    let mut holding = listed.iter().filter(|entry| entry.holds(path));
    if holding.any(|entry| really_holds(entry, &real)) {
        return Ok(());
    }
    Err(ServiceFailure {
        denial: Denial::AddressNotAllowed,
        detail: format!(
            "{} is {}, which the provider's ceiling.sockets does not hold",
            path.display(),
            real.display()
        ),
    })
}

/// The operator's own words may lead through links, such as `/var/run`.
fn really_holds(entry: &SocketEntry, real: &Path) -> bool {
    let listed = entry.path();
    if entry.is_directory() {
        let directory = listed.canonicalize();
        return directory.is_ok_and(|directory| real != directory && real.starts_with(directory));
    }
    let directory = listed.parent().map(Path::canonicalize);
    let (Some(Ok(directory)), Some(name)) = (directory, listed.file_name()) else {
        return false;
    };
    real == directory.join(name)
}

fn own_path(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Connect to exactly the file that was looked at: it is reached through its descriptor, so that nothing can be swapped
/// in between.
pub(super) async fn connect(file: OwnedFd, uid: Option<u32>) -> io::Result<UnixStream> {
    let own = own_path(&file);
    let stream = connect_unix(Path::new(&own)).await?;
    if descriptors::is_kept_back(&stream, For::Leaving) {
        return Err(descriptors::error());
    }
    if let Some(wanted) = uid {
        let found = stream.peer_cred()?.uid();
        if found != wanted {
            let what = format!("the socket belongs to a process of uid {found}, not {wanted}");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::{os::unix::fs::symlink, os::unix::net::UnixListener};

    use super::*;

    fn entries(root: &Path, list: &[&str]) -> Vec<SocketEntry> {
        let entry = |text: &&str| SocketEntry::parse(&format!("{}/{text}", root.display()));
        list.iter().map(|text| entry(text).unwrap()).collect()
    }

    #[test]
    fn a_path_must_lead_to_what_is_listed() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for directory in ["app/deep", "other"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        let bound = ["app/a.sock", "app/deep/b.sock", "other/docker.sock"];
        let listeners = bound.map(|path| UnixListener::bind(root.join(path)).unwrap());
        symlink("../other", root.join("app/way")).unwrap();
        symlink("app", root.join("old")).unwrap();
        symlink("a.sock", root.join("app/link.sock")).unwrap();
        let reaches = |list: &[&str], path: &str| -> Result<(), Option<Denial>> {
            let path = root.join(path);
            let file = file(&path).map_err(|_| None)?;
            hold(&path, &file, &entries(&root, list)).map_err(|failure| Some(failure.denial))
        };
        let outside = Err(Some(Denial::AddressNotAllowed));
        for (list, path, expected) in [
            (&["app/"][..], "app/a.sock", Ok(())),
            (&["app/"], "app/deep/b.sock", Ok(())),
            (&["app/a.sock"], "app/a.sock", Ok(())),
            // Below the directory by its text, and elsewhere in truth.
            (&["app/"], "app/way/docker.sock", outside),
            (&["app/", "other/"], "app/way/docker.sock", outside),
            (&["app/way/docker.sock"], "app/way/docker.sock", Ok(())),
            (&["other/docker.sock"], "app/way/docker.sock", outside),
            // The operator's own words may lead through a link.
            (&["old/"], "old/a.sock", Ok(())),
            (&["old/a.sock"], "old/a.sock", Ok(())),
            (&["old/"], "app/a.sock", outside),
            (&[], "app/a.sock", outside),
            // A link in the socket's own place is opened by nobody.
            (&["app/"], "app/link.sock", Err(None)),
        ] {
            assert_eq!(reaches(list, path), expected, "{list:?} {path}");
        }
        drop(listeners);
    }

    #[tokio::test]
    async fn what_was_looked_at_is_what_is_connected() {
        let root = tempfile::tempdir().unwrap();
        let (path, aside) = (root.path().join("a.sock"), root.path().join("b.sock"));
        let first = tokio::net::UnixListener::bind(&path).unwrap();
        let opened = file(&path).unwrap();
        std::fs::rename(&path, &aside).unwrap();
        let _second = tokio::net::UnixListener::bind(&path).unwrap();
        let (connected, accepted) = tokio::join!(connect(opened, None), first.accept());
        connected.unwrap();
        accepted.unwrap();
    }
}
