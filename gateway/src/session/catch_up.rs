//! Brings a member that has just joined a room to where the hub is: what it missed is read from the room's log, page by
//! page and at the pace of its reader, until the hub can go on from there. Called by the driver.
//!
//! The hub keeps what is said meanwhile, as far as it is worth it; the rest is in the log. So nothing is lost or doubled at
//! the seam, however long it takes. What the log keeps no more is told as a gap.

use presence::codes::CloseCode;
use presence::model::{RoomName, SessionId};

use crate::backplane::Missed;
use crate::hub::Admission;
use crate::wire::Event;

use super::core::Entrance;
use super::driver::Services;
use super::outbox::{Broadcast, Outbox};
use super::retry::pause;

/// Messages of one page.
const PAGE: usize = 200;
/// A member for whom the room has said so much more while it caught up reads too slowly to ever be there.
const MOST_MEANWHILE: u64 = 10_000;
/// Reads in a row that brought nothing, before the client is sent to try again from where it is.
const ATTEMPTS: u32 = 10;

/// Where the client is.
struct Cursor<'a> {
    outbox: &'a Outbox,
    room: RoomName,
    epoch: String,
    after: u64,
}

/// Returns when the member is in, or its connection is to end.
pub(super) async fn catch_up(services: &Services, outbox: &Outbox, session: &SessionId, entrance: Entrance) {
    let Entrance { room, epoch, top, after } = entrance;
    let (hub, key) = (&services.hub, room.key().clone());
    hub.begin(&key, &epoch, top);
    let mut cursor = Cursor { outbox, room, epoch, after };
    let mut fruitless = 0;
    while fruitless < ATTEMPTS {
        outbox.has_room().await;
        if outbox.closing().is_some()
            || hub.admit(&cursor.room, session, &cursor.epoch, cursor.after) == Admission::Entered
        {
            return;
        }
        if cursor.after > top.saturating_add(MOST_MEANWHILE) {
            outbox.close(CloseCode::Slow);
            return;
        }
        let progress = match services.backplane.missed(&key, cursor.after, PAGE).await {
            Ok(Some(page)) => {
                hub.begin(&key, &page.epoch, page.top);
                let delivered = cursor.give(page).await;
                services.metrics.counts.delivered.inc_by(delivered.unwrap_or(0));
                delivered.is_some()
            }
            Ok(None) => false,
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
    async fn give(&mut self, page: Missed) -> Option<u64> {
        if page.epoch != self.epoch || page.top < self.after {
            self.epoch = page.epoch;
            self.after = 0;
            self.tell(Event::Rewound { to: self.shown(), epoch: self.epoch.clone(), seq: 0 });
            return Some(0);
        }
        let (before, count) = (self.after, page.messages.len() as u64);
        for message in page.messages {
            self.skip_to(message.seq.saturating_sub(1));
            self.after = message.seq;
            self.outbox.has_room().await;
            self.tell(Event::Message(message));
        }
        self.skip_to(page.through);
        (self.after > before).then_some(count)
    }

    fn skip_to(&mut self, seq: u64) {
        if seq > self.after {
            self.tell(Event::Gap { to: self.shown(), from_seq: self.after + 1, to_seq: seq });
            self.after = seq;
        }
    }

    fn tell(&self, event: Event) {
        self.outbox.event(&Broadcast::new(event));
    }

    fn shown(&self) -> String {
        self.room.as_str().to_owned()
    }
}
