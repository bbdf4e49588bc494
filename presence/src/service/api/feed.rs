//! [`EventFeed`]: a log of events, read by one tail task that all its streams of this process share. The logs are in
//! `feed_log.rs`.
//!
//! The first subscriber starts the tail, and the end of the last one stops it. A resuming subscriber first replays its
//! missed events, page by page, and then follows the tail. One that falls behind the bounded ring replays in the same
//! way, so other subscribers never wait for a slow one. A subscription ends if the store fails;
//! [`EventFeed::resubscribe`] then waits for the store. Invariant: a subscription yields events with growing ids, none
//! twice; events that the log no longer has are a [`FeedItem::Gap`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, broadcast};
use tokio::time::timeout;

pub(super) use super::feed_log::FeedPosition;
use super::feed_log::{FeedLog, LogEnds};
use super::read_shares::{ReadKind, ReadShares};
use crate::host::client_address::ClientAddress;
use crate::registry::{Registry, RegistryError, RegistryEvent};

/// Maximum number of pages that replays read at a time: twice the share of one client. Each needs its own connection.
const REPLAY_PAGES_MAX: usize = 4;
/// Pause before an attempt to subscribe again.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(500);
/// Maximum wait for the first event of the log. A refusal comes earlier, and an empty log has none.
const PROBE_MAX: Duration = Duration::from_secs(1);

/// A subscriber and its beginning.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamStart {
    /// The client, which has a share of the reads.
    pub(super) client: ClientAddress,
    /// The event before the first one; without it, the stream has new events only.
    pub(super) last: Option<FeedPosition>,
}

/// Source of subscriptions. Cheap to clone; clones share the tail.
#[derive(Debug, Clone)]
pub(super) struct EventFeed(Arc<FeedInner>);

/// The places of pages that are replayed: of each client, and of all. Cheap to clone: clones share them.
#[derive(Debug, Clone)]
pub(super) struct FeedLimits {
    shares: ReadShares,
    replays: Arc<Semaphore>,
}

impl Default for FeedLimits {
    fn default() -> Self {
        Self { shares: ReadShares::default(), replays: Arc::new(Semaphore::new(REPLAY_PAGES_MAX)) }
    }
}

#[derive(Debug)]
pub(super) struct FeedInner {
    registry: Registry,
    log: FeedLog,
    limits: FeedLimits,
    /// Subscribers that lost the store return one by one, so an outage ends with one attempt at a time.
    returning: tokio::sync::Mutex<()>,
    /// True after a failed read, so an outage is logged at its start and its end, not with each subscriber.
    is_log_away: AtomicBool,
    /// The newest read of the ends of the log, and the time when it was sent; locked during a read.
    ends: tokio::sync::Mutex<Option<(Instant, Result<LogEnds, RegistryError>)>>,
    /// The running tail. A std mutex: held for a few instructions, never across an await.
    tail: Mutex<Option<broadcast::Sender<Arc<RegistryEvent>>>>,
}

impl EventFeed {
    /// Creates a feed of the event log, without a tail.
    #[cfg(test)]
    pub(super) fn new(registry: Registry) -> Self {
        Self::of(registry, FeedLog::Changes, FeedLimits::default())
    }

    /// Creates a feed of a log, without a tail.
    pub(super) fn of(registry: Registry, log: FeedLog, limits: FeedLimits) -> Self {
        Self(Arc::new(FeedInner {
            registry,
            log,
            limits,
            returning: tokio::sync::Mutex::default(),
            is_log_away: AtomicBool::default(),
            ends: tokio::sync::Mutex::default(),
            tail: Mutex::new(None),
        }))
    }

    /// Returns a reference that does not keep the feed.
    pub(super) fn downgrade(&self) -> Weak<FeedInner> {
        Arc::downgrade(&self.0)
    }

    /// Subscribes to all events after a start.
    ///
    /// # Errors
    /// The store cannot be read. Dropping the future leaves nothing behind.
    pub(super) async fn subscribe(&self, start: StreamStart) -> Result<EventSubscription, RegistryError> {
        let live = match self.attach_running() {
            Some(live) => live,
            None => self.attach(self.ends().await?.newest),
        };
        // Read after attaching: all newer events arrive over the tail, even if another subscriber started it.
        let ends = self.ends().await?;
        let (position, gap) = match start.last {
            None => (ends.newest, false),
            Some(last) if ends.have_all_after(last) => (last, false),
            // Trimmed, or from a log that the store has lost: replay from the beginning of the present log.
            Some(_) => (FeedPosition::default(), true),
        };
        Ok(EventSubscription {
            feed: self.clone(),
            client: start.client,
            live,
            position,
            until: ends.newest,
            pages: VecDeque::new(),
            follows_gap: gap,
        })
    }

