//! Lines that wait for the writer of the access log, in parts: threads that put them do not wait for one another.
//!
//! A line takes the next place in the stream that is written, by one atomic step, and is copied into the part of its thread. The
//! writer takes what is in all parts and puts each line in its place: lines are written in the order in which they were put,
//! whichever threads put them, as the tasks of one connection go from thread to thread.

use std::{
    mem,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    time::Duration,
};

use super::parts::Parts;

/// So many waiting bytes are written at once …
const BATCH: usize = 64 * 1024;
/// … and fewer after this long.
const GATHER: Duration = Duration::from_millis(10);
/// What a part needed in a burst is not kept.
const KEPT: usize = BATCH / 2;

/// Lines, and before each its place in the stream and its length: what is in one piece is made room for once.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, place: u64, line: &[u8]) {
        let (place, length) = (place.to_ne_bytes(), line.len().to_ne_bytes());
        self.0.reserve(place.len() + length.len() + line.len());
        self.0.extend_from_slice(&place);
        self.0.extend_from_slice(&length);
        self.0.extend_from_slice(line);
    }

    fn each(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (place, after) = rest.split_first_chunk()?;
            let (length, after) = after.split_first_chunk()?;
            let (line, after) = after.split_at_checked(usize::from_ne_bytes(*length))?;
            rest = after;
            Some((u64::from_ne_bytes(*place), line))
        })
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn clear(&mut self) {
        self.0.clear();
        self.0.shrink_to(KEPT);
    }
}

/// What the writer is to know besides lines.
#[derive(Debug, Default)]
struct Writer {
    asleep: bool,
    flushes: Vec<SyncSender<()>>,
    /// Nothing more will come.
    closed: bool,
}

impl Writer {
    /// Must it look at once?
    fn urgent(&self) -> bool {
        self.closed || !self.flushes.is_empty()
    }
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Bytes of all lines so far, which is the place of the next one.
    put: AtomicU64,
    /// Bytes of those that the writer has taken.
    taken: AtomicU64,
    parts: Parts<Lines>,
    writer: Mutex<Writer>,
    more: Condvar,
}

/// What the writer has taken.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Lines and their ends.
    pub(super) bytes: Vec<u8>,
    /// How many lines.
    pub(super) lines: u64,
    flushes: Vec<SyncSender<()>>,
    /// Found in a part before all that are written before them.
    late: Lines,
    spare: Lines,
}

impl Queue {
    /// Put one line (without its end) behind those that wait, unless more than `most` bytes would wait then. `false`: it was not.
    pub(super) fn put(&self, line: &str, most: usize) -> bool {
        let length = line.len() as u64 + 1;
        let mut part = self.parts.own();
        // While the part is held: whoever has seen that a place is given finds the line behind this lock.
        let Some(place) = self.place(length, most as u64) else {
            return false;
        };
        part.push(place, line.as_bytes());
        drop(part);
        // What is taken already needs nobody to be woken.
        let before = place.checked_sub(self.taken.load(Ordering::SeqCst));
        if before.is_some_and(|before| is_awaited(before, length)) {
            self.tell(|_| {});
        }
        true
    }

    /// The next place, where there is room.
    fn place(&self, length: u64, most: u64) -> Option<u64> {
        let taken = self.taken.load(Ordering::SeqCst);
        let given = self
            .put
            .fetch_update(Ordering::SeqCst, Ordering::Relaxed, |put| {
                let end = put + length;
                (end.saturating_sub(taken) <= most).then_some(end)
            });
        given.ok()
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tell the writer something; it is woken where it sleeps.
    fn tell(&self, what: impl FnOnce(&mut Writer)) {
        let mut writer = self.lock();
        what(&mut writer);
        let asleep = writer.asleep;
        drop(writer);
        if asleep {
            self.more.notify_one();
        }
    }

    /// Wait until everything put so far is written. Blocks.
    pub(super) fn flush(&self) {
        let (done, wait) = sync_channel(1);
        self.tell(|writer| writer.flushes.push(done));
        let _ = wait.recv();
    }

    /// Nothing more will be put.
    pub(super) fn close(&self) {
        self.tell(|writer| writer.closed = true);
    }

    /// Bytes that wait. Whoever puts a line gives it its place and then looks at what is taken, and the writer says what it has
    /// taken and then looks here, all in one order (`SeqCst`): one of them sees the other, and no line waits for a writer that sleeps.
    fn waiting(&self) -> u64 {
        self.put.load(Ordering::SeqCst) - self.taken.load(Ordering::Relaxed)
    }

    /// Wait for something to write and take it into `batch`, which is empty. `false`: there will be no more.
    pub(super) fn take(&self, batch: &mut Batch) -> bool {
        let closed = self.sleep(&mut batch.flushes);
        let from = self.taken.load(Ordering::Relaxed);
        // Each line before here is in its part, or will be when that part can be locked.
        let end = self.put.load(Ordering::SeqCst);
        // The ends of the lines are there.
        batch.bytes.resize((end - from) as usize, b'\n');
        let late = mem::take(&mut batch.late);
        batch.gather(&late, from);
        let mut lines = mem::take(&mut batch.spare);
        for mut part in self.parts.each() {
            if part.is_empty() {
                continue;
            }
            mem::swap(&mut *part, &mut lines);
            drop(part);
            batch.gather(&lines, from);
            lines.clear();
        }
        batch.spare = lines;
        self.taken.store(end, Ordering::SeqCst);
        !(closed && batch.bytes.is_empty() && batch.flushes.is_empty())
    }

    /// Until there is a first line, and then until there are many; who asked for a flush, and whether the queue is closed.
    fn sleep(&self, flushes: &mut Vec<SyncSender<()>>) -> bool {
        let mut writer = self.lock();
        writer.asleep = true;
        let writer = self
            .more
            .wait_while(writer, |writer| !writer.urgent() && self.waiting() == 0)
            .unwrap_or_else(PoisonError::into_inner);
        let (mut writer, _) = self
            .more
            .wait_timeout_while(writer, GATHER, |writer| {
                !writer.urgent() && self.waiting() < BATCH as u64
            })
            .unwrap_or_else(PoisonError::into_inner);
        writer.asleep = false;
        mem::swap(&mut writer.flushes, flushes);
        writer.closed
    }
}

/// Is it for this line that the writer sleeps, before which so many bytes wait? It sleeps until there is a first one, and then until
/// there are many.
fn is_awaited(before: u64, length: u64) -> bool {
    let many = BATCH as u64;
    before == 0 || (before < many && before + length >= many)
}

impl Batch {
    /// Put each of these in its place in a batch that begins at the place `from`; what is behind its end comes with the next batch.
    fn gather(&mut self, lines: &Lines, from: u64) {
        for (place, line) in lines.each() {
            let room = self.bytes.get_mut(place.saturating_sub(from) as usize..);
            let room = room.and_then(|room| room.get_mut(..line.len() + 1));
            match room.and_then(<[u8]>::split_last_mut) {
                Some((_, room)) => {
                    room.copy_from_slice(line);
                    self.lines += 1;
                }
                None => self.late.push(place, line),
            }
        }
    }

