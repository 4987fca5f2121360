//! Changes of effective profiles that are not recorded yet. Pure.

use std::collections::VecDeque;

use serde_json::{Value, json};
use sluicegate_policy::{Profile, Shortfall};

use super::report::Published;

/// So many of each provider are kept while the store cannot be written.
const MOST: usize = 32;

/// An effective profile that is another than the one before it.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) provider: String,
    pub(super) after: Profile,
    shortfalls: Vec<Shortfall>,
    /// When it was found, in seconds of Unix time.
    since: u64,
    /// Those of its provider right before it that were not kept.
    missed: u64,
}

impl Change {
    /// To what is published now.
    pub(super) fn to(provider: &str, published: &Published) -> Self {
        Self {
            provider: provider.to_owned(),
            after: published.profile,
            shortfalls: published.shortfalls.clone(),
            since: published.since,
            missed: 0,
        }
    }

    /// What is told of it, behind what was recorded last; `None` where that is the same, and nothing was in between.
    pub(super) fn told(&self, before: Option<&Value>) -> Option<Value> {
        if self.missed == 0 && before == Some(&json!(self.after)) {
            return None;
        }
        let mut told = json!({
            "name": self.provider,
            "before": before,
            "after": self.after,
            "shortfalls": self.shortfalls,
            "since": self.since,
        });
        if self.missed > 0
            && let Some(fields) = told.as_object_mut()
        {
            fields.insert("missed".into(), self.missed.into());
        }
        Some(told)
    }

    /// Why it is no more than that; `None` where nothing falls short.
    pub(super) fn reason(&self) -> Option<String> {
        reason(&self.shortfalls)
    }
}

/// Every shortfall's reason.
pub(super) fn reason(shortfalls: &[Shortfall]) -> Option<String> {
    let reasons: Vec<&str> = shortfalls.iter().map(|one| one.reason.as_str()).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// Those that are to be told, in the order in which they were found.
#[derive(Debug, Default)]
pub(super) struct Untold(VecDeque<Change>);

impl Untold {
    /// One more. Of too many of one provider the oldest goes, and the next one says how many went.
    pub(super) fn push(&mut self, change: Change) {
        let provider = change.provider.clone();
        let own = |one: &Change| one.provider == provider;
        self.0.push_back(change);
        if self.0.iter().filter(|one| own(one)).count() <= MOST {
            return;
        }
        let oldest = self.0.iter().position(own);
        let lost = oldest.and_then(|at| self.0.remove(at));
        let next = self.0.iter_mut().find(|one| own(one));
        if let (Some(lost), Some(next)) = (lost, next) {
            next.missed += lost.missed + 1;
        }
    }

    /// What the newest of a provider's led to.
    pub(super) fn last(&self, provider: &str) -> Option<Profile> {
        let mut newest = self.0.iter().rev();
        let newest = newest.find(|one| one.provider == provider);
        newest.map(|one| one.after)
    }

    /// The next one to be told.
    pub(super) fn first(&self) -> Option<Change> {
        self.0.front().cloned()
    }

    /// The first is recorded.
    pub(super) fn recorded(&mut self) {
        self.0.pop_front();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use sluicegate_policy::{EgressMode, HostServiceAccess};

    use super::*;

    fn change(provider: &str, mode: EgressMode, since: u64) -> Change {
        let profile = Profile {
            can_host_plugins: true,
            host_service_access: HostServiceAccess::Relay,
            egress_mode: mode,
        };
        let published = Published {
            profile,
            shortfalls: Vec::new(),
            since,
        };
        Change::to(provider, &published)
    }

    #[test]
    fn the_oldest_of_too_many_goes_and_the_next_one_says_so() {
        let mut untold = Untold::default();
        untold.push(change("other", EgressMode::None, 0));
        let most = u64::try_from(MOST).unwrap();
        for since in 1..=most + 3 {
            untold.push(change("one", EgressMode::None, since));
        }
        let all: Vec<_> = std::iter::from_fn(|| {
            let first = untold.first()?;
            untold.recorded();
            Some((first.provider, first.since, first.missed))
        })
        .collect();
        assert_eq!(all.len(), MOST + 1);
        assert_eq!(all[0], ("other".to_owned(), 0, 0), "it is another's");
        assert_eq!(all[1], ("one".to_owned(), 4, 3));
        assert_eq!(all[2], ("one".to_owned(), 5, 0));
        assert_eq!(all[MOST], ("one".to_owned(), most + 3, 0));
    }

    #[test]
    fn what_is_as_it_was_is_told_only_where_something_was_in_between() {
        let mut one = change("one", EgressMode::Hostname, 7);
        let after = json!(one.after);
        assert_eq!(one.told(Some(&after)), None);
        let first = one.told(None).unwrap();
        assert_eq!(first["before"], Value::Null);
        assert_eq!((&first["since"], first.get("missed")), (&json!(7), None));
        one.missed = 2;
        let told = one.told(Some(&after)).unwrap();
        assert_eq!((&told["before"], &told["after"]), (&after, &after));
        assert_eq!(told["missed"], 2);
    }
}
