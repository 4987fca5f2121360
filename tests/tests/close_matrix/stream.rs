//! One end of a pair, as its program has it: on TCP, in TLS, or on a unix socket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use e2e::until;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

/// What a program has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Socket {
    Tcp,
    Unix,
}

/// The sandbox's program's, and that of the service or the host.
pub(crate) type Sockets = (Socket, Socket);

/// As most have it.
pub(crate) const TCP: Sockets = (Socket::Tcp, Socket::Tcp);
/// On both sides.
pub(crate) const UNIX: Sockets = (Socket::Unix, Socket::Unix);

/// One end of a pair.
pub(crate) enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// TLS to the gateway.
    Tls(Box<TlsStream<TcpStream>>),
    /// A unix socket.
    Unix {
        socket: UnixStream,
        /// The program has written something.
        spoken: bool,
    },
}

impl Stream {
    /// A unix socket to which nothing has been written.
    pub(crate) fn unix(socket: UnixStream) -> Self {
        let spoken = false;
        Self::Unix { socket, spoken }
    }

    /// Break off, whatever is under way. TCP ends with RST. A unix socket is closed with what it holds unread, and that is a reset;
    /// `false`: it held nothing, and this may be an end.
    pub(crate) fn abort(self) -> bool {
        match &self {
            Self::Tcp(tcp) => reset(tcp),
            Self::Tls(tls) => reset(tls.get_ref().0),
            Self::Unix { socket, .. } => return unread(socket) > 0,
        }
        true
    }

    /// A cut reads like an end here: it is a unix socket, and its program has written nothing.
    pub(crate) fn is_deaf(&self) -> bool {
        matches!(self, Self::Unix { spoken: false, .. })
    }

    /// Waits until a unix socket holds bytes of the other side's, and leaves them where they are.
    pub(crate) async fn holds_unread(&self) {
        let Self::Unix { socket, .. } = self else {
            panic!("no unix socket");
        };
        until("unread bytes", || (unread(socket) > 0).then_some(())).await;
    }
}

fn reset(tcp: &TcpStream) {
    // It fails on a socket that the other side has reset already: the end is the same.
    let _ = tcp.set_zero_linger();
}

fn unread(socket: &UnixStream) -> u64 {
    rustix::io::ioctl_fionread(socket).unwrap()
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_read(cx, buf),
            Self::Unix { socket, .. } => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_write(cx, buf),
            Self::Unix { socket, spoken } => {
                let written = ready!(Pin::new(socket).poll_write(cx, buf));
                *spoken |= matches!(written, Ok(1..));
                Poll::Ready(written)
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
            Self::Unix { socket, .. } => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
            Self::Unix { socket, .. } => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
