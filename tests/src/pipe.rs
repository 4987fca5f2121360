//! Byte streams that end as TCP's do, whatever carries them: a connection, a stream of one, capsules.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::tasks::Tasks;

/// One such stream.
pub enum Pipe {
    /// A connection of its own.
    Tcp(TcpStream),
    /// Inside something else.
    Carried(Carried),
}

/// The near end of a stream inside something else. What carries it is let go with it.
pub struct Carried {
    down: UnboundedReceiver<io::Result<Bytes>>,
    left: Bytes,
    up: UnboundedSender<Option<Bytes>>,
    _tasks: Tasks,
}

/// What carries a stream does so by these.
pub struct Far {
    /// What arrives; dropped, that is FIN, and after an error RST.
    pub down: UnboundedSender<io::Result<Bytes>>,
    /// What is sent; `None` is FIN.
    pub up: UnboundedReceiver<Option<Bytes>>,
}

/// RST, as a reader sees it.
pub fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl Pipe {
    /// A stream carried by the task that `carry` makes of its far end.
    pub fn carried<T: Future<Output = ()> + Send + 'static>(carry: impl FnOnce(Far) -> T) -> Self {
        let (down, from) = unbounded_channel();
        let (to, up) = unbounded_channel();
        let tasks = Tasks::default();
        tasks.spawn(carry(Far { down, up }));
        Self::Carried(Carried {
            down: from,
            left: Bytes::new(),
            up: to,
            _tasks: tasks,
        })
    }
}

impl Carried {
    fn send(&self, what: Option<Bytes>) -> io::Result<()> {
        self.up.send(what).map_err(|_| reset())
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let carried = match self.get_mut() {
            Self::Tcp(stream) => return Pin::new(stream).poll_read(cx, buffer),
            Self::Carried(carried) => carried,
        };
        while carried.left.is_empty() {
            match ready!(carried.down.poll_recv(cx)) {
                Some(bytes) => carried.left = bytes?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = carried.left.len().min(buffer.remaining());
        buffer.put_slice(&carried.left.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Carried(carried) => {
                let sent = carried.send(Some(Bytes::copy_from_slice(bytes)));
                Poll::Ready(sent.map(|()| bytes.len()))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Carried(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Carried(carried) => Poll::Ready(carried.send(None)),
        }
    }
}
