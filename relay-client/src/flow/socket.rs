//! A flow straight on a TCP or unix socket.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::Interest;

use super::{Broken, FULL, Flow, Shared, unix};

/// First read of an idle flow; most flows never need more.
const SMALL: usize = 4 * 1024;
/// Largest read: where copying stops getting cheaper, and what is read goes on in whole frames.
const LARGE: usize = FULL;

pub(super) type Watch = Pin<Box<dyn Future<Output = Broken> + Send>>;

/// A TCP or unix stream with its ends told apart. Until both have been said its close is a reset, even one that the kernel
/// does for a process that was killed.
pub struct SocketFlow {
    /// Declared before `socket`: it holds a clone, and the last one to go closes.
    watch: Option<Watch>,
    socket: Shared,
    buffer: BytesMut,
    size: usize,
    /// Unix only: the first byte of the kernel's queue has been passed on already.
    kept: bool,
    received_fin: bool,
    sent_fin: bool,
    aborted: bool,
}

impl std::fmt::Debug for SocketFlow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SocketFlow")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl SocketFlow {
    /// Take over a connected socket.
    pub fn new(socket: impl Into<Shared>) -> Self {
        let socket = socket.into();
        socket.no_delay();
        socket.close_resets();
        Self {
            watch: None,
            socket,
            buffer: BytesMut::new(),
            size: SMALL,
            kept: false,
            received_fin: false,
            sent_fin: false,
            aborted: false,
        }
    }

    /// Both ends have been said: what is left to send goes out, whatever becomes of this process.
    fn may_close(&self) {
        if self.received_fin && self.sent_fin && !self.aborted {
            self.socket.close_finishes();
        }
    }

    fn try_read(&mut self) -> io::Result<usize> {
        if self.buffer.capacity() < self.size / 2 {
            self.buffer.reserve(self.size);
        }
        match &self.socket {
            Shared::Tcp(_) => self.socket.try_read(&mut self.buffer, self.size),
            Shared::Unix(_) => {
                unix::try_read(&self.socket, &mut self.buffer, self.size, &mut self.kept)
            }
        }
    }
}

impl Flow for SocketFlow {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        loop {
            let Poll::Ready(ready) = self.socket.poll_read_ready(cx) else {
                // Idle flows hold no buffer, and who reads hears of a reset without a watch.
                self.buffer = BytesMut::new();
                self.watch = None;
                return Poll::Pending;
            };
            ready.map_err(broken)?;
            match self.try_read() {
                Ok(0) => {
                    self.received_fin = true;
                    self.may_close();
                    self.buffer = BytesMut::new();
                    return Poll::Ready(Ok(None));
                }
                Ok(count) => {
                    self.size = if count >= self.size {
                        (self.size * 4).min(LARGE)
                    } else {
                        self.size
                    };
                    return Poll::Ready(Ok(Some(self.buffer.split().freeze())));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(broken(error))),
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Broken>> {
        loop {
            ready!(self.socket.poll_write_ready(cx)).map_err(broken)?;
            match self.socket.try_write(chunk) {
                Ok(count) => {
                    chunk.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(broken(error))),
            }
        }
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.socket.shutdown().map_err(broken)?;
        self.sent_fin = true;
        self.may_close();
        Poll::Ready(Ok(()))
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        let socket = &self.socket;
        self.watch
            .get_or_insert_with(|| watch(socket.clone()))
            .as_mut()
            .poll(cx)
    }

    fn reset(&mut self) {
        self.aborted = true;
    }
}

impl Drop for SocketFlow {
    fn drop(&mut self) {
        self.watch = None;
        if self.aborted || !self.received_fin || !self.sent_fin {
            self.socket.close_resets();
        } else if self.kept {
            // What is left in the queue would turn this orderly close into a reset.
            unix::discard(&self.socket);
        }
    }
}

/// Completes when the socket is in error: a reset that nobody reads.
pub(super) fn watch(socket: Shared) -> Watch {
    Box::pin(async move {
        match socket.ready(Interest::ERROR).await {
            Ok(_) => Broken::Reset,
            Err(error) => broken(error),
        }
    })
}

/// The kernel's word for it.
pub(super) fn broken(error: io::Error) -> Broken {
    match error.kind() {
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected => Broken::Reset,
        io::ErrorKind::UnexpectedEof => Broken::Truncated,
        io::ErrorKind::InvalidData => Broken::Malformed,
        _ => Broken::Lost,
    }
}

#[cfg(test)]
mod tests;
