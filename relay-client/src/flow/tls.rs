//! A flow through TLS: close_notify is FIN, a TCP end without it is a cut (RFC 8446 §6.1).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio_rustls::TlsStream;

use super::{
    Ahead, Broken, Flow, Shared,
    socket::{Watch, broken, watch},
};

/// One TLS record's payload at most (RFC 8446 §5.1). What is read at once is no more: such a record, or shorter ones.
const RECORD: usize = 16 * 1024;

/// A TLS connection, client's or server's end, with its ends told apart.
pub struct TlsFlow {
    watch: Option<Watch>,
    stream: TlsStream<Ahead>,
    received_fin: bool,
    sent_fin: bool,
    aborted: bool,
    /// How it broke, behind bytes that were passed on first.
    broken: Option<Broken>,
}

impl std::fmt::Debug for TlsFlow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsFlow")
            .field("socket", self.stream.get_ref().0)
            .finish_non_exhaustive()
    }
}

impl TlsFlow {
    /// Take over a connection whose handshake is done.
    pub fn new(stream: impl Into<TlsStream<Ahead>>) -> Self {
        let stream = stream.into();
        let socket: &Shared = stream.get_ref().0;
        // As on a plain socket.
        socket.no_delay();
        socket.close_resets();
        Self {
            watch: None,
            stream,
            received_fin: false,
            sent_fin: false,
            aborted: false,
            broken: None,
        }
    }
}

impl Flow for TlsFlow {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        if let Some(broken) = self.broken {
            return Poll::Ready(Err(broken));
        }
        // Read only once there is something: idle flows hold no buffer of ours, and who reads needs no watch.
        let Poll::Ready(readable) = self.poll_readable(cx) else {
            self.watch = None;
            return Poll::Pending;
        };
        readable.map_err(broken)?;
        let bytes = ready!(self.poll_records(cx))?;
        if bytes.is_empty() {
            self.received_fin = true;
            self.may_close();
            return Poll::Ready(Ok(None));
        }
        Poll::Ready(Ok(Some(bytes.freeze())))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Broken>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, chunk)).map_err(broken)?;
        if count == 0 {
            return Poll::Ready(Err(Broken::Lost));
        }
        chunk.advance(count);
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Pin::new(&mut self.stream).poll_flush(cx).map_err(broken)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx)).map_err(broken)?;
        self.sent_fin = true;
        self.may_close();
        Poll::Ready(Ok(()))
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        let socket: &Shared = self.stream.get_ref().0;
        self.watch
            .get_or_insert_with(|| watch(socket.clone()))
            .as_mut()
            .poll(cx)
    }

    fn reset(&mut self) {
        self.aborted = true;
    }
}

impl TlsFlow {
    /// What there is of whole records, in a buffer no longer than that: it must not be pinned for as long as the peer takes to
    /// read it. Nothing: the end.
    fn poll_records(&mut self, cx: &mut Context<'_>) -> Poll<Result<BytesMut, Broken>> {
        let mut bytes = BytesMut::new();
        while bytes.len() < RECORD {
            let record = match Pin::new(&mut self.stream).poll_fill_buf(cx) {
                Poll::Ready(Ok(record)) => record,
                Poll::Ready(Err(error)) => {
                    let broken = broken(error);
                    self.broken = Some(broken);
                    if bytes.is_empty() {
                        return Poll::Ready(Err(broken));
                    }
                    break;
                }
                Poll::Pending if bytes.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            };
            let count = record.len();
            // An end stays one, and what does not fit is the next to be read, in one piece.
            if count == 0 || (!bytes.is_empty() && bytes.len() + count > RECORD) {
                break;
            }
            bytes.extend_from_slice(record);
            Pin::new(&mut self.stream).consume(count);
        }
        Poll::Ready(Ok(bytes))
    }

    /// As on a plain socket.
    fn may_close(&self) {
        if self.received_fin && self.sent_fin && !self.aborted {
            self.stream.get_ref().0.close_finishes();
        }
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (socket, session) = self.stream.get_ref();
        // Plaintext may wait inside rustls while the socket has nothing; `wants_read` is false then. So may what was read
        // ahead.
        if session.wants_read() && !socket.has_unread() {
            socket.poll_read_ready(cx)
        } else {
            Poll::Ready(Ok(()))
        }
    }
}

impl Drop for TlsFlow {
    fn drop(&mut self) {
        self.watch = None;
        if self.aborted || !self.received_fin || !self.sent_fin {
            self.stream.get_ref().0.close_resets();
        }
    }
}

#[cfg(test)]
mod tests;
