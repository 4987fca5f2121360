//! The file: slots of 16 bytes.
//!
//! ```text
//! 0      magic (8), zero (8)
//! 1      the machine's boot id
//! 2 …    instances, the last process first; zero: none
//! 10 …   taken opens, as a ring: number (8), at (8); zero: none
//! ```

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use sluicegate_relay_protocol::Instance;

use super::{INSTANCES, PLACES, Taken, until};

const SLOT: usize = 16;
const MAGIC: [u8; SLOT] = *b"sgopens1\0\0\0\0\0\0\0\0";
const HEAD: usize = 2 + INSTANCES;

#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    /// Where the next one goes.
    next: usize,
}

impl Journal {
    /// What the process before has left behind for one that starts now: who it and those before it were, and what they took, in order.
    /// Nothing, where the machine has been down since.
    pub(super) fn left_behind(path: &Path, now: u64) -> (Vec<Instance>, Vec<Taken>) {
        let bytes = std::fs::read(path).unwrap_or_default();
        let (slots, _) = bytes.as_chunks::<SLOT>();
        let Some((head, ring)) = slots.split_at_checked(HEAD) else {
            return Default::default();
        };
        let [magic, boot, instances @ ..] = head else {
            return Default::default();
        };
        if *magic != MAGIC || Some(*boot) != boot_id() {
            return Default::default();
        }
        let instances = instances.iter().filter(|slot| **slot != [0; SLOT]);
        let mut taken: Vec<_> = ring.iter().map(read).collect();
        if taken.iter().any(|one| one.at > now) {
            // Another clock than ours.
            return Default::default();
        }
        taken.retain(|one| one.at != 0 && until(one.at) > now);
        taken.sort_by_key(|one| one.at);
        (instances.copied().map(Instance::new).collect(), taken)
    }

    /// A new file with this, in place of the one before.
    pub(super) fn begin(path: &Path, known: &[Instance], taken: &[Taken]) -> io::Result<Self> {
        let mut bytes = MAGIC.to_vec();
        // Without a boot id nothing is left behind.
        bytes.extend(boot_id().unwrap_or_default());
        known.iter().for_each(|one| bytes.extend(one.name()));
        bytes.resize(HEAD * SLOT, 0);
        for one in taken {
            bytes.extend(slot(*one));
        }
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
            next: taken.len() % PLACES,
        })
    }

    /// Handed to the kernel, which keeps it whatever becomes of this process.
    pub(super) fn write(&mut self, taken: Taken) -> io::Result<()> {
        let place = (HEAD + self.next) * SLOT;
        self.file.write_all_at(&slot(taken), place as u64)?;
        self.next = (self.next + 1) % PLACES;
        Ok(())
    }

    /// Nothing is left behind.
    pub(super) fn discard(self) {
        if let Err(error) = self.file.set_len(0) {
            tracing::error!(%error, "cannot empty the file of opened relay streams");
        }
    }
}

fn slot(taken: Taken) -> [u8; SLOT] {
    let bytes = u128::from(taken.number) << 64 | u128::from(taken.at);
    bytes.to_be_bytes()
}

fn read(slot: &[u8; SLOT]) -> Taken {
    let [number, at] = [u128::from_be_bytes(*slot) >> 64, u128::from_be_bytes(*slot)];
    #[allow(clippy::cast_possible_truncation, reason = "the halves of 128 bits")]
    Taken {
        number: number as u64,
        at: at as u64,
    }
}

/// Another one after each start of the machine.
fn boot_id() -> Option<[u8; SLOT]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16)
        .ok()
        .map(u128::to_be_bytes)
}
