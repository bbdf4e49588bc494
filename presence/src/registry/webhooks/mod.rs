//! The log that webhooks are sent from, and the position of each webhook in it.
//!
//! The scripts that store a message or change a presence also append to the log (`script/webhook_log.lua`), if a
//! webhook wants the event. One process leads: it reads the events after the cursor of a webhook, and moves the cursor
//! once they are settled. Invariant: a cursor passes only events that the receiver has accepted, that are kept as dead
//! letters, or that the bounds of the log have cut. Nothing here knows a receiver.

mod memory;
mod redis;
mod tail;

use std::time::Duration;

use super::{Registry, RegistryError};

use self::memory::MemoryLogTail;
use self::tail::RedisLogTail;

/// Maximum number of dead letters of a webhook.
const DEAD_LETTERS_MAX: usize = 10_000;
/// Maximum wait for an event. Afterwards the end of the log is read again, because a restarted Redis may have lost it.
const TAIL_WAIT: Duration = Duration::from_secs(1);

/// The lead of a process among those that send webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookLead<'a> {
    /// The process: unique among all that run and have run.
    pub process: &'a str,
    /// The time after which another process may lead.
    pub lasts: Duration,
}

/// Bounds of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventLogBounds {
    /// Maximum number of events.
    pub events: u64,
    /// Maximum number of bytes.
    pub bytes: u64,
}

/// An event of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedEvent {
    /// Its number in the log.
    pub number: u64,
    /// Its number when it was logged first; a replayed event has another one.
    pub original: u64,
    /// Its kind, such as `message`.
    pub kind: String,
    /// Unix milliseconds of its cause.
    pub time: u64,
    /// Unix milliseconds of its entry into the log: of its cause, or of its replay.
    pub logged: u64,
    /// Its position in another stream, or a further word; empty for most kinds.
    pub at: String,
    /// JSON: the stored message, or the event as in the event API.
    pub data: String,
    /// The only webhook that gets it, if it is replayed.
    pub only: Option<String>,
}

/// The events after the cursor of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenEvents {
    /// The number of the last settled event.
    pub cursor: u64,
    /// The number of the newest event.
    pub newest: u64,
    /// The time of the store, in Unix milliseconds.
    pub now: u64,
    /// The next events.
    pub events: Vec<LoggedEvent>,
}

/// A move of the cursor of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSettlement<'a> {
    /// The webhook.
    pub webhook: &'a str,
    /// Its present cursor.
    pub from: u64,
    /// Its new cursor.
    pub to: u64,
    /// JSON about its deliveries, for people.
    pub about: &'a str,
    /// The events that were not accepted, and are kept.
    pub dead: &'a [LoggedEvent],
}

/// The state of all webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookRows {
    /// The process that leads.
    pub leader: Option<String>,
    /// One row for each webhook, also for those that no process has any more.
    pub rows: Vec<WebhookRow>,
}

/// The state of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookRow {
    /// Its name.
    pub webhook: String,
    /// Number of events in the log that are not settled.
    pub waiting: u64,
    /// Number of dead letters.
    pub dead: u64,
    /// JSON about its deliveries; empty before the first one.
    pub about: String,
}

contract! {
    /// The log of webhooks.
    Webhooks {
        /// Takes or renews the lead, and states the events to be logged, as in `webhook_log.lua`. Webhooks without a
        /// cursor begin with the next event. Returns false if another process leads.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`, as for the calls below.
        async fn lead_webhooks(
            &self,
            lead: &WebhookLead<'_>,
            wanted: &str,
            webhooks: &[&str],
        ) -> Result<bool, RegistryError>;

        /// Ends the lead of this process. Returns false if it did not lead.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn resign_webhooks(&self, process: &str) -> Result<bool, RegistryError>;

        /// Ends the logging of events for webhooks if no process has led for this time. Returns true if it did.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn forget_webhooks(&self, after: Duration) -> Result<bool, RegistryError>;

        /// Reads the events after the cursor of a webhook, at most this number of events and of bytes. Returns `None`
        /// if this process does not lead.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn take_webhook_events(
            &self,
            process: &str,
            webhook: &str,
            limits: [usize; 2],
        ) -> Result<Option<TakenEvents>, RegistryError>;

        /// Moves the cursor of a webhook, and keeps its dead letters in the same step. Returns false if this process
        /// does not lead, or the cursor is another one: nothing has changed then.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn settle_webhook(
            &self,
            process: &str,
            settlement: &WebhookSettlement<'_>,
        ) -> Result<bool, RegistryError>;

        /// Appends the oldest dead letters of a webhook to the log again, for this webhook only. Returns their number.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn replay_webhook(&self, webhook: &str, limit: usize) -> Result<u64, RegistryError>;

        /// Reads the state of all webhooks, in the order of their names.
        ///
        /// # Errors
        /// `Unavailable` or `Unknown`.
        async fn show_webhooks(&self) -> Result<WebhookRows, RegistryError>;
    }
}

/// Waits for new events of the log.
#[derive(Debug)]
pub enum WebhookLogTail {
    /// Of a cluster.
    Redis(RedisLogTail),
    /// Of one process.
    Memory(MemoryLogTail),
}

impl WebhookLogTail {
    /// Returns once the log has an entry after the one with this id, at the latest after a second. Returns the id of
    /// the newest entry.
    ///
    /// # Errors
    /// `Unavailable` or `Unknown`; the next call connects again.
    pub async fn wait(&mut self, seen: &str) -> Result<String, RegistryError> {
        match self {
            Self::Redis(tail) => tail.wait(seen).await,
            Self::Memory(tail) => Ok(tail.wait(seen).await),
        }
    }
}

impl Registry {
    /// Returns a reader that waits for new events of the log of webhooks.
    #[must_use]
    pub fn webhook_log_tail(&self) -> WebhookLogTail {
        match self {
            Self::Redis(redis) => WebhookLogTail::Redis(RedisLogTail::new(redis.redis.clone())),
            Self::Memory(memory) => WebhookLogTail::Memory(MemoryLogTail(memory.store.clone())),
        }
    }
}
