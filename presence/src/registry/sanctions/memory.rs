//! The list of sanctions in memory: the rules of the scripts beside this file. Nothing is lost here, so a restore
//! changes nothing.

use std::time::Duration;

use crate::model::{SANCTIONS_MAX, SanctionChange, SanctionEntry, SanctionKind, SanctionOrder};
use crate::registry::redis::json;
use crate::registry::{MemoryRegistry, RegistryError};
use crate::store::memory::{StoreState, now};

use super::{SanctionCursor, SanctionPage, Sanctions};

impl Sanctions for MemoryRegistry {
    async fn sanction(
        &self,
        order: &SanctionOrder,
        lasts: Option<Duration>,
    ) -> Result<Option<SanctionEntry>, RegistryError> {
        Ok(self.store.lock().sanction(order, lasts))
    }

    async fn lift(&self, kind: SanctionKind, id: &str) -> Result<bool, RegistryError> {
        Ok(self.store.lock().lift(kind, id))
    }

    async fn sanctions_since(&self, place: SanctionCursor, limit: usize) -> Result<SanctionPage, RegistryError> {
        let state = self.store.lock();
        let is_whole = place.as_of < state.sanctions.floor;
        let mut changes = state.sanctions.since(if is_whole { 0 } else { place.after });
        let more = changes.len() > limit;
        changes.truncate(limit);
        Ok(SanctionPage { version: state.sanctions.version, is_whole, more, changes })
    }

    async fn restore_sanctions(&self, _: &[SanctionChange], _: Option<u64>) -> Result<(), RegistryError> {
        Ok(())
    }
}

impl StoreState {
    pub(crate) fn sanction(&mut self, order: &SanctionOrder, lasts: Option<Duration>) -> Option<SanctionEntry> {
        let (now, id) = (now(), order.id());
        self.sanctions.forget_ended(now);
        let known = self.sanctions.entry(&id);
        if order.key.is_some() && known.is_some_and(|known| known.order == *order) {
            return known.cloned();
        }
        if known.is_none() && self.sanctions.count(order.kind) >= SANCTIONS_MAX {
            return None;
        }
        let version = self.sanctions.next_version(now);
        let until = lasts.map_or(0, |lasts| now + lasts.as_millis() as u64);
        let line = format!("{} {version} {now} {until} {}", order.kind.as_str(), json(order));
        let change = SanctionChange::parse(&id, &line)?;
        let entry = change.entry.clone();
        self.sanctions.write(change);
        self.announce_version(version);
        entry
    }

    pub(crate) fn lift(&mut self, kind: SanctionKind, id: &str) -> bool {
        let now = now();
        self.sanctions.forget_ended(now);
        if self.sanctions.entry(id).is_none_or(|entry| entry.order.kind != kind) {
            return false;
        }
        let version = self.sanctions.next_version(now);
        let line = SanctionChange::lifted(kind, version, now);
        self.sanctions.write(SanctionChange { id: id.to_owned(), version, entry: None, line });
        self.announce_version(version);
        true
    }

    fn announce_version(&self, version: u64) {
        let serving = self.leases.rows.iter().filter(|(_, row)| row.state.serves());
        for (incarnation, _) in serving {
            let channel = self.keys.node(incarnation).channel();
            self.channels.publish(&channel, format!("B {version}").as_bytes());
        }
    }
}
