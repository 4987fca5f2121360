//! Where access records go: one JSON line each, written in batches by a thread of its own.
//!
//! The data path never waits for the disk: a full queue drops the record and counts it.

use std::{
    io::Write,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
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

/// Lines waiting for the writer before records are dropped.
const QUEUE: usize = 16_384;
/// Bytes gathered into one write.
const BATCH: usize = 64 * 1024;

enum Message {
    Line(String),
    Flush(SyncSender<()>),
}

/// The writer's queue. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog {
    queue: Option<SyncSender<Message>>,
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
                let (send, receive) = sync_channel(QUEUE);
                let dropped = dropped.clone();
                std::thread::Builder::new()
                    .name("access-log".into())
                    .spawn(move || write_batches(&receive, output, &dropped))?;
                Some(send)
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

    /// Hand one record (JSON, no newline) to the writer and to live readers.
    pub(super) fn write(&self, line: String) {
        if self.live.receiver_count() > 0 {
            let _ = self.live.send(line.as_str().into());
        }
        if let Some(queue) = &self.queue
            && queue.try_send(Message::Line(line)).is_err()
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
        if let Some(queue) = &self.queue {
            let (done, wait) = sync_channel(1);
            if queue.send(Message::Flush(done)).is_ok() {
                let _ = wait.recv();
            }
        }
    }
}

fn write_batches(
    queue: &Receiver<Message>,
    mut output: Box<dyn Write + Send>,
    dropped: &AtomicU64,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Ok(first) = queue.recv() {
        let mut next = Some(first);
        let mut lines = 0;
        let mut flushed = Vec::new();
        while let Some(message) = next {
            match message {
                Message::Line(line) => {
                    batch.extend_from_slice(line.as_bytes());
                    batch.push(b'\n');
                    lines += 1;
                }
                Message::Flush(done) => flushed.push(done),
            }
            next = if batch.len() < BATCH {
                queue.try_recv().ok()
            } else {
                None
            };
        }
        if output
            .write_all(&batch)
            .and_then(|()| output.flush())
            .is_err()
        {
            dropped.fetch_add(lines, Ordering::Relaxed);
        }
        batch.clear();
        for done in flushed {
            let _ = done.send(());
        }
    }
}
