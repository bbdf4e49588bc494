//! Events that wait between the session and the application.
//!
//! Memory is bounded: a full feed of a room asks for a pause of its stream, and the server delivers the rest once the
//! feed is empty. A feed that is not vital drops its oldest event instead.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::events::{Announcement, DirectEvent, RoomEvent, State};

/// Maximum number of waiting events.
pub(crate) const FEED_EVENTS_MAX: usize = 1_000;

/// An event of a feed.
pub(crate) trait FeedEvent: Debug + Send + Unpin {
    /// Returns the seq that is not handled before this event is.
    fn seq(&self) -> Option<u64>;

    /// Returns true for an event that a full feed must not drop.
    fn is_vital(&self) -> bool;
}

impl FeedEvent for RoomEvent {
    fn seq(&self) -> Option<u64> {
        match self {
            Self::Message(message) => message.seq,
            Self::Gap { from_seq, .. } => Some(*from_seq),
            Self::Typing { .. } | Self::Members(_) | Self::Rewind { .. } => None,
        }
    }

    fn is_vital(&self) -> bool {
        !matches!(self, Self::Typing { .. } | Self::Members(_))
    }
}

impl FeedEvent for DirectEvent {
    fn seq(&self) -> Option<u64> {
        match self {
            Self::Message(message) => message.seq,
            Self::Gap { from_seq, .. } => Some(*from_seq),
            Self::Typing { .. } => None,
        }
    }

    fn is_vital(&self) -> bool {
        !matches!(self, Self::Typing { .. })
    }
}

impl FeedEvent for State {
    fn seq(&self) -> Option<u64> {
        None
    }

    fn is_vital(&self) -> bool {
        true
    }
}

impl FeedEvent for Announcement {
    fn seq(&self) -> Option<u64> {
        None
    }

    fn is_vital(&self) -> bool {
        true
    }
}

/// The name of a joined room.
impl FeedEvent for String {
    fn seq(&self) -> Option<u64> {
        None
    }

    fn is_vital(&self) -> bool {
        true
    }
}

/// The reaction of a feed that is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// Asks for a pause, also while no stream is open.
    Pause,
    /// Asks for a pause while a stream is open, and otherwise drops the oldest event.
    PauseIfOpen,
    DropOldest,
}

/// Consequences of taking an event.
#[derive(Debug, Default)]
pub(crate) struct TakeEffects {
    /// An event counts as handled.
    pub(crate) is_released: bool,
    /// The paused stream may continue.
    pub(crate) is_relieved: bool,
}

/// A queue of events.
#[derive(Debug)]
pub(crate) struct Feed<T> {
    when_full: WhenFull,
    queue: Mutex<FeedQueue<T>>,
}

#[derive(Debug)]
struct FeedQueue<T> {
    events: VecDeque<T>,
    /// Seq of the event that the application handles.
    in_hand: Option<u64>,
    /// Number of the newest stream, which alone takes events; 0 before the first.
    newest_stream: u64,
    is_open: bool,
    is_paused: bool,
    is_closed: bool,
    waker: Option<Waker>,
}

impl<T: FeedEvent> Feed<T> {
    pub(crate) fn new(when_full: WhenFull) -> Arc<Self> {
        let queue = FeedQueue {
            events: VecDeque::new(),
            in_hand: None,
            newest_stream: 0,
            is_open: false,
            is_paused: false,
            is_closed: false,
            waker: None,
        };
        Arc::new(Self { when_full, queue: Mutex::new(queue) })
    }

    /// Adds an event. Returns true if the stream has to pause.
    pub(crate) fn push(&self, event: T) -> bool {
        let mut queue = self.lock();
        let pauses = match self.when_full {
            WhenFull::Pause => true,
            WhenFull::PauseIfOpen => queue.is_open,
            WhenFull::DropOldest => false,
        };
        if queue.events.len() >= FEED_EVENTS_MAX {
            if pauses && !event.is_vital() {
                return false;
            }
            if !pauses {
                queue.events.pop_front();
            }
        }
        queue.events.push_back(event);
        queue.wake();
        pauses && queue.events.len() >= FEED_EVENTS_MAX && !std::mem::replace(&mut queue.is_paused, true)
    }

