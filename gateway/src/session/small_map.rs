//! A map of few entries: a sorted vector with an exact allocation, where a tree allocates a node for eleven at once.
//!
//! [`SmallMap`] holds the rooms of a session, mostly one to five. Look-up is a binary search, a change moves the
//! entries behind it. Meant for at most a few hundred entries.

/// A map with its entries in the order of their keys.
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

    /// Inserts a value, in place of the key's former one.
    pub(super) fn insert(&mut self, key: K, value: V) {
        match self.find(&key) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => {
                // Grows by half, but the first entry is allocated alone.
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
        let mut map = Self::default();
        entries.into_iter().for_each(|(key, value)| map.insert(key, value));
        map
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn small_map_behaves_like_a_tree(changes in prop::collection::vec((0_u8..3, 0_u8..20, 0_u8..9), 0..100)) {
            let (mut map, mut tree) = (SmallMap::default(), BTreeMap::new());
            for (change, key, value) in changes {
                if change == 0 {
                    prop_assert_eq!(map.remove(&key), tree.remove(&key));
                } else {
                    map.insert(key, value);
                    tree.insert(key, value);
                }
                prop_assert_eq!((map.get(&key), map.contains_key(&key)), (tree.get(&key), tree.contains_key(&key)));
                prop_assert!(map.keys().eq(tree.keys()) && map.values().eq(tree.values()) && map.len() == tree.len());
            }
        }
    }

    #[test]
    fn one_entry_allocates_for_one() {
        let map = SmallMap::from_iter([(1, 1)]);
        assert_eq!(map.0.capacity(), 1);
    }
}
