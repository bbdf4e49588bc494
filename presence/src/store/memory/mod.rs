//! The shared state of a cluster in one process: tables, streams and channels under one lock.
//!
//! It serves the Memory arms of registry and backplane: the embedded default (one node without dependencies) and tests
//! that run several nodes on one [`Store`]. The registry's rules on these tables stand beside their Lua, in
//! `registry/*/memory.rs`. Channels are synchronous callbacks. Nothing outlives the process.
//!
//! Channels carry the same texts as in Redis, which the gateway's backplane decodes.
//! - Room: any number of `M <epoch> <seq> <time> <len>\n<payload>` and `P <version> <len>\n<delta JSON>`.
//! - Gateway: `E <counter>`, `B <version>`, `K <session>`, `T <session> <fence>`,
//!   `R <session> <len>\n<RoomRemoval as JSON>`, `J <session> <len>\n<RoomEntryOrder as JSON>`,
//!   `A <len>\n<AnnouncementOrder as JSON>`,
//!   `D <session> <epoch> <seq> <time> <len>\n<payload>`.

mod channels;
mod events;
mod leases;
mod sanctions;
mod nicks;
mod retired;
mod rooms;
mod sessions;
mod streams;
#[cfg(test)]
mod tests;
mod user_nicks;
mod webhook_log;

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::host::reloadable::Reloadable;
use crate::model::keys::Keys;
use crate::model::stream::{PageLimit, StreamEnd, StreamId};
use crate::model::{EPHEMERAL_AGE, NickKey, Owner, Retention, RoomKey, RoomName, RoomPolicies, SessionId};
use crate::store::{AnswerClock, ReadTurns};

use self::channels::Channels;
pub use self::channels::{ChannelListener, ListenerGuard};
use self::events::EventLog;
pub(crate) use self::leases::{LeaseRecord, Leases};
pub(crate) use self::nicks::{FreedFor, NickRecord, Nicks};
use self::retired::RetirementQueue;
pub(crate) use self::rooms::{MemberRecord, ModerationRecord, RoomState, Rooms};
pub(crate) use self::sanctions::SanctionTable;
pub(crate) use self::sessions::Sessions;
pub use self::streams::{Append, AppendError, Appended, StoredEntry, StoredPage};
use self::streams::{Inboxes, SeenMessages};
pub(crate) use self::webhook_log::{LeadRecord, WantedEvents, WebhookLog, WebhookRecord, event_size};

/// The retention of freed nicks, ended sessions and empty rooms.
const RETENTION_MS: u64 = 72 * 3600 * 1000;

/// The state of a cluster, in memory. Cheap to clone: clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    state: Arc<Mutex<StoreState>>,
    read_turns: ReadTurns,
    channels: Channels,
}

impl Default for Store {
    fn default() -> Self {
        Self::with_retention(Reloadable::default())
    }
}

impl Store {
    /// Creates an empty store that trims streams to `retention`.
    #[must_use]
    pub fn with_retention(retention: Reloadable<Retention>) -> Self {
        let channels = Channels::default();
        Self {
            state: Arc::new(Mutex::new(StoreState::new(retention, channels.clone()))),
            read_turns: ReadTurns::new(AnswerClock::always_answering()),
            channels,
        }
    }

    /// Subscribes to a channel, named by [`Keys`] with prefix `parley`, until the subscription is dropped.
    pub fn listen(&self, channel: &str, listener: ChannelListener) -> ListenerGuard {
        self.channels.listen(channel, listener)
    }

    /// Publishes into a room: the message gets a seq, is appended to the room's stream and sent to the room's channel.
    ///
    /// # Errors
    /// `Fenced`, `NotInRoom` or `Exhausted`; nothing was done then.
    pub fn append(&self, room: &RoomName, message: Append<'_>) -> Result<Appended, AppendError> {
        self.lock().append(room.key(), message)
    }

    /// Sends to a nick: the message goes into the inbox of the session that owns it or had it last, and to that
    /// session's gateway if the session is online.
    ///
    /// # Errors
    /// `Fenced`, `NotInRoom` if the sender does not own its nick, `NoSuchUser` or `Exhausted`.
    pub fn append_direct(&self, to: &NickKey, message: Append<'_>) -> Result<Appended, AppendError> {
        self.lock().append_direct(to, message)
    }

    /// Returns the claim of the session that has a nick or had it last, if that session is online.
    #[must_use]
    pub fn whereabouts(&self, nick: &NickKey) -> Option<Owner> {
        self.lock().whereabouts(nick)
    }

    /// Returns true for a member that mutes and rules let send to a room, also while the slow mode makes it wait.
    #[must_use]
    pub fn may_send(&self, room: &RoomKey, nick: &NickKey, moderates: bool) -> bool {
        !matches!(
            self.lock().check_sender(room, nick, moderates),
            Err(AppendError::Muted { .. } | AppendError::NotAllowed)
        )
    }

    /// Publishes a text on a channel. Nothing is stored.
    pub fn publish(&self, channel: &str, text: &str) {
        // Under the lock, like every publish, so that all listeners receive one order.
        self.lock().channels.publish(channel, text.as_bytes());
    }

    /// Returns the turns of long reads.
    #[must_use]
    pub fn read_turns(&self) -> &ReadTurns {
        &self.read_turns
    }

    /// Returns a page of the entries with these seqs; the newest ones if `newest` is set.
    #[must_use]
    pub fn page(&self, stream: &StreamId, seqs: RangeInclusive<u64>, limit: PageLimit, newest: bool) -> StoredPage {
        self.lock().named(stream).map(|log| log.page(seqs, limit, newest)).unwrap_or_default()
    }

