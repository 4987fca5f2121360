//! Bulk between two plaintext TCP connections without a copy to user space: splice(2) through a pipe.
//!
//! Pipes are few (two descriptors and up to 1 MiB of kernel memory each, and an ordinary user gets 64 of that size), so
//! they are pooled, lent only to a direction that moves bulk right now, and given back whenever it has nothing in flight.
//! What lives here: the pipes and the two system calls. What does not: when to use them ([`super::pump`]).

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{self, RecvFlags},
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};
use tokio::{io::Interest, net::TcpStream};

use crate::descriptors::{self, For};

/// Bytes a pipe is asked to hold. The kernel counts slots, one per fragment: fewer bytes may fill it.
const CAPACITY: usize = 1024 * 1024;
/// A smaller pipe is no better than a copy: the kernel gives such to a user who has too many.
const LEAST: usize = 64 * 1024;
/// Pipes there may be, in use and idle: half of what an ordinary user may have at this size (pipe(7),
/// `pipe-user-pages-soft`).
const MOST: usize = 32;

/// Ends of tunnels, most of which are a TCP socket or have one below.
pub trait Plain {
    /// The socket below, whatever is on top of it.
    fn socket(&self) -> Option<&TcpStream>;

    /// The socket, where what is read and written is what is on the wire.
    fn tcp(&self) -> Option<&TcpStream>;

    /// Has it been reset, though nobody reads it?
    fn broken(&mut self, _cx: &mut Context<'_>) -> bool {
        socket_broken(self.socket())
    }
}

/// Is the socket in error?
pub(super) fn socket_broken(socket: Option<&TcpStream>) -> bool {
    socket.is_some_and(|socket| {
        // SO_ERROR would also take what does not end a connection, such as an unreachable network on the way (ip(7)).
        let mut asked = [PollFd::new(socket, PollFlags::empty())];
        let told = poll(&mut asked, Some(&Timespec::default()));
        told.is_ok_and(|told| told > 0)
            && asked
                .iter()
                .any(|one| one.revents().contains(PollFlags::ERR))
    })
}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    idle: Vec::new(),
    lent: 0,
});

struct Pool {
    idle: Vec<Ends>,
    lent: usize,
}

#[derive(Debug)]
struct Ends {
    reader: OwnedFd,
    writer: OwnedFd,
    capacity: usize,
}

impl Ends {
    fn open() -> Option<Self> {
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        if descriptors::is_kept_back(&writer, For::Leaving) {
            return None;
        }
        let capacity = match fcntl_setpipe_size(&writer, CAPACITY) {
            Ok(size) => size,
            Err(_) => rustix::pipe::fcntl_getpipe_size(&writer).ok()?,
        };
        (capacity >= LEAST).then_some(Self {
            reader,
            writer,
            capacity,
        })
    }
}

/// A pipe on loan. Dropped empty it goes back to the pool; with bytes in it, it is closed.
#[derive(Debug)]
pub(super) struct Pipe {
    /// `None` only while it is dropped.
    ends: Option<Ends>,
    /// Bytes in it.
    held: usize,
}

impl Pipe {
    /// A pipe, if there is one to be had.
    pub(super) fn borrow() -> Option<Self> {
        let ends = lend(&POOL, Ends::open)?;
        Some(Self {
            ends: Some(ends),
            held: 0,
        })
    }

