//! The hashes of a name's suffixes: taken once for a decision, however many lists are asked.

use std::{
    hash::{BuildHasher, RandomState},
    sync::LazyLock,
};

/// Suffixes whose hashes are kept: those of more labels are rare, and are hashed again for each list that has such names.
const KEPT: usize = 8;

/// What a hash begins with, and what it is multiplied by: other ones in each process. Whoever asks for a grant chooses its names, and those of
/// one hash would be compared one by one in each decision.
static KEYS: LazyLock<[u64; 2]> = LazyLock::new(|| {
    let random = RandomState::new();
    [random.hash_one(0_u8), random.hash_one(1_u8) | 1]
});

/// A name, and the hashes of its suffixes from the last label to the whole.
#[derive(Clone, Debug)]
pub(crate) struct Suffixes<'n> {
    pub(super) text: &'n str,
    hashes: [u64; KEPT],
    starts: [u8; KEPT],
    kept: usize,
    /// Goes on behind the last one that is kept.
    further: Labels<'n>,
}

/// So many of a name's last labels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Suffix {
    pub(super) hash: u64,
    /// Where in the name it begins; the whole name begins at 0.
    pub(super) start: usize,
}

impl<'n> Suffixes<'n> {
    /// Those that lists may have whose names have `labels` (as `Names::labels` says it): others are hashed when they are asked for.
    #[inline]
    pub(super) fn new(text: &'n str, labels: u64) -> Self {
        let mut all = Self {
            text,
            hashes: [0; KEPT],
            starts: [0; KEPT],
            kept: 0,
            further: Labels::of(text),
        };
        let places = all.hashes.iter_mut().zip(&mut all.starts);
        for (place, (hash, start)) in (1_u32..).zip(places) {
            // None of them has so many labels.
            if labels >> place == 0 {
                break;
            }
            let Some(suffix) = all.further.next() else {
                break;
            };
            *hash = suffix.hash;
            *start = suffix.start as u8;
            all.kept += 1;
        }
        all
    }

    /// All of them, the shortest first.
    #[inline]
    pub(super) fn iter(&self) -> impl Iterator<Item = Suffix> {
        let kept = self.hashes.iter().zip(&self.starts).take(self.kept);
        let kept = kept.map(|(hash, start)| Suffix {
            hash: *hash,
            start: usize::from(*start),
        });
        kept.chain(self.further)
    }
}

/// The hash of a whole name.
pub(super) fn hash(name: &str) -> u64 {
    Labels::of(name).last().map_or(0, |suffix| suffix.hash)
}

/// Extends a hash label by label from the end of a name, eight bytes at a time, so that one pass yields that of every suffix.
#[derive(Clone, Copy, Debug)]
struct Labels<'n> {
    text: &'n [u8],
    /// Bytes of it that are not hashed, the dot before the last label not among them; `None` behind the whole.
    left: Option<usize>,
    state: u64,
    factor: u64,
}

impl<'n> Labels<'n> {
    fn of(name: &'n str) -> Self {
        let text = name.as_bytes();
        let [state, factor] = *KEYS;
        Self {
            text,
            left: Some(text.len()),
            state,
            factor,
        }
    }

    /// The last bytes before `end`, eight at most, and how many. The last one is the uppermost; where there are fewer than eight,
    /// zeros are below them.
    #[inline]
    fn word_before(&self, end: usize) -> (u64, usize) {
        let before = self.text.get(..end).unwrap_or_default();
        if let Some(chunk) = before.last_chunk() {
            return (u64::from_le_bytes(*chunk), 8);
        }
        let word = match self.text.first_chunk() {
            Some(chunk) => u64::from_le_bytes(*chunk),
            None => {
                let bytes = before.iter().rev();
                bytes.fold(0, |word, byte| word << 8 | u64::from(*byte))
            }
        };
        let above = (8 - before.len()) as u32 * 8;
        (word.checked_shl(above).unwrap_or_default(), before.len())
    }

    #[inline]
    fn mix(&mut self, word: u64) {
        self.state = product(self.state ^ word, self.factor);
    }

