//! The whole file, verified from beside: every page that belongs to the store against its checksum. Nothing is written to the
//! file, and whoever has it open is not asked.

use std::{
    collections::{HashMap, hash_map::Entry},
    fs, io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTableMetadata, StorageBackend, TableError,
};

use super::{EVENTS, FORMAT, LOGS, META, OLDEST, REVOKED, SESSIONS, guarded};
use crate::store::{StoreError, Verified};

/// What is written is kept in pieces of so many bytes.
const BLOCK: usize = 4096;
/// Memory for pages, however large the file is.
const CACHE: usize = 16 << 20;

type Blocks = HashMap<u64, Box<[u8; BLOCK]>>;

/// A file as it is, and beside it what is written: a store is opened, and its books put right, in order to be verified.
#[derive(Debug)]
struct Beside {
    file: fs::File,
    length: AtomicU64,
    written: Mutex<Blocks>,
}

impl Beside {
    fn open(path: &Path) -> io::Result<Self> {
        let file = fs::File::open(path)?;
        let length = file.metadata()?.len().into();
        Ok(Self {
            file,
            length,
            written: Mutex::default(),
        })
    }

    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file's own bytes of a block; what is beyond its end is zero.
    fn original(&self, block: u64) -> io::Result<Box<[u8; BLOCK]>> {
        let mut bytes = Box::new([0; BLOCK]);
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = block * BLOCK as u64 + filled as u64;
            match self.file.read_at(rest, at)? {
                0 => break,
                read => filled += read,
            }
        }
        Ok(bytes)
    }

    /// The parts of blocks that `length` bytes from `offset` on are: block, where in it, how many.
    fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
        let (mut at, end) = (offset, offset + length as u64);
        std::iter::from_fn(move || {
            let (block, within) = (at / BLOCK as u64, (at % BLOCK as u64) as usize);
            let length = (BLOCK - within).min((end - at) as usize);
            at += length as u64;
            (length > 0).then_some((block, within, length))
        })
    }

    fn within(&self, offset: u64, length: usize) -> io::Result<()> {
        let end = offset.checked_add(length as u64);
        if end.is_some_and(|end| end <= self.length.load(Ordering::Acquire)) {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

impl StorageBackend for Beside {
    fn len(&self) -> io::Result<u64> {
        Ok(self.length.load(Ordering::Acquire))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.within(offset, out.len())?;
        let mut rest = out;
        let blocks = self.blocks();
        for (block, within, length) in Self::parts(offset, rest.len()) {
            let (part, tail) = rest.split_at_mut(length);
            match blocks
                .get(&block)
                .and_then(|b| b.get(within..within + length))
            {
                Some(written) => part.copy_from_slice(written),
                None => {
                    let from = block * BLOCK as u64 + within as u64;
                    match self.file.read_exact_at(part, from) {
                        // It was made longer here, and nothing was written there yet.
                        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => part.fill(0),
                        read => read?,
                    }
                }
            }
            rest = tail;
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.length.store(length, Ordering::Release);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.within(offset, data.len())?;
        let mut rest = data;
        let mut blocks = self.blocks();
        for (block, within, length) in Self::parts(offset, data.len()) {
            let (part, tail) = rest.split_at(length);
            let into = match blocks.entry(block) {
                Entry::Occupied(written) => written.into_mut(),
                Entry::Vacant(place) => place.insert(self.original(block)?),
            };
            if let Some(into) = into.get_mut(within..within + length) {
                into.copy_from_slice(part);
            }
            rest = tail;
        }
        Ok(())
    }
}

/// Verify the file whole.
///
/// # Errors
/// It cannot be read, is of another format, or is damaged.
pub fn file(path: &Path) -> Result<Verified, StoreError> {
    guarded(path, || whole(path))
}

fn whole(path: &Path) -> Result<Verified, StoreError> {
    let began = Instant::now();
    let unusable = |source| StoreError::Open {
        path: path.into(),
        source,
    };
    let beside = Beside::open(path).map_err(unusable)?;
    let bytes = beside.len().map_err(unusable)?;
    if bytes == 0 {
        return Err(StoreError::Empty { path: path.into() });
    }
    let damaged = |error: redb::Error| StoreError::Damaged {
        path: path.into(),
        source: Box::new(error),
    };
    let of_database = |error: DatabaseError| damaged(error.into());
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    let mut database = builder.create_with_backend(beside).map_err(of_database)?;
    database.check_integrity().map_err(of_database)?;
    let mut verified = Verified {
        bytes,
        ..Verified::default()
    };
    let mut read = || -> Result<Option<u64>, redb::Error> {
        let read = database.begin_read()?;
        verified.sessions = rows(read.open_table(SESSIONS))?;
        verified.revocations = rows(read.open_table(REVOKED))?;
        verified.events = rows(read.open_table(EVENTS))?;
        verified.log_records = rows(read.open_table(LOGS))?;
        Ok(read
            .open_table(META)?
            .get("format")?
            .map(|found| found.value()))
    };
    let found = read().map_err(damaged)?.unwrap_or_default();
    if !(OLDEST..=FORMAT).contains(&found) {
        return Err(StoreError::Format {
            path: path.into(),
            found,
            expected: FORMAT,
        });
    }
    verified.took = began.elapsed();
    Ok(verified)
}

/// How many rows a table has; an older format has fewer tables.
fn rows<T: ReadableTableMetadata>(table: Result<T, TableError>) -> Result<u64, redb::Error> {
    match table {
        Ok(table) => Ok(table.len()?),
        Err(TableError::TableDoesNotExist(_)) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
