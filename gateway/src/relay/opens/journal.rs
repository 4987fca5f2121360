//! The file: blocks of 32 slots of 16 bytes.
//!
//! ```text
//! 0    magic, boot id of the machine, instances (8 slots, the last process first; zero: none), unremembered (8) zero (8), zero
//! 1 …  a session's: its name (8), the latest it has forgotten too early (8); then what it has taken: number (8), at (8); zero: none
//! ```

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use sluicegate_relay_protocol::Instance;

use super::{INSTANCES, Taken, is_recent};

const SLOT: usize = 16;
const SLOTS: usize = 32;
/// Opens in a block.
pub(super) const BLOCK: usize = SLOTS - 1;
const MAGIC: [u8; SLOT] = *b"sgopens2\0\0\0\0\0\0\0\0";
/// Where `unremembered` stands.
const UNREMEMBERED: usize = 2 + INSTANCES;

/// What the process before has left for one that starts now.
#[derive(Debug, Default)]
pub(super) struct LeftBehind {
    /// Who it and those before it were.
    pub(super) known: Vec<Instance>,
    pub(super) unremembered: u64,
    /// In the order of their last opens.
    pub(super) blocks: Vec<Left>,
}

/// One block of a session's.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) session: u64,
    pub(super) forgotten: u64,
    pub(super) taken: Vec<Taken>,
}

impl LeftBehind {
    /// Nothing, where the machine has been down since.
    pub(super) fn read(path: &Path, now: u64) -> Self {
        let bytes = std::fs::read(path).unwrap_or_default();
        let (slots, _) = bytes.as_chunks::<SLOT>();
        let (blocks, _) = slots.as_chunks::<SLOTS>();
        let Some(([magic, boot, head @ ..], blocks)) = blocks.split_first() else {
            return Self::default();
        };
        if *magic != MAGIC || Some(*boot) != boot_id() {
            return Self::default();
        }
        let (instances, rest) = head.split_at(INSTANCES);
        let unremembered = rest.first().map_or(0, |slot| halves(slot).0);
        let mut blocks: Vec<Left> = blocks.iter().map(read).collect();
        let of_block = |block: &Left| block.forgotten.max(latest(block));
        if blocks
            .iter()
            .map(of_block)
            .chain([unremembered])
            .any(|at| at > now)
        {
            // Another clock than ours.
            return Self::default();
        }
        blocks.retain(|block| block.session != 0 && is_recent(of_block(block), now));
        blocks.sort_by_key(of_block);
        let instances = instances.iter().filter(|slot| **slot != [0; SLOT]);
        Self {
            known: instances.copied().map(Instance::new).collect(),
            unremembered,
            blocks,
        }
    }
}

#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    given_up: AtomicBool,
}

impl Journal {
    /// A new file with this, in place of the one before.
    pub(super) fn begin(path: &Path, left: &LeftBehind) -> io::Result<Self> {
        let mut bytes = MAGIC.to_vec();
        // Without a boot id nothing is left behind.
        bytes.extend(boot_id().unwrap_or_default());
        left.known.iter().for_each(|one| bytes.extend(one.name()));
        bytes.resize(UNREMEMBERED * SLOT, 0);
        bytes.extend(slot(left.unremembered, 0));
        for (place, block) in left.blocks.iter().enumerate() {
            bytes.resize(place_of(place), 0);
            bytes.extend(slot(block.session, block.forgotten));
            for one in &block.taken {
                bytes.extend(slot(one.number, one.at));
            }
        }
        bytes.resize(place_of(left.blocks.len()), 0);
        let new = path.with_extension("new");
        let _ = std::fs::remove_file(&new);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all_at(&bytes, 0)?;
        std::fs::rename(&new, path)?;
        Ok(Self {
            file,
            given_up: AtomicBool::new(false),
        })
    }

    /// An open is in this block of its session's.
    pub(super) fn write(&self, place: usize, index: usize, taken: Taken) {
        let at = place_of(place) + (1 + index) * SLOT;
        self.put(at, &slot(taken.number, taken.at));
    }

    /// A block is this session's from now on, and empty.
    pub(super) fn begin_block(&self, place: usize, session: u64, forgotten: u64) {
        let mut bytes = [0; SLOT * SLOTS];
        if let Some(head) = bytes.first_chunk_mut() {
            *head = slot(session, forgotten);
        }
        self.put(place_of(place), &bytes);
    }

    /// The session of this block has forgotten something too early.
    pub(super) fn forgotten(&self, place: usize, session: u64, forgotten: u64) {
        self.put(place_of(place), &slot(session, forgotten));
    }

    /// An open was taken that nobody will know of.
    pub(super) fn unremembered(&self, at: u64) {
        self.put(UNREMEMBERED * SLOT, &slot(at, 0));
    }

    /// Handed to the kernel, which keeps it whatever becomes of this process.
    fn put(&self, at: usize, bytes: &[u8]) {
        if self.given_up.load(Ordering::Acquire) {
            return;
        }
        let Err(error) = self.file.write_all_at(bytes, at as u64) else {
            return;
        };
        tracing::error!(%error, "cannot write down which relay streams are opened: after a restart none is opened again");
        // Half a memory would be taken for a whole one. What others write meanwhile has no head.
        self.given_up.store(true, Ordering::Release);
        if let Err(error) = self.file.set_len(0) {
            tracing::error!(%error, "cannot empty the file of opened relay streams");
        }
    }
}

fn place_of(block: usize) -> usize {
    (1 + block) * SLOTS * SLOT
}

fn read(block: &[[u8; SLOT]; SLOTS]) -> Left {
    let [head, taken @ ..] = block;
    let (session, forgotten) = halves(head);
    let taken = taken.iter().map(halves);
    let taken = taken.map(|(number, at)| Taken { number, at });
    Left {
        session,
        forgotten,
        taken: taken.take_while(|one| one.at != 0).collect(),
    }
}

fn latest(block: &Left) -> u64 {
    block.taken.iter().map(|one| one.at).max().unwrap_or(0)
}

fn slot(one: u64, two: u64) -> [u8; SLOT] {
    let bytes = u128::from(one) << 64 | u128::from(two);
    bytes.to_be_bytes()
}

fn halves(slot: &[u8; SLOT]) -> (u64, u64) {
    let both = u128::from_be_bytes(*slot);
    #[allow(clippy::cast_possible_truncation, reason = "the halves of 128 bits")]
    ((both >> 64) as u64, both as u64)
}

/// Another one after each start of the machine.
fn boot_id() -> Option<[u8; SLOT]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16)
        .ok()
        .map(u128::to_be_bytes)
}
