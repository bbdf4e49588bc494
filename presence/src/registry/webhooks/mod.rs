//! The log that webhooks are sent from, and the position of each webhook in it. In Redis only.
//!
//! The scripts that store a message or change a presence also append to the log (`script/webhook_log.lua`), if a
//! webhook wants the event. One process leads: it reads the events after the cursor of a webhook, and moves the cursor
//! once they are settled. Invariant: a cursor passes only events that the receiver has accepted, that are kept as dead
//! letters, or that the bounds of the log have cut. Nothing here knows a receiver.

mod redis;
mod tail;

use std::time::Duration;

pub use self::tail::WebhookLogTail;

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
    /// The time of Redis, in Unix milliseconds.
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
