//! What is remembered: sessions, revocations and events, as opaque rows behind one trait.
//!
//! A commit is durable before it returns. What the rows mean lives in `session`; nothing here imports it.

mod embedded;
#[cfg(test)]
pub(crate) mod testing;

use std::{
    io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

pub use embedded::{EmbeddedStore, verify_file};

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be created, opened or written at start.
    #[error("cannot open the store {path}: is the directory writable, and the disk not full?")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "the store {path} is in use by another process; stop that gateway, or choose another --state-dir"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Written by another version.
    #[error("the store {path} has format {found}, this version reads {expected}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u64,
        /// What we know.
        expected: u64,
    },
    /// The file is gone, or is another than the one opened, or somebody else wrote to it.
    #[error("the store {path} is gone, or was replaced or overwritten, while in use")]
    Vanished {
        /// The file.
        path: PathBuf,
    },
    /// A file of no bytes, which no gateway leaves.
    #[error(
        "the store {path} is empty: put a good copy in its place, or remove the file to begin anew without the sessions and revocations that were in it"
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Its pages are not what was written.
    #[error(
        "the store {path} is damaged: put a good copy in its place, or move it aside and begin without the sessions in it"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not hold.
        #[source]
        source: Box<redb::Error>,
    },
    /// Reading or writing failed.
    #[error("the store failed")]
    Failed(#[from] Box<redb::Error>),
}

/// Everything that lives, read at start.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Session rows by key.
    pub sessions: Vec<(String, Vec<u8>)>,
    /// Revoked token ids and when (seconds since the epoch) their tokens expire anyway.
    pub revoked: Vec<(String, u64)>,
    /// What was last found of each provider.
    pub profiles: Vec<(String, Vec<u8>)>,
    /// Bytes of each log, by its session's key.
    pub logs: Vec<(String, u64)>,
    /// The cursor of the last event; 0 = there was none yet.
    pub newest: u64,
}

/// One atomic change.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Session rows to write.
    pub put: Vec<(String, Vec<u8>)>,
    /// Session rows to remove, their logs with them.
    pub remove: Vec<String>,
    /// Token ids to revoke, with their tokens' expiry (seconds since the epoch).
    pub revoke: Vec<(String, u64)>,
    /// Token ids to forget: their tokens have expired.
    pub forget: Vec<String>,
    /// Events to append.
    pub events: Vec<NewEvent>,
    /// How many events are kept. What is too much goes of the namespace that holds most, its oldest first. `None` = all there are.
    pub keep_events: Option<u64>,
    /// What is found of providers now.
    pub profiles: Vec<(String, Vec<u8>)>,
}

/// One event to append.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NewEvent {
    /// The namespace it counts for; empty = the gateway itself.
    pub of: String,
    /// Its content.
    pub body: Vec<u8>,
}

/// What a namespace has lost of its history.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Dropped {
    /// Events dropped so far.
    pub events: u64,
    /// The cursor of the last of them; all of the namespace's up to it are gone.
    pub last: u64,
}

/// What came of an append to a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Appended {
    /// The number of the last record.
    pub last: u64,
    /// Bytes of the records that were dropped for it.
    pub dropped: u64,
}

/// A stretch of a session's log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogPage {
    /// Number and content of each record, oldest first.
    pub records: Vec<(u64, Vec<u8>)>,
    /// The oldest record kept; one more than `last` where none is. Numbers begin at 1, so `first - 1` were dropped.
    pub first: u64,
    /// The newest record; 0 before the first.
    pub last: u64,
}

/// One event as stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredEvent {
    /// Its place in the order of all events; rises by one, so that what is missing between two was dropped.
    pub cursor: u64,
    /// Its content.
    pub body: Vec<u8>,
}

/// A store that was found whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Verified {
    /// Its size.
    pub bytes: u64,
    /// Sessions in it.
    pub sessions: u64,
    /// Revoked token ids.
    pub revocations: u64,
    /// Events.
    pub events: u64,
    /// Records of sessions' logs.
    pub log_records: u64,
    /// How long it took to look.
    pub took: Duration,
}

impl Verified {
    /// For people and programs that asked.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "whole": true,
            "bytes": self.bytes,
            "sessions": self.sessions,
            "revocations": self.revocations,
            "events": self.events,
            "logRecords": self.log_records,
            "milliseconds": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

/// Durable memory. Calls block: use them off the runtime's threads.
pub trait Store: Send + Sync + std::fmt::Debug + 'static {
    /// Everything that lives.
    ///
    /// # Errors
    /// The store cannot be read.
    fn load(&self) -> Result<Loaded, StoreError>;

    /// Make a change durable, whole or not at all. Returns the cursor of the last event written so far.
    ///
    /// # Errors
    /// The store cannot be written; nothing has changed.
    fn commit(&self, batch: &Batch) -> Result<u64, StoreError>;

    /// Events after a cursor, oldest first.
    ///
    /// # Errors
    /// The store cannot be read.
    fn events(&self, after: u64, limit: usize) -> Result<Vec<StoredEvent>, StoreError>;

    /// What a namespace has lost of its history.
    ///
    /// # Errors
    /// The store cannot be read.
    fn dropped(&self, of: &str) -> Result<Dropped, StoreError>;

    /// Append to a session's log, of which the newest `keep` records stay, and whose oldest make room: of so many bytes at least,
    /// where there are as many.
    ///
    /// # Errors
    /// The store cannot be written; nothing has changed.
    fn append_log(
        &self,
        key: &str,
        records: &[Vec<u8>],
        keep: u64,
        room: u64,
    ) -> Result<Appended, StoreError>;

    /// Records of a session's log after a number, oldest first.
    ///
    /// # Errors
    /// The store cannot be read.
    fn log(&self, key: &str, after: u64, limit: usize) -> Result<LogPage, StoreError>;

    /// The last event a webhook is done with; `None` where it is new.
    ///
    /// # Errors
    /// The store cannot be read.
    fn webhook_cursor(&self, name: &str) -> Result<Option<u64>, StoreError>;

    /// A webhook is done with everything up to this event; `dead` is kept where it was given up, the newest 200.
    ///
    /// # Errors
    /// The store cannot be written; nothing has changed.
    fn webhook_settle(
        &self,
        name: &str,
        cursor: u64,
        dead: Option<&[u8]>,
    ) -> Result<(), StoreError>;

    /// What was given up is delivered after all (`None`), or given up again. One that is not kept any more stays away.
    ///
    /// # Errors
    /// The store cannot be written; nothing has changed.
    fn webhook_letter(
        &self,
        name: &str,
        cursor: u64,
        dead: Option<&[u8]>,
    ) -> Result<(), StoreError>;

    /// The newest of what was given up, oldest first.
    ///
    /// # Errors
    /// The store cannot be read.
    fn webhook_dead(&self, name: &str, limit: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError>;

    /// Can it be read right now? Repairs what it can. What was found damaged is looked at again when it has changed, and
    /// less and less often while it has not.
    ///
    /// # Errors
    /// It cannot.
    fn probe(&self, now: SystemTime) -> Result<(), StoreError>;

    /// The next probe looks, whatever was found before.
    fn hasten(&self);

    /// Is all of it what was written? Takes as long as reading it whole; writes may have to wait.
    ///
    /// # Errors
    /// It is damaged, and refuses everything from now on; or it cannot be read.
    fn verify(&self) -> Result<Verified, StoreError>;
}
