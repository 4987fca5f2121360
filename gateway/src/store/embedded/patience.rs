//! When a file that was found damaged is looked at again: looking takes as long as reading it whole, and it hardly ever
//! mends itself.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime},
};

/// The first wait; each is twice the one before.
const FIRST: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST: Duration = Duration::from_secs(30);

/// A file as it can be told apart without reading it. Nobody can set the time of its change back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// The file at the path; `None` where there is none.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            inode: found.ino(),
            length: found.len(),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// What was last found damaged, and until when it is believed to be so still.
#[derive(Debug, Default)]
pub(super) struct Patience {
    looked: u32,
    last: Option<(Option<Stamp>, SystemTime, Duration)>,
}

impl Patience {
    /// Is it time to look? Where the file is another than was found damaged it always is.
    pub(super) fn is_over(&self, found: Option<Stamp>, now: SystemTime) -> bool {
        let Some((seen, at, wait)) = self.last else {
            return true;
        };
        // A clock that went back must not put it off.
        let waited = now.duration_since(at).map_or(true, |since| since >= wait);
        waited || found != seen
    }

    /// It was looked at, and is damaged. `random` is between 0 and 1: gateways that share a disk do not all read it at once.
    pub(super) fn still_damaged(&mut self, found: Option<Stamp>, now: SystemTime, random: f64) {
        let doubled = 1_u32.checked_shl(self.looked).unwrap_or(u32::MAX);
        let bound = FIRST.saturating_mul(doubled).min(LONGEST);
        self.looked = self.looked.saturating_add(1);
        let wait = bound.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0);
        self.last = Some((found, now, wait));
    }

    /// How often it was looked at, and found damaged, in a row.
    pub(super) const fn looked(&self) -> u32 {
        self.looked
    }

    /// Somebody says that it is worth looking, or it was found whole.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Option<Stamp> = Some(Stamp {
        inode: 1,
        length: 2,
        changed: (3, 4),
    });

    /// How often it is looked at within so long, asked twice a second.
    fn looks(patience: &mut Patience, from: SystemTime, long: u64, random: f64) -> u32 {
        let ticks = (0..long * 2).map(|tick| from + Duration::from_millis(500) * tick as u32);
        let mut count = 0;
        for now in ticks {
            if patience.is_over(STAMP, now) {
                patience.still_damaged(STAMP, now, random);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn waits_grow_to_half_a_minute_and_no_longer() {
        let start = SystemTime::UNIX_EPOCH;
        for (random, expected) in [(0.0, 4), (1.0, 2)] {
            let mut patience = Patience::default();
            assert!(looks(&mut patience, start, 60, random) <= 9);
            let later = start + Duration::from_secs(60);
            let settled = looks(&mut patience, later, 60, random);
            assert_eq!(settled, expected, "{random}");
        }
    }

    #[test]
    fn what_has_changed_is_looked_at_at_once() {
        let now = SystemTime::UNIX_EPOCH;
        let mut patience = Patience::default();
        assert!(patience.is_over(STAMP, now));
        looks(&mut patience, now, 600, 1.0);
        let now = now + Duration::from_secs(600);
        patience.still_damaged(STAMP, now, 1.0);
        assert!(!patience.is_over(STAMP, now + LONGEST / 2));
        let touched = STAMP.map(|stamp| Stamp {
            changed: (3, 5),
            ..stamp
        });
        assert!(patience.is_over(touched, now) && patience.is_over(None, now));
        assert!(patience.is_over(STAMP, now - Duration::from_secs(60)));
        patience.end();
        assert!(patience.is_over(STAMP, now));
    }
}
