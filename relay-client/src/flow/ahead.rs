//! Reads ahead below TLS: rustls asks for 4 KiB at a time, which would make a system call of each quarter of a record.

use std::{
    cell::RefCell,
    io,
    ops::Deref,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

use super::Shared;

/// Taken from the kernel at once: four records of bulk (RFC 8446 §5.1).
const AHEAD: usize = 64 * 1024;

thread_local! {
    /// One for each thread: what is not asked for at once is copied out, and idle connections hold nothing.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; AHEAD].into());
}

/// A socket with what has been read of it and not been asked for yet.
#[derive(Debug)]
pub struct Ahead {
    socket: Shared,
    unread: Bytes,
}

impl From<Shared> for Ahead {
    fn from(socket: Shared) -> Self {
        Self {
            socket,
            unread: Bytes::new(),
        }
    }
}

impl From<TcpStream> for Ahead {
    fn from(stream: TcpStream) -> Self {
        Shared::from(stream).into()
    }
}

impl From<UnixStream> for Ahead {
    fn from(stream: UnixStream) -> Self {
        Shared::from(stream).into()
    }
}

/// Everything but reading is the socket's own.
impl Deref for Ahead {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.socket
    }
}

impl Ahead {
    /// Is there something that the kernel no longer knows of?
    pub(super) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }
}

impl AsyncRead for Ahead {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { socket, unread } = self.get_mut();
        if !unread.is_empty() {
            let count = unread.len().min(buffer.remaining());
            buffer.put_slice(unread.get(..count).unwrap_or_default());
            unread.advance(count);
            if unread.is_empty() {
                *unread = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        BUFFER.with_borrow_mut(|ahead| {
            let mut ahead = ReadBuf::new(ahead);
            ready!(Pin::new(socket).poll_read(cx, &mut ahead))?;
            let filled = ahead.filled();
            let (now, later) = filled.split_at(filled.len().min(buffer.remaining()));
            buffer.put_slice(now);
            if !later.is_empty() {
                *unread = Bytes::copy_from_slice(later);
            }
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for Ahead {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
