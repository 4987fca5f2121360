//! Refusals of the last hour by reason, for one screen; the counters of metrics have no beginning.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
};

/// Minutes kept.
const MINUTES: u64 = 60;

type Minute = (u64, BTreeMap<&'static str, u64>);

/// Counts by minute; reasons are a closed vocabulary, so this stays small.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<VecDeque<Minute>>);

impl Refusals {
    /// One more, at `now` (seconds of Unix time).
    pub(super) fn count(&self, reason: &'static str, now: u64) {
        let minute = now / 60;
        let mut minutes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock set back counts into the newest minute there is.
        if minutes.back().is_none_or(|(newest, _)| *newest < minute) {
            minutes.push_back((minute, BTreeMap::new()));
        }
        while minutes
            .front()
            .is_some_and(|(oldest, _)| oldest + MINUTES <= minute)
        {
            minutes.pop_front();
        }
        if let Some((_, counts)) = minutes.back_mut() {
            *counts.entry(reason).or_default() += 1;
        }
    }

    /// By reason, over the hour before `now`.
    pub(super) fn last_hour(&self, now: u64) -> BTreeMap<&'static str, u64> {
        let minutes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = BTreeMap::new();
        for (minute, counts) in minutes.iter() {
            if minute + MINUTES > now / 60 {
                for (reason, count) in counts {
                    *all.entry(*reason).or_default() += count;
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_counted_and_no_more() {
        let refusals = Refusals::default();
        refusals.count("host_not_allowed", 0);
        refusals.count("host_not_allowed", 59);
        refusals.count("ip_denied", 60);
        let both = BTreeMap::from([("host_not_allowed", 2), ("ip_denied", 1)]);
        assert_eq!(refusals.last_hour(60), both);
        assert_eq!(refusals.last_hour(59 * 60), both);
        assert_eq!(
            refusals.last_hour(60 * 60),
            BTreeMap::from([("ip_denied", 1)])
        );
        refusals.count("ip_denied", 3 * 3600);
        assert_eq!(
            refusals.last_hour(3 * 3600),
            BTreeMap::from([("ip_denied", 1)])
        );
    }
}
