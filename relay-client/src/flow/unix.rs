//! What unix sockets do otherwise than TCP: resets, of which they have none of their own, and connections to who is busy.
//!
//! A unix stream peer reads ECONNRESET instead of EOF only when the other end closes with data left unread in its queue
//! (Linux, `unix_release_sock`). So one byte that has been passed on already stays in the queue until more comes: a
//! flow dropped before its orderly end then closes with a reset. A peer that has never written anything cannot be told
//! a reset from an end; docs/relay.md says so.

use std::{
    io,
    path::Path,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::BytesMut;
use rustix::net::RecvFlags;
use tokio::{io::Interest, net::UnixStream, time::sleep};

use super::Shared;

/// Where there is no room it is looked again after this …
const SOON: Duration = Duration::from_millis(1);
/// … and, as long as there is none, less and less often, down to this.
const SELDOM: Duration = Duration::from_millis(64);

/// Connect to the socket at this path. Whoever listens there with as many waiting as the kernel's queue takes is waited for, as over
/// TCP: who does not block is told EAGAIN instead (Linux, `unix_stream_connect`). How long is the caller's to bound.
///
/// # Errors
/// As [`UnixStream::connect`].
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let mut pause = SOON;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                sleep(pause).await;
                pause = (pause * 2).min(SELDOM);
            }
            connected => return connected,
        }
    }
}

/// Read at most `size` bytes, leaving the last one in the queue where that is all there is. `kept`: the queue's
/// first byte was returned before.
///
/// # Errors
/// As a read; `WouldBlock` has cleared the readiness.
pub(super) fn try_read(
    socket: &Shared,
    buffer: &mut BytesMut,
    size: usize,
    kept: &mut bool,
) -> io::Result<usize> {
    // Looked at before the queue: nothing is added to it after the peer closed.
    let closed = read_closed(socket);
    socket.try_io(Interest::READABLE, || {
        let mut queued = usize::try_from(rustix::io::ioctl_fionread(socket)?).unwrap_or(usize::MAX);
        if queued <= usize::from(*kept) {
            return nothing(socket, closed);
        }
        if std::mem::take(kept) {
            queued -= rustix::net::recv(socket, &mut [0u8; 1], RecvFlags::empty())?.0;
        }
        let all_but_one = queued.saturating_sub(1);
        // The last one comes on top of all others.
        let most = size.saturating_sub(usize::from(all_but_one == size));
        let taken = receive(socket, buffer, all_but_one.min(most), RecvFlags::empty())?;
        if taken < all_but_one {
            return Ok(taken);
        }
        // An urgent byte is counted and never read: the last one may not be there. What was taken before is passed on then.
        match receive(socket, buffer, 1, RecvFlags::PEEK) {
            Ok(1) => {
                *kept = true;
                Ok(taken + 1)
            }
            _ if taken > 0 => Ok(taken),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => nothing(socket, closed),
        }
    })
}

/// Take the byte that was kept, before an orderly close.
pub(super) fn discard(socket: &Shared) {
    // Nothing there, or the peer is gone: then there is nothing left to spoil.
    let _ = rustix::net::recv(socket, &mut [0u8; 1], RecvFlags::DONTWAIT);
}

fn receive(
    socket: &Shared,
    buffer: &mut BytesMut,
    count: usize,
    flags: RecvFlags,
) -> io::Result<usize> {
    if count == 0 {
        return Ok(0);
    }
    let start = buffer.len();
    buffer.resize(start + count, 0);
    let received = match buffer.get_mut(start..) {
        Some(slot) => rustix::net::recv(socket, slot, flags),
        None => Ok((0, 0)),
    };
    let received = received.map(|(count, _)| count);
    buffer.truncate(start + received.unwrap_or(0));
    Ok(received?)
}

/// There is nothing fresh. Nor will there be, where the peer has closed: then it is EOF, or the error that ended it.
fn nothing(socket: &Shared, closed: bool) -> io::Result<usize> {
    if !closed {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    rustix::net::sockopt::socket_error(socket)??;
    Ok(0)
}

fn read_closed(socket: &Shared) -> bool {
    let ready =
        pin!(socket.ready(Interest::READABLE)).poll(&mut Context::from_waker(Waker::noop()));
    matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        io,
        os::{fd::OwnedFd, unix::net::UnixListener},
        pin::pin,
        time::Duration,
    };

    use socket2::{Domain, SockAddr, Socket, Type};
    use tokio::{net::UnixStream, time::timeout};

    use super::connect;

    #[tokio::test(start_paused = true)]
    async fn who_is_busy_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let busy = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        busy.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        busy.listen(0).unwrap();
        let mut waiting = Vec::new();
        let full = loop {
            match UnixStream::connect(&path).await {
                Ok(one) => waiting.push(one),
                Err(error) => break error.kind(),
            }
        };
        assert_eq!(full, io::ErrorKind::WouldBlock);
        let mut connecting = pin!(connect(&path));
        let early = timeout(Duration::from_secs(1), &mut connecting).await;
        assert!(early.is_err(), "{early:?}");
        let listener = UnixListener::from(OwnedFd::from(busy));
        listener.accept().unwrap();
        connecting.await.unwrap();
    }
}
