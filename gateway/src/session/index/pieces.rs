//! A map of which a copy costs little: it is in pieces, and of what two copies share a piece is copied when one of them changes it.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::Arc,
};

/// A change copies the list of so many, and one of them: for some 65,000 entries both are as long.
const PIECES: usize = 256;

/// A piece keeps room for so many, though it has none.
const ROOM: usize = 64;

type Piece<K, V> = Arc<HashMap<K, V>>;

/// Such a map. Keys and values are cloned with their piece.
#[derive(Clone, Debug)]
pub(super) struct Pieces<K, V> {
    pieces: Arc<[Piece<K, V>; PIECES]>,
    hasher: RandomState,
    len: usize,
}

impl<K, V> Default for Pieces<K, V> {
    fn default() -> Self {
        // One for all, until it has something in it.
        let empty = Piece::<K, V>::default();
        Self {
            pieces: Arc::new(std::array::from_fn(|_| empty.clone())),
            hasher: RandomState::new(),
            len: 0,
        }
    }
}

impl<K, V> Pieces<K, V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.pieces.iter().flat_map(|piece| piece.keys())
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.pieces.iter().flat_map(|piece| piece.values())
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Pieces<K, V> {
    pub(super) fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.pieces.get(self.number(key))?.get(key)
    }

    pub(super) fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.get(key).is_some()
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        let number = self.number(&key);
        let before = self.piece(number).insert(key, value);
        self.len += usize::from(before.is_none());
    }

    pub(super) fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        // Nothing is copied for what is not there.
        if !self.contains(key) {
            return None;
        }
        let number = self.number(key);
        let piece = self.piece(number);
        let gone = piece.remove(key);
        // A copy has as much room as what it is a copy of: what was needed once would be looked through for every change.
        if piece.capacity() > ROOM.max(4 * piece.len()) {
            piece.shrink_to(2 * piece.len());
        }
        self.len -= usize::from(gone.is_some());
        gone
    }

    fn number<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        self.hasher.hash_one(key) as usize % PIECES
    }

    /// One's own, to change it.
    fn piece(&mut self, number: usize) -> &mut HashMap<K, V> {
        // In range: a remainder.
        #[allow(clippy::indexing_slicing)]
        Arc::make_mut(&mut Arc::make_mut(&mut self.pieces)[number])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_as_it_was_and_shares_what_was_not_changed() {
        let mut map = Pieces::<u32, u32>::default();
        for key in 0..2000 {
            map.insert(key, key);
        }
        let before = map.clone();
        map.insert(7, 8);
        assert_eq!((before.get(&7), map.get(&7)), (Some(&7), Some(&8)));
        assert_eq!((map.remove(&9), map.remove(&9)), (Some(9), None));
        assert!(before.contains(&9) && !map.contains(&9));
        assert_eq!((before.len(), map.len()), (2000, 1999));
        assert_eq!(
            (before.values().count(), map.values().count()),
            (2000, 1999)
        );
        let pieces = before.pieces.iter().zip(map.pieces.iter());
        let copied = pieces.filter(|(one, other)| !Arc::ptr_eq(one, other));
        assert!(copied.count() <= 2, "7 and 9 are in two at most");
    }

    #[test]
    fn what_has_left_leaves_no_room_behind() {
        let mut map = Pieces::<u32, u32>::default();
        for key in 0..50_000 {
            map.insert(key, key);
        }
        let most = |map: &Pieces<u32, u32>| {
            let each = map.pieces.iter().map(|piece| piece.capacity());
            each.max().unwrap_or_default()
        };
        assert!(most(&map) > ROOM);
        for key in 10..50_000 {
            map.remove(&key);
        }
        assert!(most(&map) <= ROOM);
        assert!((0..10).all(|key| map.get(&key) == Some(&key)) && map.len() == 10);
    }

    #[test]
    fn what_is_not_there_is_not_removed_and_copies_nothing() {
        let mut map = Pieces::<u32, ()>::default();
        let before = map.clone();
        assert_eq!(map.remove(&1), None);
        assert!(Arc::ptr_eq(&map.pieces, &before.pieces) && map.is_empty());
    }
}
