//! The embedded store: one transactional file, one process.

mod guard;
mod history;
mod hooks;
mod open;
mod patience;
mod verify;

use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

pub use verify::file as verify_file;

use guard::guarded;
use history::EVENTS;
use hooks::{DEAD, HOOKS};
use open::{Open, close, create, open};
use patience::{Patience, Stamp};

use super::{Appended, Batch, Dropped, Loaded, LogPage, Store, StoreError, StoredEvent, Verified};

/// Changes when rows or tables change their meaning. 2 = session logs, and what rows of sessions gained since 1 (each
/// of it has a default, so that the rows themselves stay as they are).
const FORMAT: u64 = 2;
/// The oldest format that is brought up to date at the start.
const OLDEST: u64 = 1;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const SESSIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("sessions");
const REVOKED: TableDefinition<'_, &str, u64> = TableDefinition::new("revoked");
/// By provider: what was last found of it. Older versions do not know the table, and lose nothing by that.
const PROFILES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("profiles");
const LOGS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("logs");

/// `redb` on one file of mode 0600.
#[derive(Debug)]
pub struct EmbeddedStore {
    path: PathBuf,
    open: RwLock<Open>,
    /// The file's first bytes as our last write left them. Held over every write.
    head: Mutex<Head>,
    /// Something failed since it was opened: it is opened anew at the next probe.
    failed: AtomicBool,
    /// It was found damaged, and not opened anew since: nothing is read of it or written to it.
    damaged: AtomicBool,
    /// When it is looked at again then. Held over every probe.
    patience: Mutex<Patience>,
}

/// How a file looked after our last write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Head {
    length: u64,
    /// Where redb keeps what it knows of its pages: each commit changes something there.
    bytes: [u8; 512],
    /// When it was last changed, in seconds and nanoseconds. Nobody can set this one back, and it tells of pages in the middle too.
    changed: (i64, i64),
}

impl Head {
    const NONE: Self = Self {
        length: 0,
        bytes: [0; 512],
        changed: (0, 0),
    };
}

