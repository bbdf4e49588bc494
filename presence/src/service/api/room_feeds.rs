//! [`RoomFeeds`]: one feed of messages for each room that event streams follow, which its streams share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::feed::{EventFeed, FeedInner, FeedLimits};
use super::feed_log::FeedLog;
use crate::model::RoomKey;
use crate::registry::Registry;

/// Maximum number of rooms that streams follow: it bounds the reads.
const ROOMS_MAX: usize = 256;

/// The feeds of rooms whose messages streams follow. Cheap to clone: clones share them.
#[derive(Debug, Clone)]
pub(super) struct RoomFeeds {
    registry: Registry,
    limits: FeedLimits,
    feeds: Arc<Mutex<HashMap<RoomKey, Weak<FeedInner>>>>,
}

impl RoomFeeds {
    /// Creates the feeds, which share these limits with another one.
    pub(super) fn new(registry: Registry, limits: FeedLimits) -> Self {
        Self { registry, limits, feeds: Arc::default() }
    }

    /// Returns the feed of a room; `None` while streams follow as many others as they may.
    pub(super) fn of(&self, room: &RoomKey) -> Option<EventFeed> {
        // Held without an await; every step leaves the map consistent.
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        feeds.retain(|_, feed| feed.strong_count() > 0);
        if let Some(feed) = feeds.get(room).and_then(Weak::upgrade) {
            return Some(EventFeed::from(feed));
        }
        if feeds.len() >= ROOMS_MAX {
            return None;
        }
        let feed = EventFeed::of(self.registry.clone(), FeedLog::Messages(room.clone()), self.limits.clone());
        feeds.insert(room.clone(), feed.downgrade());
        Some(feed)
    }
}
