//! A dial target's own socket, which listens only while a sandbox is there.
//!
//! What is dialled while nobody could take it fails at once, and as nothing else does: the kernel refuses it (ECONNREFUSED). The
//! place stays ours meanwhile: a socket that is bound and does not listen keeps its path, or its port from everybody else.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use sluicegate_relay::listen::closed_private_socket;
use socket2::{Domain, Socket, Type};

/// Connections the kernel holds before they are accepted.
const BACKLOG: i32 = 1024;

/// One dial target's socket. Closed at first.
#[derive(Debug)]
pub struct Door {
    place: Place,
    state: Mutex<State>,
}

/// What an open door listens on; it does not block.
#[derive(Debug)]
pub enum Listening {
    /// A unix socket; it serves the gateway's own user, and this uid.
    Unix(UnixListener, Option<u32>),
    /// A loopback port.
    Tcp(TcpListener),
}

#[derive(Debug)]
enum Place {
    Unix(PathBuf, Option<u32>),
    Tcp(SocketAddr),
}

#[derive(Debug)]
struct State {
    /// Absent where it could not be bound again, and once the place is given up.
    socket: Option<Socket>,
    open: bool,
    given_up: bool,
}

impl Door {
    /// A socket at this path, of mode 0600, in place of one that stands there.
    pub(super) fn unix(path: &Path, also: Option<u32>) -> io::Result<Self> {
        let socket = closed_private_socket(path)?;
        Ok(Self::closed(Place::Unix(path.to_owned(), also), socket))
    }

    /// A loopback port: this one, or with 0 one that the kernel chooses.
    pub(super) fn tcp(asked: SocketAddr) -> io::Result<(Self, SocketAddr)> {
        let first = bound(asked)?;
        let address = first.local_addr()?.as_socket();
        let address = address.ok_or(io::ErrorKind::AddrNotAvailable)?;
        // A port that the kernel chose leaves with the first shutdown, one that was asked for by number stays (Linux,
        // tcp_set_state). Both hold it for a moment, so that nobody comes between.
        let socket = match asked.port() {
            0 => bound(address)?,
            _ => first.try_clone()?,
        };
        drop(first);
        // Without it nobody else can bind the port, whatever he sets.
        socket.set_reuse_address(false)?;
        Ok((Self::closed(Place::Tcp(address), socket), address))
    }

    /// Is it this loopback port's?
    pub(super) fn is_at(&self, address: SocketAddr) -> bool {
        matches!(self.place, Place::Tcp(own) if own == address)
    }

    fn closed(place: Place, socket: Socket) -> Self {
        let state = State {
            socket: Some(socket),
            open: false,
            given_up: false,
        };
        Self {
            place,
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listen, if it does not yet: another handle of what it listens on. `None`: the place has been given up.
    ///
    /// # Errors
    /// It cannot listen, or there are no descriptors.
    pub fn open(&self) -> io::Result<Option<Listening>> {
        let mut state = self.state();
        let State {
            socket,
            open,
            given_up,
        } = &mut *state;
        if *given_up {
            return Ok(None);
        }
        let held = match socket.take() {
            Some(held) => held,
            None => self.place.bind()?,
        };
        let held = socket.insert(held);
        if !*open {
            self.place.listen(held)?;
            *open = true;
        }
        let handle = OwnedFd::from(held.try_clone()?);
        Ok(Some(match self.place {
            Place::Unix(_, also) => Listening::Unix(handle.into(), also),
            Place::Tcp(_) => Listening::Tcp(handle.into()),
        }))
    }

    /// Listen no more; what was not accepted yet is reset, what was goes on. On a unix socket that takes that all handles are dropped.
    pub fn shut(&self) {
        let mut state = self.state();
        if state.given_up || !std::mem::take(&mut state.open) {
            return;
        }
        let shut = match (&self.place, state.socket.take()) {
            (Place::Tcp(_), Some(socket)) => {
                let shut = socket
                    .set_reuse_address(false)
                    .and_then(|()| socket.shutdown(Shutdown::Read));
                state.socket = Some(socket);
                shut
            }
            // Listening is for good there. Closed first: who dials the path that stands is refused already.
            (Place::Unix(path, _), listening) => {
                drop(listening);
                closed_private_socket(path).map(|socket| state.socket = Some(socket))
            }
            (Place::Tcp(_), None) => Ok(()),
        };
        if let Err(error) = shut {
            tracing::warn!(place = ?self.place, %error, "a dial target that nobody serves could not be closed in order");
        }
    }

    /// Leave the place for good, to whoever binds it next, though somebody may hold a handle for a moment yet.
    pub(super) fn give_up(&self) {
        let mut state = self.state();
        state.given_up = true;
        if let (Place::Tcp(_), Some(socket)) = (&self.place, &state.socket) {
            // Neither can fail on a socket that listens; on one that does not, there is nothing to shut.
            let _ = socket.set_reuse_address(true);
            let _ = socket.shutdown(Shutdown::Read);
        }
        state.socket = None;
    }
}

impl Place {
    fn bind(&self) -> io::Result<Socket> {
        match self {
            Self::Unix(path, _) => closed_private_socket(path),
            Self::Tcp(address) => bound(*address),
        }
    }

    fn listen(&self, socket: &Socket) -> io::Result<()> {
        if let Self::Unix(..) = self {
            return socket.listen(BACKLOG);
        }
        // Connections accepted before are bound to the port too, and must not stand against it. They inherit this.
        socket.set_reuse_address(true)?;
        let listens = socket.listen(BACKLOG);
        if listens.is_err() {
            socket.set_reuse_address(false)?;
        }
        listens
    }
}

/// Bound, over connections of a process or a generation before.
fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        io::{ErrorKind, Read},
        net::{Ipv4Addr, SocketAddr, TcpStream},
        os::unix::{fs::PermissionsExt, net::UnixStream},
        path::Path,
    };

