//! Replay: brings a client that enters a stream to the position of the hub.
//!
//! Pages are read from the stream and sent at the pace of the reader, until the hub can continue from the client's
//! position. The hub buffers what is published meanwhile, within a bound; the rest is in the stream. So no message is
//! lost or delivered twice between replay and live delivery. Trimmed messages become a `gap`, positions of an ended
//! epoch an `epoch` or `rewound`.

use presence::model::SessionId;
use presence::model::codes::CloseCode;
use presence::model::stream::{PageLimit, StreamEnd};

use crate::backplane::ReplayPage;
use crate::hub::{FeedJoin, JoinProgress};
use crate::outbound::Outbox;
use crate::outbound::outbox::Broadcast;
use crate::outbound::policy::SLOW_READER;
use crate::wire::Event;

use super::retry::pause;
use super::services::Services;
use super::stream_entry::StreamEntry;

/// The size of one page. Its bytes are held while the client reads them, as its outbox is.
const PAGE: PageLimit = PageLimit { messages: 200, bytes: SLOW_READER.replay_page_bytes_max };
/// Consecutive reads without progress before the connection is closed, for the client to resume.
const READS_MAX: u32 = 10;

/// The position of the client in the stream.
struct ReplayCursor<'a> {
    outbox: &'a Outbox,
    shown: String,
    epoch: String,
    after: u64,
}

/// Replays a stream to a client. Returns when the client receives it from the hub, or when its connection is to end.
pub(super) async fn replay(services: &Services, outbox: &Outbox, session: &SessionId, entry: StreamEntry) {
    let StreamEntry { stream, shown, end, epoch, after } = entry;
    let hub = &services.hub;
    hub.observe_end(&stream, &end);
    let mut cursor = ReplayCursor { outbox, shown, epoch, after };
    cursor.apply_epoch(&end);
    let mut fruitless = 0;
    while fruitless < READS_MAX {
        outbox.wait_for_space().await;
        let (display, epoch, after) = (&cursor.shown, &cursor.epoch, cursor.after);
        let join = FeedJoin { display, session, outbox, epoch, after };
        if outbox.close_code().is_some() || hub.complete_join(&stream, &join) == JoinProgress::Entered {
            return;
        }
        if cursor.after > end.seq.saturating_add(SLOW_READER.replay_lag_messages_max) {
            outbox.close(CloseCode::Slow);
            return;
        }
        let has_progress = match services.backplane.read_after(&stream, cursor.after, PAGE).await {
            Ok(page) => {
                hub.observe_end(&stream, &page.end);
                let delivered = cursor.send_page(page).await;
                services.metrics.counts.delivered.inc_by(delivered.unwrap_or(0));
                delivered.is_some()
            }
            Err(error) => {
                tracing::debug!(%error, "replay page not read");
                false
            }
        };
        fruitless = if has_progress { 0 } else { fruitless + 1 };
        if !has_progress {
            pause(fruitless).await;
        }
    }
    outbox.close(CloseCode::Restart);
}

impl ReplayCursor<'_> {
    /// Sends a page to the client, at its pace. Returns the number of messages; `None` if the position did not change.
    async fn send_page(&mut self, page: ReplayPage) -> Option<u64> {
        let before = self.after;
        if self.apply_epoch(&page.end) && self.after < before {
            // The page begins behind the client's new position.
            return Some(0);
        }
        let count = page.messages.len() as u64;
        for mut message in page.messages {
            self.skip_to(message.seq.saturating_sub(1));
            self.after = message.seq;
            self.outbox.wait_for_space().await;
            self.shown.clone_into(&mut message.to);
            self.send(Event::Message(message));
        }
        self.skip_to(page.through);
        (self.after > before).then_some(count)
    }

    /// Moves the client to the stream's current epoch, and reports how much of its position is still valid. Returns
    /// true if the epoch has changed.
    fn apply_epoch(&mut self, end: &StreamEnd) -> bool {
        let shared = end.shares(&self.epoch);
        let (to, epoch) = (self.shown.clone(), end.epoch.clone());
        if !end.holds(&self.epoch, self.after) {
            self.after = shared;
            self.send(Event::Rewound { to, epoch, seq: shared });
        } else if self.epoch != end.epoch {
            self.send(Event::Epoch { to, epoch, seq: self.after });
        } else {
            return false;
        }
        self.epoch.clone_from(&end.epoch);
        true
    }

    fn skip_to(&mut self, seq: u64) {
        if seq > self.after {
            self.send(Event::Gap { to: self.shown.clone(), from_seq: self.after + 1, to_seq: seq });
            self.after = seq;
        }
    }

    fn send(&self, event: Event) {
        self.outbox.push_event(&Broadcast::new(event));
    }
}
