//! The subscribers of one stream, and which of its events are new to each.
//!
//! [`SubscriberMap`] holds a value for each session. A [`Recipient`] is one subscription with the seq that it has, a
//! [`Sequenced`] an event with the seqs that it covers, a [`JoinBuffer`] the newest events for one join. Invariant:
//! after [`StreamSubscriber::leave`] nothing of the stream is written. No order among subscribers; no lock and no I/O.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use presence::model::SessionId;

use crate::outbound::outbox::{Broadcast, Outbox};
use crate::outbound::policy::SLOW_READER;
use crate::wire::Event;

/// Bytes counted for each event in addition to its body and names.
pub(super) const EVENT_OVERHEAD_BYTES: usize = 256;

/// Maximum number of announcements that a join buffers; the oldest are dropped.
const ANNOUNCEMENTS_MAX: usize = 64;

/// A connection's subscription to one stream.
#[derive(Debug)]
pub(super) struct StreamSubscriber {
    pub(super) outbox: Outbox,
    pub(super) is_subscribed: AtomicBool,
}

impl StreamSubscriber {
    pub(super) fn new(outbox: Outbox) -> Arc<Self> {
        Arc::new(Self { outbox, is_subscribed: AtomicBool::new(true) })
    }

    /// Ends the subscription, also for a fan-out that is under way.
    pub(super) fn leave(&self) {
        self.is_subscribed.store(false, Ordering::Release);
    }
}

/// A subscriber and the seq up to which it has the stream.
#[derive(Debug, Clone)]
pub(super) struct Recipient {
    pub(super) subscriber: Arc<StreamSubscriber>,
    /// The last seq that it has.
    pub(super) after: u64,
}

/// An event and the seqs that it covers.
#[derive(Debug, Clone)]
pub(super) struct Sequenced {
    pub(super) from: u64,
    pub(super) to: u64,
    /// Its estimated size in bytes.
    pub(super) size: usize,
    pub(super) is_message: bool,
    pub(super) event: Arc<Broadcast>,
}

impl Sequenced {
    /// An event without a seq: new to every recipient.
    pub(super) fn unnumbered(event: Arc<Broadcast>) -> Self {
        Self { from: u64::MAX, to: u64::MAX, size: 0, is_message: false, event }
    }

    /// The part that is new to a recipient that has everything up to `after`.
    pub(super) fn part_after(&self, after: u64, display: &str) -> Option<Arc<Broadcast>> {
        if self.to <= after {
            return None;
        }
        if self.from > after {
            return Some(Arc::clone(&self.event));
        }
        // Only a gap covers several seqs; the recipient has the first of them.
        Some(gap_event(display, after + 1, self.to))
    }

    pub(super) fn is_new_message(&self, after: u64) -> bool {
        self.is_message && self.to > after
    }

    pub(super) fn is_unnumbered(&self) -> bool {
        self.from == u64::MAX
    }
}

pub(super) fn gap_event(display: &str, from_seq: u64, to_seq: u64) -> Arc<Broadcast> {
    Broadcast::new(Event::Gap { to: display.to_owned(), from_seq, to_seq })
}

/// The newest consecutive events of a stream, oldest first.
#[derive(Debug, Default)]
pub(super) struct JoinBuffer {
    events: VecDeque<Sequenced>,
    bytes: usize,
    announcements: VecDeque<Arc<Broadcast>>,
}

impl JoinBuffer {
    pub(super) fn push(&mut self, event: Sequenced) {
        self.bytes += event.size;
        self.events.push_back(event);
        while self.bytes > SLOW_READER.join_buffer_bytes_max
            && let Some(oldest) = self.events.pop_front()
        {
            self.bytes -= oldest.size;
        }
    }

    /// Adds an announcement, which belongs to no position.
    pub(super) fn push_announcement(&mut self, event: Arc<Broadcast>) {
        self.announcements.truncate(ANNOUNCEMENTS_MAX - 1);
        self.announcements.push_front(event);
    }

