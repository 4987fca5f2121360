//! Which opens have been taken: a client whose connection died before the answer asks again, and no byte of its program's
//! may reach a service twice.
//!
//! Each session has a memory of its own ([`memory`]), in blocks that all share ([`blocks`]): nobody's opens make another's
//! forgotten. An open locks nothing but its session's memory, and its session's part of the list of them; only a new block is
//! everybody's matter.
//!
//! The memory outlives the process in a file ([`journal`]): what the process before has taken, the next one knows. Every entry is handed
//! to the kernel before its open goes on, which a SIGKILL does not undo. A machine that goes down takes the file's last entries with it:
//! after that nobody knows, and says so.

mod blocks;
mod journal;
mod memory;

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use sha2::{Digest, Sha256};
use sluicegate_policy::Denial;
use sluicegate_relay_protocol::{Instance, Once};

use self::{
    blocks::Blocks,
    journal::{Journal, LeftBehind},
    memory::{Memory, Verdict},
};
use crate::session::SessionKey;

/// An open is remembered for this long. Clients ask again for half as long.
const REMEMBERED: Duration = Duration::from_secs(120);
/// Processes before this one whose opens are known.
const INSTANCES: usize = 8;
/// Parts of the list of sessions, each with a lock of its own.
const PARTS: usize = 64;

/// How much can be remembered, in blocks of [`journal::BLOCK`] opens.
#[derive(Clone, Copy, Debug)]
struct Room {
    /// Of all sessions: over four thousand opens a second.
    all: usize,
    /// Of one session: over two thousand.
    one: usize,
}

impl Room {
    const USUAL: Self = Self {
        all: 1 << 14,
        one: 1 << 13,
    };
}

/// One open that was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Taken {
    number: u64,
    /// Milliseconds of the machine's own clock.
    at: u64,
}

type Part = RwLock<HashMap<u64, Arc<Mutex<Memory>>>>;

/// The opens this process and those before it have taken.
#[derive(Debug)]
pub struct Opens {
    instance: Instance,
    /// This process first, then those before.
    known: Vec<Instance>,
    journal: Journal,
    room: Room,
    /// Locked before a part of the list, and that before a memory; never the other way round.
    blocks: Mutex<Blocks>,
    sessions: [Part; PARTS],
    /// When an open was last taken of a session there was no block for; 0: never.
    unremembered: AtomicU64,
}

