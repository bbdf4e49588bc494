//! [`RetirementQueue`]: ended records that stay for a retention time.
//!
//! Invariant: a record is in the queue once, however often it ends, so a client that joins and leaves all day costs
//! nothing. The caller compares the present end of a record.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

/// Ended records, the oldest end first.
#[derive(Debug)]
pub(crate) struct RetirementQueue<K> {
    ends: VecDeque<(u64, K)>,
    queued: HashSet<K>,
}

impl<K> Default for RetirementQueue<K> {
    fn default() -> Self {
        Self { ends: VecDeque::new(), queued: HashSet::new() }
    }
}

impl<K: Clone + Eq + Hash> RetirementQueue<K> {
    /// Adds a record that ended at `ended`, in Unix milliseconds. An earlier entry of it stays instead.
    pub(crate) fn push(&mut self, ended: u64, record: K) {
        if self.queued.insert(record.clone()) {
            self.ends.push_back((ended, record));
        }
    }

    /// Takes out the first record if it ended before `limit`. It may have returned since, or ended again.
    pub(crate) fn pop_before(&mut self, limit: u64) -> Option<K> {
        let (_, record) = self.ends.pop_front_if(|(ended, _)| *ended < limit)?;
        self.queued.remove(&record);
        Some(record)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }
}
