//! Where sessions, revocations and events are kept, how long, and how often the file is looked through.
use super::read::{self, keep};
use sluicegate_policy::text::{Faults, Node};
use std::{path::PathBuf, time::Duration};

/// No span here is longer.
const LONGEST: Duration = Duration::from_secs(3660 * 86_400);

/// The store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreConfig {
    /// The store's file; `None` = `sluicegate.redb` in the state directory.
    pub path: Option<PathBuf>,
    /// How often the whole file is verified while the gateway runs; `None` = at the start only.
    pub verify_every: Option<Duration>,
    /// What is kept, and how long.
    pub retention: RetentionConfig,
}

/// What is kept of what is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetentionConfig {
    /// The record of a stopped session, with its log.
    pub sessions: Duration,
    /// Events, the newest.
    pub events: u64,
    /// The revocation of an id of which nobody knows when its token ends.
    pub revocations: Duration,
}

impl StoreConfig {
    pub(super) fn read(node: &Node, faults: &mut Faults) -> Self {
        let mut store = Self::default();
        let mut fields = node.fields(faults);
        store.path = fields
            .take("path")
            .and_then(|node| read::path(node, faults));
        let every = fields.take("verifyEvery").and_then(|node| {
            let every = read::or_none(node, faults)?;
            match every {
                Some(every) if !(Duration::from_secs(60)..=LONGEST).contains(&every) => {
                    node.expected("0, or 1m to 3660d", faults)
                }
                every => Some(every),
            }
        });
        keep(&mut store.verify_every, every);
        if let Some(node) = fields.take("retention") {
            store.retention = RetentionConfig::read(node, faults);
        }
        fields.finish(faults);
        store
    }

    /// What the sections together say: a token that outlives its revocation.
    pub(super) fn judge(&self, node: &Node, config: &super::Config, faults: &mut Faults) {
        let kept = self.retention.revocations;
        for (name, provider) in &config.providers {
            if provider.session.max_lifetime > kept {
                let message = format!(
                    "store.retention.revocations ends before tokens of runtime.providers.{name} do: one that is revoked by its id alone would be good again"
                );
                let hint = "make it as long as that provider's maxLifetime at least";
                faults.warn(node.place(), message, Some(hint.to_owned()));
            }
        }
    }
}

impl RetentionConfig {
    fn read(node: &Node, faults: &mut Faults) -> Self {
        let mut retention = Self::default();
        let mut fields = node.fields(faults);
        let sessions = fields
            .take("sessions")
            .and_then(|node| span(node, Duration::from_secs(60), "1m to 3660d", faults));
        keep(&mut retention.sessions, sessions);
        let events = fields
            .take("events")
            .and_then(|node| node.integer(100..=10_000_000, faults));
        keep(&mut retention.events, events);
        let revocations = fields
            .take("revocations")
            .and_then(|node| span(node, Duration::from_secs(3600), "1h to 3660d", faults));
        keep(&mut retention.revocations, revocations);
        fields.finish(faults);
        retention
    }
}

fn span(node: &Node, least: Duration, words: &str, faults: &mut Faults) -> Option<Duration> {
    let span = node.duration(faults)?;
    if (least..=LONGEST).contains(&span) {
        Some(span)
    } else {
        node.expected(words, faults)
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )]
    use super::*;
    use crate::config::Config;

    #[test]
    fn what_is_kept_is_as_long_as_it_says() {
        let (config, warnings) = Config::parse(
            "store: {path: /s, verifyEvery: 0, retention: {sessions: 1m, events: 100, revocations: 2d}}\n",
        )
        .unwrap();
        let store = config.store.clone();
        assert_eq!((store.path, store.verify_every), (Some("/s".into()), None));
        let expected = RetentionConfig {
            sessions: Duration::from_secs(60),
            events: 100,
            revocations: Duration::from_secs(2 * 86_400),
        };
        assert_eq!(store.retention, expected);
        assert!(warnings.is_empty(), "{warnings:?}");
        // As it is written out, it is read.
        let again = Config::parse(&config.to_json().to_string()).unwrap().0;
        assert_eq!(again.store, config.store);
    }

    #[test]
    fn every_bound_is_told_at_its_place() {
        let faults = Config::parse(
            "store:\n  verifyEvery: 59s\n  retention:\n    sessions: 59s\n    events: 99\n    revocations: 59m\n    more: 1\n",
        )
        .unwrap_err();
        let told: Vec<String> = faults.errors.iter().map(ToString::to_string).collect();
        for (line, words) in [
            (2, "0, or 1m to 3660d"),
            (4, "1m to 3660d"),
            (5, "from 100 to 10000000"),
            (6, "1h to 3660d"),
            (7, "unknown key"),
        ] {
            let found = |one: &&String| one.starts_with(&format!("{line}:")) && one.contains(words);
            assert!(
                told.iter().any(|one| found(&one)),
                "{line} {words}: {told:#?}"
            );
        }
    }

    #[test]
    fn a_token_that_outlives_its_revocation_is_warned_of() {
        let of = |kept: &str| {
            let text = format!(
                "runtime: {{providers: {{long: {{session: {{maxLifetime: 30d}}}}}}}}\nstore: {{retention: {{revocations: {kept}}}}}\n"
            );
            let warnings = Config::parse(&text).unwrap().1;
            let told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
            told.iter()
                .filter(|one| one.contains("providers.long"))
                .count()
        };
        assert_eq!((of("29d"), of("30d")), (1, 0));
    }
}
