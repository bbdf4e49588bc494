//! The messages that wait to be published, by target, and the choice of the next call.
//!
//! [`PublishQueues`] is pure: its caller passes the time, and judges each message before it goes. Targets take turns of
//! one message, so a busy room leaves a place to each other one. Invariants: a target is in one call at a time, and its
//! messages keep their order. A target that made a call fail is apart for [`APART_FOR`]: it shares no call, so it
//! spoils only its own.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backplane::redis::message::{PublishTarget, StoredMessage};

/// The time for which a target that made a call fail has calls of its own.
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

/// The messages of one target in a call.
#[derive(Debug)]
pub(super) struct TargetTurn<W> {
    pub(super) target: PublishTarget,
    pub(super) messages: Vec<QueuedMessage<W>>,
}

/// The queue of a target is full.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QueueFull;

/// The queues of all targets. A target has one while it has messages or is in a call.
#[derive(Debug)]
pub(super) struct PublishQueues<W> {
    targets: HashMap<PublishTarget, TargetQueue<W>>,
    /// The targets with messages that are in no call, in the order of their turns.
    ready: VecDeque<PublishTarget>,
    /// The end of the time in which a target is apart.
    apart: HashMap<PublishTarget, Instant>,
}

#[derive(Debug)]
struct TargetQueue<W> {
    queued: VecDeque<QueuedMessage<W>>,
    bytes: usize,
}

/// The next message of a target for a call.
enum NextMessage<W> {
    Taken(QueuedMessage<W>),
    /// There is none.
    Empty,
    /// It does not fit.
    TooLarge,
}

impl<W> Default for PublishQueues<W> {
    fn default() -> Self {
        Self { targets: HashMap::new(), ready: VecDeque::new(), apart: HashMap::new() }
    }
}

impl<W> PublishQueues<W> {
    /// Adds a message at the end of its target's queue.
    ///
    /// # Errors
    /// The queue is at its limit.
    pub(super) fn push(
        &mut self,
        target: &PublishTarget,
        message: QueuedMessage<W>,
        limit: QueueLoad,
    ) -> Result<(), QueueFull> {
        let size = message.message.bytes();
        let Some(queue) = self.targets.get_mut(target) else {
            if limit.messages == 0 || size > limit.bytes {
                return Err(QueueFull);
            }
            let queue = TargetQueue { queued: VecDeque::from([message]), bytes: size };
            self.targets.insert(target.clone(), queue);
            self.ready.push_back(target.clone());
            return Ok(());
        };
        if queue.queued.len() >= limit.messages || queue.bytes + size > limit.bytes {
            return Err(QueueFull);
        }
        queue.bytes += size;
        queue.queued.push_back(message);
        Ok(())
    }

    /// Returns the load of a target's queue.
    pub(super) fn load(&self, target: &PublishTarget) -> QueueLoad {
        let load = |queue: &TargetQueue<W>| QueueLoad { messages: queue.queued.len(), bytes: queue.bytes };
        self.targets.get(target).map(load).unwrap_or_default()
    }

    /// Removes the messages of the next call; none if nothing is ready. `admit` takes each message before it goes, and
    /// may keep it back for good. A single message always fits. The targets stay in the call until
    /// [`PublishQueues::end_turn`].
    pub(super) fn next_call(
        &mut self,
        limit: QueueLoad,
        now: Instant,
        mut admit: impl FnMut(QueuedMessage<W>) -> Option<QueuedMessage<W>>,
    ) -> Vec<TargetTurn<W>> {
        let (mut turns, mut load, mut passed) = (Vec::<TargetTurn<W>>::new(), QueueLoad::default(), Vec::new());
        while turns.len() < limit.messages
            && let Some(target) = self.ready.pop_front()
        {
            let is_apart = self.apart.get(&target).is_some_and(|until| *until > now);
            if is_apart && !turns.is_empty() {
                passed.push(target);
                continue;
            }
            match self.next_message(&target, limit, &mut load, &mut admit) {
                NextMessage::Taken(message) => turns.push(TargetTurn { target, messages: vec![message] }),
                NextMessage::Empty => {
                    self.targets.remove(&target);
                    continue;
                }
                NextMessage::TooLarge => {
                    self.ready.push_front(target);
                    break;
                }
            }
            if is_apart {
                break;
            }
        }
        passed.into_iter().rev().for_each(|target| self.ready.push_front(target));

        let mut open: Vec<usize> = (0..turns.len()).collect();
        while !open.is_empty() {
            open.retain(|&place| {
                let turn = &mut turns[place];
                match self.next_message(&turn.target, limit, &mut load, &mut admit) {
                    NextMessage::Taken(message) => turn.messages.push(message),
                    NextMessage::Empty | NextMessage::TooLarge => return false,
                }
                true
            });
        }
        turns
    }

    /// Ends the turn of a target whose call is over. The messages in `again` were not done and go first in its next
    /// turn. `is_apart` if they made the call fail.
    pub(super) fn end_turn(
        &mut self,
        target: &PublishTarget,
        again: Vec<QueuedMessage<W>>,
        is_apart: bool,
        now: Instant,
    ) {
        if is_apart {
            self.apart.retain(|_, until| *until > now);
            self.apart.insert(target.clone(), now + APART_FOR);
        }
        let Some(queue) = self.targets.get_mut(target) else { return };
        for message in again.into_iter().rev() {
            queue.bytes += message.message.bytes();
            queue.queued.push_front(message);
        }
        if queue.queued.is_empty() {
            self.targets.remove(target);
        } else {
            self.ready.push_back(target.clone());
        }
    }

    /// Lets the messages that wait behind a call of their target wait from now on.
    pub(super) fn restart_waits(&mut self, target: &PublishTarget, now: Instant) {
        let Some(queue) = self.targets.get_mut(target) else { return };
        queue.queued.iter_mut().for_each(|queued| queued.queued_at = now);
    }

    /// Returns true if no target has a message or a call.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    fn next_message(
        &mut self,
        target: &PublishTarget,
        limit: QueueLoad,
        load: &mut QueueLoad,
        admit: &mut impl FnMut(QueuedMessage<W>) -> Option<QueuedMessage<W>>,
    ) -> NextMessage<W> {
        let Some(queue) = self.targets.get_mut(target) else { return NextMessage::Empty };
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
