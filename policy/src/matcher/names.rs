//! Names of a list in a table that is built once, laid out so that a decision touches few cache lines: with a hundred
//! thousand names those are what it costs.

use crate::{HostPattern, entry::Ports};

/// A name of the list.
#[derive(Debug)]
struct Slot {
    hash: u64,
    /// Where in `text` it stands.
    at: u32,
    length: u8,
    /// This very name, not those below it?
    exact: bool,
    ports: Ports,
    /// Index of the entry.
    entry: u32,
}

/// Names by hash.
///
/// The hash is extended label by label from the end, so that one pass over a name yields the hash of every suffix. A
/// hash only finds candidates: names are compared before they count.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// By the top bits of the hash: where in `slots` they begin. One more at the end.
    buckets: Box<[u32]>,
    shift: u32,
    /// In order of hash; of one name, wide ports first.
    slots: Box<[Slot]>,
    /// The names' texts, in order of `slots`.
    text: Box<str>,
    /// Bit n: there is a name of n labels; the last bit: of so many or more.
    exact: u64,
    /// Likewise, for what lies below a name.
    below: u64,
}

impl Names {
    pub(super) fn new<'a>(entries: impl Iterator<Item = (u32, &'a HostPattern, Ports)>) -> Self {
        let mut hashed: Vec<(u64, Ports, u32, &HostPattern)> = entries
            .map(|(index, pattern, ports)| (hash(pattern.name().as_str()), ports, index, pattern))
            .collect();
        hashed.sort_unstable_by_key(|(hash, ports, index, _)| (*hash, *ports, *index));
        let (mut names, mut text) = (Self::default(), String::new());
        let mut slots = Vec::with_capacity(hashed.len());
        for (hash, ports, entry, pattern) in hashed {
            let name = pattern.name().as_str();
            let exact = matches!(pattern, HostPattern::Exact(_));
            let labels = if exact {
                &mut names.exact
            } else {
                &mut names.below
            };
            *labels |= name.split('.').fold(1, |label, _| next(label));
            slots.push(Slot {
                hash,
                at: text.len() as u32,
                length: name.len() as u8,
                exact,
                ports,
                entry,
            });
            text.push_str(name);
        }
        let buckets = slots.len().next_power_of_two().max(2);
        names.shift = u64::BITS - buckets.ilog2();
        names.buckets = (0..=buckets as u64)
            .map(|bucket| slots.partition_point(|slot| slot.hash >> names.shift < bucket) as u32)
            .collect();
        names.slots = slots.into();
        names.text = text.into();
        names
    }

    /// Every entry for this name, from the widest to the most specific.
    #[inline]
    pub(super) fn visit(&self, name: &str, mut found: impl FnMut(u32, Ports)) {
        let any = self.exact | self.below;
        if any == 0 {
            return;
        }
        let (mut hash, mut label) = (Rolling::default(), 1_u64 << 1);
        let mut left = name.as_bytes();
        while let Some((byte, rest)) = left.split_last() {
            left = rest;
            if *byte != b'.' {
                hash.push(*byte);
                continue;
            }
            hash.end_label();
            if self.below & label != 0 {
                let suffix = name.get(left.len() + 1..).unwrap_or_default();
                self.probe(hash.value(), suffix, false, &mut found);
            }
            // Nothing in the list is longer. (Past the last bit nothing is known.)
            if any < label << 1 {
                return;
            }
            label = next(label);
        }
        hash.end_label();
        if self.exact & label != 0 {
            self.probe(hash.value(), name, true, &mut found);
        }
    }

    fn probe(&self, hash: u64, name: &str, exact: bool, found: &mut impl FnMut(u32, Ports)) {
        let bucket = (hash >> self.shift) as usize;
        let Some([start, end]) = self.buckets.get(bucket..bucket + 2) else {
            return;
        };
        let slots = self.slots.get(*start as usize..*end as usize);
        for slot in slots.unwrap_or_default() {
            if slot.hash == hash && slot.exact == exact && self.text_of(slot) == Some(name) {
                found(slot.entry, slot.ports);
            }
        }
    }

    fn text_of(&self, slot: &Slot) -> Option<&str> {
        let at = slot.at as usize;
        self.text.get(at..at + usize::from(slot.length))
    }
}

