//! A stream socket that its reader, its writer and the watch for its reset share.

use std::{
    io,
    net::SocketAddr,
    ops::Deref,
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
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
    Tcp(Arc<Tcp>),
    /// A unix stream socket.
    Unix(Arc<UnixStream>),
}

/// A TCP socket, and which of its options have been set here: each costs a system call, which is made only where it changes
/// something. Whoever reads and writes has the stream.
#[derive(Debug)]
pub struct Tcp {
    stream: TcpStream,
    options: Mutex<Options>,
}

/// As they are; what nobody has set here is not known.
#[derive(Debug, Default)]
struct Options {
    no_delay: bool,
    close_resets: Option<bool>,
}

impl Deref for Tcp {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl Tcp {
    /// What a close is from now on: RST, or FIN behind what is still to be sent. Held while it is set, so that what is
    /// known is what the kernel was told last.
    fn close(&self, resets: bool) {
        let mut options = self.options.lock().unwrap_or_else(PoisonError::into_inner);
        if options.close_resets != Some(resets) {
            let linger = resets.then_some(Duration::ZERO);
            // Fails only on a socket that is no longer one; the close then has nothing to say either way.
            if SockRef::from(&self.stream).set_linger(linger).is_ok() {
                options.close_resets = Some(resets);
            }
        }
    }

    fn no_delay(&self) {
        let mut options = self.options.lock().unwrap_or_else(PoisonError::into_inner);
        if !options.no_delay {
            // A socket without the option is none.
            options.no_delay = self.stream.set_nodelay(true).is_ok();
        }
    }
}

impl From<TcpStream> for Shared {
    fn from(stream: TcpStream) -> Self {
        let options = Mutex::default();
        Self::Tcp(Arc::new(Tcp { stream, options }))
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
            Self::Tcp(tcp) => tcp.stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Shared {
    /// A TCP socket whose [close resets](Self::close_resets) already: that was set before it was connected.
    pub fn resetting(stream: TcpStream) -> Self {
        let options = Mutex::new(Options {
            close_resets: Some(true),
            ..Options::default()
        });
        Self::Tcp(Arc::new(Tcp { stream, options }))
    }

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

    /// Small writes are somebody's question: they do not wait for company (TCP_NODELAY).
    pub fn no_delay(&self) {
        if let Self::Tcp(tcp) = self {
            tcp.no_delay();
        }
    }

    /// Make the close that follows an RST instead of a FIN (SO_LINGER with zero seconds). Unix sockets have no such switch
    /// (see `unix`).
    pub fn close_resets(&self) {
        if let Self::Tcp(tcp) = self {
            tcp.close(true);
        }
    }

    /// Make the close that follows a FIN again, and what is still to be sent before it.
    pub fn close_finishes(&self) {
        if let Self::Tcp(tcp) = self {
            tcp.close(false);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{super::testing::tcp_pair, Duration, Shared, SockRef, TcpStream};

    const RESETS: Option<Duration> = Some(Duration::ZERO);

    async fn fresh() -> TcpStream {
        let (near, _far) = tcp_pair().await;
        near.set_nodelay(false).unwrap();
        near
    }

    fn linger(socket: &Shared) -> Option<Duration> {
        SockRef::from(socket).linger().unwrap()
    }

    #[tokio::test]
    async fn a_close_is_what_was_asked_for_last() {
        for resetting in [true, false] {
            let stream = fresh().await;
            let socket = if resetting {
                stream.set_zero_linger().unwrap();
                Shared::resetting(stream)
            } else {
                Shared::from(stream)
            };
            for _ in 0..2 {
                socket.close_resets();
                assert_eq!(linger(&socket), RESETS);
                socket.clone().close_resets();
                assert_eq!(linger(&socket), RESETS);
                socket.clone().close_finishes();
                assert_eq!(linger(&socket), None);
                socket.close_finishes();
                assert_eq!(linger(&socket), None);
            }
        }
    }

    /// It may have been set before, by whoever had the stream.
    #[tokio::test]
    async fn what_is_not_known_is_set() {
        let stream = fresh().await;
        stream.set_zero_linger().unwrap();
        let socket = Shared::from(stream);
        socket.close_finishes();
        assert_eq!(linger(&socket), None);
        socket.no_delay();
        assert!(SockRef::from(&socket).tcp_nodelay().unwrap());
    }

    /// Behind its back it is set otherwise, which shows that nothing is set again.
    #[tokio::test]
    async fn what_is_set_is_not_set_again() {
        let socket = Shared::resetting(fresh().await);
        socket.close_resets();
        assert_eq!(linger(&socket), None);
        socket.close_finishes();
        SockRef::from(&socket).set_linger(RESETS).unwrap();
        socket.clone().close_finishes();
        assert_eq!(linger(&socket), RESETS);
        socket.no_delay();
        SockRef::from(&socket).set_tcp_nodelay(false).unwrap();
        socket.clone().no_delay();
        assert!(!SockRef::from(&socket).tcp_nodelay().unwrap());
    }
}
