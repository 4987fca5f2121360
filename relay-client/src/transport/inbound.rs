//! When something came last on a connection. Whatever it is, its path carries: the answer to a PING may stand behind all that was sent
//! before it, and windows are large.

use std::{
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use h2::{Ping, PingPong, Pong};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, timeout_at},
};

use super::batch;

/// When something came last. Clones share it.
#[derive(Clone, Debug)]
pub struct Inbound(Arc<Mutex<Instant>>);

impl Inbound {
    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn came(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// The answer to a PING; `None` where nothing at all has come for so long since it was asked.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn answered(
        &self,
        ping: &mut PingPong,
        patience: Duration,
    ) -> Option<Result<Pong, h2::Error>> {
        let mut answer = pin!(ping.ping(Ping::opaque()));
        let mut until = Instant::now() + patience;
        loop {
            if let Ok(answered) = timeout_at(until, answer.as_mut()).await {
                return Some(answered);
            }
            let next = self.last() + patience;
            if next <= until {
                return None;
            }
            until = next;
        }
    }
}

/// A connection that is listened to.
#[derive(Debug)]
pub struct Heard<IO> {
    io: IO,
    inbound: Inbound,
}

impl<IO> Heard<IO> {
    /// And what it tells.
    pub fn new(io: IO) -> (Self, Inbound) {
        let inbound = Inbound(Arc::new(Mutex::new(Instant::now())));
        let heard = Self {
            io,
            inbound: inbound.clone(),
        };
        (heard, inbound)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Heard<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        let count = buffer.filled().len().saturating_sub(before);
        if count > 0 {
            batch::moved(count);
            self.inbound.came();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Heard<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        batch::moved(count);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, slices))?;
        batch::moved(count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
