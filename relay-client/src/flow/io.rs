//! A flow for those who read and write bytes: TLS, HTTP, the egress pump.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Broken, FULL, Flow, Prefixed, rest::give};

/// Reads, writes and ends as a TCP stream's: EOF is FIN, `shutdown` says FIN, anything else is an error, and dropping it
/// before both ends have been said resets it.
pub struct FlowIo {
    flow: Box<dyn Flow>,
    /// Received, not yet read.
    unread: Bytes,
    /// Taken from the writer, not yet sent.
    unsent: Bytes,
    ended: bool,
    finished: bool,
}

impl fmt::Debug for FlowIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowIo")
            .field("ended", &self.ended)
            .field("finished", &self.finished)
            .finish_non_exhaustive()
    }
}

impl FlowIo {
    /// Take over a flow.
    pub fn new(flow: impl Flow + 'static) -> Self {
        Self {
            flow: Box::new(flow),
            unread: Bytes::new(),
            unsent: Bytes::new(),
            ended: false,
            finished: false,
        }
    }

    /// Reset both directions.
    pub fn reset(&mut self) {
        self.flow.reset();
    }

    /// Has it been reset, though nobody reads it?
    pub fn is_broken(&mut self, cx: &mut Context<'_>) -> bool {
        self.flow.poll_broken(cx).is_ready()
    }

    /// The flow again, with what was received of it and not read. What was written is on its way first.
    ///
    /// # Errors
    /// The flow broke.
    pub async fn into_flow(mut self) -> io::Result<Prefixed<Box<dyn Flow>>> {
        std::future::poll_fn(|cx| self.poll_unsent(cx)).await?;
        Ok(Prefixed::new(self.unread, self.flow))
    }

    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            ready!(self.flow.poll_write(cx, &mut self.unsent)).map_err(error)?;
        }
        self.unsent = Bytes::new();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for FlowIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.unread.is_empty() && !this.ended {
            match ready!(this.flow.poll_read(cx)).map_err(error)? {
                Some(chunk) => this.unread = chunk,
                None => this.ended = true,
            }
        }
        if this.ended && this.finished {
            ready!(this.flow.poll_close(cx));
        }
        give(&mut this.unread, buffer);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for FlowIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_unsent(cx))?;
        let count = bytes.len().min(FULL);
        self.unsent = Bytes::copy_from_slice(bytes.get(..count).unwrap_or_default());
        // What does not go now goes with the next write, flush or end.
        if let Poll::Ready(Err(error)) = self.poll_unsent(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unsent(cx))?;
        self.flow.poll_flush(cx).map_err(error)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unsent(cx))?;
        if !self.finished {
            ready!(self.flow.poll_finish(cx)).map_err(error)?;
            self.finished = true;
        }
        if self.ended {
            ready!(self.flow.poll_close(cx));
        }
        Poll::Ready(Ok(()))
    }
}

fn error(broken: Broken) -> io::Error {
    let kind = match broken {
        Broken::Reset | Broken::Refused | Broken::Lost => io::ErrorKind::ConnectionReset,
        Broken::Truncated => io::ErrorKind::UnexpectedEof,
        Broken::Malformed => io::ErrorKind::InvalidData,
    };
    io::Error::new(kind, broken)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::Bytes;
    use tokio::io::AsyncReadExt;

    use super::FlowIo;
    use crate::flow::testing::Watched;

    #[tokio::test]
    async fn what_was_read_is_not_held() {
        let chunk = Bytes::from(vec![7; 16 * 1024]);
        let mut below = Watched::default();
        below.gives.push_back(chunk.clone());
        let mut flow = FlowIo::new(below);
        let mut read = vec![0; chunk.len()];
        flow.read_exact(&mut read).await.unwrap();
        assert!(chunk.is_unique() && chunk == read);
    }
}
