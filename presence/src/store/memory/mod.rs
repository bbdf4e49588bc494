//! The whole shared state of a cluster in one process: what the Redis scripts do, as methods under one lock.
//!
//! Serves the `Memory` arms of registry and backplane: the embedded default (one node, nothing installed) and tests
//! that run several nodes in one process on one [`Store`]. Channels are synchronous callbacks. Nothing here outlives the
//! process, and nothing here touches a socket.
//!
//! What goes over channels is the same text as in Redis (decoded by the gateway's backplane):
//! room channel: any number of `M <epoch> <seq> <time> <len>\n<payload>` and `P <version> <len>\n<delta JSON>`;
//! gateway channel: `E <counter>`, `K <session>`, `T <session> <fence>`,
//! `D <session> <epoch> <seq> <time> <len>\n<payload>`.

mod channels;
mod events;
mod leases;
mod nicks;
mod rooms;
mod sessions;
mod streams;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::host::reloadable::Reloadable;
use crate::model::keys::Keys;
use crate::model::stream::{StreamEnd, StreamId};
use crate::model::{NickKey, Owner, Retention, RoomKey, RoomName, SessionId};

use self::channels::Channels;
pub use self::channels::{Listener, Subscription};
use self::events::EventLog;
pub(crate) use self::leases::{LeaseRecord, Leases};
pub(crate) use self::nicks::{FreedFor, NickRecord, Nicks};
pub(crate) use self::rooms::{MemberRecord, RoomState, Rooms};
pub(crate) use self::sessions::Sessions;
pub(crate) use self::streams::MemoryStream;
pub use self::streams::{Append, AppendError, Appended, LogEntry};
use self::streams::{Inboxes, SeenKeys};

/// Freed nicks, ended sessions and empty rooms are remembered this long, in milliseconds.
const RETENTION: u64 = 72 * 3600 * 1000;

/// The state of a cluster, in memory. Cheap to clone: clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    state: Arc<Mutex<State>>,
    channels: Channels,
}

impl Default for Store {
    fn default() -> Self {
        Self::keeping(Reloadable::default())
    }
}

impl Store {
    /// An empty store that keeps logs within `retention`.
    #[must_use]
    pub fn keeping(retention: Reloadable<Retention>) -> Self {
        let channels = Channels::default();
        Self { state: Arc::new(Mutex::new(State::new(retention, channels.clone()))), channels }
    }

    /// Hears a channel (a name made by [`Keys`] with prefix `parley`) until the subscription is dropped.
    pub fn listen(&self, channel: &str, listener: Listener) -> Subscription {
        self.channels.listen(channel, listener)
    }

    /// PUBLISH into a room: the message gets its number, is kept in the room's log and goes to everybody who listens.
    ///
    /// # Errors
    /// `Fenced`, `NotInRoom` or `Overloaded`; nothing was done then.
    pub fn append(&self, room: &RoomName, message: Append<'_>) -> Result<Appended, AppendError> {
        self.lock().append(room.key(), message)
    }

    /// DIRECT to a nick: the message goes into the inbox of the session that owns it or had it last, and to that session's
    /// gateway if it is there.
    ///
    /// # Errors
    /// `Fenced`, `NotInRoom` when the sender does not own its nick, `NoSuchUser` or `Overloaded`.
    pub fn append_direct(&self, to: &NickKey, message: Append<'_>) -> Result<Appended, AppendError> {
        self.lock().append_direct(to, message)
    }

    /// The claim of the session that has a nick or had it last, if that session is there.
    #[must_use]
    pub fn whereabouts(&self, nick: &NickKey) -> Option<Owner> {
        self.lock().whereabouts(nick)
    }

    /// Says something on a channel to those who listen now. Nothing is kept.
    pub fn tell(&self, channel: &str, text: &str) {
        // Under the lock, as everything that is told: so all hear everything in one order.
        self.lock().channels.publish(channel, text.as_bytes());
    }

    /// The log entries with `from <= seq <= to`, oldest first, at most `limit`; from the newest end when `newest` is set.
    #[must_use]
    pub fn log(&self, log: &StreamId, from: u64, to: u64, limit: usize, newest: bool) -> Vec<LogEntry> {
        self.lock().log(log, from, to, limit, newest)
    }

    /// Where a log ends; `None` when there is no such room.
    #[must_use]
    pub fn head(&self, log: &StreamId) -> Option<StreamEnd> {
        self.lock().head(log)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Listeners are the only foreign code that runs while it is held, after every change they are told of.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that the Redis keys of a partition hold. Each part has its file, with the changes that begin there.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) leases: Leases,
    pub(crate) nicks: Nicks,
    pub(crate) sessions: Sessions,
    pub(crate) rooms: Rooms,
    pub(crate) inboxes: Inboxes,
    pub(crate) keys_seen: SeenKeys,
    pub(crate) ids_seen: SeenKeys,
    pub(crate) events: EventLog,
    pub(crate) leftovers: VecDeque<(u64, Leftover)>,
    pub(crate) retention: Reloadable<Retention>,
    pub(crate) channels: Channels,
    pub(crate) keys: Keys,
}

/// What is remembered for a while after it ended.
#[derive(Debug)]
pub(crate) enum Leftover {
    Nick(NickKey),
    Session(SessionId),
    Room(RoomKey),
}

impl State {
    fn new(retention: Reloadable<Retention>, channels: Channels) -> Self {
        Self {
            leases: Leases::default(),
            nicks: Nicks::default(),
            sessions: Sessions::default(),
            rooms: Rooms::default(),
            inboxes: Inboxes::default(),
            keys_seen: SeenKeys::of_clients(),
            ids_seen: SeenKeys::of_attempts(),
            events: EventLog::default(),
            leftovers: VecDeque::new(),
            retention,
            channels,
            keys: Keys::new("parley"),
        }
    }

    pub(crate) fn events(&self) -> &EventLog {
        &self.events
    }

    /// Notes that something ended, to be forgotten later if it has not begun again.
    pub(crate) fn retire(&mut self, leftover: Leftover) {
        self.leftovers.push_back((now(), leftover));
    }

    /// Forgets what ended long enough ago. Called by the beat: no timer of its own, and a few entries at a time.
    pub(crate) fn forget(&mut self, now: u64) {
        while self.leftovers.front().is_some_and(|(ended, _)| now.saturating_sub(*ended) > RETENTION) {
            match self.leftovers.pop_front() {
                Some((ended, Leftover::Nick(nick))) => self.nicks.forget(&nick, ended),
                Some((ended, Leftover::Room(room))) => self.rooms.forget(&room, ended),
                Some((ended, Leftover::Session(session))) => self.forget_session(&session, ended),
                None => {}
            }
        }
    }
}

/// Unix milliseconds: for display and retention, never for ownership.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
