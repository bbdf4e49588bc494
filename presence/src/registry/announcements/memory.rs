//! Announcements in memory: the rule of `announce.lua`.

use crate::model::AnnouncementOrder;
use crate::registry::redis::json;
use crate::registry::{MailboxOrder, MemoryRegistry, RegistryError};
use crate::store::memory::{StoreState, now};

use super::{ANNOUNCED_FOR, AnnouncementRequest, Announcements, MAILBOX_ORDERS_MAX, SentAnnouncement};

impl Announcements for MemoryRegistry {
    async fn announce(&self, request: &AnnouncementRequest) -> Result<Option<SentAnnouncement>, RegistryError> {
        Ok(self.store.lock().send_announcement(request))
    }
}

impl StoreState {
    fn send_announcement(&mut self, request: &AnnouncementRequest) -> Option<SentAnnouncement> {
        let (time, mark) = (now(), request.mark());
        self.announced.retain(|_, (_, sent)| time.saturating_sub(*sent) < ANNOUNCED_FOR.as_millis() as u64);
        if let Some((id, time)) = self.announced.get(&mark) {
            return Some(SentAnnouncement { id: id.clone(), time: *time, duplicate: *id != request.id });
        }
        let serving = self.leases.rows.values().filter(|row| row.state.serves());
        if serving.into_iter().any(|row| row.mailbox.len() >= MAILBOX_ORDERS_MAX) {
            return None;
        }
        let AnnouncementRequest { id, tags, body, .. } = request.clone();
        self.announced.insert(mark, (id.clone(), time));
        let announcement = AnnouncementOrder { id, tags, body, time };
        let text = json(&announcement);
        let text = format!("A {}\n{text}", text.len());
        for (incarnation, row) in self.leases.rows.iter_mut().filter(|(_, row)| row.state.serves()) {
            row.mailbox.push(MailboxOrder::Announce(announcement.clone()));
            self.channels.publish(&self.keys.node(incarnation).channel(), text.as_bytes());
        }
        Some(SentAnnouncement { id: announcement.id, time, duplicate: false })
    }
}