    /// Bytes in flight?
    pub(super) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Read what the socket has, into an *empty* pipe: only then does EAGAIN mean that the socket has nothing, and not
    /// that the pipe's slots are taken. Ready(0) is what only a read can tell: FIN, or an urgent byte.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
    ) -> Poll<io::Result<usize>> {
        debug_assert!(self.is_empty(), "EAGAIN would be ambiguous");
        let Some(ends) = &self.ends else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        loop {
            ready!(from.poll_read_ready(cx))?;
            let moved = from.try_io(Interest::READABLE, || {
                let take = || splice(from, None, &ends.writer, None, ends.capacity, flags());
                match take() {
                    // It does not go past an urgent byte (RFC 9293 §3.8.5), and says there what it says where nothing has come.
                    Err(Errno::AGAIN) if has_bytes(from)? => match take() {
                        Err(Errno::AGAIN) => Ok(0),
                        moved => Ok(moved?),
                    },
                    moved => Ok(moved?),
                }
            });
            match moved {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(moved) => {
                    self.held = moved;
                    return Poll::Ready(Ok(moved));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Write what is in the pipe, until it is empty.
    pub(super) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        to: &TcpStream,
    ) -> Poll<io::Result<()>> {
        let Some(ends) = &self.ends else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        while self.held > 0 {
            ready!(to.poll_write_ready(cx))?;
            let moved = to.try_io(Interest::WRITABLE, || {
                Ok(splice(&ends.reader, None, to, None, self.held, flags())?)
            });
            match moved {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(moved) => self.held = self.held.saturating_sub(moved),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// One that is idle, or a new one where there may be more.
fn lend(pool: &Mutex<Pool>, open: impl FnOnce() -> Option<Ends>) -> Option<Ends> {
    let idle = {
        let mut pool = lock(pool);
        if pool.idle.is_empty() && pool.lent >= MOST {
            return None;
        }
        pool.lent += 1;
        pool.idle.pop()
    };
    // It has its place already: nobody waits while the kernel makes it.
    let ends = idle.or_else(open);
    if ends.is_none() {
        lock(pool).give_back();
    }
    ends
}

fn lock(pool: &Mutex<Pool>) -> MutexGuard<'_, Pool> {
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    fn give_back(&mut self) {
        self.lent = self.lent.saturating_sub(1);
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let mut pool = lock(&POOL);
        pool.give_back();
        if self.is_empty()
            && let Some(ends) = self.ends.take()
        {
            pool.idle.push(ends);
        }
    }
}

/// Would a read give some?
///
/// # Errors
/// The connection failed, which nothing will say again.
fn has_bytes(socket: &TcpStream) -> io::Result<bool> {
    let mut one = [0_u8; 1];
    match net::recv(socket, &mut one, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((length, _)) => Ok(length > 0),
        Err(Errno::AGAIN | Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn flags() -> SpliceFlags {
    SpliceFlags::NONBLOCK | SpliceFlags::MOVE
}

/// Pipes waiting to be lent.
#[cfg(test)]
pub(super) fn idle_pipes() -> usize {
    lock(&POOL).idle.len()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{future::poll_fn, sync::Mutex, time::Duration};

    use rustix::{
        net::{SendFlags, send},
        pipe::{PipeFlags, pipe_with},
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        time::timeout,
    };

    use super::{Ends, LEAST, MOST, Pipe, Pool, has_bytes, lend, lock, socket_broken};

    /// As small as they come.
    fn small() -> Option<Ends> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        Some(Ends {
            reader,
            writer,
            capacity: LEAST,
        })
    }

    #[test]
    fn nobody_waits_for_a_pipe_that_is_made() {
        let pool = Mutex::new(Pool {
            idle: Vec::new(),
            lent: 0,
        });
        let refused = lend(&pool, || {
            assert_eq!(pool.try_lock().unwrap().lent, 1);
            None
        });
        // One that cannot be made takes no place.
        assert!(refused.is_none() && lock(&pool).lent == 0);
        let mut all: Vec<_> = (0..MOST).map(|_| lend(&pool, small).unwrap()).collect();
        assert!(lend(&pool, small).is_none());
        // One that is idle needs no new one.
        {
            let mut pool = lock(&pool);
            pool.give_back();
            pool.idle.extend(all.pop());
        }
        assert!(lend(&pool, || None).is_some() && lock(&pool).lent == MOST);
    }

    #[tokio::test]
    async fn a_reset_that_meets_a_look_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (client, (from, _)) = (client.unwrap(), listener.accept().await.unwrap());
        assert!(!has_bytes(&from).unwrap());
        client.set_zero_linger().unwrap();
        drop(client);
        let reset = async {
            while !socket_broken(Some(&from)) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), reset).await.unwrap();
        assert!(has_bytes(&from).is_err());
        assert!(!socket_broken(Some(&from)), "it is told once");
    }

    #[tokio::test]
    async fn an_urgent_byte_is_left_to_a_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (mut client, (mut from, _)) = (client.unwrap(), listener.accept().await.unwrap());
        client.write_all(b"before").await.unwrap();
        send(&client, b"!", SendFlags::OOB).unwrap();
        client.write_all(b"behind").await.unwrap();
        let mut got = 0;
        while got < b"before".len() {
            // Another each time: one with bytes in it is not filled.
            let mut pipe = Pipe::borrow().unwrap();
            got += poll_fn(|cx| pipe.poll_fill(cx, &from)).await.unwrap();
        }
        let mut pipe = Pipe::borrow().unwrap();
        let fill = poll_fn(|cx| pipe.poll_fill(cx, &from));
        let told = timeout(Duration::from_secs(60), fill).await;
        assert_eq!(told.unwrap().unwrap(), 0);
        let mut behind = [0; 6];
        from.read_exact(&mut behind).await.unwrap();
        assert_eq!(&behind, b"behind");
    }
}
