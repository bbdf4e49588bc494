//! Streams in memory: rooms' messages, inboxes, and the idempotency keys of both.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::{RETENTION_MS, StoreState, now};
use crate::model::stream::{PageLimit, StreamEnd, StreamId};
use crate::model::{NickKey, Owner, Retention, RoomKey, SessionId};

/// Maximum number of messages trimmed by one call, unless the new message needs the space of more.
const TRIM_MESSAGES_MAX: usize = 256;
/// Maximum number of idempotency keys in a bucket.
pub(crate) const BUCKET_KEYS_MAX: usize = 1_000_000;
/// The span of a bucket of clients' keys. A key is stored for one to two spans.
const KEY_BUCKET_SPAN: Duration = Duration::from_secs(300);
/// The span of a bucket of message ids without a client's key: only the own gateway retries them, and at once.
const ID_BUCKET_SPAN: Duration = Duration::from_secs(30);

/// A message to append. `payload` is opaque to the store.
#[derive(Debug, Clone, Copy)]
pub struct Append<'a> {
    /// The sender's nick key, under which it is a member (or owns the nick).
    pub from: &'a NickKey,
    /// The sender's claim.
    pub owner: &'a Owner,
    /// True if the sender's token lets it moderate the room.
    pub moderates: bool,
    /// The client's idempotency key, unique per target and session.
    pub key: Option<&'a str>,
    /// False if the session may add no key now: then only a known key is answered.
    pub adds_key: bool,
    /// The message's id, remembered with the key or instead of it.
    pub msg_id: &'a str,
    /// The stored and published text.
    pub payload: &'a str,
}

/// The result of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The id of the first attempt.
    pub msg_id: String,
    /// The message's seq.
    pub seq: u64,
    /// Unix milliseconds.
    pub time: u64,
    /// True if the key was known.
    pub duplicate: bool,
    /// True if the receiver is online; a room always is.
    pub online: bool,
}

/// A refused append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendError {
    /// The sender's lease is not live.
    Fenced,
    /// The member record is missing or another owner's.
    NotInRoom,
    /// The sender is muted in the room.
    Muted {
        /// The time until the mute ends; `None` if it does not.
        retry_after: Option<Duration>,
    },
    /// The rules of the room do not let the sender send.
    NotAllowed,
    /// The slow mode of the room makes the sender wait.
    SlowMode {
        /// The time until the next message of the sender.
        retry_after: Duration,
    },
    /// No session can receive it: the nick was never claimed, or its last session is over for good.
    NoSuchUser,
    /// The bucket of idempotency keys, or the sender's share of it, is full until about then.
    Exhausted {
        /// The time until the bucket is empty.
        retry_after: Duration,
    },
}

/// One entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// The message's seq.
    pub seq: u64,
    /// Unix milliseconds.
    pub time: u64,
    /// The text as appended.
    pub payload: String,
}

/// A page of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StoredPage {
    /// The entries, oldest first.
    pub entries: Vec<StoredEntry>,
    /// True if the stream has more entries in the direction of reading.
    pub has_more: bool,
}

/// The limits of one stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamLimits {
    pub(crate) messages: usize,
    pub(crate) age: Duration,
    /// Payload bytes.
    pub(crate) bytes: usize,
}

impl StreamLimits {
    pub(crate) fn of_room(Retention { messages, age, bytes, .. }: Retention) -> Self {
        Self { messages, age, bytes }
    }

    pub(crate) fn of_inbox(Retention { inbox_messages, inbox_bytes, .. }: Retention) -> Self {
        Self { messages: inbox_messages, age: Duration::from_millis(RETENTION_MS), bytes: inbox_bytes }
    }
}

/// A bounded list of messages with rising seqs and times that never go back. Nothing is lost in memory, so the epoch
/// never ends.
#[derive(Debug)]
pub(crate) struct MemoryStream {
    pub(crate) epoch: String,
    pub(crate) entries: VecDeque<StoredEntry>,
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

    pub(crate) fn end(&self) -> StreamEnd {
        StreamEnd { epoch: self.epoch.clone(), seq: self.seq, forks: Vec::new() }
    }

    /// Returns the seq of the newest message.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// Appends a message and trims the oldest ones beyond the limits, never the new one. Returns its seq and time. A
    /// stream within its limits stays within them. The twin, which bounds bytes in steps, is
    /// `registry/messages/sizes.lua`.
    pub(crate) fn push(&mut self, payload: &str, now: u64, keep: StreamLimits) -> (u64, u64) {
        self.seq += 1;
        self.time = self.time.max(now);
        self.bytes += payload.len();
        self.entries.push_back(StoredEntry { seq: self.seq, time: self.time, payload: payload.to_owned() });
        let oldest_kept = now.saturating_sub(keep.age.as_millis() as u64);
        let (mut trimmed, mut freed) = (0, 0);
        while trimmed < TRIM_MESSAGES_MAX || freed < payload.len() {
            let crowded = self.entries.len() > keep.messages || self.bytes > keep.bytes;
            let surplus = |oldest: &mut StoredEntry| oldest.seq < self.seq && (crowded || oldest.time < oldest_kept);
            let Some(dropped) = self.entries.pop_front_if(surplus) else { break };
            self.bytes -= dropped.payload.len();
            (trimmed, freed) = (trimmed + 1, freed + dropped.payload.len());
        }
        (self.seq, self.time)
    }

