//! A stream socket that its reader, its writer and the watch for its reset share.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, BytesMut};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// A TCP or unix stream socket. Cheap to clone; the last clone closes it.
#[derive(Clone, Debug)]
pub enum Shared {
    /// TCP.
    Tcp(Arc<TcpStream>),
    /// A unix stream socket.
    Unix(Arc<UnixStream>),
}

impl From<TcpStream> for Shared {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(Arc::new(stream))
    }
}

impl From<UnixStream> for Shared {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(Arc::new(stream))
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Shared {
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    /// At most `most` bytes, whatever room the buffer has. However short, it leaves the readiness as it is: TCP reads end at the
    /// urgent mark too, with the queue not empty.
    pub(super) fn try_read(&self, buffer: &mut BytesMut, most: usize) -> io::Result<usize> {
        let mut buffer = buffer.limit(most);
        match self {
            Self::Tcp(stream) => stream.try_read_buf(&mut buffer),
            Self::Unix(stream) => stream.try_read_buf(&mut buffer),
        }
    }

    /// A read that leaves room has emptied the queue: it clears the readiness too, and the next one need not ask the kernel in
    /// vain. What comes meanwhile is a new event (epoll(7), edge-triggered), and so are FIN and RST. Not for sockets that carry
    /// whatever programs say: neither TLS nor HTTP knows of urgent data, and who sends it there delays nobody but himself.
    fn drain(&self, room: usize, read: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
        let mut short = None;
        let whole = self.try_io(Interest::READABLE, || match read()? {
            count if 0 < count && count < room => {
                short = Some(count);
                Err(io::ErrorKind::WouldBlock.into())
            }
            count => Ok(count),
        });
        short.map_or(whole, Ok)
    }

    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    /// Run a system call that would block; `WouldBlock` clears the readiness.
    pub(super) fn try_io<T>(
        &self,
        interest: Interest,
        call: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        match self {
            Self::Tcp(stream) => stream.try_io(interest, call),
            Self::Unix(stream) => stream.try_io(interest, call),
        }
    }

    pub(super) async fn ready(&self, interest: Interest) -> io::Result<tokio::io::Ready> {
        match self {
            Self::Tcp(stream) => stream.ready(interest).await,
            Self::Unix(stream) => stream.ready(interest).await,
        }
    }

    /// FIN.
    pub(super) fn shutdown(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(self, rustix::net::Shutdown::Write)?)
    }

    /// The other end, where it has an address: a unix socket's has none, nor has one that is gone.
    pub fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Make the close that follows an RST instead of a FIN. Unix sockets have no such switch (see `unix`).
    pub fn close_resets(&self) {
        if let Self::Tcp(stream) = self {
            // Fails only on a socket that is no longer one; the close then has nothing to say either way.
            let _ = stream.set_zero_linger();
        }
    }

    /// Make the close that follows a FIN again, and what is still to be sent before it.
    pub fn close_finishes(&self) {
        if let Self::Tcp(stream) = self {
            // As above.
            let _ = SockRef::from(&**stream).set_linger(None);
        }
    }
}

/// For TLS on top.
impl AsyncRead for Shared {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_read_ready(cx))?;
            let slice = buffer.initialize_unfilled();
            let read = self.drain(slice.len(), || match &*self {
                Self::Tcp(stream) => stream.try_read(slice),
                Self::Unix(stream) => stream.try_read(slice),
            });
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Shared {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(cx))?;
            match self.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(cx))?;
            let written = match &*self {
                Self::Tcp(stream) => stream.try_write_vectored(slices),
                Self::Unix(stream) => stream.try_write_vectored(slices),
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown())
    }
}