    /// The hash of the labels so far, its bits spread: places go by the upper ones.
    #[inline]
    fn value(self) -> u64 {
        let mixed = (self.state ^ (self.state >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    }
}

impl Iterator for Labels<'_> {
    type Item = Suffix;

    #[inline]
    fn next(&mut self) -> Option<Suffix> {
        let mut left = self.left?;
        loop {
            let (word, held) = self.word_before(left);
            let own = ((dots(word).leading_zeros() / 8) as usize).min(held);
            let below = (8 - own) as u32 * 8;
            self.mix(word.checked_shr(below).unwrap_or_default());
            left -= own;
            // The label may go on before a whole word of it. (One of whole words ends with an empty word.)
            if own < 8 {
                break;
            }
        }
        // What is before it is a dot, or nothing.
        self.left = left.checked_sub(1);
        Some(Suffix {
            hash: self.value(),
            start: left,
        })
    }
}

/// Both halves of it, so that each bit of it depends on each of the factors: of the lower half alone it is known, whatever the other factor,
/// how it changes with the upper bits of one.
#[inline]
const fn product(one: u64, other: u64) -> u64 {
    let whole = one as u128 * other as u128;
    whole as u64 ^ (whole >> 64) as u64
}

/// The upper bit of each byte that is a dot.
#[inline]
const fn dots(word: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let rest = word ^ 0x2e2e_2e2e_2e2e_2e2e;
    !(((rest & LOW) + LOW) | rest | LOW)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::{KEPT, KEYS, Suffix, Suffixes, hash, product};
    use proptest::prelude::*;

    /// The same hash, byte by byte.
    fn plain(name: &str) -> u64 {
        let [mut state, factor] = *KEYS;
        let mut word = 0_u64;
        let mut mix = |word: &mut u64| {
            state = product(state ^ *word, factor);
            *word = 0;
        };
        for byte in name.bytes().rev() {
            if byte == b'.' {
                mix(&mut word);
                continue;
            }
            word = word << 8 | u64::from(byte);
            if word >> 56 != 0 {
                mix(&mut word);
            }
        }
        mix(&mut word);
        let mixed = (state ^ (state >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    }

    /// Where labels begin, the last one first.
    fn starts(name: &str) -> Vec<usize> {
        let dots = name.match_indices('.').map(|(at, _)| at + 1);
        let mut starts: Vec<usize> = std::iter::once(0).chain(dots).collect();
        starts.reverse();
        starts
    }

    proptest! {
        #[test]
        fn each_suffix_is_found_with_the_hash_it_has_alone(
            labels in prop::collection::vec("[a-z0-9_-]{1,15}", 1..2 * KEPT),
            longest in any::<u64>(),
        ) {
            let name = labels.join(".");
            let expected: Vec<Suffix> = starts(&name)
                .into_iter()
                .map(|start| Suffix { hash: plain(&name[start..]), start })
                .collect();
            for longest in [longest, 0, u64::MAX] {
                let found: Vec<Suffix> = Suffixes::new(&name, longest).iter().collect();
                prop_assert_eq!(&found, &expected);
            }
            prop_assert_eq!(hash(&name), plain(&name));
        }
    }

    /// These have the same hash where what it is multiplied by is known, and each such pair of labels doubles how many names have it.
    #[test]
    fn names_cannot_be_chosen_to_collide() {
        let pairs = ["aaa", "aac", "aae", "aag"].map(|between| {
            ["a-1", "i-q"].map(|ends| {
                let (first, last) = (&ends[..1], &ends[2..]);
                format!("{first}bcdefgh{between}wxyz{last}.test")
            })
        });
        for [one, other] in pairs {
            assert_ne!(hash(&one), hash(&other), "{one} {other}");
        }
    }

    #[test]
    fn labels_of_every_length_side_by_side() {
        for first in 1..20 {
            for second in 1..20 {
                let name = format!("{}.{}", "a".repeat(first), "b".repeat(second));
                let found: Vec<u64> = Suffixes::new(&name, u64::MAX)
                    .iter()
                    .map(|one| one.hash)
                    .collect();
                assert_eq!(found, [plain(&name[first + 1..]), plain(&name)], "{name}");
            }
        }
    }
}