    /// Ends the stream once it has taken the waiting events.
    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        queue.is_closed = true;
        queue.wake();
    }

    /// Takes events again after the end of a session.
    pub(crate) fn reopen(&self) {
        self.lock().is_closed = false;
    }

    /// Returns true while the stream has to pause.
    pub(crate) fn is_paused(&self) -> bool {
        self.lock().is_paused
    }

    /// Returns the last seq up to `seq` that the application has handled. Without a stream so far, a feed that drops
    /// events counts them as handled.
    pub(crate) fn handled(&self, seq: u64) -> u64 {
        let queue = self.lock();
        if self.when_full != WhenFull::Pause && queue.newest_stream == 0 {
            return seq;
        }
        let waiting = queue.events.iter().filter_map(FeedEvent::seq).chain(queue.in_hand);
        waiting.min().map_or(seq, |first| first.saturating_sub(1).min(seq))
    }

    /// Counts the event in hand as handled.
    pub(crate) fn release(&self) {
        self.lock().in_hand = None;
    }

    /// Takes the next event for a stream.
    pub(crate) fn poll(&self, stream: u64, context: &Context<'_>) -> (Poll<Option<T>>, TakeEffects) {
        let mut queue = self.lock();
        if queue.newest_stream != stream {
            return (Poll::Ready(None), TakeEffects::default());
        }
        let is_released = queue.in_hand.take().is_some();
        let event = queue.events.pop_front();
        queue.in_hand = event.as_ref().and_then(FeedEvent::seq);
        let is_relieved = queue.events.is_empty() && std::mem::take(&mut queue.is_paused);
        let poll = match event {
            None if !queue.is_closed => {
                queue.waker = Some(context.waker().clone());
                Poll::Pending
            }
            event => Poll::Ready(event),
        };
        (poll, TakeEffects { is_released, is_relieved })
    }
}

impl<T> Feed<T> {
    fn lock(&self) -> MutexGuard<'_, FeedQueue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a stream, which ends the former. Returns its number.
    pub(crate) fn open(&self) -> u64 {
        let mut queue = self.lock();
        queue.newest_stream += 1;
        queue.is_open = true;
        queue.in_hand = None;
        queue.wake();
        queue.newest_stream
    }

    /// Ends a stream. The event in hand counts as handled.
    pub(crate) fn leave(&self, stream: u64) -> TakeEffects {
        let mut queue = self.lock();
        if queue.newest_stream != stream {
            return TakeEffects::default();
        }
        queue.is_open = false;
        let is_released = queue.in_hand.take().is_some();
        let is_relieved = self.when_full == WhenFull::PauseIfOpen && std::mem::take(&mut queue.is_paused);
        TakeEffects { is_released, is_relieved }
    }
}

impl<T> FeedQueue<T> {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker_ref;

    use super::*;
    use crate::events::Message;

    fn message(seq: u64) -> DirectEvent {
        let (id, to, from) = (seq.to_string(), "ann".to_owned(), "bob".to_owned());
        let seq = Some(seq);
        DirectEvent::Message(Message {
            id,
            to,
            from,
            from_user: None,
            from_api: false,
            seq,
            time: 0,
            body: 0.into(),
            own: false,
            repeated: false,
        })
    }

    fn take(feed: &Feed<DirectEvent>, stream: u64) -> (Poll<Option<u64>>, TakeEffects) {
        let (event, effects) = feed.poll(stream, &Context::from_waker(noop_waker_ref()));
        (event.map(|event| event.and_then(|event| event.seq())), effects)
    }

    #[test]
    fn full_feed_pauses_until_it_is_empty() {
        let feed = Feed::new(WhenFull::Pause);
        let stream = feed.open();
        let pauses = (1..=1_001).filter(|seq| feed.push(message(*seq)));
        assert_eq!(pauses.collect::<Vec<_>>(), [1_000], "once");
        assert!(!feed.push(DirectEvent::Typing { from: "bob".to_owned() }));
        for seq in 1..=1_001 {
            let (event, effects) = take(&feed, stream);
            assert_eq!((event, effects.is_relieved), (Poll::Ready(Some(seq)), seq == 1_001));
        }
        assert_eq!(take(&feed, stream).0, Poll::Pending, "the typing is dropped");
    }

    #[test]
    fn unopened_direct_feed_keeps_its_newest_events() {
        let feed = Feed::new(WhenFull::PauseIfOpen);
        assert!(!(1..=1_500).any(|seq| feed.push(message(seq))));
        assert_eq!(feed.handled(1_500), 1_500, "nothing waits for it");
        let stream = feed.open();
        assert_eq!(take(&feed, stream).0, Poll::Ready(Some(501)));
        assert!(feed.push(message(1_501)), "an open one pauses");
        assert!(feed.leave(stream).is_relieved, "until it is closed");
    }

    #[test]
    fn event_is_handled_when_the_next_is_requested() {
        let feed = Feed::new(WhenFull::Pause);
        let stream = feed.open();
        (5..=7).for_each(|seq| assert!(!feed.push(message(seq))));
        assert_eq!(feed.handled(7), 4);
        assert!(take(&feed, stream).0.is_ready());
        assert_eq!(feed.handled(7), 4, "in hand");
        assert!(take(&feed, stream).1.is_released);
        assert_eq!(feed.handled(7), 5);
        assert!(feed.leave(stream).is_released);
        assert_eq!(feed.handled(7), 6);
    }

    #[test]
    fn newer_stream_ends_the_former() {
        let feed = Feed::new(WhenFull::Pause);
        let (former, newer) = (feed.open(), feed.open());
        feed.push(message(1));
        assert_eq!(take(&feed, former).0, Poll::Ready(None));
        assert_eq!(take(&feed, newer).0, Poll::Ready(Some(1)));
        feed.close();
        assert_eq!(take(&feed, newer).0, Poll::Ready(None));
    }
}
