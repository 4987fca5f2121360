//! The strict reader in front of the HTTP library: it sees only bytes that were judged.
//!
//! What is refused here reaches the library as one request of our own making, which is answered with the refusal and
//! `Connection: close`; nothing after it is read. As on the gateway's listeners (ADR 3).

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use http::Uri;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::{
    flow::Shared,
    request::{Event, HeadError, RequestStream},
};

/// Stands in for a request that was refused. In the middle of a body it is nothing that a body may go on with.
const STAND_IN: &[u8] = b"GET /malformed HTTP/1.1\r\nHost: malformed\r\nConnection: close\r\n\r\n";
/// Read at once.
const CHUNK: usize = 16 * 1024;
/// How long and how much of what a program still sends is taken before the close, so that its answer arrives (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// Shared between the reader and the service of one connection.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    refused: Mutex<Option<HeadError>>,
    /// The last head's target was an absolute URI without a path, which the library reads as "/".
    pathless: AtomicBool,
}

impl Verdict {
    /// The refusal for which a stand-in request was given.
    pub(super) fn take(&self) -> Option<HeadError> {
        self.refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Did the last head's target end behind its authority? Then it names the server, not its root (RFC 9110 §9.3.7).
    pub(super) fn is_pathless(&self) -> bool {
        self.pathless.load(Ordering::Acquire)
    }

    fn set(&self, error: HeadError) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Messages,
    /// Behind a CONNECT.
    Opaque,
    /// So many bytes of the stand-in are given.
    StandIn(usize),
    Lingering,
}

/// A program's connection, judged.
#[derive(Debug)]
pub(super) struct Strict {
    socket: Shared,
    judge: RequestStream,
    verdict: Arc<Verdict>,
    /// Received, not yet given on.
    buffer: BytesMut,
    /// How many bytes at the front of `buffer` may be given on.
    sound: usize,
    phase: Phase,
    linger: Option<Pin<Box<Sleep>>>,
    lingered: usize,
}

impl Strict {
    /// And where its refusals are told.
    pub(super) fn new(socket: Shared) -> (Self, Arc<Verdict>) {
        let verdict = Arc::<Verdict>::default();
        let strict = Self {
            socket,
            judge: RequestStream::new(),
            verdict: verdict.clone(),
            buffer: BytesMut::new(),
            sound: 0,
            phase: Phase::Messages,
            linger: None,
            lingered: 0,
        };
        (strict, verdict)
    }

    /// After an upgrade: the connection, and what was read of it but not given on.
    pub(super) fn into_parts(self) -> (Shared, Bytes) {
        (self.socket, self.buffer.freeze())
    }

    fn refuse(&mut self, error: HeadError) {
        self.verdict.set(error);
        self.phase = Phase::StandIn(0);
    }

    /// Judge the front of the buffer. `false`: more bytes are needed.
    fn advance(&mut self) -> bool {
        loop {
            match self.judge.step(&self.buffer) {
                Event::NeedMore => return false,
                Event::End => {}
                // What the library cannot read it would answer by itself, and nobody would hear of it.
                Event::Head(head) if Uri::try_from(head.target()).is_err() => {
                    self.refuse(HeadError::Target);
                    return true;
                }
                Event::Head(head) => {
                    let pathless = head.is_pathless();
                    self.verdict.pathless.store(pathless, Ordering::Release);
                    self.sound = head.len();
                    return true;
                }
                Event::Body(count) => {
                    self.sound = count;
                    return true;
                }
                Event::Opaque => {
                    self.phase = Phase::Opaque;
                    return true;
                }
                Event::Malformed(error) => {
                    self.refuse(error);
                    return true;
                }
            }
        }
    }

    fn give(&mut self, buf: &mut ReadBuf<'_>, most: usize) {
        let count = most.min(buf.remaining()).min(self.buffer.len());
        buf.put_slice(self.buffer.get(..count).unwrap_or_default());
        self.buffer.advance(count);
        self.sound = self.sound.saturating_sub(count);
    }

