//! Local listeners: where the sandbox's own programs find the host's services.
//!
//! They serve this process's own user only: unix sockets by mode and by peer credentials, TCP on loopback by the kernel's
//! socket table (`peer`, `diag`; `alone` where that says nothing any more), which `door` asks before anybody is kept.

mod alone;
mod diag;
mod door;
mod peer;
mod private;

use std::{
    fmt, fs, io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::flow::Shared;
pub(crate) use door::{Came, Door, Place, Visitor};
use peer::is_ours;
pub use private::{closed_private_socket, private_socket, replace_private_socket};

/// Where to listen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// A unix socket of mode 0600.
    Unix(PathBuf),
    /// A loopback address.
    Tcp(SocketAddr),
}

/// Why a text is not a place to listen.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddressError {
    /// Not `NAME=…`.
    #[error("{0:?} is not NAME=unix:///path or NAME=tcp://127.0.0.1:PORT")]
    Form(String),
    /// Neither scheme.
    #[error("{0:?} is neither unix:///path nor tcp://ADDRESS:PORT")]
    Scheme(String),
    /// Not loopback: anyone on the network could use the session.
    #[error("{0} is not a loopback address")]
    NotLoopback(IpAddr),
}

/// One service and where it is to be found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listen {
    /// The host service.
    pub service: String,
    /// Here.
    pub address: Address,
}

impl Address {
    /// Parse `unix:///path` or `tcp://ADDRESS:PORT`.
    ///
    /// # Errors
    /// See [`AddressError`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix://") {
            let path = PathBuf::from(path);
            let named = path.is_absolute() && path.file_name().is_some();
            return if named {
                Ok(Self::Unix(path))
            } else {
                Err(AddressError::Scheme(text.into()))
            };
        }
        let address = text.strip_prefix("tcp://").map(|a| {
            a.strip_prefix("localhost:")
                .map_or(a.to_owned(), |p| format!("127.0.0.1:{p}"))
        });
        let address: SocketAddr = address
            .and_then(|a| a.parse().ok())
            .ok_or_else(|| AddressError::Scheme(text.into()))?;
        if !address.ip().is_loopback() {
            return Err(AddressError::NotLoopback(address.ip()));
        }
        Ok(Self::Tcp(address))
    }
}

impl Listen {
    /// Parse `NAME=ADDRESS`.
    ///
    /// # Errors
    /// See [`AddressError`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        match text.split_once('=') {
            Some((service, address)) if is_service_name(service) => Ok(Self {
                service: service.into(),
                address: Address::parse(address)?,
            }),
            _ => Err(AddressError::Form(text.into())),
        }
    }
}

/// One local listener that the host may dial.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exposed {
    /// Its name in the session's grant.
    pub listener: String,
    /// Where it is here.
    pub address: Address,
}

impl Exposed {
    /// Parse `NAME=ADDRESS`; a port must be named, since somebody else listens there.
    ///
    /// # Errors
    /// See [`AddressError`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let Listen { service, address } = Listen::parse(text)?;
        let unnamed = matches!(address, Address::Tcp(tcp) if tcp.port() == 0);
        if unnamed || service.contains(':') {
            return Err(AddressError::Form(text.into()));
        }
        Ok(Self {
            listener: service,
            address,
        })
    }
}

