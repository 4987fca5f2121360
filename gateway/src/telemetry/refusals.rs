//! Refusals of the last hour by reason, for one screen; the counters of metrics have no beginning.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::parts::Parts;

/// Minutes kept.
const MINUTES: u64 = 60;
/// Owners counted apart in one minute; whoever comes after them counts in the whole only.
const OWNERS: u64 = 4096;

/// Namespace, and the owner within it.
pub(super) type Whose = (Arc<str>, Option<Arc<str>>);

type Counts = BTreeMap<&'static str, u64>;

#[derive(Debug, Default)]
struct Minute {
    number: u64,
    all: Counts,
    owned: HashMap<Whose, Counts>,
}

/// Counts by minute; reasons are a closed vocabulary, so this stays small.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// An owner's are in one part, so that it is counted among owners once; nobody's are in their thread's.
    minutes: Parts<VecDeque<Minute>>,
    hasher: RandomState,
    /// The newest minute that somebody was counted in, and by its last 16 bits how many were.
    owners: AtomicU64,
    /// When this process began to count, in seconds of Unix time: what was before is not known.
    began: u64,
}

impl Refusals {
    /// Begin to count at `now` (seconds of Unix time).
    pub(super) fn new(now: u64) -> Self {
        Self {
            began: now,
            ..Self::default()
        }
    }

    /// The beginning of what is counted in the hour before `now`: the first of its minutes, or later where there was no
    /// process yet.
    pub(super) fn since(&self, now: u64) -> u64 {
        let first = (now / 60 + 1).saturating_sub(MINUTES) * 60;
        first.max(self.began)
    }

    /// One more of somebody, at `now` (seconds of Unix time).
    pub(super) fn count(&self, reason: &'static str, whose: Option<Whose>, now: u64) {
        let number = now / 60;
        let mut minutes = match &whose {
            Some(whose) => self.minutes.at(self.hasher.hash_one(whose) as usize),
            None => self.minutes.own(),
        };
        // A clock set back counts into the newest minute there is.
        if minutes.back().is_none_or(|newest| newest.number < number) {
            minutes.push_back(Minute {
                number,
                ..Minute::default()
            });
        }
        while minutes
            .front()
            .is_some_and(|oldest| oldest.number + MINUTES <= number)
        {
            minutes.pop_front();
        }
        let Some(minute) = minutes.back_mut() else {
            return;
        };
        *minute.all.entry(reason).or_default() += 1;
        if let Some(whose) = whose
            && (minute.owned.contains_key(&whose) || self.one_more(minute.number))
        {
            let own = minute.owned.entry(whose).or_default();
            *own.entry(reason).or_default() += 1;
        }
    }

