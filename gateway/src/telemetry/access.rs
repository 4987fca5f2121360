//! Where access records go: one JSON line each, gathered by whoever ends a tunnel and written by a thread of its own.
//!
//! The data path never waits for the disk: a line is copied behind those that wait, and where too many wait it is dropped
//! and counted. The writer lets lines gather for a moment: a wake-up and a write for each would cost
//! more than the line.

use std::{
    io::Write,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    time::Duration,
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
/// So many waiting bytes are written at once …
const BATCH: usize = 64 * 1024;
/// … and fewer after this long.
const GATHER: Duration = Duration::from_millis(10);

/// What waits for the writer.
#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    lines: u64,
    flushes: Vec<SyncSender<()>>,
    /// Nothing more will come.
    closed: bool,
}

impl Waiting {
    /// Must the writer look at once?
    fn urgent(&self) -> bool {
        self.closed || !self.flushes.is_empty() || self.bytes.len() >= BATCH
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    more: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ends of the queue that are filled; with the last one the writer ends.
#[derive(Debug)]
struct Sender(Arc<Queue>);

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.more.notify_one();
    }
}

/// The writer's queue. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog {
    queue: Option<Arc<Sender>>,
    dropped: Arc<AtomicU64>,
    live: tokio::sync::broadcast::Sender<Arc<str>>,
}

impl AccessLog {
    /// Open the sink and start its writer thread.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread not started.
    pub fn open(sink: &AccessSink) -> std::io::Result<Self> {
        let output: Option<Box<dyn Write + Send>> = match sink {
            AccessSink::None => None,
            AccessSink::Stdout => Some(Box::new(std::io::stdout())),
            AccessSink::Stderr => Some(Box::new(std::io::stderr())),
            AccessSink::File(path) => {
                use std::os::unix::fs::OpenOptionsExt;
                Some(Box::new(
                    std::fs::OpenOptions::new()
                        .create(true)
                        .append(true)
                        .mode(0o600)
                        .open(path)
                        .map_err(|error| {
                            std::io::Error::new(
                                error.kind(),
                                format!("{}: {error}", path.display()),
                            )
                        })?,
                ))
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
            live: tokio::sync::broadcast::channel(1024).0,
        })
    }

    /// Does anybody read records?
    pub(super) fn wanted(&self) -> bool {
        self.queue.is_some() || self.live.receiver_count() > 0
    }

    /// Hand one record (JSON, no newline) to the writer and to live readers; `idle`: nothing came of what it tells of.
    pub(super) fn write(&self, line: &str, idle: bool) {
        if self.live.receiver_count() > 0 {
            let _ = self.live.send(line.into());
        }
        if let Some(Sender(queue)) = self.queue.as_deref() {
            let mut waiting = queue.lock();
            let most = if idle { MOST_REFUSED } else { MOST };
            if waiting.bytes.len() + line.len() > most {
                drop(waiting);
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let (before, few) = (waiting.bytes.len(), waiting.bytes.is_empty());
            waiting.bytes.extend_from_slice(line.as_bytes());
            waiting.bytes.push(b'\n');
            waiting.lines += 1;
            // It sleeps until there is a first line, and then until there are many.
            let many = before < BATCH && waiting.bytes.len() >= BATCH;
            drop(waiting);
            if few || many {
                queue.more.notify_one();
            }
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
            let (done, wait) = sync_channel(1);
            queue.lock().flushes.push(done);
            queue.more.notify_one();
            let _ = wait.recv();
        }
    }
}

fn write_batches(queue: &Queue, mut output: Box<dyn Write + Send>, dropped: &AtomicU64) {
    let mut batch = Waiting::default();
    while take(queue, &mut batch) {
        let written = output.write_all(&batch.bytes).and_then(|()| output.flush());
        if written.is_err() {
            dropped.fetch_add(batch.lines, Ordering::Relaxed);
        }
        batch.bytes.clear();
        // What a burst needed is not kept.
        batch.bytes.shrink_to(2 * BATCH);
        batch.lines = 0;
        for done in batch.flushes.drain(..) {
            let _ = done.send(());
        }
    }
}

/// Wait for something to write and change it for the empty `batch`. `false`: there will be no more.
fn take(queue: &Queue, batch: &mut Waiting) -> bool {
    let waiting = queue.lock();
    let waiting = queue
        .more
        .wait_while(waiting, |waiting| {
            waiting.bytes.is_empty() && !waiting.urgent()
        })
        .unwrap_or_else(PoisonError::into_inner);
    let (mut waiting, _) = queue
        .more
        .wait_timeout_while(waiting, GATHER, |waiting| !waiting.urgent())
        .unwrap_or_else(PoisonError::into_inner);
    let last = waiting.closed && waiting.bytes.is_empty() && waiting.flushes.is_empty();
    std::mem::swap(&mut waiting.bytes, &mut batch.bytes);
    std::mem::swap(&mut waiting.lines, &mut batch.lines);
    std::mem::swap(&mut waiting.flushes, &mut batch.flushes);
    !last
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

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
    fn what_nobody_takes_is_dropped_and_counted() {
        let queue = Arc::new(Queue::default());
        let log = AccessLog {
            queue: Some(Arc::new(Sender(queue.clone()))),
            dropped: Arc::default(),
            live: tokio::sync::broadcast::channel(1).0,
        };
        let line = "x".repeat(MOST / 4);
        for _ in 0..5 {
            log.write(&line, false);
        }
        assert_eq!(log.dropped(), 2);
        assert_eq!(queue.lock().lines, 3);
    }

    #[test]
    fn refusals_leave_room_for_what_passed() {
        let queue = Arc::new(Queue::default());
        let log = AccessLog {
            queue: Some(Arc::new(Sender(queue.clone()))),
            dropped: Arc::default(),
            live: tokio::sync::broadcast::channel(1).0,
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
