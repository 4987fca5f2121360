//! What a connection's streams say in one turn of its driver, in one piece.
//!
//! `h2` writes and flushes each DATA frame of 256 bytes or more by itself: a record of TLS and a system call, and as many for who receives
//! them. So one that is short is kept until the driver's turn ends. What is shorter, and frames of other kinds, `h2` gathers itself.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Kept at most: one record of TLS (RFC 8446 §5.1). Taken anew for every turn, which costs little as long as the allocator's threads keep
/// pieces of this size (`tcache_max`).
const ROOM: usize = 16 * 1024;
/// A longer write goes by itself: copying it would cost more than the record and the call that are spared. Room for the heads is in it: a read of
/// 4 KiB is short.
const SHORT: usize = 4 * 1024 + 64;

/// What is done with what is written on this thread.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It leaves with the flush that follows, as no driver has a turn that will end.
    None,
    /// It may wait for the turn's end.
    Lasts,
    /// Something waits for that.
    Owes,
}

thread_local! {
    static TURN: Cell<Turn> = const { Cell::new(Turn::None) };
}

/// Whatever becomes of a turn, its end is one.
struct Ends(Turn);

impl Drop for Ends {
    fn drop(&mut self) {
        TURN.set(self.0);
    }
}

/// One turn of a driver, at whose end nothing waits for more: where it did not say that it has no more, it is driven once more.
pub(super) fn turn<T>(
    cx: &mut Context<'_>,
    mut drive: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    let _ends = Ends(TURN.replace(Turn::Lasts));
    let driven = drive(cx);
    // Otherwise it is about to have another turn, or has none any more.
    if TURN.replace(Turn::None) == Turn::Owes && driven.is_pending() {
        return drive(cx);
    }
    driven
}

/// A connection that gathers what is written in one turn of its driver.
#[derive(Debug)]
pub struct Gathered<IO> {
    io: IO,
    /// Taken for as long as there is something.
    kept: Vec<u8>,
    /// Of what is kept.
    written: usize,
    /// What was written last was a DATA frame, and has not been flushed: if no other follows, that will be said.
    speaks: bool,
    /// Not all was taken when it was last to leave: whoever has more to say hears of it at once.
    full: bool,
}

impl<IO> Gathered<IO> {
    /// Over this one. Its driver's turns are those of an [`Aside`](super::Aside): without one, what is written leaves when it is flushed.
    pub fn new(io: IO) -> Self {
        Self {
            io,
            kept: Vec::new(),
            written: 0,
            speaks: false,
            full: false,
        }
    }
}

impl<IO: AsyncWrite + Unpin> Gathered<IO> {
    /// Write what was kept.
    fn poll_kept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if TURN.get() == Turn::Owes {
            // It leaves now, or as soon as there is room for it.
            TURN.set(Turn::Lasts);
        }
        self.full = true;
        while let Some(rest @ [_, ..]) = self.kept.get(self.written..) {
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        self.full = false;
        self.kept = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Gathered<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Gathered<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let length = slices.iter().map(|slice| slice.len()).sum();
        // The payload of a long DATA frame is a piece of its own.
        let data = slices.iter().filter(|slice| !slice.is_empty()).count() > 1;
        if this.kept.len() + length > ROOM || length > SHORT {
            ready!(this.poll_kept(cx))?;
        }
        this.speaks = data && length <= SHORT;
        if !this.speaks && this.kept.is_empty() {
            return Pin::new(&mut this.io).poll_write_vectored(cx, slices);
        }
        if this.kept.is_empty() {
            this.kept.reserve_exact(ROOM);
        }
        for slice in slices {
            this.kept.extend_from_slice(slice);
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // `h2` flushes behind each, and once more when it has no other.
        if std::mem::take(&mut this.speaks) && !this.full && TURN.get() != Turn::None {
            TURN.set(Turn::Owes);
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_kept(cx))?;
        this.full = true;
        ready!(Pin::new(&mut this.io).poll_flush(cx))?;
        this.full = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_kept(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
