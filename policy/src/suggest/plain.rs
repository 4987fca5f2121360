//! The narrowest rule for what was asked in the plain.

use crate::{document::is_method, path};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Paths of one target that a rule still names; above it they are left open.
const MOST_PATHS: usize = 64;
/// Paths that are remembered until they are collapsed.
const MOST_REMEMBERED: usize = 4096;

/// Methods and paths asked for at one target.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PlainUse {
    methods: BTreeSet<String>,
    /// Prefixes, each as narrow as the grammar of rules has them.
    paths: BTreeSet<String>,
    any_method: bool,
    any_path: bool,
}

impl PlainUse {
    /// One request, by one of the ways it may be read. `path` as sent; what follows `?` does not count.
    pub fn add(&mut self, method: &str, path: &str) {
        if !is_method(method) {
            // No rule can name it, so that a rule of methods would refuse it.
            self.any_method = true;
        } else if !self.methods.contains(method) {
            self.methods.insert(method.to_owned());
        }
        match path::narrowest(path).filter(|prefix| *prefix != path::ROOT) {
            Some(prefix) => self.remember(prefix),
            // Covered by no prefix, or by that of all paths alone.
            None => self.any_path = true,
        }
    }

    fn remember(&mut self, prefix: &str) {
        if self.paths.contains(prefix) {
            return;
        }
        if self.paths.len() < MOST_REMEMBERED {
            self.paths.insert(prefix.to_owned());
        } else {
            self.any_path = true;
        }
    }

    /// And what was asked for elsewhere.
    pub(super) fn merge(&mut self, other: &Self) {
        self.any_method |= other.any_method;
        self.any_path |= other.any_path;
        self.methods.extend(other.methods.iter().cloned());
        other.paths.iter().for_each(|prefix| self.remember(prefix));
    }

    /// The `http` part of a rule; `None` where it would bound nothing.
    pub(super) fn rule(&self, collapse: Option<usize>) -> Option<Value> {
        let mut http = serde_json::Map::new();
        if !self.any_method && !self.methods.is_empty() {
            http.insert("methods".to_owned(), json!(self.methods));
        }
        let paths = self.prefixes(collapse);
        if !paths.is_empty() {
            http.insert("pathPrefixes".to_owned(), json!(paths));
        }
        (!http.is_empty()).then(|| http.into())
    }

    /// Prefixes that cover every path seen; empty where all paths are left open.
    fn prefixes(&self, collapse: Option<usize>) -> BTreeSet<String> {
        if self.any_path {
            return BTreeSet::new();
        }
        let mut paths = self.paths.clone();
        if let Some(least) = collapse {
            while let Some(directory) = crowded(&paths, least.max(2)) {
                paths.retain(|path| !path.starts_with(&directory));
                paths.insert(directory);
            }
        }
        // What another covers needs no prefix of its own.
        let all = paths.clone();
        let wider = |path: &String| {
            let ends = path.match_indices('/').map(|(at, _)| at);
            let shorter = ends.flat_map(|at| [path.get(..at), path.get(..=at)]);
            shorter
                .flatten()
                .any(|prefix| prefix != path && all.contains(prefix))
        };
        paths.retain(|path| !wider(path));
        if paths.len() > MOST_PATHS {
            return BTreeSet::new();
        }
        paths
    }
}

/// A directory, never the root, in which so many paths stand; of several the deepest.
fn crowded(paths: &BTreeSet<String>, least: usize) -> Option<String> {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for path in paths {
        let own = path.strip_suffix('/').unwrap_or(path);
        let directory = own.rfind('/').and_then(|at| own.get(..=at));
        if let Some(directory) = directory.filter(|directory| *directory != path::ROOT) {
            *counts.entry(directory).or_default() += 1;
        }
    }
    let crowded = counts.into_iter().filter(|(_, count)| *count >= least);
    let depth = |directory: &str| directory.matches('/').count();
    let deepest = crowded.max_by_key(|(directory, _)| depth(directory));
    deepest.map(|(directory, _)| directory.to_owned())
}
