//! Messages in memory: the logs of rooms, the inboxes of sessions, and the idempotency keys in front of both.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use super::{RETENTION, State, now};
use crate::model::stream::{StreamEnd, StreamId};
use crate::model::{NickKey, Owner, Retention, RoomKey, SessionId};

/// Bytes of payload that a room keeps, whatever their number.
const LOG_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of payload that an inbox keeps.
const INBOX_BYTES: usize = 256 * 1024;
/// Most messages that one call takes away.
const TRIM_STEP: usize = 256;
/// Idempotency keys that are remembered at most.
pub(crate) const SEEN_KEYS: usize = 1_000_000;
/// A client's key is remembered for one to two of these.
const KEYS_SEEN_FOR: Duration = Duration::from_secs(300);
/// The id of a message without one is remembered for one to two of these: only its own gateway repeats it, at once.
const IDS_SEEN_FOR: Duration = Duration::from_secs(30);

/// A message to append. `payload` is opaque to the store.
#[derive(Debug, Clone, Copy)]
pub struct Append<'a> {
    /// Who says it: the key under which the sender is a member (or owns the nick).
    pub from: &'a NickKey,
    /// The sender's claim.
    pub owner: &'a Owner,
    /// The client's idempotency key, unique per target and session.
    pub key: Option<&'a str>,
    /// The message's id, remembered with the key or instead of it.
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
    /// Whether somebody hears it now: members do, and a receiver who is there.
    pub online: bool,
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

/// What one log keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) messages: usize,
    pub(crate) age: Duration,
    /// Of payload.
    pub(crate) bytes: usize,
}

impl Bounds {
    pub(crate) fn of_room(Retention { messages, age, .. }: Retention) -> Self {
        Self { messages, age, bytes: LOG_BYTES }
    }

    pub(crate) fn of_inbox(Retention { inbox_messages, .. }: Retention) -> Self {
        Self { messages: inbox_messages, age: Duration::from_millis(RETENTION), bytes: INBOX_BYTES }
    }
}

/// A numbered, bounded list of messages; the numbers have no gaps and the times never go back. Nothing is lost here, so
/// its epoch never ends.
#[derive(Debug)]
pub(crate) struct MemoryStream {
    pub(crate) epoch: String,
    pub(crate) entries: VecDeque<LogEntry>,
    pub(crate) bytes: usize,
    pub(crate) seq: u64,
    pub(crate) time: u64,
}

impl Default for MemoryStream {
    fn default() -> Self {
        let epoch = uuid::Uuid::new_v4().simple().to_string();
        Self { epoch, entries: VecDeque::new(), bytes: 0, seq: 0, time: 0 }
    }
}

impl MemoryStream {
    pub(crate) fn epoch(&self) -> &str {
        &self.epoch
    }

    pub(crate) fn head(&self) -> StreamEnd {
        StreamEnd { epoch: self.epoch.clone(), top: self.seq, forks: Vec::new() }
    }

    /// The number of the newest message.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// Adds a message and drops the oldest beyond the bounds, never the new one. Returns its number and time.
    pub(crate) fn push(&mut self, payload: &str, now: u64, keep: Bounds) -> (u64, u64) {
        self.seq += 1;
        self.time = self.time.max(now);
        self.bytes += payload.len();
        self.entries.push_back(LogEntry { seq: self.seq, time: self.time, payload: payload.to_owned() });
        let oldest_kept = now.saturating_sub(keep.age.as_millis() as u64);
        for _ in 0..TRIM_STEP {
            let crowded = self.entries.len() > keep.messages || self.bytes > keep.bytes;
            let surplus = |oldest: &mut LogEntry| oldest.seq < self.seq && (crowded || oldest.time < oldest_kept);
            let Some(dropped) = self.entries.pop_front_if(surplus) else { break };
            self.bytes -= dropped.payload.len();
        }
        (self.seq, self.time)
    }

