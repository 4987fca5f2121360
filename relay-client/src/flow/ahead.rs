//! Reads ahead below TLS: rustls asks for 4 KiB at a time, which would make a system call of each quarter of a record.

use std::{
    cell::RefCell,
    io,
    ops::Deref,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

use super::{Shared, rest::give};

/// Taken from the kernel at once: four records of bulk (RFC 8446 §5.1).
const AHEAD: usize = 64 * 1024;
/// A rest of so much is kept where it was read into; a shorter one is copied, and does not hold so large a buffer.
const LONG: usize = 16 * 1024;
/// Buffers that a thread keeps for its next reads.
const SPARES: usize = 2;

thread_local! {
    /// One is enough while what was read is asked for at once; idle connections hold nothing.
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A thread's buffer. Whoever drops it gives it to his own thread.
struct Lent(Box<[u8]>);

impl Lent {
    fn new() -> Self {
        let spare = SPARE.with_borrow_mut(Vec::pop);
        Self(spare.unwrap_or_else(|| vec![0; AHEAD].into()))
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        // A thread that ends keeps none.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARES {
                spare.push(buffer);
            }
        });
    }
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
            give(unread, buffer);
            return Poll::Ready(Ok(()));
        }
        let mut lent = Lent::new();
        let mut ahead = ReadBuf::new(&mut lent.0);
        ready!(Pin::new(socket).poll_read(cx, &mut ahead))?;
        let filled = ahead.filled();
        let (now, later) = filled.split_at(filled.len().min(buffer.remaining()));
        buffer.put_slice(now);
        if later.len() >= LONG {
            let later = now.len()..filled.len();
            *unread = Bytes::from_owner(lent).slice(later);
        } else if !later.is_empty() {
            *unread = Bytes::copy_from_slice(later);
        }
        Poll::Ready(Ok(()))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn spare() -> usize {
        SPARE.with_borrow(Vec::len)
    }

    /// Read in pieces of a quarter of a record, as rustls asks for them.
    async fn read(ahead: &mut Ahead, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < count {
            let mut piece = vec![0; 4096.min(count - all.len())];
            ahead.read_exact(&mut piece).await.unwrap();
            all.extend(piece);
        }
        all
    }

    #[tokio::test]
    async fn what_was_read_ahead_comes_in_order_and_holds_a_buffer_only_where_it_is_long() {
        let (mut peer, socket) = UnixStream::pair().unwrap();
        let mut ahead = Ahead::from(socket);
        let sent: Vec<u8> = (0..AHEAD).map(|n| (n * 31 % 251) as u8).collect();
        peer.write_all(&sent).await.unwrap();
        let first = read(&mut ahead, 4096).await;
        assert!(ahead.has_unread());
        assert_eq!(spare(), 0, "the rest lies in it");
        let rest = read(&mut ahead, AHEAD - 4096).await;
        assert!([first, rest].concat() == sent);
        assert!(!ahead.has_unread());
        assert_eq!(spare(), 1, "it is back");

        peer.write_all(sent.get(..LONG).unwrap()).await.unwrap();
        assert_eq!(read(&mut ahead, 4096).await, sent.get(..4096).unwrap());
        assert!(ahead.has_unread());
        assert_eq!(spare(), 1, "what is short was copied");
        drop(ahead);
        assert_eq!(spare(), 1);
    }
}
