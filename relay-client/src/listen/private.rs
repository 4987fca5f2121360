//! Unix sockets that nobody but their owner can connect to, from the first moment.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{fs::FileTypeExt, net::UnixListener},
    },
    path::Path,
};

use socket2::{Domain, SockAddr, Socket, Type};

/// Connections the kernel holds before they are accepted.
const BACKLOG: i32 = 1024;

/// A unix socket of mode 0600 where nothing stands: there is no moment in which another user could connect. It is bound at its
/// place, and by its whole path, since that is the name by which the kernel lists it: what is listed under a name that is gone
/// cannot be found by who hides sockets from a command (`isolate`). It does not block.
///
/// # Errors
/// Something stands there, the directory cannot be written, or the path is longer than 107 bytes.
pub fn private_socket(path: &Path) -> io::Result<UnixListener> {
    let socket = bound(path)?;
    socket.listen(BACKLOG)?;
    Ok(OwnedFd::from(socket).into())
}

/// The same in place of a socket that stands there, whoever answers on it.
///
/// # Errors
/// As [`private_socket`]; what stands there is no socket, and is left alone.
pub fn replace_private_socket(path: &Path) -> io::Result<UnixListener> {
    make_way(path)?;
    private_socket(path)
}

/// As [`replace_private_socket`], but one that does not listen yet: until it does, who connects is refused (ECONNREFUSED).
///
/// # Errors
/// As [`replace_private_socket`].
pub fn closed_private_socket(path: &Path) -> io::Result<Socket> {
    make_way(path)?;
    bound(path)
}

fn bound(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // What is bound has the mode of what binds it, less the umask (Linux, unix_bind).
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600))?;
    socket.bind(&SockAddr::unix(std::path::absolute(path)?)?)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn make_way(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let message = format!("{} exists and is not a socket", path.display());
            Err(io::Error::new(io::ErrorKind::AlreadyExists, message))
        }
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
