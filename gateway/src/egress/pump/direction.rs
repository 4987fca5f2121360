//! One direction of a pump: read, observed, paced, and written.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use sluicegate_relay::flow::Pacing;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::{
    super::splice::{Pipe, Plain},
    Activity, Observe, SCRATCH, Stop, TURNS, room,
};
use crate::outcome::Party;

/// While one side takes nothing, how often the other is asked whether it has been reset: it is not read meanwhile.
const LOOK: Duration = Duration::from_secs(1);
/// Reads in a row of at least so much prove a direction bulky …
const BULKY_READ: usize = 16 * 1024;
/// … when there were so many of them.
const BULKY_READS: u8 = 8;

#[derive(Debug, Default)]
pub(super) struct Direction {
    /// Read but not yet written.
    pub(super) kept: Vec<u8>,
    written: usize,
    pub(super) eof: bool,
    done: bool,
    unflushed: bool,
    /// Kept bytes may not be written: the gate has not decided.
    pub(super) held: bool,
    /// Kept bytes that were not observed yet.
    pub(super) waiting: usize,
    /// Bandwidth: kept bytes wait for their turn, and nothing is read meanwhile. Only where there is a limit.
    due: Option<Box<Due>>,
    /// Until the next look at a reader whose bytes wait. Only while they do.
    look: Option<Pin<Box<Sleep>>>,
    /// Large reads in a row.
    large: u8,
    /// Lent while bulk is in flight.
    pipe: Option<Pipe>,
}

/// Bytes that wait for their turn.
#[derive(Debug)]
struct Due {
    /// The last so many of those kept.
    bytes: usize,
    pacing: Option<Pacing>,
}

/// Whose bytes a direction carries, and who is told of them.
pub(super) struct Side<'a, O> {
    party: Party,
    activity: &'a mut Activity,
    observe: &'a mut O,
}

impl<'a, O: Observe> Side<'a, O> {
    pub(super) fn new(party: Party, activity: &'a mut Activity, observe: &'a mut O) -> Self {
        Self {
            party,
            activity,
            observe,
        }
    }

    fn moved(&mut self, bytes: usize) -> Result<(), Stop> {
        self.activity.mark(self.party);
        self.observe.moved(self.party, bytes).map_err(Stop::Cut)
    }
}

impl Direction {
    /// Begun with bytes that were read already.
    pub(super) fn of(kept: Vec<u8>) -> Self {
        Self {
            kept,
            ..Self::default()
        }
    }

