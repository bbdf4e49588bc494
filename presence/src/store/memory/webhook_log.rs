//! The log of webhooks in memory: events that wait, the cursor of each webhook and its dead letters.
//!
//! [`WebhookLog::add`] is the twin of `registry/script/webhook_log.lua`; the rules of the calls are in
//! `registry/webhooks/memory.rs`. Invariant: the numbers have no holes, so a reader can count what it missed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

use crate::model::RoomKey;
use crate::registry::{EventLogBounds, LoggedEvent};

/// Bytes of an event in addition to its texts.
const EVENT_BYTES: u64 = 64;
/// Bytes of its time in Unix milliseconds, in digits.
const TIME_BYTES: usize = 13;

/// The events that webhooks want, from the text that `lead_webhooks` states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WantedEvents {
    pub(crate) text: String,
    pub(crate) bounds: EventLogBounds,
}

impl WantedEvents {
    /// Reads `<maximum number of events> <maximum number of bytes> `, then the kinds.
    pub(crate) fn read(text: &str) -> Self {
        let mut numbers = text.split(' ').map(|word| word.parse().unwrap_or(0));
        let bounds =
            EventLogBounds { events: numbers.next().unwrap_or_default(), bytes: numbers.next().unwrap_or_default() };
        Self { text: text.to_owned(), bounds }
    }

    fn has_kind(&self, kind: &str) -> bool {
        self.text.split(' ').any(|word| word == kind)
    }

    /// Returns true if a webhook may want the messages of a room.
    fn has_room(&self, room: &RoomKey) -> bool {
        let mut beginnings = self.text.split(' ').filter_map(|word| word.strip_prefix("message:"));
        beginnings.any(|beginning| room.as_str().starts_with(beginning))
    }
}

/// The lead of a process.
#[derive(Debug)]
pub(crate) struct LeadRecord {
    pub(crate) process: String,
    /// The time at which it ends by itself.
    pub(crate) until: Instant,
}

/// The state of a webhook.
#[derive(Debug, Default)]
pub(crate) struct WebhookRecord {
    /// The number of its last settled event.
    pub(crate) cursor: u64,
    /// JSON about its deliveries.
    pub(crate) about: String,
    pub(crate) dead: VecDeque<LoggedEvent>,
}

/// The log, empty and without wanted events at first.
#[derive(Debug, Default)]
pub(crate) struct WebhookLog {
    pub(crate) lead: Option<LeadRecord>,
    /// The time of the last renewal of a lead.
    pub(crate) led: Option<Instant>,
    pub(crate) wanted: Option<WantedEvents>,
    /// The number of all events so far.
    pub(crate) count: u64,
    pub(crate) webhooks: BTreeMap<String, WebhookRecord>,
    entries: VecDeque<LoggedEvent>,
    bytes: u64,
    changed: Arc<Notify>,
}

impl WebhookLog {
    /// Returns true if a webhook wants events of a kind other than `message`.
    pub(crate) fn wants(&self, kind: &str) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| wanted.has_kind(kind))
    }

    /// Returns true if a webhook may want the messages of a room.
    pub(crate) fn wants_room(&self, room: &RoomKey) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| wanted.has_room(room))
    }

    /// Logs an event. `at` is its position in another stream, or a further word.
    pub(crate) fn add(&mut self, kind: &str, time: u64, at: String, data: String) {
        let (number, kind) = (self.count + 1, kind.to_owned());
        self.append(LoggedEvent { number, original: number, kind, time, logged: time, at, data, only: None });
    }

    /// Appends an event under the next number, and removes the oldest ones beyond the bounds.
    pub(crate) fn append(&mut self, event: LoggedEvent) {
        self.count += 1;
        self.bytes += event_size(&event);
        self.entries.push_back(LoggedEvent { number: self.count, ..event });
        self.trim();
        self.changed.notify_waiters();
    }

    /// Removes the oldest events beyond the bounds.
    pub(crate) fn trim(&mut self) {
        let Some(EventLogBounds { events, bytes }) = self.wanted.as_ref().map(|wanted| wanted.bounds) else { return };
        while self.entries.len() as u64 > events || self.bytes > bytes {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= event_size(&oldest);
        }
    }

    /// Removes the events up to a number, which every webhook has.
    pub(crate) fn remove_through(&mut self, number: u64) {
        while let Some(oldest) = self.entries.pop_front_if(|oldest| oldest.number <= number) {
            self.bytes -= event_size(&oldest);
        }
    }

    /// Returns the events after a number, the oldest first.
    pub(crate) fn after(&self, number: u64) -> impl Iterator<Item = &LoggedEvent> {
        let from = self.entries.partition_point(|event| event.number <= number);
        self.entries.range(from..)
    }

    /// Returns the notification of new events.
    pub(crate) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }
}

/// Returns the size of an event that counts for the bounds.
pub(crate) fn event_size(event: &LoggedEvent) -> u64 {
    let texts = event.kind.len() + event.at.len() + event.data.len() + TIME_BYTES;
    texts as u64 + EVENT_BYTES
}