    /// Numbers are dense, so a stretch is found by counting.
    pub(crate) fn stretch(&self, from: u64, to: u64, limit: usize, newest: bool) -> Vec<LogEntry> {
        let first = self.seq + 1 - self.entries.len() as u64;
        let begin = from.max(first);
        let end = to.min(self.seq);
        if begin > end {
            return Vec::new();
        }
        let count = limit.min((end - begin) as usize + 1);
        let skip = if newest { end + 1 - count as u64 } else { begin } - first;
        self.entries.iter().skip(skip as usize).take(count).cloned().collect()
    }
}

/// The inboxes of sessions.
#[derive(Debug, Default)]
pub(crate) struct Inboxes(pub(crate) HashMap<SessionId, MemoryStream>);

impl Inboxes {
    /// That of a session begins when it is first asked for.
    pub(crate) fn of(&mut self, session: &SessionId) -> &mut MemoryStream {
        self.0.entry(session.clone()).or_default()
    }

    /// Where the inbox of a session ends.
    pub(crate) fn head(&mut self, session: &SessionId) -> StreamEnd {
        self.of(session).head()
    }

    pub(crate) fn forget(&mut self, session: &SessionId) {
        self.0.remove(session);
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Idempotency keys in two buckets, the older of which is dropped as a whole: full means refused, never forgotten early.
///
/// A key is kept as a 128-bit fingerprint under random secrets, which nobody can make collide and chance will not.
#[derive(Debug)]
pub(crate) struct SeenKeys {
    pub(crate) secrets: [RandomState; 2],
    pub(crate) span: Duration,
    pub(crate) newer: HashMap<u128, SeenMessage>,
    pub(crate) older: HashMap<u128, SeenMessage>,
    pub(crate) since: Instant,
}

#[derive(Debug, Clone)]
pub(crate) struct SeenMessage {
    msg_id: Box<str>,
    seq: u64,
    time: u64,
}

impl SeenKeys {
    /// Keys of clients.
    pub(crate) fn of_clients() -> Self {
        Self::remembering(KEYS_SEEN_FOR)
    }

    /// Ids of messages that have no such key.
    pub(crate) fn of_attempts() -> Self {
        Self::remembering(IDS_SEEN_FOR)
    }

    pub(crate) fn remembering(span: Duration) -> Self {
        Self {
            secrets: [RandomState::new(), RandomState::new()],
            span,
            newer: HashMap::new(),
            older: HashMap::new(),
            since: Instant::now(),
        }
    }

    pub(crate) fn fingerprint(&self, target: &str, message: &Append<'_>) -> u128 {
        let scope = (target, &message.owner.session, message.key.unwrap_or(message.msg_id));
        let [high, low] = [0, 1].map(|half: usize| u128::from(self.secrets[half].hash_one(scope)));
        high << 64 | low
    }

    /// What became of the first attempt, or `Ok(None)` when there is room for this one.
    pub(crate) fn check(&mut self, fingerprint: u128) -> Result<Option<Appended>, AppendError> {
        self.rotate(Instant::now());
        let seen = self.newer.get(&fingerprint).or_else(|| self.older.get(&fingerprint));
        if let Some(seen) = seen {
            let SeenMessage { msg_id, seq, time } = seen.clone();
            return Ok(Some(Appended { msg_id: msg_id.into(), seq, time, duplicate: true, online: true }));
        }
        if self.newer.len() + self.older.len() >= SEEN_KEYS { Err(AppendError::Overloaded) } else { Ok(None) }
    }

    pub(crate) fn note(&mut self, fingerprint: u128, msg_id: &str, (seq, time): (u64, u64)) -> Appended {
        self.newer.insert(fingerprint, SeenMessage { msg_id: msg_id.into(), seq, time });
        Appended { msg_id: msg_id.to_owned(), seq, time, duplicate: false, online: true }
    }

    pub(crate) fn rotate(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.since);
        if age < self.span {
            return;
        }
        self.older = if age < 2 * self.span { std::mem::take(&mut self.newer) } else { HashMap::new() };
        self.newer.clear();
        self.since = now;
    }
}

impl State {
    pub(crate) fn append(&mut self, room: &RoomKey, message: Append<'_>) -> Result<Appended, AppendError> {
        if !self.leases.serves(&message.owner.incarnation) {
            return Err(AppendError::Fenced);
        }
        if self.rooms.member(room, message.from).is_none_or(|member| member.owner != *message.owner) {
            return Err(AppendError::NotInRoom);
        }
        let seen = if message.key.is_some() { &mut self.keys_seen } else { &mut self.ids_seen };
        let fingerprint = seen.fingerprint(&format!("#{room}"), &message);
        if let Some(first) = seen.check(fingerprint)? {
            return Ok(first);
        }
        let state = self.rooms.get_mut(room).ok_or(AppendError::NotInRoom)?;
        let (seq, time) = state.log.push(message.payload, now(), Bounds::of_room(self.retention.get()));
        let appended = seen.note(fingerprint, message.msg_id, (seq, time));
        let text = format!("M {} {seq} {time} {}\n{}", state.log.epoch, message.payload.len(), message.payload);
        self.channels.publish(&self.keys.room(room).channel(), text.as_bytes());
        Ok(appended)
    }

