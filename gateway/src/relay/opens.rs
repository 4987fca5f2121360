//! Which opens have been taken: a client whose connection died before the answer asks again, and no byte of its program's
//! may reach a service twice.
//!
//! The memory outlives the process in a file: what the process before has taken, the next one knows. Every entry is handed to the
//! kernel before its open goes on, which a SIGKILL does not undo. A machine that goes down takes the file's last entries with it:
//! after that nobody knows, and says so.

mod journal;

use std::{
    collections::{HashSet, VecDeque},
    io,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use sluicegate_policy::Denial;
use sluicegate_relay_protocol::{Instance, Once};

use journal::Journal;

/// An open is remembered for this long. Clients ask again for half as long.
const REMEMBERED: Duration = Duration::from_secs(120);
/// As many at once: over two thousand a second.
const PLACES: usize = 1 << 18;
/// Processes before this one whose opens are known.
const INSTANCES: usize = 8;

/// One open that was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Taken {
    number: u64,
    /// Milliseconds of the machine's own clock.
    at: u64,
}

/// The opens this process and those before it have taken.
#[derive(Debug)]
pub struct Opens {
    instance: Instance,
    memory: Mutex<Memory>,
}

#[derive(Debug)]
struct Memory {
    /// This process first, then those before.
    known: Vec<Instance>,
    order: VecDeque<Taken>,
    numbers: HashSet<u64>,
    /// Until then something that was forgotten too early may be asked about.
    forgetful_until: u64,
    journal: Option<Journal>,
}

impl Opens {
    /// With the memory in this file, and of the process before.
    ///
    /// # Errors
    /// The file cannot be written, or there is no randomness.
    pub fn open(path: &Path) -> io::Result<Self> {
        let instance = instance()?;
        let now = now();
        let (mut known, taken) = Journal::left_behind(path, now);
        known.insert(0, instance);
        known.truncate(INSTANCES);
        let journal = Journal::begin(path, &known, &taken)?;
        let full = taken.len() >= PLACES;
        let oldest = taken.first().map_or(0, |first| first.at);
        let memory = Memory {
            known,
            numbers: taken.iter().map(|one| one.number).collect(),
            order: taken.into(),
            forgetful_until: if full { until(oldest) } else { 0 },
            journal: Some(journal),
        };
        Ok(Self {
            instance,
            memory: Mutex::new(memory),
        })
    }

    /// This process.
    pub fn instance(&self) -> Instance {
        self.instance
    }

    /// Take this open, once.
    ///
    /// # Errors
    /// [`Denial::AlreadyOpened`] where it has been taken before, or may have been.
    pub fn take(&self, once: &Once) -> Result<(), Denial> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.take(once, now()) {
            Ok(())
        } else {
            Err(Denial::AlreadyOpened)
        }
    }
}

impl Memory {
    fn take(&mut self, once: &Once, now: u64) -> bool {
        while self
            .order
            .front()
            .is_some_and(|first| until(first.at) <= now)
        {
            self.forget_first();
        }
        let certain = once.tried.is_empty() || now >= self.forgetful_until;
        let ours = once.tried.iter().all(|tried| self.known.contains(tried));
        if !certain || !ours || !self.numbers.insert(once.number) {
            return false;
        }
        if self.order.len() >= PLACES {
            let forgotten = self.forget_first();
            self.forgetful_until = forgotten.map_or(self.forgetful_until, |one| until(one.at));
        }
        let taken = Taken {
            number: once.number,
            at: now,
        };
        self.order.push_back(taken);
        self.write_down(taken);
        true
    }

    fn write_down(&mut self, taken: Taken) {
        let written = self.journal.as_mut().map(|journal| journal.write(taken));
        let Some(Err(error)) = written else { return };
        tracing::error!(%error, "cannot write down which relay streams are opened: after a restart none is opened again");
        // Half a memory would be taken for a whole one.
        if let Some(journal) = self.journal.take() {
            journal.discard();
        }
    }

    fn forget_first(&mut self) -> Option<Taken> {
        let first = self.order.pop_front()?;
        self.numbers.remove(&first.number);
        Some(first)
    }
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
fn now() -> u64 {
    let since = clock_gettime(ClockId::Boottime);
    let milliseconds = since.tv_sec.saturating_mul(1000) + since.tv_nsec / 1_000_000;
    u64::try_from(milliseconds).unwrap_or_default()
}

#[cfg(test)]
mod tests;