    /// The buffered announcements, oldest first.
    pub(super) fn announcements(&self) -> impl Iterator<Item = &Arc<Broadcast>> {
        self.announcements.iter().rev()
    }

    /// Removes the events of the stream.
    pub(super) fn forget_events(&mut self) {
        self.events.clear();
        self.bytes = 0;
    }

    /// Returns true if every event from this seq on is buffered.
    pub(super) fn covers(&self, seq: u64) -> bool {
        self.events.front().is_some_and(|oldest| oldest.from <= seq)
    }

    /// The parts that are new after this seq, oldest first.
    pub(super) fn parts_after(&self, after: u64, display: &str) -> impl Iterator<Item = Arc<Broadcast>> {
        self.events.iter().filter_map(move |event| event.part_after(after, display))
    }
}

/// A map from session to `T`. Most streams are inboxes with one session, and a single entry needs no allocation.
#[derive(Debug)]
pub(super) enum SubscriberMap<T> {
    Single(Option<(SessionId, T)>),
    Many(HashMap<SessionId, T>),
}

impl<T> Default for SubscriberMap<T> {
    fn default() -> Self {
        Self::Single(None)
    }
}

impl<T> SubscriberMap<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.values().next().is_none()
    }

    pub(super) fn get(&self, session: &SessionId) -> Option<&T> {
        match self {
            Self::Single(single) => single.as_ref().filter(|(known, _)| known == session).map(|(_, value)| value),
            Self::Many(many) => many.get(session),
        }
    }

    /// Inserts or replaces the session's value.
    pub(super) fn insert(&mut self, session: &SessionId, value: T) {
        let entry = (session.clone(), value);
        match self {
            Self::Single(single) => match single.take_if(|(known, _)| known != session) {
                None => *single = Some(entry),
                Some(other) => *self = Self::Many(HashMap::from([other, entry])),
            },
            Self::Many(many) => _ = many.insert(entry.0, entry.1),
        }
    }

    pub(super) fn remove(&mut self, session: &SessionId) -> Option<T> {
        match self {
            Self::Single(single) => single.take_if(|(known, _)| known == session).map(|(_, value)| value),
            Self::Many(many) => many.remove(session),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&SessionId, &T)> {
        let (single, many) = match self {
            Self::Single(single) => (single.as_ref(), None),
            Self::Many(many) => (None, Some(many)),
        };
        single.into_iter().map(|(session, value)| (session, value)).chain(many.into_iter().flatten())
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.iter().map(|(_, value)| value)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let (single, many) = match self {
            Self::Single(single) => (single.as_mut(), None),
            Self::Many(many) => (None, Some(many)),
        };
        single.into_iter().map(|(_, value)| value).chain(many.into_iter().flat_map(HashMap::values_mut))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn subscriber_map_behaves_like_a_map(
            steps in prop::collection::vec((any::<bool>(), 0..4_u8, any::<u8>()), 0..40),
        ) {
            let (mut subscribers, mut model) = (SubscriberMap::default(), BTreeMap::new());
            for (is_insert, session, value) in steps {
                let session = SessionId::from_store(&session.to_string());
                match is_insert {
                    true => {
                        subscribers.insert(&session, value);
                        model.insert(session.clone(), value);
                    }
                    false => prop_assert_eq!(subscribers.remove(&session), model.remove(&session)),
                }
                prop_assert_eq!(subscribers.get(&session), model.get(&session));
                prop_assert_eq!(subscribers.is_empty(), model.is_empty());
                let entries: BTreeMap<_, _> = subscribers.iter().collect();
                prop_assert_eq!(entries, model.iter().collect::<BTreeMap<_, _>>());
                subscribers.values_mut().for_each(|value| *value ^= 1);
                model.values_mut().for_each(|value| *value ^= 1);
            }
        }
    }
}