    pub(crate) fn append_direct(&mut self, to: &NickKey, message: Append<'_>) -> Result<Appended, AppendError> {
        if !self.leases.serves(&message.owner.incarnation) {
            return Err(AppendError::Fenced);
        }
        if self.nicks.owner(message.from) != Some(message.owner) {
            return Err(AppendError::NotInRoom);
        }
        let session = self.nicks.session(to).cloned();
        let owner = self.whereabouts(to);
        let seen = if message.key.is_some() { &mut self.keys_seen } else { &mut self.ids_seen };
        let fingerprint = seen.fingerprint(to.as_str(), &message);
        if let Some(first) = seen.check(fingerprint)? {
            return Ok(Appended { online: owner.is_some(), ..first });
        }
        let session = session.ok_or(AppendError::NoSuchUser)?;
        let inbox = self.inboxes.of(&session);
        let (seq, time) = inbox.push(message.payload, now(), Bounds::of_inbox(self.retention.get()));
        let appended = seen.note(fingerprint, message.msg_id, (seq, time));
        let text = format!("D {session} {} {seq} {time} {}\n{}", inbox.epoch, message.payload.len(), message.payload);
        if let Some(owner) = &owner {
            self.channels.publish(&self.keys.node(&owner.incarnation).channel(), text.as_bytes());
        }
        Ok(Appended { online: owner.is_some(), ..appended })
    }

    /// See [`super::Store::whereabouts`]. A session that goes by another nick now is reached under that one.
    pub(crate) fn whereabouts(&self, to: &NickKey) -> Option<Owner> {
        let session = self.nicks.session(to)?;
        let nick = self.sessions.nick(session).unwrap_or(to);
        let owner = self.live_owner(nick).filter(|owner| owner.session == *session);
        owner.filter(|_| !self.nicks.is_detached(nick)).cloned()
    }

    /// A log; that of a session begins when it is first asked for. `None` when there is no such room.
    pub(crate) fn named(&mut self, name: &StreamId) -> Option<&MemoryStream> {
        match name {
            StreamId::Room(room) => self.rooms.get(room).map(|room| &room.log),
            StreamId::Inbox(session) => Some(self.inboxes.of(session)),
        }
    }

    pub(crate) fn head(&mut self, name: &StreamId) -> Option<StreamEnd> {
        self.named(name).map(MemoryStream::head)
    }

    pub(crate) fn log(&mut self, name: &StreamId, from: u64, to: u64, limit: usize, newest: bool) -> Vec<LogEntry> {
        self.named(name).map(|log| log.stretch(from, to, limit, newest)).unwrap_or_default()
    }
}
