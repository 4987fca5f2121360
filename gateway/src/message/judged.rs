//! The strict reader in front of the HTTP library: it sees only bytes that were judged.
//!
//! What is refused here reaches the library as one request of our own making, which the service answers with the
//! refusal and `Connection: close`; nothing after it is read.

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

use bytes::{Buf, BytesMut};
use http::Uri;
use sluicegate_policy::{Denial, Target};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep, sleep_until},
};

use super::{headers::raw_prefers_html, misspelt};
use crate::{
    egress::{Guarded, Timeouts},
    listen::Downstream,
    sniff::{Event, HeadError, RequestStream},
};

/// Stands in for a request that was refused.
const STAND_IN: &[u8] = b"GET /malformed HTTP/1.1\r\nHost: malformed\r\nConnection: close\r\n\r\n";
/// A connection without a request may idle this long where nothing else is said.
const LONG_IDLE: Duration = Duration::from_secs(3600);
/// Read at once.
const CHUNK: usize = 16 * 1024;
/// While nobody reads, this often: has the client reset the connection?
const LOOK: Duration = Duration::from_secs(1);
/// How long and how much of a refused client's unread bytes are taken before the close (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// Shared between the reader and the service of one connection.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    refused: Mutex<Option<Denial>>,
    /// Where the head that was refused leads, as far as it could be read.
    leads_to: Mutex<Option<Box<Target>>>,
    /// It is the path or query of its target that is malformed.
    in_path: AtomicBool,
    /// Who is refused would rather have a page.
    html: AtomicBool,
    /// The connection's end was in order.
    released: AtomicBool,
    /// More had come with the last head than its head: whoever sent it did not wait for the answer.
    behind: AtomicBool,
    /// The last head's target was an absolute URI without a path, which the library reads as "/".
    pathless: AtomicBool,
    /// A request waits for its answer.
    asked: AtomicBool,
    /// Something was asked here by somebody who is known.
    trusted: AtomicBool,
}

impl Verdict {
    /// The refusal for which a stand-in request was given.
    pub(crate) fn take(&self) -> Option<Denial> {
        self.refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Where the head leads that was refused, where that can be told.
    pub(crate) fn leads_to(&self) -> Option<Target> {
        let mut leads_to = self.leads_to.lock().unwrap_or_else(PoisonError::into_inner);
        leads_to.take().map(|target| *target)
    }

    /// Is it the path or query of its target that the head was refused for?
    pub(crate) fn in_path(&self) -> bool {
        self.in_path.load(Ordering::Acquire)
    }

    /// Did the head that was refused ask for a page?
    pub(crate) fn html(&self) -> bool {
        self.html.load(Ordering::Acquire)
    }

    /// Did bytes come right behind the last head? (Of a body, or of what the client hopes will follow.)
    pub(crate) fn behind(&self) -> bool {
        self.behind.load(Ordering::Acquire)
    }

    /// Did the last head's target end behind its authority? Then it names the server, not its root (RFC 9110 §9.3.7).
    pub(crate) fn pathless(&self) -> bool {
        self.pathless.load(Ordering::Acquire)
    }

    /// The last request has its answer.
    pub(crate) fn answered(&self) {
        self.asked.store(false, Ordering::Release);
    }

    /// Somebody who is known has asked, and may idle as long as clients may. A stranger is waited for as for a first head.
    pub(crate) fn trust(&self) {
        self.trusted.store(true, Ordering::Release);
    }

    fn trusts(&self) -> bool {
        self.trusted.load(Ordering::Acquire)
    }

    /// The connection ended in order: it may close with FIN.
    pub(crate) fn release(&self) {
        self.released.store(true, Ordering::Release);
    }

    /// Its end is not in order after all.
    pub(crate) fn arm(&self) {
        self.released.store(false, Ordering::Release);
    }

    /// `head` is what was refused, as far as it came; empty where that was none.
    fn set(&self, denial: Denial, head: &[u8]) {
        let html = !head.is_empty() && raw_prefers_html(head, denial);
        self.html.store(html, Ordering::Release);
        let in_path = misspelt::in_path(denial, head);
        self.in_path.store(in_path, Ordering::Release);
        let leads_to = misspelt::leads_to(denial, head).map(Box::new);
        *self.leads_to.lock().unwrap_or_else(PoisonError::into_inner) = leads_to;
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(denial);
    }
}

/// The strict reader around a connection.
#[derive(Debug)]
pub(crate) struct Judged {
    /// `None` only once taken out.
    stream: Option<Guarded<Downstream>>,
    judge: RequestStream,
    verdict: Arc<Verdict>,
    /// Received, not yet given on.
    buffer: BytesMut,
    /// How many bytes at the front of `buffer` may be given on.
    sound: usize,
    phase: Phase,
    /// Of the head now arriving, or of the wait for one.
    timer: Pin<Box<Sleep>>,
    timed_head: bool,
    /// The end of the last message.
    idle_since: Instant,
    head_timeout: Duration,
    idle_timeout: Duration,
    lingered: usize,
    /// A read waits, which tells of the connection's end. The library reads nothing while a request waits for its answer.
    reading: bool,
    /// Since nobody reads.
    look: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Messages,
    Opaque,
    /// So many bytes of the stand-in are given.
    StandIn(usize),
    Lingering,
}

impl Judged {
    /// Judge everything from `buffer` (read already) on.
    pub(crate) fn new(
        stream: Guarded<Downstream>,
        buffer: BytesMut,
        verdict: Arc<Verdict>,
        bounds: Timeouts,
    ) -> Self {
        let head_timeout = bounds.head;
        let idle_timeout = if bounds.idle.is_zero() {
            LONG_IDLE
        } else {
            bounds.idle
        };
        let now = Instant::now();
        let timer = Box::pin(sleep_until(now + head_timeout));
        Self {
            stream: Some(stream),
            judge: RequestStream::with_max_head(bounds.max_head),
            verdict,
            buffer,
            sound: 0,
            phase: Phase::Messages,
            timer,
            timed_head: true,
            idle_since: now,
            head_timeout,
            idle_timeout,
            lingered: 0,
            reading: false,
            look: None,
        }
    }

