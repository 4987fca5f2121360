//! A connection of which some bytes were read already.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use sluicegate_relay::flow::apart;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::Abort;

/// Gives `prefix` first, then what the connection has.
#[derive(Debug)]
pub struct Rewind<S> {
    prefix: Bytes,
    stream: S,
}

impl<S> Rewind<S> {
    /// `prefix` was read from `stream` already.
    pub fn new(prefix: Bytes, stream: S) -> Self {
        let prefix = apart(prefix);
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
        let n = self.prefix.len().min(buf.remaining());
        buf.put_slice(self.prefix.get(..n).unwrap_or_default());
        self.prefix.advance(n);
        if self.prefix.is_empty() {
            // Empty, it would hold the buffer it was a piece of for as long as the connection lives.
            self.prefix = Bytes::new();
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use bytes::{Buf, Bytes};
    use tokio::io::{AsyncReadExt, empty};

    use super::Rewind;

    const BUFFER: usize = 16 * 1024;

    /// A large buffer that can be seen to go.
    struct Buffer {
        bytes: Vec<u8>,
        _seen: Arc<()>,
    }

    impl AsRef<[u8]> for Buffer {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }

    /// The last `rest` bytes of such a buffer: the others were taken.
    fn read(rest: usize) -> (Bytes, Arc<()>) {
        let seen = Arc::new(());
        let mut buffer = Bytes::from_owner(Buffer {
            bytes: vec![7; BUFFER],
            _seen: seen.clone(),
        });
        buffer.advance(BUFFER - rest);
        assert_eq!(Arc::strong_count(&seen), 2);
        (buffer, seen)
    }

    #[test]
    fn a_small_rest_or_none_does_not_hold_the_buffer() {
        for rest in [0, 1, 100] {
            let (prefix, seen) = read(rest);
            let _held = Rewind::new(prefix, empty());
            assert_eq!(Arc::strong_count(&seen), 1, "{rest}");
        }
    }

    #[tokio::test]
    async fn what_was_given_is_not_held_any_more() {
        let (prefix, seen) = read(BUFFER);
        let mut held = Rewind::new(prefix, empty());
        let mut all = vec![0; BUFFER - 1];
        held.read_exact(&mut all).await.unwrap();
        assert_eq!(Arc::strong_count(&seen), 2, "a byte is left");
        let mut last = [0];
        held.read_exact(&mut last).await.unwrap();
        assert_eq!(Arc::strong_count(&seen), 1);
        assert_eq!(held.read(&mut all).await.unwrap(), 0);
    }
}