    /// Is there room for one more owner in this minute? Then there is one more.
    fn one_more(&self, minute: u64) -> bool {
        let more = |owners: u64| {
            let (newest, count) = (owners >> 16, owners & 0xffff);
            let (newest, count) = if newest < minute {
                (minute, 0)
            } else {
                (newest, count)
            };
            (count < OWNERS).then_some((newest << 16) | (count + 1))
        };
        self.owners
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    /// By reason, over the hour before `now`.
    pub(super) fn last_hour(&self, now: u64) -> Counts {
        self.sum(now, |minute| vec![&minute.all])
    }

    /// The same, of those whom `seen` lets see.
    pub(super) fn last_hour_of(
        &self,
        now: u64,
        seen: &dyn Fn(&str, Option<&str>) -> bool,
    ) -> Counts {
        self.sum(now, |minute| {
            let own = minute.owned.iter();
            let own = own.filter(|((namespace, owner), _)| seen(namespace, owner.as_deref()));
            own.map(|(_, counts)| counts).collect()
        })
    }

    fn sum(&self, now: u64, of: impl Fn(&Minute) -> Vec<&Counts>) -> Counts {
        let mut all = Counts::new();
        for minutes in self.minutes.each() {
            for minute in minutes.iter() {
                if minute.number + MINUTES > now / 60 {
                    for (reason, count) in of(minute).into_iter().flatten() {
                        *all.entry(*reason).or_default() += count;
                    }
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
    fn it_says_since_when_it_counts() {
        let refusals = Refusals::new(10_030);
        refusals.count("ip_denied", None, 10_030);
        assert_eq!(refusals.since(10_030), 10_030);
        assert_eq!(refusals.since(13_000), 10_030);
        // The minute it began in is the oldest of the hour, and then is none of it.
        for (now, since, counted) in [(13_619, 10_030, 1), (13_620, 10_080, 0)] {
            let all: u64 = refusals.last_hour(now).values().sum();
            assert_eq!((refusals.since(now), all), (since, counted), "{now}");
        }
        assert_eq!(Refusals::default().since(59), 0);
    }

    #[test]
    fn an_hour_is_counted_and_no_more() {
        let refusals = Refusals::default();
        refusals.count("host_not_allowed", None, 0);
        refusals.count("host_not_allowed", None, 59);
        refusals.count("ip_denied", None, 60);
        let both = BTreeMap::from([("host_not_allowed", 2), ("ip_denied", 1)]);
        assert_eq!(refusals.last_hour(60), both);
        assert_eq!(refusals.last_hour(59 * 60), both);
        assert_eq!(
            refusals.last_hour(60 * 60),
            BTreeMap::from([("ip_denied", 1)])
        );
        refusals.count("ip_denied", None, 3 * 3600);
        assert_eq!(
            refusals.last_hour(3 * 3600),
            BTreeMap::from([("ip_denied", 1)])
        );
    }

    #[test]
    fn each_owner_has_its_own_and_the_whole_has_all() {
        let refusals = Refusals::default();
        let whose = |namespace: &str, owner: Option<&str>| {
            Some((Arc::from(namespace), owner.map(Arc::from)))
        };
        refusals.count("ip_denied", whose("a", Some("ann")), 0);
        refusals.count("ip_denied", whose("a", None), 60);
        refusals.count("host_not_allowed", whose("b", Some("ann")), 60);
        refusals.count("credential_invalid", None, 60);
        assert_eq!(refusals.last_hour(60).values().sum::<u64>(), 4);
        let of_a = refusals.last_hour_of(60, &|namespace, _| namespace == "a");
        assert_eq!(of_a, BTreeMap::from([("ip_denied", 2)]));
        let hers = refusals.last_hour_of(60, &|_, owner| owner == Some("ann"));
        assert_eq!(hers.values().sum::<u64>(), 2);
        // A stranger to a full minute is counted in the whole.
        for one in 0..OWNERS {
            refusals.count("ip_denied", whose(&format!("n{one}"), None), 120);
        }
        refusals.count("ip_denied", whose("late", None), 120);
        assert!(
            refusals
                .last_hour_of(120, &|namespace, _| namespace == "late")
                .is_empty()
        );
        let whole = refusals.last_hour(120);
        assert_eq!(whole.get("ip_denied"), Some(&(3 + OWNERS)));
    }

    #[test]
    fn threads_count_together_and_owners_are_bounded_over_all_of_them() {
        let refusals = Refusals::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let refusals = &refusals;
                scope.spawn(move || {
                    for one in 0..OWNERS {
                        let owner: Arc<str> = format!("{thread} {one}").into();
                        let whose = Some((Arc::from("a"), Some(owner)));
                        refusals.count("ip_denied", whose, 60);
                        refusals.count("credential_invalid", None, 60);
                    }
                });
            }
        });
        let all = [
            ("credential_invalid", 4 * OWNERS),
            ("ip_denied", 4 * OWNERS),
        ];
        assert_eq!(refusals.last_hour(60), BTreeMap::from(all));
        let owned = refusals.last_hour_of(60, &|_, _| true);
        assert_eq!(owned, BTreeMap::from([("ip_denied", OWNERS)]));
    }
}