    /// After an upgrade: the connection, and what was read of it but not given on.
    pub(crate) fn into_parts(mut self) -> Option<(Guarded<Downstream>, BytesMut)> {
        self.stream
            .take()
            .map(|stream| (stream, std::mem::take(&mut self.buffer)))
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_read(cx, buf),
            None => Poll::Ready(Ok(())),
        }
    }

    fn writer(&mut self) -> io::Result<Pin<&mut Guarded<Downstream>>> {
        self.stream
            .as_mut()
            .map(Pin::new)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Refuse what the buffer begins with, a head or something else.
    fn refuse(&mut self, denial: Denial, head: bool) {
        let buffer: &[u8] = if head { &self.buffer } else { &[] };
        self.verdict.set(denial, buffer);
        self.phase = Phase::StandIn(0);
    }

    /// Judge the front of the buffer. `false`: more bytes are needed.
    fn advance(&mut self) -> bool {
        loop {
            // In the middle of a body the buffer holds no head.
            let head = self.judge.between_messages();
            match self.judge.step(&self.buffer) {
                Event::NeedMore => return false,
                // What the library cannot read it would answer by itself, without our refusal and without a record.
                Event::Head(whole) if Uri::try_from(whole.target()).is_err() => {
                    self.refuse(Denial::MalformedTarget, true);
                    return true;
                }
                Event::Head(whole) => {
                    let pathless = whole.is_pathless();
                    self.sound = whole.len();
                    self.timed_head = false;
                    let behind = self.buffer.len() > self.sound;
                    self.verdict.behind.store(behind, Ordering::Release);
                    self.verdict.pathless.store(pathless, Ordering::Release);
                    self.verdict.asked.store(true, Ordering::Release);
                    return true;
                }
                Event::Body(count) => {
                    self.sound = count;
                    return true;
                }
                Event::End => {
                    self.timed_head = false;
                    self.idle_since = Instant::now();
                    let until = self.idle_since + self.patience();
                    self.timer.as_mut().reset(until);
                }
                Event::Opaque => {
                    self.phase = Phase::Opaque;
                    return true;
                }
                Event::Malformed(error) => {
                    self.refuse(denial_of(error), head);
                    return true;
                }
            }
        }
    }

    fn give(&mut self, buf: &mut ReadBuf<'_>, most: usize) {
        let n = most.min(buf.remaining()).min(self.buffer.len());
        buf.put_slice(self.buffer.get(..n).unwrap_or_default());
        self.buffer.advance(n);
        self.sound = self.sound.saturating_sub(n);
    }
}

/// A head that is not sound, as a refusal.
pub(crate) fn denial_of(error: HeadError) -> Denial {
    match error {
        HeadError::TooLarge => Denial::HeaderTooLarge,
        HeadError::Target => Denial::MalformedTarget,
        _ => Denial::MalformedRequest,
    }
}

impl Judged {
    /// Read more into the buffer. Ready(0) at the end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.buffer.reserve(CHUNK);
        let before = self.buffer.len();
        let mut chunk = [0_u8; CHUNK];
        let mut buf = ReadBuf::new(&mut chunk);
        ready!(self.poll_stream(cx, &mut buf))?;
        self.buffer.extend_from_slice(buf.filled());
        Poll::Ready(Ok(self.buffer.len() - before))
    }

