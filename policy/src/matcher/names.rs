//! Names of a list in a table that is built once, laid out so that a decision touches few cache lines: with a hundred
//! thousand names those are what it costs. A name that is not there costs a byte of `tags`, which the caches next to the
//! processor hold; one that is, one line of `slots` beside it.

use super::suffixes::{Suffixes, hash};
use crate::{HostPattern, entry::Ports};

/// A name of the list: one cache line, its text in it but for the longest.
#[repr(align(64))]
#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u64,
    /// Index of the entry.
    entry: u32,
    ports: Ports,
    length: u8,
    /// This very name, not those below it?
    exact: bool,
    /// The name; where it is longer, the place in `long` where it begins.
    text: [u8; INLINE],
}

/// Bytes of a name that fit into its line.
const INLINE: usize = 46;
const _: () = assert!(size_of::<Slot>() == 64);

/// Where no name stands. Its tag says so; nobody reads it.
const VACANT: Slot = Slot {
    hash: 0,
    entry: u32::MAX,
    ports: Ports::Any,
    length: 0,
    exact: false,
    text: [0; INLINE],
};

/// Names by hash.
///
/// A hash only finds candidates: names are compared before they count.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// One byte for each slot: 0 where it is vacant, else what [`tag`] makes of the hash. A run of names ends at a 0.
    tags: Box<[u8]>,
    /// In order of hash, each where its hash says or in the next free place; of one name, wide ports first.
    slots: Box<[Slot]>,
    /// How many places hashes are spread over. The last names may stand behind them.
    homes: usize,
    /// The texts of names longer than [`INLINE`].
    long: Box<str>,
    /// Bit n: there is a name of n labels; the last bit: of so many or more.
    exact: u64,
    /// Likewise, for what lies below a name.
    below: u64,
}

/// What a look at the table touches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Touched {
    /// The place of one name: a run of tags begins there.
    Home,
    /// A byte of `tags`, next to the one before.
    Tag,
    /// A line of `slots`.
    Slot,
}

impl Names {
    pub(super) fn new<'a>(entries: impl Iterator<Item = (u32, &'a HostPattern, Ports)>) -> Self {
        let mut hashed: Vec<(u64, Ports, u32, &HostPattern)> = entries
            .map(|(index, pattern, ports)| (hash(pattern.name().as_str()), ports, index, pattern))
            .collect();
        hashed.sort_unstable_by_key(|(hash, ports, index, _)| (*hash, *ports, *index));
        let mut names = Self {
            homes: hashed.len() + hashed.len() / 2,
            ..Self::default()
        };
        let (mut tags, mut slots, mut long) = (Vec::new(), Vec::new(), String::new());
        for (hash, ports, entry, pattern) in hashed {
            let name = pattern.name().as_str();
            let exact = matches!(pattern, HostPattern::Exact(_));
            let labels = if exact {
                &mut names.exact
            } else {
                &mut names.below
            };
            *labels |= name.split('.').fold(1, |label, _| next(label));
            let home = home(hash, names.homes).max(slots.len());
            slots.resize(home, VACANT);
            tags.resize(home, 0);
            slots.push(Slot {
                hash,
                entry,
                ports,
                length: name.len() as u8,
                exact,
                text: inline(name, &mut long),
            });
            tags.push(tag(hash));
        }
        names.tags = tags.into();
        names.slots = slots.into();
        names.long = long.into();
        names
    }

    /// Which names stand in the list: bit n, there is one of n labels or a suffix of so many; the last bit: of so many or more.
    #[inline]
    pub(super) fn labels(&self) -> u64 {
        self.exact | self.below
    }

    /// Every entry for this name, from the widest to the most specific.
    #[inline]
    pub(super) fn visit(&self, name: &Suffixes<'_>, found: impl FnMut(u32, Ports)) {
        self.walk(name, found, |_| ());
    }

    /// The same, telling what is touched on the way: that is what a decision costs.
    #[inline]
    fn walk(
        &self,
        name: &Suffixes<'_>,
        mut found: impl FnMut(u32, Ports),
        mut touched: impl FnMut(Touched),
    ) {
        let any = self.labels();
        if any == 0 {
            return;
        }
        let mut label = 1_u64 << 1;
        for suffix in name.iter() {
            let whole = suffix.start == 0;
            let listed = if whole { self.exact } else { self.below };
            if listed & label != 0 {
                let text = name.text.get(suffix.start..).unwrap_or_default();
                self.probe(suffix.hash, text, whole, &mut found, &mut touched);
            }
            // Nothing in the list is longer. (Past the last bit nothing is known.)
            if any < label << 1 {
                return;
            }
            label = next(label);
        }
    }

    fn probe(
        &self,
        hash: u64,
        name: &str,
        exact: bool,
        found: &mut impl FnMut(u32, Ports),
        touched: &mut impl FnMut(Touched),
    ) {
        touched(Touched::Home);
        let (home, wanted) = (home(hash, self.homes), tag(hash));
        let run = self.tags.get(home..).unwrap_or_default();
        for (at, tag) in (home..).zip(run) {
            touched(Touched::Tag);
            if *tag == 0 {
                return;
            }
            if *tag != wanted {
                continue;
            }
            touched(Touched::Slot);
            let Some(slot) = self.slots.get(at) else {
                return;
            };
            if slot.hash == hash
                && slot.exact == exact
                && self.text_of(slot) == Some(name.as_bytes())
            {
                found(slot.entry, slot.ports);
            }
        }
    }

    fn text_of<'a>(&'a self, slot: &'a Slot) -> Option<&'a [u8]> {
        let length = usize::from(slot.length);
        if length <= INLINE {
            return slot.text.get(..length);
        }
        let at = u32::from_ne_bytes(*slot.text.first_chunk()?) as usize;
        self.long.as_bytes().get(at..at + length)
    }
}