    /// Deletes all messages, and returns their number. Their seqs are not used again.
    pub(crate) fn clear(&mut self) -> u64 {
        let count = self.entries.len() as u64;
        self.entries.clear();
        self.bytes = 0;
        count
    }

    /// Deletes the message with this seq. Returns false if there is none.
    pub(crate) fn delete(&mut self, seq: u64) -> bool {
        let found = self.entries.binary_search_by_key(&seq, |entry| entry.seq).ok();
        let deleted = found.and_then(|at| self.entries.remove(at));
        self.bytes -= deleted.as_ref().map_or(0, |entry| entry.payload.len());
        deleted.is_some()
    }

    /// Returns a page of the entries with these seqs, from the oldest or the newest one on. Same rule as `read_page` in
    /// the gateway's `backplane/lua/entries.lua`.
    pub(crate) fn page(&self, seqs: RangeInclusive<u64>, limit: PageLimit, newest: bool) -> StoredPage {
        let begin = self.entries.partition_point(|entry| entry.seq < *seqs.start());
        let end = self.entries.partition_point(|entry| entry.seq <= *seqs.end());
        if begin >= end {
            return StoredPage::default();
        }
        let range = begin..end;
        let mut bytes = 0;
        let mut fits = |number: usize, entry: &StoredEntry| {
            bytes += entry.payload.len();
            number == 0 || number < limit.messages && bytes <= limit.bytes
        };
        let in_range = self.entries.range(range.clone());
        let count = if newest {
            in_range.rev().enumerate().take_while(|(number, entry)| fits(*number, entry)).count()
        } else {
            in_range.enumerate().take_while(|(number, entry)| fits(*number, entry)).count()
        };
        let skipped = range.len() - count;
        let from = if newest { begin + skipped } else { begin };
        StoredPage { entries: self.entries.range(from..from + count).cloned().collect(), has_more: skipped > 0 }
    }
}

/// The inboxes of sessions.
#[derive(Debug, Default)]
pub(crate) struct Inboxes(pub(crate) HashMap<SessionId, MemoryStream>);

impl Inboxes {
    /// Returns the inbox of a session, created by its first use.
    pub(crate) fn of(&mut self, session: &SessionId) -> &mut MemoryStream {
        self.0.entry(session.clone()).or_default()
    }

    /// Returns the end of a session's inbox.
    pub(crate) fn end(&mut self, session: &SessionId) -> StreamEnd {
        self.of(session).end()
    }

