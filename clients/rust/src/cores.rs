//! The state of rooms and direct conversations: the engine updates it, and the application reads it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::events::{DirectEvent, Message, RoomEvent};
use crate::feed::{Feed, WhenFull};
use crate::machine::{MemberMap, apply_change};
use crate::reading::ReadMark;

/// Locks a value. A panic elsewhere leaves no value half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The state of a room that the engine updates.
#[derive(Debug)]
pub(crate) struct RoomCore {
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) feed: Arc<Feed<RoomEvent>>,
    pub(crate) view: Mutex<RoomView>,
}

#[derive(Debug)]
pub(crate) struct RoomView {
    pub(crate) mark: ReadMark,
    pub(crate) members: MemberMap,
    pub(crate) recent: Vec<Message>,
    /// Seq after which this client receives messages.
    pub(crate) start: u64,
}

impl RoomCore {
    /// Returns a room whose messages arrive after `seq`.
    pub(crate) fn new(key: String, name: String, seq: u64, stored_read: Option<u64>) -> Arc<Self> {
        let mark = ReadMark::new(seq, stored_read);
        let view = RoomView { mark, members: MemberMap::new(), recent: Vec::new(), start: seq };
        Arc::new(Self { key, name, feed: Feed::new(WhenFull::Pause), view: Mutex::new(view) })
    }

    /// Applies an event and queues it. Returns true if the stream has to pause.
    pub(crate) fn deliver(&self, event: RoomEvent) -> bool {
        let mut view = lock(&self.view);
        match &event {
            RoomEvent::Message(message) => view.mark.count(message),
            RoomEvent::Gap { to_seq, .. } => view.mark.seq = *to_seq,
            RoomEvent::Rewind { seq } => {
                view.mark.rewind(*seq);
                view.start = view.start.min(*seq);
                view.recent.retain(|message| message.seq <= Some(*seq));
            }
            RoomEvent::Members(change) => apply_change(&mut view.members, change),
            RoomEvent::Typing { .. } => {}
        }
        drop(view);
        self.feed.push(event)
    }

    pub(crate) fn replace_members(&self, members: MemberMap) {
        lock(&self.view).members = members;
    }
}

/// The state of a conversation that the engine updates.
#[derive(Debug)]
pub(crate) struct DirectCore {
    pub(crate) nick: String,
    pub(crate) feed: Arc<Feed<DirectEvent>>,
    pub(crate) mark: Mutex<ReadMark>,
}

impl DirectCore {
    pub(crate) fn new(nick: String, stored_read: Option<u64>) -> Arc<Self> {
        let seq = stored_read.unwrap_or(0);
        Arc::new(Self {
            nick,
            feed: Feed::new(WhenFull::PauseIfOpen),
            mark: Mutex::new(ReadMark::new(seq, stored_read)),
        })
    }

    /// Counts an event and queues it. Returns true if the inbox has to pause.
    pub(crate) fn deliver(&self, event: DirectEvent) -> bool {
        if let DirectEvent::Message(message) = &event {
            lock(&self.mark).count(message);
        }
        self.feed.push(event)
    }

    /// Forgets the messages after `seq`, which the server lost.
    pub(crate) fn rewind(&self, seq: u64) {
        lock(&self.mark).rewind(seq);
    }
}