    /// How long a connection may idle.
    fn patience(&self) -> Duration {
        if self.verdict.trusts() {
            self.idle_timeout
        } else {
            self.idle_timeout.min(self.head_timeout)
        }
    }

    /// Until when it may idle, looked at again now that its time is over: it may be trusted since, or wait for us.
    fn idles_on(&self, now: Instant) -> Option<Instant> {
        let until = self.idle_since + self.patience();
        if until > now {
            return Some(until);
        }
        let waits = !self.verdict.trusts() && self.verdict.asked.load(Ordering::Acquire);
        waits.then(|| now + self.patience())
    }

    /// Between messages: a head that has begun must be whole in time; a connection without one may idle longer.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.timed_head && !self.buffer.is_empty() {
            self.timed_head = true;
            self.timer
                .as_mut()
                .reset(Instant::now() + self.head_timeout);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            match self.idles_on(Instant::now()) {
                Some(until) if !self.timed_head => self.timer.as_mut().reset(until),
                _ => return true,
            }
        }
        false
    }
}

impl Judged {
    fn poll_judged(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.phase {
                Phase::Opaque if self.buffer.is_empty() => return self.poll_stream(cx, buf),
                Phase::Opaque => {
                    self.give(buf, usize::MAX);
                    return Poll::Ready(Ok(()));
                }
                Phase::StandIn(given) => {
                    let rest = STAND_IN.get(given..).unwrap_or_default();
                    if rest.is_empty() {
                        // Nothing comes after it. Not an end, which the library takes for a client that has left
                        // before its answer; the answer's `Connection: close` ends this.
                        return Poll::Pending;
                    }
                    let n = rest.len().min(buf.remaining());
                    buf.put_slice(rest.get(..n).unwrap_or_default());
                    self.phase = Phase::StandIn(given + n);
                    return Poll::Ready(Ok(()));
                }
                Phase::Lingering => return Poll::Ready(Ok(())),
                Phase::Messages if self.sound > 0 => {
                    self.give(buf, self.sound);
                    return Poll::Ready(Ok(()));
                }
                Phase::Messages => {
                    if self.advance() {
                        continue;
                    }
                    match self.poll_more(cx)? {
                        Poll::Ready(0) => {
                            // The client ends in order: so may we, whatever the library does with the connection.
                            if self.buffer.is_empty() && self.judge.between_messages() {
                                self.verdict.release();
                            }
                            return Poll::Ready(Ok(()));
                        }
                        Poll::Ready(_) => {}
                        Poll::Pending if self.judge.between_messages() && self.poll_timer(cx) => {
                            if self.buffer.is_empty() {
                                return Poll::Ready(Ok(()));
                            }
                            self.refuse(Denial::HeadTimeout, false);
                        }
                        Poll::Pending => return Poll::Pending,
                    }
                }
            }
        }
    }

    /// The client may go while nobody reads. A reset can be told from an end of its side alone, which is its right.
    fn poll_look(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.reading {
            let look = self.look.get_or_insert_with(|| Box::pin(sleep(LOOK)));
            if look.as_mut().poll(cx).is_pending() {
                break;
            }
            self.look = None;
            let reset = |stream: &mut Guarded<Downstream>| stream.is_reset(cx);
            if self.stream.as_mut().is_some_and(reset) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
        }
        Ok(())
    }
}

impl AsyncRead for Judged {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.poll_judged(cx, buf);
        self.reading = read.is_pending();
        read
    }
}

impl AsyncWrite for Judged {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writer()?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.writer()?.poll_flush(cx))?;
        Poll::Ready(self.poll_look(cx))
    }

    /// Close so that the last answer arrives: FIN, then take what the client still sends for a moment.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.phase != Phase::Lingering {
            ready!(this.writer()?.poll_shutdown(cx))?;
            this.phase = Phase::Lingering;
            this.timer.as_mut().reset(Instant::now() + LINGER);
        }
        loop {
            this.buffer.clear();
            match this.poll_more(cx) {
                Poll::Ready(Ok(n)) if n > 0 && this.lingered < LINGER_BYTES => this.lingered += n,
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return this.timer.as_mut().poll(cx).map(Ok),
            }
        }
    }
}

impl Drop for Judged {
    fn drop(&mut self) {
        if self.verdict.released.load(Ordering::Acquire)
            && let Some(stream) = &mut self.stream
        {
            stream.release();
        }
    }
}