impl EmbeddedStore {
    /// Open or create the store and prove that it can be written.
    ///
    /// # Errors
    /// Unwritable, full, in use, or of another format.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        create(path)?;
        let open = open(path)?;
        let store = Self {
            path: path.into(),
            open: RwLock::new(open),
            head: Mutex::new(Head::NONE),
            failed: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
            patience: Mutex::default(),
        };
        store.check_format()?;
        store.look(&mut store.head())?;
        // An empty commit writes: a disk that is full or read-only is found now, not at the first session.
        store.commit(&Batch::default())?;
        Ok(store)
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        if self.damaged.load(Ordering::Acquire) {
            return Err(self.is_damaged());
        }
        let vanished = || StoreError::Vanished {
            path: self.path.clone(),
        };
        let database = open.database.as_ref().ok_or_else(vanished)?;
        self.judged(guarded(&self.path, || {
            work(database).map_err(|error| {
                self.failed.store(true, Ordering::Release);
                StoreError::Failed(Box::new(error))
            })
        }))
    }

    /// One transaction, made durable in the file that stands at our path: a store that was taken away is written on by its
    /// open descriptor, and lost at the next start.
    fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let mut head = self.head();
        if self.damaged.load(Ordering::Acquire) {
            return Err(self.is_damaged());
        }
        self.in_place(&mut head)?;
        let done = self.with(|database| {
            let mut write = database.begin_write()?;
            // With one phase, a last commit that is damaged later is taken for one that was torn, and quietly undone: a
            // revocation with it.
            write.set_two_phase_commit(true);
            let done = work(&write)?;
            write.commit()?;
            Ok(done)
        });
        // Even a write that failed may have written.
        self.look(&mut head)?;
        done
    }

    fn head(&self) -> MutexGuard<'_, Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first bytes of the file at our path, which is the one we have open.
    fn look(&self, head: &mut Head) -> Result<(), StoreError> {
        let inode = self
            .open
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .inode;
        let vanished = || StoreError::Vanished {
            path: self.path.clone(),
        };
        let file = fs::File::open(&self.path).map_err(|_| vanished())?;
        let found = file.metadata().map_err(|_| vanished())?;
        head.length = found.len();
        head.changed = (found.ctime(), found.ctime_nsec());
        let read = file.read_exact_at(&mut head.bytes, 0);
        if found.ino() == inode && read.is_ok() {
            Ok(())
        } else {
            Err(vanished())
        }
    }

    /// Is the file at our path the one we have open, as we left it? One that somebody else touched and left as it was is.
    fn in_place(&self, expected: &mut Head) -> Result<(), StoreError> {
        let mut found = Head::NONE;
        self.look(&mut found)?;
        if (found.length, found.bytes) != (expected.length, expected.bytes) {
            return Err(StoreError::Vanished {
                path: self.path.clone(),
            });
        }
        if found.changed != expected.changed {
            let verified = self.judged(verify::file(&self.path))?;
            tracing::warn!(path = %self.path.display(), took = ?verified.took, "somebody else touched the store's file, and left it whole");
            expected.changed = found.changed;
        }
        Ok(())
    }

    /// What was found; where it is damaged, that holds until it is opened anew.
    fn judged<T>(&self, found: Result<T, StoreError>) -> Result<T, StoreError> {
        if matches!(found, Err(StoreError::Damaged { .. })) {
            self.damaged.store(true, Ordering::Release);
            self.failed.store(true, Ordering::Release);
        }
        found
    }

    fn patience(&self) -> MutexGuard<'_, Patience> {
        self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Can it be read? What is worth a look is opened anew.
    fn look_whether_readable(&self) -> Result<(), StoreError> {
        self.in_place(&mut self.head())?;
        let read = |database: &Database| {
            let read = database.begin_read()?;
            read.open_table(META)?.get("format")?;
            Ok(())
        };
        // After one failed write (a full disk) the database reads on, but refuses every write until it is opened anew.
        if !self.failed.swap(false, Ordering::AcqRel) && self.with(read).is_ok() {
            return Ok(());
        }
        self.failed.store(false, Ordering::Release);
        if let Err(error) = self.reopen() {
            self.failed.store(true, Ordering::Release);
            return Err(error);
        }
        self.with(read)
    }

    fn is_damaged(&self) -> StoreError {
        let source = redb::Error::Corrupted("found before, and not opened anew since".into());
        StoreError::Damaged {
            path: self.path.clone(),
            source: Box::new(source),
        }
    }

    fn check_format(&self) -> Result<(), StoreError> {
        let found = self.with(|database| {
            let mut write = database.begin_write()?;
            write.set_two_phase_commit(true);
            let found = {
                let mut meta = write.open_table(META)?;
                let found = meta.get("format")?.map(|value| value.value());
                if found.is_some_and(|found| !(OLDEST..=FORMAT).contains(&found)) {
                    return Ok(found);
                }
                if found != Some(FORMAT) {
                    meta.insert("format", FORMAT)?;
                }
                // Opened here, so that later reads find every table.
                write.open_table(SESSIONS)?;
                write.open_table(REVOKED)?;
                write.open_table(LOGS)?;
                write.open_table(HOOKS)?;
                write.open_table(DEAD)?;
                write.open_table(PROFILES)?;
                found
            };
            history::take_up(&write)?;
            write.commit()?;
            Ok(found)
        })?;
        match found {
            None | Some(FORMAT) => Ok(()),
            Some(found) if (OLDEST..FORMAT).contains(&found) => {
                tracing::info!(path = %self.path.display(), found, now = FORMAT, "the store was brought up to date");
                Ok(())
            }
            Some(found) => Err(StoreError::Format {
                path: self.path.clone(),
                found,
                expected: FORMAT,
            }),
        }
    }

    /// After an IO error the database refuses everything until it is opened anew.
    fn reopen(&self) -> Result<(), StoreError> {
        let mut slot = self.open.write().unwrap_or_else(PoisonError::into_inner);
        close(&self.path, &mut slot);
        let opened = open(&self.path).map(|open| {
            *slot = open;
            self.damaged.store(false, Ordering::Release);
        });
        drop(slot);
        // Closing it wrote to it, whether it can be opened again or not.
        self.look(&mut self.head())?;
        opened
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        let mut slot = self.open.write().unwrap_or_else(PoisonError::into_inner);
        close(&self.path, &mut slot);
    }
}

impl Store for EmbeddedStore {
    fn load(&self) -> Result<Loaded, StoreError> {
        self.with(|database| {
            let read = database.begin_read()?;
            let mut loaded = Loaded::default();
            for row in read.open_table(SESSIONS)?.iter()? {
                let (key, value) = row?;
                loaded
                    .sessions
                    .push((key.value().to_owned(), value.value().to_vec()));
            }
            for row in read.open_table(REVOKED)?.iter()? {
                let (id, until) = row?;
                loaded.revoked.push((id.value().to_owned(), until.value()));
            }
            for row in read.open_table(PROFILES)?.iter()? {
                let (provider, profile) = row?;
                let profile = (provider.value().to_owned(), profile.value().to_vec());
                loaded.profiles.push(profile);
            }
            for row in read.open_table(LOGS)?.iter()? {
                let (number, record) = row?;
                let (key, bytes) = (number.value().0, record.value().len() as u64);
                // Records of one log stand together.
                match loaded.logs.last_mut() {
                    Some((last, sum)) if *last == *key => *sum += bytes,
                    _ => loaded.logs.push((key.to_owned(), bytes)),
                }
            }
            let newest = read.open_table(EVENTS)?;
            loaded.newest = newest.last()?.map_or(0, |(cursor, _)| cursor.value());
            Ok(loaded)
        })
    }

