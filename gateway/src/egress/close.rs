//! Ends of connections: an orderly end is said by us, anything else is a reset.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use sluicegate_relay::flow::Shared;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};

use super::splice::{Plain, socket_broken};
use crate::listen::Downstream;

/// Connections that can end in a reset.
pub trait Abort {
    /// Make the coming close a RST instead of a FIN (TLS: without close_notify).
    fn abort(&mut self);

    /// The socket below.
    fn socket(&self) -> Option<&TcpStream>;

    /// Has it been reset, though nobody reads it?
    fn broken(&mut self, _cx: &mut Context<'_>) -> bool {
        socket_broken(self.socket())
    }

    /// The socket, where nothing stands between it and who reads and writes.
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
}

impl Abort for TcpStream {
    fn abort(&mut self) {
        // SO_LINGER with zero seconds: close sends RST. It fails only on a socket that is gone already.
        let _ = self.set_zero_linger();
    }

    fn socket(&self) -> Option<&TcpStream> {
        Some(self)
    }

    fn plain(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Abort for Downstream {
    fn abort(&mut self) {
        self.reset();
    }

    fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(tcp) => Some(tcp),
            Self::Tls(tls) => match &**tls.get_ref().0 {
                Shared::Tcp(tcp) => Some(tcp),
                Shared::Unix(_) => None,
            },
            // A stream's reset is its carrier's to tell.
            Self::Stream(_) => None,
        }
    }

    fn broken(&mut self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::Stream(stream) => stream.is_broken(cx),
            Self::Plain(_) | Self::Tls(_) => socket_broken(self.socket()),
        }
    }

    fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(tcp) => Some(tcp),
            Self::Tls(_) | Self::Stream(_) => None,
        }
    }
}

impl<S: Abort> Plain for Guarded<S> {
    fn socket(&self) -> Option<&TcpStream> {
        self.stream.as_ref()?.socket()
    }

    fn tcp(&self) -> Option<&TcpStream> {
        self.stream.as_ref()?.plain()
    }

    fn broken(&mut self, cx: &mut Context<'_>) -> bool {
        self.stream.as_mut().is_some_and(|stream| stream.broken(cx))
    }
}

/// A connection that is reset when dropped, unless [`Guarded::release`] said that its end was in order.
///
/// A task that is dropped half-way (a forced drain) must not make a cut tunnel look like a finished one.
#[derive(Debug)]
pub struct Guarded<S: Abort> {
    /// `None` only once taken out.
    stream: Option<S>,
    armed: bool,
}

impl<S: Abort> Guarded<S> {
    /// Guard a connection.
    pub fn new(stream: S) -> Self {
        Self {
            stream: Some(stream),
            armed: true,
        }
    }

    /// Has it been reset, though nobody reads it?
    pub fn is_reset(&mut self, cx: &mut Context<'_>) -> bool {
        self.broken(cx)
    }

    /// Its end was in order: dropping it now closes with FIN.
    pub fn release(&mut self) {
        self.armed = false;
    }

    /// The connection, to be asked something. `None` if it was taken before.
    pub fn get(&self) -> Option<&S> {
        self.stream.as_ref()
    }

    /// The connection, unguarded. `None` if it was taken before.
    pub fn take(&mut self) -> Option<S> {
        self.stream.take()
    }

    fn pinned(&mut self) -> io::Result<Pin<&mut S>>
    where
        S: Unpin,
    {
        self.stream
            .as_mut()
            .map(Pin::new)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<S: Abort> Drop for Guarded<S> {
    fn drop(&mut self) {
        if self.armed
            && let Some(stream) = &mut self.stream
        {
            stream.abort();
        }
    }
}

impl<S: Abort + AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.pinned()?.poll_read(cx, buf)
    }
}

impl<S: Abort + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.pinned()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.pinned()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pinned()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pinned()?.poll_shutdown(cx)
    }
}

/// How long and how much of a refused client's unread bytes are taken before the close.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 256 * 1024;

/// Close after a last answer so that it arrives: send FIN, then take what the client still sends for a moment. Closing
/// with unread bytes would make the kernel send RST, which can destroy the answer on its way (RFC 9112 §9.6).
pub async fn linger_close<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut rest = stream.take(LINGER_BYTES);
    let _ = tokio::time::timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
}