    /// Read more into the buffer. Ready(0) at the end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut chunk = [0_u8; CHUNK];
        let mut buf = ReadBuf::new(&mut chunk);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buf))?;
        self.buffer.extend_from_slice(buf.filled());
        Poll::Ready(Ok(buf.filled().len()))
    }
}

impl AsyncRead for Strict {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match this.phase {
                Phase::Opaque if this.buffer.is_empty() => {
                    return Pin::new(&mut this.socket).poll_read(cx, buf);
                }
                Phase::Opaque => {
                    this.give(buf, usize::MAX);
                    return Poll::Ready(Ok(()));
                }
                Phase::StandIn(given) => {
                    let rest = STAND_IN.get(given..).unwrap_or_default();
                    if rest.is_empty() {
                        // Nothing comes after it. Not an end, which the library takes for a client that has left
                        // before its answer; the answer's `Connection: close` ends this.
                        return Poll::Pending;
                    }
                    let count = rest.len().min(buf.remaining());
                    buf.put_slice(rest.get(..count).unwrap_or_default());
                    this.phase = Phase::StandIn(given + count);
                    return Poll::Ready(Ok(()));
                }
                Phase::Lingering => return Poll::Ready(Ok(())),
                Phase::Messages if this.sound > 0 => {
                    this.give(buf, this.sound);
                    return Poll::Ready(Ok(()));
                }
                Phase::Messages => {
                    if !this.advance() && ready!(this.poll_more(cx))? == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

impl AsyncWrite for Strict {
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

    /// Close so that the last answer arrives: FIN, then take what the program still sends for a moment.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.phase != Phase::Lingering {
            ready!(Pin::new(&mut this.socket).poll_shutdown(cx))?;
            this.phase = Phase::Lingering;
        }
        let linger = this.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if linger.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        loop {
            this.buffer.clear();
            match ready!(this.poll_more(cx)) {
                Ok(count) if count > 0 && this.lingered < LINGER_BYTES => this.lingered += count,
                Ok(_) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
    };

    use super::{STAND_IN, Strict};
    use crate::request::HeadError;

    /// What the library gets of what a program sends and ends.
    async fn given(sent: &[u8]) -> (Vec<u8>, Option<HeadError>) {
        let (mut program, socket) = UnixStream::pair().unwrap();
        program.write_all(sent).await.unwrap();
        program.shutdown().await.unwrap();
        let (mut strict, verdict) = Strict::new(socket.into());
        let mut given = Vec::new();
        // Behind the stand-in there is no end.
        while !given.ends_with(STAND_IN) && strict.read_buf(&mut given).await.unwrap() > 0 {}
        (given, verdict.take())
    }

    #[tokio::test]
    async fn sound_messages_pass_as_they_are() {
        for sent in [
            &b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\nGET http://b.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n"[..],
            b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            // What follows a CONNECT is no request.
            b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n\x16\x03\x01\0\n\n",
            // Cut in the middle, which is for the library to notice.
            b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nabc",
        ] {
            assert_eq!(given(sent).await, (sent.to_vec(), None));
        }
    }

    #[tokio::test]
    async fn what_two_would_read_differently_nobody_reads() {
        let table: [(&[u8], HeadError); 7] = [
            (b"GET http://a.test/ HTTP/1.1\nHost: a.test\n\n", HeadError::BareLf),
            (b"GET http://a.test/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", HeadError::RepeatedHost),
            (b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX: a\r\n b\r\n\r\n", HeadError::Folding),
            (b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", HeadError::TwoFramings),
            (b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc", HeadError::ConnectContent),
            (b"GET http://a.test/#b HTTP/1.1\r\nHost: a.test\r\n\r\n", HeadError::Target),
            (b"GET http://[a HTTP/1.1\r\nHost: a.test\r\n\r\n", HeadError::Target),
        ];
        for (sent, error) in table {
            let told = String::from_utf8_lossy(sent);
            assert_eq!(
                given(sent).await,
                (STAND_IN.to_vec(), Some(error)),
                "{told}"
            );
        }
    }
}
