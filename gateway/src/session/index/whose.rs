//! Whose one range of addresses is: mostly one session's, and now and then that of all in a network.

use std::sync::Arc;

use super::pieces::Pieces;
use crate::session::SessionKey;

/// More than these are in pieces: to copy them all would cost each that comes or goes more than the list of pieces.
const FEW: usize = 64;

/// Sessions of one range. A copy costs little.
#[derive(Clone, Debug)]
pub(super) enum Whose {
    /// In the order in which they came.
    Few(Arc<[Arc<SessionKey>]>),
    /// There were so many once.
    Many(Pieces<Arc<SessionKey>, ()>),
}

impl Default for Whose {
    fn default() -> Self {
        Self::Few(Arc::default())
    }
}

impl Whose {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many(many) => many.is_empty(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<SessionKey>> {
        let (few, many) = match self {
            Self::Few(few) => (Some(few.iter()), None),
            Self::Many(many) => (None, Some(many.keys())),
        };
        let few = few.into_iter().flatten();
        few.chain(many.into_iter().flatten())
    }

    pub(super) fn insert(&mut self, key: &Arc<SessionKey>) {
        match self {
            Self::Few(few) if few.contains(key) => {}
            Self::Few(few) if few.len() < FEW => {
                *few = few.iter().chain([key]).cloned().collect();
            }
            Self::Few(few) => {
                let mut many = Pieces::default();
                for key in few.iter().chain([key]) {
                    many.insert(key.clone(), ());
                }
                *self = Self::Many(many);
            }
            Self::Many(many) => many.insert(key.clone(), ()),
        }
    }

    pub(super) fn remove(&mut self, key: &SessionKey) {
        match self {
            Self::Few(few) => {
                let others = few.iter().filter(|other| ***other != *key);
                *few = others.cloned().collect();
            }
            Self::Many(many) => {
                many.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Arc<SessionKey> {
        Arc::new(SessionKey {
            namespace: "default".into(),
            provider: "local".into(),
            id: number.to_string().into(),
        })
    }

    #[test]
    fn few_or_many_are_all_there_once() {
        for all in [1, FEW, FEW + 1, 4 * FEW] {
            let mut whose = Whose::default();
            for number in (0..all).chain(0..all) {
                whose.insert(&key(number));
            }
            let before = whose.clone();
            let count = |whose: &Whose, number| {
                let own = whose.iter().filter(|one| **one == key(number));
                own.count()
            };
            assert!((0..all).all(|number| count(&whose, number) == 1), "{all}");
            assert_eq!(matches!(whose, Whose::Many(_)), all > FEW, "{all}");
            whose.remove(&key(0));
            whose.remove(&key(all));
            assert_eq!(whose.iter().count(), all - 1);
            assert_eq!((count(&before, 0), before.iter().count()), (1, all));
            for number in 1..all {
                whose.remove(&key(number));
            }
            assert!(whose.is_empty() && !before.is_empty(), "{all}");
        }
    }
}
