//! A map of few entries, for what every session holds: sorted in one exact allocation, where a tree takes a node for
//! eleven as soon as there is one.
//!
//! Core and driver keep the session's rooms in it, mostly one to five. Finding is a binary search, changing moves what
//! follows; made for no more than some hundred entries.

/// Entries by their keys, in the order of the keys.
#[derive(Debug, Clone)]
pub(super) struct SmallMap<K, V>(Vec<(K, V)>);

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord, V> SmallMap<K, V> {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.find(key).ok().map(|at| &self.0[at].1)
    }

    pub(super) fn contains_key(&self, key: &K) -> bool {
        self.find(key).is_ok()
    }

    /// Puts the value in the place of the one that the key had.
    pub(super) fn insert(&mut self, key: K, value: V) {
        match self.find(&key) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => {
                // Half of it at a time, but nothing beside the first.
                if self.0.len() == self.0.capacity() {
                    self.0.reserve_exact(1 + self.0.len() / 2);
                }
                self.0.insert(at, (key, value));
            }
        }
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.find(key).ok()?;
        Some(self.0.remove(at).1)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    fn find(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.cmp(key))
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for SmallMap<K, V> {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(entries: T) -> Self {
        let mut few = Self::default();
        entries.into_iter().for_each(|(key, value)| few.insert(key, value));
        few
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_a_tree_would(changes in prop::collection::vec((0_u8..3, 0_u8..20, 0_u8..9), 0..100)) {
            let (mut few, mut tree) = (SmallMap::default(), BTreeMap::new());
            for (change, key, value) in changes {
                if change == 0 {
                    prop_assert_eq!(few.remove(&key), tree.remove(&key));
                } else {
                    few.insert(key, value);
                    tree.insert(key, value);
                }
                prop_assert_eq!((few.get(&key), few.contains_key(&key)), (tree.get(&key), tree.contains_key(&key)));
                prop_assert!(few.keys().eq(tree.keys()) && few.values().eq(tree.values()) && few.len() == tree.len());
            }
        }
    }

    #[test]
    fn one_entry_takes_the_room_of_one() {
        let few = SmallMap::from_iter([(1, 1)]);
        assert_eq!(few.0.capacity(), 1);
    }
}
