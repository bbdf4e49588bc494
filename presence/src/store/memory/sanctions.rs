//! The list of sanctions in memory. The rules on it are in `registry/sanctions/memory.rs`; the twin of the indexes is
//! `registry/sanctions/sanction_list.lua`.

use std::collections::{BTreeMap, HashMap};

use crate::model::{SanctionChange, SanctionEntry, SanctionKind};

/// Maximum number of lifted entries that are remembered.
const LIFTED_MAX: usize = 1000;

/// The newest change of each entry.
#[derive(Debug, Default)]
pub(crate) struct SanctionTable {
    /// The version of the newest change.
    pub(crate) version: u64,
    /// Changes up to this version may have been forgotten.
    pub(crate) floor: u64,
    by_version: BTreeMap<u64, SanctionChange>,
    versions: HashMap<String, u64>,
}

impl SanctionTable {
    pub(crate) fn next_version(&self, now: u64) -> u64 {
        now.max(self.version + 1)
    }

    /// Forgets entries that have ended by themselves.
    pub(crate) fn forget_ended(&mut self, now: u64) {
        let ended = |change: &SanctionChange| change.entry.as_ref().is_some_and(|entry| !entry.is_in_force(now));
        for (_, change) in self.by_version.extract_if(.., |_, change| ended(change)) {
            self.versions.remove(&change.id);
        }
    }

    pub(crate) fn count(&self, kind: SanctionKind) -> usize {
        let entries = self.by_version.values().filter_map(|change| change.entry.as_ref());
        entries.filter(|entry| entry.order.kind == kind).count()
    }

    /// Writes a change in place of an older one of its entry. Forgets the oldest lifted entries.
    pub(crate) fn write(&mut self, change: SanctionChange) {
        self.version = change.version;
        if let Some(before) = self.versions.insert(change.id.clone(), change.version) {
            self.by_version.remove(&before);
        }
        self.by_version.insert(change.version, change);
        let lifted: Vec<u64> =
            self.by_version.values().filter(|change| change.entry.is_none()).map(|change| change.version).collect();
        for version in &lifted[..lifted.len().saturating_sub(LIFTED_MAX)] {
            if let Some(change) = self.by_version.remove(version) {
                self.versions.remove(&change.id);
                self.floor = *version;
            }
        }
    }

    /// Returns the changes after a version, in their order.
    pub(crate) fn since(&self, version: u64) -> Vec<SanctionChange> {
        self.by_version.range(version + 1..).map(|(_, change)| change.clone()).collect()
    }

    /// Returns an entry that was not lifted.
    pub(crate) fn entry(&self, id: &str) -> Option<&SanctionEntry> {
        self.by_version.get(self.versions.get(id)?)?.entry.as_ref()
    }
}
