//! The messages that wait to be published, by room, and the choice of the next call.
//!
//! [`PublishQueues`] is pure: its caller passes the time, and judges each message before it goes. Rooms take turns of
//! one message, so a busy room leaves a place to each other one. Invariants: a room is in one call at a time, and its
//! messages keep their order. A room that made a call fail is apart for [`APART_FOR`]: it shares no call, so it spoils
//! only its own.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use presence::model::RoomKey;

use crate::backplane::redis::message::StoredMessage;

/// The time for which a room that made a call fail has calls of its own.
pub(super) const APART_FOR: Duration = Duration::from_secs(10);

/// An amount of messages and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::backplane::redis) struct QueueLoad {
    pub(in crate::backplane::redis) messages: usize,
    pub(in crate::backplane::redis) bytes: usize,
}

/// A message that waits. `W` is its sender, who waits for the outcome.
#[derive(Debug)]
pub(super) struct QueuedMessage<W> {
    pub(super) message: Arc<StoredMessage>,
    pub(super) queued_at: Instant,
    pub(super) waiter: W,
}

/// The messages of one room in a call.
#[derive(Debug)]
pub(super) struct RoomTurn<W> {
    pub(super) room: RoomKey,
    pub(super) messages: Vec<QueuedMessage<W>>,
}

/// The queue of a room is full.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QueueFull;

/// The queues of all rooms. A room has one while it has messages or is in a call.
#[derive(Debug)]
pub(super) struct PublishQueues<W> {
    rooms: HashMap<RoomKey, RoomQueue<W>>,
    /// The rooms with messages that are in no call, in the order of their turns.
    ready: VecDeque<RoomKey>,
    /// The end of the time in which a room is apart.
    apart: HashMap<RoomKey, Instant>,
}

#[derive(Debug)]
struct RoomQueue<W> {
    queued: VecDeque<QueuedMessage<W>>,
    bytes: usize,
}

/// The next message of a room for a call.
enum NextMessage<W> {
    Taken(QueuedMessage<W>),
    /// There is none.
    Empty,
    /// It does not fit.
    TooLarge,
}

impl<W> Default for PublishQueues<W> {
    fn default() -> Self {
        Self { rooms: HashMap::new(), ready: VecDeque::new(), apart: HashMap::new() }
    }
}

impl<W> PublishQueues<W> {
    /// Adds a message at the end of its room's queue.
    ///
    /// # Errors
    /// The queue is at its limit.
    pub(super) fn push(
        &mut self,
        room: &RoomKey,
        message: QueuedMessage<W>,
        limit: QueueLoad,
    ) -> Result<(), QueueFull> {
        let size = message.message.bytes();
        let Some(queue) = self.rooms.get_mut(room) else {
            if limit.messages == 0 || size > limit.bytes {
                return Err(QueueFull);
            }
            let queue = RoomQueue { queued: VecDeque::from([message]), bytes: size };
            self.rooms.insert(room.clone(), queue);
            self.ready.push_back(room.clone());
            return Ok(());
        };
        if queue.queued.len() >= limit.messages || queue.bytes + size > limit.bytes {
            return Err(QueueFull);
        }
        queue.bytes += size;
        queue.queued.push_back(message);
        Ok(())
    }

    /// Removes the messages of the next call; none if nothing is ready. `admit` takes each message before it goes, and
    /// may keep it back for good. A single message always fits. The rooms stay in the call until
    /// [`PublishQueues::end_turn`].
    pub(super) fn next_call(
        &mut self,
        limit: QueueLoad,
        now: Instant,
        mut admit: impl FnMut(QueuedMessage<W>) -> Option<QueuedMessage<W>>,
    ) -> Vec<RoomTurn<W>> {
        let (mut turns, mut load, mut passed) = (Vec::<RoomTurn<W>>::new(), QueueLoad::default(), Vec::new());
        while turns.len() < limit.messages
            && let Some(room) = self.ready.pop_front()
        {
            let is_apart = self.apart.get(&room).is_some_and(|until| *until > now);
            if is_apart && !turns.is_empty() {
                passed.push(room);
                continue;
            }
            match self.next_message(&room, limit, &mut load, &mut admit) {
                NextMessage::Taken(message) => turns.push(RoomTurn { room, messages: vec![message] }),
                NextMessage::Empty => {
                    self.rooms.remove(&room);
                    continue;
                }
                NextMessage::TooLarge => {
                    self.ready.push_front(room);
                    break;
                }
            }
            if is_apart {
                break;
            }
        }
        passed.into_iter().rev().for_each(|room| self.ready.push_front(room));

        let mut open: Vec<usize> = (0..turns.len()).collect();
        while !open.is_empty() {
            open.retain(|&place| {
                let turn = &mut turns[place];
                match self.next_message(&turn.room, limit, &mut load, &mut admit) {
                    NextMessage::Taken(message) => turn.messages.push(message),
                    NextMessage::Empty | NextMessage::TooLarge => return false,
                }
                true
            });
        }
        turns
    }

    /// Ends the turn of a room whose call is over. The messages in `again` were not done and go first in its next turn.
    /// `is_apart` if they made the call fail.
    pub(super) fn end_turn(&mut self, room: &RoomKey, again: Vec<QueuedMessage<W>>, is_apart: bool, now: Instant) {
        if is_apart {
            self.apart.retain(|_, until| *until > now);
            self.apart.insert(room.clone(), now + APART_FOR);
        }
        let Some(queue) = self.rooms.get_mut(room) else { return };
        for message in again.into_iter().rev() {
            queue.bytes += message.message.bytes();
            queue.queued.push_front(message);
        }
        if queue.queued.is_empty() {
            self.rooms.remove(room);
        } else {
            self.ready.push_back(room.clone());
        }
    }

    /// Returns true if no room has a message or a call.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    fn next_message(
        &mut self,
        room: &RoomKey,
        limit: QueueLoad,
        load: &mut QueueLoad,
        admit: &mut impl FnMut(QueuedMessage<W>) -> Option<QueuedMessage<W>>,
    ) -> NextMessage<W> {
        let Some(queue) = self.rooms.get_mut(room) else { return NextMessage::Empty };
        while let Some(next) = queue.queued.front() {
            let size = next.message.bytes();
            let fits = load.messages < limit.messages && load.bytes + size <= limit.bytes;
            if !fits && load.messages > 0 {
                return NextMessage::TooLarge;
            }
            let Some(next) = queue.queued.pop_front() else { break };
            queue.bytes -= size;
            if let Some(message) = admit(next) {
                *load = QueueLoad { messages: load.messages + 1, bytes: load.bytes + size };
                return NextMessage::Taken(message);
            }
        }
        NextMessage::Empty
    }
}

#[cfg(test)]
mod tests;