    /// Waits until the store can be read, and subscribes as [`EventFeed::subscribe`] does.
    pub(super) async fn resubscribe(&self, start: StreamStart) -> EventSubscription {
        tokio::time::sleep(ATTEMPT_PAUSE).await;
        let _turn = self.0.returning.lock().await;
        loop {
            if self.is_readable().await
                && let Ok(subscription) = self.subscribe(start).await
            {
                if self.0.is_log_away.swap(false, Ordering::Relaxed) {
                    tracing::info!("event log restored");
                }
                return subscription;
            }
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        }
    }

    /// Returns true if events can be read. The ends of the log prove less: Redis may refuse only the read of events. A
    /// running tail reads them already.
    async fn is_readable(&self) -> bool {
        if self.has_tail() {
            return true;
        }
        let start = FeedPosition::default();
        timeout(PROBE_MAX, self.0.log.read(&self.0.registry, start)).await.map_or(true, |read| read.is_ok())
    }

    fn report_failure(&self, error: &RegistryError) {
        if !self.0.is_log_away.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "event log not read, event streams interrupted");
        }
    }

    /// Reads the ends of the log. Subscribers that wait for a read under way share the next one, so any number of them
    /// costs one read at a time.
    async fn ends(&self) -> Result<LogEnds, RegistryError> {
        let asked = Instant::now();
        let mut newest = self.0.ends.lock().await;
        match &*newest {
            Some((sent, ends)) if *sent >= asked => ends.clone(),
            _ => {
                let sent = Instant::now();
                let ends = self.0.log.ends(&self.0.registry).await;
                *newest = Some((sent, ends.clone()));
                ends
            }
        }
    }

    fn attach_running(&self) -> Option<broadcast::Receiver<Arc<RegistryEvent>>> {
        self.lock_tail().as_ref().map(broadcast::Sender::subscribe)
    }

    fn attach(&self, start: FeedPosition) -> broadcast::Receiver<Arc<RegistryEvent>> {
        let mut tail = self.lock_tail();
        if let Some(tail) = &*tail {
            return tail.subscribe();
        }
        let (sender, receiver) = broadcast::channel(self.0.log.ring());
        *tail = Some(sender.clone());
        tokio::spawn(self.clone().follow(sender, start));
        receiver
    }

    /// Runs the tail: reads the log and sends every event to all subscribers.
    async fn follow(self, subscribers: broadcast::Sender<Arc<RegistryEvent>>, start: FeedPosition) {
        let mut position = start;
        loop {
            let read = tokio::select! {
                () = subscribers.closed() => {
                    if self.detach_if_alone(&subscribers) {
                        return;
                    }
                    continue;
                }
                read = self.page(position) => read,
            };
            let events = match read {
                Ok(read) => read,
                Err(error) => {
                    self.report_failure(&error);
                    *self.lock_tail() = None;
                    return;
                }
            };
            for event in events {
                position = FeedPosition::parse(&event.id).unwrap_or(position);
                // The branch `closed` above handles the case without subscribers.
                let _ = subscribers.send(Arc::new(event));
            }
        }
    }

    /// Ends the tail if it has no subscribers. The lock of [`EventFeed::attach`] excludes a new subscriber meanwhile.
    fn detach_if_alone(&self, subscribers: &broadcast::Sender<Arc<RegistryEvent>>) -> bool {
        let mut tail = self.lock_tail();
        let alone = subscribers.receiver_count() == 0;
        if alone {
            *tail = None;
        }
        alone
    }

    pub(super) fn has_tail(&self) -> bool {
        self.lock_tail().is_some()
    }

    fn lock_tail(&self) -> MutexGuard<'_, Option<broadcast::Sender<Arc<RegistryEvent>>>> {
        self.0.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the next page of the tail. Fails if some of its events were trimmed before they were read.
    async fn page(&self, position: FeedPosition) -> Result<Vec<RegistryEvent>, RegistryError> {
        let events = self.0.log.read(&self.0.registry, position).await?;
        // Only a tail that is far behind meets the trimmed end, and its pages are full.
        if events.len() == self.0.log.batch() && !self.ends().await?.have_all_after(position) {
            return Err(RegistryError::Unknown("the event log was trimmed before it was read".to_owned()));
        }
        Ok(events)
    }
}

