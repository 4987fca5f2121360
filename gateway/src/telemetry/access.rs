//! Where access records go: one JSON line each, gathered by whoever ends a tunnel and written by a thread of its own.
//!
//! The data path never waits for the disk, nor one thread for another: a line is copied behind those that wait, and where too
//! many wait it is dropped and counted. The writer lets lines gather for a moment: a wake-up and a write for each would cost
//! more than the line.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    live::Live,
    queue::{Batch, Queue},
};

/// Where to write.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum AccessSink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Append to a file (mode 0600 when created).
    File(PathBuf),
    /// Nowhere.
    #[default]
    None,
}

/// Bytes waiting for the writer before records are dropped: some 16,000 of them.
const MOST: usize = 8 * 1024 * 1024;
/// Records of what was refused are dropped from here on: asking for what is not allowed costs nothing, and must not crowd out
/// what something came of.
const MOST_REFUSED: usize = MOST / 2;

/// The ends of the queue that are filled; with the last one the writer ends.
#[derive(Debug)]
struct Sender(Arc<Queue>);

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The writer's queue. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog {
    queue: Option<Arc<Sender>>,
    dropped: Arc<AtomicU64>,
    live: Arc<Live>,
}

impl AccessLog {
    /// Open the sink and start its writer thread.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread not started.
    pub fn open(sink: &AccessSink) -> io::Result<Self> {
        let output = match sink {
            AccessSink::None => None,
            AccessSink::Stdout => Some(Output::new(io::stdout())),
            AccessSink::Stderr => Some(Output::new(io::stderr())),
            AccessSink::File(path) => {
                let output = Output::appending(path).map_err(|error| {
                    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
                })?;
                Some(output)
            }
        };
        let dropped = Arc::new(AtomicU64::new(0));
        let queue = match output {
            None => None,
            Some(output) => {
                let queue = Arc::new(Queue::default());
                let (source, dropped) = (queue.clone(), dropped.clone());
                std::thread::Builder::new()
                    .name("access-log".into())
                    .spawn(move || write_batches(&source, output, &dropped))?;
                Some(Arc::new(Sender(queue)))
            }
        };
        Ok(Self {
            queue,
            dropped,
            live: Arc::default(),
        })
    }

    /// Does anybody read records?
    pub(super) fn wanted(&self) -> bool {
        self.queue.is_some() || self.live.is_followed()
    }

    /// Hand one record (JSON, no newline) to the writer and to live readers; `idle`: nothing came of what it tells of.
    pub(super) fn write(&self, line: &str, idle: bool) {
        self.live.send(line);
        let most = if idle { MOST_REFUSED } else { MOST };
        if let Some(Sender(queue)) = self.queue.as_deref()
            && !queue.put(line, most)
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records as they are written; a reader that falls behind by 1,024 loses the oldest.
    pub fn subscribe(&self) -> tokio::sync::broadcast::Receiver<Arc<str>> {
        self.live.subscribe()
    }

    /// Records that could not be written so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Wait until everything handed over so far is written. Blocks: for shutdown and tests.
    pub fn flush(&self) {
        if let Some(Sender(queue)) = self.queue.as_deref() {
            queue.flush();
        }
    }
}

/// What is written to.
struct Output {
    sink: Box<dyn Write + Send>,
    /// A write failed in the middle of a line, which has no end: a disk is full, and then is not.
    torn: bool,
}

impl Output {
    fn new(sink: impl Write + Send + 'static) -> Self {
        let sink = Box::new(sink);
        Self { sink, torn: false }
    }

    /// To the end of a file, where another gateway may have left half a line.
    fn appending(path: &Path) -> io::Result<Self> {
        let mut open = OpenOptions::new();
        let file = open.create(true).append(true).mode(0o600).open(path)?;
        let torn = is_torn(path, &file.metadata()?);
        let sink = Box::new(file);
        Ok(Self { sink, torn })
    }

    /// Write whole lines. What is torn by a failure is a line by itself: none is lost with it that comes later.
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.torn && !lines.is_empty() {
            self.sink.write_all(b"\n")?;
            self.torn = false;
        }
        let mut rest = lines;
        while !rest.is_empty() {
            match self.sink.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    let gone = rest.get(..written).unwrap_or(rest);
                    self.torn = !gone.ends_with(b"\n");
                    rest = rest.get(written..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.sink.flush()
    }
}

/// Does it end in the middle of a line? What is no file has no end, and one that may be written but not read is taken for whole.
fn is_torn(path: &Path, file: &Metadata) -> bool {
    let Some(last) = file.len().checked_sub(1).filter(|_| file.is_file()) else {
        return false;
    };
    let mut byte = [0_u8];
    let read = File::open(path).and_then(|opened| opened.read_exact_at(&mut byte, last));
    read.is_ok() && byte != *b"\n"
}

fn write_batches(queue: &Queue, mut output: Output, dropped: &AtomicU64) {
    let mut batch = Batch::default();
    while queue.take(&mut batch) {
        if output.write(&batch.bytes).is_err() {
            dropped.fetch_add(batch.lines, Ordering::Relaxed);
        }
        batch.done();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Mutex;

    use super::*;

    #[test]
    fn lines_are_written_in_order_and_the_last_ones_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.jsonl");
        let log = AccessLog::open(&AccessSink::File(path.clone())).unwrap();
        let expected: String = (0..5000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
        for line in expected.lines() {
            log.write(line, true);
        }
        log.flush();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn nothing_that_threads_write_is_lost_and_each_keeps_its_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.jsonl");
        let log = AccessLog::open(&AccessSink::File(path.clone())).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let log = &log;
                scope.spawn(move || {
                    for n in 0..5000 {
                        log.write(&format!("{thread} {n}"), false);
                    }
                });
            }
        });
        log.flush();
        let text = std::fs::read_to_string(&path).unwrap();
        for thread in 0..4 {
            let own = text
                .lines()
                .filter_map(|line| line.strip_prefix(&format!("{thread} ")));
            let expected = (0..5000).map(|n: u32| n.to_string());
            assert!(own.eq(expected), "{thread}");
        }
        assert_eq!((text.lines().count(), log.dropped()), (20_000, 0));
    }

