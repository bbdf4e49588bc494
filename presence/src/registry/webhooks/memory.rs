//! Webhooks in memory: the rules of the scripts beside this file. Nothing is lost while the process runs, and
//! everything at its end.

use std::time::{Duration, Instant};

use crate::registry::{MemoryRegistry, RegistryError};
use crate::store::memory::{LeadRecord, Store, WantedEvents, WebhookLog, WebhookRecord, event_size, now};

use super::{
    DEAD_LETTERS_MAX, LoggedEvent, TAIL_WAIT, TakenEvents, WebhookLead, WebhookRow, WebhookRows, WebhookSettlement,
    Webhooks,
};

/// The dead letters of a webhook have this part of the log's maximum number of bytes at most.
const LOG_PARTS: u64 = 16;

impl Webhooks for MemoryRegistry {
    async fn lead_webhooks(
        &self,
        lead: &WebhookLead<'_>,
        wanted: &str,
        webhooks: &[&str],
    ) -> Result<bool, RegistryError> {
        Ok(self.store.lock().webhooks.lead(lead, wanted, webhooks))
    }

    async fn resign_webhooks(&self, process: &str) -> Result<bool, RegistryError> {
        let log = &mut self.store.lock().webhooks;
        let leads = log.is_led_by(process);
        if leads {
            log.lead = None;
        }
        Ok(leads)
    }

    async fn forget_webhooks(&self, after: Duration) -> Result<bool, RegistryError> {
        let log = &mut self.store.lock().webhooks;
        let is_unused = log.leader().is_none() && log.led.is_none_or(|led| led.elapsed() >= after);
        Ok(is_unused && log.wanted.take().is_some())
    }

    async fn take_webhook_events(
        &self,
        process: &str,
        webhook: &str,
        limits: [usize; 2],
    ) -> Result<Option<TakenEvents>, RegistryError> {
        Ok(self.store.lock().webhooks.take(process, webhook, limits))
    }

    async fn settle_webhook(&self, process: &str, settlement: &WebhookSettlement<'_>) -> Result<bool, RegistryError> {
        Ok(self.store.lock().webhooks.settle(process, settlement))
    }

    async fn replay_webhook(&self, webhook: &str, limit: usize) -> Result<u64, RegistryError> {
        Ok(self.store.lock().webhooks.replay(webhook, limit))
    }

    async fn show_webhooks(&self) -> Result<WebhookRows, RegistryError> {
        Ok(self.store.lock().webhooks.show())
    }
}

impl WebhookLog {
    /// Returns the process that leads.
    fn leader(&self) -> Option<&str> {
        self.lead.as_ref().filter(|lead| Instant::now() < lead.until).map(|lead| lead.process.as_str())
    }

    fn is_led_by(&self, process: &str) -> bool {
        self.leader() == Some(process)
    }

    /// The rule of `lead_webhooks.lua`.
    fn lead(&mut self, lead: &WebhookLead<'_>, wanted: &str, webhooks: &[&str]) -> bool {
        if self.leader().is_some_and(|leader| leader != lead.process) {
            return false;
        }
        let now = Instant::now();
        self.lead = Some(LeadRecord { process: lead.process.to_owned(), until: now + lead.lasts });
        self.led = Some(now);
        if self.wanted.as_ref().is_none_or(|stated| stated.text != wanted) {
            self.wanted = Some(WantedEvents::read(wanted));
            self.trim();
        }
        let newest = self.count;
        let cursor = |name: &&str| {
            let new = || WebhookRecord { cursor: newest, ..WebhookRecord::default() };
            self.webhooks.entry((*name).to_owned()).or_insert_with(new).cursor
        };
        let slowest = webhooks.iter().map(cursor).min().unwrap_or(newest);
        self.remove_through(slowest);
        true
    }

    /// The rule of `take_webhook_events.lua`.
    fn take(&self, process: &str, webhook: &str, [events_max, bytes_max]: [usize; 2]) -> Option<TakenEvents> {
        let cursor = self.webhooks.get(webhook).filter(|_| self.is_led_by(process))?.cursor;
        let mut bytes = 0;
        let fits = |(place, event): &(usize, &LoggedEvent)| {
            bytes += event.data.len();
            *place == 0 || bytes <= bytes_max
        };
        let events = self.after(cursor).take(events_max).enumerate().take_while(fits);
        let events = events.map(|(_, event)| event.clone()).collect();
        Some(TakenEvents { cursor, newest: self.count, now: now(), events })
    }

    /// The rule of `settle_webhook.lua`.
    fn settle(&mut self, process: &str, settlement: &WebhookSettlement<'_>) -> bool {
        let WebhookSettlement { webhook, from, to, about, dead } = settlement;
        let leads = self.is_led_by(process);
        let bytes_max = self.wanted.as_ref().map_or(u64::MAX, |wanted| wanted.bounds.bytes / LOG_PARTS);
        let Some(record) = self.webhooks.get_mut(*webhook).filter(|record| leads && record.cursor == *from) else {
            return false;
        };
        record.cursor = *to;
        (*about).clone_into(&mut record.about);
        record.dead.extend(dead.iter().cloned());
        let mut bytes: u64 = record.dead.iter().map(event_size).sum();
        // The oldest make space. The newest one always stays.
        while record.dead.len() > DEAD_LETTERS_MAX || (bytes > bytes_max && record.dead.len() > 1) {
            let Some(oldest) = record.dead.pop_front() else { break };
            bytes -= event_size(&oldest);
        }
        true
    }

    /// The rule of `replay_webhook.lua`.
    fn replay(&mut self, webhook: &str, limit: usize) -> u64 {
        let record = self.webhooks.get_mut(webhook).filter(|_| self.wanted.is_some());
        let Some(record) = record else { return 0 };
        let letters: Vec<LoggedEvent> = record.dead.drain(..limit.min(record.dead.len())).collect();
        let replayed = letters.len() as u64;
        for letter in letters {
            self.append(LoggedEvent { logged: now(), only: Some(webhook.to_owned()), ..letter });
        }
        replayed
    }

    /// The rule of `show_webhooks.lua`.
    fn show(&self) -> WebhookRows {
        let row = |(webhook, record): (&String, &WebhookRecord)| WebhookRow {
            webhook: webhook.clone(),
            waiting: self.count.saturating_sub(record.cursor),
            dead: record.dead.len() as u64,
            about: record.about.clone(),
        };
        WebhookRows { leader: self.leader().map(str::to_owned), rows: self.webhooks.iter().map(row).collect() }
    }
}

/// Waits for new events of the log in memory.
#[derive(Debug)]
pub struct MemoryLogTail(pub(super) Store);

impl MemoryLogTail {
    pub(super) async fn wait(&self, seen: &str) -> String {
        let changed = self.0.lock().webhooks.changed();
        let mut notified = std::pin::pin!(changed.notified());
        notified.as_mut().enable();
        let newest = || self.0.lock().webhooks.count.to_string();
        if newest() == seen {
            // Without an event the reader looks again all the same, as in Redis.
            let _ = tokio::time::timeout(TAIL_WAIT, notified).await;
        }
        newest()
    }
}