impl From<Arc<FeedInner>> for EventFeed {
    fn from(shared: Arc<FeedInner>) -> Self {
        Self(shared)
    }
}

/// Item of a subscription.
#[derive(Debug, Clone)]
pub(super) enum FeedItem {
    /// The next event.
    Event(Arc<RegistryEvent>),
    /// Events before the next one are trimmed or lost.
    Gap,
}

/// One reader of the event log.
#[derive(Debug)]
pub(super) struct EventSubscription {
    feed: EventFeed,
    client: ClientAddress,
    live: broadcast::Receiver<Arc<RegistryEvent>>,
    /// Id of the last delivered event.
    position: FeedPosition,
    /// End of the replay: the newest event when the subscription attached to the tail, or when it fell behind it.
    until: FeedPosition,
    /// Replayed events that are not delivered yet.
    pages: VecDeque<Arc<RegistryEvent>>,
    /// True after a gap, until the next event.
    follows_gap: bool,
}

impl EventSubscription {
    /// Returns the position from which a client can resume without a loss.
    pub(super) fn position(&self) -> FeedPosition {
        self.position
    }

    /// Returns the start of a subscription that continues this one.
    pub(super) fn restart(&self) -> StreamStart {
        StreamStart { client: self.client, last: Some(self.position) }
    }

    /// Returns true if the next event follows a gap: those before it are trimmed or lost.
    pub(super) fn follows_gap(&self) -> bool {
        self.follows_gap
    }

    /// Returns the feed that it reads from.
    pub(super) fn feed(&self) -> &EventFeed {
        &self.feed
    }

    /// Waits for the next event; `None` after the store failed. Dropping the future loses no event.
    pub(super) async fn next(&mut self) -> Option<FeedItem> {
        loop {
            if let Some(event) = self.pages.pop_front() {
                if self.advance(&event) {
                    return Some(FeedItem::Event(event));
                }
                continue;
            }
            if self.position < self.until {
                match self.missed().await {
                    Ok(Some(events)) if events.is_empty() => self.until = self.position,
                    Ok(Some(events)) => self.pages.extend(events.into_iter().map(Arc::new)),
                    Ok(None) => {
                        (self.position, self.follows_gap) = (FeedPosition::default(), true);
                        return Some(FeedItem::Gap);
                    }
                    Err(error) => {
                        self.feed.report_failure(&error);
                        return None;
                    }
                }
                continue;
            }
            match self.live.recv().await {
                Ok(event) if self.advance(&event) => return Some(FeedItem::Event(event)),
                Ok(_) => {}
                // Read now, the end is at or after every event that the ring has dropped.
                Err(RecvError::Lagged(_)) => match self.feed.ends().await {
                    Ok(ends) => self.until = ends.newest,
                    Err(error) => {
                        self.feed.report_failure(&error);
                        return None;
                    }
                },
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Reads the next page of a replay, in a place of its client; `None` if some of its events are trimmed or lost. The
    /// first page after a gap continues nothing.
    async fn missed(&self) -> Result<Option<Vec<RegistryEvent>>, RegistryError> {
        let (feed, position) = (&self.feed.0, self.position);
        let _own_place = feed.limits.shares.turn(ReadKind::EventPage, self.client).await;
        let _place = feed.limits.replays.acquire().await;
        let events = feed.log.read(&feed.registry, position).await?;
        let is_complete = self.follows_gap || self.feed.ends().await?.have_all_after(position);
        Ok(is_complete.then_some(events))
    }

    /// Moves the position to the event, if it is newer. Returns true if it was.
    fn advance(&mut self, event: &RegistryEvent) -> bool {
        let news = FeedPosition::parse(&event.id).filter(|id| *id > self.position);
        if let Some(id) = news {
            (self.position, self.follows_gap) = (id, false);
        }
        news.is_some()
    }
}