    #[test]
    fn records_that_go_from_thread_to_thread_keep_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.jsonl");
        let log = AccessLog::open(&AccessSink::File(path.clone())).unwrap();
        let (ball, here) = std::sync::mpsc::channel();
        let (back, there) = std::sync::mpsc::channel();
        let play = |from: std::sync::mpsc::Receiver<u32>, to: std::sync::mpsc::Sender<u32>| {
            let log = log.clone();
            move || {
                for n in from {
                    log.write(&n.to_string(), false);
                    if n == 1999 || to.send(n + 1).is_err() {
                        return;
                    }
                }
            }
        };
        ball.send(0).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(play(here, back));
            scope.spawn(play(there, ball));
        });
        log.flush();
        let expected: String = (0..2000).map(|n| format!("{n}\n")).collect();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }

    /// What is on a disk, and how much more it has room for.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Disk {
        fn has_room_for(&self, bytes: usize) {
            self.0.lock().unwrap().1 = bytes;
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().unwrap();
            let fits = bytes.iter().copied().take(disk.1).collect::<Vec<_>>();
            if fits.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            disk.1 -= fits.len();
            disk.0.extend_from_slice(&fits);
            Ok(fits.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_a_full_disk_tears_takes_no_other_with_it() {
        let (disk, queue, dropped) = (Disk::default(), Queue::default(), AtomicU64::new(0));
        let write = |line: &str| {
            assert!(queue.put(line, MOST));
            queue.flush();
        };
        std::thread::scope(|scope| {
            scope.spawn(|| write_batches(&queue, Output::new(disk.clone()), &dropped));
            disk.has_room_for("{\"n\":1}\n{\"n\":".len());
            write("{\"n\":1}");
            write("{\"n\":2}");
            write("{\"n\":3}");
            disk.has_room_for(1000);
            write("{\"n\":4}");
            // Full behind a line's end: nothing is torn.
            disk.has_room_for(0);
            write("{\"n\":5}");
            disk.has_room_for(1000);
            write("{\"n\":6}");
            queue.close();
        });
        let expected = "{\"n\":1}\n{\"n\":\n{\"n\":4}\n{\"n\":6}\n";
        assert_eq!(disk.text(), expected);
        assert_eq!(dropped.load(Ordering::Relaxed), 3);
    }

    /// The disk was full as the gateway before this one ended.
    #[test]
    fn a_line_that_was_torn_before_a_restart_takes_no_other_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.jsonl");
        let after = |before: &str| {
            std::fs::write(&path, before).unwrap();
            let log = AccessLog::open(&AccessSink::File(path.clone())).unwrap();
            log.write("{\"n\":2}", false);
            log.flush();
            std::fs::read_to_string(&path).unwrap()
        };
        assert_eq!(after("{\"n\":"), "{\"n\":\n{\"n\":2}\n");
        assert_eq!(after("{\"n\":1}\n"), "{\"n\":1}\n{\"n\":2}\n");
        assert_eq!(after(""), "{\"n\":2}\n");
        let device = AccessLog::open(&AccessSink::File("/dev/null".into())).unwrap();
        device.write("{\"n\":2}", false);
        device.flush();
        assert_eq!(device.dropped(), 0);
    }

    #[test]
    fn what_nobody_takes_is_dropped_and_counted() {
        let queue = Arc::new(Queue::default());
        let log = AccessLog {
            queue: Some(Arc::new(Sender(queue.clone()))),
            dropped: Arc::default(),
            live: Arc::default(),
        };
        let line = "x".repeat(MOST / 4);
        for _ in 0..5 {
            log.write(&line, false);
        }
        assert_eq!(log.dropped(), 2);
        let mut batch = Batch::default();
        assert!(queue.take(&mut batch));
        assert_eq!(batch.lines, 3);
    }

    #[test]
    fn refusals_leave_room_for_what_passed() {
        let queue = Arc::new(Queue::default());
        let log = AccessLog {
            queue: Some(Arc::new(Sender(queue.clone()))),
            dropped: Arc::default(),
            live: Arc::default(),
        };
        let refused = "r".repeat(500);
        for _ in 0..60_000 {
            log.write(&refused, true);
        }
        assert!(log.dropped() > 0);
        let lost = log.dropped();
        let passed = "p".repeat(500);
        for _ in 0..8000 {
            log.write(&passed, false);
        }
        assert_eq!(log.dropped(), lost, "what passed is on record");
    }
}