    pub(crate) fn forget(&mut self, session: &SessionId) {
        self.0.remove(session);
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Idempotency keys in two buckets; the older one is dropped as a whole. A full bucket refuses new keys and never drops
/// one early.
///
/// A key is stored as a 128-bit fingerprint under random secrets, so clients cannot construct collisions.
#[derive(Debug)]
pub(crate) struct SeenKeys {
    pub(crate) secrets: [RandomState; 2],
    pub(crate) span: Duration,
    pub(crate) newer: HashMap<u128, SeenMessage>,
    pub(crate) older: HashMap<u128, SeenMessage>,
    pub(crate) since: Instant,
}

/// The messages that are remembered, so that a later attempt makes no second copy.
#[derive(Debug)]
pub(crate) struct SeenMessages {
    clients: SeenKeys,
    applications: SeenKeys,
    attempts: SeenKeys,
}

impl Default for SeenMessages {
    fn default() -> Self {
        Self {
            clients: SeenKeys::of_clients(),
            applications: SeenKeys::of_clients(),
            attempts: SeenKeys::of_attempts(),
        }
    }
}

impl SeenMessages {
    /// Returns the buckets of a message. Applications have buckets of their own.
    pub(crate) fn of(&mut self, message: &Append<'_>) -> &mut SeenKeys {
        match message.key {
            None => &mut self.attempts,
            Some(_) if message.owner.is_api() => &mut self.applications,
            Some(_) => &mut self.clients,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct SeenMessage {
    msg_id: Box<str>,
    seq: u64,
    time: u64,
}

impl SeenKeys {
    /// Creates the buckets of clients' keys.
    pub(crate) fn of_clients() -> Self {
        Self::remembering(KEY_BUCKET_SPAN)
    }

    /// Creates the buckets of message ids without a client's key.
    pub(crate) fn of_attempts() -> Self {
        Self::remembering(ID_BUCKET_SPAN)
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

    /// Returns the result of the first attempt, or `Ok(None)` if this is the first one and `adds_key` allows another.
    pub(crate) fn check(&mut self, fingerprint: u128, adds_key: bool) -> Result<Option<Appended>, AppendError> {
        let now = Instant::now();
        self.rotate(now);
        let seen = self.newer.get(&fingerprint).or_else(|| self.older.get(&fingerprint));
        if let Some(seen) = seen {
            let SeenMessage { msg_id, seq, time } = seen.clone();
            return Ok(Some(Appended { msg_id: msg_id.into(), seq, time, duplicate: true, online: true }));
        }
        if self.newer.len() >= BUCKET_KEYS_MAX || !adds_key {
            let age = now.saturating_duration_since(self.since);
            return Err(AppendError::Exhausted { retry_after: self.span.saturating_sub(age) });
        }
        Ok(None)
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

impl StoreState {
    pub(crate) fn append(&mut self, room: &RoomKey, message: Append<'_>) -> Result<Appended, AppendError> {
        let is_api = message.owner.is_api();
        if !is_api && !self.leases.serves(&message.owner.incarnation) {
            return Err(AppendError::Fenced);
        }
        if !is_api && self.rooms.member(room, message.from).is_none_or(|member| member.owner != *message.owner) {
            return Err(AppendError::NotInRoom);
        }
        let seen = self.seen.of(&message);
        let fingerprint = seen.fingerprint(&format!("#{room}"), &message);
        if let Some(first) = seen.check(fingerprint, message.adds_key)? {
            return Ok(first);
        }
        let slowed = if is_api { None } else { self.check_sender(room, message.from, message.moderates)? };
        let rules = self.rules_of(room);
        let seen = self.seen.of(&message);
        let state = self.rooms.get_mut(room).ok_or(AppendError::NotInRoom)?;
        let keep = StreamLimits::of_room(rules.history(self.retention.get()));
        let (seq, time) = state.log.push(message.payload, now(), keep);
        if self.webhooks.wants_room(room) {
            let at = format!("{} {seq} {}", state.log.epoch, state.name.as_str());
            self.webhooks.add("message", time, at, message.payload.to_owned());
        }
        let appended = seen.note(fingerprint, message.msg_id, (seq, time));
        let text = format!("M {} {seq} {time} {}\n{}", state.log.epoch, message.payload.len(), message.payload);
        self.channels.publish(&self.keys.room(room).channel(), text.as_bytes());
        if let Some(slowed) = slowed {
            self.note_sender(room, slowed);
        }
        if rules.ephemeral {
            self.fleeting_rooms.push(now(), room.clone());
        }
        Ok(appended)
    }

    pub(crate) fn append_direct(&mut self, to: &NickKey, message: Append<'_>) -> Result<Appended, AppendError> {
        let is_api = message.owner.is_api();
        if !is_api && !self.leases.serves(&message.owner.incarnation) {
            return Err(AppendError::Fenced);
        }
        if !is_api && self.nicks.owner(message.from) != Some(message.owner) {
            return Err(AppendError::NotInRoom);
        }
        let session = self.nicks.session(to).cloned();
        let owner = self.whereabouts(to);
        let seen = self.seen.of(&message);
        let fingerprint = seen.fingerprint(to.as_str(), &message);
        if let Some(first) = seen.check(fingerprint, message.adds_key)? {
            return Ok(Appended { online: owner.is_some(), ..first });
        }
        // Nothing reads the inbox of a session that is offline and cannot be resumed.
        let is_readable = |session: &SessionId| owner.is_some() || self.sessions.can_return(session);
        let session = session.filter(is_readable).ok_or(AppendError::NoSuchUser)?;
        let inbox = self.inboxes.of(&session);
        let (seq, time) = inbox.push(message.payload, now(), StreamLimits::of_inbox(self.retention.get()));
        let appended = seen.note(fingerprint, message.msg_id, (seq, time));
        if owner.is_none() && self.webhooks.wants("direct_offline") {
            let user = self.nicks.records.get(to).and_then(|record| record.user.as_ref());
            let user = user.map(ToString::to_string).unwrap_or_default();
            self.webhooks.add("direct_offline", time, user, message.payload.to_owned());
        }
        let text = format!("D {session} {} {seq} {time} {}\n{}", inbox.epoch, message.payload.len(), message.payload);
        if let Some(owner) = &owner {
            self.channels.publish(&self.keys.node(&owner.incarnation).channel(), text.as_bytes());
        }
        Ok(Appended { online: owner.is_some(), ..appended })
    }

    /// Returns the claim of the session that has a nick or had it last, if online. A renamed session is found by its
    /// new nick.
    pub(crate) fn whereabouts(&self, to: &NickKey) -> Option<Owner> {
        let session = self.nicks.session(to)?;
        let nick = self.sessions.nick(session).unwrap_or(to);
        let owner = self.live_owner(nick).filter(|owner| owner.session == *session);
        owner.filter(|_| !self.nicks.is_detached(nick)).cloned()
    }

    /// Returns a stream; an inbox is created by its first use. `None` for an unknown room.
    pub(crate) fn named(&mut self, name: &StreamId) -> Option<&MemoryStream> {
        match name {
            StreamId::Room(room) => self.rooms.get(room).map(|room| &room.log),
            StreamId::Inbox(session) => Some(self.inboxes.of(session)),
        }
    }

    pub(crate) fn end(&mut self, name: &StreamId) -> Option<StreamEnd> {
        self.named(name).map(MemoryStream::end)
    }
}