/// The bit of one label more.
const fn next(label: u64) -> u64 {
    label << 1 | label & 1 << 63
}

/// A hash of labels, from the last byte of a name to its first, eight at a time. Keys come from configuration, so nobody
/// outside can make them collide.
#[derive(Clone, Copy, Default)]
struct Rolling {
    state: u64,
    /// Bytes of the label not yet in `state`.
    word: u64,
}

impl Rolling {
    #[inline]
    fn push(&mut self, byte: u8) {
        self.word = self.word << 8 | u64::from(byte);
        if self.word >> 56 != 0 {
            self.end_label();
        }
    }

    #[inline]
    fn end_label(&mut self) {
        self.state = (self.state.rotate_left(5) ^ self.word).wrapping_mul(0x517c_c1b7_2722_0a95);
        self.word = 0;
    }

    /// The hash of the labels so far, its bits spread: buckets go by the upper ones.
    #[inline]
    fn value(self) -> u64 {
        let mixed = (self.state ^ (self.state >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    }
}

fn hash(name: &str) -> u64 {
    let mut hash = Rolling::default();
    for byte in name.bytes().rev() {
        match byte {
            b'.' => hash.end_label(),
            byte => hash.push(byte),
        }
    }
    hash.end_label();
    hash.value()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used)]

    use super::*;

    fn found(patterns: &[&str], name: &str) -> Vec<u32> {
        let patterns: Vec<HostPattern> = patterns
            .iter()
            .map(|text| HostPattern::parse_configured(text).expect("a pattern").0)
            .collect();
        let entries = (0_u32..).zip(&patterns);
        let names = Names::new(entries.map(|(index, pattern)| (index, pattern, Ports::Any)));
        let mut all = Vec::new();
        names.visit(name, |index, _| all.push(index));
        all
    }

    #[test]
    fn the_widest_comes_first_and_the_apex_is_not_below_itself() {
        let patterns = ["b.c.test", "*.c.test", "*.b.c.test", "*.test", "a.b.c.test"];
        assert_eq!(found(&patterns, "a.b.c.test"), [3, 1, 2, 4]);
        assert_eq!(found(&patterns, "b.c.test"), [3, 1, 0]);
        assert_eq!(found(&patterns, "c.test"), [3]);
        assert_eq!(found(&patterns, "test"), [0_u32; 0]);
        assert_eq!(found(&[], "a.test"), [0_u32; 0]);
    }

    #[test]
    fn names_of_more_labels_than_there_are_bits() {
        let long = |labels: usize| vec!["a"; labels].join(".");
        for labels in [62, 63, 64, 65, 100, 127] {
            let (name, wild) = (long(labels), format!("*.{}", long(labels - 1)));
            let patterns = [name.as_str(), wild.as_str(), "*.b.test"];
            assert_eq!(found(&patterns, &name), [1, 0], "{labels}");
            assert_eq!(found(&[&wild], &name), [0], "{labels}");
            assert_eq!(found(&[&name], &name), [0], "{labels}");
            assert_eq!(found(&patterns, &long(labels - 1)), [0_u32; 0], "{labels}");
        }
    }

    #[test]
    fn labels_around_the_width_of_a_word_are_told_apart() {
        let labels = [
            "aaaaaaa",
            "aaaaaaaa",
            "aaaaaaaaa",
            "aaaaaaaaaaaaaaaa",
            "aaaaaaab",
        ];
        let names: Vec<String> = labels.iter().map(|label| format!("{label}.test")).collect();
        let patterns: Vec<&str> = names.iter().map(String::as_str).collect();
        for (index, name) in (0_u32..).zip(&names) {
            assert_eq!(found(&patterns, name), [index], "{name}");
        }
        assert_eq!(found(&patterns, "aaaaaa.test"), [0_u32; 0]);
    }
}