    /// Returns the end of a stream; `None` for an unknown room.
    #[must_use]
    pub fn end(&self, stream: &StreamId) -> Option<StreamEnd> {
        self.lock().end(stream)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, StoreState> {
        // Listeners are the only foreign code that runs while it is held, always after the change that they receive.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The contents of a partition's Redis keys, one table for each part.
#[derive(Debug)]
pub(crate) struct StoreState {
    pub(crate) leases: Leases,
    pub(crate) nicks: Nicks,
    pub(crate) sessions: Sessions,
    pub(crate) rooms: Rooms,
    pub(crate) inboxes: Inboxes,
    pub(crate) seen: SeenMessages,
    pub(crate) sanctions: SanctionTable,
    /// The id and the time of each announcement of the last minutes, by the mark of its key.
    pub(crate) announced: HashMap<String, (String, u64)>,
    pub(crate) events: EventLog,
    pub(crate) webhooks: WebhookLog,
    pub(crate) leftovers: RetirementQueue<Leftover>,
    /// Quiet rooms without members, which have a retention time of their own.
    pub(crate) quiet_rooms: RetirementQueue<RoomKey>,
    /// Ephemeral rooms with messages.
    pub(crate) fleeting_rooms: RetirementQueue<RoomKey>,
    pub(crate) retention: Reloadable<Retention>,
    pub(crate) room_policies: Reloadable<RoomPolicies>,
    pub(crate) channels: Channels,
    pub(crate) keys: Keys,
}

/// An ended record that stays for the retention time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Leftover {
    Nick(NickKey),
    Session(SessionId),
    Room(RoomKey),
}

impl StoreState {
    fn new(retention: Reloadable<Retention>, channels: Channels) -> Self {
        Self {
            leases: Leases::default(),
            nicks: Nicks::default(),
            sessions: Sessions::default(),
            rooms: Rooms::default(),
            inboxes: Inboxes::default(),
            seen: SeenMessages::default(),
            sanctions: SanctionTable::default(),
            announced: HashMap::new(),
            events: EventLog::default(),
            webhooks: WebhookLog::default(),
            leftovers: RetirementQueue::default(),
            quiet_rooms: RetirementQueue::default(),
            fleeting_rooms: RetirementQueue::default(),
            retention,
            room_policies: Reloadable::default(),
            channels,
            keys: Keys::new("parley"),
        }
    }

    pub(crate) fn events(&self) -> &EventLog {
        &self.events
    }

    /// Adds an event to the event log and, if a webhook wants it, to the log of webhooks. Twin: `log_event` of
    /// `registry/script/prelude.lua`.
    pub(crate) fn log_event(&mut self, kind: &'static str, fields: &impl Serialize) {
        let now = now();
        let data = self.events.add(now, kind, fields);
        if self.webhooks.wants(kind) {
            self.webhooks.add(kind, now, String::new(), data);
        }
    }

    /// Schedules the deletion of an ended record.
    pub(crate) fn retire(&mut self, leftover: Leftover) {
        self.leftovers.push(now(), leftover);
    }

    /// Deletes records whose retention time is over. Called by the beat, so it needs no timer.
    pub(crate) fn delete_expired(&mut self, now: u64) {
        let limit = now.saturating_sub(RETENTION_MS);
        while let Some(leftover) = self.leftovers.pop_before(limit) {
            match self.ended_at(&leftover) {
                Some(again) if again >= limit => self.leftovers.push(again, leftover),
                Some(_) => self.forget(&leftover),
                None => {}
            }
        }
        let quiet = (self.retention.get().quiet.as_millis() as u64).min(RETENTION_MS);
        let limit = now.saturating_sub(quiet);
        while let Some(room) = self.quiet_rooms.pop_before(limit) {
            match self.quiet_since(&room) {
                Some(again) if again >= limit => self.quiet_rooms.push(again, room),
                Some(_) => self.rooms.forget(&room),
                None => {}
            }
        }
        self.delete_fleeting(now);
    }

    /// Deletes the messages of ephemeral rooms in which nothing was said for their lifetime.
    fn delete_fleeting(&mut self, now: u64) {
        let limit = now.saturating_sub(EPHEMERAL_AGE.as_millis() as u64);
        while let Some(room) = self.fleeting_rooms.pop_before(limit) {
            let is_ephemeral = self.rules_of(&room).ephemeral;
            match self.rooms.get_mut(&room).filter(|_| is_ephemeral) {
                Some(state) if state.log.time >= limit => self.fleeting_rooms.push(state.log.time, room),
                Some(state) => {
                    state.log.clear();
                }
                None => {}
            }
        }
    }

    /// Returns the end of a record; `None` if it is in use again.
    fn ended_at(&self, leftover: &Leftover) -> Option<u64> {
        match leftover {
            Leftover::Nick(nick) => self.nicks.freed_at(nick),
            Leftover::Room(room) => self.rooms.emptied_at(room),
            Leftover::Session(session) => self.sessions.ended_at(session),
        }
    }

    fn forget(&mut self, leftover: &Leftover) {
        match leftover {
            Leftover::Nick(nick) => self.nicks.forget(nick),
            Leftover::Room(room) => self.rooms.forget(room),
            Leftover::Session(session) => self.forget_session(session),
        }
    }
}

/// Returns Unix milliseconds, for display and retention, never for ownership.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
