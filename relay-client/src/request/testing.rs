//! What the tests of the incremental readers share, here and in the gateway's `sniff`, which has this file by its path: corpora, and a
//! small repeatable source of cuts.

use std::path::PathBuf;

/// A folder of the corpora, or `None` with a notice where they are not at hand. In CI their absence is a failure.
pub(super) fn corpus(name: &str) -> Option<PathBuf> {
    let folder =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/corpora")).join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "corpus {name} is missing at {}",
        folder.display()
    );
    eprintln!(
        "NOT TESTED: corpus {name} is missing at {}",
        folder.display()
    );
    None
}

/// A JSON file of a corpus.
pub(super) fn json(folder: &std::path::Path, file: &str) -> Vec<serde_json::Value> {
    serde_json::from_slice(&std::fs::read(folder.join(file)).unwrap()).unwrap()
}

/// xorshift64: the same cuts on every run.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// From 1 to `most`.
    pub(super) fn roll(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(most).unwrap()).unwrap() + 1
    }

    /// `bytes` in pieces of 1 to `most`.
    pub(super) fn cut<'b>(&mut self, mut bytes: &'b [u8], most: usize) -> Vec<&'b [u8]> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(self.roll(most).min(bytes.len()));
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }
}
