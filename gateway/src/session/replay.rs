//! Brings a client to where the hub is in a log that it has just entered: what it missed is read from there, page by page
//! and at the pace of its reader, until the hub can go on. Called by the driver.
//!
//! The hub keeps what is said meanwhile, as far as it is worth it; the rest is in the log. So nothing is lost or doubled at
//! the seam, however long it takes. What the log keeps no more is told as a gap, and a position from an epoch that has
//! ended as `epoch` or `rewound`.

use presence::model::SessionId;
use presence::model::codes::CloseCode;
use presence::model::stream::StreamEnd;

use crate::backplane::ReplayPage;
use crate::hub::{FeedJoin, JoinProgress};
use crate::wire::Event;

use crate::outbound::outbox::{Broadcast, Outbox};
use crate::outbound::policy::SLOW_READER;
use crate::session::core::Entrance;
use crate::session::driver::Services;
use crate::session::retry::pause;

/// Messages of one page.
const PAGE: usize = 200;
/// Reads in a row that brought nothing, before the client is sent to try again from where it is.
const ATTEMPTS: u32 = 10;

/// Where the client is.
struct Cursor<'a> {
    outbox: &'a Outbox,
    shown: String,
    epoch: String,
    after: u64,
}

/// Returns when the client is in, or its connection is to end.
pub(super) async fn catch_up(services: &Services, outbox: &Outbox, session: &SessionId, entrance: Entrance) {
    let Entrance { log, shown, head, epoch, after } = entrance;
    let hub = &services.hub;
    hub.begin(&log, &head);
    let mut cursor = Cursor { outbox, shown, epoch, after };
    cursor.turn(&head);
    let mut fruitless = 0;
    while fruitless < ATTEMPTS {
        outbox.has_room().await;
        let (display, epoch, after) = (&cursor.shown, &cursor.epoch, cursor.after);
        let request = FeedJoin { display, session, outbox, epoch, after };
        if outbox.closing().is_some() || hub.admit(&log, &request) == JoinProgress::Entered {
            return;
        }
        if cursor.after > head.top.saturating_add(SLOW_READER.replay_lag_messages_max) {
            outbox.close(CloseCode::Slow);
            return;
        }
        let progress = match services.backplane.read_after(&log, cursor.after, PAGE).await {
            Ok(page) => {
                hub.begin(&log, &page.head);
                let delivered = cursor.give(page).await;
                services.metrics.counts.delivered.inc_by(delivered.unwrap_or(0));
                delivered.is_some()
            }
            Err(error) => {
                tracing::debug!(%error, "what was missed could not be read");
                false
            }
        };
        fruitless = if progress { 0 } else { fruitless + 1 };
        if !progress {
            pause(fruitless).await;
        }
    }
    outbox.close(CloseCode::Restart);
}

impl Cursor<'_> {
    /// Gives a page to the client, at its pace. Returns how many messages that were; `None` when it brought nothing.
    async fn give(&mut self, page: ReplayPage) -> Option<u64> {
        let before = self.after;
        if self.turn(&page.head) && self.after < before {
            // The page begins behind where the client is now.
            return Some(0);
        }
        let count = page.messages.len() as u64;
        for mut message in page.messages {
            self.skip_to(message.seq.saturating_sub(1));
            self.after = message.seq;
            self.outbox.has_room().await;
            self.shown.clone_into(&mut message.to);
            self.tell(Event::Message(message));
        }
        self.skip_to(page.through);
        (self.after > before).then_some(count)
    }

    /// Tells the client what its position is worth in the log as it is now, if that has another history. Returns whether
    /// it has.
    fn turn(&mut self, head: &StreamEnd) -> bool {
        let shared = head.shares(&self.epoch);
        let (to, epoch) = (self.shown.clone(), head.epoch.clone());
        if self.after > shared {
            self.after = shared;
            self.tell(Event::Rewound { to, epoch, seq: shared });
        } else if self.epoch != head.epoch {
            self.tell(Event::Epoch { to, epoch, seq: self.after });
        } else {
            return false;
        }
        self.epoch.clone_from(&head.epoch);
        true
    }

    fn skip_to(&mut self, seq: u64) {
        if seq > self.after {
            self.tell(Event::Gap { to: self.shown.clone(), from_seq: self.after + 1, to_seq: seq });
            self.after = seq;
        }
    }

    fn tell(&self, event: Event) {
        self.outbox.event(&Broadcast::new(event));
    }
}
