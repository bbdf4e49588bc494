//! The moderation list in memory: the rules of the scripts beside this file. Nothing is lost here, so a restore changes
//! nothing.

use std::time::Duration;

use crate::model::{MODERATION_MAX, ModerationChange, ModerationEntry, ModerationKind, ModerationOrder};
use crate::registry::redis::json;
use crate::registry::{MemoryRegistry, RegistryError};
use crate::store::memory::{StoreState, now};

use super::{Moderation, ModerationPage};

impl Moderation for MemoryRegistry {
    async fn moderate(
        &self,
        order: &ModerationOrder,
        lasts: Option<Duration>,
    ) -> Result<Option<ModerationEntry>, RegistryError> {
        Ok(self.store.lock().moderate(order, lasts))
    }

    async fn lift(&self, kind: ModerationKind, id: &str) -> Result<bool, RegistryError> {
        Ok(self.store.lock().lift(kind, id))
    }

    async fn moderation_since(&self, version: u64, limit: usize) -> Result<ModerationPage, RegistryError> {
        let state = self.store.lock();
        let is_whole = version < state.moderation.floor;
        let mut changes = state.moderation.since(if is_whole { 0 } else { version });
        let more = changes.len() > limit;
        changes.truncate(limit);
        Ok(ModerationPage { version: state.moderation.version, is_whole, more, changes })
    }

    async fn restore_moderation(&self, _: &[ModerationChange], _: Option<u64>) -> Result<(), RegistryError> {
        Ok(())
    }
}

impl StoreState {
    pub(crate) fn moderate(&mut self, order: &ModerationOrder, lasts: Option<Duration>) -> Option<ModerationEntry> {
        let (now, id) = (now(), order.id());
        self.moderation.forget_ended(now);
        let known = self.moderation.entry(&id);
        if order.key.is_some() && known.is_some_and(|known| known.order.key == order.key) {
            return known.cloned();
        }
        if known.is_none() && self.moderation.count(order.kind) >= MODERATION_MAX {
            return None;
        }
        let version = self.moderation.next_version(now);
        let until = lasts.map_or(0, |lasts| now + lasts.as_millis() as u64);
        let line = format!("{} {version} {now} {until} {}", order.kind.as_str(), json(order));
        let change = ModerationChange::parse(&id, &line)?;
        let entry = change.entry.clone();
        self.moderation.write(change);
        self.announce_version(version);
        entry
    }

    pub(crate) fn lift(&mut self, kind: ModerationKind, id: &str) -> bool {
        let now = now();
        self.moderation.forget_ended(now);
        if self.moderation.entry(id).is_none_or(|entry| entry.order.kind != kind) {
            return false;
        }
        let version = self.moderation.next_version(now);
        let line = ModerationChange::lifted(kind, version, now);
        self.moderation.write(ModerationChange { id: id.to_owned(), version, entry: None, line });
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