    /// It is written, or lost.
    pub(super) fn done(&mut self) {
        self.bytes.clear();
        // What a burst needed is not kept.
        self.bytes.shrink_to(2 * BATCH);
        self.lines = 0;
        for done in self.flushes.drain(..) {
            let _ = done.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::thread;

    use super::{super::parts::PARTS, *};

    #[test]
    fn lines_are_taken_in_the_order_in_which_threads_put_them() {
        let queue = Queue::default();
        let mut batch = Batch::default();
        for round in 0..3 {
            let mut expected = String::new();
            for n in 0..3 * PARTS {
                let line = format!("{round}:{n}");
                // Each has a part of its own, and behind the last comes the first again.
                let put = thread::scope(|scope| scope.spawn(|| queue.put(&line, BATCH)).join());
                assert!(put.unwrap());
                expected += &line;
                expected.push('\n');
            }
            assert!(queue.take(&mut batch));
            assert_eq!(str::from_utf8(&batch.bytes).unwrap(), expected);
            assert_eq!(batch.lines, 3 * PARTS as u64);
            batch.done();
        }
    }

    #[test]
    fn what_is_found_too_early_comes_with_the_next() {
        let mut lines = Lines::default();
        // One of four bytes before it, at 14, is not found yet.
        lines.push(18, b"late");
        lines.push(10, b"one");
        let mut batch = Batch {
            bytes: vec![b'\n'; 4],
            ..Batch::default()
        };
        batch.gather(&lines, 10);
        assert_eq!((batch.bytes.as_slice(), batch.lines), (&b"one\n"[..], 1));
        batch.done();
        let (late, mut lines) = (mem::take(&mut batch.late), Lines::default());
        lines.push(14, b"two");
        batch.bytes.resize(9, b'\n');
        batch.gather(&late, 14);
        batch.gather(&lines, 14);
        assert_eq!(
            (batch.bytes.as_slice(), batch.lines),
            (&b"two\nlate\n"[..], 2)
        );
        assert!(batch.late.is_empty());
    }

    #[test]
    fn no_more_waits_than_there_is_room_for_whoever_puts_it() {
        let queue = Queue::default();
        let line = "x".repeat(99);
        let put = || {
            let put = (0..1000).filter(|_| queue.put(&line, 50_000));
            put.count()
        };
        let put = thread::scope(|scope| {
            let (one, other) = (scope.spawn(put), scope.spawn(put));
            one.join().unwrap() + other.join().unwrap()
        });
        assert_eq!(put, 500);
        let mut batch = Batch::default();
        assert!(queue.take(&mut batch));
        assert_eq!((batch.lines, batch.bytes.len()), (500, 50_000));
        // And there is room again.
        assert!(queue.put(&line, 50_000));
    }

    #[test]
    fn the_writer_is_woken_for_the_first_line_and_when_there_are_many() {
        let many = BATCH as u64;
        for (before, length, awaited) in [
            (0, 10, true),
            (10, 10, false),
            (many - 10, 9, false),
            (many - 10, 10, true),
            (many - 1, 100, true),
            (many, 100, false),
        ] {
            assert_eq!(is_awaited(before, length), awaited, "{before}");
        }
    }
}
