//! The event log, read once for everybody: one tail task, shared by all event streams of this process.
//!
//! The first subscriber starts the tail and the last one to leave ends it. What a resuming subscriber missed is read
//! for it alone, page by page; then it hangs on the shared tail. A subscriber that falls behind the bounded ring, or
//! whose tail lost the store, is ended: it resumes by the id it has, and nobody waits for it.
//! Invariant: a subscription yields events with growing ids, none twice, none left out between its first and its last.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::CancellationToken;

use crate::registry::{Registry, RegistryError, RegistryEvent};

/// Events that a subscriber may be behind the tail.
const RING: usize = 1024;
/// Most events of one read.
const BATCH: usize = 256;
/// Subscribers that may read what they missed at a time: each needs a connection of its own.
const REPLAYS: usize = 8;

/// A position in the event log. Orders as the log does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct EventId(u64, u64);

impl EventId {
    /// Reads `<milliseconds>-<number>`, or the milliseconds alone.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (ms, number) = text.split_once('-').unwrap_or((text, "0"));
        Some(Self(ms.parse().ok()?, number.parse().ok()?))
    }
}

impl std::fmt::Display for EventId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// Where subscriptions come from. Cheap to clone; clones share the tail.
#[derive(Debug, Clone)]
pub(super) struct Feed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    registry: Registry,
    stop: CancellationToken,
    replays: Semaphore,
    /// The running tail. A std mutex: held for a few instructions, never across an await.
    tail: Mutex<Option<broadcast::Sender<Arc<RegistryEvent>>>>,
}

impl Feed {
    /// A feed without a tail. `stop` ends the tail, and with it every subscription.
    pub(super) fn new(registry: Registry, stop: CancellationToken) -> Self {
        Self(Arc::new(Shared { registry, stop, replays: Semaphore::new(REPLAYS), tail: Mutex::new(None) }))
    }

    /// Subscribes to everything after `last`, or to what comes from now on.
    ///
    /// # Errors
    /// The store cannot be read. Dropping the future leaves nothing behind.
    pub(super) async fn subscribe(&self, last: Option<EventId>) -> Result<Subscription, RegistryError> {
        let start = self.ends().await?.newest;
        let live = self.attach(start);
        // Read again behind the subscription: all that is newer than this comes over it, whoever started the tail.
        let ends = self.ends().await?;
        let (position, gap) = match last {
            None => (ends.newest, false),
            Some(last) if ends.complete_from <= last && last <= ends.newest => (last, false),
            // Trimmed away, or of a log that the store has lost: what is left of it, from its beginning.
            Some(_) => (EventId::default(), true),
        };
        Ok(Subscription { feed: self.clone(), live, position, until: ends.newest, pages: VecDeque::new(), gap })
    }

    async fn ends(&self) -> Result<Ends, RegistryError> {
        let ends = self.0.registry.event_log_ends().await?;
        let read = |id: &str| EventId::parse(id).ok_or_else(|| RegistryError::Unknown(format!("event id {id:?}")));
        Ok(Ends { complete_from: read(&ends.complete_from)?, newest: read(&ends.newest)? })
    }

    fn attach(&self, start: EventId) -> broadcast::Receiver<Arc<RegistryEvent>> {
        let mut tail = self.0.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tail) = &*tail {
            return tail.subscribe();
        }
        let (sender, receiver) = broadcast::channel(RING);
        *tail = Some(sender.clone());
        tokio::spawn(self.clone().follow(sender, start));
        receiver
    }

    /// The tail: reads the log and hands every event to whoever is subscribed.
    async fn follow(self, subscribers: broadcast::Sender<Arc<RegistryEvent>>, start: EventId) {
        let mut position = start.to_string();
        loop {
            let read = tokio::select! {
                biased;
                () = self.0.stop.cancelled() => return self.detach(),
                () = subscribers.closed() => {
                    if self.detach_if_alone(&subscribers) {
                        return;
                    }
                    continue;
                }
                read = self.0.registry.events(Some(&position), BATCH) => read,
            };
            let (events, next) = match read {
                Ok(read) => read,
                Err(error) => {
                    tracing::warn!(%error, "event log not readable, event streams end");
                    return self.detach();
                }
            };
            position = next.unwrap_or(position);
            for event in events {
                // Nobody listening is noticed above.
                let _ = subscribers.send(Arc::new(event));
            }
        }
    }

    fn detach(&self) {
        *self.0.tail.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Under the lock that [`Feed::attach`] takes, so nobody subscribes to a tail that is about to end.
    fn detach_if_alone(&self, subscribers: &broadcast::Sender<Arc<RegistryEvent>>) -> bool {
        let mut tail = self.0.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let alone = subscribers.receiver_count() == 0;
        if alone {
            *tail = None;
        }
        alone
    }

    #[cfg(test)]
    pub(super) fn has_tail(&self) -> bool {
        self.0.tail.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    async fn missed(&self, position: EventId) -> Result<Vec<RegistryEvent>, RegistryError> {
        let Ok(_permit) = self.0.replays.acquire().await else { return Ok(Vec::new()) };
        let (events, _) = self.0.registry.events(Some(&position.to_string()), BATCH).await?;
        Ok(events)
    }
}

#[derive(Debug, Clone, Copy)]
struct Ends {
    complete_from: EventId,
    newest: EventId,
}

/// What a subscription gives.
#[derive(Debug, Clone)]
pub(super) enum Delivery {
    /// The next event.
    Event(Arc<RegistryEvent>),
    /// The subscriber was too slow; this many events wait in the log behind the last one it got. The last delivery.
    Lagged(u64),
}

/// One reader of the event log.
#[derive(Debug)]
pub(super) struct Subscription {
    feed: Feed,
    live: broadcast::Receiver<Arc<RegistryEvent>>,
    /// The id of the last event given out.
    position: EventId,
    /// The newest event of the log when we hung on to the tail: up to here we read for ourselves.
    until: EventId,
    /// What we read and have not given out.
    pages: VecDeque<Arc<RegistryEvent>>,
    gap: bool,
}

impl Subscription {
    /// Where it stands: resuming from here misses nothing.
    pub(super) fn position(&self) -> EventId {
        self.position
    }

    /// Whether events between the asked position and the first delivery are gone.
    pub(super) fn gap(&self) -> bool {
        self.gap
    }

    /// The next event; `None` when the feed stopped or the store failed. Safe to drop: no event is lost.
    pub(super) async fn next(&mut self) -> Option<Delivery> {
        loop {
            if let Some(event) = self.pages.pop_front() {
                if self.advance(&event) {
                    return Some(Delivery::Event(event));
                }
                continue;
            }
            if self.position < self.until {
                match self.feed.missed(self.position).await {
                    Ok(events) if events.is_empty() => self.until = self.position,
                    Ok(events) => self.pages.extend(events.into_iter().map(Arc::new)),
                    Err(error) => {
                        tracing::warn!(%error, "missed events not readable, an event stream ends");
                        return None;
                    }
                }
                continue;
            }
            match self.live.recv().await {
                Ok(event) if self.advance(&event) => return Some(Delivery::Event(event)),
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => return Some(Delivery::Lagged(missed)),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Whether the event is news; then it is the new position.
    fn advance(&mut self, event: &RegistryEvent) -> bool {
        let news = EventId::parse(&event.id).filter(|id| *id > self.position);
        self.position = news.unwrap_or(self.position);
        news.is_some()
    }
}
