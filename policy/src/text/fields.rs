//! The fields of a mapping, taken one by one.

use super::{Faults, Kind, Node};

/// The fields of one mapping. What is not taken by the time of [`Fields::finish`] is unknown.
#[derive(Debug)]
pub struct Fields<'a> {
    node: &'a Node,
    entries: &'a [(String, Node)],
    taken: Vec<bool>,
    known: Vec<&'static str>,
}

impl Node {
    /// The fields of a mapping; anything else is a fault (and then has no fields).
    pub fn fields(&self, faults: &mut Faults) -> Fields<'_> {
        let entries = self.entries(faults);
        Fields {
            node: self,
            entries,
            taken: vec![false; entries.len()],
            known: Vec::new(),
        }
    }

    /// Keys and values of a mapping whose keys are free; anything else is a fault (and empty).
    pub fn entries(&self, faults: &mut Faults) -> &[(String, Node)] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => {
                self.expected::<()>("a mapping", faults);
                &[]
            }
        }
    }
}

impl<'a> Fields<'a> {
    /// The value of `key`, `None` where the key is absent. The key is known from now on.
    pub fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let entries = self.entries;
        let index = entries.iter().position(|(name, _)| name == key)?;
        if let Some(taken) = self.taken.get_mut(index) {
            *taken = true;
        }
        entries.get(index).map(|(_, node)| node)
    }

    /// The value of `key`; its absence is a fault.
    pub fn require(&mut self, key: &'static str, faults: &mut Faults) -> Option<&'a Node> {
        let found = self.take(key);
        if found.is_none() && self.node.is_map() {
            faults.error(&self.node.place, format!("missing key {key:?}"));
        }
        found
    }

    /// Report every key that was not taken, with the closest known one as a suggestion.
    pub fn finish(self, faults: &mut Faults) {
        for (at, ((key, node), taken)) in self.entries.iter().zip(&self.taken).enumerate() {
            // A key that stands here twice is a fault already, and was told as that.
            let twice = || {
                self.entries
                    .iter()
                    .take(at)
                    .any(|(earlier, _)| earlier == key)
            };
            if *taken || twice() {
                continue;
            }
            // The key, not its value, is what is wrong.
            let place = node.key_place();
            let message = format!("unknown key {key:?}");
            match closest(key, &self.known) {
                Some(known) => {
                    faults.error_hint(&place, message, format!("did you mean {known:?}?"))
                }
                None if self.known.is_empty() => faults.error(&place, message),
                None => faults.error_hint(
                    &place,
                    message,
                    format!("known here: {}", self.known.join(", ")),
                ),
            }
        }
    }
}

/// The known key nearest to `key`, if near enough to be a slip.
fn closest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    if key.len() > 64 {
        return None;
    }
    let folded = fold(key);
    known
        .iter()
        .map(|&candidate| (distance(&folded, &fold(candidate)), candidate))
        .filter(|&(distance, candidate)| {
            distance <= 1 + candidate.len() / 4 && distance < candidate.len()
        })
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// `allowed_hosts`, `allowed-hosts` and `allowedHosts` differ in style only.
fn fold(key: &str) -> Vec<char> {
    key.chars()
        .filter(|c| !matches!(c, '_' | '-'))
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

/// Levenshtein distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut left = i + 1;
        let mut diagonal = i;
        for (cell, y) in row.iter_mut().skip(1).zip(b) {
            let best = (diagonal + usize::from(x != y))
                .min(left + 1)
                .min(*cell + 1);
            diagonal = std::mem::replace(cell, best);
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}