impl Opens {
    /// With the memory in this file, and of the process before.
    ///
    /// # Errors
    /// The file cannot be written, or there is no randomness, or no clock.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with(path, Room::USUAL)
    }

    fn with(path: &Path, room: Room) -> io::Result<Self> {
        let instance = instance()?;
        let mut left = LeftBehind::read(path, now()?);
        left.known.insert(0, instance);
        left.known.truncate(INSTANCES);
        let journal = Journal::begin(path, &left)?;
        let opens = Self {
            instance,
            known: left.known,
            journal,
            room,
            blocks: Mutex::new(Blocks::after(left.blocks.len(), room.all)),
            sessions: std::array::from_fn(|_| Part::default()),
            unremembered: AtomicU64::new(left.unremembered),
        };
        for (place, block) in left.blocks.into_iter().enumerate() {
            lock(&opens.memory_of(block.session)).inherit(place, block);
        }
        Ok(opens)
    }

    /// This process.
    pub fn instance(&self) -> Instance {
        self.instance
    }

    /// Take this open of this session, once.
    ///
    /// # Errors
    /// [`Denial::AlreadyOpened`] where it has been taken before, or may have been.
    pub fn take(&self, session: &SessionKey, once: &Once) -> Result<(), Denial> {
        // There was a clock when the file was opened.
        let now = now().map_err(|error| {
            tracing::error!(%error, "the machine's clock cannot be read: no open is taken");
            Denial::AlreadyOpened
        })?;
        self.take_at(name(session), once, now)
    }

    fn take_at(&self, session: u64, once: &Once, now: u64) -> Result<(), Denial> {
        let here = once.tried.iter().all(|tried| self.known.contains(tried));
        let unremembered = self.unremembered.load(Ordering::Acquire);
        let sure = !is_recent(unremembered, now) && here;
        if !once.tried.is_empty() && !sure {
            return Err(Denial::AlreadyOpened);
        }
        loop {
            let memory = self.found(session);
            let (verdict, has) = match &memory {
                Some(memory) => {
                    let mut memory = lock(memory);
                    let verdict = memory.take(once, now, self.room.one, &self.journal);
                    (verdict, memory.blocks())
                }
                None => (Verdict::Full, 0),
            };
            match verdict {
                Verdict::Taken => return Ok(()),
                Verdict::Refused => return Err(Denial::AlreadyOpened),
                Verdict::Over => {}
                Verdict::Full => match (self.block(session, has, now), memory) {
                    (Some(place), _) => self.grow(session, place),
                    // Everybody has as little: it makes do with what it has.
                    (None, Some(memory)) => lock(&memory).forget_oldest(&self.journal),
                    (None, None) => {
                        self.unremembered.fetch_max(now, Ordering::AcqRel);
                        self.journal.unremembered(now);
                        return Ok(());
                    }
                },
            }
        }
    }

    /// One more block for a session.
    fn grow(&self, session: u64, place: usize) {
        let memory = self.memory_of(session);
        let grown = lock(&memory).grow(place, &self.journal);
        // It has been let go of meanwhile: whoever asks begins anew.
        if !grown {
            lock(&self.blocks).give_back(place);
        }
    }

    /// A block nobody uses: one that is free, or holds only what has passed, or the oldest of whoever has most, and more than
    /// this session.
    fn block(&self, session: u64, has: usize, now: u64) -> Option<usize> {
        let mut blocks = lock(&self.blocks);
        if let Some(place) = blocks.take() {
            return Some(place);
        }
        let mut most: Option<(usize, Arc<Mutex<Memory>>)> = None;
        for part in &self.sessions {
            let mut part = part.write().unwrap_or_else(PoisonError::into_inner);
            part.retain(|of, shared| {
                let mut memory = lock(shared);
                memory.forget_passed(now, |place| blocks.give_back(place));
                let held = memory.blocks();
                if *of != session && held > most.as_ref().map_or(has.max(1), |(most, _)| *most) {
                    most = Some((held, shared.clone()));
                }
                !memory.is_over()
            });
        }
        if let Some(place) = blocks.take() {
            return Some(place);
        }
        let (_, richest) = most?;
        lock(&richest).give_oldest(&self.journal)
    }

    fn part(&self, session: u64) -> &Part {
        // In range: the remainder. The name is a digest, any bits of it will do.
        #[allow(clippy::indexing_slicing, clippy::cast_possible_truncation)]
        &self.sessions[session as usize % PARTS]
    }

    fn found(&self, session: u64) -> Option<Arc<Mutex<Memory>>> {
        let part = self.part(session).read();
        let part = part.unwrap_or_else(PoisonError::into_inner);
        part.get(&session).cloned()
    }

    fn memory_of(&self, session: u64) -> Arc<Mutex<Memory>> {
        let part = self.part(session).write();
        let mut part = part.unwrap_or_else(PoisonError::into_inner);
        let memory = part
            .entry(session)
            .or_insert_with(|| Arc::new(Mutex::new(Memory::of(session))));
        memory.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A session as it stands in the file; the same in the next process. Zero is nobody.
fn name(session: &SessionKey) -> u64 {
    let mut digest = Sha256::new();
    for part in [&session.namespace, &session.provider, &session.id] {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    let digest: [u8; 32] = digest.finalize().into();
    let first = digest.first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(first).max(1)
}

/// Was it so short a time ago that somebody may ask? Zero is never.
fn is_recent(at: u64, now: u64) -> bool {
    at != 0 && until(at) > now
}

fn until(at: u64) -> u64 {
    at.saturating_add(u64::try_from(REMEMBERED.as_millis()).unwrap_or(u64::MAX))
}

fn instance() -> io::Result<Instance> {
    let mut name = [0; 16];
    getrandom::fill(&mut name).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Instance::new(name))
}

/// Milliseconds since the machine was started: the same clock for the process before.
fn now() -> io::Result<u64> {
    let since = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
    Ok(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