    fn commit(&self, batch: &Batch) -> Result<u64, StoreError> {
        self.write(|write| {
            let mut sessions = write.open_table(SESSIONS)?;
            for (key, row) in &batch.put {
                sessions.insert(key.as_str(), row.as_slice())?;
            }
            let mut logs = write.open_table(LOGS)?;
            for key in &batch.remove {
                sessions.remove(key.as_str())?;
                let all = (key.as_str(), 0)..=(key.as_str(), u64::MAX);
                logs.retain_in(all, |_, _| false)?;
            }
            let mut revoked = write.open_table(REVOKED)?;
            for (id, until) in &batch.revoke {
                revoked.insert(id.as_str(), *until)?;
            }
            for id in &batch.forget {
                revoked.remove(id.as_str())?;
            }
            let mut profiles = write.open_table(PROFILES)?;
            for (provider, profile) in &batch.profiles {
                profiles.insert(provider.as_str(), profile.as_slice())?;
            }
            history::append(write, &batch.events, batch.keep_events)
        })
    }

    fn events(&self, after: u64, limit: usize) -> Result<Vec<StoredEvent>, StoreError> {
        self.with(|database| {
            let read = database.begin_read()?;
            let events = read.open_table(EVENTS)?;
            let mut found = Vec::new();
            for row in events.range(after.saturating_add(1)..)?.take(limit) {
                let (cursor, body) = row?;
                found.push(StoredEvent {
                    cursor: cursor.value(),
                    body: body.value().to_vec(),
                });
            }
            Ok(found)
        })
    }

    fn dropped(&self, of: &str) -> Result<Dropped, StoreError> {
        self.with(|database| history::dropped(database, of))
    }

    fn append_log(
        &self,
        key: &str,
        records: &[Vec<u8>],
        keep: u64,
        room: u64,
    ) -> Result<Appended, StoreError> {
        self.write(|write| {
            let mut logs = write.open_table(LOGS)?;
            let (mut last, mut stale, mut freed) = (0, 0, 0);
            if let Some(row) = logs.range((key, 0)..=(key, u64::MAX))?.next_back() {
                last = row?.0.value().1;
            }
            for row in logs.range((key, 0)..=(key, u64::MAX))? {
                if freed >= room {
                    break;
                }
                let (number, record) = row?;
                freed += record.value().len() as u64;
                stale = number.value().1;
            }
            for record in records {
                last += 1;
                logs.insert((key, last), record.as_slice())?;
            }
            stale = stale.max(last.saturating_sub(keep));
            let mut dropped = 0;
            // Numbers begin at 1.
            logs.retain_in((key, 0)..=(key, stale), |_, record| {
                dropped += record.len() as u64;
                false
            })?;
            Ok(Appended { last, dropped })
        })
    }

    fn log(&self, key: &str, after: u64, limit: usize) -> Result<LogPage, StoreError> {
        self.with(|database| {
            let read = database.begin_read()?;
            let logs = read.open_table(LOGS)?;
            let mut page = LogPage::default();
            let mut all = logs.range((key, 0)..=(key, u64::MAX))?;
            let first = match all.next() {
                Some(row) => row?.0.value().1,
                None => return Ok(LogPage { first: 1, ..page }),
            };
            page.first = first;
            page.last = match all.next_back() {
                Some(row) => row?.0.value().1,
                None => first,
            };
            let from = (key, after.saturating_add(1));
            for row in logs.range(from..=(key, u64::MAX))?.take(limit) {
                let (number, record) = row?;
                page.records
                    .push((number.value().1, record.value().to_vec()));
            }
            Ok(page)
        })
    }

    fn webhook_cursor(&self, name: &str) -> Result<Option<u64>, StoreError> {
        self.with(|database| hooks::cursor(database, name))
    }

    fn webhook_settle(
        &self,
        name: &str,
        cursor: u64,
        dead: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        self.write(|write| hooks::settle(write, name, cursor, dead))
    }

    fn webhook_letter(
        &self,
        name: &str,
        cursor: u64,
        dead: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        self.write(|write| hooks::letter(write, name, cursor, dead))
    }

    fn webhook_dead(&self, name: &str, limit: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        self.with(|database| hooks::dead(database, name, limit))
    }

    fn verify(&self) -> Result<Verified, StoreError> {
        // What is written meanwhile can only make it look damaged: then it is looked at once more, and nobody writes.
        if let Ok(verified) = verify::file(&self.path) {
            self.hasten();
            return Ok(verified);
        }
        let mut head = self.head();
        self.in_place(&mut head)?;
        self.judged(verify::file(&self.path))
    }

    fn probe(&self, now: SystemTime) -> Result<(), StoreError> {
        let mut patience = self.patience();
        let known = self.damaged.load(Ordering::Acquire);
        if known && !patience.is_over(Stamp::of(&self.path), now) {
            return Err(self.is_damaged());
        }
        let found = self.look_whether_readable();
        match &found {
            Err(StoreError::Damaged { .. }) => {
                self.damaged.store(true, Ordering::Release);
                self.failed.store(true, Ordering::Release);
                let random = getrandom::u32().map_or(1.0, |r| f64::from(r) / f64::from(u32::MAX));
                patience.still_damaged(Stamp::of(&self.path), now, random);
                tracing::debug!(path = %self.path.display(), looked = patience.looked(), "the store is damaged");
            }
            Ok(()) => patience.end(),
            // It is not known to be damaged: looking whether it is back costs nothing.
            Err(_) => {}
        }
        found
    }

    fn hasten(&self) {
        self.patience().end();
    }
}

#[cfg(test)]
mod tests;
