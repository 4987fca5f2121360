//! Generations that are a second apart: tokens of gestaltd say to the second when they were issued, so that one of the second
//! in which a generation ended may be of before or after. It counts as of before; and the next generation begins in a
//! second of its own, so that no token is issued for it that would.

use std::time::{Duration, SystemTime};

use super::Registry;
use crate::session::{Record, lifecycle::State};

const SECOND: Duration = Duration::from_secs(1);

impl Registry {
    /// How long a new generation of this session has to wait, where it has to.
    pub(super) fn second_left(&self, record: &Record, now: SystemTime) -> Option<Duration> {
        if !self.config().apart_by_seconds || record.lease.state != State::Idle {
            return None;
        }
        let ended = record.ended_at?;
        let part = ended.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let next = ended + SECOND.saturating_sub(Duration::from_nanos(part.subsec_nanos().into()));
        let left = next.duration_since(now).ok()?;
        // A clock that was set back must not hold anybody up.
        (!left.is_zero() && left <= SECOND).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use crate::session::{
        Behalf, RegistryError,
        lifecycle::Action,
        testing::{Fixture, config, request},
    };

    #[tokio::test]
    async fn a_generation_begins_in_another_second_than_the_last_one_ended_in() {
        let mut apart = config();
        apart.apart_by_seconds = true;
        let f = Fixture::with(apart);
        let at = |millis: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let (by, key) = (Behalf::nobody(), f.key("one"));
        let made = request("{id: one, idleTimeout: 0}");
        f.registry
            .create_at(&by, "local", made, at(95_000))
            .unwrap();
        let left = |now: u64| {
            let entry = f.registry.entry(&key).unwrap();
            f.registry.second_left(&entry.record, at(now))
        };
        assert_eq!(left(100_700), None, "none has ended");
        f.registry
            .act_at(&by, &key, Action::Reset, None, at(100_700))
            .unwrap();
        for (now, expected) in [
            (100_700, Some(300)),
            (100_999, Some(1)),
            (101_000, None),
            (160_000, None),
            // Set back by a minute.
            (40_000, None),
        ] {
            assert_eq!(left(now), expected.map(Duration::from_millis), "{now}");
        }
        f.registry.replace_config(config()).await.unwrap();
        assert_eq!(left(100_700), None, "nobody else's tokens are accepted");
    }

    /// Found to be over by the very start: it ended then.
    #[tokio::test]
    async fn a_start_that_finds_the_last_generation_over_begins_in_the_next_second() {
        let mut apart = config();
        apart.apart_by_seconds = true;
        let f = Fixture::with(apart);
        let at = |millis: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let (by, key) = (Behalf::nobody(), f.key("one"));
        let made = request("{id: one, ttl: 10s, idleTimeout: 0}");
        f.registry
            .create_at(&by, "local", made, at(95_000))
            .unwrap();
        let start = |now: u64| f.registry.act_at(&by, &key, Action::Start, None, at(now));
        for (now, left) in [(105_300, 700), (105_900, 100)] {
            let early = start(now).unwrap_err();
            assert!(
                matches!(early, RegistryError::TooSoon(wait) if wait == Duration::from_millis(left)),
                "{now}: {early}"
            );
            assert_eq!(f.state("one"), "idle");
        }
        let begun = start(106_000).unwrap();
        assert_eq!(begun.view["generation"], 2);
        assert!(start(106_000).is_ok(), "one that runs has begun");
    }
}
