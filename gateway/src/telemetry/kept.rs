//! A family of metrics whose members are found without its lock.

use std::{collections::HashMap, hash::Hash};

use arc_swap::ArcSwap;
use prometheus_client::metrics::family::Family;

/// A family, and those of its members that were asked for: for labels of which there are few and that are asked for often. The library's
/// family has a lock that whoever shows all of it holds as well.
#[derive(Debug)]
pub(super) struct Kept<S, M> {
    family: Family<S, M>,
    known: ArcSwap<HashMap<S, M>>,
}

impl<S: Clone + Eq + Hash, M: Clone> Kept<S, M> {
    /// Of this family.
    pub(super) fn new(family: Family<S, M>) -> Self {
        Self {
            family,
            known: ArcSwap::from_pointee(HashMap::new()),
        }
    }

    /// The member with these labels; from the first time on it is shown.
    pub(super) fn of(&self, labels: &S) -> M {
        if let Some(known) = self.known.load().get(labels) {
            return known.clone();
        }
        let member = self.family.get_or_create_owned(labels);
        self.known.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.insert(labels.clone(), member.clone());
            known
        });
        member
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn a_member_that_is_known_is_not_asked_for_again() {
        let family = Family::<u8, Counter>::default();
        let kept = Kept::new(family.clone());
        kept.of(&1).inc();
        family.clear();
        kept.of(&1).inc();
        assert_eq!(kept.of(&1).get(), 2);
        assert!(family.get(&1).is_none());
    }

    #[test]
    fn members_are_those_of_the_family_whoever_asks_first() {
        let family = Family::<u8, Counter>::default();
        let kept = Kept::new(family.clone());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for label in 0..100 {
                        kept.of(&label).inc();
                    }
                });
            }
        });
        for label in 0..100 {
            assert_eq!(family.get_or_create(&label).get(), 4, "{label}");
            assert_eq!(kept.of(&label).get(), 4, "{label}");
        }
    }
}