/// A name's text as it stands in its slot, or where it stands in `long`.
fn inline(name: &str, long: &mut String) -> [u8; INLINE] {
    let mut text = [0; INLINE];
    if let Some(place) = text.get_mut(..name.len()) {
        place.copy_from_slice(name.as_bytes());
    } else if let Some(place) = text.first_chunk_mut() {
        *place = (long.len() as u32).to_ne_bytes();
        long.push_str(name);
    }
    text
}

/// Where among so many places a hash belongs, by its upper bits: in order of hash.
#[inline]
const fn home(hash: u64, homes: usize) -> usize {
    ((hash as u128 * homes as u128) >> 64) as usize
}

/// The byte that stands for a hash, by its lower bits. Never 0.
#[inline]
const fn tag(hash: u64) -> u8 {
    match hash as u8 {
        0 => 1,
        tag => tag,
    }
}

/// The bit of one label more.
const fn next(label: u64) -> u64 {
    label << 1 | label & 1 << 63
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
        names.visit(&Suffixes::new(name, u64::MAX), |index, _| all.push(index));
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

    #[test]
    fn names_around_what_fits_into_a_line() {
        let long = |length: usize| format!("{}.{}.test", "a".repeat(40), "b".repeat(length - 46));
        let names: Vec<String> = (47..=100).map(long).collect();
        let short = "c".repeat(41) + ".test";
        let mut patterns: Vec<&str> = names.iter().map(String::as_str).collect();
        patterns.push(&short);
        for (index, name) in (0_u32..).zip(&patterns) {
            assert_eq!(found(&patterns, name), [index], "{name}");
        }
        assert_eq!(found(&patterns, &long(101)), [0_u32; 0]);
        assert_eq!(found(&patterns, &format!("x.{short}")), [0_u32; 0]);
    }

    #[test]
    fn each_of_many_names_is_found_and_its_neighbours_are_not() {
        let names: Vec<String> = (0..5_000).map(|n| format!("h{n}.many.test")).collect();
        let patterns: Vec<&str> = names.iter().map(String::as_str).collect();
        let patterns: Vec<HostPattern> = patterns
            .iter()
            .map(|text| HostPattern::parse_configured(text).expect("a pattern").0)
            .collect();
        let entries = (0_u32..).zip(&patterns);
        let table = Names::new(entries.map(|(index, pattern)| (index, pattern, Ports::Any)));
        for (index, name) in (0_u32..).zip(&names) {
            let mut all = Vec::new();
            let mut look = |name: &str| {
                let name = Suffixes::new(name, table.labels());
                table.visit(&name, |index, _| all.push(index));
            };
            look(name);
            look(&name.replace("many", "none"));
            look(&format!("x{name}"));
            assert_eq!(all, [index], "{name}");
        }
    }

    /// What a decision costs does not grow with the list, and is counted here: its time no test can hold.
    #[test]
    fn a_look_touches_as_much_among_many_names_as_among_few() {
        const ASKED: usize = 2_000;
        for many in [1_000, 100_000] {
            let names: Vec<String> = (0..many)
                .map(|n| format!("h{n}.r{}.many.example.test", n % 97))
                .collect();
            let patterns: Vec<HostPattern> = names
                .iter()
                .enumerate()
                .map(|(n, name)| match n % 4 {
                    0 => format!("*.{name}"),
                    _ => name.clone(),
                })
                .map(|text| HostPattern::parse_configured(&text).expect("a pattern").0)
                .collect();
            let entries = (0_u32..).zip(&patterns);
            let table = Names::new(entries.map(|(index, pattern)| (index, pattern, Ports::Any)));
            let (mut found, mut tags, mut slots, mut homes) = (0, 0, 0, 0);
            for n in 0..ASKED {
                let name = names
                    .get(n * (many / ASKED.min(many)) % many)
                    .expect("a name");
                // One that is there, one below it, one that is not.
                for name in [name.clone(), format!("a.b.{name}"), format!("x{name}")] {
                    let mut probes = 0;
                    table.walk(
                        &Suffixes::new(&name, table.labels()),
                        |_, _| found += 1,
                        |what| match what {
                            Touched::Home => probes += 1,
                            Touched::Tag => tags += 1,
                            Touched::Slot => slots += 1,
                        },
                    );
                    // Suffixes by label, and the name itself.
                    assert!(probes <= name.split('.').count(), "{name}: {probes}");
                    homes += probes;
                }
            }
            assert!(found >= ASKED, "{found}");
            // A run of tags is a few bytes, two thirds of which are taken; one in 255 of the others has the tag of what is asked for.
            assert!(tags <= homes * 16, "{many}: {tags} tags, {homes} homes");
            // (A name that is there the other way, exact or below, is a line too.)
            assert!(
                slots <= 2 * found + tags / 32,
                "{many}: {slots} lines, {found} found"
            );
        }
    }
}