    use super::{Door, Listening, bound};

    fn chosen() -> (Door, SocketAddr) {
        Door::tcp((Ipv4Addr::LOCALHOST, 0).into()).unwrap()
    }

    fn refused<T: std::fmt::Debug>(dialled: std::io::Result<T>) {
        assert_eq!(dialled.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }

    /// Whatever he sets, with and without the option that std sets.
    fn nobody_else_has(address: SocketAddr) {
        assert_eq!(bound(address).unwrap_err().kind(), ErrorKind::AddrInUse);
        let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
        assert_eq!(bound(everywhere).unwrap_err().kind(), ErrorKind::AddrInUse);
    }

    fn reset(mut stream: impl Read) {
        let end = stream.read(&mut [0]);
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_port_is_refused_while_closed_and_never_anybody_elses() {
        let (door, address) = chosen();
        let mut living = Vec::new();
        for _ in 0..3 {
            nobody_else_has(address);
            refused(TcpStream::connect(address));
            let Some(Listening::Tcp(listener)) = door.open().unwrap() else {
                unreachable!("a port")
            };
            listener.set_nonblocking(false).unwrap();
            let near = TcpStream::connect(address).unwrap();
            living.push((near, listener.accept().unwrap().0));
            let waiting = TcpStream::connect(address).unwrap();
            nobody_else_has(address);
            door.shut();
            reset(waiting);
        }
        for (near, mut far) in living {
            std::io::Write::write_all(&mut &near, b"!").unwrap();
            far.read_exact(&mut [0]).unwrap();
        }
    }

    #[test]
    fn a_port_that_is_given_up_is_free_whoever_holds_a_handle() {
        for open in [true, false] {
            let (door, address) = chosen();
            let held = door.open().unwrap();
            let near = TcpStream::connect(address).unwrap();
            if !open {
                door.shut();
            }
            door.give_up();
            assert!(door.open().unwrap().is_none());
            let (next, _) = Door::tcp(address).unwrap();
            refused(TcpStream::connect(address));
            next.open().unwrap();
            TcpStream::connect(address).unwrap();
            drop((held, near));
        }
    }

    #[test]
    fn a_socket_is_refused_while_closed_and_is_always_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let private = |path: &Path| {
            let mode = std::fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        };
        let door = Door::unix(&path, None).unwrap();
        for _ in 0..3 {
            private(&path);
            refused(UnixStream::connect(&path));
            let listener = door.open().unwrap();
            private(&path);
            let waiting = UnixStream::connect(&path).unwrap();
            drop(listener);
            door.shut();
            // Silent as it was.
            reset(waiting);
        }
        // Somebody took it away: it is back with the next one who comes.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        door.open().unwrap();
        door.shut();
        std::fs::remove_dir(&path).unwrap();
        door.open().unwrap();
        UnixStream::connect(&path).unwrap();
    }
}
