//! The whole shared state of a cluster in one process: what the Redis scripts do, as methods under one lock.
//!
//! Serves the `Memory` arms of registry and backplane: the embedded default (one node, nothing installed) and tests
//! that run several nodes in one process on one [`Store`]. Channels are synchronous callbacks. Nothing here outlives the
//! process, and nothing here touches a socket.
//!
//! What goes over channels is the same text as in Redis (decoded by the gateway's backplane):
//! room channel: any number of `M <epoch> <seq> <time> <len>\n<payload>` and `P <version> <len>\n<delta JSON>`;
//! gateway channel: `E <counter>`, `K <session>`, `D <session> <seq> <time> <len>\n<payload>`.

use std::sync::Arc;

use crate::model::{NickKey, Owner, RoomKey, RoomName};

/// Receives what is published on a channel. Called under the store's lock: must not call back into it, nor block.
pub type Listener = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// Ends a subscription when it is dropped.
#[derive(Debug)]
pub struct Subscription {}

/// A message to append. `payload` is opaque to the store.
#[derive(Debug, Clone, Copy)]
pub struct Append<'a> {
    /// Who says it: the key under which the sender is a member (or owns the nick).
    pub from: &'a NickKey,
    /// The sender's claim.
    pub owner: &'a Owner,
    /// Idempotency key, unique per target and session.
    pub key: &'a str,
    /// The message's id, remembered with the key.
    pub msg_id: &'a str,
    /// What is stored and published.
    pub payload: &'a str,
}

/// What an append gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The id of the first attempt.
    pub msg_id: String,
    /// Position.
    pub seq: u64,
    /// Unix milliseconds.
    pub time: u64,
    /// The key had been seen.
    pub duplicate: bool,
}

/// Why nothing was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendError {
    /// The sender's lease is not live.
    Fenced,
    /// No member record, or not this owner's.
    NotInRoom,
    /// The nick was never seen.
    NoSuchUser,
    /// The nick is known; no live session owns it.
    Offline,
    /// A bounded structure is full.
    Overloaded,
}

/// One entry of a room's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Position.
    pub seq: u64,
    /// Unix milliseconds.
    pub time: u64,
    /// As it was appended.
    pub payload: String,
}

/// The state of a cluster, in memory. Cheap to clone: clones share it.
#[derive(Debug, Clone, Default)]
pub struct Store {}

#[allow(clippy::todo, missing_docs)]
impl Store {
    /// Hears a channel (a name made by [`crate::keys::Keys`] with prefix `parley`) until the subscription is dropped.
    #[must_use]
    pub fn listen(&self, _channel: &str, _listener: Listener) -> Subscription {
        todo!()
    }
    /// PUBLISH into a room.
    pub fn append(&self, _room: &RoomName, _message: Append<'_>) -> Result<Appended, AppendError> {
        todo!()
    }
    /// DIRECT to a nick.
    pub fn append_direct(&self, _to: &NickKey, _message: Append<'_>) -> Result<Appended, AppendError> {
        todo!()
    }
    /// The log entries with `from <= seq <= to`, oldest first, at most `limit`; from the newest end when `newest` is set.
    #[must_use]
    pub fn log(&self, _room: &RoomKey, _from: u64, _to: u64, _limit: usize, _newest: bool) -> Vec<LogEntry> {
        todo!()
    }
}