    /// Has FIN been read and passed on?
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Ready(Ok) once FIN was read and passed on. `see` looks at each chunk before it is written. The `last` of the two to end may
    /// leave its FIN to the close that follows.
    pub(super) fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        (last, mut see): (bool, Option<impl FnMut(&[u8])>),
        side: &mut Side<'_, impl Observe>,
    ) -> Poll<Result<(), Stop>>
    where
        R: AsyncRead + Plain + Unpin,
        W: AsyncWrite + Plain + Unpin,
    {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..TURNS {
            if self.poll_out(cx, writer, side)?.is_pending() {
                return self.poll_look(cx, reader);
            }
            if self.eof {
                // A socket that was read to its end says FIN when it is closed, which is next: nothing unread is left that would make
                // it RST.
                if !(last && writer.tcp().is_some()) {
                    ready!(Pin::new(&mut *writer).poll_shutdown(cx)).map_err(|_| Stop::Writer)?;
                }
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            let piece = side.observe.piece();
            // Either way what is read is observed before any of it is written: a budget is never passed.
            let copied = see.is_some() || piece.is_some();
            let step = match self.poll_splice(cx, copied, reader, writer, side) {
                Some(step) => step,
                None => SCRATCH.with_borrow_mut(|scratch| {
                    let into = (room(scratch, piece), piece.is_some());
                    self.poll_chunk(cx, reader, writer, into, &mut see, side)
                }),
            };
            if step?.is_pending() {
                return self.poll_flush(cx, writer);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Write everything read so far, as its turn comes.
    pub(super) fn poll_out<W>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut W,
        side: &mut Side<'_, impl Observe>,
    ) -> Result<Poll<()>, Stop>
    where
        W: AsyncWrite + Plain + Unpin,
    {
        loop {
            let written = match self.poll_kept(cx, writer) {
                Poll::Ready(Ok(())) => self.poll_pipe(cx, writer),
                unwritten => unwritten,
            };
            match written {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Err(_)) => return Err(Stop::Writer),
                Poll::Ready(Ok(())) => {}
            }
            if self.due.is_none() {
                break;
            }
            if self.poll_turn(cx, side).is_pending() {
                return match self.poll_flush(cx, writer) {
                    Poll::Ready(Err(stop)) => Err(stop),
                    Poll::Ready(Ok(())) | Poll::Pending => Ok(Poll::Pending),
                };
            }
        }
        self.look = None;
        Ok(Poll::Ready(()))
    }

    /// Some of what is due may be written.
    fn poll_turn(&mut self, cx: &mut Context<'_>, side: &mut Side<'_, impl Observe>) -> Poll<()> {
        let Some(due) = &mut self.due else {
            return Poll::Ready(());
        };
        if due.pacing.is_none() {
            due.pacing = side.observe.pace(side.party, due.bytes);
        }
        let may = match &mut due.pacing {
            Some(pacing) => ready!(Pin::new(pacing).poll(cx)),
            None => due.bytes,
        };
        due.pacing = None;
        due.bytes = due.bytes.saturating_sub(may);
        if due.bytes == 0 {
            self.due = None;
        }
        side.activity.mark(side.party);
        Poll::Ready(())
    }

    /// Does it wait for its turn?
    pub(super) fn waits(&self) -> bool {
        self.due.as_ref().is_some_and(|due| due.pacing.is_some())
    }

    /// Its place in the queue is given up; it asks anew when it is polled.
    pub(super) fn step_back(&mut self) {
        if let Some(due) = &mut self.due {
            due.pacing = None;
        }
    }

    /// The last so many of the kept bytes go on in their turn.
    pub(super) fn owe(&mut self, bytes: usize) {
        if bytes > 0 {
            let pacing = None;
            self.due = Some(Box::new(Due { bytes, pacing }));
        }
    }

    /// What was read cannot go on yet: has the reader been reset? Always pending, or a failure.
    pub(super) fn poll_look<R: Plain>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
    ) -> Poll<Result<(), Stop>> {
        loop {
            let look = self.look.get_or_insert_with(|| Box::pin(sleep(LOOK)));
            ready!(look.as_mut().poll(cx));
            self.look = None;
            if reader.broken(cx) {
                return Poll::Ready(Err(Stop::Reader));
            }
        }
    }

    /// What was read and observed: is it bulk?
    fn measured(&mut self, read: usize) {
        self.large = if read >= BULKY_READ {
            self.large.saturating_add(1)
        } else {
            0
        };
    }

    /// Read through a pipe, where this direction is bulky, nobody has to see or pace the bytes, both ends are plaintext and a
    /// pipe is to be had.
    fn poll_splice<R: Plain, W: Plain>(
        &mut self,
        cx: &mut Context<'_>,
        copied: bool,
        reader: &R,
        writer: &W,
        side: &mut Side<'_, impl Observe>,
    ) -> Option<Result<Poll<()>, Stop>> {
        if copied || self.large < BULKY_READS {
            // Empty by now: others may have it.
            self.pipe = None;
            return None;
        }
        let (from, _) = (reader.tcp()?, writer.tcp()?);
        if self.pipe.is_none() {
            self.pipe = Pipe::borrow();
        }
        let filled = self.pipe.as_mut()?.poll_fill(cx, from);
        if !matches!(filled, Poll::Ready(Ok(1..))) {
            // Nothing in flight: others may have it.
            self.pipe = None;
        }
        Some(match filled {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Err(_)) => Err(Stop::Reader),
            Poll::Ready(Ok(0)) => {
                // The end, or not: a read knows.
                self.large = 0;
                return None;
            }
            Poll::Ready(Ok(n)) => side.moved(n).map(|()| {
                self.measured(n);
                Poll::Ready(())
            }),
        })
    }

    /// Write what the pipe holds.
    fn poll_pipe<W: Plain>(&mut self, cx: &mut Context<'_>, writer: &W) -> Poll<io::Result<()>> {
        match (&mut self.pipe, writer.tcp()) {
            (Some(pipe), Some(to)) if !pipe.is_empty() => pipe.poll_drain(cx, to),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Nothing more to read for now: what was written must not wait in a TLS buffer. Always pending, or a failure.
    pub(super) fn poll_flush<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut W,
    ) -> Poll<Result<(), Stop>> {
        if self.unflushed {
            ready!(Pin::new(writer).poll_flush(cx)).map_err(|_| Stop::Writer)?;
            self.unflushed = false;
        }
        Poll::Pending
    }

    /// Write what was kept and is not due.
    fn poll_kept<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut W,
    ) -> Poll<io::Result<()>> {
        let due = self.due.as_ref().map_or(0, |due| due.bytes);
        let may_go = self.kept.len().saturating_sub(due);
        while let Some(rest) = self
            .kept
            .get(self.written..may_go)
            .filter(|rest| !rest.is_empty())
        {
            let n = ready!(Pin::new(&mut *writer).poll_write(cx, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
            self.unflushed = true;
        }
        if self.written > 0 && due == 0 {
            self.kept = Vec::new();
            self.written = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// One read, and as much of a write as goes at once.
    fn poll_chunk<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        (scratch, paced): (&mut [u8], bool),
        see: &mut Option<impl FnMut(&[u8])>,
        side: &mut Side<'_, impl Observe>,
    ) -> Result<Poll<()>, Stop>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buf = ReadBuf::new(scratch);
        match Pin::new(reader).poll_read(cx, &mut buf) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(read) => read.map_err(|_| Stop::Reader)?,
        }
        let mut rest = buf.filled();
        if rest.is_empty() {
            self.eof = true;
            return Ok(Poll::Ready(()));
        }
        side.moved(rest.len())?;
        self.measured(rest.len());
        if let Some(see) = see {
            see(rest);
        }
        if paced {
            self.kept.extend_from_slice(rest);
            self.owe(rest.len());
            return Ok(Poll::Ready(()));
        }
        while !rest.is_empty() {
            match Pin::new(&mut *writer).poll_write(cx, rest) {
                Poll::Ready(Ok(0) | Err(_)) => return Err(Stop::Writer),
                Poll::Ready(Ok(n)) => {
                    self.unflushed = true;
                    rest = rest.get(n..).unwrap_or_default();
                }
                Poll::Pending => {
                    self.kept.extend_from_slice(rest);
                    break;
                }
            }
        }
        Ok(Poll::Ready(()))
    }
}
