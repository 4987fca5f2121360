//! A connection of which some bytes were read already.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use sluicegate_relay::flow::Rest;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::Abort;

/// Gives `prefix` first, then what the connection has.
#[derive(Debug)]
pub struct Rewind<S> {
    prefix: Rest,
    stream: S,
}

impl<S> Rewind<S> {
    /// `prefix` was read from `stream` already.
    pub fn new(prefix: Bytes, stream: S) -> Self {
        let prefix = Rest::new(prefix);
        Self { prefix, stream }
    }
}

impl<S: Abort> Abort for Rewind<S> {
    fn abort(&mut self) {
        self.stream.abort();
    }

    fn socket(&self) -> Option<&TcpStream> {
        self.stream.socket()
    }

    fn broken(&mut self, cx: &mut Context<'_>) -> bool {
        self.stream.broken(cx)
    }

    fn plain(&self) -> Option<&TcpStream> {
        self.prefix
            .is_empty()
            .then(|| self.stream.plain())
            .flatten()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewind<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        self.prefix.give(buf);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewind<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