/// `[a-z0-9][a-z0-9._-]*`, and a binding of the same alphabet behind a colon: no other name can exist.
fn is_service_name(text: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
    };
    match text.split_once(':') {
        Some((base, binding)) => part(base) && part(binding),
        None => part(text),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Something that is not a socket is there; it is left alone.
    #[error("{0} exists and is not a socket")]
    NotASocket(PathBuf),
    /// Somebody listens there.
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    /// The default directory is not ours alone: whoever else may write there could put sockets of his own in place of ours.
    #[error(
        "{0} is {1}, and so no place for sockets: remove it, or choose places with --listen NAME=unix:///path"
    )]
    NotOurs(PathBuf, &'static str),
    /// The default directory cannot be made.
    #[error("cannot make {0}: {1}")]
    Directory(PathBuf, #[source] io::Error),
    /// The system said no.
    #[error("cannot listen on {0}: {1}")]
    Bind(Address, #[source] io::Error),
}

/// A bound listener. A unix socket's file goes with it.
#[derive(Debug)]
pub enum Listener {
    /// Unix. The file goes first: while it is there, somebody answers.
    Unix(SocketFile, UnixListener),
    /// Unix, at this path of a namespace that is one sandbox's alone: whoever can reach it may use it.
    Inside(UnixListener, PathBuf),
    /// TCP.
    Tcp(TcpListener),
}

/// Removes a socket file on drop.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Which file it is.
    inode: Option<u64>,
}

impl SocketFile {
    fn at(path: &Path) -> Self {
        Self {
            path: path.into(),
            inode: inode(path),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already, or the directory is: nothing is left behind either way. What somebody else has put there since is his.
        if self.inode == inode(&self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    Some(fs::symlink_metadata(path).ok()?.ino())
}

impl Listener {
    /// Bind. The directory of a unix socket is made (0700) where missing; a dead socket's file is replaced.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub async fn bind(address: &Address) -> Result<Self, ListenError> {
        let failed = |error| ListenError::Bind(address.clone(), error);
        match address {
            Address::Tcp(tcp) => Ok(Self::Tcp(TcpListener::bind(tcp).await.map_err(failed)?)),
            Address::Unix(path) => {
                make_directory(path).map_err(failed)?;
                make_way(path)
                    .await
                    .map_err(|error| error.unwrap_or_else(failed))?;
                bind_private(path).map_err(failed)
            }
        }
    }

    /// Where it listens; the port chosen where 0 was asked for.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<Address> {
        match self {
            Self::Unix(file, _) => Ok(Address::Unix(file.path.clone())),
            Self::Inside(_, path) => Ok(Address::Unix(path.clone())),
            Self::Tcp(listener) => Ok(Address::Tcp(listener.local_addr()?)),
        }
    }

    /// The next connection. On a unix socket it is our own user's: others are closed unheard. On TCP `is_ours` says, which may
    /// take too long to be asked between two of them.
    ///
    /// # Errors
    /// As `accept`: out of descriptors, mostly; it can be tried again.
    pub async fn accept(&self) -> io::Result<Shared> {
        match self {
            Self::Tcp(listener) => Ok(listener.accept().await?.0.into()),
            Self::Inside(listener, _) => Ok(listener.accept().await?.0.into()),
            Self::Unix(_, listener) => loop {
                let (stream, _) = listener.accept().await?;
                match stream.peer_cred() {
                    Ok(peer) if peer.uid() == rustix::process::geteuid().as_raw() => {
                        return Ok(stream.into());
                    }
                    Ok(peer) => {
                        tracing::warn!(uid = peer.uid(), "a connection of another user was closed")
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection without credentials was closed")
                    }
                }
            },
        }
    }
}

/// The directory for sockets that nobody chose a place for: made (0700) where missing, and refused where it is not ours alone,
/// since its name is known to everyone.
///
/// # Errors
/// [`ListenError::NotOurs`], [`ListenError::Directory`].
pub fn own_directory(directory: &Path) -> Result<(), ListenError> {
    let failed = |error| ListenError::Directory(directory.into(), error);
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(directory);
    // Of what is there the next line says what it is.
    if let Err(error) = made
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(failed(error));
    }
    // Not followed: a link could be turned elsewhere later.
    let found = fs::symlink_metadata(directory).map_err(failed)?;
    let fault = if found.is_symlink() {
        "a symbolic link"
    } else if !found.is_dir() {
        "no directory"
    } else if found.uid() != rustix::process::geteuid().as_raw() {
        "another user's"
    } else if found.mode() & 0o022 != 0 {
        "writable by others"
    } else {
        return Ok(());
    };
    Err(ListenError::NotOurs(directory.into(), fault))
}

fn make_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) if !directory.exists() => fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory),
        _ => Ok(()),
    }
}

/// A socket that nobody listens on is a leftover.
async fn make_way(path: &Path) -> Result<(), MakeWay> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(MakeWay::System(error)),
        Ok(found) if !found.file_type().is_socket() => {
            Err(MakeWay::Ours(ListenError::NotASocket(path.into())))
        }
        Ok(_) => match UnixStream::connect(path).await {
            Ok(_) => Err(MakeWay::Ours(ListenError::InUse(path.into()))),
            Err(error) => match error.kind() {
                // unix(7): nobody listens. A predecessor was killed, and left its file.
                io::ErrorKind::ConnectionRefused => remove(path),
                io::ErrorKind::NotFound => Ok(()),
                // It has as many connections waiting as it takes.
                io::ErrorKind::WouldBlock => Err(MakeWay::Ours(ListenError::InUse(path.into()))),
                _ => Err(MakeWay::System(error)),
            },
        },
    }
}

fn remove(path: &Path) -> Result<(), MakeWay> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(MakeWay::System(error)),
        _ => Ok(()),
    }
}

enum MakeWay {
    Ours(ListenError),
    System(io::Error),
}

impl MakeWay {
    fn unwrap_or_else(self, failed: impl FnOnce(io::Error) -> ListenError) -> ListenError {
        match self {
            Self::Ours(error) => error,
            Self::System(error) => failed(error),
        }
    }
}

fn bind_private(path: &Path) -> io::Result<Listener> {
    let listener = UnixListener::from_std(private_socket(path)?)?;
    Ok(Listener::Unix(SocketFile::at(path), listener))
}

#[cfg(test)]
mod tests;
